//! How long producers and consumers wait for a broker over stores that take their time, and how
//! long they would for a writer that loses none.
//!
//! The load is open, as in `merging.rs`, and so modest that the processor is not what is waited
//! for. The store and the log are files with delays in front of them (`delayed.rs`); the ideal is
//! simulated with delays from the same distributions (`ideal.rs`). Puts are not tried a second time
//! while the first takes long, neither here nor there: that is done by the client of S3, which is
//! not part of this.
//!
//! ```text
//! cargo run --release -p odradek-tests --features benches --bin injected
//! ```
//!
//! `PHASES` and `SECONDS` in the environment change how much is done. Writes
//! `tests/bench/injected.md`.

#![expect(clippy::unwrap_used, reason = "a benchmark fails by panicking")]
#![expect(clippy::disallowed_methods, reason = "a benchmark asks the clock")]

use std::fmt::Write as _;
use std::path::Path;
use std::time::Duration;

use delayed::{DYNAMODB, Kind};
use ideal::Ideal;
use latencies::{Load, PARTITIONS, Quantiles, Tail, topic_name};
use machine::{load, machine};
use odradek_tests::process::BrokerProcess;
use settings::number;

mod delayed;
mod ideal;
mod latencies;
mod machine;
mod settings;

/// Batches of which an ideal is made.
const IDEAL_BATCHES: u32 = 100_000;

/// A way to go.
struct Row {
    name: &'static str,
    kind: Kind,
    linger_ms: u32,
    /// Bytes of a batch, and KiB of them in a second.
    batch: u32,
    kib_per_second: u32,
    /// How many times as long as others it is measured.
    times: u32,
    /// Whether batches are so few and small that they travel in the log.
    is_inline: bool,
}

const ROWS: [Row; 4] = [
    Row {
        name: "S3, 50 ms linger",
        kind: Kind::Standard,
        linger_ms: 50,
        batch: 16 << 10,
        kib_per_second: 4096,
        times: 1,
        is_inline: false,
    },
    Row {
        name: "S3, 250 ms linger",
        kind: Kind::Standard,
        linger_ms: 250,
        batch: 16 << 10,
        kib_per_second: 4096,
        times: 1,
        is_inline: false,
    },
    Row {
        name: "S3 Express, 10 ms linger",
        kind: Kind::Express,
        linger_ms: 10,
        batch: 16 << 10,
        kib_per_second: 4096,
        times: 1,
        is_inline: false,
    },
    Row {
        name: "little: in the log, without a put",
        kind: Kind::Standard,
        linger_ms: 250,
        batch: 1 << 10,
        kib_per_second: 10,
        times: 3,
        is_inline: true,
    },
];

impl Row {
    fn load(&self, seconds: u32) -> Load {
        Load { batch: self.batch, ..Load::new(self.times * seconds, self.kib_per_second) }
    }

    fn ideal(&self) -> Ideal {
        let linger = Duration::from_millis(self.linger_ms.into());
        Ideal {
            linger: if self.is_inline { Duration::ZERO } else { linger },
            put: (!self.is_inline).then(|| self.kind.delays()),
            commit: DYNAMODB,
            batch: usize::try_from(self.batch).unwrap(),
            pace: Duration::from_secs(1) * (self.batch / 1024) / self.kib_per_second,
        }
    }

    async fn measure(&self, phases: u32, seconds: u32) -> Tail {
        let folder = tempfile::tempdir_in("/dev/shm").unwrap();
        let data = folder.path().to_str().unwrap();
        let linger = self.linger_ms.to_string();
        let broker = BrokerProcess::start_as(
            &mut self.kind.program(),
            ["--data", data, "--linger-ms", &linger],
        );
        let kept = [("retention.ms", "-1")];
        broker.client().await.create_topic_with(&topic_name(0), PARTITIONS, &kept).await;
        let mut tail = Tail::default();
        let load = self.load(seconds);
        for _ in 0..phases {
            tail.add(load.run(broker.address).await);
            println!("{}: {}", self.name, tail.last());
        }
        broker.process.stop();
        tail
    }
}

fn main() {
    let runtime = tokio::runtime::Runtime::new().unwrap();
    match Kind::asked_for() {
        Some(kind) => runtime.block_on(kind.serve()),
        None => runtime.block_on(measure()),
    }
}

async fn measure() {
    let before = load();
    let (phases, seconds) = (number("PHASES", 3), number("SECONDS", 15));
    let mut report = TITLE.to_owned();
    writeln!(report, "\n{}", what()).unwrap();
    for row in ROWS {
        let measured = row.measure(phases, seconds).await;
        let mut ideal = Tail::default();
        ideal.add(row.ideal().latencies(IDEAL_BATCHES, 1).into());
        let quantiles = [measured.produce(), ideal.produce(), measured.fetch()];
        writeln!(report, "\n## {}\n", row.name).unwrap();
        let (kib, each) = (row.batch / 1024, row.times * seconds);
        let rate = row.kib_per_second;
        writeln!(report, "{rate} KiB/s in batches of {kib} KiB; {phases} phases of {each} s.\n")
            .unwrap();
        write_table(&mut report, quantiles.each_ref());
    }
    writeln!(report, "\n{}", machine("release build", &before)).unwrap();
    print!("{report}");
    let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("bench/injected.md");
    std::fs::write(path, report).unwrap();
}

const TITLE: &str = "\
# What is waited for over stores that take their time

The load is open: latencies count from the moment at which a record was to be sent, to its
acknowledgement (produce) and to a consumer at the tail that holds it (fetch). The ideal is
simulated: a segment that is open for the linger, a put beside others, commits in order, and no time
for anything else, with delays from the same distributions. `tests/bench/injected.rs` repeats it.
";

fn what() -> String {
    format!(
        "{PARTITIONS} partitions, 8 connections that produce, 4 that consume. Delays are drawn \
         from lognormal distributions (half\nof them and 99 of 100 below): S3 {}, S3 Express {}, \
         DynamoDB {}; S3 carries 90 MB/s a\nconnection on top. No put is tried a second time while \
         the first takes long. A broker seals a segment before\nits linger is over if nothing is \
         on its way and it has puts left of as many as the linger allows; the ideal\nnever does.",
        delayed::STANDARD,
        delayed::EXPRESS,
        DYNAMODB
    )
}

fn write_table(report: &mut String, [produce, ideal, fetch]: [&Quantiles; 3]) {
    writeln!(report, "| ms | p50 | p99 | p99.9 | most | p99 of each phase |").unwrap();
    writeln!(report, "| --- | --- | --- | --- | --- | --- |").unwrap();
    writeln!(report, "| produce | {produce} |").unwrap();
    writeln!(report, "| the ideal | {ideal} |").unwrap();
    writeln!(
        report,
        "| produce to the ideal | **{:.2}** | **{:.2}** | {:.2} | {:.2} | median {:.2} |",
        produce.p50 / ideal.p50,
        produce.p99 / ideal.p99,
        produce.p999 / ideal.p999,
        produce.most / ideal.most,
        produce.median_p99() / ideal.p99,
    )
    .unwrap();
    writeln!(report, "| fetch | {fetch} |").unwrap();
}
