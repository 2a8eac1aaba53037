//! The merger: makes few large segments of many small ones, with the batches of each partition side
//! by side.
//!
//! Segments are merged in *units*, in the order in which they were begun: enough of them that a
//! large one comes out ([`plan`]). Each byte is rewritten once in a system under load, and at most
//! twice: what was merged when there was little of it is merged once more when there is much. Whose
//! turn a unit is follows from its first segment, so that units are spread over the brokers; if two
//! take the same one, what comes second is turned away by `apply`, and its output is swept.
//!
//! Also what the state holds itself, because it was too small for an object, is moved into objects
//! here; and what is left of a segment when most of it has expired, so that the rest of it can go:
//! for each byte that is rewritten then, more than one is given back.

use std::collections::BTreeMap;
use std::num::NonZeroUsize;
use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use tokio::time::{Instant, sleep, sleep_until};

use super::rewriting::{self, Piece, RewriteError, Rewritten, rested_after};
use crate::command::{FooterRef, NewExtent, Replacement};
use crate::counts::LifeCounts;
use crate::machine::Machine;
use crate::names::{Names, Task};
use crate::object::ObjectStore;
use crate::offload::off_the_workers;
use crate::reader::{Batches, FetchError};
use crate::segment::SegmentId;
use crate::segment::builder::SegmentSink;

mod plan;

use plan::{Run, Unit};

/// How the merger behaves.
#[derive(Clone, Debug)]
pub struct MergerConfig {
    /// How often it looks whether there is something to do.
    pub interval: Duration,
    /// A unit has about this many bytes. What is half as large is not merged again. Twice as much
    /// is in memory while it is merged.
    pub unit_bytes: u64,
    /// A unit has at most this many segments.
    pub unit_segments_max: NonZeroUsize,
    /// When the state holds this many bytes itself, they are merged, however small the unit.
    pub inline_bytes_max: u64,
    /// What is left of a segment is moved when this much of it is not needed any more, and more
    /// than is.
    pub garbage_bytes_min: u64,
    /// How many segments are read at once.
    pub gets_inflight_max: NonZeroUsize,
    /// Bytes that are rewritten in a second, on the average.
    pub bytes_per_second: u64,
    /// Level at which batches that came uncompressed are compressed, or none.
    pub zstd_level: Option<i32>,
    /// What is replaced is left to footers of the merged segment if it takes more bytes than this;
    /// `None` if it never is.
    pub footer_bytes_min: Option<u32>,
}

impl Default for MergerConfig {
    fn default() -> Self {
        Self {
            interval: Duration::from_secs(10),
            unit_bytes: 64 * 1024 * 1024,
            unit_segments_max: NonZeroUsize::new(1000).expect("not zero"),
            inline_bytes_max: 4 * 1024 * 1024,
            garbage_bytes_min: 64 * 1024,
            gets_inflight_max: NonZeroUsize::new(8).expect("not zero"),
            bytes_per_second: 64 * 1024 * 1024,
            zstd_level: Some(1),
            footer_bytes_min: Some(FooterRef::LEFT_BYTES_MIN),
        }
    }
}

/// For how many intervals a segment that could not be read is left out.
const UNREADABLE_INTERVALS: u32 = 60;

/// How often a segment is read before it is.
const READ_ATTEMPTS: usize = 3;

/// The task.
pub(super) struct Merger {
    machine: Machine,
    objects: Arc<dyn ObjectStore>,
    config: MergerConfig,
    names: Names,
    counts: Arc<LifeCounts>,
    /// Segments that could not be read, and when: others are not to wait for them.
    unreadable: BTreeMap<SegmentId, Instant>,
    /// The most that was referred to of each segment: what is missing of that has expired.
    most: BTreeMap<SegmentId, u64>,
}

impl Merger {
    pub(super) fn new(
        machine: Machine,
        objects: Arc<dyn ObjectStore>,
        config: MergerConfig,
        counts: Arc<LifeCounts>,
    ) -> Self {
        let names = Names::new(machine.clone(), Task::MERGING);
        let (unreadable, most) = (BTreeMap::new(), BTreeMap::new());
        Self { machine, objects, config, names, counts, unreadable, most }
    }

