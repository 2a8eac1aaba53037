//! A log whose calls go wrong, by chance or by script.
//!
//! Owns which calls have an effect. What can become of a call is `port::fate`; what a log must keep
//! in spite of it is `log::conformance`.

use std::num::NonZeroUsize;
use std::sync::Arc;

use async_trait::async_trait;
use bytes::Bytes;

use rand::Rng;

use super::{Append, Freshness, LogRead, Lsn, MetadataLog};
use crate::port::PortError;
pub use crate::port::fate::{CallFaults as LogFaults, Control, Fate, Oddities};

/// Entries in a page that is cut short, at most.
const SHORT_PAGE_MAX: usize = 3;

/// A log between a caller and another log. Clones share the dice and the switches.
#[derive(Clone, Debug)]
pub struct FaultyLog {
    inner: Arc<dyn MetadataLog>,
    control: Control<LogFaults>,
}

impl FaultyLog {
    /// Puts faults, drawn from `seed`, in front of `inner`.
    pub fn new(inner: Arc<dyn MetadataLog>, seed: u64, faults: LogFaults) -> Self {
        Self { inner, control: Control::new(seed, faults) }
    }

    /// The switches. A script decides appends and trims.
    pub fn control(&self) -> Control<LogFaults> {
        self.control.clone()
    }
}

#[async_trait]
impl MetadataLog for FaultyLog {
    async fn append(&self, at: Lsn, bytes: Bytes) -> Result<Append, PortError> {
        let drawn = self.control.draw(|faults| faults);
        let (inner, again) = (Arc::clone(&self.inner), Arc::clone(&self.inner));
        let copy = bytes.clone();
        let append = async move { inner.append(at, bytes).await };
        let answer = self.control.meet(drawn, append).await;
        self.control.repeat(&answer, async move { drop(again.append(at, copy).await) });
        answer
    }

    async fn read(
        &self,
        from: Lsn,
        limit: NonZeroUsize,
        freshness: Freshness,
    ) -> Result<LogRead, PortError> {
        let (drawn, stale) = self.control.draw_read(
            |faults| faults,
            |faults, random| random.random_bool(faults.stale).then(|| random.random::<f64>()),
        );
        let inner = Arc::clone(&self.inner);
        let shorter = self
            .control
            .odd(|odd, dice| dice.happens(odd.short_page).then(|| dice.up_to(SHORT_PAGE_MAX)));
        let read = async move {
            let mut read = inner.read(from, limit, freshness).await?;
            if let (LogRead::Entries { slots, at_tail }, Some(shorter)) = (&mut read, shorter)
                && slots.len() > shorter
            {
                slots.truncate(shorter);
                *at_tail = false;
            }
            Ok(match stale {
                Some(share) if freshness == Freshness::Recent => shortened(read, share),
                _ => read,
            })
        };
        self.control.meet(drawn, read).await
    }

    async fn tail(&self) -> Result<Lsn, PortError> {
        let (drawn, ()) = self.control.draw_read(|faults| faults, |_, _| ());
        let inner = Arc::clone(&self.inner);
        self.control.meet(drawn, async move { inner.tail().await }).await
    }

    async fn trim(&self, before: Lsn) -> Result<(), PortError> {
        let drawn = self.control.draw(|faults| faults);
        let inner = Arc::clone(&self.inner);
        self.control.meet(drawn, async move { inner.trim(before).await }).await
    }
}

/// What a replica that is a moment behind shows.
fn shortened(read: LogRead, share: f64) -> LogRead {
    match read {
        LogRead::Entries { slots: mut entries, .. } => {
            let shown = (0..entries.len()).take_while(|at| at_share(*at, entries.len()) < share);
            entries.truncate(shown.count());
            LogRead::Entries { slots: entries, at_tail: true }
        }
        trimmed @ LogRead::Trimmed(_) => trimmed,
    }
}

fn at_share(at: usize, length: usize) -> f64 {
    let number = |count: usize| f64::from(u32::try_from(count).unwrap_or(u32::MAX));
    number(at + 1) / number(length)
}

#[cfg(test)]
mod tests;
