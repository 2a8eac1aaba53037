//! A log whose calls go wrong, by chance or by script.
//!
//! Owns which calls have an effect. What can become of a call is `port::fate`; what a log must keep
//! in spite of it is `log::conformance`.

use std::num::NonZeroUsize;
use std::sync::Arc;

use async_trait::async_trait;
use bytes::Bytes;

use super::{Append, LogRead, Lsn, MetadataLog};
use crate::port::PortError;
pub use crate::port::fate::{CallFaults as LogFaults, Control, Fate};

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
        let inner = Arc::clone(&self.inner);
        self.control.meet(drawn, async move { inner.append(at, bytes).await }).await
    }

    async fn read(&self, from: Lsn, limit: NonZeroUsize) -> Result<LogRead, PortError> {
        let (drawn, ()) = self.control.draw_read(|faults| faults, |_, _| ());
        let inner = Arc::clone(&self.inner);
        self.control.meet(drawn, async move { inner.read(from, limit).await }).await
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

#[cfg(test)]
mod tests;
