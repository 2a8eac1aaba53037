//! Counts: what this process has done since it was started, as numbers that anybody may read.
//!
//! They say nothing about what is true (that is the state's) and nothing rests on them: whoever
//! does something adds to a count, and whoever watches the broker reads it. How they are called and
//! shown outside is the broker's.

use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use crate::port::PortError;

/// A number that anybody may add to, or set.
#[derive(Debug, Default)]
pub struct Count(AtomicU64);

impl Count {
    /// What it is.
    pub fn get(&self) -> u64 {
        self.0.load(Ordering::Relaxed)
    }

    /// Adds to it.
    pub fn add(&self, more: u64) {
        self.0.fetch_add(more, Ordering::Relaxed);
    }

    /// Adds a length.
    pub fn add_len(&self, length: usize) {
        self.add(u64::try_from(length).unwrap_or(u64::MAX));
    }

    /// Makes it another number.
    pub fn set(&self, to: u64) {
        self.0.store(to, Ordering::Relaxed);
    }

    /// Makes it a greater number, if this is one.
    pub fn raise(&self, to: u64) {
        self.0.fetch_max(to, Ordering::Relaxed);
    }
}

/// Bounds of [`Durations`], in milliseconds: from what memory takes to what a client waits for.
const BOUNDS_MS: [u64; 14] = [1, 2, 5, 10, 25, 50, 100, 250, 500, 1000, 2500, 5000, 10_000, 30_000];

/// How long things took: how many of them up to each bound, and all of them together.
#[derive(Debug, Default)]
pub struct Durations {
    /// Those above the bound before and not above this one; the last is for what is above all.
    counts: [Count; BOUNDS_MS.len() + 1],
    micros: Count,
}

/// [`Durations`] as they were at some moment.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Distribution {
    /// Bounds, and how many were not above each.
    pub up_to: Vec<(Duration, u64)>,
    /// How many there were in all.
    pub count: u64,
    /// How long they took together.
    pub sum: Duration,
}

impl Durations {
    /// Adds one.
    pub fn add(&self, took: Duration) {
        let place = BOUNDS_MS.iter().position(|bound| took <= Duration::from_millis(*bound));
        self.counts[place.unwrap_or(BOUNDS_MS.len())].add(1);
        self.micros.add(u64::try_from(took.as_micros()).unwrap_or(u64::MAX));
    }

    /// As they are now.
    pub fn read(&self) -> Distribution {
        let mut count = 0;
        let mut up_to = Vec::with_capacity(BOUNDS_MS.len());
        for (bound, here) in BOUNDS_MS.iter().zip(&self.counts) {
            count += here.get();
            up_to.push((Duration::from_millis(*bound), count));
        }
        count += self.counts[BOUNDS_MS.len()].get();
        Distribution { up_to, count, sum: Duration::from_micros(self.micros.get()) }
    }
}

/// What became of the calls of one method of a port.
#[derive(Debug, Default)]
pub struct Calls {
    /// Those that were answered, losing a race included.
    pub answered: Durations,
    /// Those that certainly had no effect.
    pub refused: Count,
    /// Those of which nobody knows, or for whose answer nobody waited any longer.
    pub unknown: Count,
    /// Bytes that went in or came out.
    pub bytes: Count,
}

impl Calls {
    /// Notes an error.
    pub(crate) fn fail(&self, error: &PortError) {
        match error {
            PortError::Determinate(_) => self.refused.add(1),
            PortError::Indeterminate(_) | PortError::Broken(_) => self.unknown.add(1),
        }
    }
}

/// What was asked of both ports, and of other brokers. A call that a backend repeats by itself is
/// one call.
#[derive(Debug, Default)]
pub struct PortCounts {
    /// Objects put.
    pub put: Calls,
    /// Ranges of objects read.
    pub get: Calls,
    /// Pages of names listed.
    pub list: Calls,
    /// Groups of objects deleted.
    pub delete: Calls,
    /// Entries appended to the log.
    pub append: Calls,
    /// Pages of entries read.
    pub read: Calls,
    /// Questions for the tail.
    pub tail: Calls,
    /// Trims.
    pub trim: Calls,
    /// Questions to brokers of the same zone for blocks.
    pub ask: Calls,
}

