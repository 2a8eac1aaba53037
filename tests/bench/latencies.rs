//! An open load, and the latencies under it: producers that send when it is time to, whatever has
//! become of what they sent before, and consumers at the tail.

use std::fmt;
use std::net::SocketAddr;
use std::time::{Duration, Instant};

use bytes::{Bytes, BytesMut};
use kafka_protocol::messages::fetch_request::{FetchPartition, FetchTopic};
use kafka_protocol::messages::list_offsets_request::{ListOffsetsPartition, ListOffsetsTopic};
use kafka_protocol::messages::{
    BrokerId, FetchRequest, ListOffsetsRequest, ProduceResponse, ResponseHeader,
};
use kafka_protocol::protocol::{Decodable, HeaderVersion};
use odradek_tests::batches::{BatchSpec, read_records};
use odradek_tests::client::{Client, frame, produce_request, topic};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;
use tokio::net::tcp::{OwnedReadHalf, OwnedWriteHalf};
use tokio::sync::{mpsc, watch};
use tokio::time::sleep_until;

pub(crate) const TOPIC: &str = "t";
pub(crate) const PARTITIONS: i32 = 100;

/// Connections that produce, and connections that consume a part of the partitions each.
const PRODUCERS: u32 = 8;
const CONSUMERS: i32 = 4;

const BATCH: u32 = 16 << 10;

/// Requests that a connection may have in flight: more than any stop of the broker makes.
const INFLIGHT_MAX: usize = 100_000;

/// The load of a phase.
#[derive(Clone, Copy)]
pub(crate) struct Load {
    /// How long it counts.
    pub(crate) lasts: Duration,
    /// How long it is there before.
    pub(crate) warming: Duration,
    pub(crate) kib_per_second: u32,
    /// What moments are counted from.
    pub(crate) began: Instant,
}

/// A phase: when its first record is due, from when on latencies count, and when it ends.
#[derive(Clone, Copy)]
struct Span {
    load: Load,
    first: Duration,
    counts_from: Duration,
    ends: Duration,
}

/// The latencies of a phase, in microseconds, in order.
#[derive(Clone, Default)]
pub(crate) struct Phase {
    produced: Vec<u64>,
    fetched: Vec<u64>,
}

/// The latencies of all phases.
#[derive(Default)]
pub(crate) struct Tail {
    phases: Vec<Phase>,
}

/// What is asked of many latencies, in milliseconds.
pub(crate) struct Quantiles {
    pub(crate) p50: f64,
    pub(crate) p99: f64,
    pub(crate) p999: f64,
    pub(crate) most: f64,
    phases_p99: Vec<f64>,
}

impl Load {
    /// Puts the load on a broker, for a phase.
    pub(crate) async fn run(self, address: SocketAddr) -> Phase {
        let first = self.began.elapsed();
        let counts_from = first + self.warming;
        let span = Span { load: self, first, counts_from, ends: counts_from + self.lasts };
        let (done, is_done) = watch::channel(false);
        let mut consumers = Vec::new();
        for place in 0..CONSUMERS {
            let consumer = Consumer::new(address, place).await;
            consumers.push(tokio::spawn(consumer.run(span, is_done.clone())));
        }
        let mut producers = Vec::new();
        for place in 0..PRODUCERS {
            let stream = TcpStream::connect(address).await.unwrap();
            stream.set_nodelay(true).unwrap();
            let (read, write) = stream.into_split();
            let (sent, due) = mpsc::channel(INFLIGHT_MAX);
            tokio::spawn(span.send(place, write, sent));
            producers.push(tokio::spawn(span.receive(read, due)));
        }
        let mut phase = Phase::default();
        for producer in producers {
            phase.produced.extend(producer.await.unwrap());
        }
        done.send_replace(true);
        for consumer in consumers {
            phase.fetched.extend(consumer.await.unwrap());
        }
        phase.produced.sort_unstable();
        phase.fetched.sort_unstable();
        phase
    }
}

