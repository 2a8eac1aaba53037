//! The settings of an engine in a simulated world: what otherwise takes hours is done at once and
//! in small portions, so that a world of minutes sees all of it.

use std::num::NonZeroUsize;
use std::time::Duration;

use odradek_storage::command::BrokerAddress;
use odradek_storage::engine::EngineConfig;
use odradek_storage::life::LifeConfig;
use odradek_storage::life::compactor::CompactorConfig;
use odradek_storage::life::merger::MergerConfig;
use odradek_storage::life::retention::RetentionConfig;
use odradek_storage::life::sweeper::SweeperConfig;
use odradek_storage::machine::MachineConfig;
use odradek_storage::reader::ReaderConfig;
use odradek_storage::writer::WriterConfig;

/// How long entries of the log are kept: longer than anybody is out of reach of it, and shorter
/// than a world lives.
const LOG_KEPT: Duration = Duration::from_secs(8);

/// How long what was in a deleted topic is kept.
pub const DELETED_KEPT: Duration = Duration::from_secs(15);

/// The settings of the broker that is started as number `number`.
pub fn engine(
    number: u64,
    seed: u64,
    snapshot_entries: u64,
    inline_bytes_max: usize,
    mut life: LifeConfig,
) -> EngineConfig {
    // Every second broker leaves all that it can to footers, the others nothing.
    let footer_bytes_min = seed.is_multiple_of(2).then_some(0);
    life.merger.footer_bytes_min = footer_bytes_min;
    life.compactor.footer_bytes_min = footer_bytes_min;
    EngineConfig {
        address: address(number),
        seed,
        machine: MachineConfig {
            snapshot_entries,
            digest_entries: 7,
            log_kept: LOG_KEPT,
            append_attempt_max: Duration::from_millis(500),
            ..MachineConfig::default()
        },
        writer: WriterConfig {
            linger_max: Duration::from_millis(20),
            put_attempt_max: Duration::from_millis(500),
            segment_bytes_max: 2000,
            inline_bytes_max,
            footer_bytes_min,
            ..WriterConfig::default()
        },
        reader: reader((seed / 2).is_multiple_of(2)),
        life,
    }
}

/// Holds little in memory, so that blocks are read from the store as well.
fn reader(gathers: bool) -> ReaderConfig {
    let default = ReaderConfig { cache_bytes_max: 4096, ..ReaderConfig::default() };
    if gathers {
        // Of which a quarter is room for two segments as they are read.
        let (gather, ask_max) = (Duration::from_millis(2), Duration::from_millis(100));
        return ReaderConfig { gather, ask_max, cache_bytes_max: 16 * 1024, ..default };
    }
    default
}

/// Where the broker that is started as number `number` can be reached, and its zone: two of three
/// are neighbours.
pub fn address(number: u64) -> BrokerAddress {
    let zone = Some(if number.is_multiple_of(3) { "b" } else { "a" }.to_owned());
    BrokerAddress { host: format!("broker-{number}"), port: 9092, zone, ..BrokerAddress::default() }
}

/// The tasks that move, expire, rewrite and delete data, each a few times in ten ticks, with merged
/// segments of about so many bytes.
pub fn life(tick: Duration, unit_bytes: u64) -> LifeConfig {
    LifeConfig {
        compactor: CompactorConfig {
            interval: tick * 9,
            keys_max: 8,
            window_bytes: 3000,
            segment_bytes: 4000,
            segment_age_max: tick * 20,
            unreadable_pause_max: tick * 20,
            zstd_level: None,
            ..CompactorConfig::default()
        },
        merger: MergerConfig {
            interval: tick * 7,
            unit_bytes,
            unit_segments_max: NonZeroUsize::new(10).unwrap(),
            inline_bytes_max: 1000,
            garbage_bytes_min: 2000,
            zstd_level: None,
            ..MergerConfig::default()
        },
        retention: RetentionConfig {
            interval: tick * 8,
            deleted_kept: DELETED_KEPT,
            at_once: false,
        },
        sweeper: SweeperConfig {
            interval: tick * 5,
            commit_max: tick * 40,
            grace: grace(tick),
            listing_interval: tick * 30,
            objects_per_request: NonZeroUsize::new(7).unwrap(),
        },
    }
}

/// How long what nothing refers to any more can still be read.
pub fn grace(tick: Duration) -> Duration {
    tick * 20
}
