//! Building a segment: collects batches of many partitions, packs them into blocks, seals them.
//!
//! Batches of one partition keep the order in which they came and end up side by side. They are
//! never re-encoded; where all batches of a block came uncompressed, the block is compressed as a
//! whole if that pays.

use std::collections::BTreeMap;
use std::fmt;

use bytes::{BufMut, Bytes, BytesMut};
use odradek_protocol::id::TopicPartition;
use zstd::bulk::Compressor;

use super::{
    BLOCK_BATCHES_MAX, BLOCK_CONTENT_BYTES_MAX, BLOCK_HEADER_BYTES, BLOCK_MAGIC, BlockCodec,
    FOOTER_MAGIC, HEADER_BYTES, SEGMENT_MAGIC, SegmentId, VERSION, block_checksum,
};
use crate::command::codec::encode_footer;
use crate::command::{BatchSummary, FooterRef, NewBlock, Run};

/// How much of a block is compressed to see whether the rest is worth it.
const SAMPLE_BYTES: usize = 16 * 1024;

/// Blocks shorter than this stay as they are: there is nothing to gain.
const COMPRESS_BYTES_MIN: usize = 512;

/// A batch on its way into a segment.
#[derive(Clone, Debug)]
pub struct PendingBatch {
    /// The batch as its producer sent it, checked.
    pub bytes: Bytes,
    /// What the state needs to know of it. Its `bytes` is the length of the above.
    pub summary: BatchSummary,
    /// Whether its records are compressed already.
    pub compressed: bool,
}

/// Collects batches until the segment is sealed.
#[derive(Debug, Default)]
pub struct SegmentBuilder {
    batches: BTreeMap<TopicPartition, Vec<PendingBatch>>,
    content_bytes: usize,
}

/// A segment that is ready to be put and committed.
#[derive(Debug)]
pub struct SealedSegment {
    /// Its name.
    pub id: SegmentId,
    /// The object.
    pub bytes: Bytes,
    /// Its footer.
    pub footer: FooterRef,
    /// What to commit, with the unpacked content of each block.
    pub blocks: Vec<SealedBlock>,
}

impl SealedSegment {
    /// The object up to its footer.
    pub fn without_footer(&self) -> Bytes {
        let end = self.blocks.last().map_or(0, |block| {
            block.run.position.saturating_add(u64::from(block.run.stored_bytes))
        });
        self.bytes.slice(..usize::try_from(end).unwrap_or(0))
    }
}

/// One block of a sealed segment.
#[derive(Debug)]
pub struct SealedBlock {
    /// Where it lies and what is in it.
    pub run: Run,
    /// Its content: the batches, one after the other.
    pub content: Bytes,
}

impl SegmentBuilder {
    /// Bytes of batches collected so far.
    pub fn content_bytes(&self) -> usize {
        self.content_bytes
    }

    /// Whether nothing was collected.
    pub fn is_empty(&self) -> bool {
        self.batches.is_empty()
    }

    /// Adds a batch behind those of its partition.
    pub fn push(&mut self, partition: TopicPartition, batch: PendingBatch) {
        self.content_bytes += batch.bytes.len();
        self.batches.entry(partition).or_default().push(batch);
    }

    /// Lays the segment out. `zstd_level` is the level for what came uncompressed, or none.
    ///
    /// Takes time in proportion to the content: tens of milliseconds for some megabytes that
    /// compress.
    pub fn seal(self, id: SegmentId, zstd_level: Option<i32>) -> SealedSegment {
        let mut object = BytesMut::with_capacity(HEADER_BYTES + self.content_bytes * 9 / 8 + 4096);
        put_header(&mut object, id);
        let (mut packed, mut packer) = (Vec::new(), Packer::new(zstd_level));
        for (partition, batches) in self.batches {
            for block in split(batches) {
                packed.push(put_block(&mut object, id, partition, block, &mut packer));
            }
        }
        let footer = put_footer(&mut object, id, packed.iter().map(|block| &block.run));
        let bytes = object.freeze();
        let blocks = packed.into_iter().map(|block| block.finish(&bytes)).collect();
        SealedSegment { id, bytes, footer, blocks }
    }
}

