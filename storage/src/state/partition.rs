//! A partition: its extents, watermarks, producers and transactions.

use std::collections::{BTreeMap, VecDeque};

use odradek_protocol::id::{Offset, ProducerId, TopicId};
use odradek_protocol::record::MARKER_BYTES;

use super::producers::Producers;
use crate::check;
use crate::command::{ProducerIdAndEpoch, Rejection};
use crate::invariant::InvariantId;
use crate::segment::SegmentId;

mod rewriting;

pub(crate) use rewriting::hash_of;

/// One partition of a topic.
///
/// ```text
///    0 ........ log_start ........ last stable offset ...... high_watermark
///    |   gone      |  extents, contiguous     | open transactions  |  next record
/// ```
///
/// - **PART-1** extents are contiguous: the first begins at `log_start` or below it and ends behind
///   it, each begins where the one before ends, the last ends at `high_watermark`. There is none if
///   `log_start` is `high_watermark`.
/// - **PART-2** `high_watermark` never moves back.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Partition {
    /// The oldest offset that can be read.
    pub log_start: Offset,
    /// The offset of the next record: everything below is committed.
    pub high_watermark: Offset,
    /// Where the records are, in order of offsets.
    pub(crate) extents: VecDeque<Extent>,
    /// Producers whose batches are judged by sequence.
    pub(crate) producers: Producers,
    /// Transactions that have records here and are open, by the first of them (TXN-1).
    pub(crate) open: BTreeMap<Offset, ProducerId>,
    /// Transactions that had records here and were aborted, in order of their ends.
    pub(crate) aborted: VecDeque<AbortedTransaction>,
    /// Compaction by key is done below this offset.
    pub(crate) cleaned: Offset,
    /// Of a branch: topics that records came from, in order. Up to the offset, which is where the
    /// next one begins, blocks belong to that topic.
    pub(crate) origins: VecDeque<(Offset, TopicId)>,
}

/// One or more batches of one partition, contiguous in one block of one segment; or a marker; or
/// nothing.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Extent {
    /// Offset of the first record.
    pub base: Offset,
    /// Offsets it takes.
    pub records: u32,
    /// Largest timestamp in it, in milliseconds since the Unix epoch; -1 if nothing in it has one.
    pub max_timestamp: i64,
    /// What it holds.
    pub content: Content,
}

/// What an extent holds.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Content {
    /// Batches, which lie here as their producers sent them: the first has the extent's first
    /// offset, each of the others begins where the one before ends.
    Batches(Location),
    /// Batches that were merged, and lie here with their own offsets: control batches are among
    /// them, and where compaction has left nothing there are holes between them.
    Merged(Location),
    /// The end of a transaction. There is no object behind it: the control batch is made when it is
    /// read.
    Marker(Marker),
    /// Nothing is left of what was here.
    Gap,
}

/// Where the bytes of an extent are.
///
/// A block is stored and checked as a whole; an extent can be a part of it, when other batches of
/// the block were rejected.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Location {
    /// The object.
    pub segment: SegmentId,
    /// First byte of the block in the segment.
    pub position: u64,
    /// Length of the block in the segment, with its header.
    pub stored_bytes: u32,
    /// First byte of the extent in the block's unpacked content.
    pub skip: u32,
    /// Length of the extent in the block's unpacked content.
    pub bytes: u32,
}

/// The end of a transaction in one of its partitions.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Marker {
    /// Whose transaction.
    pub producer: ProducerIdAndEpoch,
    /// Whether it was committed; else it was aborted.
    pub commits: bool,
}

/// A transaction of which nothing counts.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct AbortedTransaction {
    /// Whose transaction.
    pub producer: ProducerId,
    /// Its first record in the partition.
    pub first: Offset,
    /// Its marker.
    pub last: Offset,
    /// The last stable offset right after its end: transactions that ended later begin there or
    /// behind it.
    pub stable: Offset,
}

impl Extent {
    /// The offset after the last record.
    pub fn end(&self) -> Offset {
        self.base.advanced_by(self.records)
    }

    /// Bytes that a consumer is sent for it.
    pub fn bytes(&self) -> u32 {
        match &self.content {
            Content::Batches(location) | Content::Merged(location) => location.bytes,
            Content::Marker(_) => MARKER_BYTES,
            Content::Gap => 0,
        }
    }

    /// Where it lies, if it has an object behind it.
    pub fn location(&self) -> Option<&Location> {
        match &self.content {
            Content::Batches(location) | Content::Merged(location) => Some(location),
            Content::Marker(_) | Content::Gap => None,
        }
    }

    /// The segment that it refers to.
    pub fn segment(&self) -> Option<SegmentId> {
        self.location().map(|location| location.segment)
    }
}

