//! A broker: everything built, started, and stopped in order.

use std::io;
use std::net::{IpAddr, SocketAddr};
use std::sync::Arc;

use odradek_storage::engine::{Engine, EngineConfig, Ports};
use odradek_storage::machine::{HaltReason, MachineConfig, StartError};
use odradek_storage::reader::ReaderConfig;
use odradek_storage::writer::WriterConfig;
use tokio::net::TcpListener;

use crate::config::Config;
use crate::context::Context;
use crate::handlers::init_producer_id::ProducerIdBlock;
use crate::server::Server;
use crate::telemetry::Throttle;

/// A running broker.
pub struct Broker {
    address: SocketAddr,
    context: Arc<Context>,
    server: Server,
}

/// Why a broker does not start.
#[derive(Debug, thiserror::Error)]
pub enum BrokerError {
    /// The address can't be listened on.
    #[error("can't listen on {address}: {cause}")]
    Listen {
        /// Which.
        address: String,
        /// Why.
        cause: io::Error,
    },
    /// The engine does not start.
    #[error(transparent)]
    Engine(#[from] StartError),
}

impl Broker {
    /// Starts a broker: listens first, so that the port is known, and serves once it has caught up
    /// with the log.
    ///
    /// `exclusive` says that no other process can reach the log; `seed` is where random numbers
    /// come from.
    pub async fn start(
        config: Config,
        ports: Ports,
        exclusive: bool,
        seed: u64,
    ) -> Result<Self, BrokerError> {
        let listen = |cause| BrokerError::Listen { address: config.listen.clone(), cause };
        let listener = TcpListener::bind(&config.listen).await.map_err(listen)?;
        let address = listener.local_addr().map_err(listen)?;
        let (host, port) = config.advertise.clone().unwrap_or_else(|| reachable(address));
        let clock = Arc::clone(&ports.clock);
        let engine = EngineConfig {
            host: host.clone(),
            port,
            zone: config.zone.clone(),
            seed,
            machine: MachineConfig { exclusive, ..MachineConfig::default() },
            writer: WriterConfig {
                segment_bytes_max: config.segment_bytes_max,
                linger_max: config.linger,
                ..WriterConfig::default()
            },
            reader: ReaderConfig { cache_bytes_max: config.cache_bytes, ..ReaderConfig::default() },
        };
        let engine = Engine::start(engine, ports).await?;
        let producer_ids = ProducerIdBlock::default();
        let nonsense = Throttle::default();
        let context =
            Arc::new(Context { engine, clock, config, host, port, nonsense, producer_ids });
        let server = Server::start(listener, Arc::clone(&context));
        Ok(Self { address, context, server })
    }

    /// The address it listens on.
    pub fn address(&self) -> SocketAddr {
        self.address
    }

    /// Resolves if the broker can't go on; it must be stopped then.
    pub async fn halted(&self) -> HaltReason {
        self.context.machine().halted().await
    }

    /// Takes no more requests, answers those in flight, leaves the cluster.
    pub async fn stop(self) {
        self.server.stop().await;
        self.context.engine.stop().await;
    }

    /// Ends at once, as a killed process would: nothing is finished and nobody is told.
    pub fn kill(self) {
        self.server.kill();
        self.context.engine.machine.kill();
    }
}

impl std::fmt::Debug for Broker {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Broker").field("address", &self.address).finish_non_exhaustive()
    }
}

/// What clients are told if nobody says otherwise: the address listened on, or the machine's name
/// if that is all addresses at once.
fn reachable(address: SocketAddr) -> (String, u16) {
    let host = match address.ip() {
        IpAddr::V4(ip) if ip.is_unspecified() => host_name(),
        IpAddr::V6(ip) if ip.is_unspecified() => host_name(),
        ip => ip.to_string(),
    };
    (host, address.port())
}

fn host_name() -> String {
    let name = std::fs::read_to_string("/proc/sys/kernel/hostname").unwrap_or_default();
    match name.trim() {
        "" => "localhost".to_owned(),
        name => name.to_owned(),
    }
}
