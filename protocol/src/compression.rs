//! Opening record batches, within limits, and packing what is left of them.
//!
//! Done only where something inside decides: finding a record by its time, log compaction by key,
//! and configs that speak of single records. Output stops at a limit that the caller names, so that
//! a small batch can't ask for much memory, whatever it unpacks to.

use std::io::{self, Read, Write};

use bytes::{Buf, BufMut, Bytes};
use lz4_flex::frame::{BlockMode, FrameEncoder, FrameInfo};

use crate::record::{Codec, Malformed, RecordBatch, RecordView};

/// Largest window a zstd frame may ask for, as a power of two: 8 MiB, what encoders use at most
/// without being told otherwise.
const ZSTD_WINDOW_LOG_MAX: u32 = 23;

/// First bytes of an LZ4 frame. The library reads the older form of frames as well, whose blocks
/// are twice as long as any that Kafka's clients write or read.
const LZ4_MAGIC: [u8; 4] = 0x184d_2204_u32.to_le_bytes();

/// First bytes of Snappy data in xerial framing, as Java clients and librdkafka write it.
const XERIAL_MAGIC: &[u8] = b"\x82SNAPPY\0";

/// Bytes of the xerial header: magic, version, oldest compatible version.
const XERIAL_HEADER_BYTES: usize = 16;

/// Why a batch can't be opened.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum OpenError {
    /// It unpacks to more than the limit.
    #[error("records unpack to more than {0} bytes")]
    TooLong(usize),
    /// Not what its codec says.
    #[error("records can't be unpacked: {0}")]
    Codec(String),
    /// Unpacked, but no records.
    #[error("records are malformed")]
    Records,
}

impl From<Malformed> for OpenError {
    fn from(_: Malformed) -> Self {
        Self::Records
    }
}

/// One record of an opened batch, as far as a broker looks at it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Record {
    /// Offset relative to the batch's first record.
    pub offset_delta: i32,
    /// Timestamp relative to the batch's base timestamp, in milliseconds.
    pub timestamp_delta: i64,
    /// Whether it has a key.
    pub has_key: bool,
    /// Whether it has a value; a record without one is a tombstone.
    pub has_value: bool,
}

/// Unpacks the records of a batch, to at most `bytes_max` bytes.
pub fn unpack(batch: &RecordBatch, bytes_max: usize) -> Result<Bytes, OpenError> {
    let packed = batch.records();
    let codec = batch.codec().map_err(|error| OpenError::Codec(error.to_string()))?;
    match codec {
        Codec::None if packed.len() > bytes_max => Err(OpenError::TooLong(bytes_max)),
        Codec::None => Ok(packed),
        Codec::Gzip => read_all(flate2::read::MultiGzDecoder::new(packed.reader()), bytes_max),
        Codec::Lz4 if !packed.is_empty() && !packed.starts_with(&LZ4_MAGIC) => {
            Err(OpenError::Codec("no LZ4 frame".to_owned()))
        }
        Codec::Lz4 => read_all(lz4_flex::frame::FrameDecoder::new(packed.reader()), bytes_max),
        Codec::Zstd => {
            let mut decoder = zstd::stream::read::Decoder::new(packed.reader()).map_err(broken)?;
            decoder.window_log_max(ZSTD_WINDOW_LOG_MAX).map_err(broken)?;
            read_all(decoder, bytes_max)
        }
        Codec::Snappy => unpack_snappy(&packed, bytes_max),
    }
}

fn broken(error: io::Error) -> OpenError {
    OpenError::Codec(error.to_string())
}

fn read_all(decoder: impl Read, bytes_max: usize) -> Result<Bytes, OpenError> {
    let limit = u64::try_from(bytes_max).unwrap_or(u64::MAX).saturating_add(1);
    let mut unpacked = Vec::new();
    decoder.take(limit).read_to_end(&mut unpacked).map_err(broken)?;
    if unpacked.len() > bytes_max {
        Err(OpenError::TooLong(bytes_max))
    } else {
        Ok(unpacked.into())
    }
}

