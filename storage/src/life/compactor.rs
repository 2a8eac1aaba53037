//! Log compaction by key (KIP-58, KIP-354, KIP-534): of the records with one key, the latest stays.
//!
//! A *pass* over a partition looks at what is dirty, which is what no pass has finished, and notes
//! the latest offset of every key ([`keys`]); then it goes from the log start offset to the end of
//! what it has noted and takes out what is superseded ([`filter`]). Extents side by side in which
//! something has changed become blocks of a new segment ([`runs`]); others stay where they are.
//! Which partitions are due is in [`plan`]. One broker compacts a partition, the same whoever asks;
//! if two do, what is second to replace an extent is turned away.
//!
//! - **COMPACT-1** the latest value of a key stays, at its offset, with its bytes.
//! - **COMPACT-2** what a tombstone deleted does not come back: a tombstone goes only below what an
//!   earlier pass has finished, where all that was older is gone.
//! - **COMPACT-3** the end of the log is always a batch, be it an empty one, or consumers that read
//!   to the end would wait there for ever.
//! - **COMPACT-4** the marker of an aborted transaction stays as long as the transaction is named
//!   to consumers: they wait for it.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;
use std::time::Duration;

use odradek_protocol::id::{Offset, TopicPartition};
use rand::rngs::StdRng;
use rand::{RngCore, SeedableRng};
use tokio::time::{Instant, sleep, sleep_until};

use super::rewriting::{self, RewriteError, Rewritten, rested_after};
use crate::command::{FooterRef, Replacement};
use crate::counts::LifeCounts;
use crate::machine::Machine;
use crate::names::{Names, Task};
use crate::object::ObjectStore;
use crate::offload::off_the_workers;
use crate::reader::{Batches, Blocks, FetchError, PlacedBatch, ReaderConfig};
use crate::segment::SegmentId;
use crate::segment::builder::SegmentSink;

mod filter;
mod keys;
mod plan;
mod runs;

use filter::{Filter, Rules};
use keys::LatestOffsets;
use plan::{Placed, Work};
use runs::{Run, Runs};

/// How the compactor behaves.
#[derive(Clone, Debug)]
pub struct CompactorConfig {
    /// How often it looks whether there is something to do.
    pub interval: Duration,
    /// A pass ends when it has noted this many keys, at about forty bytes each; it goes on from
    /// there the next time.
    pub keys_max: usize,
    /// About how many bytes of blocks are read at once.
    pub window_bytes: usize,
    /// A segment is put when it has this many bytes.
    pub segment_bytes: usize,
    /// A segment is put at the latest this long after it was begun: it is taken only for so long.
    pub segment_age_max: Duration,
    /// Bytes that are read in a second, on the average.
    pub bytes_per_second: u64,
    /// How long a partition that can't be read is left alone, at most: the first time as long as
    /// the interval, and then twice as long each time.
    pub unreadable_pause_max: Duration,
    /// Level at which batches that came uncompressed are compressed, or none.
    pub zstd_level: Option<i32>,
    /// What is replaced is left to footers of the new segment if it takes more bytes than this;
    /// `None` if it never is.
    pub footer_bytes_min: Option<u32>,
}

impl Default for CompactorConfig {
    fn default() -> Self {
        Self {
            interval: Duration::from_secs(15),
            keys_max: 2_000_000,
            window_bytes: 16 * 1024 * 1024,
            segment_bytes: 32 * 1024 * 1024,
            segment_age_max: Duration::from_secs(60),
            bytes_per_second: 64 * 1024 * 1024,
            unreadable_pause_max: Duration::from_secs(10 * 60),
            zstd_level: Some(1),
            footer_bytes_min: Some(FooterRef::LEFT_BYTES_MIN),
        }
    }
}

/// What comes out is merged once more when there is much of it.
const LEVEL: u8 = 1;

/// The task.
pub(super) struct Compactor {
    machine: Machine,
    objects: Arc<dyn ObjectStore>,
    blocks: Blocks,
    config: CompactorConfig,
    names: Names,
    counts: Arc<LifeCounts>,
    random: StdRng,
    /// Partitions that could not be read the last time.
    unreadable: BTreeMap<TopicPartition, Pause>,
}

/// For how long a partition is left alone.
#[derive(Clone, Copy)]
struct Pause {
    until: Instant,
    length: Duration,
}

/// What a round has done, and not yet proposed.
#[derive(Default)]
struct Output {
    segment: Option<Open>,
    /// Partitions that a pass has gone through, and up to where.
    finished: Vec<(TopicPartition, Offset)>,
    /// Partitions that changed meanwhile, so that their passes are not finished.
    turned_away: BTreeSet<TopicPartition>,
}

