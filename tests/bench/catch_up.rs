//! A consumer that reads through what was written before, as fast as it comes, again and again.
//!
//! It has a thread of its own, so that it keeps nobody waiting but by using a processor.

use std::net::SocketAddr;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread::{self, JoinHandle};
use std::time::{Duration, Instant};

use bytes::Bytes;
use kafka_protocol::messages::fetch_request::{FetchPartition, FetchTopic};
use kafka_protocol::messages::{BrokerId, FetchRequest};
use odradek_tests::client::{Client, topic};

/// What is read through.
pub(crate) const TOPIC: &str = "old";
pub(crate) const PARTITIONS: i32 = 16;

/// Bytes of a batch before its records.
const HEADER: usize = 61;

/// A consumer that catches up until it is stopped.
pub(crate) struct CatchUp {
    is_stopped: Arc<AtomicBool>,
    reading: JoinHandle<(f64, Duration)>,
}

impl CatchUp {
    /// Begins to read from a broker.
    pub(crate) fn start(address: SocketAddr) -> Self {
        let is_stopped = Arc::new(AtomicBool::new(false));
        let stopped = Arc::clone(&is_stopped);
        let reading = thread::spawn(move || {
            let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build();
            runtime.unwrap().block_on(read(address, &stopped))
        });
        Self { is_stopped, reading }
    }

    /// Stops; the bytes of batches that it was sent, and in what time.
    pub(crate) fn stop(self) -> (f64, Duration) {
        self.is_stopped.store(true, Ordering::Relaxed);
        self.reading.join().unwrap()
    }
}

async fn read(address: SocketAddr, is_stopped: &AtomicBool) -> (f64, Duration) {
    let mut client = Client::connect(address).await;
    let mut offsets = vec![0; usize::try_from(PARTITIONS).unwrap()];
    let (began, mut bytes) = (Instant::now(), 0.0);
    while !is_stopped.load(Ordering::Relaxed) {
        let answer = client.call(11, &request(&offsets)).await;
        assert_eq!(answer.error_code, 0, "{answer:?}");
        for partition in &answer.responses[0].partitions {
            assert_eq!(partition.error_code, 0, "{partition:?}");
            let offset = &mut offsets[usize::try_from(partition.partition_index).unwrap()];
            if let Some(records) = partition.records.as_ref().filter(|it| !it.is_empty()) {
                *offset = end(records);
                bytes += f64::from(u32::try_from(records.len()).unwrap());
            }
            if *offset >= partition.high_watermark {
                *offset = 0;
            }
        }
    }
    (bytes, began.elapsed())
}

/// As Java's consumer asks by default: a MiB of each partition.
fn request(offsets: &[i64]) -> FetchRequest {
    let partitions = (0..).zip(offsets).map(|(partition, offset)| {
        FetchPartition::default()
            .with_partition(partition)
            .with_fetch_offset(*offset)
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
