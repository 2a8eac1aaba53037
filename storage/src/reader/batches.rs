//! The batches of an extent, with the offsets that the state gave them.

use std::collections::BTreeMap;

use bytes::{BufMut, Bytes, BytesMut};
use odradek_protocol::compression::{self, OpenError, Record, Records};
use odradek_protocol::id::Offset;
use odradek_protocol::record::{ControlBatch, RecordBatch};

use super::blocks::{self, BlockKey, BlockRead, Located};
use super::{FetchError, TimestampOffset};
use crate::state::partition::{Content, Extent, Location, Marker};

/// Bytes before the part of a batch that its checksum covers, less the magic and the checksum: base
/// offset, length and leader epoch.
pub(super) const HEAD_BYTES: usize = 16;

/// No batch is unpacked to more than this to find a record in it.
const UNPACKED_BYTES_MAX: usize = 64 * 1024 * 1024;

/// One batch in its place.
pub(crate) struct PlacedBatch {
    /// Offset of its first record.
    pub(crate) base: Offset,
    /// Offsets it takes.
    pub(crate) records: u32,
    /// Largest timestamp in it, in milliseconds since the Unix epoch.
    pub(crate) max_timestamp: i64,
    /// As its producer sent it.
    pub(crate) bytes: Bytes,
    /// Whether it is the end of a transaction.
    pub(crate) is_control: bool,
}

impl PlacedBatch {
    /// The offset after its last record.
    pub(crate) fn end(&self) -> Offset {
        self.base.advanced_by(self.records)
    }

    /// Its first record from `from` on that is not older than `timestamp_ms`.
    pub(super) fn first_not_older(
        &self,
        timestamp_ms: i64,
        from: Offset,
    ) -> Result<Option<TimestampOffset>, Unreadable> {
        for record in self.times(from)? {
            let record = record?;
            if record.timestamp_ms >= timestamp_ms {
                return Ok(Some(record));
            }
        }
        Ok(None)
    }

    /// The first with the largest timestamp of its records from `from` on.
    pub(super) fn latest(&self, from: Offset) -> Result<Option<TimestampOffset>, Unreadable> {
        let mut latest: Option<TimestampOffset> = None;
        for record in self.times(from)? {
            let record = record?;
            if latest.is_none_or(|latest| record.timestamp_ms > latest.timestamp_ms) {
                latest = Some(record);
            }
        }
        Ok(latest)
    }

    /// What stands for a batch that can't be opened: its first offset from `from` on, which is
    /// never too late.
    pub(super) fn unopened(&self, from: Offset) -> TimestampOffset {
        TimestampOffset { offset: self.base.max(from), timestamp_ms: self.max_timestamp }
    }

    /// When its records from `from` on are from.
    fn times(&self, from: Offset) -> Result<Times, Unreadable> {
        let (batch, _) = RecordBatch::split_first(&self.bytes).ok_or(Unreadable)?;
        if batch.has_log_append_time() {
            return Ok(Times::All(Some(self.unopened(from))));
        }
        let unpacked = compression::unpack(&batch, UNPACKED_BYTES_MAX).map_err(|_| Unreadable)?;
        let records = Records::of(&batch, unpacked);
        Ok(Times::Each { records, base: self.base, base_timestamp: batch.base_timestamp(), from })
    }

    /// The batch with the offset it got, to be stored with it.
    pub(crate) fn with_offset(&self) -> Bytes {
        let mut bytes = BytesMut::with_capacity(self.bytes.len());
        bytes.put_i64(self.base.0);
        bytes.put_slice(&self.bytes[8..]);
        bytes.freeze()
    }

    /// Its first bytes with the offset it got. The leader epoch is 0 for ever: nobody leads here.
    pub(super) fn patched_head(&self) -> [u8; HEAD_BYTES] {
        let mut head = [0; HEAD_BYTES];
        head[..8].copy_from_slice(&self.base.0.to_be_bytes());
        head[8..12].copy_from_slice(&self.bytes[8..12]);
        head
    }
}

/// The records of a batch are not what they claim to be: its producer compressed nonsense.
#[derive(Debug)]
pub(super) struct Unreadable;

/// The times of a batch's records.
enum Times {
    /// All have one: the broker's. The first that is asked for stands for them.
    All(Option<TimestampOffset>),
    /// Each has its own.
    Each { records: Records, base: Offset, base_timestamp: i64, from: Offset },
}

impl Iterator for Times {
    type Item = Result<TimestampOffset, Unreadable>;

