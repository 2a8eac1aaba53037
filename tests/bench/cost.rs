//! What the cloud charges: requests and units of three brokers over one bucket and one table, under
//! load and idle, with AWS's prices.
//!
//! Counted by a proxy in front of MinIO and DynamoDB Local, so the numbers of requests are real and
//! the latencies are not. Needs `MINIO_BIN` and `DYNAMODB_LIBS`, which `tests/run backends`
//! installs:
//!
//! ```text
//! export MINIO_BIN=.tools/minio/minio DYNAMODB_LIBS=.tools/dynamodb
//! export AWS_ACCESS_KEY_ID=test AWS_SECRET_ACCESS_KEY=testtest1
//! cargo run --release -p odradek-tests --features benches --bin cost
//! ```
//!
//! Writes `tests/bench/cost.md`.

#![expect(clippy::unwrap_used, reason = "a benchmark fails by panicking")]
#![expect(clippy::as_conversions, reason = "counts are far from where a double gets coarse")]

use std::fmt::Write as _;
use std::path::Path;
use std::time::Duration;

use metered::{BROKERS, Charged, Cloud, Metered, RATE};
use tokio::time::sleep;

mod machine;
mod metered;

const PARTITIONS: i32 = 100;

/// Time under load, and idle.
const LOAD: Duration = Duration::from_secs(30);
const IDLE: Duration = Duration::from_secs(60);

/// Time after the load in which what was written is merged, which is a part of what it costs.
const MERGING: Duration = Duration::from_secs(60);

fn main() {
    let runtime = tokio::runtime::Runtime::new().unwrap();
    let before = machine::load();
    let report = runtime.block_on(measure());
    let report = format!("{report}\n{}\n", machine::machine("release build", &before));
    print!("{report}");
    let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("bench/cost.md");
    std::fs::write(path, report).unwrap();
}

async fn measure() -> String {
    let cloud = Cloud::start(PARTITIONS).await;
    cloud.meter();
    let (gib, _) = cloud.load(LOAD).await;
    sleep(MERGING).await;
    let load = cloud.meter();
    sleep(IDLE).await;
    let idle = cloud.meter();

    let mut report = String::new();
    writeln!(report, "# What the cloud charges\n").unwrap();
    writeln!(
        report,
        "{BROKERS} brokers, {PARTITIONS} partitions, all active, 250 ms linger, {:.0} MiB/s of \
         incompressible 16 KiB batches for {} s\n({gib:.2} GiB), nobody reading, and merged; \
         then idle for {} s. Requests and units as a proxy counted them; AWS's\nprices on demand, \
         us-east-1. Storage and machines are not in it. `tests/bench/cost.rs` repeats it.\n",
        RATE as f64 / f64::from(1 << 20),
        LOAD.as_secs(),
        IDLE.as_secs(),
    )
    .unwrap();
    writeln!(report, "| | PUT, LIST | GET, HEAD | write units | read units | price |").unwrap();
    writeln!(report, "| --- | --- | --- | --- | --- | --- |").unwrap();
    writeln!(report, "{}", row(&load, "per GiB produced", gib)).unwrap();
    let hours = IDLE.as_secs_f64() / 3600.0;
    writeln!(report, "{}", row(&idle, "idle, per hour", hours)).unwrap();
    writeln!(report, "{}", row(&idle, "idle, per month", hours / 730.0)).unwrap();
    report
}

/// Requests and units, each divided by `per`, and their price.
fn row(metered: &Metered, what: &str, per: f64) -> String {
    let Charged { puts, gets, write, read, dollars } = metered.charge(per);
    format!("| {what} | {puts:.0} | {gets:.0} | {write:.0} | {read:.0} | ${dollars:.5} |")
}
