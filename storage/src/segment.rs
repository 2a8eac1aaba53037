//! Segments: immutable objects that hold record batches of many partitions.
//!
//! Owns the layout and the checks on it. Building one is in [`builder`]; when it is built, uploaded
//! and committed is the `writer`'s business.
//!
//! ```text
//! segment   | header | block | block | … | further footers | footer | trailer |
//! header    | "ODRS" | version u16 | 0 u16 | segment id 24 |
//! block     | "OB" | codec u8 | 0 u8 | topic id 16 | partition i32 | content length u32
//!           | payload length u32 | crc32c u32 | payload |
//! trailer   | footer length u32 | crc32c of the footer u32 | "ODRF" |
//! ```
//!
//! A block is what is read and checked as a whole: batches of one partition, as their producers
//! sent them, perhaps compressed together. Its checksum covers the segment id and the block's
//! position in it, the topic id and the partition with the payload, so that a wrong byte range in a
//! mixed object is an error and never another topic's records, nor other records of the same (F1 in
//! the fault catalogue). The footer is the runs of the commit, so that a segment explains itself.
//! The further ones, which most segments don't have, are of interest to commands that name them
//! (`crate::command::FooterRef`).

use std::fmt;

use bytes::{Buf, Bytes};
use odradek_protocol::id::{TopicId, TopicPartition};

use crate::command::codec::{self, CodecError};
use crate::command::{Incarnation, Run};
use crate::key::ObjectKey;
use crate::lsn::Lsn;

pub mod builder;

/// Longest block content, unless a single batch is longer: one fetch of a partition asks for about
/// as much.
pub const BLOCK_CONTENT_BYTES_MAX: usize = 1024 * 1024;

/// Most batches in a block: its run must fit into an entry of the log.
pub const BLOCK_BATCHES_MAX: usize = 2048;

/// Bytes before the first block.
pub const HEADER_BYTES: usize = 32;

/// Bytes behind the footer.
const TRAILER_BYTES: usize = 12;

/// Bytes of a block before its payload.
pub const BLOCK_HEADER_BYTES: usize = 36;

const SEGMENT_MAGIC: [u8; 4] = *b"ODRS";
const FOOTER_MAGIC: [u8; 4] = *b"ODRF";
const BLOCK_MAGIC: [u8; 2] = *b"OB";
const VERSION: u16 = 1;

/// No block unpacks to more than this: the largest batch a broker takes, with room to spare.
const CONTENT_BYTES_MAX: u32 = 256 * 1024 * 1024;

/// Name of a segment, never used twice.
///
/// It carries how far its broker had followed the log when it began, so that orphans can be told
/// from segments that may still be committed without asking a clock.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct SegmentId {
    /// The last entry its broker had applied when the segment was begun.
    pub began: Lsn,
    /// Which task of which broker gave it its name.
    pub incarnation: Incarnation,
    /// Which of its segments.
    pub counter: u64,
}

impl SegmentId {
    /// Prefix of all segments' keys.
    pub const PREFIX: &'static str = "segment/";

    /// The object's name. Two hashed digits come first, so that a busy bucket splits evenly.
    pub fn key(&self) -> ObjectKey {
        let hash = xxhash_rust::xxh3::xxh3_64(&self.to_bytes()) & 0xff;
        let Self { began, incarnation, counter } = self;
        let key =
            format!("{}{hash:02x}/{:016x}-{incarnation}-{counter:08x}", Self::PREFIX, began.get());
        ObjectKey::new(key).expect("hexadecimal digits make a legal key")
    }

    /// Reads a segment's name; `None` if it is none.
    pub fn from_key(key: &ObjectKey) -> Option<Self> {
        let name = key.as_str().strip_prefix(Self::PREFIX)?.split_once('/')?.1;
        let mut parts = name.split('-').map(|part| u64::from_str_radix(part, 16).ok());
        let id = Self {
            began: Lsn::new(parts.next()??),
            incarnation: Incarnation(parts.next()??),
            counter: parts.next()??,
        };
        (id.key() == *key).then_some(id)
    }

