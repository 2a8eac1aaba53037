//! The batches of an extent, with the offsets that the state gave them.

use bytes::Bytes;
use odradek_protocol::compression::{self, Records};
use odradek_protocol::id::Offset;
use odradek_protocol::record::RecordBatch;

use super::{FetchError, TimestampOffset};
use crate::state::partition::Extent;

/// Bytes before the part of a batch that its checksum covers, less the magic and the checksum: base
/// offset, length and leader epoch.
pub(super) const HEAD_BYTES: usize = 16;

/// No batch is unpacked to more than this to find a record in it.
const UNPACKED_BYTES_MAX: usize = 64 * 1024 * 1024;

/// One batch in its place.
pub(super) struct PlacedBatch {
    /// Offset of its first record.
    pub(super) base: Offset,
    /// Offsets it takes.
    pub(super) records: u32,
    /// Largest timestamp in it, in milliseconds since the Unix epoch.
    pub(super) max_timestamp: i64,
    /// As its producer sent it.
    pub(super) bytes: Bytes,
}

impl PlacedBatch {
    /// The offset after its last record.
    pub(super) fn end(&self) -> Offset {
        self.base.advanced_by(self.records)
    }

    /// Its first record that is not older than `timestamp_ms`; `None` if the batch can't be opened.
    pub(super) fn first_not_older(&self, timestamp_ms: i64) -> Option<TimestampOffset> {
        let (batch, _) = RecordBatch::split_first(&self.bytes)?;
        if batch.has_log_append_time() {
            return Some(TimestampOffset { offset: self.base, timestamp_ms: self.max_timestamp });
        }
        let records = compression::unpack(&batch, UNPACKED_BYTES_MAX).ok()?;
        for record in Records::of(&batch, records) {
            let record = record.ok()?;
            let timestamp = batch.base_timestamp().saturating_add(record.timestamp_delta);
            if timestamp >= timestamp_ms {
                let delta = u32::try_from(record.offset_delta).ok()?;
                return Some(TimestampOffset {
                    offset: self.base.advanced_by(delta),
                    timestamp_ms: timestamp,
                });
            }
        }
        None
    }

    /// Its first bytes with the offset it got. The leader epoch is 0 for ever: nobody leads here.
    pub(super) fn patched_head(&self) -> [u8; HEAD_BYTES] {
        let mut head = [0; HEAD_BYTES];
        head[..8].copy_from_slice(&self.base.0.to_be_bytes());
        head[8..12].copy_from_slice(&self.bytes[8..12]);
        head
    }
}

/// Walks the batches of an extent.
pub(super) struct Batches {
    rest: Bytes,
    next: Offset,
    end: Offset,
}

impl Batches {
    /// The batches of `extent`, whose block unpacks to `content`.
    pub(super) fn of(extent: &Extent, content: &Bytes) -> Self {
        let start = usize::try_from(extent.location.skip).unwrap_or(usize::MAX);
        let end =
            start.saturating_add(usize::try_from(extent.location.bytes).unwrap_or(usize::MAX));
        let rest = if end <= content.len() { content.slice(start..end) } else { Bytes::new() };
        Self { rest, next: extent.base, end: extent.end() }
    }

    fn take(&mut self) -> Option<PlacedBatch> {
        let (batch, rest) = RecordBatch::split_first(&self.rest)?;
        self.rest = rest;
        let (base, records) = (self.next, batch.offsets());
        self.next = base.advanced_by(records);
        let max_timestamp = batch.max_timestamp();
        Some(PlacedBatch { base, records, max_timestamp, bytes: batch.bytes().clone() })
    }
}

impl Iterator for Batches {
    type Item = Result<PlacedBatch, FetchError>;

    /// The block was checked as a whole, so batches that don't add up to what the state says were
    /// never the ones that were committed.
    fn next(&mut self) -> Option<Self::Item> {
        if self.next == self.end && self.rest.is_empty() {
            return None;
        }
        let batch = self.take().filter(|batch| batch.end() <= self.end);
        if batch.is_none() {
            // Said once.
            self.rest = Bytes::new();
            self.next = self.end;
        }
        Some(
            batch.ok_or_else(|| FetchError::Storage("batches do not fill their extent".to_owned())),
        )
    }
}