/// Lays a segment out block by block, for content that is too long to be collected first.
#[derive(Debug)]
pub struct SegmentSink {
    id: SegmentId,
    object: BytesMut,
    runs: Vec<Run>,
    packer: Packer,
}

impl SegmentSink {
    /// A segment without blocks, of which about so many bytes are expected. `zstd_level` is the
    /// level for what came uncompressed, or none.
    pub fn new(id: SegmentId, bytes: usize, zstd_level: Option<i32>) -> Self {
        let mut object = BytesMut::with_capacity(bytes);
        put_header(&mut object, id);
        Self { id, object, runs: Vec::new(), packer: Packer::new(zstd_level) }
    }

    /// Its name.
    pub fn id(&self) -> SegmentId {
        self.id
    }

    /// Its length so far.
    pub fn bytes(&self) -> usize {
        self.object.len()
    }

    /// Whether nothing was put into it.
    pub fn is_empty(&self) -> bool {
        self.runs.is_empty()
    }

    /// Adds a block of these batches, with this partition in its header.
    pub fn put(&mut self, owner: TopicPartition, batches: Vec<PendingBatch>) -> NewBlock {
        let bytes = length(batches.iter().map(|batch| batch.bytes.len()).sum());
        let PackedBlock { run, .. } =
            put_block(&mut self.object, self.id, owner, batches, &mut self.packer);
        let block = NewBlock { position: run.position, stored_bytes: run.stored_bytes, bytes };
        self.runs.push(run);
        block
    }

    /// The object.
    pub fn finish(self) -> Bytes {
        self.finish_with(&[]).0
    }

    /// The object, with further footers that say this, and what names them.
    pub(crate) fn finish_with(mut self, further: &[Vec<u8>]) -> (Bytes, Vec<FooterRef>) {
        let mut positions = Vec::with_capacity(further.len());
        for footer in further {
            positions.push(u64::try_from(self.object.len()).unwrap_or(u64::MAX));
            self.object.put_slice(footer);
        }
        let last = put_footer(&mut self.object, self.id, self.runs.iter());
        let named = positions.iter().zip(further);
        let named =
            named.map(|(at, footer)| FooterRef::of(self.id, last.segment_bytes, *at, footer));
        (self.object.freeze(), named.collect())
    }
}

/// A block whose content is known, or lies in an object that is not finished yet.
struct PackedBlock {
    run: Run,
    content: Option<Bytes>,
}

impl PackedBlock {
    fn finish(self, object: &Bytes) -> SealedBlock {
        let Self { run, content } = self;
        let content = content.unwrap_or_else(|| {
            let start = usize::try_from(run.position).unwrap_or(usize::MAX);
            let end = start + usize::try_from(run.stored_bytes).unwrap_or(usize::MAX);
            object.slice(start + BLOCK_HEADER_BYTES..end)
        });
        SealedBlock { run, content }
    }
}

/// Cuts the batches of a partition into blocks of at most [`BLOCK_CONTENT_BYTES_MAX`] and
/// [`BLOCK_BATCHES_MAX`].
fn split(batches: Vec<PendingBatch>) -> Vec<Vec<PendingBatch>> {
    let mut blocks: Vec<Vec<PendingBatch>> = Vec::new();
    let mut bytes = 0;
    for batch in batches {
        bytes += batch.bytes.len();
        match blocks.last_mut() {
            Some(block) if bytes <= BLOCK_CONTENT_BYTES_MAX && block.len() < BLOCK_BATCHES_MAX => {
                block.push(batch);
            }
            _ => {
                bytes = batch.bytes.len();
                blocks.push(vec![batch]);
            }
        }
    }
    blocks
}