fn unpack_snappy(packed: &Bytes, bytes_max: usize) -> Result<Bytes, OpenError> {
    let mut unpacked = Vec::new();
    if !packed.starts_with(XERIAL_MAGIC) {
        append_snappy(packed, bytes_max, &mut unpacked)?;
        return Ok(unpacked.into());
    }
    let mut rest = packed.clone();
    if rest.len() < XERIAL_HEADER_BYTES {
        return Err(OpenError::Codec("xerial header is cut short".to_owned()));
    }
    rest.advance(XERIAL_HEADER_BYTES);
    while rest.has_remaining() {
        let length = rest.try_get_i32().ok().and_then(|length| usize::try_from(length).ok());
        let length = length.filter(|length| *length <= rest.len());
        let length =
            length.ok_or_else(|| OpenError::Codec("xerial block is cut short".to_owned()))?;
        append_snappy(&rest.split_to(length), bytes_max, &mut unpacked)?;
    }
    Ok(unpacked.into())
}

fn append_snappy(block: &[u8], bytes_max: usize, out: &mut Vec<u8>) -> Result<(), OpenError> {
    let snappy = |error: snap::Error| OpenError::Codec(error.to_string());
    // Said by the block itself, before anything is unpacked or reserved for it.
    let length = snap::raw::decompress_len(block).map_err(snappy)?;
    if out.len().saturating_add(length) > bytes_max {
        return Err(OpenError::TooLong(bytes_max));
    }
    let start = out.len();
    out.resize(start + length, 0);
    snap::raw::Decoder::new().decompress(block, &mut out[start..]).map_err(snappy)?;
    Ok(())
}

/// Walks the records of an unpacked batch. Ends after as many as its header says, or with an error
/// where they are malformed or bytes are left over.
#[derive(Debug)]
pub struct Records {
    unpacked: Bytes,
    left: i32,
}

impl Records {
    /// The records of `batch`, whose records unpack to `unpacked`.
    pub fn of(batch: &RecordBatch, unpacked: Bytes) -> Self {
        Self { unpacked, left: batch.record_count() }
    }
}

impl Iterator for Records {
    type Item = Result<Record, OpenError>;

    fn next(&mut self) -> Option<Self::Item> {
        if self.left <= 0 {
            let rest = std::mem::take(&mut self.unpacked);
            return (!rest.is_empty()).then_some(Err(OpenError::Records));
        }
        self.left -= 1;
        let Some((view, _)) = RecordView::split_first(&self.unpacked) else {
            self.left = 0;
            self.unpacked = Bytes::new();
            return Some(Err(OpenError::Records));
        };
        let length = view.bytes.len();
        let record = Record {
            offset_delta: view.offset_delta,
            timestamp_delta: view.timestamp_delta,
            has_key: view.key.is_some(),
            has_value: view.has_value,
        };
        self.unpacked.advance(length);
        Some(Ok(record))
    }
}

/// Packs encoded records, in the form in which Java clients do: the one that every client reads.
pub fn pack(codec: Codec, records: Vec<u8>) -> Result<Bytes, OpenError> {
    let packed = match codec {
        Codec::None => records,
        Codec::Gzip => {
            let level = flate2::Compression::default();
            let mut encoder = flate2::write::GzEncoder::new(Vec::new(), level);
            encoder.write_all(&records).map_err(broken)?;
            encoder.finish().map_err(broken)?
        }
        Codec::Lz4 => {
            // Java clients read no blocks that depend on each other.
            let frame = FrameInfo::new().block_mode(BlockMode::Independent);
            let mut encoder = FrameEncoder::with_frame_info(frame, Vec::new());
            encoder.write_all(&records).map_err(broken)?;
            encoder.finish().map_err(|error| OpenError::Codec(error.to_string()))?
        }
        Codec::Zstd => {
            zstd::bulk::compress(&records, zstd::DEFAULT_COMPRESSION_LEVEL).map_err(broken)?
        }
        Codec::Snappy => pack_snappy(&records)?,
    };
    Ok(packed.into())
}

/// Bytes of content in a xerial block, as Java clients make them.
const XERIAL_BLOCK_BYTES: usize = 32 * 1024;

fn pack_snappy(records: &[u8]) -> Result<Vec<u8>, OpenError> {
    let mut packed = XERIAL_MAGIC.to_vec();
    packed.put_i32(1);
    packed.put_i32(1);
    for block in records.chunks(XERIAL_BLOCK_BYTES) {
        let block = snap::raw::Encoder::new().compress_vec(block);
        let block = block.map_err(|error| OpenError::Codec(error.to_string()))?;
        packed.put_i32(i32::try_from(block.len()).expect("a block is short"));
        packed.extend_from_slice(&block);
    }
    Ok(packed)
}

#[cfg(test)]
mod tests;
