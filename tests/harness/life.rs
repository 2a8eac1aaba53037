//! A simulated cluster in which data lives and dies: everything that moves, expires, rewrites and
//! deletes it runs all the time, while topics are written, branched, deleted and brought back,
//! brokers are killed and clocks go wrong.
//!
//! [`model`] knows what has to be there; [`actors`] are those who write and operate, [`rest`] is
//! what has to be true when all is quiet again.

use std::collections::BTreeSet;
use std::num::NonZeroUsize;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use odradek_protocol::id::{Offset, TopicId, TopicPartition};
use odradek_storage::clock::{Clock, ManualClock};
use odradek_storage::command::BrokerAddress;
use odradek_storage::engine::{Engine, Ports};
use odradek_storage::key::ObjectKey;
use odradek_storage::log::faulty::{FaultyLog, LogFaults};
use odradek_storage::log::memory::MemoryLog;
use odradek_storage::object::ObjectStore;
use odradek_storage::object::faulty::{Faults, FaultyObjectStore};
use odradek_storage::object::memory::MemoryObjectStore;
use odradek_storage::peer::memory::MemoryPeers;
use odradek_storage::reader::{FetchError, FetchTarget, Isolation};
use odradek_storage::segment::SegmentId;
use odradek_storage::state::State;
use rand::rngs::StdRng;
use rand::{Rng, SeedableRng};
use tokio::time::Instant;

mod actors;
mod mishaps;
pub mod model;
pub mod records;
mod rest;

use model::{Model, View};

use crate::hasty;

/// When the world begins, in milliseconds since the Unix epoch.
const START_MS: i64 = 1_700_000_000_000;

/// What the tasks of the engines count in.
const TICK: Duration = Duration::from_millis(100);

/// About how large merged segments become.
const UNIT_BYTES: u64 = 8000;

/// How often a snapshot is written, in entries.
const SNAPSHOT_ENTRIES: u64 = 60;

const ALL: NonZeroUsize = NonZeroUsize::new(1_000_000).unwrap();

/// What a world is like.
#[derive(Clone, Debug)]
pub struct Plan {
    /// Decides everything that is not decided here.
    pub seed: u64,
    /// Brokers at a time.
    pub brokers: usize,
    /// How long the world is at work, in simulated time.
    pub duration: Duration,
    /// What goes wrong between an engine and its objects.
    pub faults: Faults,
    /// The same for the log.
    pub log_faults: LogFaults,
    /// About how often a broker is killed and another started in its place; zero for never.
    pub kill_interval: Duration,
    /// About how often a broker is cut off from the log for some seconds; zero for never.
    pub cut_interval: Duration,
    /// Whether the clock of one broker goes wrong by a month.
    pub jumps: bool,
    /// Whether all brokers die at once, and the newest snapshot is damaged meanwhile.
    pub loses_snapshot: bool,
    /// Bytes of batches that travel in the log.
    pub inline_bytes_max: usize,
}

/// How often things happened.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Report {
    /// Records that were acknowledged.
    pub acknowledged: usize,
    /// Records of which that is not known.
    pub unknown: usize,
    /// Times that a topic was read and checked.
    pub checked: usize,
    /// Brokers that were killed.
    pub kills: usize,
    /// Brokers that were cut off from the log.
    pub cut_off: usize,
    /// Reads that took their time.
    pub lingered: usize,
    /// Branches of topics that live.
    pub branched: usize,
    /// Topics that were deleted.
    pub deleted: usize,
    /// Topics that were brought back.
    pub undone: usize,
    /// Deleted topics that were given up.
    pub purged: usize,
    /// Times that records were deleted.
    pub cut: usize,
    /// Topics in which compaction has taken out records.
    pub compacted: usize,
    /// Topics in which records have expired.
    pub expired: usize,
    /// Segments that were merged from others.
    pub merged: usize,
    /// Segments that were deleted.
    pub swept: usize,
    /// Entries that were trimmed.
    pub trimmed: u64,
}

