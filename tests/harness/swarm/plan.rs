//! What a world is like: drawn from its seed, and then made smaller by whoever looks for what it
//! takes to fail.

use std::collections::BTreeSet;
use std::time::Duration;

use rand::rngs::StdRng;
use rand::{Rng, SeedableRng};

use super::fault::Fault;

/// How likely a kind of fault is to be among those of a world.
const CHOSEN: f64 = 0.3;

/// What is known to break rules. Two processes with the same random numbers propose commands under
/// the same ids: whichever sees a command of the other's stops, but not before it may have been
/// given what was meant for the other where both propose the same.
const LEFT_OUT: Fault = Fault::Clone;

/// How long things go wrong in a long world.
const LONG: Duration = Duration::from_secs(2 * 60 * 60);

/// The longest that anything is stretched to: outages of an hour are the longest that are promised
/// to be lived through.
const STRETCHED_MAX: Duration = Duration::from_secs(60 * 60);

/// What a world is like.
#[derive(Clone, Debug, PartialEq)]
pub struct Plan {
    /// Decides everything that is not decided here.
    pub seed: u64,
    /// Brokers at a time.
    pub brokers: u64,
    /// How long things go wrong, in simulated time.
    pub duration: Duration,
    /// How many times slower than usual everything happens that is not of a broker itself: what
    /// goes wrong lasts longer, clients rest longer, data is moved later.
    pub stretch: u32,
    /// What goes wrong.
    pub faults: BTreeSet<Fault>,
    /// Clients of each kind.
    pub clients: Clients,
    /// Partitions of each topic.
    pub partitions: i32,
    /// Bytes of batches that travel in the log.
    pub inline_bytes_max: usize,
    /// How often a snapshot is written, in entries.
    pub snapshot_entries: u64,
    /// How long entries are kept in the log.
    pub log_kept: Duration,
    /// How long a batch waits for others.
    pub linger: Duration,
}

/// How many clients there are.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Clients {
    /// Producers, every second of them idempotent.
    pub producers: usize,
    /// Transactional producers.
    pub transactional: usize,
    /// Pipelines, each from a partition of its own to all of another topic, in transactions.
    pub pipelines: usize,
    /// Members of the one group.
    pub members: usize,
    /// Readers.
    pub readers: usize,
    /// Operators.
    pub operators: usize,
}

impl Plan {
    /// The plan of a seed.
    pub fn of(seed: u64) -> Self {
        let mut random = StdRng::seed_from_u64(seed.wrapping_mul(0x9e37_79b9_7f4a_7c15));
        let mut faults: BTreeSet<Fault> =
            Fault::ANY_TIME.into_iter().filter(|_| random.random_bool(CHOSEN)).collect();
        faults.remove(&LEFT_OUT);
        let seconds = [30, 40, 60, 60, 90, 180][random.random_range(0..6)];
        Self {
            seed,
            brokers: random.random_range(1..=5),
            duration: Duration::from_secs(seconds),
            stretch: 1,
            faults,
            clients: Clients {
                producers: random.random_range(1..=4),
                transactional: random.random_range(0..=2),
                pipelines: random.random_range(0..=2),
                members: random.random_range(0..=4),
                readers: random.random_range(1..=3),
                operators: random.random_range(0..=1),
            },
            partitions: random.random_range(1..=4),
            inline_bytes_max: [0, 300, 4000][random.random_range(0..3)],
            snapshot_entries: [20, 50, 200, 2000][random.random_range(0..4)],
            log_kept: Duration::from_secs([8, 40][random.random_range(0..2)]),
            linger: Duration::from_millis([5, 20, 100][random.random_range(0..3)]),
        }
    }

    /// The plan of a seed in a world of two hours, in which something may be out of reach for one.
    /// Not more happens in it than in others, but all that takes a broker's time passes: leases,
    /// sessions, transactions and what it remembers of producers end.
    pub fn long(seed: u64) -> Self {
        let stretch = [20, 60, 300][usize::try_from(seed % 3).unwrap_or(0)];
        let plan = Self::of(seed);
        let log_kept = plan.log_kept * stretch;
        Self { duration: LONG, stretch, log_kept, ..plan }
    }

    /// So long in this world as it says, which is longer the more it is stretched, up to an hour.
    pub fn stretched(&self, time: Duration) -> Duration {
        (time * self.stretch).min(STRETCHED_MAX.max(time))
    }
}