    /// A form of it to be hashed.
    pub(crate) fn to_bytes(self) -> [u8; 24] {
        let mut bytes = [0; 24];
        bytes[..8].copy_from_slice(&self.began.get().to_be_bytes());
        bytes[8..16].copy_from_slice(&self.incarnation.0.to_be_bytes());
        bytes[16..].copy_from_slice(&self.counter.to_be_bytes());
        bytes
    }
}

impl fmt::Display for SegmentId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{:x}-{}-{:x}", self.began.get(), self.incarnation, self.counter)
    }
}

/// How a block's content is packed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum BlockCodec {
    /// As it came.
    Plain,
    /// One zstd frame.
    Zstd,
}

/// Why a block was not believed. Never an answer to a client: the bytes at rest are damaged, or the
/// wrong ones were read.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum BlockError {
    /// Fewer bytes than a block has, or other ones than its header promises.
    #[error("block is {have} bytes long, not {need}")]
    Length {
        /// Bytes that were read.
        have: usize,
        /// Bytes that there should be.
        need: usize,
    },
    /// No block begins here.
    #[error("no block begins here")]
    Magic,
    /// The block lies elsewhere, in another segment, or is damaged.
    #[error("checksum is {found:08x}, not {expected:08x}")]
    Checksum {
        /// Computed over what was read.
        found: u32,
        /// Stored with it.
        expected: u32,
    },
    /// Whole, but of another partition.
    #[error("block belongs to {0}")]
    OtherPartition(TopicPartition),
    /// Whole, but not to be unpacked by this release.
    #[error("content can't be unpacked")]
    Content,
}

/// Why the footer of a segment was not believed.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum FooterError {
    /// No segment, one of a later release, or one that was cut.
    #[error("no whole segment of a known version")]
    Shape,
    /// The segment is another one, by its header or by its footer.
    #[error("segment is {0}")]
    OtherSegment(SegmentId),
    /// The footer is damaged.
    #[error("footer checksum is {found:08x}, not {expected:08x}")]
    Checksum {
        /// Computed over what was read.
        found: u32,
        /// Stored with it.
        expected: u32,
    },
    /// Whole, but not to be understood by this release.
    #[error(transparent)]
    Codec(#[from] CodecError),
}

/// Reads the runs that a whole segment object names in its footer.
pub fn read_footer(segment: SegmentId, object: &Bytes) -> Result<Vec<Run>, FooterError> {
    let bytes = u64::try_from(object.len()).map_err(|_| FooterError::Shape)?;
    open_footer(segment, bytes, object, object)
}

/// How many bytes the footer of a segment takes with its trailer, by the last bytes of the object.
pub fn footer_bytes(end: &[u8]) -> Option<usize> {
    let trailer = end.last_chunk::<TRAILER_BYTES>()?;
    let length = u32::from_be_bytes(*trailer.first_chunk()?);
    usize::try_from(length).ok()?.checked_add(TRAILER_BYTES)
}

