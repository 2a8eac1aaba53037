//! Simulated transactions: producers and pipelines of both protocols, over brokers that crash,
//! stand still and lose their log.
//!
//! Brokers, groups and what happens to them are those of [`crate::groups`]. Feeders write to what
//! groups read; each group's pipelines copy that to a topic of its own, in transactions that take
//! the group's positions with them. Readers look at everything all the time. When the time is over
//! nothing goes wrong any more: pipelines come to the end, what was left open times out, everything
//! is read once more from every broker, and [`rules`] judges.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use odradek_protocol::id::{TopicId, TopicPartition};
use odradek_storage::command::{Command, Outcome};
use odradek_storage::reader::Isolation;
use odradek_storage::state::State;
use rand::rngs::StdRng;
use rand::{Rng, SeedableRng};
use tokio::task::JoinHandle;
use tokio::time::{Instant, sleep, timeout_at};
use uuid::Uuid;

pub mod consumer;
pub mod feeder;
pub mod ledger;
pub mod network;
pub mod pipeline;
pub mod producer;
pub mod reader;
pub mod rules;
pub mod verdict;

use consumer::{Chunk, fetch};
use feeder::Feeder;
use ledger::{Ending, Ledger, Violation};
use network::{Mischief, Network};
use pipeline::{Pipeline, Share};
use producer::{Producer, Protocol};
use reader::Reader;

use crate::groups::broker::Broker;
use crate::groups::{self, World, group_name, paused, topic};

/// How long pipelines may take to come to the end, once nothing goes wrong any more.
const DRAINING_MAX: Duration = Duration::from_secs(300);

/// Longest time after which another producer comes for one that went.
const AWAY_MAX: Duration = Duration::from_secs(3);

/// Longest time for which a producer lives on beside the one that has taken its place.
const GHOST_MAX: Duration = Duration::from_secs(20);

/// What a world is like.
#[derive(Clone, Debug)]
pub struct Plan {
    /// Its brokers, and its groups: those with members know their partitions from them, for others
    /// there are so many pipelines that share them out.
    pub world: groups::Plan,
    /// What the pipelines of each group are like.
    pub pipelines: Vec<Copies>,
    /// What those who feed them speak.
    pub feeders: Vec<Protocol>,
    /// How long a transaction may last.
    pub timeout: Duration,
    /// What goes wrong between clients and brokers, and with clients.
    pub mischief: Mischief,
    /// How long a producer lives, on average; zero for ever.
    pub life: Duration,
    /// Longest time between two transactions of a feeder.
    pub pause_max: Duration,
}

/// The pipelines of a group.
#[derive(Clone, Copy, Debug)]
pub struct Copies {
    /// How many there are, if its group has no members; else there is one for each.
    pub count: usize,
    /// What they speak.
    pub protocol: Protocol,
    /// How many partitions they write to.
    pub partitions: u32,
}

/// What a world came to.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Report {
    /// What happened, with the simulated time.
    pub trace: Vec<String>,
    /// Transactions that were committed, that were aborted, and of which that was never known.
    pub endings: [usize; 3],
    /// Records that are there in the end.
    pub records: usize,
    /// Positions at which digests of several brokers were compared.
    pub compared: usize,
    /// How long it took until pipelines had come to the end.
    pub drained_after: Duration,
    /// Rules that were broken.
    pub violations: Vec<Violation>,
}

/// Runs a world from beginning to end.
///
/// # Panics
///
/// If brokers differ, or pipelines do not come to the end; the seed stands in the message.
pub fn run(plan: Plan) -> Report {
    paused(async move {
        let mut stage = Stage::begin(plan).await;
        stage.world.set_faults(true);
        while Instant::now() < stage.world.end() {
            stage.world.let_something_happen().await;
        }
        stage.world.set_faults(false);
        stage.world.complete().await;
        let began = Instant::now();
        let reached = stage.drain().await;
        let drained_after = began.elapsed();
        if reached {
            stage.judge().await;
        }
        stage.report(drained_after)
    })
}

