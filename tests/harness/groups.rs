//! Simulated consumer groups: members that come, go, crash and sleep, over brokers that do the
//! same.
//!
//! As in [`crate::world`], one seed decides everything, engines and coordinators are the real ones,
//! ports are in memory behind faults, and time is paused. While the world runs, digests of all
//! brokers are compared. When its time is over the faults stop, every group must become stable, and
//! the history of what members were told is checked by [`rules`].

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

use odradek_protocol::id::TopicId;
use odradek_storage::command::{Command, Outcome};
use odradek_storage::log::faulty::LogFaults;
use odradek_storage::object::faulty::Faults;
use odradek_storage::state::groups::{Group, Membership};
use rand::rngs::StdRng;
use rand::{Rng, SeedableRng};
use tokio::task::AbortHandle;
use tokio::time::{Instant, sleep};
use uuid::Uuid;

pub mod broker;
pub mod classic;
pub mod client;
pub mod consumer;
pub mod history;
mod lives;
mod mishaps;
pub mod reading;
pub mod rules;

use broker::{Broker, Site};
use client::{Brokers, Client};
use history::{History, View};
use lives::Lives;
pub use mishaps::Mishap;

use crate::digests::Digests;

/// How long groups may take to become stable once nothing goes wrong any more.
const SETTLING_MAX: Duration = Duration::from_secs(120);

/// How long a group must have stayed as it is to count as stable.
const STABLE_MIN: Duration = Duration::from_secs(10);

/// What a world is like.
#[derive(Clone, Debug)]
pub struct Plan {
    /// Decides everything that is not decided here.
    pub seed: u64,
    /// Its groups.
    pub groups: Vec<GroupPlan>,
    /// How many brokers there are to be.
    pub brokers: usize,
    /// How long things go wrong, in simulated time.
    pub duration: Duration,
    /// What goes wrong between a broker and the log.
    pub log_faults: LogFaults,
    /// The same for the store.
    pub object_faults: Faults,
    /// How likely a message between brokers gets lost.
    pub peers_lost: f64,
    /// How likely a request of a member, or its answer, gets lost.
    pub requests_lost: f64,
    /// What happens to brokers.
    pub mishaps: Vec<Mishap>,
    /// How often, on average.
    pub mishap_interval: Duration,
    /// How long members live, on average; zero for ever.
    pub life: Duration,
}

/// A group of a world.
#[derive(Clone, Debug)]
pub struct GroupPlan {
    /// What they speak.
    pub protocol: Protocol,
    /// How many members there are to be.
    pub members: usize,
    /// How many of them are static.
    pub static_members: usize,
    /// How many partitions they share.
    pub partitions: u32,
    /// How long a member may be silent.
    pub session_timeout: Duration,
    /// How long it may take to rejoin.
    pub rebalance_timeout: Duration,
    /// Longest time between two commits of a member; zero if others read for it.
    pub commit_interval_max: Duration,
}

/// What the members of a group speak.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Protocol {
    /// Members agree on generations, one of them assigns.
    Classic,
    /// Members are told what they have (KIP-848).
    Consumer,
}

/// What a world came to.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Report {
    /// What happened, with the simulated time.
    pub trace: Vec<String>,
    /// Calls of members that were done.
    pub calls: usize,
    /// Commits that were acknowledged.
    pub commits: usize,
    /// Generations that began, over all groups.
    pub generations: i32,
    /// What happened to brokers.
    pub mishaps: usize,
    /// Positions at which digests of several brokers were compared.
    pub compared: usize,
    /// How long it took until all groups were stable.
    pub settled_after: Duration,
    /// Rules that were broken.
    pub violations: Vec<rules::Violation>,
}

/// One world while it runs.
#[derive(Debug)]
pub struct World {
    plan: Plan,
    site: Site,
    history: History,
    digests: Digests,
    brokers: Brokers,
    random: StdRng,
    started: u64,
    mishaps: usize,
    /// When things stop going wrong.
    end: Instant,
    members: Vec<AbortHandle>,
}

/// Lets something happen on paused time.
pub fn paused<T>(world: impl Future<Output = T>) -> T {
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_time()
        .start_paused(true)
        .build()
        .unwrap();
    runtime.block_on(world)
}

