//! Rewriting extents: from batches in their places to a new segment that is in the store, verified,
//! and the command that swaps it in. What merging and compaction share.

use std::collections::BTreeMap;
use std::num::NonZeroUsize;
use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use futures::stream::{self, StreamExt, TryStreamExt};
use odradek_protocol::id::{Offset, ProducerId, TopicPartition};
use odradek_protocol::record::{Codec, RecordBatch};
use tokio::time::Instant;

use crate::command::codec::encode_replacements;
use crate::command::{
    BatchProducer, BatchSummary, BatchTransaction, Command, FooterRef, NewExtent, Outcome,
    Rejection, Replacement,
};
use crate::counts::RewriteCounts;
use crate::machine::Machine;
use crate::object::{ObjectStore, Put};
use crate::reader::PlacedBatch;
use crate::segment::builder::{PendingBatch, SegmentSink};
use crate::segment::{
    BLOCK_BATCHES_MAX, BLOCK_CONTENT_BYTES_MAX, SegmentId, open_block, read_footer,
};

/// Replacements are proposed in pieces of about this many bytes in an entry, and in a footer. All
/// else waits while a piece is applied, which takes some milliseconds for the longer ones.
const PIECE_BYTES_MAX: usize = 96 * 1024;
const FOOTER_PIECE_BYTES_MAX: usize = 256 * 1024;

/// How many bytes one replacement takes when it is stored, and each of its extents.
const REPLACEMENT_BYTES: usize = 64;
const EXTENT_BYTES: usize = 40;

/// Why something could not be rewritten. It stays as it is.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub(crate) enum RewriteError {
    /// An input can't be read, or is not what it should be.
    #[error("segment {segment} can't be read: {cause}")]
    Input {
        /// The segment.
        segment: SegmentId,
        /// Why.
        cause: String,
    },
    /// The output is not in the store, or not as it was put there.
    #[error("segment {segment} was not stored: {cause}")]
    Output {
        /// The segment.
        segment: SegmentId,
        /// Why.
        cause: String,
    },
    /// The log did not take the command, or did not say.
    #[error("the log does not answer")]
    Log,
}

/// When a task that moves so many bytes now, and `per_second` on the average, goes on.
pub(crate) fn rested_after(bytes: u64, per_second: u64) -> Instant {
    let millis = bytes.saturating_mul(1000) / per_second.max(1);
    Instant::now() + Duration::from_millis(millis)
}

/// Puts the batches of a contiguous piece of a partition into blocks, and says which extents that
/// makes: they cover the piece from `next` to its end, whatever is missing in it.
pub(crate) struct Piece<'a> {
    sink: &'a mut SegmentSink,
    /// Where the next extent begins.
    next: Offset,
    owner: Option<TopicPartition>,
    batches: Vec<PendingBatch>,
    bytes: usize,
    max_timestamp: i64,
    extents: Vec<NewExtent>,
}

impl<'a> Piece<'a> {
    /// A piece that begins at `from`.
    pub(crate) fn new(sink: &'a mut SegmentSink, from: Offset) -> Self {
        Self {
            sink,
            next: from,
            owner: None,
            batches: Vec::new(),
            bytes: 0,
            max_timestamp: -1,
            extents: Vec::new(),
        }
    }

    /// Adds the next batch, of a block that has `owner` in its header.
    pub(crate) fn push(&mut self, owner: TopicPartition, batch: &PlacedBatch) {
        let is_full = self.bytes + batch.bytes.len() > BLOCK_CONTENT_BYTES_MAX
            || self.batches.len() >= BLOCK_BATCHES_MAX
            || self.owner.is_some_and(|it| it != owner);
        let is_far = batch.end().0 - self.next.0 > i64::from(u32::MAX);
        if is_far || (is_full && !self.batches.is_empty()) {
            self.close(batch.base);
        }
        self.owner = Some(owner);
        self.bytes += batch.bytes.len();
        if !batch.is_control {
            self.max_timestamp = self.max_timestamp.max(batch.max_timestamp);
        }
        self.batches.push(pending(batch));
    }

    /// The extents, the last of which ends at `to`.
    pub(crate) fn finish(mut self, to: Offset) -> Vec<NewExtent> {
        self.close(to);
        self.extents
    }

