//! What to merge next: one look at the state.

use std::collections::{BTreeMap, BTreeSet};

use bytes::Bytes;
use odradek_protocol::id::{NodeId, Offset, TopicPartition};

use super::MergerConfig;
use crate::reader::Located;
use crate::segment::SegmentId;
use crate::state::State;
use crate::state::partition::{Extent, Location, Partition};
use crate::state::segments::LEVEL_LAST;
use crate::state::topics::Topic;

/// Segments that are merged into one.
pub(super) struct Unit {
    /// The level of what comes out.
    pub(super) level: u8,
    /// Their lengths, and their blocks if the state holds them.
    pub(super) inputs: BTreeMap<SegmentId, (u64, Option<Bytes>)>,
    /// What is in them, partition by partition.
    pub(super) runs: Vec<Run>,
}

/// Extents of one partition, side by side.
pub(super) struct Run {
    pub(super) partition: TopicPartition,
    pub(super) from: Offset,
    pub(super) to: Offset,
    /// Hash of the extents.
    pub(super) inputs: u64,
    /// The extents, each with whose name is to stand in its block.
    pub(super) extents: Vec<(Located, TopicPartition)>,
}

impl Unit {
    /// Bytes that are read.
    pub(super) fn bytes(&self) -> u64 {
        self.inputs.values().map(|(bytes, _)| bytes).sum()
    }

    /// The segments that are objects, with their lengths.
    pub(super) fn stored(&self) -> BTreeMap<SegmentId, u64> {
        let stored = self.inputs.iter().filter(|(_, (_, inline))| inline.is_none());
        stored.map(|(id, (bytes, _))| (*id, *bytes)).collect()
    }

    /// The segments that the state holds.
    pub(super) fn inline(&self) -> BTreeMap<SegmentId, Bytes> {
        let inline = self.inputs.iter().filter_map(|(id, (_, it))| Some((*id, it.clone()?)));
        inline.collect()
    }
}

impl Run {
    /// Two runs in which this is the same have the same batches in the same places.
    pub(super) fn contents(&self) -> (Offset, Offset, u64, Option<TopicPartition>) {
        (self.from, self.to, self.inputs, self.extents.first().map(|(_, owner)| *owner))
    }
}

/// The unit whose turn it is on this broker; `None` if there is none. `most` is what was referred
/// to of each segment when that was the most, as far as this broker has seen.
pub(super) fn next(
    state: &State,
    node: NodeId,
    config: &MergerConfig,
    is_readable: impl Fn(&SegmentId) -> bool,
    most: &mut BTreeMap<SegmentId, u64>,
) -> Option<Unit> {
    let referenced = state.segments().referenced();
    let live = live(state);
    most.retain(|segment, _| live.contains_key(segment));
    for (segment, bytes) in &live {
        let most = most.entry(*segment).or_default();
        *most = (*most).max(*bytes);
    }
    let is_ours = |id: &SegmentId| state.coordinator_of(&id.to_string()) == Some(node);
    let merging = (0..LEVEL_LAST).find_map(|level| {
        let may_be_merged = |id: &SegmentId, bytes: u64, at: u8| {
            at == level
                && (level == 0 || bytes < config.unit_bytes / 2)
                && live.contains_key(id)
                && is_readable(id)
        };
        let candidates = referenced.iter().filter(|(id, it)| may_be_merged(id, it.bytes, it.level));
        let candidates = candidates.map(|(id, it)| (*id, it.bytes, it.inline.is_some()));
        let is_urgent = level == 0 && state.segments().inline_bytes() >= config.inline_bytes_max;
        let units = units(candidates, config, is_urgent);
        let ours = |unit: &Vec<SegmentId>| unit.first().is_some_and(is_ours);
        units.into_iter().find(ours).map(|unit| gather(state, level + 1, &unit))
    });
    merging.or_else(|| {
        let sparse = referenced.iter().filter(|(id, refs)| {
            let is_sparse = live.get(id).zip(most.get(id)).is_some_and(|(live, most)| {
                most / 2 > *live && most - live >= config.garbage_bytes_min
            });
            is_sparse && refs.inline.is_none() && is_ours(id) && is_readable(id)
        });
        let sparse = sparse.map(|(id, refs)| (*id, refs.bytes));
        let unit = first_unit(sparse, config);
        (!unit.is_empty()).then(|| gather(state, LEVEL_LAST, &unit))
    })
}

