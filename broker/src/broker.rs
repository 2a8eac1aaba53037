//! A broker: everything built, started, and stopped in order.

use std::collections::BTreeMap;
use std::io;
use std::net::{IpAddr, Ipv4Addr, SocketAddr};
use std::num::NonZeroU64;
use std::sync::Arc;
use std::time::Duration;

use odradek_storage::clock::Clock;
use odradek_storage::command::{BrokerAddress, Endpoint, FooterRef};
use odradek_storage::engine::{Engine, EngineConfig, Ports};
use odradek_storage::log::MetadataLog;
use odradek_storage::machine::{HaltReason, MachineConfig, StartError};
use odradek_storage::object::ObjectStore;
use odradek_storage::peer::{NoPeers, PeerLink};
use odradek_storage::reader::{DiskCache, DiskCacheError, ReaderConfig};
use odradek_storage::writer::WriterConfig;
use tokio::io::DuplexStream;
use tokio::net::TcpListener;
use tokio::sync::mpsc;
use tokio::task::JoinHandle;
use tokio::time::{sleep, timeout};

use crate::answers::AnswerBudget;
use crate::config::Config;
use crate::context::Context;
use crate::entrance::{Entrance, Pipes};
use crate::fetch_session::FetchSessions;
use crate::group::GroupCoordinator;
use crate::group_settings;
use crate::handlers::init_producer_id::ProducerIdBlock;
use crate::memory::MemoryBudget;
use crate::metrics::{Metrics, listener};
use crate::peers::Peers;
use crate::server::{Listener, Server};
use crate::stalls;
use crate::switch::Switch;
use crate::telemetry::Throttle;
use crate::transactions::TransactionCoordinator;

/// A running broker.
pub struct Broker {
    /// Where it listens, if it does.
    sockets: Option<Sockets>,
    context: Arc<Context>,
    server: Server,
    watching: Vec<JoinHandle<()>>,
}

/// Where a broker listens.
struct Sockets {
    address: SocketAddr,
    zones: BTreeMap<String, SocketAddr>,
    metrics: Option<SocketAddr>,
}

/// How long clients are told to ask other brokers before this one stops: time for a few tries.
const LEAVING: Duration = Duration::from_secs(2);

/// Pipes that may wait to be taken.
const PIPES_MAX: usize = 64;

