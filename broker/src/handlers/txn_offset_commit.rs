//! TxnOffsetCommit: positions that count if their transaction is committed (KIP-98, KIP-447).

use odradek_protocol::ResponseError;
use odradek_protocol::id::ProducerId;
use odradek_protocol::messages::txn_offset_commit_response::{
    TxnOffsetCommitResponsePartition, TxnOffsetCommitResponseTopic,
};
use odradek_protocol::messages::{TxnOffsetCommitRequest, TxnOffsetCommitResponse};
use odradek_storage::command::{CommittedOffset, Committer, ProducerIdAndEpoch};

use crate::asked_offsets::{AskedOffset, CheckedOffsets};
use crate::context::Context;
use crate::error;
use crate::group::Staging;
use crate::session::Session;

/// From this version on a group need not have been added to the transaction (KIP-890).
const IMPLICIT: i16 = 5;

/// From this version on a client understands that its transaction must be aborted.
const ABORTABLE: i16 = 4;

pub(crate) async fn handle(
    context: &Context,
    _: &Session,
    version: i16,
    request: TxnOffsetCommitRequest,
) -> TxnOffsetCommitResponse {
    let refused = if request.transactional_id.is_empty() {
        Some(ResponseError::InvalidRequest)
    } else {
        request.group_id.is_empty().then_some(ResponseError::InvalidGroupId)
    };
    let asked = request.topics.iter().map(|topic| {
        let asked = topic.partitions.iter().map(|it| AskedOffset {
            partition: it.partition_index,
            offset: it.committed_offset,
            leader_epoch: it.committed_leader_epoch,
            metadata: it.committed_metadata.as_ref(),
        });
        (topic.name.as_str(), asked.collect())
    });
    let mut checked = CheckedOffsets::of(context, asked.collect(), refused).await;
    let offsets = std::mem::take(&mut checked.offsets);
    let staged =
        if offsets.is_empty() { 0 } else { stage(context, version, &request, offsets).await };
    let topics = request.topics.iter().enumerate().map(|(topic_at, topic)| {
        let partitions = topic.partitions.iter().enumerate().map(|(at, partition)| {
            TxnOffsetCommitResponsePartition::default()
                .with_partition_index(partition.partition_index)
                .with_error_code(checked.code(topic_at, at, staged))
        });
        TxnOffsetCommitResponseTopic::default()
            .with_name(topic.name.clone())
            .with_partitions(partitions.collect())
    });
    TxnOffsetCommitResponse::default().with_topics(topics.collect())
}

async fn stage(
    context: &Context,
    version: i16,
    request: &TxnOffsetCommitRequest,
    offsets: Vec<CommittedOffset>,
) -> i16 {
    let instance_id = request.group_instance_id.as_ref().map(|it| it.as_str().to_owned());
    let says_who =
        request.generation_id >= 0 || !request.member_id.is_empty() || instance_id.is_some();
    let committer = says_who.then(|| Committer {
        member: request.member_id.as_str().to_owned(),
        instance_id,
        generation: request.generation_id,
    });
    let staging = Staging {
        transactional_id: request.transactional_id.as_str().to_owned(),
        producer: ProducerIdAndEpoch {
            id: ProducerId(request.producer_id.0),
            epoch: request.producer_epoch,
        },
        is_implicit: version >= IMPLICIT,
    };
    let group = request.group_id.as_str();
    let staged = context.groups.stage_offsets(group, staging, committer, offsets).await;
    let Err(refused) = staged else { return 0 };
    error::of_staging(&refused, version >= ABORTABLE).code()
}
