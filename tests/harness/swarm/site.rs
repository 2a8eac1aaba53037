//! A broker of the world: the whole of it, behind pipes, with a door and with faults before its
//! ports; and how one is started, killed, put to sleep and copied.

use std::sync::Arc;
use std::time::Duration;

use odradek::broker::Broker;
use odradek::config::Config;
use odradek_storage::clock::{Clock, ManualClock};
use odradek_storage::command::BrokerAddress;
use odradek_storage::engine::{Engine, EngineConfig, Ports};
use odradek_storage::log::faulty::FaultyLog;
use odradek_storage::machine::MachineConfig;
use odradek_storage::object::faulty::FaultyObjectStore;
use odradek_storage::writer::WriterConfig;
use rand::rngs::StdRng;
use rand::{Rng, SeedableRng};
use tokio::time::sleep;

use super::World;
use super::conditions::Befalls;
use super::plan::Plan;
use crate::door::{Door, StoppedLog, StoppedStore};
use crate::hasty;

/// How long a broker that does not start is left alone before it is started again.
const RESTART_INTERVAL: Duration = Duration::from_millis(200);

/// At how many entries of a stretched world, of which there are many, digests are compared.
const STRETCHED_DIGEST_ENTRIES: u64 = 10;

/// A tenth of the pace at which data is moved, and about how many bytes merged segments have.
pub(super) const TICK: Duration = Duration::from_millis(50);
pub(super) const UNIT_BYTES: u64 = 4000;

/// A broker.
pub(super) struct Running {
    /// Which, counted from one.
    pub(super) number: u64,
    /// Where it is: one that comes back to the same place is the same node.
    pub(super) place: u64,
    /// Where its random numbers come from.
    pub(super) seed: u64,
    pub(super) engine: Engine,
    pub(super) clock: Arc<ManualClock>,
    pub(super) door: Door,
    broker: Broker,
}

/// What is between a broker and its ports.
#[derive(Clone)]
pub(super) struct FaultyPorts {
    pub(super) log: FaultyLog,
    pub(super) objects: FaultyObjectStore,
}

impl FaultyPorts {
    pub(super) fn befall(&self, befalls: Befalls) {
        let (log, objects) = (self.log.control(), self.objects.control());
        log.set(befalls.log);
        log.set_oddities(befalls.log_oddities);
        log.outage(befalls.log_is_out);
        objects.set(befalls.objects);
        objects.set_oddities(befalls.object_oddities);
        objects.outage(befalls.objects_are_out);
    }

    /// Calls that have yet to land.
    pub(super) fn late(&self) -> usize {
        self.log.control().late() + self.objects.control().late()
    }
}

impl Running {
    /// Ends it, as a killed process would.
    pub(super) fn kill(self) {
        self.broker.kill();
    }

    /// Whether it is about to put a snapshot just now.
    pub(super) fn is_writing_snapshot(&self) -> bool {
        self.door.state().snapshots > 0
    }

    /// Bytes that requests in flight take, and those that they may.
    pub(super) fn request_bytes(&self) -> (usize, usize) {
        self.broker.request_bytes()
    }

    /// Stops it for a while, as a process is by a signal; when it goes on, its clock tells it.
    pub(super) fn doze(&self, on: bool) {
        self.clock.sleep(on);
        self.door.change(|door| door.is_stopped = on);
    }
}

pub(super) fn host(place: u64) -> String {
    format!("broker-{place}")
}

