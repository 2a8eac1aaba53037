//! Wall time, as a dependency.
//!
//! Durations and deadlines come from tokio's clock, which a paused runtime controls. The wall clock
//! is asked only to stamp what is proposed; nothing is ever decided by comparing two of them.

use std::fmt;
use std::sync::{Mutex, MutexGuard, PoisonError};
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
    hands: Mutex<Hands>,
}

/// What can be wrong with a clock.
#[derive(Debug)]
struct Hands {
    base_ms: i64,
    /// What it shows while it stands still.
    frozen_ms: Option<i64>,
    /// Its uptime when its machine fell asleep, if it is asleep.
    asleep_at: Option<Duration>,
}

impl ManualClock {
    /// A clock that shows `start_ms` now. Must be made inside a runtime.
    pub fn new(start_ms: i64) -> Self {
        let hands = Hands { base_ms: start_ms, frozen_ms: None, asleep_at: None };
        Self { start: tokio::time::Instant::now(), hands: Mutex::new(hands) }
    }

    /// Moves the hands, forwards or back.
    pub fn shift(&self, by_ms: i64) {
        let mut hands = self.lock();
        hands.base_ms = hands.base_ms.saturating_add(by_ms);
    }

    /// Lets the time of day stand still, or go on from where it should be.
    pub fn freeze(&self, on: bool) {
        let now_ms = self.now_ms();
        self.lock().frozen_ms = on.then_some(now_ms);
    }

    /// Lets the uptime stand still as for a process that is stopped, or jump to where it should be
    /// as for one that goes on.
    pub fn sleep(&self, on: bool) {
        self.lock().asleep_at = on.then(|| self.start.elapsed());
    }

    fn lock(&self) -> MutexGuard<'_, Hands> {
        self.hands.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Clock for ManualClock {
    fn now_ms(&self) -> i64 {
        let passed = i64::try_from(self.start.elapsed().as_millis()).unwrap_or(i64::MAX);
        let hands = self.lock();
        hands.frozen_ms.unwrap_or_else(|| hands.base_ms.saturating_add(passed))
    }

    fn uptime(&self) -> Duration {
        self.lock().asleep_at.unwrap_or_else(|| self.start.elapsed())
    }
}
