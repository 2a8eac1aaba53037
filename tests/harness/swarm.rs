//! The swarm: whole clusters, with all that a broker is but its sockets, on paused time, from a
//! seed.
//!
//! Brokers are the real ones from the connection down: clients speak the Kafka protocol to them,
//! through pipes ([`net`]). Store, log, clocks and the ways between all of them go wrong as the
//! catalogue of faults has it ([`fault`]); each seed draws some kinds of it and how bad they are
//! ([`plan`]), and lets them act in windows, a quarter of which are quiet ([`weather`]). Producers,
//! transactions, pipelines, members of a group, readers and operators work all the time. Then
//! everything is healed, has a minute of simulated time to come to the end, and is judged
//! ([`judge`]) by the rules that the other worlds have: [`crate::world`], [`crate::transactions`],
//! [`crate::groups`].
//!
//! A plan that fails is made smaller by [`shrink`].

use std::cell::Cell;
use std::collections::BTreeMap;
use std::num::NonZeroUsize;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::{Arc, Mutex, MutexGuard, Once, PoisonError};
use std::time::Duration;

use kafka_protocol::messages::CreateTopicsRequest;
use kafka_protocol::messages::create_topics_request::{CreatableTopic, CreatableTopicConfig};
use kafka_protocol::protocol::StrBytes;
use odradek_protocol::id::{TopicId, TopicPartition};
use odradek_storage::clock::ManualClock;
use odradek_storage::log::memory::MemoryLog;
use odradek_storage::object::memory::MemoryObjectStore;
use odradek_storage::peer::memory::MemoryPeers;
use tokio::task::{AbortHandle, JoinHandle};
use tokio::time::{Instant, sleep};

mod asker;
mod conditions;
pub mod ends;
pub mod fault;
mod judge;
mod member;
mod net;
mod operator;
pub mod outages;
pub mod plan;
mod producer;
mod reader;
pub mod shrink;
mod site;
mod transactor;
mod weather;

use asker::Asker;
use conditions::Condition;
use member::Member;
use net::Net;
use operator::Operator;
pub use plan::Plan;
use producer::Producer;
use reader::Reader;
use site::{FaultyPorts, Running};
use transactor::{Transactor, Work};

use crate::client::topic;
use crate::digests::Digests;
use crate::groups::history::History;
use crate::groups::paused;
use crate::transactions::ledger::Ledger;
use crate::transactions::reader::watch_one;
use crate::world::Sent;

/// When the world begins, in milliseconds since the Unix epoch.
const START_MS: i64 = 1_700_000_000_000;

/// How long a healed world may take to come to the end.
const CONVERGE_MAX: Duration = Duration::from_secs(60);

/// How often somebody looks whether something is so.
const POLL: Duration = Duration::from_millis(50);

const ALL: NonZeroUsize = NonZeroUsize::new(1_000_000).unwrap();

/// What a world came to.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Report {
    /// What happened, event by event, with the simulated time.
    pub trace: Vec<String>,
    /// Rules that were broken.
    pub violations: Vec<String>,
    /// Records outside of transactions that were acknowledged.
    pub acknowledged: usize,
    /// Of these those that idempotent producers sent.
    pub acknowledged_once: usize,
    /// Records that were sent, of which that is not known.
    pub unknown: usize,
    /// Transactions.
    pub transactions: usize,
    /// Calls of members that were done.
    pub calls: usize,
    /// Brokers that were started.
    pub started: u64,
    /// Brokers that were killed.
    pub kills: usize,
    /// Positions at which digests of several brokers were compared.
    pub compared: usize,
    /// How long it took, in simulated time.
    pub lived: Duration,
    /// How long that was after everything was healed.
    pub converged_after: Duration,
}

impl Report {
    /// A number that stands for all that happened.
    pub fn hash(&self) -> u32 {
        self.trace.iter().fold(0, |hash, line| crc32c::crc32c_append(hash, line.as_bytes()))
    }
}

/// One world while it runs. Clones are the same.
#[derive(Clone)]
struct World {
    plan: Arc<Plan>,
    objects: MemoryObjectStore,
    log: MemoryLog,
    peers: MemoryPeers,
    net: Net,
    /// The right time.
    clock: Arc<ManualClock>,
    digests: Digests,
    ledger: Ledger,
    calls: History,
    began: Instant,
    /// When things stop going wrong.
    end: Instant,
    shared: Arc<Mutex<Shared>>,
}

/// What changes.
#[derive(Default)]
struct Shared {
    brokers: Vec<Running>,
    /// The ports of all brokers that ever were, with their places.
    ports: Vec<(u64, FaultyPorts)>,
    clocks: BTreeMap<u64, Arc<ManualClock>>,
    conditions: Vec<Condition>,
    topics: BTreeMap<String, TopicId>,
    sent: Vec<Option<Sent>>,
    /// Where each partition is known to end, at least.
    ends: BTreeMap<TopicPartition, i64>,
    /// Where each broker has said that it ends.
    shown_ends: BTreeMap<(u64, TopicPartition), i64>,
    starting: Vec<JoinHandle<()>>,
    /// Those who write what pipelines read.
    feeders: Vec<AbortHandle>,
    started: u64,
    places: u64,
    kills: usize,
    slow: f64,
    breaks: f64,
    is_drained: bool,
    /// Whether brokers may have to stop, and stay so.
    may_halt: bool,
    /// What those said that did.
    halts: Vec<String>,
    violations: Vec<String>,
}