    fn next(&mut self) -> Option<Self::Item> {
        let (records, base, base_timestamp, from) = match self {
            Self::All(first) => return first.take().map(Ok),
            Self::Each { records, base, base_timestamp, from } => {
                (records, *base, *base_timestamp, *from)
            }
        };
        let place = |record: Result<Record, OpenError>| {
            let record = record.map_err(|_| Unreadable)?;
            let delta = u32::try_from(record.offset_delta).map_err(|_| Unreadable)?;
            let timestamp_ms = base_timestamp.saturating_add(record.timestamp_delta);
            Ok(TimestampOffset { offset: base.advanced_by(delta), timestamp_ms })
        };
        records.map(place).find(|placed| placed.as_ref().map_or(true, |it| it.offset >= from))
    }
}

fn slice(location: &Location, content: &Bytes) -> Bytes {
    let start = usize::try_from(location.skip).unwrap_or(usize::MAX);
    let end = start.saturating_add(usize::try_from(location.bytes).unwrap_or(usize::MAX));
    if end <= content.len() { content.slice(start..end) } else { Bytes::new() }
}

fn control_batch(extent: &Extent, marker: &Marker) -> ControlBatch {
    ControlBatch {
        offset: extent.base.0,
        timestamp_ms: extent.max_timestamp,
        producer_id: marker.producer.id.0,
        producer_epoch: marker.producer.epoch,
        commits: marker.commits,
    }
}

/// Walks the batches of an extent.
pub(crate) struct Batches {
    rest: Bytes,
    /// Where the next batch begins, or behind it if it says itself where it begins.
    next: Offset,
    end: Offset,
    /// Whether batches say themselves where they begin.
    is_merged: bool,
}

impl Batches {
    /// The batches of an extent: those that lie in one of these blocks, or the one that is made.
    pub(crate) fn of(
        extent: &Extent,
        blocks: &BTreeMap<BlockKey, BlockRead>,
    ) -> Result<Self, FetchError> {
        let rest = match &extent.content {
            Content::Batches(location) | Content::Merged(location) => {
                slice(location, blocks::content(blocks, location)?)
            }
            Content::Marker(marker) => control_batch(extent, marker).to_bytes(),
            Content::Gap => Bytes::new(),
        };
        Ok(Self::walk(extent, rest))
    }

    /// The batches of an extent that lies in this object, if it lies in any.
    pub(crate) fn in_object(located: &Located, object: Option<&Bytes>) -> Result<Self, FetchError> {
        let rest = match (&located.extent.content, object) {
            (Content::Batches(location) | Content::Merged(location), Some(object)) => {
                slice(location, &located.open(object).map_err(FetchError::Storage)?)
            }
            (Content::Batches(_) | Content::Merged(_), None) => {
                return Err(FetchError::Storage("the segment was not read".to_owned()));
            }
            (Content::Marker(marker), _) => control_batch(&located.extent, marker).to_bytes(),
            (Content::Gap, _) => Bytes::new(),
        };
        Ok(Self::walk(&located.extent, rest))
    }

    /// The batches of an extent, which are these bytes.
    fn walk(extent: &Extent, rest: Bytes) -> Self {
        let is_merged = matches!(extent.content, Content::Merged(_) | Content::Gap);
        Self { rest, next: extent.base, end: extent.end(), is_merged }
    }

    fn take(&mut self) -> Option<PlacedBatch> {
        let (batch, rest) = RecordBatch::split_first(&self.rest)?;
        self.rest = rest;
        let base = if self.is_merged { Offset(batch.base_offset()) } else { self.next };
        let records = batch.offsets();
        if base < self.next {
            return None;
        }
        self.next = base.advanced_by(records);
        let max_timestamp = batch.max_timestamp();
        let is_control = batch.is_control();
        let bytes = batch.bytes().clone();
        Some(PlacedBatch { base, records, max_timestamp, bytes, is_control })
    }
}

impl Iterator for Batches {
    type Item = Result<PlacedBatch, FetchError>;

    /// The block was checked as a whole, so batches that don't add up to what the state says were
    /// never the ones that were committed.
    fn next(&mut self) -> Option<Self::Item> {
        // What lies behind the end belongs to the topic that this one was branched from.
        if self.next == self.end || (self.is_merged && self.rest.is_empty()) {
            return None;
        }
        let batch = self.take();
        if self.is_merged && batch.as_ref().is_some_and(|batch| batch.base >= self.end) {
            self.next = self.end;
            return None;
        }
        let batch = batch.filter(|batch| batch.end() <= self.end);
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
