//! What was written long ago: a topic whose records are merged and lie in the store, and who reads
//! it.

use std::collections::VecDeque;
use std::time::Duration;

use bytes::Bytes;
use kafka_protocol::messages::fetch_request::{FetchPartition, FetchTopic};
use kafka_protocol::messages::{BrokerId, FetchRequest, ProduceRequest};
use odradek_tests::batches::{BatchSpec, filler};
use odradek_tests::client::{Client, produce_request, topic};
use odradek_tests::process::BrokerProcess;
use tokio::time::sleep;

const TOPIC: &str = "old";
pub(crate) const PARTITIONS: i32 = 16;

/// What was written a little later.
const YOUNGER: &str = "younger";

/// How often a broker that writes what will be old is to merge.
pub(crate) const MERGING: [&str; 2] = ["--merge-interval-ms", "500"];

/// Brokers that read it merge nothing.
pub(crate) const NO_MERGING: [&str; 2] = ["--merge-interval-ms", "86400000"];

/// Bytes in a batch.
const BATCH: u32 = 16 << 10;

/// Bytes of a batch before its records.
const HEADER: usize = 61;

/// Requests in flight.
const WINDOW: usize = 64;

/// MiB of segments that wait until there are more of them.
const UNMERGED_MAX_MIB: u32 = 64;

/// Nothing is merged any more if nothing was for so long.
const MERGING_PAUSE_MAX: Duration = Duration::from_secs(3);

/// Writes so much, and waits until it is merged. What is merged last waits for more, so something
/// else is written behind it.
pub(crate) async fn write(broker: &BrokerProcess, client: &mut Client, mib: u32) {
    for (topic, mib) in [(TOPIC, mib), (YOUNGER, UNMERGED_MAX_MIB)] {
        // Which is never too old.
        let kept = [("retention.ms", "-1")];
        client.create_topic_with(topic, PARTITIONS, &kept).await;
        fill(client, topic, mib).await;
    }
    let mut merged = -1.0;
    loop {
        let page = broker.metrics().await;
        let unmerged = page.sum("odradek_segments_bytes{level=\"0\"") / f64::from(1 << 20);
        let bytes = page.sum("odradek_rewrite_bytes_in_total{task=\"merging\"");
        if unmerged < f64::from(UNMERGED_MAX_MIB) && bytes == merged {
            break;
        }
        merged = bytes;
        sleep(MERGING_PAUSE_MAX).await;
    }
}

async fn fill(client: &mut Client, topic: &str, mib: u32) {
    let mut sent = VecDeque::new();
    let batches = mib * 1024 / (BATCH / 1024);
    for (number, partition) in (0..batches.into()).zip((0..PARTITIONS).cycle()) {
        if sent.len() == WINDOW {
            let response = client.receive::<ProduceRequest>(9, sent.pop_front().unwrap()).await;
            assert_eq!(response.responses[0].partition_responses[0].error_code, 0);
        }
        let batch = BatchSpec::of([filler(BATCH, number)]).encode();
        let request = produce_request(topic, partition, -1, batch);
        sent.push_back(client.send(9, &request).await);
    }
    for id in sent {
        client.receive::<ProduceRequest>(9, id).await;
    }
}

/// Where a reader is in a partition.
#[derive(Clone, Copy, Default)]
pub(crate) struct Place {
    next: i64,
    end: Option<i64>,
}

impl Place {
    pub(crate) fn is_at_end(self) -> bool {
        self.end == Some(self.next)
    }
}

/// The beginnings of all partitions.
pub(crate) fn new_places() -> Vec<Place> {
    vec![Place::default(); usize::try_from(PARTITIONS).unwrap()]
}

/// Asks for what comes next of all partitions, and returns how many bytes of batches came.
pub(crate) async fn read_more(client: &mut Client, places: &mut [Place]) -> f64 {
    let mut bytes = 0.0;
    let answer = client.call(11, &request(places)).await;
    assert_eq!(answer.error_code, 0, "{answer:?}");
    for partition in &answer.responses[0].partitions {
        assert_eq!(partition.error_code, 0, "{partition:?}");
        let place = &mut places[usize::try_from(partition.partition_index).unwrap()];
        place.end = Some(partition.high_watermark);
        if let Some(records) = partition.records.as_ref().filter(|it| !it.is_empty()) {
            place.next = end(records);
            bytes += f64::from(u32::try_from(records.len()).unwrap());
        }
    }
    bytes
}

/// As Java's consumer asks by default: a MiB of each partition.
fn request(places: &[Place]) -> FetchRequest {
    let partitions = (0..).zip(places).map(|(partition, place)| {
        FetchPartition::default()
            .with_partition(partition)
            .with_fetch_offset(place.next)
            .with_partition_max_bytes(1 << 20)
    });
    let asked =
        FetchTopic::default().with_topic(topic(TOPIC)).with_partitions(partitions.collect());
    FetchRequest::default()
        .with_replica_id(BrokerId(-1))
        .with_max_wait_ms(500)
        .with_min_bytes(1)
        .with_max_bytes(50 << 20)
        .with_session_epoch(-1)
        .with_topics(vec![asked])
}

/// The offset behind the last batch.
fn end(records: &Bytes) -> i64 {
    let (mut at, mut end) = (0, 0);
    while at + HEADER <= records.len() {
        let base = i64::from_be_bytes(records[at..at + 8].try_into().unwrap());
        let length = u32::from_be_bytes(records[at + 8..at + 12].try_into().unwrap());
        let last = i32::from_be_bytes(records[at + 23..at + 27].try_into().unwrap());
        end = base + i64::from(last) + 1;
        at += 12 + usize::try_from(length).unwrap();
    }
    end
}
