//! Record batches, looked at in place.
//!
//! A batch (magic 2, KIP-98) is never re-encoded: what the producer sent is what consumers get, but
//! for the sixteen bytes before the checksum begins, and for the records that log compaction takes
//! out. Opening its records is in [`crate::compression`].
//!
//! ```text
//!  0 base offset i64 | 8 length i32 | 12 leader epoch i32 | 16 magic i8 | 17 crc32c u32
//! 21 attributes i16 | 23 last offset delta i32 | 27 base timestamp i64 | 35 max timestamp i64
//! 43 producer id i64 | 51 producer epoch i16 | 53 base sequence i32 | 57 record count i32 | 61 …
//! ```

use bytes::{Bytes, BytesMut};

mod control;
mod retain;
mod varint;
mod view;

pub use control::{ControlBatch, ControlType, MARKER_BYTES};
pub use view::{Malformed, RecordView, RecordViews};

/// Bytes of a batch before its records.
pub const HEADER_BYTES: usize = 61;

/// Bytes before the length counts.
const LENGTH_OVERHEAD: usize = 12;

/// Where the part that the checksum covers begins.
const CRC_START: usize = 21;

const CODEC_BITS: i16 = 0x07;
const TIMESTAMP_TYPE_BIT: i16 = 0x08;
const TRANSACTIONAL_BIT: i16 = 0x10;
const CONTROL_BIT: i16 = 0x20;
const DELETE_HORIZON_BIT: i16 = 0x40;

/// How the records of a batch are compressed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Codec {
    /// Not at all.
    None,
    /// gzip.
    Gzip,
    /// Snappy, raw or in xerial framing.
    Snappy,
    /// LZ4 frames.
    Lz4,
    /// zstd (KIP-110).
    Zstd,
}

/// Why the records of a produce request are not one good batch.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum BatchError {
    /// No batch at all.
    #[error("no record batch")]
    Empty,
    /// More bytes than one batch.
    #[error("more than one record batch")]
    Several,
    /// Fewer bytes than its length says, or than a header takes.
    #[error("record batch is cut short")]
    Truncated,
    /// An old message format.
    #[error("magic is {0}, only 2 is served")]
    Magic(i8),
    /// The producer has chosen an offset.
    #[error("base offset is {0}, not 0")]
    BaseOffset(i64),
    /// The bytes are not what the producer sent.
    #[error("checksum is {found:08x}, not {expected:08x}")]
    Checksum {
        /// Computed.
        found: u32,
        /// In the header.
        expected: u32,
    },
    /// No records, or not as many as offsets.
    #[error("{count} records for a last offset delta of {last_offset_delta}")]
    Count {
        /// The record count in the header.
        count: i32,
        /// The last offset delta in the header.
        last_offset_delta: i32,
    },
    /// Control batches are the broker's to write.
    #[error("control batch from a client")]
    Control,
    /// So is the log append time.
    #[error("timestamp type set by a client")]
    TimestampType,
    /// And so is the time from which tombstones may go.
    #[error("delete horizon set by a client")]
    DeleteHorizon,
    /// A producer id without a sequence, or an epoch that can't be.
    #[error("producer {id} with epoch {epoch} and sequence {sequence}")]
    Producer {
        /// The producer id.
        id: i64,
        /// Its epoch.
        epoch: i16,
        /// The first sequence number.
        sequence: i32,
    },
    /// A codec that does not exist.
    #[error("compression type {0} does not exist")]
    Codec(i16),
}

/// A view of one batch.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct RecordBatch {
    bytes: Bytes,
}

impl RecordBatch {
    /// The first batch in `records` and what follows it; `None` if there is no whole batch.
    pub fn split_first(records: &Bytes) -> Option<(Self, Bytes)> {
        let length: [u8; 4] = records.get(8..LENGTH_OVERHEAD)?.try_into().ok()?;
        let length = usize::try_from(i32::from_be_bytes(length)).ok()?;
        let end = length.checked_add(LENGTH_OVERHEAD)?;
        (end >= HEADER_BYTES && end <= records.len())
            .then(|| (Self { bytes: records.slice(..end) }, records.slice(end..)))
    }

    /// The one batch that a produce request has for a partition, checked as far as its header goes.
    ///
    /// Length limits are the caller's to check.
    pub fn from_producer(records: &Bytes) -> Result<Self, BatchError> {
        if records.is_empty() {
            return Err(BatchError::Empty);
        }
        let magic = records.get(16).ok_or(BatchError::Truncated)?;
        let magic = i8::from_be_bytes([*magic]);
        if magic != 2 {
            return Err(BatchError::Magic(magic));
        }
        let (batch, rest) = Self::split_first(records).ok_or(BatchError::Truncated)?;
        if !rest.is_empty() {
            return Err(BatchError::Several);
        }
        batch.check_header()?;
        Ok(batch)
    }

