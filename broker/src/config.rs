//! Configuration: flags, environment and file, turned into a [`Config`].
//!
//! A flag wins over the environment, the environment over the file, the file over the default. A
//! key that nobody knows is refused: a setting with a typing error must not be a setting that is
//! ignored.

use std::collections::BTreeMap;
use std::num::NonZeroU64;
use std::path::{Path, PathBuf};
use std::time::Duration;

use clap::Args;
use odradek_storage::life::LifeConfig;
use odradek_storage::life::compactor::CompactorConfig;
use odradek_storage::life::merger::MergerConfig;
use odradek_storage::life::retention::RetentionConfig;
use odradek_storage::life::sweeper::SweeperConfig;
use odradek_storage::reader::DiskCacheConfig;
use serde::Deserialize;

mod addresses;
mod cli;
mod disk_cache;

use addresses::{host_and_port, zone_listeners};
use disk_cache::disk_cache;

pub use cli::Task;

/// The settings as they are given: all optional.
#[derive(Args, Clone, Debug, Default, Deserialize, PartialEq, Eq)]
#[serde(deny_unknown_fields, rename_all = "kebab-case")]
pub struct Settings {
    /// Address to listen on; port 0 takes a free one [default: 127.0.0.1:9092].
    #[arg(long, value_name = "HOST:PORT")]
    listen: Option<String>,
    /// Address that clients are told to connect to [default: the one listened on].
    #[arg(long, value_name = "HOST:PORT")]
    advertise: Option<String>,
    /// Availability zone of this broker. Clients that name the same zone in their client id
    /// (zone=NAME) are led to brokers in it.
    #[arg(long, value_name = "NAME")]
    zone: Option<String>,
    /// Address at which other brokers reach this one [default: the one that clients are told].
    #[arg(long, value_name = "HOST:PORT")]
    peer_address: Option<String>,
    /// Further addresses to listen on, each for the clients of one zone that can't name it
    /// themselves: ZONE=HOST:PORT, separated by commas.
    #[arg(long, value_name = "ZONE=HOST:PORT,...")]
    zone_listen: Option<String>,
    /// Addresses that the clients of these listeners are told [default: the advertised host, and
    /// the port listened on].
    #[arg(long, value_name = "ZONE=HOST:PORT,...")]
    zone_advertise: Option<String>,
    /// Address at which /metrics, /healthz and /readyz are served over plain HTTP to whoever asks
    /// [default: none].
    #[arg(long, value_name = "HOST:PORT")]
    metrics_listen: Option<String>,
    /// Cluster that this broker belongs to: brokers with the same store, log and cluster share
    /// everything [default: odradek].
    #[arg(long, value_name = "NAME")]
    cluster: Option<String>,
    /// Where records are kept: s3://BUCKET/PREFIX, file:DIR or memory: [default: file: in the data
    /// folder]. Options of s3: region=NAME, endpoint=URL, create=true.
    #[arg(long, value_name = "URL")]
    store: Option<String>,
    /// Where their order is kept: dynamodb://TABLE, file:DIR or memory: [default: file: in the data
    /// folder]. Options of dynamodb: as of s3.
    #[arg(long, value_name = "URL")]
    log: Option<String>,
    /// Folder for both [default: ./odradek-data].
    #[arg(long, value_name = "DIR")]
    data: Option<PathBuf>,
    /// Longest request that is taken, in bytes [default: 104857600].
    #[arg(long, value_name = "BYTES")]
    request_bytes_max: Option<usize>,
    /// Bytes that requests in flight may take; when they are spent, sockets are not read. As many
    /// again may be in answers that clients have yet to take [default: 536870912].
    #[arg(long, value_name = "BYTES")]
    memory: Option<usize>,
    /// Bytes of record blocks that are kept in memory for consumers [default: 268435456].
    #[arg(long, value_name = "BYTES")]
    cache: Option<u64>,
    /// Folder in which blocks are kept besides, on a disk of this broker [default: none].
    #[arg(long, value_name = "DIR")]
    disk_cache: Option<PathBuf>,
    /// Bytes that its files may have [default: 10737418240].
    #[arg(long, value_name = "BYTES")]
    disk_cache_bytes: Option<u64>,
    /// A segment is written when it holds this many bytes of batches [default: 8388608].
    #[arg(long, value_name = "BYTES")]
    segment_bytes_max: Option<usize>,
    /// A segment is written at the latest this many milliseconds after its first batch came
    /// [default: 250]. On files it is written as soon as the one before it is.
    #[arg(long, value_name = "MS")]
    linger_ms: Option<u64>,
    /// Up to this many bytes of batches travel in the log instead of a segment of their own; 0 for
    /// none [default: 8192, or 65536 where segments are files].
    #[arg(long, value_name = "BYTES")]
    inline_bytes: Option<usize>,
    /// Segments are merged to about this many bytes; twice as much is in memory meanwhile
    /// [default: 67108864].
    #[arg(long, value_name = "BYTES")]
    merge_bytes: Option<u64>,
    /// How often segments are looked through for some to merge [default: 10000].
    #[arg(long, value_name = "MS")]
    merge_interval_ms: Option<u64>,
    /// How often compacted topics are looked through for some that are due [default: 15000].
    #[arg(long, value_name = "MS")]
    compaction_interval_ms: Option<u64>,
    /// How often records and deleted topics are looked through for what is due [default: 10000].
    #[arg(long, value_name = "MS")]
    retention_check_ms: Option<u64>,
    /// How long what was in a deleted topic is kept: a branch of it brings it back
    /// [default: 3600000].
    #[arg(long, value_name = "MS")]
    delete_grace_ms: Option<u64>,
    /// Lets go of all that is due at once. Without this a topic lets go of a tenth of itself an
    /// hour beside what its retention.ms makes due in that time, so that a wrong clock does no
    /// more.
    #[arg(long, value_name = "BOOL", num_args = 0..=1, default_missing_value = "true")]
    retention_at_once: Option<bool>,
    /// How often objects that nothing refers to are deleted [default: 60000].
    #[arg(long, value_name = "MS")]
    sweep_interval_ms: Option<u64>,
    /// How long objects stay that nothing refers to any more, and how long one may take from its
    /// first batch to its commit [default: 600000].
    #[arg(long, value_name = "MS")]
    sweep_grace_ms: Option<u64>,
    /// How often the store is listed to find objects that were never committed [default: 3600000].
    #[arg(long, value_name = "MS")]
    sweep_listing_ms: Option<u64>,
    /// A snapshot, from which brokers start, is written after this many entries of the log, or an
    /// hour, or 64 MiB of entries, whichever comes first [default: 8192].
    #[arg(long, value_name = "COUNT")]
    snapshot_entries: Option<NonZeroU64>,
    /// How old an entry of the log must be, in milliseconds, before it is trimmed behind two
    /// snapshots. It is counted while the broker runs [default: 86400000; on files 0].
    #[arg(long, value_name = "MS")]
    log_kept_ms: Option<u64>,
    /// What is logged to standard error: error, warn, info, debug, trace, or a list of
    /// target=level [default: info].
    #[arg(long, value_name = "FILTER")]
    log_level: Option<String>,
    /// File with settings, in TOML.
    #[arg(long, value_name = "FILE")]
    #[serde(skip)]
    config: Option<PathBuf>,
}

