//! Fetch sessions (KIP-227) over connections.

use kafka_protocol::messages::fetch_request::{FetchPartition, FetchTopic, ForgottenTopic};
use kafka_protocol::messages::{FetchRequest, FetchResponse};
use odradek_tests::batches::{BatchSpec, read_records};
use odradek_tests::client::{Client, topic};
use odradek_tests::cluster::Cluster;

const FETCH_SESSION_ID_NOT_FOUND: i16 = 70;
const INVALID_FETCH_SESSION_EPOCH: i16 = 71;
const FETCH_SESSION_TOPIC_ID_ERROR: i16 = 106;

/// A request in a session for these partitions, each from this offset on.
fn request(id: i32, epoch: i32, partitions: &[(i32, i64)]) -> FetchRequest {
    let partitions: Vec<_> = partitions
        .iter()
        .map(|(partition, offset)| {
            let asked = FetchPartition::default().with_partition(*partition);
            asked.with_fetch_offset(*offset).with_partition_max_bytes(1 << 20)
        })
        .collect();
    let topics = match partitions.is_empty() {
        true => Vec::new(),
        false => {
            vec![FetchTopic::default().with_topic(topic("t")).with_partitions(partitions)]
        }
    };
    FetchRequest::default()
        .with_max_wait_ms(0)
        .with_max_bytes(50 << 20)
        .with_session_id(id)
        .with_session_epoch(epoch)
        .with_topics(topics)
}

/// The partitions of a response and how many records each has.
fn counts(response: &FetchResponse) -> Vec<(i32, usize)> {
    assert_eq!(response.error_code, 0, "{response:?}");
    let partitions = response.responses.iter().flat_map(|topic| &topic.partitions);
    let count = partitions.map(|it| {
        assert_eq!(it.error_code, 0, "{it:?}");
        let records = it.records.clone().filter(|bytes| !bytes.is_empty());
        (it.partition_index, records.map_or(0, |bytes| read_records(bytes).len()))
    });
    count.collect()
}

#[tokio::test(flavor = "multi_thread")]
async fn a_consumer_says_and_is_told_only_what_changes() {
    let cluster = Cluster::in_memory(1).await;
    let mut client = Client::connect(cluster.address(0)).await;
    client.create_topic("t", 4).await;
    client.produce("t", 1, &BatchSpec::of(["a"])).await;
    let whole = client.call(11, &request(0, 0, &[(3, 0), (1, 0), (0, 0)])).await;
    assert_eq!(counts(&whole), [(3, 0), (1, 1), (0, 0)]);
    let id = whole.session_id;
    assert!(id > 0);
    let next = client.call(11, &request(id, 1, &[(1, 1)])).await;
    assert_eq!((next.session_id, counts(&next)), (id, vec![]));

    client.produce("t", 0, &BatchSpec::of(["b", "c"])).await;
    client.produce("t", 2, &BatchSpec::of(["d"])).await;
    assert_eq!(counts(&client.call(11, &request(id, 2, &[])).await), [(0, 2)]);
    // It did not move on, so it is given the same; and what is new is read also.
    let read = client.call(11, &request(id, 3, &[(2, 0)])).await;
    assert_eq!(counts(&read), [(2, 1), (0, 2)]);
    let gone = ForgottenTopic::default().with_topic(topic("t")).with_partitions(vec![0]);
    let moved = request(id, 4, &[(2, 1)]).with_forgotten_topics_data(vec![gone]);
    assert_eq!(counts(&client.call(11, &moved).await), []);
    client.produce("t", 0, &BatchSpec::of(["e"])).await;
    assert_eq!(counts(&client.call(11, &request(id, 5, &[])).await), []);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_parked_fetch_in_a_session_is_woken_for_any_of_its_partitions() {
    let cluster = Cluster::in_memory(2).await;
    let mut consumer = Client::connect(cluster.address(0)).await;
    let mut producer = Client::connect(cluster.address(1)).await;
    consumer.create_topic("t", 100).await;
    let all: Vec<_> = (0..100).map(|it| (it, 0)).collect();
    let id = consumer.call(11, &request(0, 0, &all)).await.session_id;
    let patient = request(id, 1, &[]).with_max_wait_ms(30_000).with_min_bytes(1);
    let sent = consumer.send(11, &patient).await;
    producer.produce("t", 77, &BatchSpec::of(["x"])).await;
    let woken = consumer.receive::<FetchRequest>(11, sent).await;
    assert_eq!(counts(&woken), [(77, 1)]);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_session_is_known_on_its_connection_and_at_its_epoch_only() {
    let cluster = Cluster::in_memory(1).await;
    let mut client = Client::connect(cluster.address(0)).await;
    client.create_topic("t", 1).await;
    let id = client.call(11, &request(0, 0, &[(0, 0)])).await.session_id;
    let mut other = Client::connect(cluster.address(0)).await;
    let refusal = |response: FetchResponse| {
        assert_eq!((response.session_id, response.responses.len()), (0, 0));
        response.error_code
    };
    let elsewhere = other.call(11, &request(id, 1, &[])).await;
    assert_eq!(refusal(elsewhere), FETCH_SESSION_ID_NOT_FOUND);
    let early = client.call(11, &request(id, 2, &[])).await;
    assert_eq!(refusal(early), INVALID_FETCH_SESSION_EPOCH);
    let by_id = client.call(13, &request(id, 1, &[])).await;
    assert_eq!(refusal(by_id), FETCH_SESSION_TOPIC_ID_ERROR);
    assert_eq!(counts(&client.call(11, &request(id, 1, &[])).await), []);
    // Closed, it still answers all that is asked.
    let last = client.call(11, &request(id, -1, &[(0, 0)])).await;
    assert_eq!((last.session_id, counts(&last)), (0, vec![(0, 0)]));
    let closed = client.call(11, &request(id, 2, &[])).await;
    assert_eq!(refusal(closed), FETCH_SESSION_ID_NOT_FOUND);
}
