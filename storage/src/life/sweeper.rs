//! The sweeper: deletes objects that nothing refers to.
//!
//! Two kinds. Segments that were committed, and whose last extent is gone, wait in the state
//! (`state::segments`) until no reader can be in the middle of them. *Orphans* were put and never
//! committed, because their broker died, was slow or was turned away; only a listing finds them.
//!
//! No clock decides whether an object may go. A segment's name says how far its broker had followed
//! the log when it was begun; a command raises the horizon, from where on segments that were begun
//! below it are not committed any more; and only those are deleted. This broker has applied the
//! command by then, so that whatever was committed of them before is known here. How long things
//! wait is measured by the clock of timers, and only makes them wait longer if it is wrong.
//!
//! A segment that a commit has left its runs to is read by whoever applies that commit. So it is
//! kept until the second newest good snapshot has it applied, which is from where anybody may have
//! to follow the log (`machine::trim`).
//!
//! One broker sweeps, the same whoever asks; if two do, because they don't agree yet, what one has
//! deleted is not there for the other.

use std::collections::BTreeMap;
use std::fmt;
use std::mem;
use std::num::NonZeroUsize;
use std::sync::Arc;
use std::time::Duration;

use tokio::time::sleep;

use crate::ages::Ages;
use crate::clock::Clock;
use crate::command::{Command, Outcome};
use crate::counts::{LifeCounts, micros};
use crate::key::ObjectKey;
use crate::lsn::Lsn;
use crate::machine::Machine;
use crate::machine::snapshots::Snapshots;
use crate::object::{ObjectMeta, ObjectStore};
use crate::port::PortError;
use crate::segment::SegmentId;
use crate::state::State;
use crate::state::segments::{Segments, Unreferenced};

/// How the sweeper behaves.
#[derive(Clone, Debug)]
pub struct SweeperConfig {
    /// How often it looks whether there is something to do.
    pub interval: Duration,
    /// How long a segment may take from its first batch to its commit: one that takes longer loses
    /// the commit.
    pub commit_max: Duration,
    /// How long what nothing refers to any more is kept for readers: longer than any fetch.
    pub grace: Duration,
    /// How often the store is listed to find orphans.
    pub listing_interval: Duration,
    /// How many objects are deleted, or listed, with one request.
    pub objects_per_request: NonZeroUsize,
}

impl Default for SweeperConfig {
    fn default() -> Self {
        Self {
            interval: Duration::from_secs(60),
            commit_max: Duration::from_secs(10 * 60),
            grace: Duration::from_secs(10 * 60),
            listing_interval: Duration::from_secs(60 * 60),
            objects_per_request: NonZeroUsize::new(500).expect("not zero"),
        }
    }
}

/// The task.
pub(super) struct Sweeper {
    machine: Machine,
    objects: Arc<dyn ObjectStore>,
    config: SweeperConfig,
    clock: Arc<dyn Clock>,
    /// What was begun before what is old by this may be taken for given up.
    begun: Ages,
    /// What was dropped before what is old by this nobody reads any more.
    dropped: Ages,
    /// When the store was last listed, by the clock's uptime.
    listed: Duration,
    /// What was dropped up to here is in the second newest good snapshot, as far as this process
    /// has looked.
    applied_for_good: Lsn,
    snapshots: Snapshots,
    /// When each segment that waits was first seen to.
    waiting: BTreeMap<SegmentId, Duration>,
    counts: Arc<LifeCounts>,
}

/// Why a round was not finished. There is another one.
#[derive(Debug, thiserror::Error)]
enum Unfinished {
    #[error("the log does not take it")]
    Log,
    #[error(transparent)]
    Store(#[from] PortError),
}

impl Sweeper {
    pub(super) fn new(
        machine: Machine,
        objects: Arc<dyn ObjectStore>,
        clock: Arc<dyn Clock>,
        config: SweeperConfig,
        counts: Arc<LifeCounts>,
    ) -> Self {
        let (begun, dropped) = (Ages::new(config.commit_max), Ages::new(config.grace));
        let listed = clock.uptime();
        let waiting = BTreeMap::new();
        let (applied_for_good, snapshots) = (Lsn::ZERO, Snapshots::default());
        Self {
            machine,
            objects,
            config,
            clock,
            begun,
            dropped,
            listed,
            applied_for_good,
            snapshots,
            waiting,
            counts,
        }
    }

    pub(super) async fn run(mut self) {
        loop {
            sleep(self.config.interval).await;
            let now = self.clock.uptime();
            let applied = self.machine.read(State::applied);
            self.begun.note(now, applied);
            self.dropped.note(now, applied);
            if self.is_ours()
                && let Err(error) = self.round(now).await
            {
                tracing::warn!(%error, "sweeping is put off");
                self.counts.sweeps_put_off.add(1);
            }
            self.note_waiting(now);
        }
    }

    /// Notes what waits, on every broker: how long it does must not begin anew with the office.
    fn note_waiting(&mut self, now: Duration) {
        let known = mem::take(&mut self.waiting);
        let since = |id: &SegmentId| (*id, known.get(id).copied().unwrap_or(now));
        self.waiting =
            self.machine.read(|state| state.segments().unreferenced().keys().map(since).collect());
        let oldest = self.waiting.values().min();
        self.counts.waiting_since.set(oldest.map_or(0, |since| micros(*since)));
    }

