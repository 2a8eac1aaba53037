//! Blocks that one broker has of another: how they are named, and how they are answered.
//!
//! A broker of the same zone may have a block in memory, or be the one that reads its segment for
//! all of them. What it gives is named and checked like a block in the store; what it does not give
//! is read from there.

use bytes::{Buf, BufMut, Bytes, BytesMut};
use odradek_protocol::id::TopicPartition;
use prost::Message;

use crate::command::codec::{self, CodecError, wire};
use crate::envelope::Format;
use crate::segment::SegmentId;

const ANSWER_FORMAT: Format = Format { magic: *b"ODRB", version: 1 };

/// Bytes of the lengths before an answer: of all of it, and of its head.
pub const ANSWER_PREFIX_BYTES: usize = 8;

/// Content of blocks in one answer, in bytes. What does not go into it is not given.
pub const ANSWER_CONTENT_BYTES_MAX: usize = 16 * 1024 * 1024;

/// Blocks of one question: few enough that nobody waits for it to be read.
pub const BLOCKS_ASKED_MAX: usize = 4096;

/// Longest head of an answer in bytes.
const HEAD_BYTES_MAX: usize = BLOCKS_ASKED_MAX * 64;

/// Longest answer in bytes, prefix not included.
pub const ANSWER_BYTES_MAX: usize = ANSWER_CONTENT_BYTES_MAX + HEAD_BYTES_MAX;

/// Where a block lies, and whose it is: all that is needed to read it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct BlockAddress {
    /// The segment.
    pub segment: SegmentId,
    /// Its length in bytes.
    pub segment_bytes: u64,
    /// Where the block begins in it.
    pub position: u64,
    /// Bytes that it takes there.
    pub stored_bytes: u32,
    /// Who stands in its header.
    pub owner: TopicPartition,
}

#[derive(Clone, PartialEq, Message)]
pub(super) struct StoredAddress {
    #[prost(message, optional, tag = "1")]
    segment: Option<wire::SegmentId>,
    #[prost(uint64, tag = "2")]
    segment_bytes: u64,
    #[prost(uint64, tag = "3")]
    position: u64,
    #[prost(uint32, tag = "4")]
    stored_bytes: u32,
    #[prost(bytes = "vec", tag = "5")]
    topic: Vec<u8>,
    #[prost(int32, tag = "6")]
    partition: i32,
}

impl From<&BlockAddress> for StoredAddress {
    fn from(address: &BlockAddress) -> Self {
        Self {
            segment: Some(address.segment.into()),
            segment_bytes: address.segment_bytes,
            position: address.position,
            stored_bytes: address.stored_bytes,
            topic: address.owner.topic.as_bytes().to_vec(),
            partition: address.owner.partition,
        }
    }
}

impl TryFrom<StoredAddress> for BlockAddress {
    type Error = CodecError;

    fn try_from(stored: StoredAddress) -> Result<Self, CodecError> {
        let topic = codec::topic_id(&stored.topic)?;
        Ok(Self {
            segment: stored.segment.ok_or(CodecError::Field("segment"))?.into(),
            segment_bytes: stored.segment_bytes,
            position: stored.position,
            stored_bytes: stored.stored_bytes,
            owner: TopicPartition { topic, partition: stored.partition },
        })
    }
}

/// What a broker gives of the blocks that it was asked for.
///
/// ```text
/// | length of the rest u32 | length of the head u32 | head, sealed | contents, one after another |
/// ```
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct BlockAnswer {
    /// The blocks; [`ANSWER_CONTENT_BYTES_MAX`] bytes and [`BLOCKS_ASKED_MAX`] of them at most.
    pub blocks: Vec<GivenBlock>,
}

/// A block, unpacked.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct GivenBlock {
    /// The segment.
    pub segment: SegmentId,
    /// Where the block begins in it.
    pub position: u64,
    /// Its content.
    pub content: Bytes,
}

#[derive(Clone, PartialEq, Message)]
struct Head {
    #[prost(message, repeated, tag = "1")]
    given: Vec<Given>,
}

#[derive(Clone, PartialEq, Message)]
struct Given {
    #[prost(message, optional, tag = "1")]
    segment: Option<wire::SegmentId>,
    #[prost(uint64, tag = "2")]
    position: u64,
    #[prost(uint32, tag = "3")]
    bytes: u32,
    #[prost(fixed32, tag = "4")]
    checksum: u32,
}

impl BlockAnswer {
    /// Bytes of all contents.
    pub fn content_bytes(&self) -> usize {
        self.blocks.iter().map(|block| block.content.len()).sum()
    }