/// Segments that something refers to in a topic that lives, with the bytes in them that any topic
/// refers to.
fn live(state: &State) -> BTreeMap<SegmentId, u64> {
    let mut live = BTreeMap::new();
    for topic in state.topics() {
        for_each_block(topic, |location| {
            *live.entry(location.segment).or_default() += u64::from(location.stored_bytes);
        });
    }
    for deleted in state.deleted_topics().values() {
        for_each_block(&deleted.topic, |location| {
            if let Some(bytes) = live.get_mut(&location.segment) {
                *bytes += u64::from(location.stored_bytes);
            }
        });
    }
    live
}

/// Calls for each block of a topic, once for those that are neighbours in it.
fn for_each_block(topic: &Topic, mut call: impl FnMut(&Location)) {
    for partition in &topic.partitions {
        let mut last = None;
        for location in partition.extents().filter_map(Extent::location) {
            if last != Some((location.segment, location.position)) {
                call(location);
                last = Some((location.segment, location.position));
            }
        }
    }
}

/// The first of these segments, as many as make a unit.
fn first_unit(
    segments: impl Iterator<Item = (SegmentId, u64)>,
    config: &MergerConfig,
) -> Vec<SegmentId> {
    let mut bytes = 0;
    let fits = |(_, length): &(SegmentId, u64)| {
        let is_room = bytes < config.unit_bytes;
        bytes += length;
        is_room
    };
    segments.take_while(fits).map(|(id, _)| id).collect()
}

/// Cuts segments, which come in order, into units: those that are full; with `is_urgent` also what
/// is left, if there is more than one in it or it is no object yet.
fn units(
    candidates: impl Iterator<Item = (SegmentId, u64, bool)>,
    config: &MergerConfig,
    is_urgent: bool,
) -> Vec<Vec<SegmentId>> {
    let mut units = Vec::new();
    let (mut open, mut bytes, mut has_inline) = (Vec::new(), 0, false);
    for (id, length, is_inline) in candidates {
        open.push(id);
        bytes += length;
        has_inline |= is_inline;
        if bytes >= config.unit_bytes || open.len() >= config.unit_segments_max.get() {
            units.push(std::mem::take(&mut open));
            (bytes, has_inline) = (0, false);
        }
    }
    if is_urgent && has_inline {
        units.push(open);
    }
    units
}

fn gather(state: &State, level: u8, segments: &[SegmentId]) -> Unit {
    let segments: BTreeSet<SegmentId> = segments.iter().copied().collect();
    let mut runs = Vec::new();
    for topic in state.topics() {
        for (index, partition) in (0..).zip(&topic.partitions) {
            let at = TopicPartition { topic: topic.id, partition: index };
            gather_partition(state, at, partition, &segments, &mut runs);
        }
    }
    let inputs = segments.iter().filter_map(|id| {
        let refs = state.segments().referenced().get(id)?;
        Some((*id, (refs.bytes, refs.inline.clone())))
    });
    Unit { level, inputs: inputs.collect(), runs }
}

/// Adds the runs of a partition: extents in these segments, and what is in no segment between them
/// and beside them.
fn gather_partition(
    state: &State,
    at: TopicPartition,
    partition: &Partition,
    segments: &BTreeSet<SegmentId>,
    runs: &mut Vec<Run>,
) {
    let mut open: Vec<&Extent> = Vec::new();
    let mut is_worth_it = false;
    let mut close = |open: &mut Vec<&Extent>, is_worth_it: &mut bool| {
        let extents = std::mem::take(open);
        if std::mem::take(is_worth_it)
            && let (Some(first), Some(last)) = (extents.first(), extents.last())
            && let Some(inputs) = partition.hash_between(first.base, last.end())
        {
            let locate = |extent: &&Extent| {
                let owner = partition.owner(at, extent.base);
                (Located::of(state, at, partition, extent), owner)
            };
            runs.push(Run {
                partition: at,
                from: first.base,
                to: last.end(),
                inputs,
                extents: extents.iter().map(locate).collect(),
            });
        }
    };
    for extent in partition.extents() {
        match extent.segment() {
            Some(segment) if !segments.contains(&segment) => close(&mut open, &mut is_worth_it),
            segment => {
                // One name for a whole run: who stands in a block follows from where its extent
                // begins, and that can be in a gap before it.
                let owner = |extent: &Extent| partition.owner(at, extent.base);
                if open.last().is_some_and(|last| owner(last) != owner(extent)) {
                    close(&mut open, &mut is_worth_it);
                }
                is_worth_it |= segment.is_some();
                open.push(extent);
            }
        }
    }
    close(&mut open, &mut is_worth_it);
}
