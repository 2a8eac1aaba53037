//! The machine: one broker's replica of the state.
//!
//! Owns following the log, proposing, and letting others look. One task (the [`driver`]) owns the
//! position in the log and is the only one to change the state; everyone else has this handle,
//! which is cheap to clone. What entries mean is in `state`; finding a snapshot to begin with is in
//! [`start`].

use std::fmt;
use std::future::Future;
use std::pin::Pin;
use std::sync::atomic::AtomicU64;
use std::sync::{Arc, Mutex, OnceLock, PoisonError, RwLock};
use std::task::{Context, Poll};
use std::time::Duration;

use odradek_protocol::id::{NodeId, TopicId, TopicPartition};
use rand::rngs::StdRng;
use rand::{RngCore, SeedableRng};
use tokio::sync::{mpsc, oneshot, watch};
use tokio::task::AbortHandle;
use uuid::Uuid;

use crate::clock::Clock;
use crate::command::{BrokerAddress, Command, Incarnation, Outcome, Proposal};
use crate::counts::{self, MachineCounts};
use crate::engine::Ports;
use crate::lsn::Lsn;
use crate::object::ObjectStore;
use crate::state::State;

pub(crate) mod claim;
mod driver;
mod heard;
mod lease;
pub(crate) mod snapshots;
mod start;
mod told;
mod trim;
mod watchers;

pub use start::StartError;
pub use watchers::Watch;

use lease::Lease;
use told::Told;
use watchers::Watchers;

/// Time between two attempts to reach the tail after the process was asleep.
const WAKE_INTERVAL: Duration = Duration::from_millis(200);

/// How a machine behaves. The defaults suit a cluster; [`MachineConfig::exclusive`] suits a log
/// that no other process can reach.
#[derive(Clone, Debug)]
pub struct MachineConfig {
    /// Whether this process alone appends to the log, by the backend's own lock: then nothing has
    /// to be polled, and brokers found at start are dead.
    pub exclusive: bool,
    /// How often the tail is looked at when there is no other reason, while others are appending.
    pub poll_interval: Duration,
    /// The same, while nothing happens or peers say when it does.
    pub poll_interval_max: Duration,
    /// After so many lost races in a row a broker asks another to append its proposals too.
    pub losses_max: u32,
    /// How long it waits for that before it tries again itself.
    pub help_max: Duration,
    /// How long a broker that is not alone may be silent before it says that it lives.
    pub heartbeat_interval: Duration,
    /// How long another broker may be silent, by this one's monotonic clock, before it is expired.
    pub silence_max: Duration,
    /// How many bytes of proposals go into one entry.
    pub entry_bytes_max: usize,
    /// How many proposals may wait.
    pub queue_max: usize,
    /// How long one append may take before its outcome counts as unknown and it is repeated.
    pub append_attempt_max: Duration,
    /// How long a barrier may take.
    pub barrier_max: Duration,
    /// An append is sent only if the tail was seen this recently (RELIABILITY A6).
    pub tail_age_max: Duration,
    /// A snapshot is written after so many entries,
    pub snapshot_entries: u64,
    /// or after so many bytes of entries, of which a footer that they name counts as 64 KiB,
    pub snapshot_bytes: u64,
    /// or after so long, if there was an entry since the last.
    pub snapshot_interval: Duration,
    /// How old an entry must be, by the time this process has known it, before it is trimmed
    /// behind a snapshot. Zero suits an exclusive log only, where nobody else can be slow.
    pub log_kept: Duration,
    /// Every so many entries carry a digest of the state.
    pub digest_entries: u64,
}

impl Default for MachineConfig {
    fn default() -> Self {
        Self {
            exclusive: false,
            poll_interval: Duration::from_millis(50),
            poll_interval_max: Duration::from_secs(1),
            losses_max: 3,
            help_max: Duration::from_millis(300),
            heartbeat_interval: Duration::from_secs(4),
            silence_max: Duration::from_secs(12),
            entry_bytes_max: 128 * 1024,
            queue_max: 4096,
            append_attempt_max: Duration::from_secs(2),
            barrier_max: Duration::from_secs(10),
            tail_age_max: Duration::from_secs(10),
            snapshot_entries: 8192,
            snapshot_bytes: 64 * 1024 * 1024,
            snapshot_interval: Duration::from_secs(60 * 60),
            log_kept: Duration::from_secs(24 * 60 * 60),
            digest_entries: 1024,
        }
    }
}

