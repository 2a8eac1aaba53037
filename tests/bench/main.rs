//! The benchmark: what producing and fetching through a broker costs, measured against the same
//! bytes through a bare socket in the same run.
//!
//! Timings of a shared machine mean little by themselves; the ratios and the processor time of the
//! broker are what to compare.
//!
//! `cargo run --release -p odradek-tests --features benches --bin bench` builds nothing but itself:
//! build the broker first (`cargo build --release`). Writes `tests/bench/results.md`.

#![expect(clippy::unwrap_used, reason = "a benchmark fails by panicking")]
#![expect(clippy::disallowed_methods, reason = "a benchmark asks the clock")]

use std::fmt::Write as _;
use std::fs;
use std::net::SocketAddr;
use std::path::Path;
use std::process::Command;
use std::time::{Duration, Instant};

use bytes::Bytes;
use kafka_protocol::messages::{FetchRequest, ProduceRequest};
use odradek_tests::batches::BatchSpec;
use odradek_tests::client::{Client, fetch_request, frame, produce_request};
use odradek_tests::process::BrokerProcess;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;

/// Bytes of batches sent through each path, a connection.
const BYTES: usize = 128 << 20;

/// Connections, each with a partition of its own.
const CONNECTIONS: usize = 4;

/// Requests that a connection has in flight.
const WINDOW: usize = 5;

/// Batches in a request: librdkafka and the Java client send a batch for each partition.
const PATHS: [(&str, usize); 2] = [("1 KiB batches", 1 << 10), ("16 KiB batches", 16 << 10)];

/// What one way of sending the bytes came to.
#[derive(Clone, Copy)]
struct Measured {
    mib_per_second: f64,
    processor_seconds_per_gib: f64,
}

fn per_gib(seconds: f64) -> f64 {
    seconds * f64::from(1 << 30) / f64::from(u32::try_from(BYTES * CONNECTIONS).unwrap())
}

fn mib_per_second(took: Duration) -> f64 {
    f64::from(u32::try_from((BYTES * CONNECTIONS) >> 20).unwrap()) / took.as_secs_f64()
}

/// Values that compress to about three quarters, as records do.
fn value(bytes: usize) -> Bytes {
    let mut state = 0x9e37_79b9_7f4a_7c15_u64;
    let mut next = || {
        state ^= state << 13;
        state ^= state >> 7;
        state ^= state << 17;
        state.to_be_bytes()[0]
    };
    (0..bytes).map(|at| if at % 4 == 0 { b' ' } else { next() }).collect::<Vec<u8>>().into()
}

async fn produce(address: SocketAddr, topic: String, partition: i32, batch_bytes: usize) {
    let mut client = Client::connect(address).await;
    let batch = BatchSpec::of([value(batch_bytes - 70)]).encode();
    let request = produce_request(&topic, partition, -1, batch);
    let mut underway = std::collections::VecDeque::new();
    for _ in 0..BYTES / batch_bytes {
        if underway.len() == WINDOW {
            let id = underway.pop_front().unwrap();
            let response = client.receive::<ProduceRequest>(9, id).await;
            assert_eq!(response.responses[0].partition_responses[0].error_code, 0);
        }
        underway.push_back(client.send(9, &request).await);
    }
    for id in underway {
        client.receive::<ProduceRequest>(9, id).await;
    }
}

async fn fetch(address: SocketAddr, topic: String, partition: i32, batch_bytes: usize) {
    let mut client = Client::connect(address).await;
    let (mut offset, end) = (0, i64::try_from(BYTES / batch_bytes).unwrap());
    while offset < end {
        let request = fetch_request(&topic, partition, offset);
        let response = client.call::<FetchRequest>(11, &request).await;
        let data = &response.responses[0].partitions[0];
        assert_eq!(data.error_code, 0);
        let records = data.records.as_ref().unwrap();
        offset += i64::try_from(records.len() / batch_size(records)).unwrap();
    }
}

fn batch_size(records: &Bytes) -> usize {
    usize::try_from(u32::from_be_bytes(records[8..12].try_into().unwrap())).unwrap() + 12
}

/// Runs one task a connection and measures them together.
async fn measure<F, T>(broker: &BrokerProcess, task: F) -> Measured
where
    F: Fn(i32) -> T,
    T: Future<Output = ()> + Send + 'static,
{
    let (before, began) = (broker.process.processor_seconds(), Instant::now());
    let tasks: Vec<_> =
        (0..CONNECTIONS).map(|n| tokio::spawn(task(i32::try_from(n).unwrap()))).collect();
    for task in tasks {
        task.await.unwrap();
    }
    Measured {
        mib_per_second: mib_per_second(began.elapsed()),
        processor_seconds_per_gib: per_gib(broker.process.processor_seconds() - before),
    }
}

