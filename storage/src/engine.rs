//! The engine: machine, writer and reader over one pair of ports.

use std::sync::Arc;

use crate::clock::Clock;
use crate::log::MetadataLog;
use crate::machine::{Identity, Machine, MachineConfig, StartError};
use crate::object::ObjectStore;
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
}

/// Everything an engine needs to know.
#[derive(Clone, Debug)]
pub struct EngineConfig {
    /// Where clients reach this broker.
    pub host: String,
    /// The port there.
    pub port: u16,
    /// Its availability zone.
    pub zone: Option<String>,
    /// Where its random numbers come from: the operating system's entropy in production, the seed
    /// in a simulation.
    pub seed: u64,
    /// The replica.
    pub machine: MachineConfig,
    /// The produce path.
    pub writer: WriterConfig,
    /// The fetch path.
    pub reader: ReaderConfig,
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
}

impl Engine {
    /// Starts the machine, then what stands on it.
    pub async fn start(config: EngineConfig, ports: Ports) -> Result<Self, StartError> {
        let EngineConfig { host, port, zone, seed, machine, writer, reader } = config;
        let identity = Identity { host, port, zone };
        let machine = Machine::start(machine, identity, ports.clone(), seed).await?;
        let reader = Reader::new(machine.clone(), Arc::clone(&ports.objects), reader);
        let writer = Writer::start(machine.clone(), ports.objects, reader.blocks(), writer, seed);
        Ok(Self { machine, writer, reader })
    }

    /// Commits what the writer holds, deregisters the broker and stops.
    pub async fn stop(&self) {
        self.writer.stop().await;
        self.machine.stop().await;
    }
}