    /// The answer as parts to be written one after the other: contents are not copied.
    pub fn encode(self) -> Vec<Bytes> {
        let given = |block: &GivenBlock| Given {
            segment: Some(block.segment.into()),
            position: block.position,
            bytes: length(block.content.len()),
            checksum: crc32c::crc32c(&block.content),
        };
        let head = Head { given: self.blocks.iter().map(given).collect() };
        let head = ANSWER_FORMAT.seal(&head.encode_to_vec());
        let mut first = BytesMut::with_capacity(ANSWER_PREFIX_BYTES + head.len());
        first.put_u32(length(ANSWER_PREFIX_BYTES / 2 + head.len() + self.content_bytes()));
        first.put_u32(length(head.len()));
        first.put_slice(&head);
        let mut parts = vec![first.freeze()];
        parts.extend(self.blocks.into_iter().map(|block| block.content));
        parts
    }

    /// The answer in these bytes, which begin behind the first length. A block whose content is not
    /// what was sent counts as not given.
    pub fn decode(mut bytes: Bytes) -> Result<Self, CodecError> {
        let head_bytes = bytes.try_get_u32().map_err(|_| CodecError::Field("head"))?;
        let head_bytes = usize::try_from(head_bytes).unwrap_or(usize::MAX);
        if head_bytes > bytes.len().min(HEAD_BYTES_MAX) {
            return Err(CodecError::Field("head"));
        }
        let (_, head) = ANSWER_FORMAT.open(&bytes.split_to(head_bytes))?;
        let Head { given } = Head::decode(head)?;
        if given.len() > BLOCKS_ASKED_MAX {
            return Err(CodecError::Field("given"));
        }
        let mut blocks = Vec::with_capacity(given.len());
        for Given { segment, position, bytes: content_bytes, checksum } in given {
            let segment = segment.ok_or(CodecError::Field("segment"))?.into();
            let content_bytes = usize::try_from(content_bytes).unwrap_or(usize::MAX);
            if content_bytes > bytes.len() {
                return Err(CodecError::Field("bytes"));
            }
            let content = bytes.split_to(content_bytes);
            if crc32c::crc32c(&content) == checksum {
                blocks.push(GivenBlock { segment, position, content });
            }
        }
        if bytes.is_empty() { Ok(Self { blocks }) } else { Err(CodecError::Field("contents")) }
    }
}

/// Lengths that are far below 4 GiB by the bounds above.
fn length(bytes: usize) -> u32 {
    u32::try_from(bytes).unwrap_or(u32::MAX)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::command::Incarnation;
    use crate::lsn::Lsn;

    fn block(position: u64, content: &'static [u8]) -> GivenBlock {
        let segment = SegmentId { began: Lsn::new(5), incarnation: Incarnation(8), counter: 2 };
        GivenBlock { segment, position, content: Bytes::from_static(content) }
    }

    /// As it is read: behind the first length.
    fn joined(answer: &BlockAnswer) -> Bytes {
        let mut bytes = Bytes::from(answer.clone().encode().concat());
        let length = usize::try_from(bytes.get_u32()).unwrap();
        assert_eq!(length, bytes.len());
        bytes
    }

    #[test]
    fn an_answer_is_read_back_as_it_was_sent_and_damaged_content_counts_as_not_given() {
        let answer =
            BlockAnswer { blocks: vec![block(7, b"a batch"), block(0, b""), block(9, b"another")] };
        let bytes = joined(&answer);
        assert_eq!(BlockAnswer::decode(bytes.clone()), Ok(answer.clone()));
        let nothing = BlockAnswer::default();
        assert_eq!(BlockAnswer::decode(joined(&nothing)), Ok(nothing));
        for at in 0..bytes.len() {
            let mut damaged = bytes.to_vec();
            damaged[at] ^= 1;
            match BlockAnswer::decode(damaged.into()) {
                Err(_) => assert!(at < bytes.len() - 14, "{at}"),
                Ok(read) => {
                    let lost = if at < bytes.len() - 7 { 0 } else { 2 };
                    let mut left = answer.blocks.clone();
                    left.remove(lost);
                    assert_eq!(read.blocks, left, "{at}");
                }
            }
        }
        for cut in 0..bytes.len() {
            assert!(BlockAnswer::decode(bytes.slice(..cut)).is_err(), "{cut}");
        }
    }

    #[test]
    fn the_longest_answer_is_no_longer_than_is_read() {
        let segment = SegmentId {
            began: Lsn::new(u64::MAX),
            incarnation: Incarnation(u64::MAX),
            counter: u64::MAX,
        };
        let content = Bytes::from(vec![7; ANSWER_CONTENT_BYTES_MAX / BLOCKS_ASKED_MAX]);
        let block = GivenBlock { segment, position: u64::MAX, content };
        let answer = BlockAnswer { blocks: vec![block; BLOCKS_ASKED_MAX] };
        assert!(joined(&answer).len() <= ANSWER_BYTES_MAX);
    }
}