/// A handle on this broker's replica.
#[derive(Clone)]
pub struct Machine {
    shared: Arc<Shared>,
    queue: mpsc::Sender<Request>,
}

/// What the handles and the driver share.
struct Shared {
    state: RwLock<State>,
    watchers: Watchers,
    applied: watch::Sender<Lsn>,
    /// How far the log is filled, as others say.
    filled: watch::Sender<Lsn>,
    /// What it is filled with there, as far as they sent that along.
    told: Told,
    node: watch::Sender<Option<NodeId>>,
    incarnation: AtomicU64,
    lease: Lease,
    counts: MachineCounts,
    clock: Arc<dyn Clock>,
    halt: watch::Sender<Option<HaltReason>>,
    random: Mutex<StdRng>,
    barrier_max: Duration,
    driver: OnceLock<AbortHandle>,
}

/// What a handle asks of the driver.
enum Request {
    Propose(Box<Queued>),
    Barrier(oneshot::Sender<()>),
    /// Proposals of another broker, to be appended along with our own.
    Help(Vec<Proposal>),
    /// The process was asleep.
    Wake(oneshot::Sender<()>),
    Stop(oneshot::Sender<()>),
}

/// A command that waits for its outcome.
struct Queued {
    command: Command,
    reply: oneshot::Sender<Result<Outcome, ProposeError>>,
}

/// Why a command has no outcome.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum ProposeError {
    /// It was not appended and never will be.
    #[error("not appended: {0}")]
    NotAppended(String),
    /// It may have been appended, or may yet be.
    #[error("outcome unknown")]
    Unknown,
    /// The machine is stopping and did not take it.
    #[error("stopping")]
    Stopped,
}

/// The tail of the log could not be reached in time.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("the tail of the log is out of reach")]
pub struct Unreachable;

/// Why a machine stopped by itself. The broker must exit: what it knows can't be trusted any more.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("{0}")]
pub struct HaltReason(pub(crate) String);

/// How far a machine is with the log, as it knows by itself.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Progress {
    /// The last entry applied.
    pub applied: Lsn,
    /// How many entries other brokers say there are behind it.
    pub behind: u64,
    /// How long ago there was nothing behind what was applied, if there ever was a look: always
    /// now, if the log is this process's alone.
    pub tail_reached: Option<Duration>,
    /// Position of the newest snapshot known; zero if there is none.
    pub snapshot: Lsn,
    /// Its length in bytes.
    pub snapshot_bytes: u64,
    /// How long this process has known it.
    pub snapshot_known: Option<Duration>,
    /// Entries applied that are not in it.
    pub entries_since_snapshot: u64,
    /// The oldest entry that this process left in the log when it last trimmed it; zero if it never
    /// did.
    pub floor: Lsn,
}

/// A command on its way: resolves to its outcome.
#[derive(Debug)]
pub struct Proposed {
    reply: oneshot::Receiver<Result<Outcome, ProposeError>>,
}

impl Future for Proposed {
    type Output = Result<Outcome, ProposeError>;

