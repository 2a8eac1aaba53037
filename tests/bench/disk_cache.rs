//! What a disk cache is worth to who reads what is old: how fast it is read, and what is asked of
//! the store and of the processor for it, with the cache, divided by the same without.
//!
//! Three kinds of readings, each of all that was written and from a broker that has just started,
//! so that nothing of it is in memory; and it is more than the broker keeps there for such readers.
//! In the order A B C A B C...:
//!
//! - *without*: there is no cache.
//! - *first*: there is one, with nothing in it.
//! - *second*: everything is in it, from the reading before.
//!
//! Over files, and over the same files with the delays of S3.
//!
//! ```text
//! cargo build --release
//! cargo run --release -p odradek-tests --features benches --bin disk_cache
//! ```
//!
//! `ROUNDS` and `OLD_MIB` in the environment change how much is done, `DISK` is the folder that
//! stands for the disk. Writes `tests/bench/disk_cache.md`.

#![expect(clippy::unwrap_used, reason = "a benchmark fails by panicking")]
#![expect(clippy::disallowed_methods, reason = "a benchmark asks the clock")]

use std::fmt::Write as _;
use std::path::Path;
use std::process::Command;
use std::time::{Duration, Instant};

use figures::{Figures, table};
use machine::{load, machine};
use odradek_tests::process::{BrokerProcess, built, how_built};
use old::{new_places, read_more};
use settings::number;
use tokio::time::sleep;

mod delayed;
mod figures;
mod machine;
mod old;
mod settings;

/// Where nothing is written to a disk.
const MEMORY: &str = "/dev/shm";

/// Blocks are all on disk if none came for so long.
const WRITING_PAUSE_MAX: Duration = Duration::from_secs(1);

const KINDS: [&str; 3] = ["without", "first", "second"];

/// What came of the readings of a kind, one of each round.
#[derive(Default)]
struct Readings {
    mib_per_second: Vec<f64>,
    gets_per_gib: Vec<f64>,
    processor_ms_per_gib: Vec<f64>,
}

/// How brokers are made over the stores.
#[derive(Clone, Copy, PartialEq)]
enum Stores {
    Files,
    Delayed,
}

impl Stores {
    fn start(self, folder: &Path, further: &[&str]) -> BrokerProcess {
        let mut program = match self {
            Self::Files => Command::new(built()),
            Self::Delayed => delayed::Kind::Standard.program(),
        };
        let data = ["--data", folder.to_str().unwrap()];
        let flags = [&data[..], &old::NO_MERGING, further].concat();
        BrokerProcess::start_as(&mut program, flags)
    }
}

impl Readings {
    /// Reads everything once.
    async fn add(&mut self, broker: &BrokerProcess) {
        let mut client = broker.client().await;
        let gets = gets(broker).await;
        let (processor, began) = (broker.process.processor_seconds(), Instant::now());
        let (mut places, mut bytes) = (new_places(), 0.0);
        while !places.iter().all(|it| it.is_at_end()) {
            bytes += read_more(&mut client, &mut places).await;
        }
        let (lasted, mib) = (began.elapsed().as_secs_f64(), bytes / f64::from(1 << 20));
        let processor = broker.process.processor_seconds() - processor;
        let gets = self::gets(broker).await - gets;
        self.mib_per_second.push(mib / lasted);
        self.gets_per_gib.push(gets / mib * 1024.0);
        self.processor_ms_per_gib.push(processor * 1000.0 / mib * 1024.0);
    }

    fn figures(self, kind: &str) -> Figures {
        let mut figures = Figures::new(kind.to_owned());
        figures.note_median("MiB/s to the consumer", self.mib_per_second);
        let rounds = f64::from(u32::try_from(self.gets_per_gib.len()).unwrap());
        figures.note("GETs for a GiB, mean", self.gets_per_gib.iter().sum::<f64>() / rounds);
        figures.note_median("processor of the broker for a GiB, ms", self.processor_ms_per_gib);
        figures
    }
}

async fn gets(broker: &BrokerProcess) -> f64 {
    broker.metrics().await.sum("odradek_store_request_seconds_count{operation=\"get\"")
}

/// Waits until all blocks that were read are on disk.
async fn wait_written(broker: &BrokerProcess) {
    let mut before = -1.0;
    loop {
        let held = broker.metrics().await.sum("odradek_disk_cache_held_bytes");
        if held == before {
            return;
        }
        before = held;
        sleep(WRITING_PAUSE_MAX).await;
    }
}

/// Rounds of all kinds over a folder of what is old.
async fn measure(stores: Stores, folder: &Path, disk: &Path, rounds: u32) -> [Figures; 3] {
    let mut readings: [Readings; 3] = Default::default();
    for round in 1..=rounds {
        let cache = tempfile::tempdir_in(disk).unwrap();
        let with_cache = ["--disk-cache", cache.path().to_str().unwrap()];
        for (number, of_kind) in readings.iter_mut().enumerate() {
            let broker = stores.start(folder, if number == 0 { &[] } else { &with_cache });
            // Whoever shows metrics serves.
            broker.metrics().await;
            of_kind.add(&broker).await;
            if number != 0 {
                wait_written(&broker).await;
            }
            broker.process.stop();
            let mib_per_second = of_kind.mib_per_second.last().unwrap();
            println!("round {round}, {}: {mib_per_second:.0} MiB/s", KINDS[number]);
        }
    }
    let mut kinds = KINDS.iter();
    readings.map(|it| it.figures(kinds.next().unwrap()))
}

fn main() {
    let runtime = tokio::runtime::Runtime::new().unwrap();
    match delayed::Kind::asked_for() {
        Some(kind) => runtime.block_on(kind.serve()),
        None => runtime.block_on(measure_all()),
    }
}

async fn measure_all() {
    let before = load();
    let (rounds, old_mib) = (number("ROUNDS", 5), number("OLD_MIB", 512));
    let disk = std::env::var("DISK").unwrap_or_else(|_| MEMORY.to_owned());
    let folder = tempfile::tempdir_in(MEMORY).unwrap();
    let data = folder.path().join("data");
    let broker = BrokerProcess::in_folder(&data, &old::MERGING);
    old::write(&broker, &mut broker.client().await, old_mib).await;
    broker.process.stop();
    let mut report = TITLE.to_owned();
    writeln!(
        report,
        "\n{old_mib} MiB in {} partitions, merged before, are read by one consumer, {rounds} times \
         in each way. The\nstores are folders in {MEMORY}, the disk is a folder in {disk}: what is \
         measured is what the\nbroker does, and no disk.",
        old::PARTITIONS,
    )
    .unwrap();
    for stores in [Stores::Files, Stores::Delayed] {
        let over = match stores {
            Stores::Files => "Over files",
            Stores::Delayed => {
                "Over files as slow as S3\n\nHalf of the calls take 30 ms at most, and 99 of 100 \
                 120 ms; a connection carries 90 MB/s."
            }
        };
        let figures = measure(stores, &data, Path::new(&disk), rounds).await;
        let table = table("median (least to most)", &figures.each_ref());
        write!(report, "\n## {over}\n\n{table}").unwrap();
    }
    writeln!(report, "\n{}", machine(how_built(), &before)).unwrap();
    print!("{report}");
    let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("bench/disk_cache.md");
    std::fs::write(path, report).unwrap();
}

const TITLE: &str = "\
# What a disk cache is worth to who reads what is old

All of it is read from a broker that has just started: without a cache, with an empty one, and with
one that the reading before has filled. `tests/bench/disk_cache.rs` repeats it.
";
