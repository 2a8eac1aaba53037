//! The budget of bytes that requests in flight may take.
//!
//! A connection takes its share before it reads, and gives it back when the response is written;
//! when all is spent, sockets are not read, and TCP slows the clients down. Shares are taken in
//! steps as a frame's bytes arrive, so a client that announces much and sends little holds little.
//!
//! SUBTLE: frames that each hold a part of the budget and wait for more could wait for each other
//! for ever. Therefore one frame at a time may overdraw: whoever finds the budget spent in the
//! middle of a frame waits for the overdraft, finishes its frame on it, and gives it back. Memory
//! is bounded by the budget and one frame.

use std::sync::Arc;

use tokio::sync::{OwnedSemaphorePermit, Semaphore};

/// The budget is counted in units of this many bytes.
const UNIT_BYTES: usize = 1024;

/// The budget of one broker. Cheap to clone.
#[derive(Clone, Debug)]
pub(crate) struct MemoryBudget {
    total: usize,
    units: Arc<Semaphore>,
    overdraft: Arc<Semaphore>,
}

/// What a frame holds of the budget, until it is dropped.
#[derive(Debug, Default)]
pub(crate) struct Share {
    held: Option<OwnedSemaphorePermit>,
    overdrawn: Option<OwnedSemaphorePermit>,
}

impl MemoryBudget {
    /// A budget of about so many bytes.
    pub(crate) fn new(bytes: usize) -> Self {
        let units = (bytes / UNIT_BYTES).clamp(1, Semaphore::MAX_PERMITS);
        let (free, overdraft) = (Semaphore::new(units), Semaphore::new(1));
        Self { total: units, units: Arc::new(free), overdraft: Arc::new(overdraft) }
    }

    /// Bytes of the budget that are taken, and all of them.
    pub(crate) fn used_bytes(&self) -> (usize, usize) {
        let used = self.total.saturating_sub(self.units.available_permits());
        (used * UNIT_BYTES, self.total * UNIT_BYTES)
    }

    /// Begins a frame: waits until there is something left, and takes the first step.
    pub(crate) async fn begin(&self, bytes: usize) -> Share {
        let held = Arc::clone(&self.units).acquire_many_owned(units(bytes)).await.ok();
        Share { held, overdrawn: None }
    }

    /// Takes one more step for a frame that has begun; waits only for another frame that overdraws.
    pub(crate) async fn extend(&self, share: &mut Share, bytes: usize) {
        if share.overdrawn.is_some() {
            return;
        }
        match Arc::clone(&self.units).try_acquire_many_owned(units(bytes)) {
            Ok(more) => match &mut share.held {
                Some(held) => held.merge(more),
                held @ None => *held = Some(more),
            },
            Err(_) => share.overdrawn = Arc::clone(&self.overdraft).acquire_owned().await.ok(),
        }
    }
}

fn units(bytes: usize) -> u32 {
    u32::try_from(bytes.div_ceil(UNIT_BYTES)).unwrap_or(u32::MAX)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn frames_that_want_more_than_there_is_finish_one_after_the_other() {
        let budget = MemoryBudget::new(8 * UNIT_BYTES);
        assert_eq!(budget.used_bytes(), (0, 8 * UNIT_BYTES));
        let mut first = budget.begin(4 * UNIT_BYTES).await;
        assert_eq!(budget.used_bytes(), (4 * UNIT_BYTES, 8 * UNIT_BYTES));
        let mut second = budget.begin(4 * UNIT_BYTES).await;
        budget.extend(&mut first, 4 * UNIT_BYTES).await;
        assert!(first.overdrawn.is_some());
        let mut waits = Box::pin(budget.extend(&mut second, 4 * UNIT_BYTES));
        assert!(futures::poll!(&mut waits).is_pending());
        drop(first);
        waits.await;
        assert!(second.overdrawn.is_some());
        let mut third = Box::pin(budget.begin(8 * UNIT_BYTES));
        assert!(futures::poll!(&mut third).is_pending());
        drop(second);
        third.await;
    }
}
