//! Consumers: what is shown to them, and what they make of it, as the Java client does.

use std::collections::BTreeSet;

use bytes::Bytes;
use odradek_protocol::id::{Offset, TopicPartition};
use odradek_storage::engine::Engine;
use odradek_storage::reader::{FetchError, FetchTarget, Fetched, Isolation, Watermarks};

use crate::batches::{ReadBatch, ReadContent, read_batches};

/// A part of a partition, as a consumer sees it.
#[derive(Clone, Debug)]
pub struct Chunk {
    /// Whether only what is committed was to be seen.
    pub is_committed: bool,
    /// The offset that was asked for.
    pub from: i64,
    /// Where to go on.
    pub next: i64,
    /// Offsets and values of what is to be seen.
    pub records: Vec<(i64, Bytes)>,
    /// Where the partition begins and ends.
    pub watermarks: Watermarks,
}

/// Reads a part of a partition from a broker. As in a Fetch request, an offset that the broker does
/// not know is looked for again when it has followed the log to its tail.
pub async fn fetch(
    engine: &Engine,
    (partition, offset): (TopicPartition, i64),
    bytes_max: usize,
    isolation: Isolation,
) -> Result<Chunk, FetchError> {
    let target = FetchTarget { partition, offset: Offset(offset), bytes_max };
    let plan = || engine.reader.plan(&[target], bytes_max, isolation);
    let mut planned = plan();
    if planned.has_error() {
        let reached = engine.machine.barrier().await;
        reached.map_err(|error| FetchError::Storage(error.to_string()))?;
        planned = plan();
    }
    let fetched = engine.reader.fetch(planned).await.remove(0)?;
    Ok(see(offset, isolation, fetched))
}

fn see(from: i64, isolation: Isolation, fetched: Fetched) -> Chunk {
    let is_committed = isolation == Isolation::ReadCommitted;
    let begins: Vec<(i64, i64)> = match fetched.aborted {
        Some(aborted) => aborted.iter().map(|it| (it.first.0, it.producer.0)).collect(),
        None => Vec::new(),
    };
    assert!(is_committed || begins.is_empty());
    let (next, records) = look(from, begins, fetched.records.concat().into());
    Chunk { is_committed, from, next, records, watermarks: fetched.watermarks }
}

/// What a consumer sees in batches that is at `from`, and where it goes on. It drops what belongs
/// to transactions that were aborted: from their first offset, which it is told with their
/// producers, to their marker.
pub fn look(from: i64, mut begins: Vec<(i64, i64)>, batches: Bytes) -> (i64, Vec<(i64, Bytes)>) {
    begins.sort_unstable();
    let mut begins = begins.into_iter().peekable();
    let mut aborted = BTreeSet::new();
    let mut next = from;
    let mut records = Vec::new();
    for batch in read_batches(batches) {
        while let Some((_, producer)) = begins.next_if(|(first, _)| *first <= batch.last) {
            aborted.insert(producer);
        }
        match batch.content {
            ReadContent::Marker(true) => {}
            ReadContent::Marker(false) => {
                aborted.remove(&batch.producer);
            }
            ReadContent::Records(_)
                if batch.is_transactional && aborted.contains(&batch.producer) => {}
            ReadContent::Records(read) => {
                let read = read.into_iter().filter(|it| it.offset >= from);
                records.extend(read.map(|it| (it.offset, it.value)));
            }
        }
        next = batch.last + 1;
    }
    (next, records)
}

/// All batches of a partition.
///
/// # Panics
///
/// If they can't be read.
pub async fn log(engine: &Engine, partition: TopicPartition) -> Vec<ReadBatch> {
    let mut batches: Vec<ReadBatch> = Vec::new();
    loop {
        let offset = Offset(batches.last().map_or(0, |batch| batch.last + 1));
        let target = FetchTarget { partition, offset, bytes_max: 10_000 };
        let plan = engine.reader.plan(&[target], 10_000, Isolation::ReadUncommitted);
        let fetched = engine.reader.fetch(plan).await.remove(0).unwrap();
        if fetched.records_bytes == 0 {
            assert_eq!(offset, fetched.watermarks.high_watermark);
            return batches;
        }
        batches.extend(read_batches(fetched.records.concat().into()));
    }
}
