//! Produce and fetch, over one broker and over several.

use bytes::Bytes;
use kafka_protocol::messages::fetch_request::{FetchPartition, FetchTopic};
use kafka_protocol::messages::metadata_request::MetadataRequestTopic;
use kafka_protocol::messages::{FetchRequest, MetadataRequest, ProduceRequest};
use odradek_tests::batches::{BatchSpec, read_records};
use odradek_tests::client::{Client, fetch_request, produce_request, topic};
use odradek_tests::cluster::Cluster;
use uuid::Uuid;

async fn one_broker() -> (Cluster, Client) {
    let cluster = Cluster::in_memory(1).await;
    let mut client = Client::connect(cluster.address(0)).await;
    client.create_topic("t", 2).await;
    (cluster, client)
}

#[tokio::test(flavor = "multi_thread")]
async fn pipelined_requests_are_answered_in_order_and_keep_their_order() {
    let (_cluster, mut client) = one_broker().await;
    let mut sent = Vec::new();
    for n in 0..200 {
        let batch = BatchSpec::of([n.to_string()]).encode();
        sent.push(client.send(9, &produce_request("t", 0, -1, batch)).await);
    }
    let mut offsets = Vec::new();
    for id in sent {
        let response = client.receive::<ProduceRequest>(9, id).await;
        offsets.push(response.responses[0].partition_responses[0].base_offset);
    }
    assert_eq!(offsets, (0..200).collect::<Vec<_>>());
    let values: Vec<_> = client.read_all("t", 0, 0).await.into_iter().map(|it| it.value).collect();
    assert_eq!(values, (0..200).map(|n| Bytes::from(n.to_string())).collect::<Vec<_>>());
}

#[tokio::test(flavor = "multi_thread")]
async fn an_idempotent_producer_is_judged_by_its_sequence() {
    let (_cluster, mut client) = one_broker().await;
    let batch = |sequence| BatchSpec::of(["a", "b"]).by(7, 0, sequence);
    assert_eq!(client.produce("t", 0, &batch(0)).await, 0);
    assert_eq!(client.produce("t", 0, &batch(2)).await, 2);
    // Sent twice: the offsets of the first time.
    assert_eq!(client.produce("t", 0, &batch(0)).await, 0);
    assert_eq!(client.produce("t", 0, &batch(2)).await, 2);
    let gap = client.produce_raw("t", 0, batch(9).encode()).await;
    assert_eq!(gap.error_code, 45);
    assert_eq!(client.produce("t", 0, &BatchSpec::of(["c"]).by(7, 1, 0)).await, 4);
    let zombie = client.produce_raw("t", 0, batch(4).encode()).await;
    assert_eq!(zombie.error_code, 47);
    assert_eq!(client.read_all("t", 0, 0).await.len(), 5);
}