/// How a broker is to run.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Config {
    /// Address to listen on.
    pub listen: String,
    /// Address that clients are told, if another.
    pub advertise: Option<(String, u16)>,
    /// Availability zone.
    pub zone: Option<String>,
    /// Address that other brokers use, if another than clients do.
    pub peer_address: Option<(String, u16)>,
    /// Listeners for zones.
    pub zone_listeners: BTreeMap<String, ZoneListener>,
    /// Address of the listener for metrics, if there is to be one.
    pub metrics_listen: Option<String>,
    /// Name of the cluster, and of its log.
    pub cluster: String,
    /// Location of the object store.
    pub store: String,
    /// Location of the log.
    pub log: String,
    /// Longest request that is taken, in bytes.
    pub request_bytes_max: usize,
    /// Bytes that requests in flight may take.
    pub memory_bytes: usize,
    /// Bytes of record blocks kept in memory.
    pub cache_bytes: u64,
    /// Where they are kept on disk, if they are.
    pub disk_cache: Option<DiskCacheConfig>,
    /// Bytes of batches after which a segment is written.
    pub segment_bytes_max: usize,
    /// Time after which a segment is written.
    pub linger: Duration,
    /// Bytes of batches that travel in the log; none for the default of the store.
    pub inline_bytes: Option<usize>,
    /// What becomes of segments.
    pub life: Life,
    /// After how many entries a snapshot is written, if not after as many as usual.
    pub snapshot_entries: Option<NonZeroU64>,
    /// How old an entry of the log must be before it is trimmed, if not as old as usual.
    pub log_kept: Option<Duration>,
    /// What is logged.
    pub log_level: String,
}

