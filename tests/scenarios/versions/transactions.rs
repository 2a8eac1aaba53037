//! Every version of the APIs of transactions: one is begun, filled, looked at and ended.

use kafka_protocol::messages::add_partitions_to_txn_request::AddPartitionsToTxnTopic;
use kafka_protocol::messages::describe_producers_request::TopicRequest;
use kafka_protocol::messages::txn_offset_commit_request::{
    TxnOffsetCommitRequestPartition, TxnOffsetCommitRequestTopic,
};
use kafka_protocol::messages::write_txn_markers_request::{
    WritableTxnMarker, WritableTxnMarkerTopic,
};
use kafka_protocol::messages::*;
use kafka_protocol::protocol::StrBytes;
use odradek_tests::batches::BatchSpec;
use odradek_tests::client::{Client, fetch_request, produce_request, topic};
use uuid::Uuid;

use super::scene;

/// A producer with a transactional id.
struct Transactional {
    id: TransactionalId,
    producer: ProducerId,
    epoch: i16,
}

impl Transactional {
    async fn init(client: &mut Client, version: i16, id: &str) -> Self {
        let id = TransactionalId(StrBytes::from_string(id.to_owned()));
        let request = InitProducerIdRequest::default()
            .with_transactional_id(Some(id.clone()))
            .with_transaction_timeout_ms(60_000)
            .with_producer_epoch(-1)
            .with_producer_id(ProducerId(-1));
        let response = client.call(version, &request).await;
        assert_eq!(response.error_code, 0, "v{version}");
        Self { id, producer: response.producer_id, epoch: response.producer_epoch }
    }

    async fn add(&self, client: &mut Client, version: i16) -> i16 {
        let asked =
            AddPartitionsToTxnTopic::default().with_name(topic("t")).with_partitions(vec![0]);
        let request = AddPartitionsToTxnRequest::default()
            .with_v3_and_below_transactional_id(self.id.clone())
            .with_v3_and_below_producer_id(self.producer)
            .with_v3_and_below_producer_epoch(self.epoch)
            .with_v3_and_below_topics(vec![asked]);
        let response = client.call(version, &request).await;
        let topic = &response.results_by_topic_v3_and_below[0];
        topic.results_by_partition[0].partition_error_code
    }

    async fn add_group(&self, client: &mut Client, version: i16, group: &GroupId) -> i16 {
        let request = AddOffsetsToTxnRequest::default()
            .with_transactional_id(self.id.clone())
            .with_producer_id(self.producer)
            .with_producer_epoch(self.epoch)
            .with_group_id(group.clone());
        client.call(version, &request).await.error_code
    }

    async fn produce(&self, client: &mut Client, version: i16, id: Uuid, sequence: i32) -> i16 {
        let batch = BatchSpec { attributes: 0x10, ..BatchSpec::of(["x"]) };
        let batch = batch.by(self.producer.0, self.epoch, sequence);
        let mut request = produce_request("t", 0, -1, batch.encode());
        request.transactional_id = Some(self.id.clone());
        if version >= 13 {
            request.topic_data[0].name = TopicName::default();
            request.topic_data[0].topic_id = id;
        }
        client.call(version, &request).await.responses[0].partition_responses[0].error_code
    }

    async fn stage(&self, client: &mut Client, version: i16, group: &GroupId) -> i16 {
        let partition = TxnOffsetCommitRequestPartition::default()
            .with_committed_offset(i64::from(version))
            .with_committed_metadata(Some("note".into()));
        let asked = TxnOffsetCommitRequestTopic::default()
            .with_name(topic("t"))
            .with_partitions(vec![partition]);
        let request = TxnOffsetCommitRequest::default()
            .with_transactional_id(self.id.clone())
            .with_group_id(group.clone())
            .with_producer_id(self.producer)
            .with_producer_epoch(self.epoch)
            .with_generation_id(-1)
            .with_topics(vec![asked]);
        client.call(version, &request).await.topics[0].partitions[0].error_code
    }

    async fn end(&self, client: &mut Client, version: i16, commits: bool) -> EndTxnResponse {
        let request = EndTxnRequest::default()
            .with_transactional_id(self.id.clone())
            .with_producer_id(self.producer)
            .with_producer_epoch(self.epoch)
            .with_committed(commits);
        client.call(version, &request).await
    }
}

/// Last stable offset and high watermark, and the first offsets of aborted transactions.
async fn stable(client: &mut Client) -> (i64, i64, Vec<i64>) {
    let mut request = fetch_request("t", 0, 0);
    request.isolation_level = 1;
    let mut response = client.call(11, &request).await;
    let found = response.responses.remove(0).partitions.remove(0);
    let aborted = found.aborted_transactions.unwrap_or_default();
    let aborted = aborted.into_iter().map(|it| it.first_offset).collect();
    (found.last_stable_offset, found.high_watermark, aborted)
}

async fn committed(client: &mut Client, group: &GroupId) -> i64 {
    let asked = offset_fetch_request::OffsetFetchRequestTopic::default()
        .with_name(topic("t"))
        .with_partition_indexes(vec![0]);
    let request = OffsetFetchRequest::default()
        .with_group_id(group.clone())
        .with_topics(Some(vec![asked]))
        .with_require_stable(true);
    let found = client.call(7, &request).await.topics.remove(0).partitions.remove(0);
    if found.error_code == 0 { found.committed_offset } else { i64::from(-found.error_code) }
}

