//! The circuit breaker: how much of a topic may expire by time.
//!
//! Whatever is wrong with a clock, it must not cost a topic at once (RELIABILITY A13, C8). In an
//! hour of monotonic time at most a tenth of it goes, and what grows too old in an hour if it came
//! evenly: the hour's part of `retention.ms`. A topic that is kept for a second can go at once, one
//! that is kept for a week loses a tenth an hour under a clock that is a year ahead, and says so.

use std::time::Duration;

const HOUR: Duration = Duration::from_secs(60 * 60);

/// All of a topic, in the unit that shares are counted in.
const WHOLE: u128 = 1_000_000_000;

/// What may go in an hour, whatever the retention.
const HOURLY: u128 = WHOLE / 10;

/// What a topic may let go of, saved up while time passes.
#[derive(Clone, Debug)]
pub(super) struct Allowance {
    /// Up to when it was saved up, by the clock that counts sleep.
    until: Duration,
    /// Parts of the topic's bytes.
    share: u128,
}

impl Allowance {
    /// Nothing yet: a process that is started again and again gives nothing away.
    pub(super) fn new(now: Duration) -> Self {
        Self { until: now, share: 0 }
    }

    /// Adds what has come up to `now`, for a topic that is kept for `retention_ms`.
    pub(super) fn save(&mut self, now: Duration, retention_ms: i64) {
        self.share = self.share.saturating_add(share(now.saturating_sub(self.until), retention_ms));
        self.until = now;
    }

    /// Takes `bytes` of a topic that has `total` of them, if that much was saved up.
    pub(super) fn take(&mut self, bytes: u64, total: u64) -> bool {
        let cost = (u128::from(bytes) * WHOLE).div_ceil(u128::from(total.max(1)));
        let left = self.share.checked_sub(cost);
        self.share = left.unwrap_or(self.share);
        left.is_some()
    }

    /// Forgets what is more than an hour's: for a topic that has not asked for it.
    pub(super) fn cap(&mut self, retention_ms: i64) {
        self.share = self.share.min(share(HOUR, retention_ms));
    }
}

/// Bytes that a topic of `total` bytes may let go of in an hour.
pub(super) fn hourly_bytes(total: u64, retention_ms: i64) -> u64 {
    let bytes = u128::from(total).saturating_mul(share(HOUR, retention_ms)) / WHOLE;
    u64::try_from(bytes).unwrap_or(u64::MAX).min(total)
}

fn share(time: Duration, retention_ms: i64) -> u128 {
    let retention_ms = u128::try_from(retention_ms).unwrap_or(0).max(1);
    let time_ms = time.as_millis();
    time_ms * HOURLY / HOUR.as_millis() + time_ms * WHOLE / retention_ms
}

#[cfg(test)]
mod tests {
    use super::*;

    const WEEK_MS: i64 = 7 * 24 * 3_600_000;

    /// What goes of a topic of so many bytes within a time, if it takes whatever it can in steps.
    fn gone(total: u64, step: u64, time: Duration, retention_ms: i64) -> u64 {
        let mut allowance = Allowance::new(Duration::ZERO);
        let mut gone = 0;
        let mut now = Duration::ZERO;
        while now < time {
            now += Duration::from_secs(10);
            allowance.save(now, retention_ms);
            while gone < total && allowance.take(step, total) {
                gone += step;
            }
            if gone == total {
                allowance.cap(retention_ms);
            }
        }
        gone
    }

    #[test]
    fn a_tenth_an_hour_goes_and_what_the_hour_is_of_the_retention() {
        let parts_per_million = |time, retention_ms| gone(1_000_000, 1, time, retention_ms);
        let of_a_week = 1_000_000 / (7 * 24);
        let an_hour = parts_per_million(HOUR, WEEK_MS);
        assert!((100_000 + of_a_week - 2..=100_000 + of_a_week).contains(&an_hour), "{an_hour}");
        assert!((499_990..=500_000).contains(&parts_per_million(HOUR * 5, i64::MAX)));
        assert!((599_990..=600_000).contains(&parts_per_million(HOUR, 3_600_000 * 2)));
    }

    #[test]
    fn what_is_kept_for_a_second_goes_at_once() {
        for retention_ms in [0, 1, 1000, 10_000] {
            assert_eq!(
                gone(1_000_000, 1_000_000, Duration::from_secs(10), retention_ms),
                1_000_000
            );
        }
    }

    #[test]
    fn what_is_in_one_piece_waits_until_all_of_it_is_saved_up() {
        assert_eq!(gone(1_000_000, 1_000_000, HOUR * 9, WEEK_MS), 0);
        assert_eq!(gone(1_000_000, 1_000_000, HOUR * 10, WEEK_MS), 1_000_000);
        assert_eq!(gone(3, 1, HOUR * 3, WEEK_MS), 0);
        assert_eq!(gone(3, 1, HOUR * 4, WEEK_MS), 1);
    }

    #[test]
    fn no_more_than_an_hour_is_saved_up_for_bad_times() {
        let mut allowance = Allowance::new(Duration::ZERO);
        allowance.save(HOUR * 1000, WEEK_MS);
        allowance.cap(WEEK_MS);
        assert!(!allowance.take(107, 1000));
        assert!(allowance.take(105, 1000));
        assert!(!allowance.take(1, 1000));
    }

    #[test]
    fn the_hours_part_of_a_topic_is_told_in_bytes() {
        assert_eq!(hourly_bytes(1000, i64::MAX), 100);
        assert_eq!(hourly_bytes(1000, 3_600_000), 1000);
        assert_eq!(hourly_bytes(u64::MAX, 0), u64::MAX);
        assert_eq!(hourly_bytes(0, 0), 0);
    }
}