/// What becomes of segments.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Life {
    /// Bytes that segments are merged to.
    pub merge_bytes: u64,
    /// How often they are looked through.
    pub merge_interval: Duration,
    /// How often compacted topics are looked through.
    pub compaction_interval: Duration,
    /// How often records and deleted topics are looked through for what is due.
    pub retention_check: Duration,
    /// How long what was in a deleted topic is kept.
    pub delete_grace: Duration,
    /// Whether all that is due goes at once.
    pub retention_at_once: bool,
    /// How often objects that nothing refers to are deleted.
    pub sweep_interval: Duration,
    /// How long they stay.
    pub sweep_grace: Duration,
    /// How often the store is listed.
    pub sweep_listing: Duration,
}

impl Default for Life {
    fn default() -> Self {
        let LifeConfig { compactor, merger, retention, sweeper } = LifeConfig::default();
        Self {
            merge_bytes: merger.unit_bytes,
            merge_interval: merger.interval,
            compaction_interval: compactor.interval,
            retention_check: retention.interval,
            delete_grace: retention.deleted_kept,
            retention_at_once: retention.at_once,
            sweep_interval: sweeper.interval,
            sweep_grace: sweeper.grace,
            sweep_listing: sweeper.listing_interval,
        }
    }
}

impl Life {
    /// For the engine; `footer_bytes_min` as in `WriterConfig`.
    pub fn to_engine(self, footer_bytes_min: Option<u32>) -> LifeConfig {
        let LifeConfig { compactor, merger, sweeper, .. } = LifeConfig::default();
        LifeConfig {
            retention: RetentionConfig {
                interval: self.retention_check,
                deleted_kept: self.delete_grace,
                at_once: self.retention_at_once,
            },
            compactor: CompactorConfig {
                interval: self.compaction_interval,
                footer_bytes_min,
                ..compactor
            },
            merger: MergerConfig {
                unit_bytes: self.merge_bytes,
                interval: self.merge_interval,
                footer_bytes_min,
                ..merger
            },
            sweeper: SweeperConfig {
                interval: self.sweep_interval,
                commit_max: self.sweep_grace,
                grace: self.sweep_grace,
                listing_interval: self.sweep_listing,
                ..sweeper
            },
        }
    }
}

/// A listener for the clients of one zone.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ZoneListener {
    /// Address to listen on.
    pub listen: String,
    /// Address that its clients are told, if another.
    pub advertise: Option<(String, u16)>,
}

/// What is wrong with the settings: a sentence.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("{0}")]
pub struct ConfigError(String);

impl Default for Config {
    fn default() -> Self {
        Self {
            listen: "127.0.0.1:9092".to_owned(),
            advertise: None,
            zone: None,
            peer_address: None,
            zone_listeners: BTreeMap::new(),
            metrics_listen: None,
            cluster: "odradek".to_owned(),
            store: "memory:".to_owned(),
            log: "memory:".to_owned(),
            request_bytes_max: 100 * 1024 * 1024,
            memory_bytes: 512 * 1024 * 1024,
            cache_bytes: 256 * 1024 * 1024,
            disk_cache: None,
            segment_bytes_max: 8 * 1024 * 1024,
            linger: Duration::from_millis(250),
            inline_bytes: None,
            life: Life::default(),
            snapshot_entries: None,
            log_kept: None,
            log_level: "info".to_owned(),
        }
    }
}

