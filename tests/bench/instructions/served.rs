//! The cases of a broker: requests through a pipe to a whole one, whose log and store are memory,
//! on one thread and on time that stands still. The pipe copies each byte twice, as a socket does.

use std::sync::Arc;

use bytes::Bytes;
use kafka_protocol::messages::create_topics_request::CreatableTopic;
use kafka_protocol::messages::fetch_request::{FetchPartition, FetchTopic};
use kafka_protocol::messages::offset_commit_request::{
    OffsetCommitRequestPartition, OffsetCommitRequestTopic,
};
use kafka_protocol::messages::{
    BrokerId, CreateTopicsRequest, FetchRequest, GroupId, OffsetCommitRequest, ProduceRequest,
};
use odradek::broker::Broker;
use odradek::config::Config;
use odradek::doors;
use odradek_storage::clock::ManualClock;
use odradek_storage::command::BrokerAddress;
use odradek_storage::engine::{EngineConfig, Ports};
use odradek_storage::life::LifeConfig;
use odradek_storage::log::memory::MemoryLog;
use odradek_storage::machine::MachineConfig;
use odradek_storage::object::memory::MemoryObjectStore;
use odradek_storage::peer::NoPeers;
use odradek_storage::reader::ReaderConfig;
use odradek_storage::writer::WriterConfig;
use odradek_tests::client::{frame, response, topic};
use tokio::io::{AsyncReadExt, AsyncWriteExt, DuplexStream, duplex};
use tokio::runtime::Runtime;
use tokio::sync::mpsc::Sender;

use crate::counting::repeat;
use crate::samples::{Load, NOW_MS, TOPIC};

/// What the two ends of a connection buffer between them: as much as a socket does, or so.
const WINDOW_BYTES: usize = 128 * 1024;

/// Versions of the requests.
const PRODUCE: i16 = 9;
const FETCH: i16 = 12;
const COMMIT: i16 = 8;
const CREATE: i16 = 7;

/// The correlation id of every request.
const CORRELATION: i32 = 1;

/// Partitions whose offsets are committed at once.
const COMMITTED: i32 = 10;

/// A broker with one topic, and a client that is connected to it.
struct Served {
    runtime: Runtime,
    wire: DuplexStream,
    /// Both live as long as their client.
    _broker: Broker,
    _pipes: Sender<DuplexStream>,
}

impl Served {
    fn new(partitions: i32) -> Self {
        let runtime = tokio::runtime::Builder::new_current_thread()
            .enable_time()
            .start_paused(true)
            .build()
            .unwrap();
        let (broker, pipes) = runtime.block_on(start());
        let (wire, other) = duplex(WINDOW_BYTES);
        runtime.block_on(pipes.send(other)).unwrap();
        let mut served = Self { runtime, wire, _broker: broker, _pipes: pipes };
        let new = CreatableTopic::default()
            .with_name(topic(TOPIC))
            .with_num_partitions(partitions)
            .with_replication_factor(1);
        let create = CreateTopicsRequest::default().with_topics(vec![new]).with_timeout_ms(10_000);
        let answer = served.answer(&frame(CREATE, CORRELATION, &create));
        let created = response::<CreateTopicsRequest>(CREATE, CORRELATION, answer);
        assert_eq!(created.topics[0].error_code, 0, "{created:?}");
        served
    }

    /// Sends the frame of a request and waits for that of its response, which is without length.
    fn answer(&mut self, frame: &[u8]) -> Bytes {
        let wire = &mut self.wire;
        self.runtime.block_on(async {
            wire.write_all(frame).await.unwrap();
            let length = usize::try_from(wire.read_i32().await.unwrap()).unwrap();
            let mut answer = vec![0; length];
            wire.read_exact(&mut answer).await.unwrap();
            answer.into()
        })
    }
}

