//! DeleteRecords: a partition begins later from now on, for every broker and for ever.

use std::time::Duration;

use kafka_protocol::messages::delete_records_request::{
    DeleteRecordsPartition, DeleteRecordsTopic,
};
use kafka_protocol::messages::{DeleteRecordsRequest, DeleteTopicsRequest, FetchRequest};
use odradek_tests::batches::{BatchSpec, read_records};
use odradek_tests::client::{Client, fetch_request, topic};
use odradek_tests::cluster::Cluster;
use tokio::time::timeout;

use crate::restart::wait_for_the_lock;

const OFFSET_OUT_OF_RANGE: i16 = 1;
const UNKNOWN_TOPIC_OR_PARTITION: i16 = 3;

/// Asks for the records below these offsets of these partitions to be deleted.
fn delete_request(name: &str, before: &[(i32, i64)]) -> DeleteRecordsRequest {
    let partition = |(index, offset): &(i32, i64)| {
        DeleteRecordsPartition::default().with_partition_index(*index).with_offset(*offset)
    };
    let partitions = before.iter().map(partition).collect();
    let asked = DeleteRecordsTopic::default().with_name(topic(name)).with_partitions(partitions);
    DeleteRecordsRequest::default().with_topics(vec![asked]).with_timeout_ms(30_000)
}

/// What became of them: error code and low watermark, in the order that was asked in.
async fn delete(client: &mut Client, name: &str, before: &[(i32, i64)]) -> Vec<(i16, i64)> {
    let mut response = client.call(2, &delete_request(name, before)).await;
    assert_eq!(response.topics.len(), 1);
    let deleted = response.topics.remove(0);
    assert_eq!(deleted.name, topic(name));
    let indexes = deleted.partitions.iter().map(|it| it.partition_index);
    assert!(indexes.eq(before.iter().map(|(index, _)| *index)));
    deleted.partitions.iter().map(|it| (it.error_code, it.low_watermark)).collect()
}

