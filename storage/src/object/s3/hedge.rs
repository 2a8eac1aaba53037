//! Second attempts.
//!
//! One request in a hundred takes many times as long as the others, and the next one does not. So
//! an attempt that takes longer than nineteen of twenty did lately is joined by a second, and the
//! first answer counts. The budget keeps this from making things worse when everything is slow: it
//! allows one second attempt for every twenty requests.

use std::collections::VecDeque;
use std::future::Future;
use std::sync::{Mutex, PoisonError};
use std::time::Duration;

use futures::future::{Either, select};
use tokio::time::{Instant, sleep};

use crate::aws::Failure;

/// What one request adds to the budget.
const BUDGET_SHARE: f64 = 0.05;

/// Most second attempts that can be saved up.
const BUDGET_MAX: f64 = 10.0;

/// Never hedge sooner than this.
const PATIENCE_MIN: Duration = Duration::from_millis(50);

/// How long to wait while too little is known.
const PATIENCE_UNKNOWN: Duration = Duration::from_millis(1000);

/// How many latencies are remembered, and how many are needed to judge by.
const REMEMBERED: usize = 100;
const ENOUGH: usize = 20;

/// Requests up to these sizes, in bytes, are compared with each other; so are all larger ones.
const SIZES: [usize; 2] = [64 * 1024, 1024 * 1024];

#[derive(Debug)]
pub(super) struct Hedging {
    inner: Mutex<Inner>,
}

#[derive(Debug)]
struct Inner {
    latencies: [VecDeque<Duration>; SIZES.len() + 1],
    budget: f64,
}

impl Default for Hedging {
    fn default() -> Self {
        let inner = Inner { latencies: Default::default(), budget: 1.0 };
        Self { inner: Mutex::new(inner) }
    }
}

impl Hedging {
    /// How long to wait for an answer before a second attempt is worth it.
    fn patience(&self, bytes: usize) -> Duration {
        let mut inner = self.inner.lock().unwrap_or_else(PoisonError::into_inner);
        inner.budget = (inner.budget + BUDGET_SHARE).min(BUDGET_MAX);
        let mut latencies: Vec<Duration> = inner.latencies[class(bytes)].iter().copied().collect();
        drop(inner);
        if latencies.len() < ENOUGH {
            return PATIENCE_UNKNOWN;
        }
        let slowest_of_twenty = latencies.len() * 19 / 20;
        let (_, patience, _) = latencies.select_nth_unstable(slowest_of_twenty);
        (*patience).max(PATIENCE_MIN)
    }

    /// Takes a second attempt out of the budget, if there is one.
    fn spend(&self) -> bool {
        let mut inner = self.inner.lock().unwrap_or_else(PoisonError::into_inner);
        let affordable = inner.budget >= 1.0;
        if affordable {
            inner.budget -= 1.0;
        }
        affordable
    }

    fn record(&self, bytes: usize, latency: Duration) {
        let mut inner = self.inner.lock().unwrap_or_else(PoisonError::into_inner);
        let latencies = &mut inner.latencies[class(bytes)];
        if latencies.len() == REMEMBERED {
            latencies.pop_front();
        }
        latencies.push_back(latency);
    }
}

fn class(bytes: usize) -> usize {
    SIZES.iter().position(|most| bytes <= *most).unwrap_or(SIZES.len())
}

/// Makes a call that moves so many bytes, and a second one if the first takes long. Gives the first
/// good answer, and how many calls were made.
///
/// The call that is not waited for any more is dropped; what it asked for may happen all the same.
pub(super) async fn hedged<T, F>(
    hedging: &Hedging,
    bytes: usize,
    call: impl Fn() -> F,
) -> (Result<T, Failure>, u32)
where
    F: Future<Output = Result<T, Failure>>,
{
    let began = Instant::now();
    let patience = hedging.patience(bytes);
    let mut first = Box::pin(call());
    let early = tokio::select! {
        biased;
        answer = &mut first => Some(answer),
        () = sleep(patience) => None,
    };
    let (answer, calls) = match early {
        Some(answer) => (answer, 1),
        None if !hedging.spend() => (first.await, 1),
        None => {
            let answer = match select(first, Box::pin(call())).await {
                Either::Left((Err(_), second)) => second.await,
                Either::Right((Err(_), first)) => first.await,
                Either::Left((answer, _)) | Either::Right((answer, _)) => answer,
            };
            (answer, 2)
        }
    };
    if answer.is_ok() {
        hedging.record(bytes, began.elapsed());
    }
    (answer, calls)
}

#[cfg(test)]
mod tests {
    use std::sync::atomic::{AtomicU32, Ordering};

    use super::*;

    /// Makes a call whose attempts take these times; gives the answer, calls and time.
    async fn call(hedging: &Hedging, millis: &[u64]) -> (Result<usize, Failure>, u32, Duration) {
        let began = Instant::now();
        let attempt = AtomicU32::new(0);
        let (answer, calls) = hedged(hedging, 1000, || {
            let number = usize::try_from(attempt.fetch_add(1, Ordering::Relaxed)).unwrap();
            async move {
                match millis[number] {
                    0 => Err(Failure::takes_too_long()),
                    millis => {
                        sleep(Duration::from_millis(millis)).await;
                        Ok(number)
                    }
                }
            }
        })
        .await;
        (answer, calls, began.elapsed())
    }

    #[tokio::test(start_paused = true)]
    async fn a_slow_attempt_is_joined_by_a_second_within_the_budget() {
        let hedging = Hedging::default();
        for _ in 0..50 {
            assert_eq!(call(&hedging, &[100]).await.1, 1);
        }
        let (answer, calls, took) = call(&hedging, &[60_000, 80]).await;
        assert_eq!((answer, calls, took), (Ok(1), 2, Duration::from_millis(180)));
        let (answer, calls, _) = call(&hedging, &[150, 60_000]).await;
        assert_eq!((answer, calls), (Ok(0), 2), "the first answer counts, whosever it is");
        let mut hedges = 0;
        for _ in 0..200 {
            let (_, calls, _) = call(&hedging, &[5_000, 5_000]).await;
            hedges += calls - 1;
        }
        assert!((1..=14).contains(&hedges), "{hedges} second attempts when everything is slow");
    }

    #[tokio::test(start_paused = true)]
    async fn one_failure_of_two_attempts_is_waited_out() {
        let hedging = Hedging::default();
        let (answer, calls, _) = call(&hedging, &[2_000, 0]).await;
        assert_eq!((answer, calls), (Ok(0), 2));
        let (answer, calls, _) = call(&hedging, &[0]).await;
        assert_eq!((answer, calls), (Err(Failure::takes_too_long()), 1));
    }
}
