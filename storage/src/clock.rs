//! Wall time, as a dependency.
//!
//! Durations and deadlines come from tokio's clock, which a paused runtime controls. The wall clock
//! is asked only to stamp what is proposed; nothing is ever decided by comparing two of them.

use std::fmt;
use std::sync::atomic::{AtomicI64, Ordering};
use std::time::UNIX_EPOCH;

/// Tells the time of day.
pub trait Clock: fmt::Debug + Send + Sync {
    /// Milliseconds since the Unix epoch. May jump either way.
    fn now_ms(&self) -> i64;
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
}
