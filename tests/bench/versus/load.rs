//! The load: raw sockets that send frames made beforehand, and fetch without looking at records, so
//! that the machine's time goes to the broker.

use std::collections::VecDeque;
use std::net::SocketAddr;
use std::sync::Arc;
use std::time::{Duration, Instant};

use bytes::{Buf, Bytes, BytesMut};
use futures::future::join_all;
use kafka_protocol::messages::produce_request::{PartitionProduceData, TopicProduceData};
use kafka_protocol::messages::{FetchRequest, ProduceRequest};
use odradek_tests::batches::BatchSpec;
use odradek_tests::client::{fetch_request, frame, response, topic};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;

use super::contestant::Versions;

/// Producers, or consumers with a partition of their own each.
pub(crate) const CONNECTIONS: usize = 4;

/// Requests that a producer has in flight, as the Java client's does.
pub(crate) const WINDOW: usize = 5;

/// Most batches in a request: 48 of 16 KiB stay below the 1 MiB that a Java client sends at most.
pub(crate) const REQUEST_BATCHES_MAX: i32 = 48;

/// Bytes of batches that a producer has ready, each with a content of its own.
const POOL_BYTES: usize = 2 << 20;

/// What a turn may take.
#[derive(Clone, Copy)]
pub(crate) struct Bounds {
    pub(crate) lasts: Duration,
    pub(crate) bytes: usize,
}

/// The requests of one producer, each to the next partitions.
pub(crate) struct Requests {
    version: i16,
    frames: Vec<Bytes>,
    /// Bytes of batches in each.
    frame_bytes: usize,
    /// How many get round all partitions.
    round: usize,
}

impl Requests {
    /// Enough of them to get round all partitions, which must be a multiple of a request's.
    pub(crate) fn new(versions: Versions, partitions: i32, batch: usize, seed: u64) -> Self {
        let batches = partitions.min(REQUEST_BATCHES_MAX);
        let frame_bytes = usize::try_from(batches).unwrap() * batch;
        let round = usize::try_from(partitions / batches).unwrap();
        let frames = POOL_BYTES.div_ceil(frame_bytes).next_multiple_of(round);
        let (mut noise, mut next) = (Noise::new(seed), 0);
        let frames = (0..frames).map(|id| {
            let data = (0..batches).map(|_| {
                let partition = next % partitions;
                next += 1;
                PartitionProduceData::default()
                    .with_index(partition)
                    .with_records(Some(noise.batch(batch)))
            });
            let data = TopicProduceData::default()
                .with_name(topic(super::TOPIC))
                .with_partition_data(data.collect());
            let request = ProduceRequest::default()
                .with_acks(-1)
                .with_timeout_ms(30_000)
                .with_topic_data(vec![data]);
            frame(versions.produce, i32::try_from(id).unwrap(), &request)
        });
        Self { version: versions.produce, frames: frames.collect(), frame_bytes, round }
    }

    /// Sends to each partition until none refuses: a new topic has its leaders a moment later.
    pub(crate) async fn settle(&self, address: SocketAddr) {
        let mut connection = Connection::new(address).await;
        for at in 0..self.round {
            connection.send(&self.frames[at]).await;
            while !self.is_accepted(at, connection.next_frame().await) {
                tokio::time::sleep(Duration::from_millis(20)).await;
                connection.send(&self.frames[at]).await;
            }
        }
    }

    /// Sends until a bound is met, with a window; gives the bytes that were acknowledged.
    async fn run(&self, address: SocketAddr, began: Instant, bounds: Bounds) -> usize {
        let mut connection = Connection::new(address).await;
        let (mut underway, mut sent) = (VecDeque::new(), 0);
        for at in (0..self.frames.len()).cycle() {
            if began.elapsed() >= bounds.lasts || sent * CONNECTIONS >= bounds.bytes {
                break;
            }
            if underway.len() == WINDOW {
                self.accepted(underway.pop_front().unwrap(), connection.next_frame().await);
            }
            connection.send(&self.frames[at]).await;
            underway.push_back(at);
            sent += self.frame_bytes;
        }
        for at in underway {
            self.accepted(at, connection.next_frame().await);
        }
        sent
    }

