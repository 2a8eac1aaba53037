//! Batches that keep some of their records: what log compaction leaves of them (KIP-534).
//!
//! The batch stays the one it was: base offset, last offset, producer, sequence and codec are as
//! they were, and so are the records that stay, byte for byte, but for their timestamp deltas when
//! the batch gets a delete horizon.

use bytes::{BufMut, Bytes, BytesMut};

use super::{
    CODEC_BITS, CRC_START, DELETE_HORIZON_BIT, HEADER_BYTES, LENGTH_OVERHEAD, RecordBatch,
    RecordView,
};
use crate::compression::{self, OpenError};

/// What an empty batch says of its length: that of all but its first two fields.
const EMPTY_LENGTH: i32 = 49;

impl RecordBatch {
    /// A batch of which nothing is left, by nobody: says only that so many offsets from the first
    /// on are taken. At least one; more than a batch can span become as many as it can.
    pub fn empty(base_offset: i64, offsets: u32) -> Bytes {
        let mut bytes = BytesMut::with_capacity(HEADER_BYTES);
        bytes.put_i64(base_offset);
        bytes.put_i32(EMPTY_LENGTH);
        bytes.put_i32(0);
        bytes.put_i8(2);
        bytes.put_u32(0);
        bytes.put_i16(0);
        bytes.put_i32(i32::try_from(offsets.saturating_sub(1)).unwrap_or(i32::MAX));
        bytes.put_i64(-1);
        bytes.put_i64(-1);
        bytes.put_i64(-1);
        bytes.put_i16(-1);
        bytes.put_i32(-1);
        bytes.put_i32(0);
        let crc = crc32c::crc32c(&bytes[CRC_START..]);
        bytes[17..CRC_START].copy_from_slice(&crc.to_be_bytes());
        bytes.freeze()
    }

    /// When tombstones and markers in it may go, in milliseconds since the Unix epoch; `None` if
    /// that has not been decided.
    pub fn delete_horizon(&self) -> Option<i64> {
        let is_set = self.attributes() & DELETE_HORIZON_BIT != 0;
        is_set.then(|| self.base_timestamp())
    }

    /// The batch at another place of the log. What its checksum covers stays.
    #[must_use]
    pub fn with_base_offset(&self, base_offset: i64) -> Self {
        if self.base_offset() == base_offset {
            return self.clone();
        }
        let mut bytes = BytesMut::from(&self.bytes[..]);
        bytes[..8].copy_from_slice(&base_offset.to_be_bytes());
        Self { bytes: bytes.freeze() }
    }

    /// The batch with no other records than `kept`, which are some of its own, in their order.
    ///
    /// `horizon_ms` becomes its delete horizon, unless it has one. A batch that keeps no record is
    /// a header, which says what offsets and sequence numbers were in it.
    pub fn retaining(
        &self,
        kept: &[RecordView<'_>],
        horizon_ms: Option<i64>,
    ) -> Result<Self, OpenError> {
        if kept.is_empty() {
            return Ok(self.emptied());
        }
        let horizon_ms = horizon_ms.filter(|_| self.delete_horizon().is_none());
        let records = self.encode(kept, horizon_ms);
        let codec = self.codec().map_err(|error| OpenError::Codec(error.to_string()))?;
        let records = compression::pack(codec, records)?;
        let mut attributes = self.attributes();
        let mut base_timestamp = self.base_timestamp();
        if let Some(horizon_ms) = horizon_ms {
            attributes |= DELETE_HORIZON_BIT;
            base_timestamp = horizon_ms;
        }
        let max_timestamp = self.max_timestamp_of(kept);
        let count = i32::try_from(kept.len()).unwrap_or(i32::MAX);
        Ok(self.rebuilt(attributes, (base_timestamp, max_timestamp), count, &records))
    }

    /// When a record of it is from: by wrapping addition, as clients compute it.
    pub fn timestamp_of(&self, record: &RecordView<'_>) -> i64 {
        if self.has_log_append_time() {
            self.max_timestamp()
        } else {
            self.base_timestamp().wrapping_add(record.timestamp_delta)
        }
    }

    fn max_timestamp_of(&self, kept: &[RecordView<'_>]) -> i64 {
        let latest = kept.iter().map(|record| self.timestamp_of(record)).max();
        latest.unwrap_or_else(|| self.max_timestamp())
    }

    fn encode(&self, kept: &[RecordView<'_>], horizon_ms: Option<i64>) -> Vec<u8> {
        let mut records =
            Vec::with_capacity(kept.iter().map(|record| record.bytes.len() + 9).sum());
        for record in kept {
            match horizon_ms {
                None => records.extend_from_slice(record.bytes),
                Some(horizon_ms) => {
                    let shift = self.base_timestamp().wrapping_sub(horizon_ms);
                    let delta = record.timestamp_delta.wrapping_add(shift);
                    record.put_with_timestamp_delta(delta, &mut records);
                }
            }
        }
        records
    }

    fn emptied(&self) -> Self {
        let attributes = self.attributes() & !(CODEC_BITS | DELETE_HORIZON_BIT);
        self.rebuilt(attributes, (-1, self.max_timestamp()), 0, &[])
    }

    fn rebuilt(
        &self,
        attributes: i16,
        (base_timestamp, max_timestamp): (i64, i64),
        count: i32,
        records: &[u8],
    ) -> Self {
        let length = HEADER_BYTES - LENGTH_OVERHEAD + records.len();
        let mut bytes = BytesMut::with_capacity(HEADER_BYTES + records.len());
        bytes.put_slice(&self.bytes[..8]);
        bytes.put_i32(i32::try_from(length).expect("a batch is far shorter than 2 GiB"));
        bytes.put_slice(&self.bytes[12..CRC_START]);
        bytes.put_i16(attributes);
        bytes.put_i32(self.last_offset_delta());
        bytes.put_i64(base_timestamp);
        bytes.put_i64(max_timestamp);
        bytes.put_slice(&self.bytes[43..57]);
        bytes.put_i32(count);
        bytes.put_slice(records);
        let crc = crc32c::crc32c(&bytes[CRC_START..]);
        bytes[17..CRC_START].copy_from_slice(&crc.to_be_bytes());
        Self { bytes: bytes.freeze() }
    }
}

#[cfg(test)]
mod tests;
