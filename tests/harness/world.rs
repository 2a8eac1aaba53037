//! A simulated cluster: one seed decides workload, faults, crashes and delays.
//!
//! The engines are the real ones; only the ports are in memory, behind faults, and time is paused,
//! so that it passes as fast as the tasks allow and always in the same order. While the world runs,
//! every broker's digest is compared with every other's at the same position of the log. When it is
//! over the faults stop, a broker that has seen nothing yet reads everything back, and the history
//! is checked:
//!
//! - every acknowledged record is there, where it was said to be;
//! - no record is there twice;
//! - what one producer sent stands in the order in which it was sent;
//! - nothing is there that nobody sent.

use std::collections::{BTreeMap, BTreeSet};
use std::num::NonZeroUsize;
use std::sync::{Arc, Mutex};
use std::time::Duration;

use bytes::Bytes;
use odradek_protocol::id::{Offset, ProducerId, TopicId, TopicPartition};
use odradek_storage::clock::ManualClock;
use odradek_storage::command::{
    BatchProducer, BatchSummary, BatchTransaction, BrokerAddress, Command, Outcome,
};
use odradek_storage::engine::{Engine, EngineConfig, Ports};
use odradek_storage::key::ObjectKey;
use odradek_storage::life::LifeConfig;
use odradek_storage::log::faulty::{FaultyLog, LogFaults};
use odradek_storage::log::memory::MemoryLog;
use odradek_storage::log::{Freshness, LogRead, MetadataLog};
use odradek_storage::lsn::Lsn;
use odradek_storage::object::ObjectStore;
use odradek_storage::object::faulty::{Faults, FaultyObjectStore};
use odradek_storage::object::memory::MemoryObjectStore;
use odradek_storage::peer::NoPeers;
use odradek_storage::peer::memory::MemoryPeers;
use odradek_storage::reader::{FetchTarget, Isolation, Reader};
use odradek_storage::segment::SegmentId;
use odradek_storage::segment::builder::PendingBatch;
use odradek_storage::snapshot::{SNAPSHOT_PREFIX, snapshot_lsn};
use odradek_storage::state::segments::Unreferenced;
use odradek_storage::writer::{AppendError, Appended};
use rand::rngs::StdRng;
use rand::{Rng, SeedableRng};
use tokio::time::{Instant, sleep, timeout};
use uuid::Uuid;

use crate::batches::{BatchSpec, read_records};
use crate::digests::Digests;
use crate::hasty;

/// The topic that everybody writes to.
pub const TOPIC: TopicId = TopicId(Uuid::from_u128(42));

/// How long it may take until the store has nothing but what is referred to.
const SETTLE_MAX: Duration = Duration::from_secs(60);

/// How often the start of a broker may fail: its log and store are not always out of reach.
const STARTS_MAX: usize = 500;

/// What a world is like.
#[derive(Clone, Debug)]
pub struct Plan {
    /// Decides everything that is not decided here.
    pub seed: u64,
    /// Brokers at a time.
    pub brokers: usize,
    /// Producers.
    pub producers: usize,
    /// Partitions of the topic.
    pub partitions: u32,
    /// How long the world is at work, in simulated time.
    pub duration: Duration,
    /// What goes wrong between an engine and its objects.
    pub faults: Faults,
    /// The same for the log.
    pub log_faults: LogFaults,
    /// How likely a message between brokers gets lost.
    pub peers_lost: f64,
    /// How often a broker is killed and another started in its place; zero for never.
    pub kill_interval: Duration,
    /// Whether data is merged and swept all the time.
    pub moves: bool,
    /// Bytes of batches that travel in the log.
    pub inline_bytes_max: usize,
}

/// What a world came to.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Report {
    /// What happened, event by event, with the simulated time.
    pub trace: Vec<String>,
    /// Records that were acknowledged.
    pub acknowledged: usize,
    /// Records of which that is not known.
    pub unknown: usize,
    /// Brokers that were killed.
    pub kills: usize,
    /// Positions at which digests of several brokers were compared.
    pub compared: usize,
    /// Segments that were merged from others and are referred to at the end.
    pub merged: usize,
    /// Segments that the state holds itself at the end.
    pub inline: usize,
    /// Entries that were trimmed.
    pub trimmed: u64,
}

/// What is known of a record that was sent.
#[derive(Clone, Debug)]
pub(crate) struct Sent {
    pub(crate) partition: TopicPartition,
    pub(crate) value: Bytes,
    /// Where it was said to be.
    pub(crate) acknowledged: Option<i64>,
    /// Whether it may be there once at most: nobody sent it again without saying so.
    pub(crate) only_once: bool,
}