    fn is_ours(&self) -> bool {
        self.machine.read(|state| state.housekeeper()) == Some(self.machine.node_id())
    }

    async fn round(&mut self, now: Duration) -> Result<(), Unfinished> {
        let (horizon, dropped) = (self.begun.old(now), self.dropped.old(now));
        let is_listing = now.saturating_sub(self.listed) >= self.config.listing_interval;
        self.look_for_snapshots(horizon, dropped).await?;
        let (has_waiting, before) = self.machine.read(|state| {
            let segments = state.segments();
            (self.due(segments, horizon, dropped).next().is_some(), segments.horizon())
        });
        if !has_waiting && !is_listing {
            return Ok(());
        }
        if horizon > before {
            self.propose(Command::RaiseHorizon { to: horizon }).await?;
        }
        while self.sweep_unreferenced(dropped).await? > 0 {}
        if is_listing {
            self.sweep_orphans().await?;
            self.listed = now;
        }
        Ok(())
    }

    /// Segments that nobody needs any more.
    fn due<'a>(
        &self,
        segments: &'a Segments,
        horizon: Lsn,
        dropped: Lsn,
    ) -> impl Iterator<Item = (SegmentId, &'a Unreferenced)> + use<'a> {
        let applied_for_good = self.applied_for_good;
        waiting_since(segments, horizon, dropped)
            .filter(move |(_, it)| !it.by_footer || it.since <= applied_for_good)
    }

    /// Looks where the second newest good snapshot is, if something waits for that alone.
    async fn look_for_snapshots(&mut self, horizon: Lsn, dropped: Lsn) -> Result<(), Unfinished> {
        let known = self.applied_for_good;
        let (is_waiting, log) = self.machine.read(|state| {
            let mut waiting = waiting_since(state.segments(), horizon, dropped);
            (waiting.any(|(_, it)| it.by_footer && it.since > known), state.log_id())
        });
        if is_waiting {
            self.applied_for_good = known.max(self.snapshots.second(&*self.objects, log).await?);
        }
        Ok(())
    }

    /// Deletes some of the segments that nothing refers to. Returns how many.
    async fn sweep_unreferenced(&self, dropped: Lsn) -> Result<usize, Unfinished> {
        let most = self.config.objects_per_request.get();
        let (segments, bytes) = self.machine.read(|state| {
            let segments = state.segments();
            let due = self.due(segments, segments.horizon(), dropped).take(most);
            let (due, bytes): (Vec<_>, Vec<_>) = due.map(|(id, it)| (id, it.bytes)).unzip();
            (due, bytes.iter().sum::<u64>())
        });
        if segments.is_empty() {
            return Ok(0);
        }
        let keys: Vec<ObjectKey> = segments.iter().map(SegmentId::key).collect();
        self.objects.delete(&keys).await?;
        let count = segments.len();
        self.counts.segments_swept.add_len(count);
        self.counts.bytes_swept.add(bytes);
        self.propose(Command::ForgetSegments { segments }).await?;
        tracing::info!(segments = count, bytes, "segments that nothing refers to are deleted");
        Ok(count)
    }

    /// Lists all segments, and deletes those below the horizon that nobody knows.
    async fn sweep_orphans(&self) -> Result<(), Unfinished> {
        let mut after: Option<ObjectKey> = None;
        loop {
            let most = self.config.objects_per_request;
            let listed = self.objects.list(SegmentId::PREFIX, after.as_ref(), most).await?;
            let orphans = self.orphans(&listed);
            if !orphans.is_empty() {
                let bytes: u64 = orphans.iter().map(|object| object.size).sum();
                let keys: Vec<ObjectKey> = orphans.iter().map(|it| it.key.clone()).collect();
                self.objects.delete(&keys).await?;
                let count = keys.len();
                self.counts.orphans_swept.add_len(count);
                self.counts.orphan_bytes_swept.add(bytes);
                tracing::info!(segments = count, bytes, "segments never committed are deleted");
            }
            if listed.len() < most.get() {
                return Ok(());
            }
            after = listed.into_iter().next_back().map(|object| object.key);
        }
    }

    fn orphans(&self, listed: &[ObjectMeta]) -> Vec<ObjectMeta> {
        self.machine.read(|state| {
            let segments = state.segments();
            let is_orphan = |object: &&ObjectMeta| {
                SegmentId::from_key(&object.key)
                    .is_some_and(|id| id.began < segments.horizon() && !segments.is_known(id))
            };
            listed.iter().filter(is_orphan).cloned().collect()
        })
    }

    async fn propose(&self, command: Command) -> Result<(), Unfinished> {
        match self.machine.propose(command).await {
            Ok(Outcome::Done) => Ok(()),
            _ => Err(Unfinished::Log),
        }
    }
}

/// Segments below the horizon that nothing refers to since an entry that is old enough.
fn waiting_since(
    segments: &Segments,
    horizon: Lsn,
    dropped: Lsn,
) -> impl Iterator<Item = (SegmentId, &Unreferenced)> {
    let waiting = segments.unreferenced().iter().map(|(id, it)| (*id, it));
    waiting.filter(move |(id, it)| id.began < horizon && it.since <= dropped)
}

impl fmt::Debug for Sweeper {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Sweeper").field("config", &self.config).finish_non_exhaustive()
    }
}
