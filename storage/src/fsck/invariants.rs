//! What the state claims about itself, counted again from nothing.

use std::collections::{BTreeMap, BTreeSet};

use odradek_protocol::id::{Offset, TopicPartition};

use super::affected;
use crate::segment::{HEADER_BYTES, SegmentId};
use crate::state::State;
use crate::state::partition::Partition;

/// Violations after which no more are looked for: a state that is wrong is wrong in many places.
const VIOLATIONS_MAX: usize = 100;

/// PART-1, SEG-1 and TXN-1, and that extents lie within their segments; a sentence for each
/// violation.
pub(super) fn audit(state: &State) -> Vec<String> {
    let mut violations = Vec::new();
    let mut references: BTreeMap<SegmentId, u64> = BTreeMap::new();
    let mut open: BTreeMap<TopicPartition, BTreeMap<Offset, _>> = BTreeMap::new();
    for (_, it) in state.transactions().iter() {
        for (partition, first) in it.ongoing().into_iter().flat_map(|it| &it.partitions) {
            if let Some(first) = first {
                open.entry(*partition).or_default().insert(*first, it.producer.id);
            }
        }
    }
    for (topic, _) in affected::topics(state) {
        for (at, partition) in (0..).zip(&topic.partitions) {
            let name = format!("{}-{at}", topic.name);
            let id = TopicPartition { topic: topic.id, partition: at };
            violations.extend(contiguous(partition).map(|what| format!("PART-1: {name} {what}")));
            if *partition.open_transactions() != open.remove(&id).unwrap_or_default() {
                violations.push(format!("TXN-1: {name} has other open transactions than it says"));
            }
            for extent in partition.extents() {
                let Some(location) = extent.location() else { continue };
                *references.entry(location.segment).or_default() += 1;
                let end = location.position.saturating_add(u64::from(location.stored_bytes));
                let bytes = state.segments().referenced().get(&location.segment);
                let fits = bytes.is_some_and(|refs| end <= refs.bytes);
                if location.position < HEADER_BYTES_U64 || !fits {
                    let base = extent.base;
                    violations.push(format!("{name} offset {base} lies outside its segment"));
                }
            }
            if violations.len() > VIOLATIONS_MAX {
                return violations;
            }
        }
    }
    for partition in open.keys() {
        violations.push(format!("TXN-1: {partition} does not know of its open transaction"));
    }
    violations.extend(counted(state, &references));
    violations
}

const HEADER_BYTES_U64: u64 = 32;
const _: () = assert!(HEADER_BYTES == 32);

fn counted(state: &State, references: &BTreeMap<SegmentId, u64>) -> Vec<String> {
    let segments = state.segments();
    let stored: BTreeMap<SegmentId, u64> =
        segments.referenced().iter().map(|(id, refs)| (*id, refs.references)).collect();
    let all: BTreeSet<&SegmentId> = references.keys().chain(stored.keys()).collect();
    let differ = all.into_iter().filter_map(|segment| {
        let (counted, says) = (references.get(segment), stored.get(segment));
        let zero = |number: Option<&u64>| number.copied().unwrap_or(0);
        let (counted, says) = (zero(counted), zero(says));
        let sentence = format!("SEG-1: {counted} extents lie in segment {segment}, not {says}");
        (counted != says || says == 0).then_some(sentence)
    });
    let waits = segments.unreferenced().keys().filter(|segment| references.contains_key(segment));
    let waits = waits.map(|segment| format!("SEG-1: segment {segment} is in use and to be swept"));
    differ.chain(waits).take(VIOLATIONS_MAX).collect()
}

fn contiguous(partition: &Partition) -> Option<String> {
    let (start, end) = (partition.log_start, partition.high_watermark);
    let Some(first) = partition.extents().next() else {
        return (start != end).then(|| format!("has no extents from {start} to {end}"));
    };
    if !(first.base..first.end()).contains(&start) {
        return Some(format!("begins at {start}, and its first extent at {}", first.base));
    }
    let mut next = first.base;
    for extent in partition.extents() {
        if extent.base != next || extent.records == 0 {
            return Some(format!("has an extent at {} where {next} follows", extent.base));
        }
        if extent.location().is_some_and(|it| it.bytes == 0) {
            return Some(format!("has an extent at {next} without bytes"));
        }
        next = extent.end();
    }
    if next != end {
        return Some(format!("ends at {end}, and its last extent at {next}"));
    }
    (partition.cleaned() > end)
        .then(|| format!("ends at {end}, and is compacted up to {}", partition.cleaned()))
}