    pub(super) async fn run(mut self) {
        loop {
            sleep(self.config.interval).await;
            let left_out = self.config.interval * UNREADABLE_INTERVALS;
            self.unreadable.retain(|_, since| since.elapsed() < left_out);
            while let Some(unit) = self.next_unit() {
                let rested = rested_after(unit.bytes(), self.config.bytes_per_second);
                match self.merge(unit).await {
                    Ok(()) => sleep_until(rested).await,
                    Err(RewriteError::Input { segment, cause }) => {
                        tracing::error!(%segment, cause, "a segment can't be read, nor merged");
                        self.counts.merging.put_off.add(1);
                        self.unreadable.insert(segment, Instant::now());
                    }
                    Err(error) => {
                        tracing::warn!(%error, "merging is put off");
                        self.counts.merging.put_off.add(1);
                        break;
                    }
                }
            }
        }
    }

    fn next_unit(&mut self) -> Option<Unit> {
        let node = self.machine.node_id();
        let Self { machine, config, unreadable, most, .. } = self;
        let is_readable = |segment: &SegmentId| !unreadable.contains_key(segment);
        machine.read(|state| plan::next(state, node, config, is_readable, most))
    }

    async fn merge(&mut self, unit: Unit) -> Result<(), RewriteError> {
        let inputs = unit.inputs.len();
        let id = self.names.next();
        self.counts.merging.bytes_in.add(unit.bytes());
        let unit = Arc::new(unit);
        let mut merged = self.rewrite(id, &unit).await;
        for _ in 1..READ_ATTEMPTS {
            // Damaged on the way, perhaps: another look tells.
            if matches!(merged, Err(RewriteError::Input { .. })) {
                merged = self.rewrite(id, &unit).await;
            }
        }
        let merged = merged?;
        let bytes = merged.bytes();
        let swapped = merged.swap_in(&self.objects, &self.machine).await?;
        let late = rewriting::count(&self.counts.merging, bytes, &swapped);
        let runs = swapped.len();
        tracing::info!(segment = %id, inputs, bytes, runs, late, "segments are merged");
        Ok(())
    }

    async fn rewrite(&self, id: SegmentId, unit: &Arc<Unit>) -> Result<Rewritten, RewriteError> {
        let at_once = self.config.gets_inflight_max;
        let mut objects = rewriting::read_all(&self.objects, &unit.stored(), at_once).await?;
        objects.extend(unit.inline());
        let MergerConfig { zstd_level, footer_bytes_min, .. } = self.config;
        let unit = Arc::clone(unit);
        off_the_workers(move || {
            let bytes = objects.values().map(Bytes::len).sum();
            let mut sink = SegmentSink::new(id, bytes, zstd_level);
            let replacements = rewrite(&mut sink, &unit.runs, &objects)?;
            Ok(Rewritten::finish(sink, unit.level, replacements, footer_bytes_min))
        })
        .await
    }
}

/// Lays the batches of a unit out anew, and says what they replace. Runs with the same extents, of
/// a topic and its branches, come to lie in the same blocks.
fn rewrite(
    sink: &mut SegmentSink,
    runs: &[Run],
    objects: &BTreeMap<SegmentId, Bytes>,
) -> Result<Vec<Replacement>, RewriteError> {
    let mut done = BTreeMap::new();
    let mut replacements = Vec::with_capacity(runs.len());
    for run in runs {
        let extents = match done.get(&run.contents()) {
            Some(extents) => Vec::clone(extents),
            None => {
                let extents = rewrite_run(sink, run, objects)?;
                done.insert(run.contents(), extents.clone());
                extents
            }
        };
        let Run { partition, from, to, inputs, .. } = *run;
        replacements.push(Replacement { partition, from, to, inputs, extents, cleaned: None });
    }
    Ok(replacements)
}

fn rewrite_run(
    sink: &mut SegmentSink,
    run: &Run,
    objects: &BTreeMap<SegmentId, Bytes>,
) -> Result<Vec<NewExtent>, RewriteError> {
    let sink_id = sink.id();
    let mut piece = Piece::new(sink, run.from);
    for (located, owner) in &run.extents {
        let segment = located.extent.segment();
        let failed = |error: FetchError| RewriteError::Input {
            segment: segment.unwrap_or(sink_id),
            cause: error.to_string(),
        };
        let object = segment.and_then(|segment| objects.get(&segment));
        for batch in Batches::in_object(located, object).map_err(failed)? {
            piece.push(*owner, &batch.map_err(failed)?);
        }
    }
    Ok(piece.finish(run.to))
}