#[tokio::test(flavor = "multi_thread")]
async fn what_one_broker_acknowledged_every_other_knows() {
    let cluster = Cluster::in_memory(3).await;
    let mut clients = Vec::new();
    for place in 0..3 {
        clients.push(Client::connect(cluster.address(place)).await);
    }
    clients[0].create_topic("shared", 1).await;
    for n in 0..30_usize {
        let base = clients[n % 3].produce("shared", 0, &BatchSpec::of([n.to_string()])).await;
        assert_eq!(base, i64::try_from(n).unwrap());
        // Asked at once, and of another broker: neither out of range nor an older end.
        let other = &mut clients[(n + 1) % 3];
        assert_eq!(other.list_offset(7, "shared", 0, -1).await.offset, base + 1);
        let data = other.fetch("shared", 0, base + 1).await;
        assert_eq!(data.error_code, 0);
        let read = other.read_all("shared", 0, base).await;
        assert_eq!(read[0].value, n.to_string());
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_parked_fetch_is_woken_by_a_produce_on_another_broker() {
    let cluster = Cluster::in_memory(2).await;
    let mut consumer = Client::connect(cluster.address(0)).await;
    let mut producer = Client::connect(cluster.address(1)).await;
    consumer.create_topic("t", 1).await;
    let parked = fetch_request("t", 0, 0).with_min_bytes(1).with_max_wait_ms(30_000);
    let id = consumer.send(11, &parked).await;
    producer.produce("t", 0, &BatchSpec::of(["wake up"])).await;
    let response = consumer.receive::<FetchRequest>(11, id).await;
    let data = &response.responses[0].partitions[0];
    assert_eq!(read_records(data.records.clone().unwrap())[0].value, "wake up");
}

#[tokio::test(flavor = "multi_thread")]
async fn the_first_batch_is_given_however_long_it_is() {
    let (_cluster, mut client) = one_broker().await;
    for _ in 0..3 {
        client.produce("t", 0, &BatchSpec::of([vec![1_u8; 100_000]])).await;
    }
    let small = FetchPartition::default().with_fetch_offset(1).with_partition_max_bytes(10);
    let both = FetchTopic::default()
        .with_topic(topic("t"))
        .with_partitions(vec![small.clone(), small.with_partition(1).with_fetch_offset(0)]);
    let request = fetch_request("t", 0, 1).with_max_bytes(10).with_topics(vec![both]);
    let response = client.call(11, &request).await;
    let records = read_records(response.responses[0].partitions[0].records.clone().unwrap());
    assert_eq!(records.iter().map(|it| it.offset).collect::<Vec<_>>(), [1]);
    // Every partition that was asked for is in the response.
    assert_eq!(response.responses[0].partitions.len(), 2);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_fetch_from_the_middle_of_a_batch_gets_the_whole_batch() {
    let (_cluster, mut client) = one_broker().await;
    client.produce("t", 0, &BatchSpec::of(["a", "b", "c"])).await;
    let data = client.fetch("t", 0, 2).await;
    assert_eq!(read_records(data.records.unwrap()).len(), 3);
    let past = client.fetch("t", 0, 4).await;
    assert_eq!((past.error_code, past.high_watermark), (1, 3));
}

#[tokio::test(flavor = "multi_thread")]
async fn offsets_are_found_by_every_kind_of_timestamp() {
    let (_cluster, mut client) = one_broker().await;
    for n in 0..10 {
        let time = 1_700_000_000_000 + n * 1000;
        let batch = BatchSpec { timestamps: (time, time + 500), ..BatchSpec::of(["a", "b"]) };
        client.produce("t", 0, &batch).await;
    }
    let cases = [
        (-1, 7, 0, 20, -1),
        (-2, 7, 0, 0, -1),
        (-3, 7, 0, 19, 1_700_000_009_500),
        (-3, 6, 35, -1, -1),
        (-4, 8, 0, 0, -1),
        (-4, 7, 35, -1, -1),
        (-5, 9, 0, -1, -1),
        (-6, 10, 35, -1, -1),
        (0, 1, 0, 0, 1_700_000_000_000),
        (1_700_000_003_000, 5, 0, 6, 1_700_000_003_000),
        (1_700_000_003_001, 5, 0, 7, 1_700_000_003_500),
        (1_700_000_009_501, 5, 0, -1, -1),
    ];
    for (timestamp, version, code, offset, found) in cases {
        let answer = client.list_offset(version, "t", 0, timestamp).await;
        assert_eq!(
            (answer.error_code, answer.offset, answer.timestamp),
            (code, offset, found),
            "{timestamp} in version {version}"
        );
    }
    assert_eq!(client.list_offset(5, "t", 9, -1).await.error_code, 3);
    assert_eq!(client.list_offset(5, "nope", 0, -1).await.error_code, 3);
}

#[tokio::test(flavor = "multi_thread")]
async fn log_append_time_is_the_brokers() {
    let (_cluster, mut client) = one_broker().await;
    client.create_topic_with("stamped", 1, &[("message.timestamp.type", "LogAppendTime")]).await;
    let answer = client.produce_raw("stamped", 0, BatchSpec::of(["x"]).encode()).await;
    assert!(answer.log_append_time_ms > 1_700_000_000_000, "{answer:?}");
    let read = client.read_all("stamped", 0, 0).await;
    assert_eq!(read.len(), 1);
    let latest = client.list_offset(7, "stamped", 0, -3).await;
    assert_eq!(latest.timestamp, answer.log_append_time_ms);
}

#[tokio::test(flavor = "multi_thread")]
async fn topics_are_known_by_id() {
    let (_cluster, mut client) = one_broker().await;
    client.produce("t", 0, &BatchSpec::of(["x"])).await;
    let asked = MetadataRequestTopic::default().with_name(Some(topic("t")));
    let metadata =
        client.call(12, &MetadataRequest::default().with_topics(Some(vec![asked]))).await;
    let id = metadata.topics[0].topic_id;
    assert!(!id.is_nil());
    for (id, code) in [(id, 0), (Uuid::from_u128(99), 100)] {
        let asked = FetchPartition::default().with_partition_max_bytes(1 << 20);
        let asked = FetchTopic::default().with_topic_id(id).with_partitions(vec![asked]);
        let request = fetch_request("t", 0, 0).with_topics(vec![asked]);
        let response = client.call(13, &request).await;
        assert_eq!(response.responses[0].topic_id, id);
        assert_eq!(response.responses[0].partitions[0].error_code, code);
    }
}
