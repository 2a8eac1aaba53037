//! Side by side with Apache Kafka: what a GiB costs the broker that produces or serves it, in
//! processor time, and how fast it is.
//!
//! Kafka and Odradek take turns on one machine, in the order A B C D, D C B A, under the same load
//! generator and the same versions of the protocol. What the figures of a turn are worth is what
//! they are to those of its neighbours, so only ratios are reported, of turns of the same round.
//!
//! ```text
//! cargo build --release
//! tests/tools/kafka.sh .tools/kafka
//! cargo run --release -p odradek-tests --features benches --bin versus -- [OPTION...] [ROW...]
//! ```
//!
//! ROW is a part of the names of rows, as "produce 1 KiB"; OPTION is `--pairs N` or `--seconds S`.
//! Takes less than ten minutes, writes `tests/bench/versus.md` and, with the figures of each turn,
//! `tests/bench/versus.json`, unless `--dry` is given.

#![expect(clippy::unwrap_used, reason = "a benchmark fails by panicking")]
#![expect(clippy::disallowed_methods, reason = "a benchmark asks the clock")]
#![expect(clippy::as_conversions, reason = "counts are far from where a double gets coarse")]

use std::path::{Path, PathBuf};
use std::process::Command;
use std::sync::Arc;
use std::time::{Duration, Instant};

use clap::Parser;
use contestant::{Contestant, Kind, Rival, Versions, missing};
use load::{Bounds, CONNECTIONS, Requests};
use machine::load as load_average;
use report::{Measured, Turn, write_report};
use tempfile::TempDir;

mod contestant;
mod load;
#[path = "../machine.rs"]
mod machine;
mod ratios;
mod report;

/// The topic of a row.
const TOPIC: &str = "versus";

/// What a turn moves at most: memory, page cache and disks have to take all turns of a row.
const TURN_BYTES: usize = 512 << 20;

/// How long a JVM is under load before it is measured.
const JVM_WARMING: Duration = Duration::from_secs(12);

/// What is asked of the contestants.
#[derive(Clone, Copy)]
pub(crate) struct Row {
    pub(crate) name: &'static str,
    partitions: i32,
    batch: usize,
    fetches: bool,
}

const fn produce(name: &'static str, partitions: i32, batch: usize) -> Row {
    Row { name, partitions, batch, fetches: false }
}

const ROWS: [Row; 7] = [
    produce("produce 1 KiB batches, 1 partition", 1, 1 << 10),
    produce("produce 1 KiB batches, 6 partitions", 6, 1 << 10),
    produce("produce 1 KiB batches, 288 partitions", 288, 1 << 10),
    produce("produce 16 KiB batches, 1 partition", 1, 16 << 10),
    produce("produce 16 KiB batches, 6 partitions", 6, 16 << 10),
    produce("produce 16 KiB batches, 288 partitions", 288, 16 << 10),
    Row { name: "fetch hot, 16 KiB batches", partitions: 4, batch: 16 << 10, fetches: true },
];

#[derive(Parser)]
struct Arguments {
    /// Rounds that count; one before them does not.
    #[arg(long, default_value_t = 7)]
    pairs: usize,
    /// Longest turn.
    #[arg(long, default_value_t = 1.5)]
    seconds: f64,
    /// Prints the report and leaves the files as they are.
    #[arg(long)]
    dry: bool,
    /// Another build of Odradek, to be measured in place of Kafka; leaves the files as they are.
    #[arg(long)]
    against: Option<PathBuf>,
    /// Parts of the names of rows.
    rows: Vec<String>,
}

/// A row under way: its contestants, and the requests of its producers.
struct Stage<'a> {
    row: Row,
    bounds: Bounds,
    versions: Versions,
    requests: Vec<Arc<Requests>>,
    contestants: [&'a Contestant; 4],
}

impl Stage<'_> {
    /// A turn of one contestant. What it has left to the disk is gone before the next.
    async fn turn(&self, contestant: &Contestant) -> Turn {
        let (address, load) = (contestant.address, load_average());
        let (ticks, before) = (machine_ticks(), contestant.process.processor_seconds());
        let began = Instant::now();
        let bytes = if self.row.fetches {
            load::fetch(address, self.versions, self.row.batch, self.bounds).await
        } else {
            load::produce(address, &self.requests, self.bounds).await
        };
        let seconds = began.elapsed().as_secs_f64();
        let processor_seconds = contestant.process.processor_seconds() - before;
        let (all, stolen) = machine_ticks();
        let steal = (stolen - ticks.1) as f64 / ((all - ticks.0) as f64).max(1.0);
        let resident_mib = contestant.process.resident_mib();
        assert!(Command::new("sync").status().unwrap().success());
        let gib = bytes as f64 / f64::from(1 << 30);
        Turn { gib, seconds, processor_seconds, resident_mib, load, steal }
    }

    /// Rounds of turns, the first of which does not count.
    async fn run(&self, pairs: usize) -> Measured {
        for contestant in self.contestants {
            contestant.create(TOPIC, self.row.partitions).await;
            self.requests[0].settle(contestant.address).await;
            if self.row.fetches {
                let fill = Bounds { lasts: Duration::from_secs(9), bytes: 128 << 20 };
                load::produce(contestant.address, &self.requests, fill).await;
            }
            self.turn(contestant).await;
        }
        let used = || self.contestants.map(|it| it.process.processor_seconds());
        let (before, mut rounds) = (used(), Vec::new());
        for round in 0..pairs {
            let mut order = [0, 1, 2, 3];
            if round % 2 == 1 {
                order.reverse();
            }
            let mut turns = [const { None }; 4];
            for at in order {
                turns[at] = Some(self.turn(self.contestants[at]).await);
            }
            rounds.push(turns.map(Option::unwrap));
        }
        let after = used();
        for contestant in self.contestants {
            contestant.delete(TOPIC).await;
        }
        let processor_seconds = std::array::from_fn(|at| after[at] - before[at]);
        Measured { row: self.row, rounds, processor_seconds }
    }
}