/// A world with its producers and readers.
struct Stage {
    plan: Plan,
    world: World,
    ledger: Ledger,
    random: StdRng,
    stops: Arc<AtomicBool>,
    feeders: Vec<JoinHandle<()>>,
    records: usize,
}

impl Stage {
    async fn begin(plan: Plan) -> Self {
        let mut stage = Self {
            world: World::begin(plan.world.clone()).await,
            ledger: Ledger::default(),
            random: StdRng::seed_from_u64(plan.world.seed ^ 77),
            stops: Arc::default(),
            feeders: Vec::new(),
            records: 0,
            plan,
        };
        for number in 0..stage.plan.pipelines.len() {
            stage.create_output(number).await;
        }
        for number in 0..stage.plan.pipelines.len() {
            stage.spawn_pipelines(number);
        }
        for (number, protocol) in stage.plan.feeders.clone().into_iter().enumerate() {
            let id = format!("feeder-{number}");
            let feeder = stage.spawn(Lives { id, protocol, work: Work::Feed(stage.inputs()) });
            stage.feeders.push(feeder);
        }
        for number in 0..4 {
            let isolations = [Isolation::ReadCommitted, Isolation::ReadUncommitted];
            let isolation = isolations[number / 3];
            let reader = Reader {
                network: stage.network(),
                ledger: stage.ledger.clone(),
                name: format!("reader-{number} {isolation:?}"),
                isolation,
                partitions: stage.partitions(),
            };
            tokio::spawn(reader.work());
        }
        let (brokers, ledger) = (Arc::clone(stage.world.brokers()), stage.ledger.clone());
        tokio::spawn(reader::watch(brokers, ledger, stage.partitions()));
        stage
    }

    async fn create_output(&self, number: usize) {
        let create = Command::CreateTopic {
            topic: output(number),
            name: format!("output-{number}"),
            partitions: self.plan.pipelines[number].partitions,
            replication_factor: 1,
            configs: BTreeMap::new(),
        };
        let engine = self.world.brokers().lock().unwrap()[0].engine.clone();
        assert_eq!(engine.machine.propose(create).await, Ok(Outcome::Done));
    }

    fn inputs(&self) -> Vec<(TopicId, u32)> {
        let groups = self.plan.world.groups.iter().enumerate();
        groups.map(|(number, group)| (topic(number), group.partitions)).collect()
    }

    fn outputs(&self) -> Vec<(TopicId, u32)> {
        let pipelines = self.plan.pipelines.iter().enumerate();
        pipelines.map(|(number, it)| (output(number), it.partitions)).collect()
    }

    fn partitions(&self) -> Vec<TopicPartition> {
        let topics = self.inputs().into_iter().chain(self.outputs());
        topics.flat_map(|(topic, count)| partitions_of(topic, count)).collect()
    }

    fn network(&mut self) -> Network {
        Network {
            brokers: Arc::clone(self.world.brokers()),
            random: StdRng::seed_from_u64(self.random.random()),
            mischief: self.plan.mischief.clone(),
            end: self.world.end(),
            may_be_late: true,
        }
    }

    fn spawn_pipelines(&mut self, number: usize) {
        let group = self.plan.world.groups[number].clone();
        let Copies { count, protocol, partitions } = self.plan.pipelines[number];
        let count = if group.members == 0 { count } else { group.members };
        for place in 0..count {
            let name = group_name(number);
            let share = if group.members == 0 {
                Share::Fixed { first: place, of: count, partitions: group.partitions }
            } else {
                let is_static = place < group.static_members;
                let instance = is_static.then(|| format!("{name}-{place}"));
                Share::Member { history: self.world.history().clone(), place, instance }
            };
            let work = Work::Copy {
                group: name,
                share,
                input: topic(number),
                output: (output(number), partitions),
            };
            self.spawn(Lives { id: format!("pipeline-{number}-{place}"), protocol, work });
        }
    }

    fn spawn(&mut self, lives: Lives) -> JoinHandle<()> {
        let setting = Setting {
            network: self.network(),
            ledger: self.ledger.clone(),
            timeout: self.plan.timeout,
            life: self.plan.life,
            pause_max: self.plan.pause_max,
            stops: Arc::clone(&self.stops),
        };
        tokio::spawn(lives.run(setting))
    }