impl Span {
    /// How late it is, if that counts.
    fn latency(&self, due: Duration) -> Option<u64> {
        let late = self.load.began.elapsed().saturating_sub(due);
        (due >= self.counts_from).then(|| u64::try_from(late.as_micros()).unwrap())
    }

    /// Sends a batch whenever it is time to, and says when that was.
    async fn send(self, place: u32, mut write: OwnedWriteHalf, sent: mpsc::Sender<Duration>) {
        let pace = Duration::from_secs(1) * PRODUCERS * (BATCH / 1024) / self.load.kib_per_second;
        let mut due = self.first + pace * place / PRODUCERS;
        let mut partition = i32::try_from(place).unwrap() * PARTITIONS / 8;
        let (filler, mut id) = (filler(), 0);
        while due < self.ends {
            sleep_until((self.load.began + due).into()).await;
            let micros = u64::try_from(due.as_micros()).unwrap();
            let value = [&micros.to_be_bytes(), &filler[..]].concat();
            let request = produce_request(TOPIC, partition, -1, BatchSpec::of([value]).encode());
            id += 1;
            sent.send(due).await.unwrap();
            write.write_all(&frame(9, id, &request)).await.unwrap();
            partition = (partition + 1) % PARTITIONS;
            due += pace;
        }
        // The other half still reads.
        write.forget();
    }

    /// Takes the answers, which come in the order of the requests.
    async fn receive(
        self,
        mut read: OwnedReadHalf,
        mut sent: mpsc::Receiver<Duration>,
    ) -> Vec<u64> {
        let mut latencies = Vec::new();
        while let Some(due) = sent.recv().await {
            let mut frame = next_frame(&mut read).await;
            latencies.extend(self.latency(due));
            ResponseHeader::decode(&mut frame, ProduceResponse::header_version(9)).unwrap();
            let response = ProduceResponse::decode(&mut frame, 9).unwrap();
            let answer = &response.responses[0].partition_responses[0];
            assert_eq!(answer.error_code, 0, "{answer:?}");
        }
        latencies
    }
}

async fn next_frame(read: &mut OwnedReadHalf) -> Bytes {
    let length = usize::try_from(read.read_i32().await.unwrap()).unwrap();
    let mut frame = BytesMut::zeroed(length);
    read.read_exact(&mut frame).await.unwrap();
    frame.freeze()
}

/// A value that compresses to about three quarters, as records do, without its first eight bytes.
fn filler() -> Bytes {
    let mut state = 0x9e37_79b9_7f4a_7c15_u64;
    let mut next = || {
        state ^= state << 13;
        state ^= state >> 7;
        state ^= state << 17;
        state.to_be_bytes()[0]
    };
    (0..BATCH - 100).map(|at| if at % 4 == 0 { b' ' } else { next() }).collect()
}

/// A consumer at the tail of its part of the partitions.
struct Consumer {
    client: Client,
    /// Partitions, and the next offset of each.
    positions: Vec<(i32, i64)>,
}

impl Consumer {
    async fn new(address: SocketAddr, place: i32) -> Self {
        let mut client = Client::connect(address).await;
        let mut positions = Vec::new();
        for partition in (place..PARTITIONS).step_by(usize::try_from(CONSUMERS).unwrap()) {
            let latest =
                ListOffsetsPartition::default().with_partition_index(partition).with_timestamp(-1);
            let asked =
                ListOffsetsTopic::default().with_name(topic(TOPIC)).with_partitions(vec![latest]);
            let request = ListOffsetsRequest::default()
                .with_replica_id(BrokerId(-1))
                .with_topics(vec![asked]);
            let answer = client.call(5, &request).await;
            positions.push((partition, answer.topics[0].partitions[0].offset));
        }
        Self { client, positions }
    }

