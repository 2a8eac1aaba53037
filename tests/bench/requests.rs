//! How many requests a GiB takes where segments get as long as they may: below that it is their
//! linger that counts, and `cost.rs` counts it.
//!
//! One broker over files as slow as S3 and DynamoDB, at a rate that fills a segment before its
//! linger is over; then quiet, for as long as merging takes. Requests are those that the broker
//! counts in its own metrics.
//!
//! ```text
//! cargo run --release -p odradek-tests --features benches --bin requests
//! ```
//!
//! `SECONDS` and `MIB_PER_SECOND` in the environment change the load. Writes
//! `tests/bench/requests.md`.

#![expect(clippy::unwrap_used, reason = "a benchmark fails by panicking")]
#![expect(clippy::disallowed_methods, reason = "a benchmark asks the clock")]

use std::fmt::Write as _;
use std::path::Path;
use std::time::Duration;

use delayed::Kind;
use latencies::{Load, topic_name};
use machine::{load, machine};
use odradek_tests::process::BrokerProcess;
use settings::number;
use tokio::time::sleep;

mod delayed;
#[expect(dead_code, reason = "how long anybody waits is not what is asked here")]
mod latencies;
mod machine;
mod settings;

/// How long merging may take after the load.
const MERGING: Duration = Duration::from_secs(60);

/// What is counted: how it is called, and the metric.
const COUNTED: [(&str, &str); 6] = [
    ("GiB", "odradek_produced_bytes_total"),
    ("PUT", "odradek_store_request_seconds_count{operation=\"put\""),
    ("GET", "odradek_store_request_seconds_count{operation=\"get\""),
    ("DELETE", "odradek_store_request_seconds_count{operation=\"delete\""),
    ("log entries", "odradek_log_request_seconds_count{operation=\"append\""),
    ("log KiB", "odradek_log_bytes_total{operation=\"append\""),
];

async fn counts(broker: &BrokerProcess) -> [f64; COUNTED.len()] {
    let page = broker.metrics().await;
    COUNTED.map(|(name, metric)| {
        let unit = match name {
            "GiB" => f64::from(1 << 30),
            "log KiB" => 1024.0,
            _ => 1.0,
        };
        page.sum(metric) / unit
    })
}

/// What was counted for each GiB, without and with merging.
async fn measure(partitions: i32, seconds: u32, kib_per_second: u32) -> [String; 2] {
    let folder = tempfile::tempdir_in("/dev/shm").unwrap();
    let data = folder.path().to_str().unwrap();
    let broker = BrokerProcess::start_as(&mut Kind::Standard.program(), ["--data", data]);
    let kept = [("retention.ms", "-1")];
    broker.client().await.create_topic_with(&topic_name(0), partitions, &kept).await;
    let load = Load { partitions, consumers: 0, ..Load::new(seconds, kib_per_second) };
    let before = counts(&broker).await;
    drop(load.run(broker.address).await);
    let loaded = counts(&broker).await;
    sleep(MERGING).await;
    let merged = counts(&broker).await;
    broker.process.stop();
    [("at once", loaded), ("with merging", merged)].map(|(when, mut counted)| {
        counted.iter_mut().zip(before).for_each(|(it, was)| *it -= was);
        let [gib, counted @ ..] = counted;
        let each: Vec<String> = counted.iter().map(|it| format!("{:.0}", it / gib)).collect();
        let [.., entries, kib] = counted;
        let units = (entries + kib) / gib;
        format!("| {partitions} | {when} | {gib:.2} | {} | {units:.0} |", each.join(" | "))
    })
}

fn main() {
    let runtime = tokio::runtime::Runtime::new().unwrap();
    match Kind::asked_for() {
        Some(kind) => runtime.block_on(kind.serve()),
        None => runtime.block_on(report()),
    }
}

async fn report() {
    let before = load();
    let (seconds, mib) = (number("SECONDS", 30), number("MIB_PER_SECOND", 40));
    let mut rows = String::new();
    for partitions in [100, 1000] {
        for row in measure(partitions, seconds, mib * 1024).await {
            println!("{row}");
            writeln!(rows, "{row}").unwrap();
        }
    }
    let report = format!(
        "{TITLE}\n{}\n\n{mib} MiB/s to one broker for {seconds} s, in 16 KiB batches to all \
         partitions in turn, 250 ms linger, segments of 8 MiB;\nthen {} s in which nothing comes. \
         A write unit is a KiB of an entry, and a part of one counts whole.\n\n{HEAD}\n{rows}",
        machine("release build", &before),
        MERGING.as_secs(),
    );
    print!("{report}");
    let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("bench/requests.md");
    std::fs::write(path, report).unwrap();
}

const TITLE: &str = "\
# How many requests a GiB takes where segments are full
";

const HEAD: &str = "\
| partitions | | GiB | PUT | GET | DELETE | log entries | log KiB | write units, at most |
| --- | --- | --- | --- | --- | --- | --- | --- | --- |";
