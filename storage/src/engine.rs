//! The engine: machine, writer, reader and the tasks that look after data, over one pair of ports.

use std::sync::Arc;

use crate::clock::Clock;
use crate::command::BrokerAddress;
use crate::counted::counted;
use crate::counts::PortCounts;
use crate::life::{Life, LifeConfig};
use crate::log::MetadataLog;
use crate::machine::{Machine, MachineConfig, StartError};
use crate::object::ObjectStore;
use crate::peer::PeerLink;
use crate::reader::{Reader, ReaderConfig};
use crate::writer::{Writer, WriterConfig};

/// What the engine stands on.
#[derive(Clone, Debug)]
pub struct Ports {
    /// Where records and snapshots are.
    pub objects: Arc<dyn ObjectStore>,
    /// Where their order is decided.
    pub log: Arc<dyn MetadataLog>,
    /// What time it is.
    pub clock: Arc<dyn Clock>,
    /// The way to other brokers.
    pub peers: Arc<dyn PeerLink>,
}

/// Everything an engine needs to know.
#[derive(Clone, Debug)]
pub struct EngineConfig {
    /// Where this broker is.
    pub address: BrokerAddress,
    /// Where its random numbers come from: the operating system's entropy in production, the seed
    /// in a simulation.
    pub seed: u64,
    /// The replica.
    pub machine: MachineConfig,
    /// The produce path.
    pub writer: WriterConfig,
    /// The fetch path.
    pub reader: ReaderConfig,
    /// What moves, expires and deletes data.
    pub life: LifeConfig,
}

/// One broker's engine. Cheap to clone.
#[derive(Clone, Debug)]
pub struct Engine {
    /// The replica of the state.
    pub machine: Machine,
    /// The produce path.
    pub writer: Writer,
    /// The fetch path.
    pub reader: Reader,
    /// What moves, expires and deletes data.
    pub life: Arc<Life>,
    /// What was asked of the ports.
    pub ports: Arc<PortCounts>,
}

impl Engine {
    /// Starts the machine, then what stands on it.
    pub async fn start(config: EngineConfig, ports: Ports) -> Result<Self, StartError> {
        let EngineConfig { address, seed, machine, writer, reader, life } = config;
        let (ports, counts) = counted(ports);
        let machine = Machine::start(machine, address, ports.clone(), seed).await?;
        let (objects, peers) = (Arc::clone(&ports.objects), Arc::clone(&ports.peers));
        let reader = Reader::new(machine.clone(), objects, peers, reader);
        let life = Arc::new(Life::start(&machine, &ports, life, seed));
        let writer = Writer::start(machine.clone(), ports.objects, reader.blocks(), writer);
        Ok(Self { machine, writer, reader, life, ports: counts })
    }

    /// What a broker does that notices it was asleep: forgets what it was about to do, and whoever
    /// it was, and follows the log to its tail. Its clients have long turned to others.
    pub async fn wake(&self) {
        self.writer.forget();
        self.machine.wake().await;
    }

    /// Commits what the writer holds, deregisters the broker and stops.
    pub async fn stop(&self) {
        self.life.kill();
        self.writer.stop().await;
        self.machine.stop().await;
    }

    /// Ends at once, as a killed process would.
    pub fn kill(&self) {
        self.life.kill();
        self.machine.kill();
    }
}