impl World {
    /// Starts a broker at a place; with the numbers of another, if it is a copy of that.
    pub(super) async fn start_broker(&self, place: u64, copied: Option<u64>) {
        let number = {
            let mut shared = self.lock();
            shared.started += 1;
            shared.started
        };
        let drawn = self.drawn(number, 0);
        let mut seed = copied.unwrap_or(drawn);
        let door = Door::default();
        let log = FaultyLog::new(Arc::new(self.log.clone()), drawn ^ 2, Default::default());
        let objects = Arc::new(self.objects.clone());
        let objects = FaultyObjectStore::new(objects, drawn ^ 1, Default::default());
        let faulty = FaultyPorts { log, objects };
        self.lock().ports.push((place, faulty.clone()));
        self.befall_all();
        let clock = self.clock(place);
        let ports = Ports {
            objects: Arc::new(StoppedStore { inner: faulty.objects.clone(), door: door.clone() }),
            log: Arc::new(StoppedLog { inner: faulty.log.clone(), door: door.clone() }),
            clock: Arc::<ManualClock>::clone(&clock),
            peers: Arc::new(self.peers.way_of(&host(place))),
        };
        let mut attempt = 0;
        let (broker, pipes) = loop {
            let config = Config { memory_bytes: 1 << 20, ..Config::default() };
            let engine = engine_config(&self.plan, place, seed);
            let starting = Broker::start_behind_pipes(config, engine, ports.clone());
            match Box::pin(starting).await {
                Ok(started) => break started,
                // Whoever supervises it starts it again.
                Err(error) => self.say(&format!("broker {number} does not start: {error}")),
            }
            sleep(RESTART_INTERVAL).await;
            // Another process, with numbers of its own.
            attempt += 1;
            seed = self.drawn(number, attempt);
        };
        let engine = broker.engine().clone();
        self.peers.enter(&host(place), PORT, engine.clone());
        self.net.enter(&host(place), number, pipes, door.clone());
        let node = engine.machine.node_id();
        self.say(&format!("broker {number} starts at place {place} as node {node}"));
        let digests = self.digests.clone();
        let every = if self.plan.stretch > 1 { STRETCHED_DIGEST_ENTRIES } else { 1 };
        tokio::spawn(digests.compare(engine.clone(), self.plan.seed, every));
        tokio::spawn(self.clone().supervise(number, engine.clone()));
        let running = Running { number, place, seed, engine, clock, door, broker };
        self.lock().brokers.push(running);
    }

    /// Where the random numbers of a process come from. No two may have the same: one whose numbers
    /// were but near to those of others had the incarnation of another, hours later.
    fn drawn(&self, number: u64, attempt: u64) -> u64 {
        let process = StdRng::seed_from_u64(number << 32 | attempt).random::<u64>();
        StdRng::seed_from_u64(self.plan.seed ^ process).random()
    }

    /// Starts a broker again that says it can't go on, which none may ever have to say here.
    async fn supervise(self, number: u64, engine: Engine) {
        let reason = engine.machine.halted().await;
        if self.lock().may_halt {
            return self.lock().halts.push(reason.to_string());
        }
        let Some(broker) = self.take(number) else { return };
        // The log is kept for seconds here, and brokers are away for longer.
        if !reason.to_string().contains("slept too long") {
            self.accuse(format!("broker {number} stops: {reason}"));
        }
        let place = broker.place;
        broker.kill();
        self.spawn_broker(place, None);
    }

    /// Takes a broker out, so that nobody else does anything with it.
    pub(super) fn take(&self, number: u64) -> Option<Running> {
        let broker = {
            let mut shared = self.lock();
            let place = shared.brokers.iter().position(|it| it.number == number)?;
            shared.brokers.remove(place)
        };
        self.net.leave(&host(broker.place), number);
        Some(broker)
    }

    /// The engine of the broker at a host, if there is one just now.
    pub(super) fn engine_at(&self, at: &str) -> Option<Engine> {
        let shared = self.lock();
        shared.brokers.iter().find(|it| host(it.place) == at).map(|it| it.engine.clone())
    }

    /// The clock at a place, which outlives the broker there.
    fn clock(&self, place: u64) -> Arc<ManualClock> {
        let mut shared = self.lock();
        let now_ms = self.clock.now_ms();
        let clock = shared.clocks.entry(place);
        Arc::clone(clock.or_insert_with(|| Arc::new(ManualClock::new(now_ms))))
    }

    /// Lets what is wrong just now befall the calls of all brokers.
    pub(super) fn befall_all(&self) {
        let shared = self.lock();
        for (place, ports) in &shared.ports {
            ports.befall(Befalls::of(&self.plan, shared.conditions.iter(), *place));
        }
    }
}

/// The port of every broker; hosts tell them apart.
const PORT: u16 = 9092;

fn engine_config(plan: &Plan, place: u64, seed: u64) -> EngineConfig {
    let life = hasty::life(plan.stretched(TICK), UNIT_BYTES);
    let hasty = hasty::engine(place, seed, plan.snapshot_entries, plan.inline_bytes_max, life);
    EngineConfig {
        address: BrokerAddress { host: host(place), port: PORT, ..hasty.address },
        machine: MachineConfig { log_kept: plan.log_kept, ..hasty.machine },
        writer: WriterConfig { linger_max: plan.linger, ..hasty.writer },
        ..hasty
    }
}
