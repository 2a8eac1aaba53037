//! What the number of partitions costs: requests, units, bytes and money for a GiB that is produced
//! to ten active partitions and to ever more, merging included.
//!
//! Metered and priced as in `cost.rs`, which says what it needs:
//!
//! ```text
//! cargo run --release -p odradek-tests --features benches --bin growth [PARTITIONS...]
//! ```
//!
//! Writes `tests/bench/growth.md`.

#![expect(clippy::unwrap_used, reason = "a benchmark fails by panicking")]
#![expect(clippy::as_conversions, reason = "counts are far from where a double gets coarse")]

use std::fmt::Write as _;
use std::path::Path;
use std::time::Duration;

use machine::{load, machine};
use metered::{BROKERS, Charged, Cloud, RATE};
use tokio::time::sleep;

mod machine;
mod metered;

/// Partitions, all of them active, in each of the runs.
const PARTITIONS: [i32; 3] = [10, 1000, 100_000];

/// Time under load.
const LOAD: Duration = Duration::from_secs(30);

/// Time after the load in which what was written is merged, which is a part of what it costs.
const MERGING: Duration = Duration::from_secs(40);

/// What a GiB has cost.
struct Row {
    partitions: i32,
    charged: Charged,
    /// GiB in the bodies of PUTs and of the answers to GETs.
    put_gib: f64,
    got_gib: f64,
    gib: f64,
    took: Duration,
}

fn main() {
    let asked: Vec<i32> = std::env::args().skip(1).map(|it| it.parse().unwrap()).collect();
    let partitions = if asked.is_empty() { PARTITIONS.to_vec() } else { asked };
    let before = load();
    let runtime = tokio::runtime::Runtime::new().unwrap();
    let mut rows = Vec::new();
    for partitions in partitions {
        let row = runtime.block_on(measure(partitions));
        println!("{}", text(&row));
        rows.push(row);
    }
    let report = report(&rows, &before);
    print!("{report}");
    let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("bench/growth.md");
    std::fs::write(path, report).unwrap();
}

async fn measure(partitions: i32) -> Row {
    let cloud = Cloud::start(partitions).await;
    cloud.meter();
    let (gib, took) = cloud.load(LOAD).await;
    sleep(MERGING).await;
    let metered = cloud.meter();
    let put = metered.s3.get("PutObject").map_or(0, |count| count.request_bytes);
    let got = metered.s3.get("GetObject").map_or(0, |count| count.reply_bytes);
    let per_gib = |bytes: u64| bytes as f64 / f64::from(1 << 30) / gib;
    let (put_gib, got_gib) = (per_gib(put), per_gib(got));
    Row { partitions, charged: metered.charge(gib), put_gib, got_gib, gib, took }
}

fn text(row: &Row) -> String {
    let Row { partitions, charged, put_gib, got_gib, gib, took } = row;
    let Charged { puts, gets, write, read, dollars } = charged;
    let rate = gib * 1024.0 / took.as_secs_f64();
    format!(
        "| {partitions} | {puts:.0} | {gets:.0} | {write:.0} | {read:.0} | {put_gib:.2} | \
         {got_gib:.2} | ${dollars:.5} | {gib:.2} GiB at {rate:.1} MiB/s |"
    )
}

fn report(rows: &[Row], before: &str) -> String {
    let mut report = String::new();
    let built = if cfg!(debug_assertions) { "profile sim" } else { "release build" };
    let machine = machine(built, before);
    writeln!(report, "# What the number of partitions costs\n\n{machine}\n").unwrap();
    writeln!(
        report,
        "For each GiB produced: {BROKERS} brokers, 250 ms linger, {:.0} MiB/s of incompressible \
         16 KiB batches to all\npartitions in turn for {} s, which is a part of a GiB, and {} s \
         after that for merging, with the settings that\nare the default; nobody reads. Requests, \
         units and bytes as a proxy counted them; AWS's prices on demand,\nus-east-1. Storage and \
         machines are not in it. `tests/bench/growth.rs` repeats it.\n",
        RATE as f64 / f64::from(1 << 20),
        LOAD.as_secs(),
        MERGING.as_secs(),
    )
    .unwrap();
    writeln!(
        report,
        "| partitions | PUT, LIST | GET, HEAD | write units | read units | GiB put | GiB got | \
         price | measured |"
    )
    .unwrap();
    writeln!(report, "| --- | --- | --- | --- | --- | --- | --- | --- | --- |").unwrap();
    for row in rows {
        writeln!(report, "{}", text(row)).unwrap();
    }
    if let [first, .., last] = rows {
        let ratio = |of: fn(&Charged) -> f64| of(&last.charged) / of(&first.charged);
        writeln!(
            report,
            "\nFrom {} to {} partitions: PUTs times {:.2}, GETs times {:.2}, write units times \
             {:.2}, read units times {:.2},\nthe price times {:.2}.",
            first.partitions,
            last.partitions,
            ratio(|it| it.puts),
            ratio(|it| it.gets),
            ratio(|it| it.write),
            ratio(|it| it.read),
            ratio(|it| it.dollars),
        )
        .unwrap();
    }
    report
}