    /// Closes the block: its extent goes on until `end`, where the next one begins.
    fn close(&mut self, end: Offset) {
        let mut left = end.0 - self.next.0;
        self.next = end;
        let batches = std::mem::take(&mut self.batches);
        let mut block = self.owner.filter(|_| !batches.is_empty()).map(|owner| {
            let block = self.sink.put(owner, batches);
            (block, std::mem::replace(&mut self.max_timestamp, -1))
        });
        self.bytes = 0;
        // More offsets than an extent takes can only be missing ones.
        while left > 0 {
            let records = u32::try_from(left).unwrap_or(u32::MAX);
            let (block, max_timestamp) =
                block.take().map_or((None, -1), |(block, max)| (Some(block), max));
            self.extents.push(NewExtent { records, max_timestamp, block });
            left -= i64::from(records);
        }
    }
}

fn pending(placed: &PlacedBatch) -> PendingBatch {
    let bytes = placed.with_offset();
    let compressed = RecordBatch::split_first(&bytes)
        .is_some_and(|(batch, _)| batch.codec().is_ok_and(|codec| codec != Codec::None));
    let summary = BatchSummary {
        bytes: u32::try_from(bytes.len()).unwrap_or(u32::MAX),
        records: placed.records,
        max_timestamp: placed.max_timestamp,
        producer: producer(&bytes),
    };
    PendingBatch { bytes, summary, compressed }
}

/// The producer of a batch, for the footer: nothing is judged by it any more.
fn producer(bytes: &Bytes) -> Option<BatchProducer> {
    let (batch, _) = RecordBatch::split_first(bytes)?;
    (batch.producer_id() >= 0).then(|| BatchProducer {
        id: ProducerId(batch.producer_id()),
        epoch: batch.producer_epoch(),
        base_sequence: batch.base_sequence(),
        transaction: match batch.is_transactional() {
            true => BatchTransaction::Added,
            false => BatchTransaction::None,
        },
    })
}

/// A segment that is ready to be put, and the commands that swap in what lies in it. It is empty if
/// nothing does.
pub(crate) struct Rewritten {
    id: SegmentId,
    object: Bytes,
    swaps: Vec<Command>,
}

impl Rewritten {
    /// Finishes a segment. What it replaces is left to footers of it if that takes more than
    /// `footer_bytes_min` bytes; `None` if it never is.
    pub(crate) fn finish(
        sink: SegmentSink,
        level: u8,
        replacements: Vec<Replacement>,
        footer_bytes_min: Option<u32>,
    ) -> Self {
        let segment = sink.id();
        let bytes: usize = replacements.iter().map(stored_bytes).sum();
        let least = footer_bytes_min.and_then(|least| usize::try_from(least).ok());
        if !sink.is_empty() && least.is_some_and(|least| bytes > least) {
            let pieces = pieces(&replacements, FOOTER_PIECE_BYTES_MAX);
            let footers: Vec<_> = pieces.iter().map(|it| encode_replacements(it)).collect();
            let bytes_max = usize::try_from(FooterRef::BYTES_MAX).unwrap_or(usize::MAX);
            if footers.iter().all(|footer| footer.len() <= bytes_max) {
                let (object, footers) = sink.finish_with(&footers);
                let swap = |(footer, piece): (FooterRef, &[Replacement])| {
                    let replacements = Some(piece.to_vec());
                    Command::ReplaceByFooter { footer, level, replacements }
                };
                let swaps = footers.into_iter().zip(pieces).map(swap).collect();
                return Self { id: segment, object, swaps };
            }
        }
        let object = if sink.is_empty() { Bytes::new() } else { sink.finish() };
        let bytes = u64::try_from(object.len()).unwrap_or(u64::MAX);
        let swap = |piece: &[Replacement]| {
            let replacements = piece.to_vec();
            Command::ReplaceExtents { segment, bytes, level, replacements }
        };
        let swaps = pieces(&replacements, PIECE_BYTES_MAX).into_iter().map(swap).collect();
        Self { id: segment, object, swaps }
    }

    /// Length of the segment.
    pub(crate) fn bytes(&self) -> u64 {
        u64::try_from(self.object.len()).unwrap_or(u64::MAX)
    }

    /// Puts the segment into the store, if there is one, and swaps in what lies in it. Returns what
    /// became of each replacement.
    pub(crate) async fn swap_in(
        self,
        objects: &Arc<dyn ObjectStore>,
        machine: &Machine,
    ) -> Result<Vec<Result<(), Rejection>>, RewriteError> {
        if !self.object.is_empty() {
            store(objects, self.id, self.object).await?;
        }
        swap(machine, self.swaps).await
    }
}