/// Runs a world from beginning to end.
///
/// # Panics
///
/// If brokers differ, or groups do not become stable; the seed stands in the message.
pub fn run(plan: Plan) -> Report {
    paused(async move {
        let mut world = World::begin(plan).await;
        world.set_faults(true);
        while Instant::now() < world.end {
            world.let_something_happen().await;
        }
        world.set_faults(false);
        world.complete().await;
        let began = Instant::now();
        world.settle().await;
        world.report(began.elapsed())
    })
}

impl World {
    /// A world with its brokers and topics, in which members begin to live and nothing goes wrong
    /// yet.
    pub async fn begin(plan: Plan) -> Self {
        let site = Site::new(plan.seed ^ 3, plan.peers_lost);
        let mut world = Self {
            site,
            history: History::default(),
            digests: Digests::default(),
            brokers: Arc::default(),
            random: StdRng::seed_from_u64(plan.seed),
            started: 0,
            mishaps: 0,
            end: Instant::now() + plan.duration,
            members: Vec::new(),
            plan,
        };
        for place in 1..=world.plan.brokers {
            world.start_broker(u64::try_from(place).unwrap()).await;
        }
        for (number, group) in world.plan.groups.clone().into_iter().enumerate() {
            world.found(number, &group).await;
        }
        world
    }

    /// Creates the topic of a group, and lets its members live.
    async fn found(&mut self, number: usize, group: &GroupPlan) {
        let topic = topic(number);
        let create = Command::CreateTopic {
            topic,
            name: format!("topic-{number}"),
            partitions: group.partitions,
            replication_factor: 1,
            configs: BTreeMap::new(),
        };
        let engine = self.brokers.lock().unwrap()[0].engine.clone();
        assert_eq!(engine.machine.propose(create).await, Ok(Outcome::Done));
        for place in 0..group.members {
            let name = group_name(number);
            let lives = Lives {
                client: Client {
                    group: name.clone(),
                    topic,
                    topic_name: format!("topic-{number}"),
                    history: self.history.clone(),
                    random: StdRng::seed_from_u64(self.random.random()),
                    lost: self.plan.requests_lost,
                    brokers: Arc::clone(&self.brokers),
                    stops: None,
                    is_replaced: Arc::default(),
                },
                place,
                instance: (place < group.static_members).then(|| format!("{name}-{place}")),
                plan: group.clone(),
                life: self.plan.life,
                end: self.end,
            };
            self.members.push(tokio::spawn(lives.run()).abort_handle());
        }
    }

    /// Starts a broker at a place, which is that of another if that is gone.
    pub async fn start_broker(&mut self, place: u64) {
        self.started += 1;
        let number = self.started;
        let seed = self.plan.seed.wrapping_mul(1_000_003).wrapping_add(number);
        let is_late = number > u64::try_from(self.plan.brokers).unwrap();
        let (faults, object_faults) = self.faults(is_late && Instant::now() < self.end);
        let broker = Broker::start(&self.site, number, place, seed, faults.clone()).await;
        broker.set_faults(&faults, &object_faults);
        let node = broker.node();
        self.history.say(format!("broker {number} starts at place {place} as node {node}"));
        let engine = broker.engine.clone();
        tokio::spawn(self.digests.clone().compare(engine, self.plan.seed, 1));
        self.brokers.lock().unwrap().push(broker);
    }

    /// What goes wrong; or nothing, but no call is done in no time.
    fn faults(&self, are_on: bool) -> (LogFaults, Faults) {
        if are_on {
            return (self.plan.log_faults.clone(), self.plan.object_faults.clone());
        }
        let calls =
            LogFaults { delayed: 1.0, delay_max: Duration::from_millis(2), ..LogFaults::default() };
        (calls.clone(), Faults { calls, ..Faults::default() })
    }

    /// Lets things go wrong between brokers and their ports, or no more.
    pub(crate) fn set_faults(&self, are_on: bool) {
        let (log, objects) = self.faults(are_on);
        for broker in &*self.brokers.lock().unwrap() {
            broker.set_faults(&log, &objects);
        }
    }

    /// The broker that coordinates a group.
    pub fn coordinator(&self, group: &str) -> Broker {
        let brokers = self.brokers.lock().unwrap();
        let node = brokers[0].engine.machine.read(|state| state.coordinator_of(group));
        brokers.iter().find(|broker| Some(broker.node()) == node).unwrap().clone()
    }

    /// Kills a broker, and nothing else.
    pub fn kill(&self, broker: &Broker) {
        self.history.say(format!("broker {} is killed", broker.number));
        self.remove(broker);
        broker.kill();
    }

