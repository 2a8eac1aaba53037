//! What a consumer that catches up costs those who are at the tail: their latencies beside it,
//! divided by their latencies without it.
//!
//! A modest load goes through a broker, as in `merging.rs`: producers that send when it is time to,
//! whatever became of what they sent before, and consumers at the tail. Meanwhile somebody reads
//! what was written before, as fast as it comes and again and again, and it is more than the broker
//! keeps in memory for such readers. The phases, A B C C B A A B C...:
//!
//! - *alone*: nobody reads what is old.
//! - *apart*: it is read from another broker, with a copy of the store. That is what the processor
//!   and the memory of this machine cost, which client and brokers share.
//! - *shared*: it is read from the same broker.
//!
//! Over files in memory, and over the same files with the delays of S3 and DynamoDB. What was
//! written before is merged, and nothing is merged while latencies are measured.
//!
//! ```text
//! cargo build --release && cargo run --release -p odradek-tests --features benches --bin neighbour
//! ```
//!
//! `PHASES`, `SECONDS`, `KIB_PER_SECOND` and `OLD_MIB` in the environment change how much is done.
//! Writes `tests/bench/neighbour.md`.

#![expect(clippy::unwrap_used, reason = "a benchmark fails by panicking")]
#![expect(clippy::disallowed_methods, reason = "a benchmark asks the clock")]

use std::fmt::Write as _;
use std::path::{Path, PathBuf};
use std::process::Command;

use catch_up::CatchUp;
use latencies::{Load, PARTITIONS, Tail, topic_name};
use machine::{load, machine};
use odradek_tests::process::{BrokerProcess, built, how_built};
use settings::number;

mod catch_up;
mod delayed;
mod latencies;
mod machine;
mod old;
mod settings;

/// Where nothing is written to a disk.
const MEMORY: &str = "/dev/shm";

/// Where what is old is read.
#[derive(Clone, Copy, PartialEq)]
enum Old {
    Alone,
    Apart,
    Shared,
}

/// What came of the phases of a kind.
struct Kind {
    name: &'static str,
    old: Old,
    tail: Tail,
    /// Of what was read of the old: MiB sent by the broker and read from the store, and seconds.
    sent_mib: f64,
    read_mib: f64,
    seconds: f64,
}

/// How brokers are made over the stores.
#[derive(Clone, Copy, PartialEq)]
enum Stores {
    Files,
    Delayed,
}

impl Kind {
    fn new(name: &'static str, old: Old) -> Self {
        Self { name, old, tail: Tail::default(), sent_mib: 0.0, read_mib: 0.0, seconds: 0.0 }
    }

    /// Brokers run, and the load is on one of them.
    async fn phase(&mut self, stores: Stores, load: &Load, folders: &[PathBuf; 2]) {
        let broker = stores.start(&folders[0]);
        let other = (self.old == Old::Apart).then(|| stores.start(&folders[1]));
        let read_from = match self.old {
            Old::Alone => None,
            Old::Apart => other.as_ref(),
            Old::Shared => Some(&broker),
        };
        // Whoever shows metrics serves.
        broker.metrics().await;
        let mut catching_up = None;
        if let Some(broker) = read_from {
            let read = broker.metrics().await.sum(READ);
            catching_up = Some((broker, read, CatchUp::start(broker.address)));
        }
        self.tail.add(load.run(broker.address).await);
        if let Some((broker, read, catch_up)) = catching_up {
            let (bytes, lasted) = catch_up.stop();
            let mib = f64::from(1 << 20);
            self.sent_mib += bytes / mib;
            self.read_mib += (broker.metrics().await.sum(READ) - read) / mib;
            self.seconds += lasted.as_secs_f64();
        }
        broker.process.stop();
        if let Some(other) = other {
            other.process.stop();
        }
        println!("{}: {}", self.name, self.tail.last());
    }
}

const READ: &str = "odradek_store_bytes_total{operation=\"get\"";

impl Stores {
    fn start(self, folder: &Path) -> BrokerProcess {
        let mut program = match self {
            Self::Files => Command::new(built()),
            Self::Delayed => delayed::Kind::Standard.program(),
        };
        let data = ["--data", folder.to_str().unwrap()];
        BrokerProcess::start_as(&mut program, old::NO_MERGING.into_iter().chain(data))
    }
}

/// Writes what will be old, and makes the topic of the load.
async fn write_old(folder: &Path, mib: u32) {
    let broker = BrokerProcess::in_folder(folder, &old::MERGING);
    let mut client = broker.client().await;
    // The records are of long ago.
    let kept = [("retention.ms", "-1")];
    client.create_topic_with(&topic_name(0), PARTITIONS, &kept).await;
    old::write(&broker, &mut client, mib).await;
    broker.process.stop();
}

