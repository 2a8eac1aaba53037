//! A broker over files that take as long to answer as S3 and DynamoDB do.
//!
//! The files of a machine answer at once; what waits for a store is seen only over one that lets
//! wait. This is the broker as it is, with its own flags, and each call takes longer: by what is
//! drawn from a lognormal distribution, and by what the bandwidth of a connection to the store says
//! of the bytes that go in or come out.

use std::fmt;
use std::num::NonZeroUsize;
use std::ops::Range;
use std::process::Command;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use async_trait::async_trait;
use bytes::Bytes;
use odradek::broker::{Broker, Foundation};
use odradek::config::Config;
use odradek_storage::clock::SystemClock;
use odradek_storage::location::{open_log, open_object_store};
use odradek_storage::log::{Append, Freshness, LogRead, Lsn, MetadataLog};
use odradek_storage::object::{ObjectKey, ObjectMeta, ObjectStore, Put};
use odradek_storage::port::PortError;
use rand::SeedableRng;
use rand::rngs::StdRng;
use rand_distr::{Distribution, LogNormal};
use tokio::signal::unix::{SignalKind, signal};
use tokio::time::sleep;

/// Says that this process is to be a broker, and over what.
const VARIABLE: &str = "DELAYED_BROKER";

/// What a connection to S3 carries in a second.
const BYTES_PER_SECOND: f64 = 90e6;

/// How far the 99th percentile of a normal distribution lies from its mean, in deviations.
const DEVIATIONS: f64 = 2.326;

/// How long calls take: half of them less than `p50`, one of a hundred more than `p99`.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Delays {
    /// In milliseconds.
    pub(crate) p50: f64,
    /// In milliseconds.
    pub(crate) p99: f64,
}

/// S3 as it is, S3 in one zone, and DynamoDB.
pub(crate) const STANDARD: Delays = Delays { p50: 30.0, p99: 120.0 };
pub(crate) const EXPRESS: Delays = Delays { p50: 7.0, p99: 20.0 };
pub(crate) const DYNAMODB: Delays = Delays { p50: 5.0, p99: 15.0 };

/// What a broker is over.
#[derive(Clone, Copy, Debug, PartialEq)]
pub(crate) enum Kind {
    Standard,
    Express,
}

impl Delays {
    /// How long a call takes that carries so many bytes.
    pub(crate) fn draw(self, bytes: usize, random: &mut StdRng) -> Duration {
        let Self { p50, p99 } = self;
        let drawn = LogNormal::new(p50.ln(), (p99 / p50).ln() / DEVIATIONS).unwrap();
        let carried = f64::from(u32::try_from(bytes).unwrap()) / BYTES_PER_SECOND;
        Duration::from_secs_f64(drawn.sample(random) / 1000.0 + carried)
    }
}

impl fmt::Display for Delays {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}/{} ms", self.p50, self.p99)
    }
}

impl Kind {
    /// How long the store takes; the log is always DynamoDB.
    pub(crate) fn delays(self) -> Delays {
        match self {
            Self::Standard => STANDARD,
            Self::Express => EXPRESS,
        }
    }

    /// A program that is such a broker: this one.
    pub(crate) fn program(self) -> Command {
        let mut command = Command::new(std::env::current_exe().unwrap());
        command.env(VARIABLE, format!("{self:?}"));
        command
    }

    /// What this process is to be a broker over, if it is to be one.
    pub(crate) fn asked_for() -> Option<Self> {
        let name = std::env::var(VARIABLE).ok()?;
        [Self::Standard, Self::Express].into_iter().find(|it| format!("{it:?}") == name)
    }

    /// Serves until SIGTERM.
    pub(crate) async fn serve(self) {
        let (_, config) = Config::from_process().unwrap();
        let mut terminate = signal(SignalKind::terminate()).unwrap();
        let log = open_log(&config.log, &config.cluster).await.unwrap();
        let objects = open_object_store(&config.store).await.unwrap();
        let on = Foundation {
            objects: Arc::new(Delayed::new(objects, 1, self.delays())),
            log: Arc::new(Delayed::new(log.log, 2, DYNAMODB)),
            clock: Arc::new(SystemClock),
            is_exclusive: log.exclusive,
            puts_are_charged: true,
            seed: std::process::id().into(),
        };
        let broker = Broker::start(config, on).await.unwrap();
        terminate.recv().await;
        broker.stop().await;
    }
}

/// A store or a log behind a delay.
#[derive(Debug)]
struct Delayed<T> {
    inner: T,
    delays: Delays,
    random: Mutex<StdRng>,
}

impl<T> Delayed<T> {
    fn new(inner: T, seed: u64, delays: Delays) -> Self {
        Self { inner, delays, random: Mutex::new(StdRng::seed_from_u64(seed)) }
    }

    async fn delay(&self, bytes: usize) {
        sleep(self.draw(bytes)).await;
    }

    fn draw(&self, bytes: usize) -> Duration {
        let mut random = self.random.lock().unwrap_or_else(PoisonError::into_inner);
        self.delays.draw(bytes, &mut random)
    }
}

#[async_trait]
impl ObjectStore for Delayed<Arc<dyn ObjectStore>> {
    async fn put_if_absent(&self, key: &ObjectKey, bytes: Bytes) -> Result<Put, PortError> {
        self.delay(bytes.len()).await;
        self.inner.put_if_absent(key, bytes).await
    }

    async fn get_range(
        &self,
        key: &ObjectKey,
        range: Range<u64>,
    ) -> Result<Option<Bytes>, PortError> {
        let got = self.inner.get_range(key, range).await?;
        self.delay(got.as_ref().map_or(0, Bytes::len)).await;
        Ok(got)
    }

    async fn list(
        &self,
        prefix: &str,
        after: Option<&ObjectKey>,
        limit: NonZeroUsize,
    ) -> Result<Vec<ObjectMeta>, PortError> {
        self.delay(0).await;
        self.inner.list(prefix, after, limit).await
    }

    async fn delete(&self, keys: &[ObjectKey]) -> Result<(), PortError> {
        self.delay(0).await;
        self.inner.delete(keys).await
    }
}

#[async_trait]
impl MetadataLog for Delayed<Arc<dyn MetadataLog>> {
    async fn append(&self, at: Lsn, bytes: Bytes) -> Result<Append, PortError> {
        self.delay(0).await;
        self.inner.append(at, bytes).await
    }

    async fn read(
        &self,
        from: Lsn,
        limit: NonZeroUsize,
        freshness: Freshness,
    ) -> Result<LogRead, PortError> {
        self.delay(0).await;
        self.inner.read(from, limit, freshness).await
    }

    async fn tail(&self) -> Result<Lsn, PortError> {
        self.delay(0).await;
        self.inner.tail().await
    }

    async fn trim(&self, before: Lsn) -> Result<(), PortError> {
        self.delay(0).await;
        self.inner.trim(before).await
    }
}