    fn poll(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Self::Output> {
        // A driver that is gone took the answer with it.
        Pin::new(&mut self.reply).poll(cx).map(|reply| reply.unwrap_or(Err(ProposeError::Unknown)))
    }
}

impl Machine {
    /// Loads the newest snapshot, follows the log to its tail, begins the log if it is empty, and
    /// registers this broker.
    ///
    /// Waits as long as the log or the store can't be reached; a log that contradicts itself or its
    /// snapshots is an error.
    pub async fn start(
        config: MachineConfig,
        address: BrokerAddress,
        ports: Ports,
        seed: u64,
    ) -> Result<Self, StartError> {
        let recovered = start::recover_own(&ports).await?;
        let saving = driver::Saving::new(&config, &recovered);
        let state = recovered.state;
        let objects = Arc::clone(&ports.objects);
        let (queue, requests) = mpsc::channel(config.queue_max);
        let shared = Arc::new(Shared {
            watchers: Watchers::default(),
            applied: watch::Sender::new(state.applied()),
            filled: watch::Sender::new(Lsn::ZERO),
            told: Told::default(),
            node: watch::Sender::new(None),
            incarnation: AtomicU64::new(0),
            lease: Lease::new(&config, Arc::clone(&ports.clock)),
            counts: MachineCounts::default(),
            clock: Arc::clone(&ports.clock),
            halt: watch::Sender::new(None),
            state: RwLock::new(state),
            random: Mutex::new(StdRng::seed_from_u64(seed)),
            barrier_max: config.barrier_max,
            driver: OnceLock::new(),
        });
        let machine = Self { shared: Arc::clone(&shared), queue };
        let driver = driver::Driver::new(config, address, ports, shared, requests, saving);
        let driver = tokio::spawn(driver.run()).abort_handle();
        machine.shared.driver.get_or_init(|| driver);
        machine.registered().await?;
        match machine.claim_store(&*objects).await {
            Ok(()) => Ok(machine),
            Err(error) => {
                machine.kill();
                Err(error)
            }
        }
    }

    /// Ties log and objects together. A broker that is killed between the two steps leaves the
    /// second to the next one.
    async fn claim_store(&self, objects: &dyn ObjectStore) -> Result<(), StartError> {
        claim::claim(objects, self.read(State::log_id)).await?;
        while !self.read(State::has_claimed_store) {
            match self.propose(Command::ClaimStore).await {
                Ok(_) => {}
                Err(ProposeError::Stopped) => return Err(StartError::Halted(self.halted().await)),
                // Nobody is served before it is known.
                Err(ProposeError::NotAppended(_) | ProposeError::Unknown) => {
                    tokio::time::sleep(Duration::from_millis(100)).await;
                }
            }
        }
        Ok(())
    }

    async fn registered(&self) -> Result<(), StartError> {
        let mut node = self.shared.node.subscribe();
        let registered = node.wait_for(Option::is_some);
        tokio::select! {
            biased;
            reason = self.halted() => Err(StartError::Halted(reason)),
            _ = registered => Ok(()),
        }
    }

    /// Looks at the state. Short and synchronous: the machine can't apply anything meanwhile.
    pub fn read<T>(&self, look: impl FnOnce(&State) -> T) -> T {
        look(&self.shared.state.read().unwrap_or_else(PoisonError::into_inner))
    }

    /// Proposes a command and waits for its outcome.
    pub async fn propose(&self, command: Command) -> Result<Outcome, ProposeError> {
        self.submit(command).await?.await
    }

    /// Queues a command. Commands stand in the log in the order in which they were queued.
    ///
    /// Waits while the queue is full.
    pub async fn submit(&self, command: Command) -> Result<Proposed, ProposeError> {
        let (reply, proposed) = oneshot::channel();
        let queued = Request::Propose(Box::new(Queued { command, reply }));
        self.queue.send(queued).await.map_err(|_| ProposeError::Stopped)?;
        Ok(Proposed { reply: proposed })
    }

    /// Follows the log to its tail: once this is `Ok`, everything that any broker acknowledged
    /// before the call is applied here. One read serves all who wait.
    pub async fn barrier(&self) -> Result<(), Unreachable> {
        let (reply, reached) = oneshot::channel();
        let pass = async {
            self.queue.send(Request::Barrier(reply)).await.map_err(|_| Unreachable)?;
            reached.await.map_err(|_| Unreachable)
        };
        tokio::time::timeout(self.shared.barrier_max, pass).await.unwrap_or(Err(Unreachable))
    }

    /// Takes an interest in partitions: see [`Watch::changed`].
    pub fn watch(&self, partitions: impl IntoIterator<Item = TopicPartition>) -> Watch {
        self.shared.watchers.watch(partitions)
    }

    /// The last entry applied, as it moves.
    pub fn applied(&self) -> watch::Receiver<Lsn> {
        self.shared.applied.subscribe()
    }

    /// This broker's node id. It changes only if the broker was expired and registered again.
    pub fn node_id(&self) -> NodeId {
        self.shared.node.borrow().unwrap_or(NodeId(0))
    }