/// What a broker stands on that is not of its own making.
#[derive(Debug)]
pub struct Foundation {
    /// Where records are.
    pub objects: Arc<dyn ObjectStore>,
    /// Where their order is.
    pub log: Arc<dyn MetadataLog>,
    /// What time it is.
    pub clock: Arc<dyn Clock>,
    /// Whether no other process can reach the log.
    pub is_exclusive: bool,
    /// Whether each put costs money, so that few are made.
    pub puts_are_charged: bool,
    /// Where random numbers come from.
    pub seed: u64,
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
    /// There is to be a cache on disk, and it can't be opened.
    #[error(transparent)]
    DiskCache(#[from] DiskCacheError),
    /// The engine does not start.
    #[error(transparent)]
    Engine(#[from] StartError),
}

impl Broker {
    /// Starts a broker: listens first, so that the port is known, and serves once it has caught up
    /// with the log.
    pub async fn start(config: Config, on: Foundation) -> Result<Self, BrokerError> {
        let Foundation { objects, log, clock, is_exclusive, puts_are_charged, seed } = on;
        let listening = Listening::on(&config).await?;
        let Listening { listeners, sockets, metrics, address } = listening;
        let linger_ms = u32::try_from(config.linger.as_millis()).unwrap_or(u32::MAX).max(1);
        // Where a put costs as much as eight kilobytes in the log, more does not pay; where it
        // costs nothing it still takes as long as several writes.
        let inline_bytes_default = if puts_are_charged { 8 * 1024 } else { 64 * 1024 };
        // Where entries cost nothing, neither do their bytes, and a start reads no footers.
        let footer_bytes_min = puts_are_charged.then_some(FooterRef::LEFT_BYTES_MIN);
        let disk = match config.disk_cache.clone() {
            Some(disk_cache) => Some(DiskCache::open(disk_cache).await?),
            None => None,
        };
        let engine = EngineConfig {
            address,
            seed,
            machine: machine(&config, is_exclusive),
            writer: WriterConfig {
                segment_bytes_max: config.segment_bytes_max,
                linger_max: config.linger,
                uploads_inflight_max: uploads_inflight_max(linger_ms),
                // As many as there are when every segment waits for the whole linger: a batch that
                // comes after a pause need not wait, and it costs nothing.
                puts_per_second: puts_are_charged.then_some((1000 / linger_ms).max(1)),
                inline_bytes_max: config.inline_bytes.unwrap_or(inline_bytes_default),
                footer_bytes_min,
                inline_zstd_level: puts_are_charged.then_some(1),
                ..WriterConfig::default()
            },
            reader: ReaderConfig { disk, ..reader(&config, puts_are_charged) },
            life: config.life.to_engine(footer_bytes_min),
        };
        let peers: Arc<dyn PeerLink> =
            if is_exclusive { Arc::new(NoPeers) } else { Arc::new(Peers::default()) };
        let ports = Ports { objects, log, clock, peers };
        let mut broker = Self::assemble(config, engine, ports, listeners).await?;
        if let Some(socket) = metrics {
            let showing = listener::serve(socket, Arc::downgrade(&broker.context));
            broker.watching.push(tokio::spawn(showing));
        }
        broker.sockets = Some(sockets);
        Ok(broker)
    }

    /// Starts a broker without sockets, over an engine that is described in full: for simulations.
    /// Who has the sender hands pipes in, each of them a connection.
    pub async fn start_behind_pipes(
        config: Config,
        engine: EngineConfig,
        ports: Ports,
    ) -> Result<(Self, mpsc::Sender<DuplexStream>), StartError> {
        let (entry, pipes) = mpsc::channel(PIPES_MAX);
        let listeners = vec![Listener { entrance: Pipes(pipes), zone: None }];
        Ok((Self::assemble(config, engine, ports, listeners).await?, entry))
    }

    async fn assemble(
        config: Config,
        engine: EngineConfig,
        ports: Ports,
        listeners: Vec<Listener<impl Entrance>>,
    ) -> Result<Self, StartError> {
        let (address, clock) = (engine.address.clone(), Arc::clone(&ports.clock));
        let disk_cache = engine.reader.disk.clone();
        let engine = Engine::start(engine, ports).await?;
        let machine = engine.machine.clone();
        let groups = GroupCoordinator::start(engine.machine.clone(), move |group| {
            let node = machine.node_id();
            machine.read(|state| group_settings::of(state, node, group))
        });
        let transactions = TransactionCoordinator::start(engine.machine.clone());
        let memory = MemoryBudget::new(config.memory_bytes);
        let answers = AnswerBudget::new(config.memory_bytes);
        let context = Arc::new(Context {
            engine,
            groups,
            transactions,
            clock,
            config,
            address,
            leaving: Switch::default(),
            memory,
            answers,
            disk_cache,
            metrics: Metrics::default(),
            nonsense: Throttle::default(),
            producer_ids: ProducerIdBlock::default(),
            fetch_sessions: FetchSessions::default(),
        });
        let server = Server::start(listeners, Arc::clone(&context));
        let watching = vec![
            tokio::spawn(stalls::watch(Arc::clone(&context), server.gate())),
            tokio::spawn(group_settings::expire_offsets(Arc::downgrade(&context))),
        ];
        Ok(Self { sockets: None, context, server, watching })
    }

    /// The address it listens on; port 0 of no address if it is behind pipes.
    pub fn address(&self) -> SocketAddr {
        let nowhere = SocketAddr::from((Ipv4Addr::UNSPECIFIED, 0));
        self.sockets.as_ref().map_or(nowhere, |sockets| sockets.address)
    }

    /// The address of its listener for a zone, if it has one.
    pub fn zone_address(&self, zone: &str) -> Option<SocketAddr> {
        self.sockets.as_ref()?.zones.get(zone).copied()
    }

    /// What it stands on, for whoever looks at it from inside the process.
    pub fn engine(&self) -> &Engine {
        &self.context.engine
    }

    /// Bytes that requests in flight take, and those that they may.
    pub fn request_bytes(&self) -> (usize, usize) {
        self.context.memory.used_bytes()
    }

    /// Bytes that records take in answers that clients have yet to take, and those that they may.
    pub fn answer_bytes(&self) -> (usize, usize) {
        self.context.answers.used_bytes()
    }

    /// The address at which it shows its metrics, if it does.
    pub fn metrics_address(&self) -> Option<SocketAddr> {
        self.sockets.as_ref()?.metrics
    }

    /// Resolves if the broker can't go on; it must be stopped then.
    pub async fn halted(&self) -> HaltReason {
        self.context.machine().halted().await
    }

    /// Sends clients to other brokers, answers what is in flight, leaves the cluster.
    pub async fn stop(self) {
        self.watching.iter().for_each(JoinHandle::abort);
        let drained = timeout(LEAVING, self.context.machine().drain()).await;
        if drained == Ok(true) {
            self.context.leaving.turn(true);
            sleep(LEAVING).await;
        }
        // Whoever waits for a rebalance is sent away, or its connection could not be closed in
        // order.
        self.context.groups.forget();
        self.server.stop().await;
        self.context.groups.kill();
        self.context.transactions.kill();
        self.context.engine.stop().await;
    }

    /// Ends at once, as a killed process would: nothing is finished and nobody is told.
    pub fn kill(self) {
        self.watching.iter().for_each(JoinHandle::abort);
        self.server.kill();
        self.context.groups.kill();
        self.context.transactions.kill();
        self.context.engine.kill();
    }
}

impl std::fmt::Debug for Broker {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Broker").field("address", &self.address()).finish_non_exhaustive()
    }
}

/// How many segments may be under way: as many as are begun while a slow put and its commit take
/// their time, or the next ones wait for a place as well as for the slow one.
fn uploads_inflight_max(linger_ms: u32) -> usize {
    const SLOW_PUT_MS: u32 = 400;
    usize::try_from(SLOW_PUT_MS / linger_ms).unwrap_or(usize::MAX).clamp(8, 64)
}

fn reader(config: &Config, gets_are_charged: bool) -> ReaderConfig {
    let default = ReaderConfig { cache_bytes_max: config.cache_bytes, ..ReaderConfig::default() };
    if !gets_are_charged {
        return default;
    }
    // A request takes tens of milliseconds and costs as much as the processor time that some
    // megabytes take: few of them are worth a wait, and bytes that nobody wants. A broker that
    // reads for another takes as long as nearly all requests do.
    ReaderConfig {
        gather: Duration::from_millis(3),
        ask_max: Duration::from_millis(300),
        range_gap_max: 1024 * 1024,
        ..default
    }
}

fn machine(config: &Config, is_exclusive: bool) -> MachineConfig {
    let default = MachineConfig::default();
    // Nobody else can be slow in a log that is this process's alone.
    let usual = if is_exclusive { Duration::ZERO } else { default.log_kept };
    let log_kept = config.log_kept.unwrap_or(usual);
    let snapshot_entries =
        config.snapshot_entries.map_or(default.snapshot_entries, NonZeroU64::get);
    MachineConfig { exclusive: is_exclusive, snapshot_entries, log_kept, ..default }
}

/// Sockets that listen, and where they are.
struct Listening {
    listeners: Vec<Listener<TcpListener>>,
    sockets: Sockets,
    /// The listener for metrics.
    metrics: Option<TcpListener>,
    address: BrokerAddress,
}

impl Listening {
    async fn on(config: &Config) -> Result<Self, BrokerError> {
        let (listener, socket) = bind(&config.listen).await?;
        let (host, port) = config.advertise.clone().unwrap_or_else(|| reachable(socket));
        let mut listeners = vec![Listener { entrance: listener, zone: None }];
        let mut zone_listeners = BTreeMap::new();
        let mut zones = BTreeMap::new();
        for (zone, wanted) in &config.zone_listeners {
            let (listener, at) = bind(&wanted.listen).await?;
            zones.insert(zone.clone(), at);
            let ordinary = || (host.clone(), at.port());
            let (host, port) = wanted.advertise.clone().unwrap_or_else(ordinary);
            zone_listeners.insert(zone.clone(), Endpoint { host, port });
            listeners.push(Listener { entrance: listener, zone: Some(zone.clone()) });
        }
        let peer = config.peer_address.clone().map(|(host, port)| Endpoint { host, port });
        let zone = config.zone.clone();
        let address = BrokerAddress { host, port, zone, peer, zone_listeners };
        let (metrics, metrics_at) = match &config.metrics_listen {
            Some(address) => {
                bind(address).await.map(|(listener, at)| (Some(listener), Some(at)))?
            }
            None => (None, None),
        };
        let sockets = Sockets { address: socket, zones, metrics: metrics_at };
        Ok(Self { listeners, sockets, metrics, address })
    }
}

async fn bind(address: &str) -> Result<(TcpListener, SocketAddr), BrokerError> {
    let failed = |cause| BrokerError::Listen { address: address.to_owned(), cause };
    let listener = TcpListener::bind(address).await.map_err(failed)?;
    let at = listener.local_addr().map_err(failed)?;
    Ok((listener, at))
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