    /// Takes what comes until nothing does after all is acknowledged.
    async fn run(mut self, span: Span, is_done: watch::Receiver<bool>) -> Vec<u64> {
        let mut latencies = Vec::new();
        loop {
            let is_last = *is_done.borrow();
            let came = self.fetch().await;
            if came.is_empty() && is_last {
                return latencies;
            }
            for due in came {
                latencies.extend(span.latency(due));
            }
        }
    }

    /// When the records that come next were due.
    async fn fetch(&mut self) -> Vec<Duration> {
        let partitions = self.positions.iter().map(|(partition, offset)| {
            FetchPartition::default()
                .with_partition(*partition)
                .with_fetch_offset(*offset)
                .with_partition_max_bytes(1 << 20)
        });
        let asked =
            FetchTopic::default().with_topic(topic(TOPIC)).with_partitions(partitions.collect());
        let request = FetchRequest::default()
            .with_replica_id(BrokerId(-1))
            .with_max_wait_ms(500)
            .with_min_bytes(1)
            .with_max_bytes(50 << 20)
            .with_session_epoch(-1)
            .with_topics(vec![asked]);
        let answer = self.client.call(11, &request).await;
        assert_eq!(answer.error_code, 0, "{answer:?}");
        let mut came = Vec::new();
        let answers = answer.responses.into_iter().flat_map(|topic| topic.partitions);
        for ((_, position), answer) in self.positions.iter_mut().zip(answers) {
            assert_eq!(answer.error_code, 0, "{answer:?}");
            for record in read_records(answer.records.unwrap_or_default()) {
                let micros = u64::from_be_bytes(record.value[..8].try_into().unwrap());
                came.push(Duration::from_micros(micros));
                *position = record.offset + 1;
            }
        }
        came
    }
}

impl Tail {
    pub(crate) fn is_empty(&self) -> bool {
        self.phases.is_empty()
    }

    pub(crate) fn add(&mut self, phase: Phase) {
        self.phases.push(phase);
    }

    pub(crate) fn produce(&self) -> Quantiles {
        quantiles(self.phases.iter().map(|phase| phase.produced.as_slice()))
    }

    pub(crate) fn fetch(&self) -> Quantiles {
        quantiles(self.phases.iter().map(|phase| phase.fetched.as_slice()))
    }

    /// The last phase, in a line.
    pub(crate) fn last(&self) -> String {
        let last = Self { phases: self.phases.last().cloned().into_iter().collect() };
        format!("produce {}, fetch {}", last.produce(), last.fetch())
    }
}

fn quantiles<'a>(phases: impl Iterator<Item = &'a [u64]>) -> Quantiles {
    let (mut all, mut phases_p99) = (Vec::new(), Vec::new());
    for phase in phases {
        all.extend_from_slice(phase);
        phases_p99.push(quantile(phase, 990));
    }
    all.sort_unstable();
    let [p50, p99, p999, most] = [500, 990, 999, 1000].map(|part| quantile(&all, part));
    Quantiles { p50, p99, p999, most, phases_p99 }
}

/// The latency that so many of a thousand are not above, in milliseconds.
fn quantile(sorted: &[u64], per_mille: usize) -> f64 {
    let place = (sorted.len() * per_mille).div_ceil(1000).max(1) - 1;
    Duration::from_micros(sorted[place]).as_secs_f64() * 1000.0
}

impl Quantiles {
    /// The median of the 99th percentiles of the phases.
    pub(crate) fn median_p99(&self) -> f64 {
        let mut sorted = self.phases_p99.clone();
        sorted.sort_unstable_by(f64::total_cmp);
        sorted[sorted.len() / 2]
    }
}

impl fmt::Display for Quantiles {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { p50, p99, p999, most, phases_p99 } = self;
        let phases: Vec<String> = phases_p99.iter().map(|it| format!("{it:.0}")).collect();
        write!(f, "{p50:.1} | {p99:.1} | {p999:.1} | {most:.1} | {}", phases.join(", "))
    }
}
