//! How old entries of the log are at least.
//!
//! SUBTLE: age is how long ago *this process* had applied an entry, by the clock that counts sleep.
//! Log time would be no measure: it follows the clocks of whoever appends, so that a wrong one
//! makes a day of it within 144 entries; and an object's time is somebody's clock as well. What
//! this process has applied is at least as old as that, so whatever is wrong with a clock, the
//! error is on the side of keeping. The price: for a process that was just started nothing is old.

use std::collections::VecDeque;
use std::time::Duration;

use crate::lsn::Lsn;

/// Steps in which an age is measured: so many observations are kept, and an entry is taken for
/// younger than it is by at most such a part.
const STEPS: u32 = 32;

/// How far the log was applied, and when.
#[derive(Debug)]
pub(crate) struct Ages {
    kept: Duration,
    seen: VecDeque<(Duration, Lsn)>,
}

impl Ages {
    /// For questions about this age.
    pub(crate) fn new(kept: Duration) -> Self {
        Self { kept, seen: VecDeque::new() }
    }

    /// Notes that everything up to `applied` was there at `now`, which is the clock's uptime.
    pub(crate) fn note(&mut self, now: Duration, applied: Lsn) {
        let is_due = |(last, _): &(Duration, Lsn)| now.saturating_sub(*last) >= self.kept / STEPS;
        if self.seen.back().is_none_or(is_due) {
            self.seen.push_back((now, applied));
        }
        // Of those that are old enough the last says most.
        while self.seen.get(1).is_some_and(|(at, _)| self.is_old(now, *at)) {
            self.seen.pop_front();
        }
    }

    /// The last entry that is known to be old enough at `now`; zero if none is.
    pub(crate) fn old(&self, now: Duration) -> Lsn {
        let old = self.seen.iter().rev().find(|(at, _)| self.is_old(now, *at));
        old.map_or(Lsn::ZERO, |(_, applied)| *applied)
    }

    fn is_old(&self, now: Duration, at: Duration) -> bool {
        now.saturating_sub(at) >= self.kept
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const HOUR: Duration = Duration::from_secs(3600);

    const KEPT: Duration = Duration::from_secs(24 * 3600);

    #[test]
    fn nothing_is_older_than_the_process() {
        let mut ages = Ages::new(KEPT);
        // The machine itself has run for weeks.
        let start = HOUR * 1000;
        ages.note(start, Lsn::new(1_000_000));
        assert_eq!(ages.old(start), Lsn::ZERO);
        assert_eq!(ages.old(start + KEPT - Duration::from_millis(1)), Lsn::ZERO);
        assert_eq!(ages.old(start + KEPT), Lsn::new(1_000_000));
    }

    #[test]
    fn an_entry_is_old_only_when_it_was_applied_that_long_ago() {
        let mut ages = Ages::new(KEPT);
        let applied_at = |minutes: u32| Lsn::new(u64::from(minutes) * 10 + 1);
        for minute in 0..72 * 60 {
            let now = HOUR / 60 * minute;
            ages.note(now, applied_at(minute));
            let old = ages.old(now);
            let Some(then) = minute.checked_sub(24 * 60) else {
                assert_eq!(old, Lsn::ZERO);
                continue;
            };
            assert!(old <= applied_at(then), "after {minute} minutes: {old} is too young");
            let step = 24 * 60 / STEPS;
            assert!(old >= applied_at(then.saturating_sub(step)), "{old} is older than it counts");
            assert!(ages.seen.len() < 40, "{} observations", ages.seen.len());
        }
    }

    #[test]
    fn a_log_that_need_not_be_kept_is_old_at_once() {
        let mut ages = Ages::new(Duration::ZERO);
        for lsn in 1..100 {
            ages.note(HOUR, Lsn::new(lsn));
            assert_eq!(ages.old(HOUR), Lsn::new(lsn));
            assert_eq!(ages.seen.len(), 1);
        }
    }
}
