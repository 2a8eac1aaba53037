//! Brokers in this process, over ports that they share.

use std::net::SocketAddr;
use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use odradek::broker::Broker;
use odradek::config::Config;
use odradek_storage::clock::SystemClock;
use odradek_storage::engine::Ports;
use odradek_storage::location::{open_log, open_object_store};

/// Some brokers. Those that were stopped or killed leave their place empty.
#[derive(Debug)]
pub struct Cluster {
    /// What they share.
    pub ports: Ports,
    brokers: Vec<Option<Broker>>,
    exclusive: bool,
}

/// No two brokers of a process draw the same numbers, as no two processes do.
static NEXT_SEED: AtomicU64 = AtomicU64::new(1);

impl Cluster {
    /// Brokers over one memory.
    pub async fn in_memory(brokers: usize) -> Self {
        Self::over(memory_ports(), brokers, false).await
    }

    /// One broker over files in `folder`.
    pub async fn in_folder(folder: &Path) -> Self {
        let location = |name: &str| format!("file:{}", folder.join(name).display());
        let log = open_log(&location("log"), "test").unwrap().log;
        let objects = open_object_store(&location("objects")).unwrap();
        Self::over(Ports { objects, log, clock: Arc::new(SystemClock) }, 1, true).await
    }

    /// Brokers over these ports.
    pub async fn over(ports: Ports, brokers: usize, exclusive: bool) -> Self {
        let mut cluster = Self { ports, brokers: Vec::new(), exclusive };
        for _ in 0..brokers {
            cluster.start_one().await;
        }
        cluster
    }

    /// Starts one more broker and returns its place.
    pub async fn start_one(&mut self) -> usize {
        let config = Config { listen: "127.0.0.1:0".to_owned(), ..Config::default() };
        let seed = NEXT_SEED.fetch_add(1, Ordering::Relaxed);
        let broker = Broker::start(config, self.ports.clone(), self.exclusive, seed).await;
        self.brokers.push(Some(broker.unwrap()));
        self.brokers.len() - 1
    }

    /// Where the broker in this place listens.
    pub fn address(&self, place: usize) -> SocketAddr {
        self.brokers[place].as_ref().unwrap().address()
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

/// Fresh ports in memory.
pub fn memory_ports() -> Ports {
    Ports {
        objects: open_object_store("memory:").unwrap(),
        log: open_log("memory:", "test").unwrap().log,
        clock: Arc::new(SystemClock),
    }
}