/// The same frames into a socket whose other end reads and forgets, a window at a time.
async fn bare(batch_bytes: usize) -> f64 {
    let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address = listener.local_addr().unwrap();
    let batch = BatchSpec::of([value(batch_bytes - 70)]).encode();
    let request = frame(9, 1, &produce_request("topic", 0, -1, batch));
    let length = request.len();
    tokio::spawn(async move {
        while let Ok((mut stream, _)) = listener.accept().await {
            tokio::spawn(async move {
                let mut frame = vec![0; length];
                while stream.read_exact(&mut frame).await.is_ok() {
                    if stream.write_all(&[0; 60]).await.is_err() {
                        return;
                    }
                }
            });
        }
    });
    let began = Instant::now();
    let sender = |request: Bytes| async move {
        let mut stream = TcpStream::connect(address).await.unwrap();
        stream.set_nodelay(true).unwrap();
        let mut underway = 0;
        let mut answer = [0; 60];
        for _ in 0..BYTES / batch_bytes {
            if underway == WINDOW {
                stream.read_exact(&mut answer).await.unwrap();
                underway -= 1;
            }
            stream.write_all(&request).await.unwrap();
            underway += 1;
        }
    };
    let tasks: Vec<_> = (0..CONNECTIONS).map(|_| tokio::spawn(sender(request.clone()))).collect();
    for task in tasks {
        task.await.unwrap();
    }
    mib_per_second(began.elapsed())
}

/// Time from the start of the process to the first acknowledged record, in milliseconds.
async fn first_acknowledged(data: &Path) -> f64 {
    let started = Instant::now();
    let broker = BrokerProcess::in_folder(data, &[]);
    let mut client = broker.client().await;
    client.create_topic("first", 1).await;
    client.produce("first", 0, &BatchSpec::of(["x"])).await;
    started.elapsed().as_secs_f64() * 1000.0
}

/// Resident memory of a broker that holds 10,000 partitions and nothing else, in MiB.
async fn with_ten_thousand_partitions(data: &Path) -> f64 {
    let broker = BrokerProcess::in_folder(data, &[]);
    let mut client = broker.client().await;
    for n in 0..10 {
        client.create_topic(&format!("many-{n}"), 1000).await;
    }
    broker.process.resident_mib()
}

#[tokio::main]
async fn main() {
    let folder = tempfile::tempdir().unwrap();
    let mut rows = String::new();
    let started = first_acknowledged(&folder.path().join("start")).await;
    let broker = BrokerProcess::in_folder(&folder.path().join("data"), &[]);
    let mut client = broker.client().await;
    let idle = broker.process.resident_mib();
    for (path, bytes) in PATHS {
        let topic = format!("topic-{bytes}");
        client.create_topic(&topic, i32::try_from(CONNECTIONS).unwrap()).await;
        let ceiling = bare(bytes).await;
        let address = broker.address;
        let produced = measure(&broker, |n| produce(address, topic.clone(), n, bytes)).await;
        let fetched = measure(&broker, |n| fetch(address, topic.clone(), n, bytes)).await;
        for (what, measured) in [("produce", produced), ("fetch", fetched)] {
            writeln!(
                rows,
                "| {what}, {path} | {:.0} | {:.2} | {:.2} |",
                measured.mib_per_second,
                measured.mib_per_second / ceiling,
                measured.processor_seconds_per_gib
            )
            .unwrap();
        }
    }
    let loaded = broker.process.resident_mib();
    let many = with_ten_thousand_partitions(&folder.path().join("many")).await;
    let text = format!(
        "# Results of the last run\n\n{}\n\n\
         The broker syncs segment and log before it acknowledges (acks=all), on files. The bare\n\
         socket takes the same frames with the same window and does nothing else; client and\n\
         broker share the cores, so figures are for comparing only. Values compress to about\n\
         three quarters, and batches come uncompressed: what zstd costs is in the processor time\n\
         of produce.\n\n\
         | | MiB/s | of bare socket | broker CPU-s per GiB |\n| --- | --- | --- | --- |\n{rows}\n\
         | | |\n| --- | --- |\n\
         | start to first acknowledged record | {started:.0} ms |\n\
         | resident, idle | {idle:.0} MiB |\n\
         | resident, after the above (cache 256 MiB) | {loaded:.0} MiB |\n\
         | resident, idle with 10,000 partitions | {many:.0} MiB |\n",
        machine(),
    );
    println!("{text}");
    let results = Path::new(env!("CARGO_MANIFEST_DIR")).join("bench/results.md");
    fs::write(results, text).unwrap();
}

fn machine() -> String {
    let said = |program: &str, arguments: &[&str]| {
        let output = Command::new(program).args(arguments).output();
        output.map_or_else(
            |_| "?".to_owned(),
            |it| String::from_utf8_lossy(&it.stdout).trim().to_owned(),
        )
    };
    let cores = said("nproc", &[]);
    let model = fs::read_to_string("/proc/cpuinfo").unwrap_or_default();
    let model = model.lines().find_map(|line| line.strip_prefix("model name\t: ")).unwrap_or("?");
    let load = fs::read_to_string("/proc/loadavg").unwrap_or_default();
    format!(
        "{}, {cores} cores ({model}), Linux {}, {}, odradek {}, load {}",
        said("date", &["-u", "+%Y-%m-%d"]),
        said("uname", &["-r"]),
        said("rustc", &["--version"]),
        env!("CARGO_PKG_VERSION"),
        load.split_whitespace().next().unwrap_or("?"),
    )
}
