//! From extents that a pass has changed to replacements.

use odradek_protocol::id::{Offset, TopicPartition};

use super::filter::{Filter, Left};
use super::plan::Placed;
use crate::command::Replacement;
use crate::life::rewriting::Piece;
use crate::reader::PlacedBatch;
use crate::segment::builder::SegmentSink;
use crate::state::partition::{Content, Extent, hash_of};
use odradek_protocol::record::RecordBatch;

/// A run is closed when this many bytes are left in it.
const RUN_BYTES_MAX: usize = 8 * 1024 * 1024;

/// Extents side by side, in whose place others will come.
#[derive(Default)]
pub(super) struct Runs {
    open: Open,
    closed: Vec<Run>,
}

/// What comes in the place of some extents.
pub(super) struct Run {
    from: Offset,
    to: Offset,
    /// Hash of the extents.
    inputs: u64,
    owner: TopicPartition,
    batches: Vec<PlacedBatch>,
}

#[derive(Default)]
struct Open {
    extents: Vec<Extent>,
    owner: Option<TopicPartition>,
    batches: Vec<PlacedBatch>,
    bytes: usize,
    /// Whether something in it is changed; else there are only gaps in it yet.
    is_changed: bool,
}

impl Runs {
    /// Adds the next extent, of which this is left. One that is as it was ends the run.
    pub(super) fn push(&mut self, placed: &Placed, batches: Option<Vec<PlacedBatch>>) {
        let extent = placed.located.extent;
        let is_gap = matches!(extent.content, Content::Gap);
        if (batches.is_none() && !is_gap)
            || self.open.bytes >= RUN_BYTES_MAX
            || self.open.owner.is_some_and(|owner| owner != placed.owner)
        {
            self.close();
        }
        match batches {
            None if !is_gap => return,
            None => {}
            Some(batches) => {
                self.open.is_changed = true;
                self.open.bytes += batches.iter().map(|batch| batch.bytes.len()).sum::<usize>();
                self.open.batches.extend(batches);
            }
        }
        self.open.owner = Some(placed.owner);
        self.open.extents.push(extent);
    }

    /// Takes the runs that are complete.
    pub(super) fn take(&mut self) -> Vec<Run> {
        std::mem::take(&mut self.closed)
    }

    /// Takes all runs: there are no more extents.
    pub(super) fn finish(mut self) -> Vec<Run> {
        self.close();
        self.closed
    }

    fn close(&mut self) {
        let Open { extents, owner, batches, is_changed, .. } = std::mem::take(&mut self.open);
        if let (Some(first), Some(last), Some(owner)) = (extents.first(), extents.last(), owner)
            && is_changed
        {
            let (from, to) = (first.base, last.end());
            let inputs = hash_of(extents.iter());
            self.closed.push(Run { from, to, inputs, owner, batches });
        }
    }
}

impl Run {
    /// Lays the batches out, and says what they replace.
    pub(super) fn write(self, partition: TopicPartition, sink: &mut SegmentSink) -> Replacement {
        let Self { from, to, inputs, owner, batches } = self;
        let mut piece = Piece::new(sink, from);
        for batch in &batches {
            piece.push(owner, batch);
        }
        let extents = piece.finish(to);
        Replacement { partition, from, to, inputs, extents, cleaned: None }
    }
}

/// What is left of the batches of an extent; `None` if all is as it was.
pub(super) fn filter(filter: &mut Filter, batches: Vec<PlacedBatch>) -> Option<Vec<PlacedBatch>> {
    let mut is_changed = false;
    let mut kept = Vec::with_capacity(batches.len());
    for placed in batches {
        let Some(batch) = in_place(&placed) else {
            kept.push(placed);
            continue;
        };
        match filter.pass(&batch) {
            Left::Same => kept.push(placed),
            Left::Changed(batch) => {
                is_changed = true;
                let (max_timestamp, bytes) = (batch.max_timestamp(), batch.bytes().clone());
                kept.push(PlacedBatch { max_timestamp, bytes, ..placed });
            }
            Left::Nothing => is_changed = true,
        }
    }
    is_changed.then_some(kept)
}

/// The batch with its offset in it.
pub(super) fn in_place(placed: &PlacedBatch) -> Option<RecordBatch> {
    let (batch, _) = RecordBatch::split_first(&placed.bytes)?;
    Some(batch.with_base_offset(placed.base.0))
}