/// A broker of the world.
#[derive(Clone)]
struct Running {
    slot: usize,
    engine: Engine,
    objects: FaultyObjectStore,
    log: FaultyLog,
}

/// One world while it runs. Clones are the same.
#[derive(Clone)]
struct World {
    plan: Arc<Plan>,
    objects: MemoryObjectStore,
    log: MemoryLog,
    /// The right time.
    clock: Arc<ManualClock>,
    /// What each broker's machine takes for it.
    clocks: Arc<Vec<Arc<ManualClock>>>,
    peers: MemoryPeers,
    end: Instant,
    shared: Arc<Mutex<Shared>>,
}

/// What changes.
struct Shared {
    brokers: Vec<Running>,
    model: Model,
    report: Report,
    started: u64,
    named: u64,
    /// Segments that were ever seen in the store.
    segments: BTreeSet<ObjectKey>,
    has_faults: bool,
}

/// Runs a world on paused time from beginning to end.
///
/// # Panics
///
/// If something is not as it has to be.
pub fn run(plan: Plan) -> Report {
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_time()
        .start_paused(true)
        .build()
        .unwrap();
    runtime.block_on(async move { World::new(plan).live().await })
}

impl World {
    fn new(plan: Plan) -> Self {
        let clock = || Arc::new(ManualClock::new(START_MS));
        Self {
            objects: MemoryObjectStore::default(),
            log: MemoryLog::default(),
            clock: clock(),
            clocks: Arc::new((0..plan.brokers).map(|_| clock()).collect()),
            peers: MemoryPeers::new(plan.seed ^ 3, 0.1, Duration::from_millis(20)),
            end: Instant::now() + plan.duration,
            shared: Arc::new(Mutex::new(Shared {
                brokers: Vec::new(),
                model: Model::default(),
                report: Report::default(),
                started: 0,
                named: 0,
                segments: BTreeSet::new(),
                has_faults: false,
            })),
            plan: Arc::new(plan),
        }
    }

    async fn live(self) -> Report {
        for slot in 0..self.plan.brokers {
            self.start_broker(slot).await;
        }
        for kind in model::KINDS {
            self.create_topic(kind).await;
        }
        self.set_faults(true);
        let mut random = StdRng::seed_from_u64(self.plan.seed);
        let mut tasks = self.actors(&mut random);
        while Instant::now() < self.end {
            self.mishap(&mut random).await;
        }
        self.set_faults(false);
        while let Some(task) = tasks.join_next().await {
            if let Err(failed) = task {
                std::panic::resume_unwind(failed.into_panic());
            }
        }
        self.rest().await
    }

    fn lock(&self) -> MutexGuard<'_, Shared> {
        // After a panic others only make noise.
        self.shared.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn say(&self, what: &str) {
        if std::env::var_os("ODRADEK_SEED").is_some() {
            println!("{:>8} {what}", self.clock.now_ms() - START_MS);
        }
    }

    fn set_faults(&self, on: bool) {
        let mut shared = self.lock();
        shared.has_faults = on;
        shared.brokers.iter().for_each(|broker| self.spoil(broker, on));
    }

    fn spoil(&self, broker: &Running, on: bool) {
        let Plan { faults, log_faults, .. } = (*self.plan).clone();
        let (faults, log_faults) = if on { (faults, log_faults) } else { Default::default() };
        broker.objects.control().set(faults);
        broker.log.control().set(log_faults);
    }