impl Config {
    /// Reads the arguments of the process, its environment and the file they name.
    ///
    /// Ends the process for `--help`, `--version` and arguments that make no sense, as clap does.
    pub fn from_process() -> Result<(Task, Self), ConfigError> {
        let (task, flags) = cli::parse();
        let environment = from_environment(std::env::vars())?;
        let given = flags.over(environment);
        let file = match &given.config {
            Some(path) => from_file(path)?,
            None => Settings::default(),
        };
        Ok((task, Self::from_settings(given.over(file))?))
    }

    fn from_settings(settings: Settings) -> Result<Self, ConfigError> {
        let default = Self::default();
        let data = settings.data.unwrap_or_else(|| PathBuf::from("./odradek-data"));
        let under_data = |name: &str| format!("file:{}", data.join(name).display());
        let advertise = settings.advertise.as_deref().map(host_and_port).transpose()?;
        let peer_address = settings.peer_address.as_deref().map(host_and_port).transpose()?;
        let zone_listeners = zone_listeners(
            settings.zone_listen.as_deref().unwrap_or_default(),
            settings.zone_advertise.as_deref().unwrap_or_default(),
        )?;
        let cluster = settings.cluster.unwrap_or(default.cluster);
        let legal = |c: char| c.is_ascii_alphanumeric() || c == '-' || c == '_';
        if cluster.is_empty() || !cluster.chars().all(legal) {
            return Err(ConfigError(format!(
                "cluster {cluster:?} is no name: use a-z, 0-9, - and _"
            )));
        }
        let config = Self {
            listen: settings.listen.unwrap_or(default.listen),
            advertise,
            zone: settings.zone,
            peer_address,
            zone_listeners,
            metrics_listen: settings.metrics_listen,
            cluster,
            store: settings.store.unwrap_or_else(|| under_data("objects")),
            log: settings.log.unwrap_or_else(|| under_data("log")),
            request_bytes_max: settings.request_bytes_max.unwrap_or(default.request_bytes_max),
            memory_bytes: settings.memory.unwrap_or(default.memory_bytes),
            cache_bytes: settings.cache.unwrap_or(default.cache_bytes),
            disk_cache: disk_cache(settings.disk_cache, settings.disk_cache_bytes)?,
            segment_bytes_max: settings.segment_bytes_max.unwrap_or(default.segment_bytes_max),
            linger: settings.linger_ms.map_or(default.linger, Duration::from_millis),
            inline_bytes: settings.inline_bytes,
            life: Life {
                merge_bytes: settings.merge_bytes.unwrap_or(default.life.merge_bytes),
                merge_interval: ms(settings.merge_interval_ms, default.life.merge_interval),
                compaction_interval: ms(
                    settings.compaction_interval_ms,
                    default.life.compaction_interval,
                ),
                retention_check: ms(settings.retention_check_ms, default.life.retention_check),
                delete_grace: ms(settings.delete_grace_ms, default.life.delete_grace),
                retention_at_once: settings
                    .retention_at_once
                    .unwrap_or(default.life.retention_at_once),
                sweep_interval: ms(settings.sweep_interval_ms, default.life.sweep_interval),
                sweep_grace: ms(settings.sweep_grace_ms, default.life.sweep_grace),
                sweep_listing: ms(settings.sweep_listing_ms, default.life.sweep_listing),
            },
            snapshot_entries: settings.snapshot_entries,
            log_kept: settings.log_kept_ms.map(Duration::from_millis),
            log_level: settings.log_level.unwrap_or(default.log_level),
        };
        config.check()
    }

    fn check(self) -> Result<Self, ConfigError> {
        let limits = [
            ("request-bytes-max", self.request_bytes_max, 1024, 1 << 30),
            ("memory", self.memory_bytes, 1 << 20, 1 << 40),
            ("segment-bytes-max", self.segment_bytes_max, 1024, 256 << 20),
            ("inline-bytes", self.inline_bytes.unwrap_or(0), 0, 64 << 10),
        ];
        for (name, value, least, most) in limits {
            if !(least..=most).contains(&value) {
                return Err(ConfigError(format!("{name} is {value}, not from {least} to {most}")));
            }
        }
        host_and_port(&self.listen)?;
        self.metrics_listen.as_deref().map(host_and_port).transpose()?;
        Ok(self)
    }
}