/// Time that all processors have spent, and what of it a hypervisor has taken.
fn machine_ticks() -> (u64, u64) {
    let stat = std::fs::read_to_string("/proc/stat").unwrap();
    let fields = stat.lines().next().unwrap().split_whitespace().skip(1);
    let ticks: Vec<u64> = fields.take(8).map(|it| it.parse().unwrap()).collect();
    (ticks.iter().sum(), ticks[7])
}

fn requests(versions: Versions, row: Row) -> Vec<Arc<Requests>> {
    let one = |seed| Arc::new(Requests::new(versions, row.partitions, row.batch, seed));
    (1..).take(CONNECTIONS).map(one).collect()
}

/// A JVM compiles what it does often; that is over before anything is measured.
async fn warm(kafka: &Contestant, versions: Versions) {
    for row in [ROWS[1], ROWS[4]] {
        kafka.create(TOPIC, row.partitions).await;
        let requests = requests(versions, row);
        requests[0].settle(kafka.address).await;
        let half = Bounds { lasts: JVM_WARMING / 2, bytes: 4 * TURN_BYTES };
        load::produce(kafka.address, &requests, half).await;
        kafka.delete(TOPIC).await;
    }
}

/// The rows that were asked for, one after the other. JVMs live through all of them; an Odradek is
/// a new one for each, because its memory holds what it was sent.
async fn measure(
    arguments: &Arguments,
    rival: &Rival,
    folder: &TempDir,
) -> (Vec<Measured>, Versions) {
    let mut jvms = None;
    let mut versions = Versions::default();
    if matches!(rival, Rival::Kafka) {
        let started = start([Kind::RivalUnsynced, Kind::RivalSynced], rival, folder, "kafka").await;
        versions = started[0].agree(versions).await;
        jvms = Some(started);
    }
    let chosen = |row: &Row| {
        arguments.rows.is_empty() || arguments.rows.iter().any(|it| row.name.contains(it))
    };
    let mut measured = Vec::new();
    for (number, row) in ROWS.into_iter().filter(chosen).enumerate() {
        let own = [Kind::OdradekMemory, Kind::OdradekFiles];
        let own = start(own, rival, folder, &format!("row-{number}")).await;
        let mut builds = None;
        let rivals = match &jvms {
            Some(jvms) => jvms,
            None => builds.insert(
                start([Kind::RivalUnsynced, Kind::RivalSynced], rival, folder, "build").await,
            ),
        };
        versions = own[0].agree(versions).await;
        if number == 0 && jvms.is_some() {
            warm(&rivals[0], versions).await;
            warm(&rivals[1], versions).await;
        }
        let lasts = Duration::from_secs_f64(arguments.seconds);
        let bounds = Bounds { lasts, bytes: TURN_BYTES };
        let requests = requests(versions, row);
        let contestants = [&rivals[0], &own[0], &rivals[1], &own[1]];
        let stage = Stage { row, bounds, versions, requests, contestants };
        let row = stage.run(arguments.pairs).await;
        println!("{}", row.line(rival));
        measured.push(row);
        drop((own, builds));
        std::fs::remove_dir_all(folder.path().join(format!("row-{number}"))).unwrap();
        if jvms.is_none() {
            std::fs::remove_dir_all(folder.path().join("build")).unwrap();
        }
    }
    (measured, versions)
}

async fn start(kinds: [Kind; 2], rival: &Rival, folder: &TempDir, name: &str) -> [Contestant; 2] {
    let folder = folder.path().join(name);
    let one = Contestant::start(kinds[0], rival, &folder.join("one")).await;
    [one, Contestant::start(kinds[1], rival, &folder.join("other")).await]
}

#[tokio::main]
async fn main() {
    let arguments = Arguments::parse();
    let rival = arguments.against.clone().map_or(Rival::Kafka, Rival::Build);
    if let (Rival::Kafka, Some(what)) = (&rival, missing()) {
        eprintln!("versus: {what}");
        std::process::exit(2);
    }
    let before = load_average();
    let folder = tempfile::tempdir().unwrap();
    let (measured, versions) = measure(&arguments, &rival, &folder).await;
    let (text, json) = write_report(&measured, &rival, versions, &before);
    print!("{text}");
    if !arguments.dry && matches!(rival, Rival::Kafka) {
        let bench = Path::new(env!("CARGO_MANIFEST_DIR")).join("bench");
        std::fs::write(bench.join("versus.md"), text).unwrap();
        std::fs::write(bench.join("versus.json"), json).unwrap();
    }
}