    async fn start_broker(&self, slot: usize) {
        let number = {
            let mut shared = self.lock();
            shared.started += 1;
            shared.model.is_misled |= shared.model.jumped && slot == 0;
            shared.started
        };
        let seed = self.plan.seed.wrapping_mul(1_000_003).wrapping_add(number);
        let objects =
            FaultyObjectStore::new(Arc::new(self.objects.clone()), seed ^ 1, Faults::default());
        let log = FaultyLog::new(Arc::new(self.log.clone()), seed ^ 2, LogFaults::default());
        let clock = Arc::clone(&self.clocks[slot]);
        let ports = Ports {
            objects: Arc::new(objects.clone()),
            log: Arc::new(log.clone()),
            clock,
            peers: Arc::new(self.peers.way_of(&hasty::address(number).host)),
        };
        let life = hasty::life(TICK, UNIT_BYTES);
        let inline_bytes_max = self.plan.inline_bytes_max;
        let config = hasty::engine(number, seed, SNAPSHOT_ENTRIES, inline_bytes_max, life);
        let BrokerAddress { host, port, .. } = config.address.clone();
        let engine = Engine::start(config, ports).await.unwrap();
        self.peers.enter(&host, port, engine.clone());
        let broker = Running { slot, engine, objects, log };
        let mut shared = self.lock();
        self.spoil(&broker, shared.has_faults);
        shared.brokers.push(broker);
    }

    fn engine(&self, random: &mut StdRng) -> Option<Engine> {
        let shared = self.lock();
        let place = random.random_range(0..shared.brokers.len().max(1));
        shared.brokers.get(place).map(|broker| broker.engine.clone())
    }

    /// Reads a topic from where it begins and checks it; `None` if it could not be read.
    async fn check(&self, engine: &Engine, topic: TopicId) -> Option<()> {
        let (required, log_start) = {
            let model = &self.lock().model;
            let known = &model.topics[&topic];
            (model.acknowledged(topic), known.log_start.max(known.surely_deleted_below))
        };
        engine.machine.barrier().await.ok()?;
        let view = match read(engine, topic).await {
            Ok(view) => view,
            Err(error) => {
                self.say(&format!("{topic:?} can't be read: {error}"));
                return None;
            }
        };
        self.note_segments().await;
        let mut shared = self.lock();
        let name = &shared.model.topics[&topic].name;
        assert!(log_start <= view.log_start, "{name}: the log start moved back from {log_start}");
        let now_ms = self.clock.now_ms();
        shared.model.check(topic, &view, &required, now_ms);
        shared.report.checked += 1;
        let known = shared.model.topics.get_mut(&topic).unwrap();
        known.log_start = known.log_start.max(view.log_start);
        Some(())
    }

    async fn note_segments(&self) {
        let listed = self.objects.list(SegmentId::PREFIX, None, ALL).await.unwrap();
        self.lock().segments.extend(listed.into_iter().map(|it| it.key));
    }
}

/// Everything in the one partition of a topic, from its log start offset on. An error may say
/// that it has changed meanwhile.
async fn read(engine: &Engine, topic: TopicId) -> Result<View, FetchError> {
    let partition = TopicPartition { topic, partition: 0 };
    let log_start = engine.reader.watermarks(partition)?.log_start.0;
    let mut view = View { log_start, end: log_start, batches: Vec::new() };
    loop {
        let target = FetchTarget { partition, offset: Offset(view.end), bytes_max: 20_000 };
        let plan = engine.reader.plan(&[target], 20_000, Isolation::ReadUncommitted);
        let fetched = engine.reader.fetch(plan).await.remove(0)?;
        if fetched.records_bytes == 0 {
            let end = fetched.watermarks.high_watermark.0;
            let extents = || {
                let of = |state: &State| {
                    state.partition(partition).map(|it| it.extents().copied().collect::<Vec<_>>())
                };
                engine.machine.read(of)
            };
            let text = "nothing is there, and it is not the end";
            assert_eq!(view.end, end, "{topic:?}: {text}: {log_start}, {:?}", extents());
            return Ok(view);
        }
        for mut batch in records::read(fetched.records.concat().into()) {
            batch.records.retain(|(offset, _)| *offset >= view.end);
            view.end = batch.end;
            view.batches.push(batch);
        }
    }
}