    /// Waits until all groups are stable; gives their members.
    ///
    /// # Panics
    ///
    /// If that takes too long.
    pub async fn settle(&self) -> Vec<Vec<View>> {
        let limit = Instant::now() + SETTLING_MAX;
        let mut before = (Instant::now(), None);
        loop {
            let now = self.stable().await;
            match now {
                Ok(groups) => {
                    if before.1.as_ref() != Some(&groups) {
                        before = (Instant::now(), Some(groups));
                    } else if before.0.elapsed() >= STABLE_MIN {
                        return groups;
                    }
                }
                Err(why) if Instant::now() > limit => {
                    let trace = self.history.trace();
                    let last = &trace[trace.len().saturating_sub(100)..];
                    panic!("seed {}: {why}\n{}", self.plan.seed, last.join("\n"));
                }
                Err(_) => before.1 = None,
            }
            sleep(Duration::from_millis(500)).await;
        }
    }

    /// What the members of each group believe, if it is what the state says, and covers all
    /// partitions once; else why not.
    async fn stable(&self) -> Result<Vec<Vec<View>>, String> {
        let broker = self.brokers.lock().unwrap()[0].clone();
        broker.engine.machine.barrier().await.map_err(|error| error.to_string())?;
        let plans = self.plan.groups.iter().enumerate();
        plans
            .map(|(number, plan)| {
                let name = group_name(number);
                let views = self.history.views(&name);
                let known = broker
                    .engine
                    .machine
                    .read(|state| known_members(number, state.groups().get(&name)));
                let mut believed = views.clone();
                believed.sort_by(|a, b| a.member.cmp(&b.member));
                if known != believed || known.len() != plan.members {
                    return Err(format!("{name}: known {known:?}, believed {believed:?}"));
                }
                let mut covered: Vec<i32> =
                    views.iter().flat_map(|it| it.partitions.clone()).collect();
                covered.sort_unstable();
                if !covered.iter().copied().eq(0..i32::try_from(plan.partitions).unwrap()) {
                    return Err(format!("{name}: covered are {covered:?}"));
                }
                Ok(views)
            })
            .collect()
    }

    fn report(&self, settled_after: Duration) -> Report {
        let calls = self.history.calls();
        let broker = self.brokers.lock().unwrap()[0].clone();
        let generations = broker
            .engine
            .machine
            .read(|state| state.groups().iter().map(|(_, group)| generation(group)).sum());
        let is_commit = |call: &&history::Call| matches!(call.what, history::What::Commit { .. });
        Report {
            trace: self.history.trace(),
            calls: calls.iter().filter(|call| call.is_done).count(),
            commits: calls.iter().filter(|call| call.is_done).filter(is_commit).count(),
            generations,
            mishaps: self.mishaps,
            compared: self.digests.compared(),
            settled_after,
            violations: rules::check(&calls),
        }
    }

    /// All brokers, whoever they are just now.
    pub fn brokers(&self) -> &Brokers {
        &self.brokers
    }

    /// When things stop going wrong.
    pub fn end(&self) -> Instant {
        self.end
    }

    /// Positions at which digests of several brokers were compared.
    pub fn compared(&self) -> usize {
        self.digests.compared()
    }

    /// What members did and were told so far.
    pub fn history(&self) -> &History {
        &self.history
    }
}

/// What a group is called.
pub fn group_name(number: usize) -> String {
    format!("group-{number}")
}

/// The topic that a group reads.
pub fn topic(number: usize) -> TopicId {
    TopicId(Uuid::from_u128(100 + u128::try_from(number).unwrap()))
}

/// The members of a stable group, by id; none if it is not stable.
fn known_members(number: usize, group: Option<&Group>) -> Vec<View> {
    match group.map(|group| &group.membership) {
        Some(Membership::Classic(group)) if group.is_assigned => {
            let members = group.members.iter().map(|(id, member)| View {
                member: id.clone(),
                generation: group.generation,
                partitions: classic::decode(&member.assignment),
            });
            members.collect()
        }
        Some(Membership::Consumer(group)) if group.phase() == "Stable" => {
            let members = group.members().iter().map(|(id, member)| View {
                member: id.clone(),
                generation: member.current.epoch,
                partitions: consumer::partitions(topic(number), &member.current.assigned),
            });
            members.collect()
        }
        _ => Vec::new(),
    }
}

fn generation(group: &Group) -> i32 {
    match &group.membership {
        Membership::None => 0,
        Membership::Classic(group) => group.generation,
        Membership::Consumer(group) => group.epoch,
    }
}