fn put_block(
    object: &mut BytesMut,
    id: SegmentId,
    partition: TopicPartition,
    batches: Vec<PendingBatch>,
    packer: &mut Packer,
) -> PackedBlock {
    let content_bytes: usize = batches.iter().map(|batch| batch.bytes.len()).sum();
    let plain = batches.iter().all(|batch| !batch.compressed);
    let is_long = content_bytes >= COMPRESS_BYTES_MIN;
    let compressed = if plain && is_long { packer.pack(&batches) } else { None };
    let start = object.len();
    let (codec, payload_bytes) = match &compressed {
        Some((_, payload)) => (BlockCodec::Zstd, payload.len()),
        None => (BlockCodec::Plain, content_bytes),
    };
    object.put_slice(&BLOCK_MAGIC);
    object.put_u8(match codec {
        BlockCodec::Plain => 0,
        BlockCodec::Zstd => 1,
    });
    object.put_u8(0);
    object.put_slice(partition.topic.as_bytes());
    object.put_i32(partition.partition);
    object.put_u32(length(content_bytes));
    object.put_u32(length(payload_bytes));
    let checksum_at = object.len();
    object.put_u32(0);
    let content = match compressed {
        Some((content, payload)) => {
            object.put_slice(&payload);
            Some(content)
        }
        None => {
            batches.iter().for_each(|batch| object.put_slice(&batch.bytes));
            None
        }
    };
    let position = u64::try_from(start).unwrap_or(u64::MAX);
    let (header, payload) = object[start..].split_at(BLOCK_HEADER_BYTES);
    let checksum = block_checksum(id, position, &header[..BLOCK_HEADER_BYTES - 4], payload);
    object[checksum_at..checksum_at + 4].copy_from_slice(&checksum.to_be_bytes());
    let run = Run {
        partition,
        position,
        stored_bytes: length(object.len() - start),
        batches: batches.iter().map(|batch| batch.summary).collect(),
    };
    PackedBlock { run, content }
}

/// Compresses what came uncompressed, with one context for all blocks of a segment: making one
/// ready takes longer than compressing some kilobytes.
struct Packer {
    zstd_level: Option<i32>,
    compressor: Option<Compressor<'static>>,
}

impl Packer {
    fn new(zstd_level: Option<i32>) -> Self {
        Self { zstd_level, compressor: None }
    }

    /// The content in one piece and its compressed form, if that is at least an eighth smaller.
    fn pack(&mut self, batches: &[PendingBatch]) -> Option<(Bytes, Vec<u8>)> {
        let level = self.zstd_level?;
        let compressor = match &mut self.compressor {
            Some(compressor) => compressor,
            none => none.insert(Compressor::new(level).ok()?),
        };
        let mut content =
            BytesMut::with_capacity(batches.iter().map(|batch| batch.bytes.len()).sum());
        batches.iter().for_each(|batch| content.put_slice(&batch.bytes));
        let pays = |before: usize, after: usize| after < before - before / 8;
        if content.len() > 4 * SAMPLE_BYTES {
            let sample = compressor.compress(&content[..SAMPLE_BYTES]).ok()?;
            if !pays(SAMPLE_BYTES, sample.len()) {
                return None;
            }
        }
        let payload = compressor.compress(&content).ok()?;
        pays(content.len(), payload.len()).then(|| (content.freeze(), payload))
    }
}

impl fmt::Debug for Packer {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Packer").field("zstd_level", &self.zstd_level).finish_non_exhaustive()
    }
}

fn put_header(object: &mut BytesMut, id: SegmentId) {
    object.put_slice(&SEGMENT_MAGIC);
    object.put_u16(VERSION);
    object.put_u16(0);
    object.put_slice(&id.to_bytes());
}

fn put_footer<'a>(
    object: &mut BytesMut,
    id: SegmentId,
    runs: impl Iterator<Item = &'a Run>,
) -> FooterRef {
    let blocks_end = u64::try_from(object.len()).unwrap_or(u64::MAX);
    let footer = encode_footer(id, blocks_end, runs);
    object.put_slice(&footer);
    object.put_u32(length(footer.len()));
    object.put_u32(crc32c::crc32c(&footer));
    object.put_slice(&FOOTER_MAGIC);
    FooterRef::of(id, u64::try_from(object.len()).unwrap_or(u64::MAX), blocks_end, &footer)
}

fn length(bytes: usize) -> u32 {
    u32::try_from(bytes).expect("a segment is far shorter than 4 GiB")
}
