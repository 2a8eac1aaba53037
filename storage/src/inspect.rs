//! What is in a segment, told in full: for whoever wants to see for themselves.
//!
//! Most of what there is to see is the state's to show; a segment has to be read. How it is read is
//! `fsck`'s business.

use odradek_protocol::id::{Offset, TopicPartition};
use odradek_protocol::record::{BatchError, Codec, RecordBatch};

use crate::fsck::{Finding, segment_blocks};
use crate::look::{Look, LookError};
use crate::lsn::Lsn;
use crate::segment::{BlockError, SegmentId};
use crate::state::State;

/// A segment, and what became of it.
#[derive(Debug)]
pub struct SegmentSeen {
    /// Its length as it is stored, in bytes.
    pub bytes: u64,
    /// What the state says of it.
    pub standing: Standing,
    /// What is wrong with it.
    pub findings: Vec<Finding>,
    /// Its blocks, in order of their positions.
    pub blocks: Vec<BlockSeen>,
}

/// How the state knows a segment.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Standing {
    /// Extents lie in it.
    Referenced {
        /// How many.
        references: u64,
        /// How often what is in it has been merged.
        level: u8,
        /// Whether the log holds it itself.
        is_inline: bool,
    },
    /// Nothing refers to it any more since this entry.
    Waiting(Lsn),
    /// It was never committed, or is forgotten.
    Unknown,
}

/// A block.
#[derive(Debug)]
pub struct BlockSeen {
    /// Where it begins.
    pub position: u64,
    /// Its length with its header, in bytes.
    pub stored_bytes: u32,
    /// Whose name stands in it.
    pub owner: TopicPartition,
    /// Where it is read: the extents that lie in it.
    pub extents: Vec<ExtentSeen>,
    /// Its batches, or why they can't be had.
    pub batches: Result<Vec<BatchSeen>, BlockError>,
}

/// An extent in a block.
#[derive(Clone, Debug)]
pub struct ExtentSeen {
    /// The name of its topic.
    pub name: String,
    /// Its partition.
    pub partition: TopicPartition,
    /// Its first offset.
    pub from: Offset,
    /// The offset after its last.
    pub to: Offset,
}

/// A record batch.
#[derive(Clone, Debug)]
pub struct BatchSeen {
    /// Where it begins in the unpacked content of its block.
    pub position: usize,
    /// Its length, in bytes.
    pub bytes: usize,
    /// The offset in its own header: 0 unless it was merged.
    pub base_offset: i64,
    /// Offsets it takes.
    pub offsets: u32,
    /// Records in it.
    pub records: i32,
    /// Largest timestamp, in milliseconds since the Unix epoch.
    pub max_timestamp: i64,
    /// The producer, -1 for none.
    pub producer_id: i64,
    /// Its epoch.
    pub producer_epoch: i16,
    /// Sequence number of the first record.
    pub base_sequence: i32,
    /// How its records are compressed.
    pub codec: Result<Codec, BatchError>,
    /// Whether it is part of a transaction.
    pub is_transactional: bool,
    /// Whether it is the end of one.
    pub is_control: bool,
    /// Whether its checksum is right.
    pub checked: Result<(), BatchError>,
}

impl BatchSeen {
    fn of(batch: &RecordBatch, position: usize) -> Self {
        Self {
            position,
            bytes: batch.bytes().len(),
            base_offset: batch.base_offset(),
            offsets: batch.offsets(),
            records: batch.record_count(),
            max_timestamp: batch.max_timestamp(),
            producer_id: batch.producer_id(),
            producer_epoch: batch.producer_epoch(),
            base_sequence: batch.base_sequence(),
            codec: batch.codec(),
            is_transactional: batch.is_transactional(),
            is_control: batch.is_control(),
            checked: batch.check_crc(),
        }
    }
}

/// Reads a segment; `None` if there is none of that name, in the store or in the state.
pub async fn segment(
    look: &Look,
    state: &State,
    segment: SegmentId,
) -> Result<Option<SegmentSeen>, LookError> {
    let segments = state.segments();
    let referenced = segments.referenced().get(&segment);
    let waiting = segments.unreferenced().get(&segment);
    let standing = match (referenced, waiting) {
        (Some(refs), _) => Standing::Referenced {
            references: refs.references,
            level: refs.level,
            is_inline: refs.inline.is_some(),
        },
        (None, Some(waits)) => Standing::Waiting(waits.since),
        (None, None) => Standing::Unknown,
    };
    let key = segment.key();
    let listed = look.list(key.as_str()).await?.into_iter().find(|object| object.key == key);
    let inline = referenced.and_then(|refs| refs.inline.as_ref());
    let bytes = match (listed, inline, referenced) {
        (Some(object), _, _) => object.size,
        (None, Some(inline), _) => u64::try_from(inline.len()).unwrap_or(u64::MAX),
        (None, None, Some(refs)) => refs.bytes,
        (None, None, None) => return Ok(None),
    };
    let (findings, blocks) = segment_blocks(look, state, segment, bytes).await?;
    Ok(Some(SegmentSeen { bytes, standing, findings, blocks }))
}

/// The batches in the unpacked content of a block.
pub(crate) fn batches(content: &bytes::Bytes) -> Vec<BatchSeen> {
    let (mut rest, mut position) = (content.clone(), 0);
    let mut batches = Vec::new();
    while let Some((batch, behind)) = RecordBatch::split_first(&rest) {
        batches.push(BatchSeen::of(&batch, position));
        position += batch.bytes().len();
        rest = behind;
    }
    batches
}
