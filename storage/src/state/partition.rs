//! A partition: its extents, watermarks and producers.

use std::collections::VecDeque;

use odradek_protocol::id::Offset;

use super::producers::Producers;
use crate::check;
use crate::command::Rejection;
use crate::invariant::InvariantId;
use crate::segment::SegmentId;

/// One partition of a topic.
///
/// ```text
///    0 ........ log_start ................ high_watermark
///    |   gone      |  extents, contiguous     |  next record
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
}

/// One or more batches of one partition, contiguous in one block of one segment.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Extent {
    /// Offset of the first record.
    pub base: Offset,
    /// Offsets it takes.
    pub records: u32,
    /// Largest timestamp in it, in milliseconds since the Unix epoch.
    pub max_timestamp: i64,
    /// Where the bytes are.
    pub location: Location,
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

impl Extent {
    /// The offset after the last record.
    pub fn end(&self) -> Offset {
        self.base.advanced_by(self.records)
    }
}

impl Partition {
    /// The last stable offset: what a read_committed consumer may read up to (KIP-98).
    pub fn last_stable_offset(&self) -> Offset {
        self.high_watermark
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

    /// Bytes of record batches, as producers sent them: of the first extent all, also what lies
    /// below the log start offset.
    pub fn bytes(&self) -> u64 {
        self.extents.iter().map(|extent| u64::from(extent.location.bytes)).sum()
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
        let gone = self.extents.partition_point(|extent| extent.end() <= self.log_start);
        let gone = self.extents.drain(..gone).collect();
        check!(
            InvariantId::Part1,
            self.begins_in_its_first_extent(),
            "log start {} and first extent {:?}",
            self.log_start,
            self.extents.front()
        );
        Ok(gone)
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
}
