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
use odradek_tests::batches::{BatchSpec, filler, read_records};
use odradek_tests::client::{Client, frame, produce_request, topic};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;
use tokio::net::tcp::{OwnedReadHalf, OwnedWriteHalf};
use tokio::sync::{mpsc, watch};
use tokio::time::sleep_until;

/// Partitions of the one topic that a load is on, unless it says otherwise.
pub(crate) const PARTITIONS: i32 = 100;

/// Connections that produce.
const PRODUCERS: u32 = 8;

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
    /// Bytes of a batch.
    pub(crate) batch: u32,
    /// Topics, called as [`topic_name`] says, and the partitions of each: all in turn.
    pub(crate) topics: u32,
    pub(crate) partitions: i32,
    /// Connections that consume a part of the first topic each.
    pub(crate) consumers: i32,
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

/// The name of a topic that a load is on.
pub(crate) fn topic_name(number: u32) -> String {
    format!("t{number}")
}

impl Load {
    /// Of 16 KiB batches to one topic that is consumed.
    pub(crate) fn new(seconds: u32, kib_per_second: u32) -> Self {
        Self {
            lasts: Duration::from_secs(seconds.into()),
            warming: Duration::from_secs(3),
            kib_per_second,
            batch: 16 << 10,
            topics: 1,
            partitions: PARTITIONS,
            consumers: 4,
            began: Instant::now(),
        }
    }

    /// Puts the load on a broker, for a phase.
    pub(crate) async fn run(self, address: SocketAddr) -> Phase {
        let first = self.began.elapsed();
        let counts_from = first + self.warming;
        let span = Span { load: self, first, counts_from, ends: counts_from + self.lasts };
        let (done, is_done) = watch::channel(false);
        let mut consumers = Vec::new();
        for place in 0..self.consumers {
            let consumer = Consumer::new(address, self, place).await;
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

impl Load {
    /// The topic and the partition of a batch.
    fn place(&self, number: u64) -> (u32, i32) {
        let partitions = u64::try_from(self.partitions).unwrap();
        let topic = number / partitions % u64::from(self.topics);
        (u32::try_from(topic).unwrap(), i32::try_from(number % partitions).unwrap())
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
        let Load { batch, kib_per_second, .. } = self.load;
        let pace = Duration::from_secs(1) * (batch / 1024) / kib_per_second;
        let mut due = self.first + pace * place;
        // All producers count the batches together, and the next phase does not begin anew.
        let mut number = u64::try_from(due.as_nanos() / pace.as_nanos()).unwrap();
        let (filler, mut id) = (filler(batch, 0), 0);
        while due < self.ends {
            sleep_until((self.load.began + due).into()).await;
            let micros = u64::try_from(due.as_micros()).unwrap();
            let value = [&micros.to_be_bytes(), &filler[..]].concat();
            let (topic, partition) = self.load.place(number);
            let batch = BatchSpec::of([value]).encode();
            let request = produce_request(&topic_name(topic), partition, -1, batch);
            id += 1;
            sent.send(due).await.unwrap();
            write.write_all(&frame(9, id, &request)).await.unwrap();
            number += u64::from(PRODUCERS);
            due += pace * PRODUCERS;
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

/// A consumer at the tail of its part of the partitions.
struct Consumer {
    client: Client,
    /// Partitions, and the next offset of each.
    positions: Vec<(i32, i64)>,
}

impl Consumer {
    async fn new(address: SocketAddr, load: Load, place: i32) -> Self {
        let mut client = Client::connect(address).await;
        let mut positions = Vec::new();
        let step = usize::try_from(load.consumers).unwrap();
        for partition in (place..load.partitions).step_by(step) {
            let latest =
                ListOffsetsPartition::default().with_partition_index(partition).with_timestamp(-1);
            let asked = ListOffsetsTopic::default()
                .with_name(topic(&topic_name(0)))
                .with_partitions(vec![latest]);
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
        let asked = FetchTopic::default()
            .with_topic(topic(&topic_name(0)))
            .with_partitions(partitions.collect());
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

impl From<Vec<u64>> for Phase {
    /// These latencies of producers, in microseconds, in order.
    fn from(produced: Vec<u64>) -> Self {
        Self { produced, fetched: Vec::new() }
    }
}

impl Tail {
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