impl Settings {
    /// These settings, and those of `other` where these say nothing.
    fn over(self, other: Self) -> Self {
        Self {
            listen: self.listen.or(other.listen),
            advertise: self.advertise.or(other.advertise),
            zone: self.zone.or(other.zone),
            peer_address: self.peer_address.or(other.peer_address),
            zone_listen: self.zone_listen.or(other.zone_listen),
            zone_advertise: self.zone_advertise.or(other.zone_advertise),
            metrics_listen: self.metrics_listen.or(other.metrics_listen),
            cluster: self.cluster.or(other.cluster),
            store: self.store.or(other.store),
            log: self.log.or(other.log),
            data: self.data.or(other.data),
            request_bytes_max: self.request_bytes_max.or(other.request_bytes_max),
            memory: self.memory.or(other.memory),
            cache: self.cache.or(other.cache),
            disk_cache: self.disk_cache.or(other.disk_cache),
            disk_cache_bytes: self.disk_cache_bytes.or(other.disk_cache_bytes),
            segment_bytes_max: self.segment_bytes_max.or(other.segment_bytes_max),
            linger_ms: self.linger_ms.or(other.linger_ms),
            inline_bytes: self.inline_bytes.or(other.inline_bytes),
            merge_bytes: self.merge_bytes.or(other.merge_bytes),
            merge_interval_ms: self.merge_interval_ms.or(other.merge_interval_ms),
            compaction_interval_ms: self.compaction_interval_ms.or(other.compaction_interval_ms),
            retention_check_ms: self.retention_check_ms.or(other.retention_check_ms),
            delete_grace_ms: self.delete_grace_ms.or(other.delete_grace_ms),
            retention_at_once: self.retention_at_once.or(other.retention_at_once),
            sweep_interval_ms: self.sweep_interval_ms.or(other.sweep_interval_ms),
            sweep_grace_ms: self.sweep_grace_ms.or(other.sweep_grace_ms),
            sweep_listing_ms: self.sweep_listing_ms.or(other.sweep_listing_ms),
            snapshot_entries: self.snapshot_entries.or(other.snapshot_entries),
            log_kept_ms: self.log_kept_ms.or(other.log_kept_ms),
            log_level: self.log_level.or(other.log_level),
            config: self.config.or(other.config),
        }
    }
}

fn ms(given: Option<u64>, default: Duration) -> Duration {
    given.map_or(default, Duration::from_millis)
}

/// The settings in `ODRADEK_*` variables: read as the lines of a file would be.
fn from_environment(
    variables: impl Iterator<Item = (String, String)>,
) -> Result<Settings, ConfigError> {
    let mut table = toml::Table::new();
    let mut config = None;
    for (name, value) in variables {
        let Some(key) = name.strip_prefix("ODRADEK_") else { continue };
        let key = key.to_ascii_lowercase().replace('_', "-");
        if key == "config" {
            config = Some(PathBuf::from(value));
            continue;
        }
        let number = value.parse().map(toml::Value::Integer);
        // A zone, a cluster or a folder may be called by a number.
        let is_text =
            ["zone", "cluster", "data", "disk-cache", "log-level"].contains(&key.as_str());
        let value = match number {
            Ok(number) if !is_text => number,
            _ => toml::Value::String(value),
        };
        table.insert(key, value);
    }
    let settings: Settings = table
        .try_into()
        .map_err(|error| ConfigError(format!("environment (ODRADEK_*): {}", one_line(&error))))?;
    Ok(Settings { config, ..settings })
}

fn from_file(path: &Path) -> Result<Settings, ConfigError> {
    let said = |what: String| ConfigError(format!("{}: {what}", path.display()));
    let text = std::fs::read_to_string(path).map_err(|error| said(error.to_string()))?;
    toml::from_str(&text).map_err(|error| said(one_line(&error)))
}

/// Whether a file of this content makes a configuration; if not, why.
#[cfg(feature = "test-util")]
pub(crate) fn check_file(text: &str) -> Result<(), String> {
    let settings = toml::from_str(text).map_err(|error| one_line(&error))?;
    Config::from_settings(settings).map(drop).map_err(|error| error.to_string())
}

fn one_line(error: &toml::de::Error) -> String {
    error.message().replace('\n', ", ")
}

#[cfg(test)]
mod tests;
