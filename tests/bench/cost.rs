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
//! cargo run --release -p odradek-tests --bin cost
//! ```
//!
//! Writes `tests/bench/cost.md`.

#![expect(clippy::unwrap_used, reason = "a benchmark fails by panicking")]
#![expect(clippy::as_conversions, reason = "counts are far from where a double gets coarse")]

use std::collections::BTreeMap;
use std::fmt::Write as _;
use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use kafka_protocol::messages::ProduceRequest;
use odradek::config::Config;
use odradek_storage::clock::SystemClock;
use odradek_storage::location::{open_log, open_object_store};
use odradek_tests::batches::BatchSpec;
use odradek_tests::client::{Client, produce_request};
use odradek_tests::cluster::{Cluster, Stores};
use odradek_tests::fault_proxy::{Count, FaultProxy};
use odradek_tests::servers::{Server, options};
use tokio::time::{Instant, sleep};

const BROKERS: usize = 3;
const PARTITIONS: i32 = 100;

/// Time under load, and idle.
const LOAD: Duration = Duration::from_secs(30);
const IDLE: Duration = Duration::from_secs(60);

/// Time after the load in which what was written is merged, which is a part of what it costs.
const MERGING: Duration = Duration::from_secs(60);

/// Bytes a second through all brokers: what three producers send, each to a broker of its own.
const RATE: usize = 12 << 20;
const BATCH: usize = 16 << 10;

/// US dollars for a million, on demand in us-east-1, 2026-11.
const PUT: f64 = 5.0;
const GET: f64 = 0.4;
const WRITE_UNIT: f64 = 0.625;
const READ_UNIT: f64 = 0.125;

type Counts = BTreeMap<String, Count>;

struct Metered {
    s3: Counts,
    dynamodb: Counts,
}

impl Metered {
    fn requests(&self, prefixes: &[&str]) -> f64 {
        let matching = self.s3.iter().filter(|(name, _)| prefixes.iter().any(|it| *it == *name));
        matching.map(|(_, count)| count.requests).sum::<u64>() as f64
    }

    fn units(&self) -> (f64, f64) {
        let write = self.dynamodb.values().map(|it| it.write_units).sum();
        (write, self.dynamodb.values().map(|it| it.read_units).sum())
    }

    /// A row: requests and units, each divided by `per`, and their price.
    fn row(&self, what: &str, per: f64) -> String {
        let puts = self.requests(&["PutObject", "ListObjectsV2"]) / per;
        let gets = self.requests(&["GetObject", "HeadObject"]) / per;
        let (write, read) = self.units();
        let (write, read) = (write / per, read / per);
        let dollars = (puts * PUT + gets * GET + write * WRITE_UNIT + read * READ_UNIT) / 1e6;
        format!("| {what} | {puts:.0} | {gets:.0} | {write:.0} | {read:.0} | ${dollars:.5} |")
    }
}

fn main() {
    let runtime = tokio::runtime::Runtime::new().unwrap();
    let report = runtime.block_on(measure());
    print!("{report}");
    let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("bench/cost.md");
    std::fs::write(path, report).unwrap();
}

async fn measure() -> String {
    let (minio, dynamodb) = (Server::minio().await, Server::dynamodb().await);
    let s3 = FaultProxy::start(minio.address(), 1);
    let table = FaultProxy::start(dynamodb.address(), 2);
    let mut cluster = Cluster::over(stores(&s3, &table).await, 0, false).await;
    for _ in 0..BROKERS {
        // Each opens the stores for itself, as processes do.
        cluster.stores = stores(&s3, &table).await;
        let config = Config { listen: "127.0.0.1:0".to_owned(), ..Config::default() };
        cluster.start_charged(config, Arc::new(SystemClock)).await;
    }
    Client::connect(cluster.address(0)).await.create_topic("t", PARTITIONS).await;
    let meter = |reset: bool| {
        let metered = Metered { s3: s3.counts(), dynamodb: table.counts() };
        if reset {
            s3.reset_counts();
            table.reset_counts();
        }
        metered
    };

    meter(true);
    let mut producers = Vec::new();
    for broker in 0..BROKERS {
        producers.push(tokio::spawn(produce(cluster.address(broker))));
    }
    let mut bytes = 0;
    for producer in producers {
        bytes += producer.await.unwrap();
    }
    sleep(MERGING).await;
    let load = meter(true);
    sleep(IDLE).await;
    let idle = meter(true);

    let gib = bytes as f64 / f64::from(1 << 30);
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
    writeln!(report, "{}", load.row("per GiB produced", gib)).unwrap();
    let hours = IDLE.as_secs_f64() / 3600.0;
    writeln!(report, "{}", idle.row("idle, per hour", hours)).unwrap();
    writeln!(report, "{}", idle.row("idle, per month", hours / 730.0)).unwrap();
    report
}

async fn stores(s3: &FaultProxy, table: &FaultProxy) -> Stores {
    let store = open_object_store(&format!("s3://cost?{}", options(s3.address()))).await;
    let log = open_log(&format!("dynamodb://cost?{}", options(table.address())), "cost").await;
    Stores { objects: store.unwrap(), log: log.unwrap().log }
}

/// Produces at its share of the rate to all partitions in turn; gives the bytes of its batches.
async fn produce(address: std::net::SocketAddr) -> usize {
    let mut client = Client::connect(address).await;
    let noise = noise();
    let batch = BatchSpec::of([noise]).encode();
    let pause = Duration::from_secs_f64((BATCH * BROKERS) as f64 / RATE as f64);
    let (end, mut next) = (Instant::now() + LOAD, Instant::now());
    let (mut sent, mut bytes, mut partition) = (std::collections::VecDeque::new(), 0, 0);
    while Instant::now() < end {
        partition = (partition + 1) % PARTITIONS;
        let request = produce_request("t", partition, -1, batch.clone());
        sent.push_back(client.send(9, &request).await);
        bytes += batch.len();
        if sent.len() > 200 {
            acknowledge(&mut client, sent.pop_front().unwrap()).await;
        }
        next += pause;
        tokio::time::sleep_until(next).await;
    }
    for id in sent {
        acknowledge(&mut client, id).await;
    }
    bytes
}

async fn acknowledge(client: &mut Client, id: i32) {
    let response = client.receive::<ProduceRequest>(9, id).await;
    assert_eq!(response.responses[0].partition_responses[0].error_code, 0, "{response:?}");
}

/// Bytes that do not compress.
fn noise() -> Bytes {
    let mut state = 0x9e37_79b9_7f4a_7c15_u64;
    let bytes = (0..BATCH).map(|_| {
        state ^= state << 13;
        state ^= state >> 7;
        state ^= state << 17;
        state.to_be_bytes()[0]
    });
    bytes.collect()
}
