//! How far this machine's clock is from the services'.
//!
//! Every reply carries a `Date`. Time is never decided by comparing clocks, but a clock that is
//! minutes off stamps records and entries wrongly, and soon no signature of this machine is
//! accepted any more: the user is told before that.

use std::sync::Arc;
use std::sync::atomic::{AtomicI64, Ordering};
use std::time::Duration;

use aws_sdk_s3::config::interceptors::{
    BeforeDeserializationInterceptorContextRef, BeforeTransmitInterceptorContextRef,
};
use aws_sdk_s3::config::{ConfigBag, Intercept, RuntimeComponents};
use aws_sdk_s3::error::BoxError;
use aws_sdk_s3::primitives::{DateTime, DateTimeFormat};

use aws_smithy_types::config_bag::{Storable, StoreReplace};

use crate::clock::{Clock, SystemClock, uptime};

/// A clock that is this far off is worth a line in the log.
const WARNED: Duration = Duration::from_secs(5);

/// A clock that is this far off is wrong.
pub(crate) const TOLERATED: Duration = Duration::from_secs(60);

/// Time between two warnings, in milliseconds.
const WARNING_INTERVAL_MS: i64 = 60_000;

/// Only replies that came within this are looked at.
const REPLY_MAX: Duration = Duration::from_secs(2);

/// When a request was sent.
#[derive(Debug)]
struct Sent(Duration);

impl Storable for Sent {
    type Storer = StoreReplace<Self>;
}

/// Looks at the replies of the clients it is given to. Clones share what they saw.
#[derive(Clone, Debug, Default)]
pub(crate) struct ClockSkew {
    seen: Arc<Seen>,
}

#[derive(Debug, Default)]
struct Seen {
    /// By how many milliseconds this machine is ahead, at the last reply.
    ahead_ms: AtomicI64,
    warned_ms: AtomicI64,
}

impl ClockSkew {
    /// What is wrong with this machine's clock, if it is: a sentence.
    pub(crate) fn complaint(&self) -> Option<String> {
        let ahead_ms = self.seen.ahead_ms.load(Ordering::Relaxed);
        let off = Duration::from_millis(ahead_ms.unsigned_abs());
        (off > TOLERATED).then(|| sentence(ahead_ms))
    }

    fn saw(&self, date: &str) {
        let Ok(date) = DateTime::from_str(date, DateTimeFormat::HttpDate) else { return };
        let Ok(theirs_ms) = date.to_millis() else { return };
        let now_ms = SystemClock.now_ms();
        // The header is cut to seconds: half a second is the best guess of what was cut.
        let ahead_ms = now_ms.saturating_sub(theirs_ms).saturating_sub(500);
        self.seen.ahead_ms.store(ahead_ms, Ordering::Relaxed);
        let warned_ms = self.seen.warned_ms.load(Ordering::Relaxed);
        let is_due = now_ms.saturating_sub(warned_ms) > WARNING_INTERVAL_MS;
        if Duration::from_millis(ahead_ms.unsigned_abs()) > WARNED && is_due {
            self.seen.warned_ms.store(now_ms, Ordering::Relaxed);
            tracing::warn!("{}", sentence(ahead_ms));
        }
    }
}

fn sentence(ahead_ms: i64) -> String {
    let seconds = ahead_ms.unsigned_abs() / 1000;
    let direction = if ahead_ms > 0 { "ahead of" } else { "behind" };
    format!(
        "the clock of this machine is {seconds} s {direction} the clock of the service: set it \
         (with NTP)"
    )
}

impl Intercept for ClockSkew {
    fn name(&self) -> &'static str {
        "clock skew"
    }

    fn read_before_transmit(
        &self,
        _: &BeforeTransmitInterceptorContextRef<'_>,
        _: &RuntimeComponents,
        cfg: &mut ConfigBag,
    ) -> Result<(), BoxError> {
        cfg.interceptor_state().store_put(Sent(uptime()));
        Ok(())
    }

    fn read_before_deserialization(
        &self,
        context: &BeforeDeserializationInterceptorContextRef<'_>,
        _: &RuntimeComponents,
        cfg: &mut ConfigBag,
    ) -> Result<(), BoxError> {
        // A reply that was long on its way, or waited for a process that slept, tells the time of
        // long ago.
        let is_fresh = |sent: &Sent| uptime().saturating_sub(sent.0) < REPLY_MAX;
        let date = context.response().headers().get("date");
        if let Some(date) = date.filter(|_| cfg.load::<Sent>().is_some_and(is_fresh)) {
            self.saw(date);
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn date(ahead_ms: i64) -> String {
        let date = DateTime::from_millis(SystemClock.now_ms() - ahead_ms);
        date.fmt(DateTimeFormat::HttpDate).unwrap()
    }

    #[test]
    fn a_clock_that_is_minutes_off_is_complained_of() {
        let skew = ClockSkew::default();
        assert_eq!(skew.complaint(), None);
        for ahead_ms in [0, 20_000, -20_000] {
            skew.saw(&date(ahead_ms));
            assert_eq!(skew.complaint(), None, "{ahead_ms}");
        }
        skew.saw(&date(600_000));
        assert!(skew.complaint().unwrap().contains("ahead of"));
        skew.saw(&date(-600_000));
        assert!(skew.complaint().unwrap().contains("behind"));
        skew.saw("yesterday");
        assert!(skew.complaint().is_some(), "what is no date changes nothing");
        skew.saw(&date(0));
        assert_eq!(skew.complaint(), None);
    }
}
