//! Three brokers over one bucket and one table that are metered, and a load on them.
//!
//! Counted by a proxy in front of MinIO and DynamoDB Local, so the numbers of requests are real and
//! the latencies are not.

use std::collections::{BTreeMap, VecDeque};
use std::net::SocketAddr;
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
use tokio::time::{Instant, sleep_until};

pub(crate) const BROKERS: usize = 3;

/// Bytes a second through all brokers: what three producers send, each to a broker of its own.
pub(crate) const RATE: usize = 12 << 20;
const BATCH: usize = 16 << 10;

/// Most partitions in a topic.
const TOPIC_PARTITIONS: i32 = 1000;

/// US dollars for a million, on demand in us-east-1, 2026-11.
const PUT: f64 = 5.0;
const GET: f64 = 0.4;
const WRITE_UNIT: f64 = 0.625;
const READ_UNIT: f64 = 0.125;

type Counts = BTreeMap<String, Count>;

/// The requests of some time.
pub(crate) struct Metered {
    pub(crate) s3: Counts,
    dynamodb: Counts,
}

/// What they come to, for each of something.
pub(crate) struct Charged {
    pub(crate) puts: f64,
    pub(crate) gets: f64,
    pub(crate) write: f64,
    pub(crate) read: f64,
    pub(crate) dollars: f64,
}

impl Metered {
    fn requests(&self, names: &[&str]) -> f64 {
        let matching = self.s3.iter().filter(|(name, _)| names.iter().any(|it| *it == *name));
        matching.map(|(_, count)| count.requests).sum::<u64>() as f64
    }

    /// Requests and units, each divided by `per`, and their price.
    pub(crate) fn charge(&self, per: f64) -> Charged {
        let puts = self.requests(&["PutObject", "ListObjectsV2"]) / per;
        let gets = self.requests(&["GetObject", "HeadObject"]) / per;
        let write = self.dynamodb.values().map(|it| it.write_units).sum::<f64>() / per;
        let read = self.dynamodb.values().map(|it| it.read_units).sum::<f64>() / per;
        let dollars = (puts * PUT + gets * GET + write * WRITE_UNIT + read * READ_UNIT) / 1e6;
        Charged { puts, gets, write, read, dollars }
    }
}

/// The brokers, the stores and the proxies.
pub(crate) struct Cloud {
    cluster: Cluster,
    s3: FaultProxy,
    table: FaultProxy,
    topics: Vec<(String, i32)>,
    _servers: [Server; 2],
}

impl Cloud {
    /// Brokers with so many partitions.
    pub(crate) async fn start(partitions: i32) -> Self {
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
        let mut client = Client::connect(cluster.address(0)).await;
        let mut topics = Vec::new();
        for first in (0..partitions).step_by(usize::try_from(TOPIC_PARTITIONS).unwrap()) {
            let (name, partitions) =
                (format!("t{first}"), TOPIC_PARTITIONS.min(partitions - first));
            client.create_topic(&name, partitions).await;
            topics.push((name, partitions));
        }
        Self { cluster, s3, table, topics, _servers: [minio, dynamodb] }
    }

    /// The requests since the last time.
    pub(crate) fn meter(&self) -> Metered {
        let metered = Metered { s3: self.s3.counts(), dynamodb: self.table.counts() };
        self.s3.reset_counts();
        self.table.reset_counts();
        metered
    }

    /// Produces for so long to all partitions in turn; gives the GiB of the batches, and how long
    /// it took.
    pub(crate) async fn load(&self, lasts: Duration) -> (f64, Duration) {
        let began = Instant::now();
        let mut producers = Vec::new();
        for broker in 0..BROKERS {
            let (address, topics) = (self.cluster.address(broker), self.topics.clone());
            producers.push(tokio::spawn(produce(address, topics, broker, lasts)));
        }
        let mut bytes = 0;
        for producer in producers {
            bytes += producer.await.unwrap();
        }
        (bytes as f64 / f64::from(1 << 30), began.elapsed())
    }
}

async fn stores(s3: &FaultProxy, table: &FaultProxy) -> Stores {
    let store = open_object_store(&format!("s3://cost?{}", options(s3.address()))).await;
    let log = open_log(&format!("dynamodb://cost?{}", options(table.address())), "cost").await;
    Stores { objects: store.unwrap(), log: log.unwrap().log }
}

/// Produces at its share of the rate to all partitions in turn, each producer beginning elsewhere;
/// gives the bytes of its batches.
async fn produce(
    address: SocketAddr,
    topics: Vec<(String, i32)>,
    producer: usize,
    lasts: Duration,
) -> usize {
    let mut client = Client::connect(address).await;
    let batch = BatchSpec::of([noise()]).encode();
    let pause = Duration::from_secs_f64((BATCH * BROKERS) as f64 / RATE as f64);
    let places: Vec<(&str, i32)> =
        topics.iter().flat_map(|(name, most)| (0..*most).map(|it| (name.as_str(), it))).collect();
    let places = places.iter().cycle().skip(producer * places.len() / BROKERS);
    let (end, mut next) = (Instant::now() + lasts, Instant::now());
    let (mut sent, mut bytes) = (VecDeque::new(), 0);
    for (topic, partition) in places {
        if Instant::now() >= end {
            break;
        }
        let request = produce_request(topic, *partition, -1, batch.clone());
        sent.push_back(client.send(9, &request).await);
        bytes += batch.len();
        if sent.len() > 200 {
            acknowledge(&mut client, sent.pop_front().unwrap()).await;
        }
        next += pause;
        sleep_until(next).await;
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