#[tokio::test(flavor = "multi_thread")]
async fn every_epoch_fences_the_one_before_in_every_version() {
    let (_cluster, mut client, _) = scene().await;
    let mut before: Option<Transactional> = None;
    for version in 0..=5_i16 {
        let now = Transactional::init(&mut client, version, "id").await;
        assert_eq!(now.epoch, version);
        if let Some(before) = before {
            assert_eq!(before.producer, now.producer);
            let code = if version >= 2 { 90 } else { 47 };
            assert_eq!(before.add(&mut client, version.min(3)).await, code, "v{version}");
            assert_eq!(before.end(&mut client, version, true).await.error_code, code);
        }
        before = Some(now);
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_client_that_names_its_partitions_transacts_in_every_version() {
    let (_cluster, mut client, id) = scene().await;
    let group = GroupId("g".into());
    let mut end = 1;
    for version in 0..=4_i16 {
        let commits = version != 2;
        let name = format!("first-{version}");
        let it = Transactional::init(&mut client, 4, &name).await;
        let not_added = if version == 4 { 120 } else { 48 };
        let produce = 3 + version * 2;
        assert_eq!(it.produce(&mut client, produce, id, 0).await, not_added, "v{produce}");
        assert_eq!(it.add(&mut client, version.min(3)).await, 0);
        assert_eq!(it.stage(&mut client, version, &group).await, not_added, "v{version}");
        assert_eq!(it.add_group(&mut client, version, &group).await, 0);
        assert_eq!(it.produce(&mut client, produce, id, 0).await, 0);
        assert_eq!(it.stage(&mut client, version, &group).await, 0);
        let aborted = if version > 2 { vec![5] } else { vec![] };
        assert_eq!(stable(&mut client).await, (end, end + 1, aborted), "v{version}");
        assert_eq!(committed(&mut client, &group).await, -88);
        assert_eq!(it.end(&mut client, version, commits).await.error_code, 0);
        end += 2;
        assert_eq!(stable(&mut client).await.0, end);
        let last = if commits { version } else { version - 1 };
        assert_eq!(committed(&mut client, &group).await, i64::from(last));
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_client_that_names_nothing_has_an_epoch_for_each_transaction() {
    let (_cluster, mut client, id) = scene().await;
    let group = GroupId("g".into());
    let mut it = Transactional::init(&mut client, 5, "second").await;
    for (at, version) in [12, 13, 13].into_iter().enumerate() {
        let commits = at != 1;
        assert_eq!(it.produce(&mut client, version, id, 0).await, 0);
        assert_eq!(it.stage(&mut client, 5, &group).await, 0);
        let ended = it.end(&mut client, 5, commits).await;
        assert_eq!((ended.error_code, ended.producer_id), (0, it.producer));
        assert_eq!(ended.producer_epoch, it.epoch + 1);
        // Asked again, because the answer was lost, it says the same.
        assert_eq!(it.end(&mut client, 5, commits).await, ended);
        assert_eq!(it.produce(&mut client, version, id, 1).await, 47);
        it.epoch = ended.producer_epoch;
    }
    assert_eq!(stable(&mut client).await, (7, 7, vec![3]));
    assert_eq!(committed(&mut client, &group).await, 5);
}

#[tokio::test(flavor = "multi_thread")]
async fn what_is_open_is_shown_and_can_be_aborted() {
    let (_cluster, mut client, id) = scene().await;
    let it = Transactional::init(&mut client, 5, "open").await;
    assert_eq!(it.produce(&mut client, 12, id, 0).await, 0);

    for version in 0..=2 {
        let request = ListTransactionsRequest::default().with_duration_filter(-1);
        let listed = client.call(version, &request).await.transaction_states;
        let states: Vec<_> =
            listed.iter().map(|it| (it.producer_id, it.transaction_state.as_str())).collect();
        assert_eq!(states, [(it.producer, "Ongoing")], "v{version}");
    }
    let request =
        DescribeTransactionsRequest::default().with_transactional_ids(vec![it.id.clone()]);
    let described = client.call(0, &request).await.transaction_states.remove(0);
    assert_eq!(described.transaction_state.as_str(), "Ongoing");
    assert_eq!((described.producer_id, described.producer_epoch), (it.producer, it.epoch));
    assert_eq!(
        (described.topics[0].topic.as_str(), &described.topics[0].partitions),
        ("t", &vec![0])
    );

    let asked = TopicRequest::default().with_name(topic("t")).with_partition_indexes(vec![0]);
    let request = DescribeProducersRequest::default().with_topics(vec![asked]);
    let producers = client.call(0, &request).await.topics.remove(0).partitions.remove(0);
    let producer = &producers.active_producers[0];
    assert_eq!((producer.producer_id, producer.last_sequence), (it.producer, 0));
    assert_eq!(producer.current_txn_start_offset, 1);

    let asked =
        WritableTxnMarkerTopic::default().with_name(topic("t")).with_partition_indexes(vec![0]);
    let marker = WritableTxnMarker::default()
        .with_producer_id(it.producer)
        .with_producer_epoch(it.epoch)
        .with_topics(vec![asked]);
    for (commits, code) in [(true, 48), (false, 0)] {
        let marker = marker.clone().with_transaction_result(commits);
        let request = WriteTxnMarkersRequest::default().with_markers(vec![marker]);
        let answered = client.call(1, &request).await.markers.remove(0).topics.remove(0);
        assert_eq!(answered.partitions[0].error_code, code);
    }
    assert_eq!(stable(&mut client).await, (3, 3, vec![1]));
    assert_eq!(it.produce(&mut client, 12, id, 1).await, 47);
}
