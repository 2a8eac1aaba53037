//! Whose records lie in a segment.

use std::collections::{BTreeMap, BTreeSet};

use odradek_protocol::id::{Offset, TopicPartition};

use super::Affected;
use crate::segment::SegmentId;
use crate::state::State;
use crate::state::partition::Extent;
use crate::state::topics::Topic;

/// An extent, and whose it is.
#[derive(Clone, Debug)]
pub(super) struct Placed {
    /// The name of its topic.
    pub(super) name: String,
    /// Whether the topic is deleted, and not purged yet.
    pub(super) is_deleted: bool,
    /// Its partition.
    pub(super) partition: TopicPartition,
    /// Who stands in the block's header: its partition, or the one it was branched from.
    pub(super) owner: TopicPartition,
    /// The extent.
    pub(super) extent: Extent,
}

impl Placed {
    /// The offsets from `from` to `to` of its partition.
    pub(super) fn between(&self, from: Offset, to: Offset) -> Affected {
        Affected {
            name: self.name.clone(),
            is_deleted: self.is_deleted,
            topic: self.partition.topic,
            partition: self.partition.partition,
            from,
            to,
        }
    }
}

/// The extents that lie in some segments.
#[derive(Debug, Default)]
pub(super) struct Index {
    by_segment: BTreeMap<SegmentId, Vec<Placed>>,
}

impl Index {
    /// The extents in these segments: one walk over all there are.
    pub(super) fn of(state: &State, segments: &BTreeSet<SegmentId>) -> Self {
        let mut index = Self::default();
        if segments.is_empty() {
            return index;
        }
        for (topic, is_deleted) in topics(state) {
            for (at, partition) in (0..).zip(&topic.partitions) {
                let own = TopicPartition { topic: topic.id, partition: at };
                for extent in partition.extents() {
                    let Some(segment) = extent.segment().filter(|it| segments.contains(it)) else {
                        continue;
                    };
                    index.by_segment.entry(segment).or_default().push(Placed {
                        name: topic.name.clone(),
                        is_deleted,
                        partition: own,
                        owner: partition.owner(own, extent.base),
                        extent: *extent,
                    });
                }
            }
        }
        index
    }

    /// The extents in a segment, by partition and offset.
    pub(super) fn extents(&self, segment: SegmentId) -> &[Placed] {
        self.by_segment.get(&segment).map_or(&[], Vec::as_slice)
    }

    /// The records in those extents of a segment for which `is_hit`.
    pub(super) fn affected(
        &self,
        segment: SegmentId,
        is_hit: impl Fn(&Placed) -> bool,
    ) -> Vec<Affected> {
        affected(self.extents(segment).iter().filter(|placed| is_hit(placed)))
    }
}

/// All topics that have records, and whether they are deleted: a branch could bring those back.
pub(super) fn topics(state: &State) -> impl Iterator<Item = (&Topic, bool)> {
    let deleted = state.deleted_topics().values().map(|deleted| (&deleted.topic, true));
    state.topics().map(|topic| (topic, false)).chain(deleted)
}

/// The records in these extents; neighbours are one range.
pub(super) fn affected<'a>(extents: impl Iterator<Item = &'a Placed>) -> Vec<Affected> {
    let mut ranges: Vec<Affected> = Vec::new();
    for placed in extents {
        let (partition, extent) = (placed.partition, &placed.extent);
        match ranges.last_mut() {
            Some(last)
                if (last.topic, last.partition) == (partition.topic, partition.partition)
                    && last.to == extent.base =>
            {
                last.to = extent.end();
            }
            _ => ranges.push(placed.between(extent.base, extent.end())),
        }
    }
    ranges
}
