//! When the state is saved: a snapshot is due after so many entries, so many bytes of them, or so
//! long after the one before if anything was applied since.
//!
//! Every broker counts, and whoever is first writes: each adds a random share to what it waits for,
//! so that the first is mostly done before the next begins, and looks whether there is a newer
//! snapshot before it writes one. Two that write at once do no harm.

use std::mem;
use std::time::Duration;

use rand::Rng;
use tokio::task::{JoinError, JoinSet};
use tokio::time::Instant;

use super::Driver;
use crate::ages::Ages;
use crate::counts;
use crate::lsn::Lsn;
use crate::machine::MachineConfig;
use crate::machine::snapshots::{Saved, Snapshots};
use crate::machine::start::Recovered;

/// A broker waits longer than it must by up to this part of it.
const SLACK_MAX: f64 = 0.25;

/// Pause before a snapshot that could not be written is tried again, doubled each time.
const RETRY_MIN: Duration = Duration::from_secs(1);

/// Longest such pause.
const RETRY_MAX: Duration = Duration::from_secs(60);

/// What is known of the last snapshot, and the next one if it is under way.
pub(in crate::machine) struct Saving {
    /// The newest snapshot known.
    last: Lsn,
    /// Its length in bytes.
    last_bytes: u64,
    /// When that came to be known.
    since: Instant,
    /// Bytes of the entries applied after it, or after the state that is being saved.
    bytes: u64,
    /// The same of those that are in the one under way.
    bytes_underway: u64,
    /// What this broker waits for the next, as a multiple of what is configured.
    patience: f64,
    /// No attempt before this.
    not_before: Instant,
    retry: Duration,
    ages: Ages,
    snapshots: Snapshots,
    /// Ends with the driver, as everything does in a process that is killed.
    underway: JoinSet<Ended>,
}

/// What a task that saves the state gives back: what is known of the snapshots, and which there is
/// now.
type Ended = (Snapshots, Result<Saved, String>);

impl Saving {
    pub(in crate::machine) fn new(config: &MachineConfig, recovered: &Recovered) -> Self {
        let now = Instant::now();
        Self {
            last: recovered.snapshot,
            last_bytes: recovered.snapshot_bytes,
            since: now,
            bytes: recovered.bytes,
            bytes_underway: 0,
            patience: 1.0,
            not_before: now,
            retry: RETRY_MIN,
            ages: Ages::new(config.log_kept),
            snapshots: Snapshots::default(),
            underway: JoinSet::new(),
        }
    }

    /// Resolves when a snapshot is no longer under way; never if none is.
    pub(super) async fn ended(&mut self) {
        match self.underway.join_next().await {
            Some(ended) => self.note(ended),
            None => std::future::pending().await,
        }
    }

    /// Counts an entry that was applied, by its weight (`footers::weight`).
    pub(super) fn count(&mut self, weight: u64) {
        self.bytes = self.bytes.saturating_add(weight);
    }

    /// When a snapshot is due however little was applied since.
    fn due_at(&self, config: &MachineConfig) -> Instant {
        self.not_before.max(self.since + config.snapshot_interval.mul_f64(self.patience))
    }

    fn is_due(&self, config: &MachineConfig, applied: Lsn) -> bool {
        let entries = applied.get().saturating_sub(self.last.get());
        let now = Instant::now();
        if entries == 0 || now < self.not_before || !self.underway.is_empty() {
            return false;
        }
        let is_enough = |count: u64, limit: u64| {
            // Lossy far above any count that is ever compared.
            let limit = Duration::from_nanos(limit).mul_f64(self.patience);
            Duration::from_nanos(count) >= limit
        };
        is_enough(entries, config.snapshot_entries)
            || is_enough(self.bytes, config.snapshot_bytes)
            || now >= self.due_at(config)
    }

    /// Learns what became of a snapshot.
    fn note(&mut self, ended: Result<Ended, JoinError>) {
        let saved = match ended {
            Ok((snapshots, saved)) => {
                self.snapshots = snapshots;
                saved
            }
            Err(error) => Err(error.to_string()),
        };
        match saved {
            Ok(Saved { lsn, bytes }) => {
                if lsn > self.last {
                    (self.last, self.last_bytes) = (lsn, bytes);
                }
                self.since = Instant::now();
                self.retry = RETRY_MIN;
            }
            Err(error) => {
                // The log is not trimmed for want of it.
                tracing::warn!(error, "snapshot could not be written");
                self.bytes = self.bytes.saturating_add(self.bytes_underway);
                self.not_before = Instant::now() + self.retry;
                self.retry = (self.retry * 2).min(RETRY_MAX);
            }
        }
    }
}

impl Driver {
    /// Begins a snapshot if one is due, and learns what became of the one before.
    pub(super) fn tend_snapshots(&mut self) {
        let applied = self.applied();
        let now = self.ports.clock.uptime();
        self.saving.ages.note(now, applied);
        while let Some(ended) = self.saving.underway.try_join_next() {
            self.saving.note(ended);
        }
        if self.registered && self.saving.is_due(&self.config, applied) {
            self.begin_snapshot(self.saving.ages.old(now));
        }
        let Saving { last, last_bytes, since, snapshots, .. } = &self.saving;
        let counts = &self.shared.counts;
        counts.snapshot.set(last.get());
        counts.snapshot_bytes.set(*last_bytes);
        counts.snapshot_known_at.set(counts::micros(now.saturating_sub(since.elapsed())));
        counts.floor.raise(snapshots.trimmed.get());
    }

    /// When to wake for a snapshot, if nothing else happens.
    pub(super) fn next_snapshot(&self) -> Option<Instant> {
        let is_behind = self.applied() > self.saving.last && self.saving.underway.is_empty();
        is_behind.then(|| self.saving.due_at(&self.config))
    }

    fn begin_snapshot(&mut self, old: Lsn) {
        self.saving.patience = 1.0 + self.random.random_range(0.0..SLACK_MAX);
        self.saving.bytes_underway = mem::take(&mut self.saving.bytes);
        let known = self.saving.last;
        let mut snapshots = mem::take(&mut self.saving.snapshots);
        // A copy is much cheaper than a snapshot, and while it is made nothing can be applied.
        let state = self.read(Clone::clone);
        let ports = self.ports.clone();
        self.saving.underway.spawn(async move {
            let saved = snapshots.save(&ports, state, known, old).await;
            (snapshots, saved)
        });
    }
}