async fn start() -> (Broker, Sender<DuplexStream>) {
    let engine = EngineConfig {
        address: BrokerAddress { host: "broker".to_owned(), port: 1, ..BrokerAddress::default() },
        seed: 1,
        machine: MachineConfig::default(),
        writer: WriterConfig::default(),
        reader: ReaderConfig::default(),
        life: LifeConfig::default(),
    };
    let ports = Ports {
        objects: Arc::new(MemoryObjectStore::default()),
        log: Arc::new(MemoryLog::default()),
        clock: Arc::new(ManualClock::new(NOW_MS)),
        peers: Arc::new(NoPeers),
    };
    let starting = Broker::start_behind_pipes(Config::default(), engine, ports);
    Box::pin(starting).await.unwrap()
}

/// Reads and checks Produce requests, before a broker asks itself what topics there are.
pub(crate) fn parse(times: usize, load: Load) {
    let frame = frame(PRODUCE, CORRELATION, &load.produce(0)).slice(4..);
    let batches = usize::try_from(load.batches).unwrap();
    let taken = |taken| assert_eq!(taken, Some(batches));
    repeat(times, || frame.clone(), doors::taken_batches, taken);
}

/// Produces, until it is acknowledged.
pub(crate) fn produce(times: usize, load: Load) {
    let mut served = Served::new(load.batches);
    let mut rounds = 0..;
    let next = || frame(PRODUCE, CORRELATION, &load.produce(rounds.next().unwrap()));
    repeat(times, next, |frame| served.answer(&frame), is_produced);
}

fn is_produced(answer: Bytes) {
    let answer = response::<ProduceRequest>(PRODUCE, CORRELATION, answer);
    let partitions = &answer.responses[0].partition_responses;
    assert!(partitions.iter().all(|it| it.error_code == 0), "{answer:?}");
}

/// Fetches what the same broker has written, and has in memory.
pub(crate) fn fetch(times: usize, load: Load) {
    let mut served = Served::new(load.batches);
    is_produced(served.answer(&frame(PRODUCE, CORRELATION, &load.produce(0))));
    let asked = |index| {
        FetchPartition::default()
            .with_partition(index)
            .with_fetch_offset(0)
            .with_partition_max_bytes(1 << 20)
    };
    let asked = (0..load.batches).map(asked).collect();
    let asked = FetchTopic::default().with_topic(topic(TOPIC)).with_partitions(asked);
    let request = FetchRequest::default()
        .with_replica_id(BrokerId(-1))
        .with_max_wait_ms(500)
        .with_min_bytes(1)
        .with_max_bytes(50 << 20)
        .with_session_epoch(-1)
        .with_topics(vec![asked]);
    let frame = frame(FETCH, CORRELATION, &request);
    let bytes = load.batch(0).len();
    let is_fetched = |answer| {
        let answer = response::<FetchRequest>(FETCH, CORRELATION, answer);
        for partition in &answer.responses[0].partitions {
            assert_eq!(partition.records.as_ref().map(Bytes::len), Some(bytes), "{partition:?}");
        }
    };
    repeat(times, || (), |()| served.answer(&frame), is_fetched);
}

/// Commits the offsets of a consumer that assigns its partitions itself.
pub(crate) fn commit_offsets(times: usize) {
    let mut served = Served::new(COMMITTED);
    let mut offsets = 0..;
    let next = || {
        let offset = offsets.next().unwrap();
        let at = |index| {
            OffsetCommitRequestPartition::default()
                .with_partition_index(index)
                .with_committed_offset(offset)
        };
        let at = OffsetCommitRequestTopic::default()
            .with_name(topic(TOPIC))
            .with_partitions((0..COMMITTED).map(at).collect());
        let request = OffsetCommitRequest::default()
            .with_group_id(GroupId("group".into()))
            .with_generation_id_or_member_epoch(-1)
            .with_topics(vec![at]);
        frame(COMMIT, CORRELATION, &request)
    };
    let is_committed = |answer| {
        let answer = response::<OffsetCommitRequest>(COMMIT, CORRELATION, answer);
        assert!(answer.topics[0].partitions.iter().all(|it| it.error_code == 0), "{answer:?}");
    };
    repeat(times, next, |frame| served.answer(&frame), is_committed);
}
