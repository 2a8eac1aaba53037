//! For tests: brokers with their group coordinators over one log in memory.

use std::sync::Arc;
use std::time::Duration;

use odradek_protocol::id::TopicId;
use odradek_storage::clock::ManualClock;
use odradek_storage::command::{BrokerAddress, Command};
use odradek_storage::engine::{Engine, EngineConfig, Ports};
use odradek_storage::life::LifeConfig;
use odradek_storage::location;
use odradek_storage::log::MetadataLog;
use odradek_storage::machine::MachineConfig;
use odradek_storage::object::ObjectStore;
use odradek_storage::peer::NoPeers;
use odradek_storage::reader::ReaderConfig;
use odradek_storage::writer::WriterConfig;

use super::{GroupCoordinator, GroupSettings};

/// What the brokers share.
pub(crate) struct Town {
    objects: Arc<dyn ObjectStore>,
    log: Arc<dyn MetadataLog>,
    clock: Arc<ManualClock>,
    /// Settings of all groups.
    pub(crate) settings: GroupSettings,
}

/// One broker.
pub(crate) struct House {
    /// Its engine.
    pub(crate) engine: Engine,
    /// The groups it coordinates.
    pub(crate) groups: GroupCoordinator,
}

impl Town {
    /// A town without brokers. First members wait for nobody.
    pub(crate) async fn new() -> Self {
        let memory = "memory:";
        Self {
            objects: location::open_object_store(memory).await.unwrap(),
            log: location::open_log(memory, "town").await.unwrap().log,
            clock: Arc::new(ManualClock::new(1_700_000_000_000)),
            settings: GroupSettings {
                initial_rebalance_delay: Duration::ZERO,
                ..GroupSettings::default()
            },
        }
    }

    /// Starts broker `number`.
    pub(crate) async fn broker(&self, number: u16) -> House {
        let ports = Ports {
            objects: Arc::clone(&self.objects),
            log: Arc::clone(&self.log),
            clock: Arc::<ManualClock>::clone(&self.clock),
            peers: Arc::new(NoPeers),
        };
        let host = format!("broker-{number}");
        let config = EngineConfig {
            address: BrokerAddress { host, port: 9092, ..BrokerAddress::default() },
            seed: u64::from(number),
            machine: MachineConfig::default(),
            writer: WriterConfig::default(),
            reader: ReaderConfig::default(),
            life: LifeConfig::default(),
        };
        let engine = Engine::start(config, ports).await.unwrap();
        let settings = self.settings;
        let groups = GroupCoordinator::start(engine.machine.clone(), move |_| settings);
        House { engine, groups }
    }
}

impl House {
    /// Creates a topic.
    pub(crate) async fn create_topic(&self, name: &str, partitions: u32) -> TopicId {
        let topic = self.engine.machine.new_topic_id();
        let command = Command::CreateTopic {
            topic,
            name: name.to_owned(),
            partitions,
            replication_factor: 1,
            configs: Default::default(),
        };
        self.engine.machine.propose(command).await.unwrap();
        topic
    }

    /// Ends it, as a killed process would.
    pub(crate) fn kill(&self) {
        self.groups.kill();
        self.engine.kill();
    }
}
