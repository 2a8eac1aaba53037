//! Good requests about transactions.

use super::*;

/// As [`super::sample`], of the requests about transactions.
pub(super) fn sample(key: ApiKey, version: i16) -> Option<Bytes> {
    let name = || TopicName("topic".into());
    let id = || TransactionalId("id".into());
    Some(match key {
        ApiKey::AddPartitionsToTxn => {
            let topic = add_partitions_to_txn_request::AddPartitionsToTxnTopic::default()
                .with_name(name())
                .with_partitions(vec![1, 2]);
            let request = AddPartitionsToTxnRequest::default()
                .with_v3_and_below_transactional_id(id())
                .with_v3_and_below_topics(vec![topic]);
            encoded(&request, version)
        }
        ApiKey::AddOffsetsToTxn => {
            let request = AddOffsetsToTxnRequest::default().with_transactional_id(id());
            encoded(&request.with_group_id(GroupId("group".into())), version)
        }
        ApiKey::EndTxn => encoded(&EndTxnRequest::default().with_transactional_id(id()), version),
        ApiKey::WriteTxnMarkers => {
            let topic = write_txn_markers_request::WritableTxnMarkerTopic::default()
                .with_name(name())
                .with_partition_indexes(vec![1, 2]);
            let marker =
                write_txn_markers_request::WritableTxnMarker::default().with_topics(vec![topic]);
            encoded(&WriteTxnMarkersRequest::default().with_markers(vec![marker]), version)
        }
        ApiKey::TxnOffsetCommit => {
            let partition = txn_offset_commit_request::TxnOffsetCommitRequestPartition::default()
                .with_committed_metadata(Some("note".into()));
            let topic = txn_offset_commit_request::TxnOffsetCommitRequestTopic::default()
                .with_name(name())
                .with_partitions(vec![partition]);
            let mut request = TxnOffsetCommitRequest::default()
                .with_transactional_id(id())
                .with_topics(vec![topic]);
            if version >= 3 {
                request = request
                    .with_member_id("member".into())
                    .with_group_instance_id(Some("instance".into()));
            }
            encoded(&request, version)
        }
        ApiKey::DescribeProducers => {
            let topic = describe_producers_request::TopicRequest::default()
                .with_name(name())
                .with_partition_indexes(vec![1, 2]);
            encoded(&DescribeProducersRequest::default().with_topics(vec![topic]), version)
        }
        ApiKey::DescribeTransactions => {
            let request = DescribeTransactionsRequest::default();
            encoded(&request.with_transactional_ids(vec![id()]), version)
        }
        ApiKey::ListTransactions => {
            let mut request = ListTransactionsRequest::default()
                .with_state_filters(vec!["Ongoing".into()])
                .with_producer_id_filters(vec![ProducerId(1), ProducerId(2)]);
            if version >= 2 {
                request = request.with_transactional_id_pattern(Some("id.*".into()));
            }
            encoded(&request, version)
        }
        _ => return None,
    })
}
