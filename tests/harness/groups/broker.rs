//! A broker of the simulation: an engine, its coordinators, and a [door](crate::door).

use std::sync::Arc;
use std::time::Duration;

use odradek::group::{GroupCoordinator, GroupSettings};
use odradek::transactions::TransactionCoordinator;
use odradek_protocol::id::NodeId;
use odradek_storage::clock::ManualClock;
use odradek_storage::command::BrokerAddress;
use odradek_storage::engine::{Engine, EngineConfig, Ports};
use odradek_storage::life::LifeConfig;
use odradek_storage::log::faulty::{FaultyLog, LogFaults};
use odradek_storage::log::memory::MemoryLog;
use odradek_storage::machine::MachineConfig;
use odradek_storage::object::faulty::{Faults, FaultyObjectStore};
use odradek_storage::object::memory::MemoryObjectStore;
use odradek_storage::peer::memory::MemoryPeers;
use odradek_storage::reader::ReaderConfig;
use odradek_storage::writer::WriterConfig;
use tokio::time::{sleep, timeout};

use crate::door::{Door, DoorState, StoppedLog};

/// What all brokers share.
#[derive(Clone, Debug)]
pub struct Site {
    /// Where snapshots and records are.
    pub objects: MemoryObjectStore,
    /// The log.
    pub log: MemoryLog,
    /// The clock.
    pub clock: Arc<ManualClock>,
    /// The way from broker to broker.
    pub peers: MemoryPeers,
}

impl Site {
    /// A place without brokers. Messages between them get lost that often.
    pub fn new(seed: u64, peers_lost: f64) -> Self {
        Self {
            objects: MemoryObjectStore::default(),
            log: MemoryLog::default(),
            clock: Arc::new(ManualClock::new(1_700_000_000_000)),
            peers: MemoryPeers::new(seed, peers_lost, Duration::from_millis(20)),
        }
    }
}

/// One broker. Clones are the same.
#[derive(Clone, Debug)]
pub struct Broker {
    /// Which broker of the world, counted from one.
    pub number: u64,
    /// Where it is: a broker that comes back to the same place is the same node.
    pub place: u64,
    /// Its engine.
    pub engine: Engine,
    /// The groups that it coordinates.
    pub groups: GroupCoordinator,
    /// What it does for transactions.
    pub transactions: TransactionCoordinator,
    log: FaultyLog,
    objects: FaultyObjectStore,
    door: Door,
}

impl Broker {
    /// Starts a broker, which may take as many attempts as its log has faults.
    pub async fn start(site: &Site, number: u64, place: u64, seed: u64, faults: LogFaults) -> Self {
        let door = Door::default();
        let log = FaultyLog::new(Arc::new(site.log.clone()), seed ^ 2, faults);
        let objects = Arc::new(site.objects.clone());
        let objects = FaultyObjectStore::new(objects, seed ^ 1, Faults::default());
        let ports = Ports {
            objects: Arc::new(objects.clone()),
            log: Arc::new(StoppedLog { inner: log.clone(), door: door.clone() }),
            clock: Arc::<ManualClock>::clone(&site.clock),
            peers: Arc::new(site.peers.way_of(&address(place).host)),
        };
        let engine = loop {
            match Engine::start(config(place, seed), ports.clone()).await {
                Ok(engine) => break engine,
                Err(_) => sleep(Duration::from_millis(100)).await,
            }
        };
        let BrokerAddress { host, port, .. } = address(place);
        site.peers.enter(&host, port, engine.clone());
        let settings = GroupSettings {
            initial_rebalance_delay: Duration::from_secs(1),
            consumer_session_timeout: Duration::from_secs(10),
            consumer_heartbeat_interval: Duration::from_secs(3),
            ..GroupSettings::default()
        };
        let groups = GroupCoordinator::start(engine.machine.clone(), move |_| settings);
        let transactions = TransactionCoordinator::start(engine.machine.clone());
        Self { number, place, engine, groups, transactions, log, objects, door }
    }

    /// Its node id.
    pub fn node(&self) -> NodeId {
        self.engine.machine.node_id()
    }

    /// Decides what goes wrong between it and the log, and between it and the store.
    pub fn set_faults(&self, log: &LogFaults, objects: &Faults) {
        self.log.control().set(log.clone());
        self.objects.control().set(objects.clone());
    }

    /// Cuts it off from the log for a while.
    pub async fn lose_log(&self, length: Duration) {
        self.log.control().outage(true);
        sleep(length).await;
        self.log.control().outage(false);
    }

    /// Ends it, as a killed process would.
    pub fn kill(&self) {
        self.close();
        self.groups.kill();
        self.transactions.kill();
        self.engine.kill();
    }

    /// Ends it in good order: first it names itself to nobody any more.
    pub async fn retire(&self) {
        self.engine.machine.drain().await;
        sleep(Duration::from_secs(1)).await;
        self.close();
        self.groups.kill();
        self.transactions.kill();
        self.engine.stop().await;
    }

    fn close(&self) {
        self.door.change(|door| {
            door.refuses = true;
            door.hung_up += 1;
        });
    }

    /// Whether it is stopped just now.
    pub fn is_stopped(&self) -> bool {
        self.door.state().is_stopped
    }

    /// Stops it for a while. If it `notices`, after that time, it does what a broker does that has
    /// been asleep; requests that waited may have been answered by then.
    pub async fn pause(&self, length: Duration, notices: Option<Duration>) {
        self.door.change(|door| door.is_stopped = true);
        sleep(length).await;
        self.door.change(|door| door.is_stopped = false);
        let Some(after) = notices else { return };
        sleep(after).await;
        self.close();
        self.groups.forget();
        self.engine.wake().await;
        self.door.change(|door| door.refuses = false);
    }

    /// Serves a request, as far as the door lets it; none if no answer comes in time.
    pub async fn serve<T>(
        &self,
        patience: Duration,
        request: impl Future<Output = T>,
    ) -> Option<T> {
        let DoorState { refuses, hung_up: lines, .. } = self.door.state();
        if refuses {
            return None;
        }
        let served = async {
            self.door.pass().await;
            let answer = request.await;
            self.door.pass().await;
            answer
        };
        tokio::select! {
            biased;
            () = self.door.until(|door| door.hung_up != lines) => None,
            answer = timeout(patience, served) => answer.ok(),
        }
    }
}

fn address(place: u64) -> BrokerAddress {
    BrokerAddress { host: format!("broker-{place}"), port: 9092, ..BrokerAddress::default() }
}

fn config(place: u64, seed: u64) -> EngineConfig {
    EngineConfig {
        address: address(place),
        seed,
        machine: MachineConfig {
            snapshot_entries: 100,
            digest_entries: 7,
            append_attempt_max: Duration::from_millis(500),
            ..MachineConfig::default()
        },
        writer: WriterConfig {
            linger_max: Duration::from_millis(20),
            put_attempt_max: Duration::from_millis(500),
            segment_bytes_max: 2000,
            ..WriterConfig::default()
        },
        // Small, so that blocks are read from the store and not only from memory.
        reader: ReaderConfig { cache_bytes_max: 4096, ..ReaderConfig::default() },
        life: LifeConfig::default(),
    }
}
