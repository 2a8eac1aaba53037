//! A partition whose extents are rewritten, or shared with a branch.

use std::collections::VecDeque;
use std::ops::Range;

use bytes::BufMut;
use odradek_protocol::id::{Offset, TopicId, TopicPartition};
use xxhash_rust::xxh3::xxh3_64;

use super::{Content, Extent, Marker, Partition};
use crate::check;
use crate::command::{ProducerIdAndEpoch, Rejection};
use crate::invariant::InvariantId;

impl Partition {
    /// Compaction by key is done below this offset.
    pub fn cleaned(&self) -> Offset {
        self.cleaned
    }

    /// Compaction by key is done below `to`.
    ///
    /// Nothing is left of transactions that were aborted there, so consumers need not be told of
    /// them: they would wait for the markers, which go after that.
    pub(crate) fn finish_cleaning(&mut self, to: Offset) {
        self.cleaned = self.cleaned.max(to.min(self.last_stable_offset()));
        let gone = self.aborted.partition_point(|it| it.last < self.cleaned);
        self.aborted.drain(..gone);
    }

    /// Whose name stands in the block of the extent that begins at `base`: this partition's, which
    /// is called `own`, or that of the one it was branched from.
    pub fn owner(&self, own: TopicPartition, base: Offset) -> TopicPartition {
        let origin = self.origins.iter().find(|(until, _)| base < *until);
        let topic = origin.map_or(own.topic, |(_, topic)| *topic);
        TopicPartition { topic, partition: own.partition }
    }

    /// Whether this is a branch that left another topic here: of the extent that ends here, what it
    /// says may be true of more than is shared.
    pub fn is_cut_at(&self, end: Offset) -> bool {
        self.origins.iter().any(|(until, _)| *until == end)
    }

    /// Hash over the extents that lie from `from` to `to`; `None` if none begins or ends there.
    pub fn hash_between(&self, from: Offset, to: Offset) -> Option<u64> {
        Some(hash_of(self.extents.range(self.tiles(from, to)?)))
    }

    /// Which extents cover the offsets from `from` to `to` and no other.
    fn tiles(&self, from: Offset, to: Offset) -> Option<Range<usize>> {
        let first = self.extents.partition_point(|extent| extent.base < from);
        let end = self.extents.partition_point(|extent| extent.end() <= to);
        let begins = self.extents.get(first).is_some_and(|extent| extent.base == from);
        let ends = first < end && self.extents.get(end - 1).is_some_and(|it| it.end() == to);
        (begins && ends).then_some(first..end)
    }

    /// Puts extents in the place of those from `from` to `to`, which have this hash. Returns what
    /// came in and what went: what would lie below the log start offset does not come in.
    pub(crate) fn replace(
        &mut self,
        (from, to): (Offset, Offset),
        inputs: u64,
        extents: Vec<Extent>,
    ) -> Result<(Vec<Extent>, Vec<Extent>), Rejection> {
        if self.hash_between(from, to) != Some(inputs) {
            return Err(Rejection::ExtentsChanged { from, to });
        }
        let Some(range) = self.tiles(from, to) else {
            return Err(Rejection::ExtentsChanged { from, to });
        };
        let mut behind = self.extents.split_off(range.end);
        let gone = self.extents.split_off(range.start);
        self.extents.extend(&extents);
        self.extents.append(&mut behind);
        self.drop_below_log_start();
        check!(
            InvariantId::Part1,
            self.begins_in_its_first_extent(),
            "log start {} and first extent {:?}",
            self.log_start,
            self.extents.front()
        );
        let come = extents.into_iter().filter(|extent| extent.end() > self.log_start).collect();
        Ok((come, gone.into()))
    }

    /// A partition that shares the records below `end` with this one, which belongs to `own`. The
    /// offset lies between the log start offset and the last stable offset, where a batch begins.
    ///
    /// Producers are forgotten. Of transactions that were aborted behind `end` the beginning is
    /// shared: they are ended in the branch, or a consumer would wait for the end for ever, and
    /// skip what the producer writes later.
    pub(crate) fn branch(&self, own: TopicId, end: Offset) -> Result<Self, Rejection> {
        let (first, last) = (self.log_start, self.last_stable_offset());
        if end < first || end > last {
            return Err(Rejection::OffsetOutOfRange { offset: end, first, last });
        }
        let mut extents: VecDeque<Extent> =
            self.extents.iter().take_while(|extent| extent.base < end).copied().collect();
        if end == first {
            extents.clear();
        }
        if let Some(cut) = extents.back_mut().filter(|extent| extent.end() > end) {
            cut.records = u32::try_from(end.0 - cut.base.0).unwrap_or(cut.records);
        }
        let inherited = self.origins.iter().take_while(|(until, _)| *until < end);
        let mut origins: VecDeque<(Offset, TopicId)> = inherited.copied().collect();
        let next = self.origins.get(origins.len()).map_or(own, |(_, topic)| *topic);
        if !extents.is_empty() {
            origins.push_back((end, next));
        }
        let (ended, torn): (VecDeque<_>, VecDeque<_>) =
            self.aborted.iter().filter(|it| it.first < end).partition(|it| it.last < end);
        let mut branch = Self {
            log_start: first,
            high_watermark: end,
            extents,
            aborted: ended,
            cleaned: self.cleaned.min(end),
            origins,
            ..Self::default()
        };
        for aborted in torn {
            branch.open.insert(aborted.first, aborted.producer);
        }
        while let Some((first, producer)) = branch.open.first_key_value() {
            let (first, producer) = (*first, ProducerIdAndEpoch { id: *producer, epoch: 0 });
            branch.end_transaction(first, Marker { producer, commits: false }, -1);
        }
        Ok(branch)
    }
}

/// Hash over extents.
pub(crate) fn hash_of<'a>(extents: impl Iterator<Item = &'a Extent>) -> u64 {
    let mut bytes = Vec::new();
    for extent in extents {
        bytes.put_i64(extent.base.0);
        bytes.put_u32(extent.records);
        bytes.put_i64(extent.max_timestamp);
        match &extent.content {
            Content::Batches(location) | Content::Merged(location) => {
                bytes.put_u8(1 + u8::from(matches!(extent.content, Content::Merged(_))));
                bytes.put_u64(location.segment.began.get());
                bytes.put_u64(location.segment.incarnation.0);
                bytes.put_u64(location.segment.counter);
                bytes.put_u64(location.position);
                bytes.put_u32(location.skip);
                bytes.put_u32(location.bytes);
            }
            Content::Marker(marker) => {
                bytes.put_u8(3);
                bytes.put_i64(marker.producer.id.0);
            }
            Content::Gap => bytes.put_u8(4),
        }
    }
    xxh3_64(&bytes)
}
