//! Brokers in this process, over ports that they share.

use std::net::SocketAddr;
use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use odradek::broker::{Broker, Foundation};
use odradek::config::Config;
use odradek_storage::clock::{Clock, SystemClock};
use odradek_storage::engine::Engine;
use odradek_storage::location::{open_log, open_object_store};
use odradek_storage::log::MetadataLog;
use odradek_storage::log::memory::MemoryLog;
use odradek_storage::object::ObjectStore;
use odradek_storage::object::memory::MemoryObjectStore;

/// Some brokers. Those that were stopped or killed leave their place empty.
#[derive(Debug)]
pub struct Cluster {
    /// What they share.
    pub stores: Stores,
    brokers: Vec<Option<Broker>>,
    exclusive: bool,
}

/// No two brokers of a process draw the same numbers, as no two processes do.
static NEXT_SEED: AtomicU64 = AtomicU64::new(1);

impl Cluster {
    /// Brokers over one memory.
    pub async fn in_memory(brokers: usize) -> Self {
        Self::over(memory_stores(), brokers, false).await
    }

    /// One broker over files in `folder`.
    pub async fn in_folder(folder: &Path) -> Self {
        let location = |name: &str| format!("file:{}", folder.join(name).display());
        let log = open_log(&location("log"), "test").await.unwrap().log;
        let objects = open_object_store(&location("objects")).await.unwrap();
        Self::over(Stores { objects, log }, 1, true).await
    }

    /// Brokers over these ports.
    pub async fn over(stores: Stores, brokers: usize, exclusive: bool) -> Self {
        let mut cluster = Self { stores, brokers: Vec::new(), exclusive };
        for _ in 0..brokers {
            cluster.start_one().await;
        }
        cluster
    }

    /// Starts one more broker and returns its place.
    pub async fn start_one(&mut self) -> usize {
        let config = Config { listen: "127.0.0.1:0".to_owned(), ..Config::default() };
        self.start_with(config, Arc::new(SystemClock)).await
    }

    /// Starts one more broker as this says, and returns its place.
    pub async fn start_with(&mut self, config: Config, clock: Arc<dyn Clock>) -> usize {
        self.start(config, clock, false).await
    }

    /// The same over a store that charges for puts.
    pub async fn start_charged(&mut self, config: Config, clock: Arc<dyn Clock>) -> usize {
        self.start(config, clock, true).await
    }

    async fn start(&mut self, config: Config, clock: Arc<dyn Clock>, charged: bool) -> usize {
        let Stores { objects, log } = self.stores.clone();
        let on = Foundation {
            objects,
            log,
            clock,
            is_exclusive: self.exclusive,
            puts_are_charged: charged,
            seed: NEXT_SEED.fetch_add(1, Ordering::Relaxed),
        };
        self.brokers.push(Some(Broker::start(config, on).await.unwrap()));
        self.brokers.len() - 1
    }

    /// Where the broker in this place listens.
    pub fn address(&self, place: usize) -> SocketAddr {
        self.brokers[place].as_ref().unwrap().address()
    }

    /// What the broker in this place stands on.
    pub fn engine(&self, place: usize) -> &Engine {
        self.brokers[place].as_ref().unwrap().engine()
    }

    /// Where it listens for the clients of a zone.
    pub fn zone_address(&self, place: usize, zone: &str) -> SocketAddr {
        self.brokers[place].as_ref().unwrap().zone_address(zone).unwrap()
    }

    /// Takes a broker out of its place, to be stopped aside.
    pub fn take(&mut self, place: usize) -> Broker {
        self.brokers[place].take().unwrap()
    }

    /// Stops a broker as SIGTERM does.
    pub async fn stop(&mut self, place: usize) {
        self.brokers[place].take().unwrap().stop().await;
    }

    /// Ends a broker as SIGKILL does.
    pub fn kill(&mut self, place: usize) {
        self.brokers[place].take().unwrap().kill();
    }
}

/// A store and a log that brokers share.
#[derive(Clone, Debug)]
pub struct Stores {
    /// Where records are.
    pub objects: Arc<dyn ObjectStore>,
    /// Where their order is.
    pub log: Arc<dyn MetadataLog>,
}

/// Fresh ones in memory.
pub fn memory_stores() -> Stores {
    let objects = Arc::new(MemoryObjectStore::default());
    Stores { objects, log: Arc::new(MemoryLog::default()) }
}