#[derive(Default)]
struct History {
    sent: Vec<Sent>,
    trace: Vec<String>,
    began: Option<Instant>,
}

impl History {
    fn say(&mut self, what: String) {
        let at = self.began.map_or(Duration::ZERO, |began| began.elapsed()).as_millis();
        self.trace.push(format!("{at:>8} {what}"));
    }
}

/// One world while it runs.
pub struct World {
    plan: Plan,
    objects: MemoryObjectStore,
    log: MemoryLog,
    clock: Arc<ManualClock>,
    peers: MemoryPeers,
    history: Arc<Mutex<History>>,
    digests: Digests,
    brokers: Arc<Mutex<Vec<Running>>>,
    random: StdRng,
    started: u64,
    kills: usize,
}

/// A broker of the world.
#[derive(Clone)]
struct Running {
    engine: Engine,
    objects: FaultyObjectStore,
    log: FaultyLog,
}

impl Running {
    fn set_faults(&self, objects: &Faults, log: &LogFaults) {
        self.objects.control().set(objects.clone());
        self.log.control().set(log.clone());
    }
}

/// Runs a world on paused time from beginning to end.
///
/// # Panics
///
/// If the history breaks a rule; the seed stands in the message.
pub fn run(plan: Plan) -> Report {
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_time()
        .start_paused(true)
        .build()
        .unwrap();
    runtime.block_on(async move { World::new(plan).live().await })
}

impl World {
    /// A world in which nothing has happened.
    pub fn new(plan: Plan) -> Self {
        let random = StdRng::seed_from_u64(plan.seed);
        let peers = MemoryPeers::new(plan.seed ^ 3, plan.peers_lost, Duration::from_millis(20));
        let history = History { began: Some(Instant::now()), ..History::default() };
        Self {
            plan,
            objects: MemoryObjectStore::default(),
            log: MemoryLog::default(),
            clock: Arc::new(ManualClock::new(1_700_000_000_000)),
            peers,
            history: Arc::new(Mutex::new(history)),
            digests: Digests::default(),
            brokers: Arc::default(),
            random,
            started: 0,
            kills: 0,
        }
    }

    async fn live(mut self) -> Report {
        for _ in 0..self.plan.brokers {
            let broker = self.start_broker(false).await;
            self.brokers.lock().unwrap().push(broker);
        }
        self.create_topic().await;
        for broker in &*self.brokers.lock().unwrap() {
            broker.set_faults(&self.plan.faults, &self.plan.log_faults);
        }
        let end = Instant::now() + self.plan.duration;
        let producers: Vec<_> = (0..self.plan.producers)
            .map(|number| tokio::spawn(self.producer(number, end).run()))
            .collect();
        while Instant::now() < end {
            self.kill_and_replace(end).await;
        }
        // Heal, and let everybody finish.
        for broker in &*self.brokers.lock().unwrap() {
            broker.set_faults(&Faults::default(), &LogFaults::default());
        }
        for producer in producers {
            producer.await.unwrap();
        }
        self.judge().await
    }

    async fn start_broker(&mut self, faulty: bool) -> Running {
        self.started += 1;
        let seed = self.plan.seed.wrapping_mul(1_000_003).wrapping_add(self.started);
        let Plan { faults, log_faults, .. } = self.plan.clone();
        let (faults, log_faults) = if faulty { (faults, log_faults) } else { Default::default() };
        let objects = FaultyObjectStore::new(Arc::new(self.objects.clone()), seed ^ 1, faults);
        let log = FaultyLog::new(Arc::new(self.log.clone()), seed ^ 2, log_faults);
        let clock = Arc::clone(&self.clock);
        let peers = Arc::new(self.peers.way_of(&hasty::address(self.started).host));
        let (store, order) = (Arc::new(objects.clone()), Arc::new(log.clone()));
        let ports = Ports { objects: store, log: order, clock, peers };
        // A broker that is refused its log at start ends; whoever supervises it starts it again.
        let mut attempts = 0;
        let engine = loop {
            attempts += 1;
            match Engine::start(self.config(seed), ports.clone()).await {
                Ok(engine) => break engine,
                Err(error) if attempts == STARTS_MAX => panic!("seed {}: {error}", self.plan.seed),
                Err(error) => self.history.lock().unwrap().say(format!("no start: {error}")),
            }
            sleep(Duration::from_millis(100)).await;
        };
        let BrokerAddress { host, port, .. } = hasty::address(self.started);
        self.peers.enter(&host, port, engine.clone());
        self.history.lock().unwrap().say(format!("broker {} starts", self.started));
        tokio::spawn(self.digests.clone().compare(engine.clone(), self.plan.seed, 1));
        Running { engine, objects, log }
    }