/// A segment that is being written.
struct Open {
    id: SegmentId,
    since: Instant,
    sink: SegmentSink,
    replacements: Vec<Replacement>,
}

/// Why a pass is not finished.
#[derive(Debug, thiserror::Error)]
enum Unfinished {
    #[error(transparent)]
    Unreadable(#[from] FetchError),
    #[error(transparent)]
    Unwritten(#[from] RewriteError),
}

impl Compactor {
    pub(super) fn new(
        machine: Machine,
        objects: Arc<dyn ObjectStore>,
        config: CompactorConfig,
        seed: u64,
        counts: Arc<LifeCounts>,
    ) -> Self {
        // What is read here nobody else wants to find in memory.
        let reader = ReaderConfig { cache_bytes_max: 0, ..ReaderConfig::default() };
        Self {
            blocks: Blocks::new(Arc::clone(&objects), reader),
            names: Names::new(machine.clone(), Task::COMPACTION),
            machine,
            objects,
            config,
            counts,
            random: StdRng::seed_from_u64(seed ^ u64::from_be_bytes(*b"keyseed.")),
            unreadable: BTreeMap::new(),
        }
    }

    pub(super) async fn run(mut self) {
        loop {
            sleep(self.config.interval).await;
            if let Err(error) = self.round().await {
                tracing::warn!(%error, "compaction is put off");
                self.counts.compaction.put_off.add(1);
            }
        }
    }

    /// Goes through the partitions that are due.
    async fn round(&mut self) -> Result<(), RewriteError> {
        let due = self.machine.read(|state| plan::due(state, self.machine.node_id()));
        self.unreadable.retain(|at, _| due.iter().any(|due| due.partition == *at));
        let mut output = Output::default();
        for at in due.into_iter().map(|due| due.partition) {
            if self.unreadable.get(&at).is_some_and(|pause| Instant::now() < pause.until) {
                continue;
            }
            let Some(work) = self.machine.read(|state| plan::work(state, at)) else { continue };
            match self.pass(work, &mut output).await {
                Ok(end) => {
                    self.unreadable.remove(&at);
                    output.finished.push((at, end));
                }
                Err(Unfinished::Unreadable(error)) => {
                    tracing::error!(partition = %at, %error, "a partition is not compacted");
                    self.counts.compaction.put_off.add(1);
                    self.leave_alone(at);
                }
                Err(Unfinished::Unwritten(error)) => return Err(error),
            }
        }
        self.flush(&mut output).await?;
        self.finish(output).await
    }

    /// Puts a partition off that can't be read: it may be damaged, or the store be out of reach.
    fn leave_alone(&mut self, at: TopicPartition) {
        let CompactorConfig { interval, unreadable_pause_max, .. } = self.config;
        let doubled = self.unreadable.get(&at).map_or(interval, |pause| pause.length * 2);
        let length = doubled.min(unreadable_pause_max);
        self.unreadable.insert(at, Pause { until: Instant::now() + length, length });
    }

    /// One pass over a partition. Returns how far it got.
    async fn pass(&mut self, work: Work, output: &mut Output) -> Result<Offset, Unfinished> {
        let Work { partition, extents, aborted, cleaned, now_ms, delete_retention_ms } = work;
        let mut latest = LatestOffsets::new(cleaned, self.config.keys_max, self.random.next_u64());
        let is_dirty = |placed: &&Placed| placed.located.extent.end() > cleaned;
        let dirty: Vec<_> = extents.iter().filter(is_dirty).cloned().collect();
        let mut aborted = aborted;
        for window in windows(&dirty, self.config.window_bytes) {
            if latest.is_full() {
                break;
            }
            let read = self.read(window).await?;
            (latest, aborted) = off_the_workers(move || {
                note(&mut latest, &aborted, &read);
                (latest, aborted)
            })
            .await;
        }
        let end = latest.end();
        let rules = Rules { latest, aborted, cleaned, now_ms, delete_retention_ms };
        let (mut filter, mut runs) = (Filter::new(rules), Runs::default());
        let extents: Vec<_> =
            extents.into_iter().filter(|it| it.located.extent.end() <= end).collect();
        for window in windows(&extents, self.config.window_bytes) {
            let read = self.read(window).await?;
            (filter, runs) = off_the_workers(move || {
                for (placed, batches) in read {
                    runs.push(&placed, runs::filter(&mut filter, batches));
                }
                (filter, runs)
            })
            .await;
            self.write(partition, runs.take(), output).await?;
        }
        self.write(partition, runs.finish(), output).await?;
        if filter.unreadable() > 0 {
            let batches = filter.unreadable();
            tracing::warn!(%partition, batches, "batches that nobody can open are not compacted");
        }
        Ok(end)
    }

    /// Reads the batches of some extents, at a moderate speed.
    async fn read(&self, window: &[Placed]) -> Result<Vec<(Placed, Vec<PlacedBatch>)>, FetchError> {
        let wanted: Vec<_> = window.iter().filter_map(|it| it.located.wanted.clone()).collect();
        let bytes = window.iter().map(stored_bytes).sum::<u64>();
        let rested = rested_after(bytes, self.config.bytes_per_second);
        self.counts.compaction.bytes_in.add(bytes);
        let blocks = self.blocks.load(wanted).await;
        let open = |placed: &Placed| {
            let batches = Batches::of(&placed.located.extent, &blocks)?;
            Ok((placed.clone(), batches.collect::<Result<_, _>>()?))
        };
        let read = window.iter().map(open).collect::<Result<_, FetchError>>()?;
        sleep_until(rested).await;
        Ok(read)
    }

    /// Puts runs into the segment that is open, and that into the store if it is full.
    async fn write(
        &mut self,
        partition: TopicPartition,
        runs: Vec<Run>,
        output: &mut Output,
    ) -> Result<(), RewriteError> {
        for run in runs {
            let open = output.segment.get_or_insert_with(|| {
                let id = self.names.next();
                let sink = SegmentSink::new(id, 0, self.config.zstd_level);
                Open { id, since: Instant::now(), sink, replacements: Vec::new() }
            });
            open.replacements.push(run.write(partition, &mut open.sink));
            if open.sink.bytes() >= self.config.segment_bytes {
                self.flush(output).await?;
            }
        }
        let age_max = self.config.segment_age_max;
        if output.segment.as_ref().is_some_and(|open| open.since.elapsed() >= age_max) {
            self.flush(output).await?;
        }
        Ok(())
    }

    /// Puts the open segment into the store and swaps in what lies in it.
    async fn flush(&self, output: &mut Output) -> Result<(), RewriteError> {
        let Some(Open { id, sink, replacements, .. }) = output.segment.take() else {
            return Ok(());
        };
        let partitions: Vec<_> = replacements.iter().map(|it| it.partition).collect();
        let least = self.config.footer_bytes_min;
        let rewritten = Rewritten::finish(sink, LEVEL, replacements, least);
        let bytes = rewritten.bytes();
        let outcomes = rewritten.swap_in(&self.objects, &self.machine).await?;
        let late = rewriting::count(&self.counts.compaction, bytes, &outcomes);
        for (partition, outcome) in partitions.iter().zip(outcomes) {
            if outcome.is_err() {
                output.turned_away.insert(*partition);
            }
        }
        let runs = partitions.len();
        tracing::info!(segment = %id, bytes, runs, late, "records are compacted");
        Ok(())
    }

    /// Says of the partitions whose passes are finished that they are.
    async fn finish(&mut self, output: Output) -> Result<(), RewriteError> {
        let Output { finished, turned_away, .. } = output;
        let finished = finished.into_iter().filter(|(at, _)| !turned_away.contains(at));
        let moves: Vec<_> = finished
            .map(|(partition, end)| Replacement {
                partition,
                from: end,
                to: end,
                inputs: 0,
                extents: Vec::new(),
                cleaned: Some(end),
            })
            .collect();
        if moves.is_empty() {
            return Ok(());
        }
        let none = SegmentSink::new(self.names.next(), 0, None);
        let moved = Rewritten::finish(none, LEVEL, moves, None);
        moved.swap_in(&self.objects, &self.machine).await.map(drop)
    }
}

fn stored_bytes(placed: &Placed) -> u64 {
    placed.located.extent.location().map_or(0, |location| u64::from(location.stored_bytes))
}

/// Cuts extents into windows of about so many bytes.
fn windows(extents: &[Placed], bytes_max: usize) -> impl Iterator<Item = &[Placed]> {
    let bytes_max = u64::try_from(bytes_max).unwrap_or(u64::MAX);
    let mut bytes = 0_u64;
    extents.chunk_by(move |one, _| {
        bytes = bytes.saturating_add(stored_bytes(one));
        let goes_on = bytes < bytes_max;
        if !goes_on {
            bytes = 0;
        }
        goes_on
    })
}

/// Notes the keys of what was read, extent by extent, until there are too many.
fn note(latest: &mut LatestOffsets, aborted: &keys::Aborted, read: &[(Placed, Vec<PlacedBatch>)]) {
    for (placed, batches) in read {
        if latest.is_full() {
            return;
        }
        for batch in batches.iter().filter_map(runs::in_place) {
            latest.add(&batch, aborted);
        }
        latest.advance(placed.located.extent.end());
    }
}

#[cfg(test)]
mod tests;
