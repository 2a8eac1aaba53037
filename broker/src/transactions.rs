//! Transactions: what a coordinator does.
//!
//! Everything that matters is decided where a command is applied, so any broker can do this for any
//! transactional id; clients are sent to one of them only so that there is one to ask. Here is what
//! is left: to look which transaction a request can be about, when it comes in, and to abort those
//! that outlive their timeout.
//!
//! How long a transaction has been open is measured by each broker's monotonic clock, from when it
//! first saw it: a wall clock that is wrong aborts nothing. A broker that starts counts anew. The
//! coordinator aborts at the timeout, any other a little later.

use std::collections::{BTreeMap, BTreeSet};
use std::fmt;
use std::sync::{Arc, Mutex, PoisonError, Weak};
use std::time::Duration;

use odradek_protocol::id::TopicPartition;
use odradek_storage::command::{
    Command, Outcome, ProducerIdAndEpoch, Rejection, TransactionChange,
};
use odradek_storage::machine::{Machine, ProposeError};
use odradek_storage::state::State;
use odradek_storage::state::transactions::{Phase, Transactional};
use tokio::task::AbortHandle;
use tokio::time::{Instant, sleep};

/// How many partitions are added with one command.
const PARTITIONS_PER_COMMAND: usize = 4096;

/// No transaction has this number.
const NO_TRANSACTION: u64 = 0;

/// How often transactions are looked through for those that have outlived their timeout.
const TIMEOUT_INTERVAL: Duration = Duration::from_millis(500);

/// How much longer than its timeout a transaction lives if its coordinator does not abort it.
const TIMEOUT_GRACE: Duration = Duration::from_secs(5);

/// Why a transaction does not do what it is asked.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum TransactionError {
    /// The log is out of reach.
    #[error("the coordinator can't act now")]
    NotAvailable,
    /// The state turned it away.
    #[error(transparent)]
    Rejected(#[from] Rejection),
    /// The command has no outcome.
    #[error(transparent)]
    Unproposed(#[from] ProposeError),
}

/// Does for transactional ids what their clients ask for.
#[derive(Clone)]
pub struct TransactionCoordinator {
    shared: Arc<Shared>,
}

struct Shared {
    machine: Machine,
    timeouts: Mutex<Option<AbortHandle>>,
}

impl TransactionCoordinator {
    /// Begins to look for transactions that outlive their timeout.
    pub fn start(machine: Machine) -> Self {
        let shared = Arc::new(Shared { machine, timeouts: Mutex::default() });
        let timeouts = tokio::spawn(watch_timeouts(Arc::downgrade(&shared))).abort_handle();
        *shared.timeouts.lock().unwrap_or_else(PoisonError::into_inner) = Some(timeouts);
        Self { shared }
    }

    /// Ends at once, as a killed process would.
    pub fn kill(&self) {
        let timeouts = self.shared.timeouts.lock().unwrap_or_else(PoisonError::into_inner).take();
        timeouts.iter().for_each(AbortHandle::abort);
    }

    /// Gives a transactional id its next epoch, or its first producer id. `timeout_ms` is how long
    /// its transactions may last, `expected` what its client had until now (KIP-360).
    pub async fn init_producer(
        &self,
        transactional_id: &str,
        timeout_ms: u32,
        expected: Option<ProducerIdAndEpoch>,
    ) -> Result<ProducerIdAndEpoch, TransactionError> {
        let change = TransactionChange::InitProducer { timeout_ms, expected };
        producer_of(self.propose(transactional_id, change).await?)
    }

    /// Adds partitions and groups to the transaction, which begins with the first of them.
    pub async fn add(
        &self,
        transactional_id: &str,
        producer: ProducerIdAndEpoch,
        partitions: Vec<TopicPartition>,
        groups: Vec<String>,
    ) -> Result<(), TransactionError> {
        let transaction = number_of(&self.shared.machine, transactional_id, producer).await?;
        let mut parts: Vec<_> =
            partitions.chunks(PARTITIONS_PER_COMMAND).map(<[_]>::to_vec).collect();
        if parts.is_empty() {
            parts.push(Vec::new());
        }
        let mut groups = groups;
        for part in parts {
            let mut partitions = BTreeMap::<_, BTreeSet<_>>::new();
            for TopicPartition { topic, partition } in part {
                partitions.entry(topic).or_default().insert(partition);
            }
            let groups = std::mem::take(&mut groups);
            let change = TransactionChange::Add { producer, transaction, partitions, groups };
            self.propose(transactional_id, change).await?;
        }
        Ok(())
    }

    /// Ends the transaction. `bumps_epoch` says that the client goes on with the identity that is
    /// returned (KIP-890).
    pub async fn end(
        &self,
        transactional_id: &str,
        producer: ProducerIdAndEpoch,
        commits: bool,
        bumps_epoch: bool,
    ) -> Result<ProducerIdAndEpoch, TransactionError> {
        let transaction = match self.open_number_of(transactional_id, producer).await {
            // A request that is repeated has the epoch before the present one: what that means is
            // for the state to say.
            Err(TransactionError::Rejected(_)) if bumps_epoch => NO_TRANSACTION,
            number => number?,
        };
        let change = TransactionChange::End { producer, transaction, commits, bumps_epoch };
        producer_of(self.propose(transactional_id, change).await?)
    }

    /// Aborts a transaction without its client, which is fenced by it.
    pub async fn abort(
        &self,
        transactional_id: &str,
        transaction: u64,
    ) -> Result<(), TransactionError> {
        let change = TransactionChange::Abort { transaction };
        self.propose(transactional_id, change).await.map(|_| ())
    }

    /// The number of the transaction that this producer has open; [`NO_TRANSACTION`] if it has
    /// none.
    async fn open_number_of(
        &self,
        transactional_id: &str,
        producer: ProducerIdAndEpoch,
    ) -> Result<u64, TransactionError> {
        let look = |state: &State| {
            let number = state.transactions().open_number_for(transactional_id, producer)?;
            Ok(number.unwrap_or(NO_TRANSACTION))
        };
        look_at_once(&self.shared.machine, look).await
    }

    async fn propose(
        &self,
        transactional_id: &str,
        change: TransactionChange,
    ) -> Result<Outcome, TransactionError> {
        let transactional_id = transactional_id.to_owned();
        let command = Command::ChangeTransaction { transactional_id, change };
        match self.shared.machine.propose(command).await? {
            Outcome::Rejected(rejection) => Err(rejection.into()),
            outcome => Ok(outcome),
        }
    }
}

impl fmt::Debug for TransactionCoordinator {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("TransactionCoordinator").finish_non_exhaustive()
    }
}