thread_local! {
    /// Panics on this thread: tasks swallow theirs.
    static PANICS: Cell<usize> = const { Cell::new(0) };
}

/// Counts panics, of whatever task, from now on.
fn count_panics() {
    static ONCE: Once = Once::new();
    ONCE.call_once(|| {
        let usual = std::panic::take_hook();
        std::panic::set_hook(Box::new(move |info| {
            PANICS.set(PANICS.get() + 1);
            usual(info);
        }));
    });
}

/// Runs a world from beginning to end. What goes wrong, panics of tasks included, stands in the
/// report.
pub fn run(plan: Plan) -> Report {
    count_panics();
    let before = PANICS.get();
    let held: Arc<Mutex<Option<World>>> = Arc::default();
    let keeps = Arc::clone(&held);
    let lived = catch_unwind(AssertUnwindSafe(|| {
        paused(async move {
            let world = World::new(plan);
            *keeps.lock().unwrap() = Some(world.clone());
            world.live().await
        })
    }));
    let world = held.lock().unwrap().take();
    let mut report = match (lived, world) {
        (Ok(report), _) => report,
        (Err(_), Some(world)) => world.report(Duration::ZERO, Duration::ZERO),
        (Err(_), None) => Report::default(),
    };
    let panics = PANICS.get() - before;
    if panics > 0 {
        report.violations.push(format!("{panics} tasks panicked"));
    }
    report
}

impl World {
    fn new(plan: Plan) -> Self {
        let peers = MemoryPeers::new(plan.seed ^ 3, 0.02, Duration::from_millis(20));
        let began = Instant::now();
        let shared = Shared { places: 100, ..Shared::default() };
        Self {
            objects: MemoryObjectStore::default(),
            log: MemoryLog::default(),
            peers,
            net: Net::default(),
            clock: Arc::new(ManualClock::new(START_MS)),
            digests: Digests::default(),
            ledger: Ledger::default(),
            calls: History::default(),
            began,
            end: began + plan.duration,
            shared: Arc::new(Mutex::new(shared)),
            plan: Arc::new(plan),
        }
    }

    /// Starts the brokers, and creates the topics.
    async fn begin(&self) {
        for place in 1..=self.plan.brokers {
            self.start_broker(place, None).await;
        }
        for name in self.names().into_iter().chain([judge::LAST.to_owned()]) {
            self.create_topic(&name).await;
        }
    }

    async fn live(self) -> Report {
        self.begin().await;
        let mut clients = self.clients();
        let watching = tokio::spawn(self.clone().watch());
        for fault in self.plan.faults.clone() {
            clients.push(tokio::spawn(self.clone().inflict(fault)));
        }
        sleep(self.end - Instant::now()).await;
        self.heal();
        self.finish(clients, watching).await
    }

    /// Comes to the end of a healed world.
    async fn finish(self, clients: Vec<JoinHandle<()>>, watching: JoinHandle<()>) -> Report {
        let healed = Instant::now();
        self.complete().await;
        self.drain().await;
        let converged_after = healed.elapsed();
        for client in clients {
            // What panicked is counted.
            drop(tokio::time::timeout(CONVERGE_MAX, client).await.map_err(|_| {
                self.accuse("a client does not come to the end".to_owned());
            }));
        }
        watching.abort();
        self.judge().await;
        self.report(self.began.elapsed(), converged_after)
    }

    fn lock(&self) -> MutexGuard<'_, Shared> {
        // After a panic others only make noise.
        self.shared.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn say(&self, what: &str) {
        self.ledger.say(what);
    }

    fn accuse(&self, how: String) {
        self.say(&format!("BROKEN: {how}"));
        self.lock().violations.push(how);
    }

    /// The topics of the world.
    fn names(&self) -> Vec<String> {
        [producer::TOPIC, transactor::INPUT, transactor::OUTPUT].map(str::to_owned).to_vec()
    }

    fn topic(&self, name: &str) -> TopicId {
        self.lock().topics[name]
    }

    /// How many pipelines there are: one for a partition at most.
    fn pipelines(&self) -> i32 {
        i32::try_from(self.plan.clients.pipelines).unwrap().min(self.plan.partitions)
    }

    async fn create_topic(&self, name: &str) {
        let mut asker = Asker::new(self.net.clone(), self.plan.seed ^ 77, self.began);
        // In minutes no wrong clock may expire anything. In hours it happens that all clocks are a
        // year ahead while brokers start: the oldest records are due then by all that they know.
        let kept = CreatableTopicConfig::default()
            .with_name(StrBytes::from_static_str("retention.ms"))
            .with_value(Some(StrBytes::from_static_str("-1")));
        let new = CreatableTopic::default()
            .with_name(topic(name))
            .with_num_partitions(self.plan.partitions)
            .with_replication_factor(1)
            .with_configs(if self.plan.stretch > 1 { vec![kept] } else { vec![] });
        let request = CreateTopicsRequest::default().with_topics(vec![new]).with_timeout_ms(10_000);
        let answer = asker.ask(&site::host(1), 7, &request).await.unwrap();
        assert_eq!(answer.topics[0].error_code, 0);
        let id = TopicId(answer.topics[0].topic_id);
        self.lock().topics.insert(name.to_owned(), id);
    }