    fn check_header(&self) -> Result<(), BatchError> {
        if self.base_offset() != 0 {
            return Err(BatchError::BaseOffset(self.base_offset()));
        }
        self.check_crc()?;
        let (count, last_offset_delta) = (self.record_count(), self.last_offset_delta());
        if count <= 0 || last_offset_delta != count - 1 {
            return Err(BatchError::Count { count, last_offset_delta });
        }
        if self.attributes() & CONTROL_BIT != 0 {
            return Err(BatchError::Control);
        }
        if self.attributes() & TIMESTAMP_TYPE_BIT != 0 {
            return Err(BatchError::TimestampType);
        }
        if self.attributes() & DELETE_HORIZON_BIT != 0 {
            return Err(BatchError::DeleteHorizon);
        }
        self.codec()?;
        let (id, epoch, sequence) =
            (self.producer_id(), self.producer_epoch(), self.base_sequence());
        if id >= 0 && (epoch < 0 || sequence < 0) {
            return Err(BatchError::Producer { id, epoch, sequence });
        }
        Ok(())
    }

    /// Whether the bytes that the checksum covers are those it was made of.
    pub fn check_crc(&self) -> Result<(), BatchError> {
        let (found, expected) = (self.checksum(), self.crc());
        if found == expected { Ok(()) } else { Err(BatchError::Checksum { found, expected }) }
    }

    /// The whole batch.
    pub fn bytes(&self) -> &Bytes {
        &self.bytes
    }

    /// The records, compressed as they are.
    pub fn records(&self) -> Bytes {
        self.bytes.slice(HEADER_BYTES..)
    }

    /// Offset of the first record.
    pub fn base_offset(&self) -> i64 {
        i64::from_be_bytes(self.field(0))
    }

    /// Checksum as it stands in the header.
    pub fn crc(&self) -> u32 {
        u32::from_be_bytes(self.field(17))
    }

    /// Checksum of what it covers: everything behind it.
    fn checksum(&self) -> u32 {
        crc32c::crc32c(&self.bytes[CRC_START..])
    }

    /// Whether it has the checksum that it says.
    pub fn is_whole(&self) -> bool {
        self.checksum() == self.crc()
    }

    /// Attributes: codec, timestamp type, transactional, control.
    pub fn attributes(&self) -> i16 {
        i16::from_be_bytes(self.field(21))
    }

    /// How the records are compressed.
    pub fn codec(&self) -> Result<Codec, BatchError> {
        match self.attributes() & CODEC_BITS {
            0 => Ok(Codec::None),
            1 => Ok(Codec::Gzip),
            2 => Ok(Codec::Snappy),
            3 => Ok(Codec::Lz4),
            4 => Ok(Codec::Zstd),
            other => Err(BatchError::Codec(other)),
        }
    }

    /// Whether its timestamps are the broker's.
    pub fn has_log_append_time(&self) -> bool {
        self.attributes() & TIMESTAMP_TYPE_BIT != 0
    }

    /// Whether it is part of a transaction.
    pub fn is_transactional(&self) -> bool {
        self.attributes() & TRANSACTIONAL_BIT != 0
    }

    /// Whether it is the end of a transaction.
    pub fn is_control(&self) -> bool {
        self.attributes() & CONTROL_BIT != 0
    }

    /// Offset of the last record, relative to the first.
    pub fn last_offset_delta(&self) -> i32 {
        i32::from_be_bytes(self.field(23))
    }

    /// Timestamp that the records' deltas count from, in milliseconds since the Unix epoch.
    pub fn base_timestamp(&self) -> i64 {
        i64::from_be_bytes(self.field(27))
    }

    /// Largest timestamp, as the producer says, in milliseconds since the Unix epoch.
    pub fn max_timestamp(&self) -> i64 {
        i64::from_be_bytes(self.field(35))
    }

    /// Producer id, -1 for none.
    pub fn producer_id(&self) -> i64 {
        i64::from_be_bytes(self.field(43))
    }

    /// Producer epoch.
    pub fn producer_epoch(&self) -> i16 {
        i16::from_be_bytes(self.field(51))
    }

    /// Sequence number of the first record.
    pub fn base_sequence(&self) -> i32 {
        i32::from_be_bytes(self.field(53))
    }

    /// How many records it says it has.
    pub fn record_count(&self) -> i32 {
        i32::from_be_bytes(self.field(57))
    }

    /// Offsets it takes.
    pub fn offsets(&self) -> u32 {
        u32::try_from(self.last_offset_delta()).map_or(0, |delta| delta.saturating_add(1))
    }

    /// The batch with the broker's time on all its records
    /// (`message.timestamp.type=LogAppendTime`).
    ///
    /// The one case in which covered bytes change, and the checksum with them.
    #[must_use]
    pub fn with_log_append_time(&self, now_ms: i64) -> Self {
        let mut bytes = BytesMut::from(&self.bytes[..]);
        let attributes = self.attributes() | TIMESTAMP_TYPE_BIT;
        bytes[21..23].copy_from_slice(&attributes.to_be_bytes());
        bytes[35..43].copy_from_slice(&now_ms.to_be_bytes());
        let crc = crc32c::crc32c(&bytes[CRC_START..]);
        bytes[17..21].copy_from_slice(&crc.to_be_bytes());
        Self { bytes: bytes.freeze() }
    }

    fn field<const N: usize>(&self, at: usize) -> [u8; N] {
        self.bytes[at..at + N].try_into().expect("a batch has a whole header")
    }
}

#[cfg(test)]
mod tests;