fn producer_of(outcome: Outcome) -> Result<ProducerIdAndEpoch, TransactionError> {
    match outcome {
        Outcome::Producer(producer) => Ok(producer),
        // It was applied, but with what result is known to nobody any more.
        _ => Err(ProposeError::Unknown.into()),
    }
}

/// The number of the transaction that a request of this producer is about.
pub(crate) async fn number_of(
    machine: &Machine,
    transactional_id: &str,
    producer: ProducerIdAndEpoch,
) -> Result<u64, TransactionError> {
    let look = |state: &State| state.transactions().number_for(transactional_id, producer);
    look_at_once(machine, look).await
}

/// Looks for the number of a transaction when a request comes in, and never later: while a broker
/// follows the log its client may have turned to another, and begun the next transaction. "No" is
/// said only at the tail, and a client that had to wait for it in vain asks again.
async fn look_at_once(
    machine: &Machine,
    look: impl Fn(&State) -> Result<u64, Rejection>,
) -> Result<u64, TransactionError> {
    if let Ok(number) = machine.read(&look) {
        return Ok(number);
    }
    machine.barrier().await.map_err(|_| TransactionError::NotAvailable)?;
    machine.read(look)?;
    Err(TransactionError::NotAvailable)
}

/// Aborts transactions that outlive their timeout.
async fn watch_timeouts(shared: Weak<Shared>) {
    let mut seen: BTreeMap<u64, Instant> = BTreeMap::new();
    loop {
        sleep(TIMEOUT_INTERVAL).await;
        let Some(shared) = shared.upgrade() else { return };
        let now = Instant::now();
        let machine = &shared.machine;
        let node = Some(machine.node_id());
        let open: Vec<(String, u64, Duration)> = machine.read(|state| {
            let due = |id: &String, it: &Transactional| {
                let timeout = Duration::from_millis(u64::from(it.timeout_ms));
                let is_ours = state.coordinator_of(id) == node;
                if is_ours { timeout } else { timeout + TIMEOUT_GRACE }
            };
            let open = state.transactions().ongoing();
            open.map(|(id, it)| (id.clone(), it.transaction, due(id, it))).collect()
        });
        let before = std::mem::take(&mut seen);
        for (id, transaction, due) in open {
            let since = before.get(&transaction).copied().unwrap_or(now);
            seen.insert(transaction, since);
            if now.duration_since(since) < due {
                continue;
            }
            tracing::info!(transactional_id = id, "transaction is aborted: it has timed out");
            let change = TransactionChange::Abort { transaction };
            let command = Command::ChangeTransaction { transactional_id: id, change };
            // Others may have done it, or may have to; if not, there is another time.
            drop(machine.propose(command).await);
        }
    }
}

/// Where a transactional id stands: Kafka's name.
pub(crate) fn state_name(phase: &Phase) -> &'static str {
    match phase {
        Phase::Empty => "Empty",
        Phase::Ongoing(_) => "Ongoing",
        Phase::Committed => "CompleteCommit",
        Phase::Aborted => "CompleteAbort",
    }
}