/// Puts a segment into the store, reads it back and looks at every byte of it.
async fn store(
    objects: &Arc<dyn ObjectStore>,
    id: SegmentId,
    object: Bytes,
) -> Result<(), RewriteError> {
    let failed = |cause: String| RewriteError::Output { segment: id, cause };
    match objects.put_if_absent(&id.key(), object.clone()).await {
        // Nobody else has this name: it is ours, from an attempt that was not answered.
        Ok(Put::Created | Put::Exists) => {}
        Err(error) => return Err(failed(error.to_string())),
    }
    let length = u64::try_from(object.len()).unwrap_or(u64::MAX);
    let read = objects.get_range(&id.key(), 0..length).await;
    let read = read.map_err(|error| failed(error.to_string()))?;
    let read = read.ok_or_else(|| failed("it is not there".to_owned()))?;
    verify(id, &read).map_err(failed)?;
    if read == object { Ok(()) } else { Err(failed("it is another one".to_owned())) }
}

/// Looks at every block and every batch of a segment.
fn verify(id: SegmentId, object: &Bytes) -> Result<(), String> {
    for run in read_footer(id, object).map_err(|error| error.to_string())? {
        let start = usize::try_from(run.position).unwrap_or(usize::MAX);
        let end = start.saturating_add(usize::try_from(run.stored_bytes).unwrap_or(usize::MAX));
        if end > object.len() {
            return Err("a block lies outside".to_owned());
        }
        let block = object.slice(start..end);
        let mut content = open_block(id, run.partition, run.position, &block)
            .map_err(|error| error.to_string())?;
        for _ in &run.batches {
            let (batch, rest) = RecordBatch::split_first(&content).ok_or("a batch is cut")?;
            if !batch.is_whole() {
                return Err(format!("the batch at {} is damaged", batch.base_offset()));
            }
            content = rest;
        }
        if !content.is_empty() {
            return Err("there are more batches than the footer names".to_owned());
        }
    }
    Ok(())
}

/// Reads whole segments, a few at once.
pub(crate) async fn read_all(
    objects: &Arc<dyn ObjectStore>,
    segments: &BTreeMap<SegmentId, u64>,
    at_once: NonZeroUsize,
) -> Result<BTreeMap<SegmentId, Bytes>, RewriteError> {
    let reads = segments.iter().map(|(id, bytes)| {
        let (objects, segment, bytes) = (Arc::clone(objects), *id, *bytes);
        async move {
            let failed = |cause: String| RewriteError::Input { segment, cause };
            let read = objects.get_range(&segment.key(), 0..bytes).await;
            let read = read.map_err(|error| failed(error.to_string()))?;
            let read = read.ok_or_else(|| failed("it is not in the store".to_owned()))?;
            Ok((segment, read))
        }
    });
    let reads: Vec<_> = reads.collect();
    stream::iter(reads).buffered(at_once.get()).try_collect().await
}

/// Has replacements made, one command after the other. Returns what became of each.
async fn swap(
    machine: &Machine,
    commands: Vec<Command>,
) -> Result<Vec<Result<(), Rejection>>, RewriteError> {
    let mut all = Vec::new();
    for command in commands {
        match machine.propose(command).await {
            Ok(Outcome::ExtentsReplaced(outcomes)) => all.extend(outcomes),
            _ => return Err(RewriteError::Log),
        }
    }
    Ok(all)
}

/// Counts a segment that was written and what became of its replacements. Returns how many were
/// turned away.
pub(crate) fn count(
    counts: &RewriteCounts,
    bytes: u64,
    outcomes: &[Result<(), Rejection>],
) -> usize {
    let late = outcomes.iter().filter(|outcome| outcome.is_err()).count();
    counts.segments_out.add(u64::from(bytes > 0));
    counts.bytes_out.add(bytes);
    counts.rejected.add_len(late);
    counts.swapped.add_len(outcomes.len() - late);
    late
}

/// How many bytes a replacement takes when it is stored.
fn stored_bytes(replacement: &Replacement) -> usize {
    REPLACEMENT_BYTES + EXTENT_BYTES * replacement.extents.len()
}

/// Cuts replacements into pieces of about `bytes_max` each.
fn pieces(replacements: &[Replacement], bytes_max: usize) -> Vec<&[Replacement]> {
    let mut bytes = 0;
    let goes_on = |one: &Replacement, next: &Replacement| {
        bytes += stored_bytes(one);
        let goes_on = bytes + stored_bytes(next) <= bytes_max;
        if !goes_on {
            bytes = 0;
        }
        goes_on
    };
    replacements.chunk_by(goes_on).collect()
}