    fn config(&self, seed: u64) -> EngineConfig {
        let life = match self.plan.moves {
            true => hasty::life(Duration::from_millis(50), 4000),
            false => LifeConfig::default(),
        };
        hasty::engine(self.started, seed, 20, self.plan.inline_bytes_max, life)
    }

    async fn create_topic(&self) {
        let engine = self.brokers.lock().unwrap()[0].engine.clone();
        let create = Command::CreateTopic {
            topic: TOPIC,
            name: "topic".to_owned(),
            partitions: self.plan.partitions,
            replication_factor: 1,
            configs: BTreeMap::new(),
        };
        assert_eq!(engine.machine.propose(create).await, Ok(Outcome::Done));
    }

    async fn kill_and_replace(&mut self, end: Instant) {
        let interval = self.plan.kill_interval;
        if interval.is_zero() {
            sleep(end - Instant::now()).await;
            return;
        }
        let pause = self.random.random_range(Duration::ZERO..=interval * 2);
        sleep(pause.min(end - Instant::now())).await;
        let victim = {
            let mut brokers = self.brokers.lock().unwrap();
            let place = self.random.random_range(0..brokers.len());
            brokers.remove(place)
        };
        victim.engine.kill();
        self.kills += 1;
        self.history.lock().unwrap().say("a broker is killed".to_owned());
        let broker = self.start_broker(true).await;
        self.brokers.lock().unwrap().push(broker);
    }

    fn producer(&mut self, number: usize, end: Instant) -> Producer {
        Producer {
            number,
            end,
            idempotent: number.is_multiple_of(2),
            partitions: self.plan.partitions,
            brokers: Arc::clone(&self.brokers),
            history: Arc::clone(&self.history),
            random: StdRng::seed_from_u64(self.random.random()),
            sequences: BTreeMap::new(),
            sent: 0,
        }
    }

    /// Reads everything back through a broker that has seen nothing yet, and checks the history.
    async fn judge(mut self) -> Report {
        let engine = self.start_broker(false).await.engine;
        let found = self.read_all(&engine.reader).await;
        check(self.plan.seed, &self.history.lock().unwrap().sent, &found);
        if self.plan.moves {
            settle(self.plan.seed, &self.objects, &engine, SETTLE_MAX).await;
            assert_eq!(self.read_all(&engine.reader).await, found, "seed {}", self.plan.seed);
        }
        let trimmed = match self.log.read(Lsn::ZERO, NonZeroUsize::MIN, Freshness::Latest).await {
            Ok(LogRead::Trimmed(floor)) => floor.prev().get(),
            other => panic!("there is no entry 0: {other:?}"),
        };
        let history = self.history.lock().unwrap();
        let (merged, inline) = engine.machine.read(|state| {
            let segments = || state.segments().referenced().values();
            let merged = segments().filter(|it| it.level > 0).count();
            (merged, segments().filter(|it| it.inline.is_some()).count())
        });
        Report {
            trace: history.trace.clone(),
            acknowledged: history.sent.iter().filter(|it| it.acknowledged.is_some()).count(),
            unknown: history.sent.iter().filter(|it| it.acknowledged.is_none()).count(),
            kills: self.kills,
            compared: self.digests.compared(),
            merged,
            inline,
            trimmed,
        }
    }

    async fn read_all(&self, reader: &Reader) -> BTreeMap<TopicPartition, Vec<(i64, Bytes)>> {
        let mut found: BTreeMap<TopicPartition, Vec<(i64, Bytes)>> = BTreeMap::new();
        for partition in 0..self.plan.partitions {
            let partition =
                TopicPartition { topic: TOPIC, partition: i32::try_from(partition).unwrap() };
            let records = found.entry(partition).or_default();
            loop {
                let offset = Offset(records.last().map_or(0, |(offset, _)| offset + 1));
                let target = FetchTarget { partition, offset, bytes_max: 10_000 };
                let plan = reader.plan(&[target], 10_000, Isolation::ReadUncommitted);
                let fetched = reader.fetch(plan).await.remove(0).unwrap();
                if fetched.records_bytes == 0 {
                    assert_eq!(offset, fetched.watermarks.high_watermark);
                    break;
                }
                let read = read_records(fetched.records.concat().into());
                records.extend(read.into_iter().map(|it| (it.offset, it.value)));
            }
        }
        found
    }
}