    /// Whether no other broker can have taken this one for dead: see [`lease`]. What a broker says
    /// from memory, in an office that it holds in the state it knows, is true as long.
    ///
    /// A broker that is alone follows the log to its tail to find out whether it still is.
    pub async fn has_lease(&self) -> bool {
        let is_held = || self.shared.lease.is_held();
        let is_alone = || self.read(|state| state.brokers().len() == 1);
        is_held() || (is_alone() && self.barrier().await.is_ok() && is_held())
    }

    /// An id for a new topic: a random UUID (version 4), never nil.
    pub fn new_topic_id(&self) -> TopicId {
        TopicId(self.new_uuid())
    }

    /// A random UUID (version 4).
    pub fn new_uuid(&self) -> Uuid {
        let mut random = self.shared.random.lock().unwrap_or_else(PoisonError::into_inner);
        random_uuid(&mut random)
    }

    /// What its driver has done.
    pub fn counts(&self) -> &MachineCounts {
        &self.shared.counts
    }

    /// How far it is with the log, by what it knows without asking.
    pub fn progress(&self) -> Progress {
        let Shared { counts, clock, applied, filled, .. } = &*self.shared;
        let (now, applied) = (clock.uptime(), *applied.borrow());
        let snapshot = Lsn::new(counts.snapshot.get());
        Progress {
            applied,
            behind: filled.borrow().get().saturating_sub(applied.get()),
            tail_reached: match self.shared.lease.is_for_good() {
                true => Some(Duration::ZERO),
                false => counts::ago(now, &counts.followed_at),
            },
            snapshot,
            snapshot_bytes: counts.snapshot_bytes.get(),
            snapshot_known: counts::ago(now, &counts.snapshot_known_at),
            entries_since_snapshot: applied.get().saturating_sub(snapshot.get()),
            floor: Lsn::new(counts.floor.get()),
        }
    }

    /// Resolves once the machine has stopped by itself.
    pub async fn halted(&self) -> HaltReason {
        let mut halt = self.shared.halt.subscribe();
        let reason = halt.wait_for(Option::is_some).await.ok().and_then(|reason| reason.clone());
        reason.unwrap_or_else(|| HaltReason("the machine is gone".to_owned()))
    }

    /// Forgets what was queued, takes a new incarnation and follows the log to its tail.
    ///
    /// Comes back when the tail was reached, or the driver is gone (which [`Machine::halted`]
    /// tells).
    pub(crate) async fn wake(&self) {
        let (reply, awake) = oneshot::channel();
        if self.queue.send(Request::Wake(reply)).await.is_err() || awake.await.is_ok() {
            return;
        }
        // The log could not be read just then: a machine wakes before its network does.
        while self.barrier().await.is_err() && !self.queue.is_closed() {
            tokio::time::sleep(WAKE_INTERVAL).await;
        }
    }

    /// Asks the others to send no more clients to this broker. Returns `false` if there are no
    /// others that could take them.
    pub async fn drain(&self) -> bool {
        let node = self.node_id();
        let others = self.read(|state| {
            state.brokers().iter().any(|(other, broker)| *other != node && !broker.is_draining)
        });
        others && self.propose(Command::DrainBroker).await == Ok(Outcome::Done)
    }

    /// Deregisters this broker, if the log can be reached, and stops.
    pub async fn stop(&self) {
        let (done, stopped) = oneshot::channel();
        if self.queue.send(Request::Stop(done)).await.is_ok() {
            // An error means that the driver is gone, which is what was asked for.
            drop(stopped.await);
        }
    }

    /// Ends at once, as a killed process would: an append that is under way may land all the same.
    pub fn kill(&self) {
        if let Some(driver) = self.shared.driver.get() {
            driver.abort();
        }
    }

    /// Whether it was killed, or has stopped.
    #[cfg(any(test, feature = "test-util"))]
    pub(crate) fn is_gone(&self) -> bool {
        self.queue.is_closed()
    }
}

impl fmt::Debug for Machine {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Machine").field("node", &self.node_id()).finish_non_exhaustive()
    }
}

fn random_uuid(random: &mut StdRng) -> Uuid {
    let mut bytes = [0; 16];
    random.fill_bytes(&mut bytes);
    uuid::Builder::from_random_bytes(bytes).into_uuid()
}

fn random_incarnation(random: &mut StdRng) -> Incarnation {
    Incarnation(random.next_u64())
}