    fn accepted(&self, at: usize, frame: Bytes) {
        assert!(self.is_accepted(at, frame), "a batch was refused");
    }

    fn is_accepted(&self, at: usize, frame: Bytes) -> bool {
        let id = i32::try_from(at).unwrap();
        let answer = response::<ProduceRequest>(self.version, id, frame);
        answer.responses[0].partition_responses.iter().all(|it| it.error_code == 0)
    }
}

/// All producers at once; gives the bytes of batches that were acknowledged.
pub(crate) async fn produce(address: SocketAddr, all: &[Arc<Requests>], bounds: Bounds) -> usize {
    let began = Instant::now();
    let producers = all.iter().map(|requests| {
        let requests = Arc::clone(requests);
        tokio::spawn(async move { requests.run(address, began, bounds).await })
    });
    join_all(producers).await.into_iter().map(Result::unwrap).sum()
}

/// Consumers that read their partitions again and again; gives the bytes of whole batches.
pub(crate) async fn fetch(
    address: SocketAddr,
    versions: Versions,
    batch: usize,
    bounds: Bounds,
) -> usize {
    let began = Instant::now();
    let consumers = (0..CONNECTIONS).map(|partition| {
        let partition = i32::try_from(partition).unwrap();
        tokio::spawn(async move {
            let mut connection = Connection::new(address).await;
            let (mut offset, mut bytes, mut id) = (0, 0, 0);
            while began.elapsed() < bounds.lasts && bytes * CONNECTIONS < bounds.bytes {
                id += 1;
                let request = fetch_request(super::TOPIC, partition, offset);
                connection.send(&frame(versions.fetch, id, &request)).await;
                let frame = connection.next_frame().await;
                let answer = response::<FetchRequest>(versions.fetch, id, frame);
                let data = &answer.responses[0].partitions[0];
                assert_eq!(data.error_code, 0, "{data:?}");
                // What is cut off at the end of an answer is no batch.
                let batches = data.records.as_ref().map_or(0, Bytes::len) / batch;
                bytes += batches * batch;
                offset += i64::try_from(batches).unwrap();
                if offset >= data.high_watermark {
                    offset = 0;
                }
            }
            bytes
        })
    });
    join_all(consumers).await.into_iter().map(Result::unwrap).sum()
}

/// A connection whose buffer is used again as soon as nothing refers to it.
struct Connection {
    stream: TcpStream,
    buffer: BytesMut,
}

impl Connection {
    async fn new(address: SocketAddr) -> Self {
        let stream = TcpStream::connect(address).await.unwrap();
        stream.set_nodelay(true).unwrap();
        Self { stream, buffer: BytesMut::new() }
    }

    async fn send(&mut self, frame: &[u8]) {
        self.stream.write_all(frame).await.unwrap();
    }

    async fn next_frame(&mut self) -> Bytes {
        self.more_than(4).await;
        let length = usize::try_from(self.buffer.get_u32()).unwrap();
        self.more_than(length).await;
        self.buffer.split_to(length).freeze()
    }

    async fn more_than(&mut self, bytes: usize) {
        self.buffer.reserve(bytes.saturating_sub(self.buffer.len()));
        while self.buffer.len() < bytes {
            assert!(self.stream.read_buf(&mut self.buffer).await.unwrap() > 0, "closed");
        }
    }
}

/// Values that compress to about three quarters, as records do, and never repeat.
struct Noise(u64);

impl Noise {
    fn new(seed: u64) -> Self {
        Self(0x9e37_79b9_7f4a_7c15 ^ (seed << 32))
    }

    fn next(&mut self) -> u8 {
        self.0 ^= self.0 << 13;
        self.0 ^= self.0 >> 7;
        self.0 ^= self.0 << 17;
        self.0.to_be_bytes()[0]
    }

    /// A batch of one record, of exactly so many bytes.
    fn batch(&mut self, bytes: usize) -> Bytes {
        let around = BatchSpec::of([vec![0; bytes - 80]]).encode().len() - (bytes - 80);
        let value = (0..bytes - around).map(|at| if at % 4 == 0 { b' ' } else { self.next() });
        let batch = BatchSpec::of([value.collect::<Vec<u8>>()]).encode();
        assert_eq!(batch.len(), bytes);
        batch
    }
}