    /// Waits until pipelines have come to the end, and nothing is open any more.
    async fn drain(&self) -> bool {
        if !self.settle().await {
            return false;
        }
        self.stops.store(true, Ordering::Relaxed);
        // Who is at work ends it. A broker that was stopped until now carries out what it had read
        // before, and may open a transaction that nobody ends before its time is over.
        sleep(Duration::from_secs(30)).await;
        self.settle().await
    }

    /// Waits until nothing is left to be done.
    async fn settle(&self) -> bool {
        let limit = Instant::now() + DRAINING_MAX;
        let mut left = self.left().await;
        while let Some(what) = left {
            if Instant::now() > limit {
                self.ledger.accuse("L1", format!("nothing goes on: {what}"));
                return false;
            }
            sleep(Duration::from_millis(500)).await;
            left = self.left().await;
        }
        true
    }

    /// What is left to be done, if anything is.
    async fn left(&self) -> Option<String> {
        if self.feeders.iter().any(|feeder| !feeder.is_finished()) {
            return Some("a feeder is at work".to_owned());
        }
        let brokers = self.world.brokers().lock().unwrap().clone();
        if brokers.iter().any(Broker::is_stopped) {
            return Some("a broker is stopped".to_owned());
        }
        let broker = brokers[0].clone();
        if broker.engine.machine.barrier().await.is_err() {
            return Some("no broker reaches the log".to_owned());
        }
        let open =
            |state: &State| state.transactions().ongoing().next().map(|it| format!("{it:?}"));
        if let Some(open) = broker.engine.machine.read(open) {
            return Some(open);
        }
        for (number, (topic, count)) in self.inputs().into_iter().enumerate() {
            for partition in partitions_of(topic, count) {
                let position = position(&broker, &group_name(number), partition);
                let rest = read_all(&broker, partition, position).await;
                if !rest.records.is_empty() {
                    return Some(format!("{partition} is read up to {position}"));
                }
            }
        }
        None
    }

    /// Reads everything from everybody, and from a broker that has seen nothing yet.
    async fn judge(&mut self) {
        self.world.start_broker(999).await;
        let brokers = self.world.brokers().lock().unwrap().clone();
        let mut outcome = rules::Outcome::default();
        for broker in &brokers {
            // Some may still be cut off from the log.
            while broker.engine.machine.barrier().await.is_err() {
                sleep(Duration::from_secs(1)).await;
            }
            let mut shown = BTreeMap::new();
            for partition in self.partitions() {
                shown.insert(partition, read_all(broker, partition, 0).await);
            }
            outcome.shown.push(shown);
        }
        let last = brokers.last().unwrap();
        for partition in self.partitions() {
            outcome.log.insert(partition, consumer::log(&last.engine, partition).await);
        }
        for (number, (input, count)) in self.inputs().into_iter().enumerate() {
            let group = group_name(number);
            let input = partitions_of(input, count).map(|it| (it, position(last, &group, it)));
            let (output, count) = self.outputs()[number];
            let output = partitions_of(output, count).collect();
            let input = input.collect();
            outcome.groups.push(rules::Copying { group, input, output });
        }
        self.records = outcome.shown[0].values().map(|chunk| chunk.records.len()).sum();
        rules::check(&self.ledger, &outcome);
    }

    fn report(&self, drained_after: Duration) -> Report {
        let transactions = self.ledger.transactions();
        let count = |endings: &[Ending]| {
            transactions.iter().filter(|it| endings.contains(&it.ending)).count()
        };
        let mut trace = self.world.history().trace();
        trace.extend(self.ledger.trace());
        trace.sort_by_key(|line| line[..8].trim_start().parse::<u64>().unwrap());
        let mut violations = self.ledger.violations();
        let broken = groups::rules::check(&self.world.history().calls());
        violations.extend(broken.into_iter().map(|it| Violation { rule: it.rule, how: it.how }));
        Report {
            trace,
            endings: [
                count(&[Ending::Committed]),
                count(&[Ending::Aborted, Ending::Unasked]),
                count(&[Ending::Unknown]),
            ],
            records: self.records,
            compared: self.world.compared(),
            drained_after,
            violations,
        }
    }
}