/// A topic of two partitions, with ten records in the first, two in a batch.
async fn ten_records(client: &mut Client) {
    client.create_topic("t", 2).await;
    for n in 0..5 {
        let time = 1_700_000_000_000 + n * 1000;
        let batch = BatchSpec { timestamps: (time, time + 500), ..BatchSpec::of(["a", "b"]) };
        assert_eq!(client.produce("t", 0, &batch).await, 2 * n);
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn what_is_deleted_is_gone_and_the_rest_stays() {
    let cluster = Cluster::in_memory(1).await;
    let mut client = Client::connect(cluster.address(0)).await;
    ten_records(&mut client).await;
    assert_eq!(delete(&mut client, "t", &[(0, 5)]).await, [(0, 5)]);
    for offset in [0, 4] {
        let gone = client.fetch("t", 0, offset).await;
        assert_eq!((gone.error_code, gone.log_start_offset), (OFFSET_OUT_OF_RANGE, 5));
    }
    // The batch that holds the first record that stays comes whole, as it always does.
    let data = client.fetch("t", 0, 5).await;
    assert_eq!((data.error_code, data.log_start_offset, data.high_watermark), (0, 5, 10));
    let offsets = read_records(data.records.unwrap()).into_iter().map(|it| it.offset);
    assert!(offsets.eq(4..10));
    assert_eq!(client.list_offset(7, "t", 0, -2).await.offset, 5);
    assert_eq!(client.list_offset(7, "t", 0, -1).await.offset, 10);
    // By time as well: the record before would be as good, but for being gone.
    for (timestamp, offset) in [(0, 5), (1_700_000_002_000, 5), (1_700_000_002_501, 6)] {
        assert_eq!(client.list_offset(7, "t", 0, timestamp).await.offset, offset, "{timestamp}");
    }
    assert_eq!(client.list_offset(7, "t", 0, -3).await.offset, 9);
}

#[tokio::test(flavor = "multi_thread")]
async fn the_log_start_offset_moves_forward_only_and_not_past_the_end() {
    let cluster = Cluster::in_memory(1).await;
    let mut client = Client::connect(cluster.address(0)).await;
    ten_records(&mut client).await;
    assert_eq!(delete(&mut client, "t", &[(0, 0)]).await, [(0, 0)]);
    assert_eq!(delete(&mut client, "t", &[(0, 6)]).await, [(0, 6)]);
    assert_eq!(delete(&mut client, "t", &[(0, 3)]).await, [(0, 6)]);
    let refused = [(OFFSET_OUT_OF_RANGE, -1)];
    assert_eq!(delete(&mut client, "t", &[(0, 11)]).await, refused);
    assert_eq!(delete(&mut client, "t", &[(0, -2)]).await, refused);
    assert_eq!(client.list_offset(7, "t", 0, -2).await.offset, 6);
    // Everything there is: what comes then has the next offset.
    assert_eq!(delete(&mut client, "t", &[(0, -1)]).await, [(0, 10)]);
    for timestamp in [-1, -2] {
        assert_eq!(client.list_offset(7, "t", 0, timestamp).await.offset, 10);
    }
    assert_eq!(client.list_offset(7, "t", 0, -3).await.offset, -1);
    assert_eq!(client.list_offset(7, "t", 0, 0).await.offset, -1);
    assert_eq!(client.fetch("t", 0, 10).await.error_code, 0);
    let answer = client.produce_raw("t", 0, BatchSpec::of(["c"]).encode()).await;
    assert_eq!((answer.error_code, answer.base_offset, answer.log_start_offset), (0, 10, 10));
    assert_eq!(client.read_all("t", 0, 10).await.len(), 1);
}

#[tokio::test(flavor = "multi_thread")]
async fn each_partition_has_an_answer_of_its_own() {
    let cluster = Cluster::in_memory(1).await;
    let mut client = Client::connect(cluster.address(0)).await;
    ten_records(&mut client).await;
    let asked = [(0, 2), (1, 0), (7, 0), (1, 1), (-1, 0), (0, 4)];
    let unknown = (UNKNOWN_TOPIC_OR_PARTITION, -1);
    let expected = [(0, 2), (0, 0), unknown, (OFFSET_OUT_OF_RANGE, -1), unknown, (0, 4)];
    assert_eq!(delete(&mut client, "t", &asked).await, expected);
    assert_eq!(delete(&mut client, "nobody", &[(0, 0)]).await, [unknown]);
    for version in [0, 1] {
        let response = client.call(version, &delete_request("t", &[(0, 5)])).await;
        assert_eq!(response.topics[0].partitions[0].low_watermark, 5);
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn every_broker_knows_what_is_gone() {
    let cluster = Cluster::in_memory(2).await;
    let mut first = Client::connect(cluster.address(0)).await;
    let mut second = Client::connect(cluster.address(1)).await;
    // A topic that the other broker has not heard of.
    ten_records(&mut first).await;
    assert_eq!(delete(&mut second, "t", &[(0, 4)]).await, [(0, 4)]);
    assert_eq!(first.list_offset(7, "t", 0, -2).await.offset, 4);
    assert_eq!(first.fetch("t", 0, 3).await.error_code, OFFSET_OUT_OF_RANGE);
    let names = vec![topic("t")];
    let request = DeleteTopicsRequest::default().with_topic_names(names).with_timeout_ms(1000);
    assert_eq!(first.call(5, &request).await.responses[0].error_code, 0);
    let gone = [(UNKNOWN_TOPIC_OR_PARTITION, -1)];
    assert_eq!(delete(&mut second, "t", &[(0, 4)]).await, gone);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_parked_fetch_of_what_is_deleted_is_answered() {
    let cluster = Cluster::in_memory(2).await;
    let mut consumer = Client::connect(cluster.address(0)).await;
    let mut admin = Client::connect(cluster.address(1)).await;
    ten_records(&mut consumer).await;
    let parked = fetch_request("t", 0, 3).with_min_bytes(1 << 19).with_max_wait_ms(i32::MAX);
    let id = consumer.send(11, &parked).await;
    assert_eq!(delete(&mut admin, "t", &[(0, -1)]).await, [(0, 10)]);
    // By itself it would wait for weeks.
    let answered = timeout(Duration::from_secs(60), consumer.receive::<FetchRequest>(11, id));
    let response = answered.await.unwrap();
    assert_eq!(response.responses[0].partitions[0].error_code, OFFSET_OUT_OF_RANGE);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_restart_brings_nothing_back() {
    let folder = tempfile::tempdir().unwrap();
    for (round, log_start) in [(0, 5), (1, 8), (2, 10)] {
        let mut cluster = Cluster::in_folder(folder.path()).await;
        let mut client = Client::connect(cluster.address(0)).await;
        if round == 0 {
            ten_records(&mut client).await;
        } else {
            let before = [5, 8][round - 1];
            assert_eq!(client.list_offset(7, "t", 0, -2).await.offset, before);
            assert_eq!(client.fetch("t", 0, before - 1).await.error_code, OFFSET_OUT_OF_RANGE);
            let read = client.read_all("t", 0, before).await;
            assert!(read.iter().map(|it| it.offset).eq(before..10));
        }
        assert_eq!(delete(&mut client, "t", &[(0, log_start)]).await, [(0, log_start)]);
        cluster.kill(0);
        drop(cluster);
        wait_for_the_lock(folder.path()).await;
    }
}