impl Partition {
    /// The last stable offset: what a read_committed consumer may read up to (KIP-98).
    pub fn last_stable_offset(&self) -> Offset {
        let open = self.open.keys().next().copied();
        open.map_or(self.high_watermark, |first| first.max(self.log_start))
    }

    /// Extents from the one that holds `offset` on. None if `offset` is at or past the end.
    pub fn extents_from(&self, offset: Offset) -> impl Iterator<Item = &Extent> {
        let first = self.extents.partition_point(|extent| extent.end() <= offset);
        self.extents.range(first..)
    }

    /// All extents, oldest first.
    pub fn extents(&self) -> impl Iterator<Item = &Extent> {
        self.extents.iter()
    }

    /// Producers that it knows.
    pub fn producers(&self) -> &Producers {
        &self.producers
    }

    /// Open transactions with records in it, by the first of them.
    pub fn open_transactions(&self) -> &BTreeMap<Offset, ProducerId> {
        &self.open
    }

    /// Aborted transactions that have records from `from` up to `to`, without it.
    pub fn aborted_between(
        &self,
        from: Offset,
        to: Offset,
    ) -> impl Iterator<Item = &AbortedTransaction> {
        let first = self.aborted.partition_point(|it| it.last < from);
        let mut is_past = false;
        let ended_later = self.aborted.range(first..).take_while(move |it| {
            // The one that ends at a stable offset behind `to` is the last to begin before it.
            !std::mem::replace(&mut is_past, it.stable >= to)
        });
        ended_later.filter(move |it| it.first < to)
    }

    /// Bytes of record batches, as producers sent them: of the first extent all, also what lies
    /// below the log start offset.
    pub fn bytes(&self) -> u64 {
        self.extents.iter().map(|extent| u64::from(extent.bytes())).sum()
    }

    /// PART-1 at the log start offset.
    pub(crate) fn begins_in_its_first_extent(&self) -> bool {
        match self.extents.front() {
            Some(first) => (first.base..first.end()).contains(&self.log_start),
            None => self.log_start == self.high_watermark,
        }
    }

    /// Moves the log start offset to `before`, or to the high watermark. Returns the extents that
    /// are gone; an offset below the log start offset changes nothing.
    pub(crate) fn delete_records(
        &mut self,
        before: Option<Offset>,
    ) -> Result<Vec<Extent>, Rejection> {
        let (first, last) = (self.log_start, self.high_watermark);
        let before = before.unwrap_or(last);
        if before > last || before < Offset(0) {
            return Err(Rejection::OffsetOutOfRange { offset: before, first, last });
        }
        self.log_start = before.max(first);
        let gone = self.drop_below_log_start();
        let forgotten = self.aborted.partition_point(|it| it.last < self.log_start);
        self.aborted.drain(..forgotten);
        check!(
            InvariantId::Part1,
            self.begins_in_its_first_extent(),
            "log start {} and first extent {:?}",
            self.log_start,
            self.extents.front()
        );
        Ok(gone)
    }

    /// Drops the extents that end at the log start offset or before it, and returns them.
    pub(super) fn drop_below_log_start(&mut self) -> Vec<Extent> {
        let gone = self.extents.partition_point(|extent| extent.end() <= self.log_start);
        let gone = self.extents.drain(..gone).collect();
        let first = self.extents.front().map_or(self.high_watermark, |extent| extent.base);
        let past = self.origins.partition_point(|(until, _)| *until <= first);
        self.origins.drain(..past);
        gone
    }

    /// Adds records at the end.
    pub(crate) fn push(&mut self, extent: Extent) {
        check!(
            InvariantId::Part1,
            extent.base == self.high_watermark && extent.records > 0,
            "extent at {} where {} follows",
            extent.base,
            self.high_watermark
        );
        self.high_watermark = extent.end();
        self.extents.push_back(extent);
    }

    /// Ends the transaction that has its first record at `first`: with a marker, unless offsets are
    /// used up.
    pub(crate) fn end_transaction(&mut self, first: Offset, marker: Marker, now_ms: i64) {
        let producer = self.open.remove(&first);
        check!(
            InvariantId::Txn1,
            producer == Some(marker.producer.id),
            "{producer:?} has a transaction open from {first} on, {marker:?} ends it"
        );
        let last = self.high_watermark;
        if last.0 < i64::MAX {
            let content = Content::Marker(marker);
            self.push(Extent { base: last, records: 1, max_timestamp: now_ms, content });
        }
        if !marker.commits {
            let stable = self.last_stable_offset();
            let producer = marker.producer.id;
            self.aborted.push_back(AbortedTransaction { producer, first, last, stable });
        }
    }
}