/// Waits until the store holds what the state refers to, and nothing else (C1) but what is
/// [`kept_for_starts`].
pub(crate) async fn settle(
    seed: u64,
    objects: &MemoryObjectStore,
    engine: &Engine,
    within: Duration,
) {
    let deadline = Instant::now() + within;
    loop {
        let most = NonZeroUsize::new(100_000).unwrap();
        let listed = objects.list(SegmentId::PREFIX, None, most).await.unwrap();
        let stored: BTreeSet<ObjectKey> = listed.into_iter().map(|it| it.key).collect();
        let referenced: BTreeSet<ObjectKey> = engine.machine.read(|state| {
            let segments = state.segments().referenced().iter();
            segments.filter(|(_, it)| it.inline.is_none()).map(|(id, _)| id.key()).collect()
        });
        let missing: Vec<_> = referenced.difference(&stored).collect();
        assert!(missing.is_empty(), "seed {seed}: the store has lost {missing:?}");
        let kept = kept_for_starts(objects, engine).await;
        let left: Vec<_> = stored.difference(&referenced).filter(|it| !kept.contains(it)).collect();
        if left.is_empty() {
            return;
        }
        assert!(Instant::now() < deadline, "seed {seed}: nobody sweeps {left:?}");
        sleep(Duration::from_millis(500)).await;
    }
}

/// Segments that nothing refers to, and whose footers a start from the second newest snapshot would
/// have to read.
pub(crate) async fn kept_for_starts(
    objects: &MemoryObjectStore,
    engine: &Engine,
) -> BTreeSet<ObjectKey> {
    let most = NonZeroUsize::new(100_000).unwrap();
    let snapshots = objects.list(SNAPSHOT_PREFIX, None, most).await.unwrap();
    let second = snapshots.iter().rev().filter_map(|it| snapshot_lsn(&it.key)).nth(1);
    engine.machine.read(|state| {
        let waiting = state.segments().unreferenced().iter();
        let is_kept = |it: &Unreferenced| it.by_footer && Some(it.since) > second;
        waiting.filter(|(_, it)| is_kept(it)).map(|(id, _)| id.key()).collect()
    })
}

/// The rules, on what was sent and what was found.
pub(crate) fn check(seed: u64, sent: &[Sent], found: &BTreeMap<TopicPartition, Vec<(i64, Bytes)>>) {
    let mut places: BTreeMap<&Bytes, Vec<(TopicPartition, i64)>> = BTreeMap::new();
    for (partition, records) in found {
        for (at, (offset, value)) in records.iter().enumerate() {
            assert_eq!(usize::try_from(*offset).unwrap(), at, "seed {seed}: offsets have a gap");
            places.entry(value).or_default().push((*partition, *offset));
        }
    }
    let mut newest: BTreeMap<(TopicPartition, &str), i64> = BTreeMap::new();
    for record in sent {
        let text = str::from_utf8(&record.value).unwrap();
        let found = places.remove(&record.value).unwrap_or_default();
        assert!(
            found.iter().all(|(partition, _)| *partition == record.partition),
            "seed {seed}: {text} is in another partition"
        );
        if let Some(offset) = record.acknowledged {
            let there = found.contains(&(record.partition, offset));
            assert!(there, "seed {seed}: {text} was acknowledged at {offset}, found {found:?}");
        }
        if record.only_once {
            assert!(found.len() <= 1, "seed {seed}: {text} is there {} times", found.len());
        }
        if let (Some(offset), Some((producer, _))) = (record.acknowledged, text.split_once('/')) {
            let last = newest.insert((record.partition, producer), offset);
            assert!(last < Some(offset), "seed {seed}: {text} at {offset} is before {last:?}");
        }
    }
    assert!(places.is_empty(), "seed {seed}: nobody sent {places:?}");
}

struct Producer {
    number: usize,
    end: Instant,
    idempotent: bool,
    partitions: u32,
    brokers: Arc<Mutex<Vec<Running>>>,
    history: Arc<Mutex<History>>,
    random: StdRng,
    sequences: BTreeMap<i32, i32>,
    sent: usize,
}

impl Producer {
    async fn run(mut self) {
        while Instant::now() < self.end {
            if self.idempotent {
                self.send_until_acknowledged().await;
            } else {
                self.send_several_at_once().await;
            }
            sleep(self.random.random_range(Duration::ZERO..Duration::from_millis(60))).await;
        }
    }

