//! The cases of storage, without a broker around them: segments, entries, the state.

use std::hint::black_box;

use odradek_protocol::id::TopicPartition;
use odradek_storage::command::{BatchSummary, Entry, Incarnation};
use odradek_storage::lsn::Lsn;
use odradek_storage::segment::SegmentId;
use odradek_storage::segment::builder::{PendingBatch, SegmentBuilder};

use crate::counting::repeat;
use crate::samples::{self, ACTIVE, LARGE, Scribe, partition, summary};

/// Seals a segment of what the collector has taken in.
pub(crate) fn seal(times: usize) {
    let id = SegmentId { began: Lsn::new(1), incarnation: Incarnation(1), counter: 1 };
    let bytes = LARGE.batch(0);
    let batch = |number| {
        let length = u32::try_from(bytes.len()).unwrap();
        let summary = BatchSummary { bytes: length, ..summary(number, 0) };
        (partition(number), PendingBatch { bytes: bytes.clone(), summary, compressed: false })
    };
    let batches: Vec<_> = (0..ACTIVE).map(batch).collect();
    let seal = |batches: Vec<(TopicPartition, PendingBatch)>| {
        let mut builder = SegmentBuilder::default();
        for (partition, batch) in batches {
            builder.push(partition, batch);
        }
        builder.seal(id, None)
    };
    repeat(times, || batches.clone(), seal, |sealed| assert_eq!(sealed.blocks.len(), ACTIVE));
}

/// Writes the entry that commits a segment.
pub(crate) fn encode(times: usize) {
    let entry = entry();
    repeat(times, || (), |()| entry.encode(), |bytes| assert!(bytes.len() > ACTIVE));
}

/// Reads it, and lets go of it.
pub(crate) fn decode(times: usize) {
    let entry = entry();
    let bytes = entry.encode();
    assert_eq!(Entry::decode(&bytes), Ok(entry));
    let decode = |()| drop(black_box(Entry::decode(&bytes).unwrap()));
    repeat(times, || (), decode, |()| ());
}

fn entry() -> Entry {
    let mut scribe = Scribe::default();
    scribe.state();
    scribe.commit(0)
}

/// Applies such entries, one after the other.
pub(crate) fn apply(times: usize) {
    let mut scribe = Scribe::default();
    let mut state = scribe.state();
    let mut rounds = 0..;
    let next = || scribe.commit(rounds.next().unwrap());
    let apply = |entry| samples::apply(&mut state, &entry);
    repeat(times, next, apply, |applied| assert_eq!(applied.touched.len(), ACTIVE));
}

/// Writes a snapshot.
pub(crate) fn snapshot(times: usize) {
    let state = Scribe::default().state();
    let expected = state.digest();
    repeat(times, || (), |()| state.to_snapshot(), |(_, digest)| assert_eq!(digest, expected));
}