fn main() {
    let runtime = tokio::runtime::Runtime::new().unwrap();
    match delayed::Kind::asked_for() {
        Some(kind) => runtime.block_on(kind.serve()),
        None => runtime.block_on(measure()),
    }
}

async fn measure() {
    let before = load();
    let (phases, old_mib) = (number("PHASES", 4), number("OLD_MIB", 512));
    let load = Load::new(number("SECONDS", 12), number("KIB_PER_SECOND", 2048));
    let mut report = TITLE.to_owned();
    writeln!(report, "\n{}", what(&load, phases, old_mib)).unwrap();
    for stores in [Stores::Files, Stores::Delayed] {
        let folder = tempfile::tempdir_in(MEMORY).unwrap();
        let folders = ["one", "other"].map(|name| folder.path().join(name));
        write_old(&folders[0], old_mib).await;
        let mut copy = Command::new("cp");
        assert!(copy.arg("-r").args(&folders).status().unwrap().success());
        let mut kinds = [
            Kind::new("alone", Old::Alone),
            Kind::new("apart", Old::Apart),
            Kind::new("shared", Old::Shared),
        ];
        for _ in 0..phases {
            for kind in &mut kinds {
                kind.phase(stores, &load, &folders).await;
            }
            kinds.reverse();
        }
        kinds.sort_by_key(|kind| kind.name);
        write_section(&mut report, stores, &kinds);
    }
    writeln!(report, "\n{}", machine(how_built(), &before)).unwrap();
    print!("{report}");
    let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("bench/neighbour.md");
    std::fs::write(path, report).unwrap();
}

const TITLE: &str = "\
# What one who catches up costs those at the tail

The load is open: latencies count from the moment at which a record was to be sent, to its
acknowledgement (produce) and to a consumer at the tail that holds it (fetch). Alone; while somebody
reads through what was written before as fast as it comes, from another broker with a copy of the
store (apart); and from the same broker (shared). Shared to alone has in it that client and brokers
have the same processors; shared to apart is what it costs to have one broker for both.
`tests/bench/neighbour.rs` repeats it.
";

fn what(load: &Load, phases: u32, old_mib: u32) -> String {
    format!(
        "{} KiB/s in 16 KiB batches over {PARTITIONS} partitions, {phases} phases of {} s of each \
         kind in the order\nA B C C B A (and {} s before each that do not count). {old_mib} MiB in \
         {} partitions are read by one consumer\nagain and again; the broker keeps 64 MiB for such \
         readers, so all of it comes from the store. Merged before,\nand nothing is merged \
         meanwhile. Folders in {MEMORY}: no disk is measured.",
        load.kib_per_second,
        load.lasts.as_secs(),
        load.warming.as_secs(),
        old::PARTITIONS,
    )
}

fn write_section(report: &mut String, stores: Stores, kinds: &[Kind; 3]) {
    let over = match stores {
        Stores::Files => "Over files",
        Stores::Delayed => {
            "Over files as slow as S3 and DynamoDB\n\nCalls take as long as lognormal \
             distributions say: of the store half of them 30 ms at most, and 99 of 100\n120 ms; of \
             the log 5 and 15 ms. A connection to the store carries 90 MB/s. A put counts as one \
             that\ncosts money."
        }
    };
    writeln!(report, "\n## {over}\n").unwrap();
    writeln!(report, "| ms | p50 | p99 | p99.9 | most | p99 of each phase |").unwrap();
    writeln!(report, "| --- | --- | --- | --- | --- | --- |").unwrap();
    for what in ["produce", "fetch"] {
        let [alone, apart, shared] = [0, 1, 2].map(|at| match what {
            "produce" => kinds[at].tail.produce(),
            _ => kinds[at].tail.fetch(),
        });
        for (kind, quantiles) in kinds.iter().zip([&alone, &apart, &shared]) {
            writeln!(report, "| {what}, {} | {quantiles} |", kind.name).unwrap();
        }
        for (name, other) in [("alone", &alone), ("apart", &apart)] {
            writeln!(
                report,
                "| {what}, shared to {name} | {:.2} | **{:.2}** | {:.2} | {:.2} | median {:.2} |",
                shared.p50 / other.p50,
                shared.p99 / other.p99,
                shared.p999 / other.p999,
                shared.most / other.most,
                shared.median_p99() / other.median_p99(),
            )
            .unwrap();
        }
    }
    writeln!(report, "\n| catching up | MiB/s sent | MiB/s from the store |").unwrap();
    writeln!(report, "| --- | --- | --- |").unwrap();
    for Kind { name, sent_mib, read_mib, seconds, .. } in &kinds[1..] {
        let (sent, read) = (sent_mib / seconds, read_mib / seconds);
        writeln!(report, "| {name} | {sent:.0} | {read:.0} |").unwrap();
    }
}