    fn engine(&mut self) -> Option<Engine> {
        let brokers = self.brokers.lock().unwrap();
        let place = self.random.random_range(0..brokers.len().max(1));
        brokers.get(place).map(|broker| broker.engine.clone())
    }

    fn new_record(&mut self) -> (TopicPartition, Bytes) {
        let count = i32::try_from(self.partitions).unwrap();
        let partition = self.random.random_range(0..count);
        self.sent += 1;
        let value = Bytes::from(format!("{}/{}", self.number, self.sent));
        (TopicPartition { topic: TOPIC, partition }, value)
    }

    fn note(&self, partition: TopicPartition, value: Bytes, acknowledged: Option<i64>) {
        let mut history = self.history.lock().unwrap();
        history.say(format!("{} -> {acknowledged:?}", str::from_utf8(&value).unwrap()));
        history.sent.push(Sent { partition, value, acknowledged, only_once: true });
    }

    /// As an idempotent client does: the same batch again and again, on whatever broker, until it
    /// is acknowledged.
    async fn send_until_acknowledged(&mut self) {
        let (partition, value) = self.new_record();
        let sequence = self.sequences.entry(partition.partition).or_default();
        let first = *sequence;
        *sequence += 1;
        let producer = (i64::try_from(self.number).unwrap(), 0, first);
        loop {
            let batch = batch(&value, producer);
            if let Some(Ok(appended)) = self.append(vec![(partition, batch)]).await.pop() {
                self.note(partition, value, Some(appended.base_offset.0));
                return;
            }
            sleep(Duration::from_millis(20)).await;
        }
    }

    /// As a client without idempotence and with several requests in flight: each is sent once.
    async fn send_several_at_once(&mut self) {
        let (partition, _) = self.new_record();
        let Some(engine) = self.engine() else { return };
        let mut underway = Vec::new();
        for _ in 0..3 {
            let (_, value) = self.new_record();
            let batches = vec![(partition, batch(&value, (-1, -1, -1)))];
            let appending = engine.writer.append(batches).await;
            underway.push((value, appending));
            // So that they come to lie in several segments, now and then.
            sleep(self.random.random_range(Duration::ZERO..Duration::from_millis(40))).await;
        }
        for (value, appending) in underway {
            let appended = match appending {
                Ok(appending) => timeout(Duration::from_secs(5), appending).await.ok(),
                Err(error) => Some(vec![Err(error)]),
            };
            match appended.and_then(|mut it| it.pop()) {
                Some(Ok(appended)) => self.note(partition, value, Some(appended.base_offset.0)),
                // Certainly not in the log: as if it had not been sent.
                Some(Err(AppendError::NotStored(_) | AppendError::Rejected(_))) => {}
                Some(Err(AppendError::Unknown | AppendError::Stopped)) | None => {
                    self.note(partition, value, None);
                }
            }
        }
    }

    async fn append(
        &mut self,
        batches: Vec<(TopicPartition, PendingBatch)>,
    ) -> Vec<Result<Appended, AppendError>> {
        let Some(engine) = self.engine() else { return Vec::new() };
        let Ok(appending) = engine.writer.append(batches).await else { return Vec::new() };
        timeout(Duration::from_secs(2), appending).await.unwrap_or_default()
    }
}

/// A batch of one record, ready for the writer.
pub fn batch(value: &Bytes, producer: (i64, i16, i32)) -> PendingBatch {
    let (id, epoch, base_sequence) = producer;
    let bytes = BatchSpec::of([value.clone()]).by(id, epoch, base_sequence).encode();
    let summary = BatchSummary {
        bytes: u32::try_from(bytes.len()).unwrap(),
        records: 1,
        max_timestamp: 1_700_000_000_000,
        producer: (id >= 0).then_some(BatchProducer {
            id: ProducerId(id),
            epoch,
            base_sequence,
            transaction: BatchTransaction::None,
        }),
    };
    PendingBatch { bytes, summary, compressed: false }
}

/// The ports of a world of one's own.
pub fn ports(objects: Arc<dyn ObjectStore>, log: Arc<dyn MetadataLog>) -> Ports {
    let clock = Arc::new(ManualClock::new(1_700_000_000_000));
    Ports { objects, log, clock, peers: Arc::new(NoPeers) }
}

impl std::fmt::Debug for World {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("World").field("plan", &self.plan).finish_non_exhaustive()
    }
}