fn output(number: usize) -> TopicId {
    TopicId(Uuid::from_u128(200 + u128::try_from(number).unwrap()))
}

fn partitions_of(topic: TopicId, count: u32) -> impl Iterator<Item = TopicPartition> {
    (0..i32::try_from(count).unwrap()).map(move |partition| TopicPartition { topic, partition })
}

fn position(broker: &Broker, group: &str, partition: TopicPartition) -> i64 {
    broker.engine.machine.read(|state| {
        let positions = state.groups().positions(group);
        positions.and_then(|it| it.get(&partition)).map_or(0, |it| it.offset.0)
    })
}

/// All that is committed in a partition from an offset on.
async fn read_all(broker: &Broker, partition: TopicPartition, from: i64) -> Chunk {
    let isolation = Isolation::ReadCommitted;
    let mut all = fetch(&broker.engine, (partition, from), 10_000, isolation).await.unwrap();
    while all.next < all.watermarks.last_stable_offset.0 {
        let next = fetch(&broker.engine, (partition, all.next), 10_000, isolation).await.unwrap();
        all.next = next.next;
        all.records.extend(next.records);
    }
    all
}

/// What producers of a world have in common.
struct Setting {
    network: Network,
    ledger: Ledger,
    timeout: Duration,
    life: Duration,
    pause_max: Duration,
    stops: Arc<AtomicBool>,
}

/// Those who use a transactional id in turn, and now and then two at a time.
struct Lives {
    id: String,
    protocol: Protocol,
    work: Work,
}

enum Work {
    Feed(Vec<(TopicId, u32)>),
    Copy { group: String, share: Share, input: TopicId, output: (TopicId, u32) },
}

impl Lives {
    async fn run(self, mut setting: Setting) {
        let end = setting.network.end;
        for instance in 1.. {
            if setting.stops.load(Ordering::Relaxed)
                || (matches!(self.work, Work::Feed(_)) && Instant::now() >= end)
            {
                return;
            }
            let mut life = Box::pin(self.once(instance, &mut setting));
            let dies_at = Instant::now() + setting.network.up_to(setting.life * 2);
            if setting.life.is_zero() || dies_at >= end {
                life.await;
            } else if timeout_at(dies_at, &mut life).await.is_err() {
                let is_ghost = setting.network.random.random_bool(0.3);
                let what = if is_ghost { "lives on as a ghost" } else { "crashes" };
                setting.ledger.say(&format!("{}/{instance} {what}", self.id));
                if is_ghost {
                    let until = end.min(Instant::now() + GHOST_MAX);
                    tokio::spawn(timeout_at(until, life));
                }
            }
            let away = setting.network.up_to(AWAY_MAX);
            sleep(away).await;
        }
    }

    fn once(
        &self,
        instance: u64,
        setting: &mut Setting,
    ) -> impl Future<Output = ()> + Send + use<> {
        let network = Network {
            brokers: Arc::clone(&setting.network.brokers),
            random: StdRng::seed_from_u64(setting.network.random.random()),
            mischief: setting.network.mischief.clone(),
            ..setting.network
        };
        let who = (self.id.clone(), instance);
        let ledger = setting.ledger.clone();
        let producer = Producer::new(network, ledger, who, self.protocol, setting.timeout);
        let (name, end, pause_max) =
            (format!("{}-{instance}", self.id), setting.network.end, setting.pause_max);
        let (feeder, pipeline) = match &self.work {
            Work::Feed(topics) => {
                let topics = topics.clone();
                (Some(Feeder { producer, topics, pause_max, name, end }), None)
            }
            Work::Copy { group, share, input, output } => {
                let (group, share) = (group.clone(), share.clone());
                let (input, output) = (*input, *output);
                let stops = Arc::clone(&setting.stops);
                (None, Some(Pipeline { producer, group, share, input, output, stops }))
            }
        };
        async move {
            if let Some(feeder) = feeder {
                feeder.work().await;
            }
            if let Some(pipeline) = pipeline {
                pipeline.work().await;
            }
        }
    }
}