/// Reads the runs that the footer of a segment names: `bytes` is the length of the object, `start`
/// its first [`HEADER_BYTES`] or more, `end` its last bytes with all of the footer.
pub fn open_footer(
    segment: SegmentId,
    bytes: u64,
    start: &Bytes,
    end: &Bytes,
) -> Result<Vec<Run>, FooterError> {
    if start.len() < HEADER_BYTES {
        return Err(FooterError::Shape);
    }
    let mut header = start.slice(..HEADER_BYTES);
    let magic = header.copy_to_bytes(4);
    if magic != SEGMENT_MAGIC.as_slice() || header.get_u16() != VERSION || header.get_u16() != 0 {
        return Err(FooterError::Shape);
    }
    let began = Lsn::new(header.get_u64());
    let incarnation = Incarnation(header.get_u64());
    let id = SegmentId { began, incarnation, counter: header.get_u64() };
    if id != segment {
        return Err(FooterError::OtherSegment(id));
    }
    let footer = footer_bytes(end).ok_or(FooterError::Shape)?;
    let begins = u64::try_from(footer).ok().and_then(|footer| bytes.checked_sub(footer));
    let begins = begins.filter(|at| usize::try_from(*at).is_ok_and(|at| at >= HEADER_BYTES));
    let begins = begins.ok_or(FooterError::Shape)?;
    let from = end.len().checked_sub(footer).ok_or(FooterError::Shape)?;
    let mut trailer = end.slice(end.len() - TRAILER_BYTES..);
    trailer.advance(4);
    let expected = trailer.get_u32();
    if trailer != FOOTER_MAGIC.as_slice() {
        return Err(FooterError::Shape);
    }
    let footer = end.slice(from..end.len() - TRAILER_BYTES);
    let found = crc32c::crc32c(&footer);
    if found != expected {
        return Err(FooterError::Checksum { found, expected });
    }
    let (id, blocks_end, runs) = codec::decode_footer(footer)?;
    if id != segment {
        return Err(FooterError::OtherSegment(id));
    }
    if begins != blocks_end {
        return Err(FooterError::Shape);
    }
    Ok(runs)
}

/// Checks a block that was read from `segment` at byte `position` and unpacks its content.
pub fn open_block(
    segment: SegmentId,
    partition: TopicPartition,
    position: u64,
    block: &Bytes,
) -> Result<Bytes, BlockError> {
    let have = block.len();
    if have < BLOCK_HEADER_BYTES {
        return Err(BlockError::Length { have, need: BLOCK_HEADER_BYTES });
    }
    let mut header = block.slice(..BLOCK_HEADER_BYTES);
    if header.copy_to_bytes(2) != BLOCK_MAGIC.as_slice() {
        return Err(BlockError::Magic);
    }
    let codec = header.get_u8();
    let reserved = header.get_u8();
    let topic = TopicId(uuid::Uuid::from_u128(header.get_u128()));
    let owner = TopicPartition { topic, partition: header.get_i32() };
    let content_bytes = header.get_u32();
    let payload_bytes = usize::try_from(header.get_u32()).unwrap_or(usize::MAX);
    let expected = header.get_u32();
    let need = payload_bytes.saturating_add(BLOCK_HEADER_BYTES);
    if have != need {
        return Err(BlockError::Length { have, need });
    }
    let payload = block.slice(BLOCK_HEADER_BYTES..);
    let found = block_checksum(segment, position, &block[..BLOCK_HEADER_BYTES - 4], &payload);
    if found != expected {
        return Err(BlockError::Checksum { found, expected });
    }
    if owner != partition {
        return Err(BlockError::OtherPartition(owner));
    }
    if reserved != 0 || content_bytes > CONTENT_BYTES_MAX {
        return Err(BlockError::Content);
    }
    let content = match codec {
        0 => payload,
        1 => unpack(&payload, content_bytes)?,
        _ => return Err(BlockError::Content),
    };
    if u32::try_from(content.len()) == Ok(content_bytes) {
        Ok(content)
    } else {
        Err(BlockError::Content)
    }
}

fn unpack(payload: &[u8], content_bytes: u32) -> Result<Bytes, BlockError> {
    let capacity = usize::try_from(content_bytes).map_err(|_| BlockError::Content)?;
    let content = zstd::bulk::decompress(payload, capacity).map_err(|_| BlockError::Content)?;
    Ok(content.into())
}

fn block_checksum(segment: SegmentId, position: u64, header: &[u8], payload: &[u8]) -> u32 {
    let sum = crc32c::crc32c(&segment.to_bytes());
    let sum = crc32c::crc32c_append(sum, &position.to_be_bytes());
    let sum = crc32c::crc32c_append(sum, header);
    crc32c::crc32c_append(sum, payload)
}

#[cfg(test)]
mod tests;
