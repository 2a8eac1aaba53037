//! How many requests may be under way at once.
//!
//! Additive increase, multiplicative decrease: when the store asks to slow down, half as many; when
//! as many went well as are allowed, one more.

use std::sync::{Mutex, PoisonError};
use std::time::Duration;

use tokio::sync::{Semaphore, SemaphorePermit};
use tokio::time::Instant;

/// Requests under way at first, at least and at most.
const ALLOWED_FIRST: usize = 64;
const ALLOWED_MIN: usize = 2;
const ALLOWED_MAX: usize = 256;

/// All that was under way when the store lost its patience is told so: that is one complaint.
const COMPLAINT: Duration = Duration::from_millis(200);

#[derive(Debug)]
pub(super) struct Limiter {
    semaphore: Semaphore,
    inner: Mutex<Inner>,
}

#[derive(Debug)]
struct Inner {
    allowed: usize,
    /// Requests under way that are not to be followed by others.
    surplus: usize,
    went_well: usize,
    complained: Option<Instant>,
}

/// Leave for one request.
#[derive(Debug)]
pub(super) struct Pass<'a> {
    limiter: &'a Limiter,
    permit: Option<SemaphorePermit<'a>>,
}

impl Default for Limiter {
    fn default() -> Self {
        let allowed = ALLOWED_FIRST;
        let inner = Inner { allowed, surplus: 0, went_well: 0, complained: None };
        Self { semaphore: Semaphore::new(allowed), inner: Mutex::new(inner) }
    }
}

impl Limiter {
    /// Waits until one more request may be under way.
    pub(super) async fn enter(&self) -> Pass<'_> {
        // Never closed; without a permit the request would go unlimited, not unsent.
        Pass { limiter: self, permit: self.semaphore.acquire().await.ok() }
    }

    pub(super) fn allowed(&self) -> usize {
        self.inner.lock().unwrap_or_else(PoisonError::into_inner).allowed
    }

    pub(super) fn went_well(&self) {
        let mut inner = self.inner.lock().unwrap_or_else(PoisonError::into_inner);
        inner.went_well += 1;
        if inner.went_well < inner.allowed || inner.allowed == ALLOWED_MAX {
            return;
        }
        inner.went_well = 0;
        inner.allowed += 1;
        match inner.surplus.checked_sub(1) {
            Some(rest) => inner.surplus = rest,
            None => self.semaphore.add_permits(1),
        }
    }

    /// Allows half as many; `false` if that was done a moment ago.
    pub(super) fn throttled(&self) -> bool {
        let mut inner = self.inner.lock().unwrap_or_else(PoisonError::into_inner);
        if inner.complained.is_some_and(|complained| complained.elapsed() < COMPLAINT) {
            return false;
        }
        inner.complained = Some(Instant::now());
        inner.went_well = 0;
        let halved = (inner.allowed / 2).max(ALLOWED_MIN);
        let fewer = inner.allowed - halved;
        inner.allowed = halved;
        inner.surplus += fewer - self.semaphore.forget_permits(fewer);
        true
    }
}

impl Drop for Pass<'_> {
    fn drop(&mut self) {
        let mut inner = self.limiter.inner.lock().unwrap_or_else(PoisonError::into_inner);
        let Some(permit) = self.permit.take() else { return };
        if let Some(rest) = inner.surplus.checked_sub(1) {
            inner.surplus = rest;
            permit.forget();
        }
    }
}

#[cfg(test)]
mod tests {
    use futures::FutureExt;
    use tokio::task::unconstrained;

    use super::*;

    /// How many can be under way at once now.
    fn room(limiter: &Limiter) -> usize {
        let mut passes = Vec::new();
        while let Some(pass) = unconstrained(limiter.enter()).now_or_never() {
            passes.push(pass);
        }
        passes.len()
    }

    #[tokio::test(start_paused = true)]
    async fn half_as_many_when_throttled_and_one_more_when_all_went_well() {
        let limiter = Limiter::default();
        assert_eq!(room(&limiter), ALLOWED_FIRST);
        let mut under_way = Vec::new();
        for _ in 0..ALLOWED_FIRST {
            under_way.push(limiter.enter().await);
        }
        assert!(limiter.throttled());
        assert!(!limiter.throttled(), "the same complaint again");
        assert_eq!(room(&limiter), 0);
        under_way.truncate(ALLOWED_FIRST / 2);
        assert_eq!(room(&limiter), 0, "as many as are allowed are still under way");
        under_way.clear();
        assert_eq!(room(&limiter), ALLOWED_FIRST / 2);
        for _ in 0..ALLOWED_FIRST / 2 {
            limiter.went_well();
        }
        assert_eq!(room(&limiter), ALLOWED_FIRST / 2 + 1);
        for _ in 0..20 {
            tokio::time::advance(COMPLAINT).await;
            assert!(limiter.throttled());
        }
        assert_eq!((room(&limiter), limiter.allowed()), (ALLOWED_MIN, ALLOWED_MIN));
    }
}