    fn clients(&self) -> Vec<JoinHandle<()>> {
        let plan::Clients { producers, transactional, members, readers, operators, .. } =
            self.plan.clients;
        let mut number = 0;
        let mut asker = || {
            number += 1;
            Asker::of(self, number)
        };
        let world = || self.clone();
        let mut clients = Vec::new();
        for number in 0..producers {
            clients.push(tokio::spawn(Producer::new(world(), asker(), number).run()));
        }
        for number in 0..transactional {
            let id = format!("feeder-{number}");
            let feeder = tokio::spawn(Transactor::new(world(), asker(), id, Work::Feed).run());
            self.lock().feeders.push(feeder.abort_handle());
            clients.push(feeder);
        }
        for partition in 0..self.pipelines() {
            let (id, work) = (format!("pipeline-{partition}"), Work::Copy { partition });
            clients.push(tokio::spawn(Transactor::new(world(), asker(), id, work).run()));
        }
        for _ in 0..members {
            clients.push(tokio::spawn(Member::new(world(), asker()).run()));
        }
        for number in 0..readers {
            let name = format!("reader-{number}");
            let reader = Reader { world: world(), asker: asker(), name };
            clients.push(tokio::spawn(reader.run()));
        }
        for _ in 0..operators {
            clients.push(tokio::spawn(Operator { world: world(), asker: asker() }.run()));
        }
        clients
    }

    /// Looks at all brokers: what they say is stable stays so, and nothing in it is open; where
    /// they say that a partition ends, it does not end earlier later.
    async fn watch(self) {
        let topics: Vec<TopicId> = self.names().iter().map(|name| self.topic(name)).collect();
        let of = |topic: TopicId| {
            (0..self.plan.partitions).map(move |partition| TopicPartition { topic, partition })
        };
        let partitions: Vec<TopicPartition> = topics.into_iter().flat_map(of).collect();
        loop {
            sleep(self.plan.stretched(POLL)).await;
            let mut fell = Vec::new();
            let shared = &mut *self.lock();
            for broker in &shared.brokers {
                broker.engine.machine.read(|state| {
                    watch_one(broker.number, state, &self.ledger, &partitions);
                    for partition in &partitions {
                        let end = state.partition(*partition).map_or(0, |it| it.high_watermark.0);
                        let key = (broker.number, *partition);
                        let before = shared.shown_ends.insert(key, end).unwrap_or(0);
                        if before > end {
                            fell.push(format!("broker {key:?}: it ends at {end}, was {before}"));
                        }
                    }
                });
            }
            shared.violations.extend(fell);
        }
    }

    /// Where a partition is known to end, at least.
    fn known_end(&self, partition: TopicPartition) -> i64 {
        self.lock().ends.get(&partition).copied().unwrap_or(0)
    }

    fn know_end(&self, partition: TopicPartition, end: i64) {
        let mut shared = self.lock();
        let known = shared.ends.entry(partition).or_default();
        *known = end.max(*known);
    }

    /// Starts a broker aside, which may take as long as things go wrong.
    fn spawn_broker(&self, place: u64, copied: Option<u64>) {
        let world = self.clone();
        let starting = tokio::spawn(async move { world.start_broker(place, copied).await });
        self.lock().starting.push(starting);
    }

    /// Has as many brokers as there are to be, once those have started that were about to.
    async fn complete(&self) {
        loop {
            let starting = std::mem::take(&mut self.lock().starting);
            if starting.is_empty() {
                break;
            }
            for broker in starting {
                drop(broker.await);
            }
        }
        while self.lock().brokers.len() < usize::try_from(self.plan.brokers).unwrap() {
            let place = self.new_place();
            self.start_broker(place, None).await;
        }
    }

    fn report(&self, lived: Duration, converged_after: Duration) -> Report {
        let mut trace = self.ledger.trace();
        trace.extend(self.calls.trace());
        trace.sort_by_key(|line| line[..8].trim_start().parse::<u64>().unwrap());
        let calls = self.calls.calls();
        let shared = self.lock();
        let sent = || shared.sent.iter().flatten();
        let acknowledged = sent().filter(|it| it.acknowledged.is_some()).count();
        let once = sent().filter(|it| it.acknowledged.is_some() && it.only_once).count();
        Report {
            trace,
            violations: shared.violations.clone(),
            acknowledged,
            acknowledged_once: once,
            unknown: sent().count() - acknowledged,
            transactions: self.ledger.transactions().len(),
            calls: calls.iter().filter(|call| call.is_done).count(),
            started: shared.started,
            kills: shared.kills,
            compared: self.digests.compared(),
            lived,
            converged_after,
        }
    }
}
