//! Wall time, as a dependency.
//!
//! Durations and deadlines come from tokio's clock, which a paused runtime controls. The wall clock
//! is asked only to stamp what is proposed; nothing is ever decided by comparing two of them.

use std::fmt;
use std::sync::atomic::{AtomicI64, Ordering};
use std::time::{Duration, UNIX_EPOCH};

use rustix::time::{ClockId, clock_gettime};

/// Tells the time of day.
pub trait Clock: fmt::Debug + Send + Sync {
    /// Milliseconds since the Unix epoch. May jump either way.
    fn now_ms(&self) -> i64;

    /// Time since a moment that is the same for this clock's life. Never runs back, and goes on
    /// while the machine sleeps, unlike the clock of timers.
    fn uptime(&self) -> Duration;
}

/// The machine's clock.
#[derive(Debug, Default)]
pub struct SystemClock;

impl Clock for SystemClock {
    fn now_ms(&self) -> i64 {
        #[expect(clippy::disallowed_methods, reason = "the one place that asks the system")]
        let now = std::time::SystemTime::now();
        now.duration_since(UNIX_EPOCH)
            .map_or(0, |since| i64::try_from(since.as_millis()).unwrap_or(i64::MAX))
    }

    fn uptime(&self) -> Duration {
        uptime()
    }
}

/// Time since the machine was started, its sleep included (`CLOCK_BOOTTIME`).
pub(crate) fn uptime() -> Duration {
    let now = clock_gettime(ClockId::Boottime);
    let seconds = Duration::from_secs(u64::try_from(now.tv_sec).unwrap_or(0));
    seconds + Duration::from_nanos(u64::try_from(now.tv_nsec).unwrap_or(0))
}

/// A clock that runs on tokio's time from a chosen start, shifted at will: in a paused runtime it
/// is a function of the seed alone.
#[derive(Debug)]
pub struct ManualClock {
    start: tokio::time::Instant,
    base_ms: AtomicI64,
}

impl ManualClock {
    /// A clock that shows `start_ms` now. Must be made inside a runtime.
    pub fn new(start_ms: i64) -> Self {
        Self { start: tokio::time::Instant::now(), base_ms: AtomicI64::new(start_ms) }
    }

    /// Moves the hands, forwards or back.
    pub fn shift(&self, by_ms: i64) {
        self.base_ms.fetch_add(by_ms, Ordering::Relaxed);
    }
}

impl Clock for ManualClock {
    fn now_ms(&self) -> i64 {
        let passed = i64::try_from(self.start.elapsed().as_millis()).unwrap_or(i64::MAX);
        self.base_ms.load(Ordering::Relaxed).saturating_add(passed)
    }

    fn uptime(&self) -> Duration {
        self.start.elapsed()
    }
}