/// What the driver of the machine has done.
#[derive(Debug, Default)]
pub struct MachineCounts {
    /// Slots of the log that this broker won.
    pub appended: Count,
    /// Slots that another broker was quicker to fill.
    pub lost: Count,
    /// Attempts to append whose outcome was not known, so that they were repeated.
    pub unknown: Count,
    /// Groups of commands that were certainly not appended.
    pub refused: Count,
    /// Entries of others that were applied as those had sent them, and not read.
    pub told: Count,
    /// Footers read from the store, because an entry left the runs of its commits to them.
    pub footers_read: Count,
    /// Position of the newest snapshot known.
    pub(crate) snapshot: Count,
    /// Its length in bytes.
    pub(crate) snapshot_bytes: Count,
    /// When it came to be known, in microseconds of the clock's uptime.
    pub(crate) snapshot_known_at: Count,
    /// The oldest entry that this broker left when it trimmed.
    pub(crate) floor: Count,
    /// When a read that reached the tail was begun, in microseconds of the clock's uptime.
    pub(crate) followed_at: Count,
}

/// What a cache on disk has done.
#[derive(Debug, Default)]
pub struct DiskCacheCounts {
    /// Blocks that were read from it.
    pub hits: Count,
    /// Blocks that it was asked for and did not have, or could not give.
    pub misses: Count,
    /// Bytes of blocks that were read from it.
    pub bytes_read: Count,
    /// Bytes of blocks that were written to it.
    pub bytes_written: Count,
    /// Room that the blocks in it take.
    pub held_bytes: Count,
    /// Blocks that were not written, because others waited for that or because they are too long.
    pub skipped: Count,
    /// Blocks that lay in it and were not what had been written.
    pub damaged: Count,
    /// Blocks that the disk did not give.
    pub read_errors: Count,
    /// Reads that took so long that nobody waited for them.
    pub slow: Count,
    /// Failures to write, and to delete.
    pub write_errors: Count,
}

/// What was rewritten: by merging, or by compaction.
#[derive(Debug, Default)]
pub struct RewriteCounts {
    /// Bytes of segments or blocks that were read to be rewritten.
    pub bytes_in: Count,
    /// Segments that were written.
    pub segments_out: Count,
    /// Their bytes.
    pub bytes_out: Count,
    /// Runs of extents that were swapped for what was written.
    pub swapped: Count,
    /// Runs that had changed meanwhile and stayed as they were.
    pub rejected: Count,
    /// Rounds that were broken off because a port did not do what it was asked, or an input could
    /// not be read.
    pub put_off: Count,
}

/// What the tasks that look after data have done.
#[derive(Debug, Default)]
pub struct LifeCounts {
    /// Merging.
    pub merging: RewriteCounts,
    /// Compaction.
    pub compaction: RewriteCounts,
    /// Records that this broker had expired.
    pub records_expired: Count,
    /// Deleted topics that it gave up.
    pub topics_purged: Count,
    /// Segments that it deleted because nothing referred to them any more.
    pub segments_swept: Count,
    /// Their bytes.
    pub bytes_swept: Count,
    /// Segments that it found in the store, never committed, and deleted.
    pub orphans_swept: Count,
    /// Their bytes.
    pub orphan_bytes_swept: Count,
    /// Rounds of the sweeper that were broken off.
    pub sweeps_put_off: Count,
    /// Since when the oldest segment that waits has done so, as far as this process has seen, in
    /// microseconds of the clock's uptime; none waits if this is zero.
    pub(crate) waiting_since: Count,
}

/// A moment of the clock's uptime, for a count.
pub(crate) fn micros(uptime: Duration) -> u64 {
    u64::try_from(uptime.as_micros()).unwrap_or(u64::MAX)
}

/// How long ago a counted moment was; never, if it is zero.
pub(crate) fn ago(now: Duration, at: &Count) -> Option<Duration> {
    let at = at.get();
    (at > 0).then(|| now.saturating_sub(Duration::from_micros(at)))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_duration_counts_for_every_bound_that_it_is_not_above() {
        let durations = Durations::default();
        for ms in [1, 2, 3, 30_000, 30_001] {
            durations.add(Duration::from_millis(ms));
        }
        let Distribution { up_to, count, sum } = durations.read();
        let up_to: Vec<u64> = up_to.into_iter().map(|(_, count)| count).collect();
        assert_eq!(up_to, [1, 2, 3, 3, 3, 3, 3, 3, 3, 3, 3, 3, 3, 4]);
        assert_eq!((count, sum), (5, Duration::from_millis(60_007)));
    }
}
