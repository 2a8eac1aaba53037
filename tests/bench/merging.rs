//! What merging costs whoever waits: the tail of latencies with it, divided by the tail without.
//!
//! Two brokers, one that merges as it does by default and one that does not, each over a store and
//! a log of its own. They take turns on the machine, in the order A B B A A B B A..., so that what
//! else happens on it strikes both: each runs only in its phases, and finds what it wrote before.
//!
//! The load is *open*: every request has a moment at which it is to be sent, whatever became of
//! those before it, and every latency counts from that moment. A broker that stops for a second
//! makes all requests late that should have been sent in it, and not one (coordinated omission).
//!
//! - *produce*: from that moment to the acknowledgement.
//! - *fetch*: from that moment until a consumer at the tail holds the record.
//!
//! ```text
//! cargo build --release
//! cargo run --release -p odradek-tests --features benches --bin merging [files|cloud]
//! ```
//!
//! `cloud` is MinIO and DynamoDB Local, and needs what `cost.rs` does. `PHASES`, `SECONDS` and
//! `KIB_PER_SECOND` in the environment change the load. Writes `tests/bench/merging.md`, or adds to
//! it.

#![expect(clippy::unwrap_used, reason = "a benchmark fails by panicking")]
#![expect(clippy::disallowed_methods, reason = "a benchmark asks the clock")]

use std::fmt::Write as _;
use std::path::Path;

use latencies::{Load, PARTITIONS, Tail, topic_name};
use machine::{load, machine};
use odradek_tests::process::{BrokerProcess, how_built};
use odradek_tests::servers::Server;
use settings::number;
use tempfile::TempDir;

mod latencies;
mod machine;
mod settings;

/// Where a broker keeps what it has, between its phases.
struct Place {
    name: &'static str,
    flags: Vec<String>,
    tail: Tail,
    merged_bytes: f64,
    merged_segments: f64,
}

impl Place {
    fn new(name: &'static str, stores: [String; 2], further: &[&str]) -> Self {
        let [store, log] = stores;
        let mut flags = vec!["--store".to_owned(), store, "--log".to_owned(), log];
        flags.extend(further.iter().map(|flag| (*flag).to_owned()));
        Self { name, flags, tail: Tail::default(), merged_bytes: 0.0, merged_segments: 0.0 }
    }

    async fn create_topic(&self) {
        let broker = BrokerProcess::start(&self.flags);
        // The records are of long ago.
        let kept = [("retention.ms", "-1")];
        broker.client().await.create_topic_with(&topic_name(0), PARTITIONS, &kept).await;
        broker.process.stop();
    }

    /// A phase: the broker runs, and the load is on it.
    async fn phase(&mut self, load: &Load) {
        let broker = BrokerProcess::start(&self.flags);
        let before = merged(&broker).await;
        self.tail.add(load.run(broker.address).await);
        let after = merged(&broker).await;
        self.merged_bytes += after.0 - before.0;
        self.merged_segments += after.1 - before.1;
        broker.process.stop();
    }
}

/// Bytes that merging has read, and segments that it has written.
async fn merged(broker: &BrokerProcess) -> (f64, f64) {
    let page = broker.metrics().await;
    let sum = |name: &str| page.sum(&format!("{name}{{task=\"merging\"}}"));
    (sum("odradek_rewrite_bytes_in_total"), sum("odradek_rewrite_segments_total"))
}

/// The stores of two brokers, and what must live as long as they do.
async fn stores(cloud: bool) -> ([[String; 2]; 2], Vec<Server>, TempDir) {
    let folder = tempfile::tempdir().unwrap();
    if !cloud {
        let in_folder = |name: &str| {
            ["objects", "log"]
                .map(|it| format!("file:{}", folder.path().join(name).join(it).display()))
        };
        return (["with", "without"].map(in_folder), Vec::new(), folder);
    }
    let (minio, dynamodb) = (Server::minio().await, Server::dynamodb().await);
    let named = |name: &str| {
        let store = format!("s3://{name}?{}", minio.options());
        [store, format!("dynamodb://{name}?{}", dynamodb.options())]
    };
    (["with", "without"].map(named), vec![minio, dynamodb], folder)
}

#[tokio::main]
async fn main() {
    let before = load();
    let cloud = std::env::args().nth(1).is_some_and(|it| it == "cloud");
    let (phases, seconds) = (number("PHASES", 6), number("SECONDS", 20));
    let load = Load::new(seconds, number("KIB_PER_SECOND", 8 * 1024));
    let ([with, without], _servers, _folder) = stores(cloud).await;
    let mut with = Place::new("with merging", with, &[]);
    let mut without = Place::new("without", without, &["--merge-interval-ms", "86400000"]);
    with.create_topic().await;
    without.create_topic().await;
    for phase in 0..2 * phases {
        let is_with = matches!(phase % 4, 0 | 3);
        let place = if is_with { &mut with } else { &mut without };
        place.phase(&load).await;
        println!("{}: {}", place.name, place.tail.last());
    }
    let where_to = if cloud { "MinIO and DynamoDB Local" } else { "files" };
    let report = report(where_to, &load, phases, &before, [&with, &without]);
    print!("{report}");
    let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("bench/merging.md");
    let old =
        if cloud { std::fs::read_to_string(&path).unwrap_or_default() } else { String::new() };
    let old = if old.is_empty() { format!("{TITLE}\n") } else { old };
    std::fs::write(path, old + &report).unwrap();
}

const TITLE: &str = "\
# What merging costs whoever waits

Two brokers, one that merges as it does by default and one that does not, take turns on one machine,
in the order A B B A, over the same kind of store. The load is open: latencies count from the moment
at which a record was to be sent, to its acknowledgement (produce) and to a consumer at the tail
that holds it (fetch). `tests/bench/merging.rs` repeats it.";

fn report(where_to: &str, load: &Load, phases: u32, before: &str, places: [&Place; 2]) -> String {
    let mut report = String::new();
    let [with, without] = places;
    writeln!(report, "\n## Over {where_to}\n\n{}\n", machine(how_built(), before)).unwrap();
    writeln!(
        report,
        "{} KiB/s in 16 KiB batches over {} partitions, {phases} phases of {} s each (and {} s \
         before that do\nnot count). Merged meanwhile: {:.0} MiB into {:.0} segments.\n",
        load.kib_per_second,
        PARTITIONS,
        load.lasts.as_secs(),
        load.warming.as_secs(),
        with.merged_bytes / f64::from(1 << 20),
        with.merged_segments,
    )
    .unwrap();
    assert!(without.merged_segments == 0.0, "what must not merge has merged");
    writeln!(report, "| ms | p50 | p99 | p99.9 | most | p99 of each phase |").unwrap();
    writeln!(report, "| --- | --- | --- | --- | --- | --- |").unwrap();
    let produce = places.map(|place| place.tail.produce());
    let fetch = places.map(|place| place.tail.fetch());
    for (what, [one, other]) in [("produce", produce), ("fetch", fetch)] {
        for (place, quantiles) in places.iter().zip([&one, &other]) {
            writeln!(report, "| {what}, {} | {quantiles} |", place.name).unwrap();
        }
        writeln!(
            report,
            "| {what}, ratio | {:.2} | **{:.2}** | {:.2} | {:.2} | median {:.2} |",
            one.p50 / other.p50,
            one.p99 / other.p99,
            one.p999 / other.p999,
            one.most / other.most,
            one.median_p99() / other.median_p99(),
        )
        .unwrap();
    }
    report
}
