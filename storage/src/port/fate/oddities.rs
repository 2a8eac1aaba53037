//! What befalls some calls only: pages cut short, listings that take long, answers to a retry that
//! nobody asked for, calls that come twice, a caller whose way is long.
//!
//! It has dice of its own, so that none of it changes what befalls a call otherwise.

use std::time::Duration;

use rand::rngs::StdRng;
use rand::{Rng, SeedableRng};

/// How likely each is, from 0 to 1. Default: none.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Oddities {
    /// Of a call with an effect that is carried out once more, later.
    pub doubled: f64,
    /// How much later, at most.
    pub doubled_max: Duration,
    /// Of a page of the log that is shorter than it had to be, with more behind it.
    pub short_page: f64,
    /// Of a listing that takes longer.
    pub slow_list: f64,
    /// How much longer, at most.
    pub slow_list_max: Duration,
    /// Of a put that is refused because of another one at the same time, which there need not be.
    pub conflict: f64,
    /// Of a put that happens, and whose hidden second attempt hears that there is something.
    pub own_retry: f64,
    /// How many times longer each way is; zero is as good as once.
    pub slowness: u32,
}

/// The dice for them.
pub(crate) struct OddDice {
    pub(crate) oddities: Oddities,
    rng: StdRng,
}

impl OddDice {
    pub(crate) fn new(seed: u64) -> Self {
        Self { oddities: Oddities::default(), rng: StdRng::seed_from_u64(seed.rotate_left(17)) }
    }

    /// Some share of a time, if what is that likely happens.
    pub(crate) fn after(&mut self, likelihood: f64, most: Duration) -> Option<Duration> {
        let (happens, share) = (self.rng.random_bool(likelihood), self.rng.random::<f64>());
        happens.then(|| most.mul_f64(share))
    }

    /// Whether what is that likely happens.
    pub(crate) fn happens(&mut self, likelihood: f64) -> bool {
        self.rng.random_bool(likelihood)
    }

    /// One of the first so many, from one on.
    pub(crate) fn up_to(&mut self, count: usize) -> usize {
        self.rng.random_range(1..=count.max(1))
    }
}
