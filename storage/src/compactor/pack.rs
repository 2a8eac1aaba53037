//! What is left of a range of offsets, laid into blocks.

use odradek_protocol::id::Offset;
use odradek_protocol::record::RecordBatch;

use crate::segment::{BLOCK_BATCHES_MAX, BLOCK_CONTENT_BYTES_MAX};

/// A part of a range that becomes one extent.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Span {
    /// Offsets it takes, holes before, between and behind its batches included.
    pub offsets: u32,
    /// Largest timestamp in it, in milliseconds since the Unix epoch; -1 if nothing is left in it.
    pub max_timestamp: i64,
    /// The batches of its block; none if nothing is left in it.
    pub batches: Vec<RecordBatch>,
}

impl Span {
    fn gap(offsets: u32) -> Self {
        Self { offsets, max_timestamp: -1, batches: Vec::new() }
    }
}

/// Lays the batches that are left in `from..to` into as few spans as there are blocks; together
/// they take all offsets of the range.
///
/// Holes belong to the block before them, so that the state does not grow by what is gone.
pub fn pack(from: Offset, to: Offset, batches: Vec<RecordBatch>) -> Vec<Span> {
    let mut spans = Vec::new();
    let mut start = from;
    let mut open = Open::default();
    for batch in batches {
        let base = Offset(batch.base_offset());
        let end = base.advanced_by(batch.offsets());
        if !open.takes(&batch) || distance(start, end).is_none() {
            // A span ends where the next one's batches begin.
            start = close(&mut spans, &mut open, start, base);
        }
        open.push(batch);
    }
    close(&mut spans, &mut open, start, to);
    spans
}

/// Ends a span at `end`, or at its last batch and with gaps behind it where that is too far.
fn close(spans: &mut Vec<Span>, open: &mut Open, start: Offset, end: Offset) -> Offset {
    let Open { batches, .. } = std::mem::take(open);
    let mut start = start;
    if let Some(last) = batches.last() {
        let last = Offset(last.base_offset()).advanced_by(last.offsets());
        let until = if distance(start, end).is_some() { end } else { last };
        let max_timestamp = batches.iter().map(RecordBatch::max_timestamp).max().unwrap_or(-1);
        let offsets = distance(start, until).unwrap_or(u32::MAX);
        spans.push(Span { offsets, max_timestamp, batches });
        start = until;
    }
    while start < end {
        let offsets = distance(start, end).unwrap_or(u32::MAX);
        spans.push(Span::gap(offsets));
        start = start.advanced_by(offsets);
    }
    start
}

/// Offsets from one to the other, if a span can have as many.
fn distance(from: Offset, to: Offset) -> Option<u32> {
    u32::try_from(to.0.saturating_sub(from.0)).ok()
}

/// The batches of a block that is not full.
#[derive(Default)]
struct Open {
    batches: Vec<RecordBatch>,
    bytes: usize,
}

impl Open {
    /// A block has one batch at least, however long that is.
    fn takes(&self, batch: &RecordBatch) -> bool {
        let bytes = self.bytes.saturating_add(batch.bytes().len());
        let has_room = bytes <= BLOCK_CONTENT_BYTES_MAX && self.batches.len() < BLOCK_BATCHES_MAX;
        self.batches.is_empty() || has_room
    }

    fn push(&mut self, batch: RecordBatch) {
        self.bytes += batch.bytes().len();
        self.batches.push(batch);
    }
}

#[cfg(test)]
mod tests;
