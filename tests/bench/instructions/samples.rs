//! What the cases work on, made of constants: requests as a producer sends them, and a log as
//! brokers write it.

use bytes::Bytes;
use kafka_protocol::messages::ProduceRequest;
use kafka_protocol::messages::produce_request::{PartitionProduceData, TopicProduceData};
use odradek_protocol::id::{ProducerId, TopicId, TopicPartition};
use odradek_storage::command::{
    BatchProducer, BatchSummary, BatchTransaction, BrokerAddress, Command, CommandId, Entry,
    EntryHash, Incarnation, Proposal, Run,
};
use odradek_storage::lsn::Lsn;
use odradek_storage::segment::{BLOCK_HEADER_BYTES, HEADER_BYTES, SegmentId};
use odradek_storage::state::{Applied, State};
use odradek_tests::batches::BatchSpec;
use odradek_tests::client::topic;
use uuid::Uuid;

/// When everything is produced, in milliseconds since the Unix epoch.
pub(crate) const NOW_MS: i64 = 1_700_000_000_000;

/// The topic that requests are about.
pub(crate) const TOPIC: &str = "instructions";

/// A request's worth of batches, each for a partition of its own.
#[derive(Clone, Copy)]
pub(crate) struct Load {
    pub(crate) batches: i32,
    records: i32,
    value_bytes: i32,
}

/// Few batches of about 16 KiB: bytes are what costs.
pub(crate) const LARGE: Load = Load { batches: 16, records: 16, value_bytes: 1010 };

/// As many bytes in batches of about one: now it is the batches.
pub(crate) const SMALL: Load = Load { batches: 256, records: 1, value_bytes: 950 };

impl Load {
    /// What an idempotent producer sends to a partition as its batch number `round`.
    pub(crate) fn batch(self, round: i32) -> Bytes {
        let byte = |at: i32| u8::try_from(at * 31 % 251).unwrap();
        let value = |record| (0..self.value_bytes).map(|at| byte(at + record)).collect::<Vec<u8>>();
        BatchSpec::of((0..self.records).map(value)).by(7, 0, round * self.records).encode()
    }

    /// The request with a batch for each partition.
    pub(crate) fn produce(self, round: i32) -> ProduceRequest {
        let batch = self.batch(round);
        let data = |index| {
            PartitionProduceData::default().with_index(index).with_records(Some(batch.clone()))
        };
        let topic = TopicProduceData::default()
            .with_name(topic(TOPIC))
            .with_partition_data((0..self.batches).map(data).collect());
        ProduceRequest::default().with_acks(-1).with_timeout_ms(30_000).with_topic_data(vec![topic])
    }
}

/// Partitions of the state, and how many of them a topic has.
const PARTITIONS: usize = 10_000;
const TOPIC_PARTITIONS: usize = 100;

/// Batches that each partition has in the beginning, and how many of them were committed at a time.
const HISTORY: i32 = 2;
const HISTORY_RUNS: usize = 500;

/// Partitions that have a batch in a segment, and how many lie between two of them.
pub(crate) const ACTIVE: usize = 256;
const APART: usize = PARTITIONS / ACTIVE;

/// The broker that writes all of the log.
const BROKER: Incarnation = Incarnation(1);

const LOG_ID: Uuid = Uuid::from_u128(1);

/// What a batch of 16 records looks like to the state.
const RECORDS: u32 = 16;
const BATCH_BYTES: u32 = 16 * 1024;

/// Writes the entries of a log, one after the other.
#[derive(Default)]
pub(crate) struct Scribe {
    lsn: u64,
    commands: u64,
    segments: u64,
}

impl Scribe {
    /// The next entry.
    fn entry(&mut self, commands: Vec<Command>) -> Entry {
        let previous = self.lsn;
        self.lsn += 1;
        let proposals = commands.into_iter().map(|command| {
            self.commands += 1;
            Proposal { id: CommandId { incarnation: BROKER, counter: self.commands }, command }
        });
        Entry {
            log_id: if previous == 0 { Uuid::nil() } else { LOG_ID },
            previous: EntryHash(previous),
            append_id: CommandId { incarnation: BROKER, counter: previous },
            level: 1,
            time_ms: NOW_MS,
            digest: None,
            proposals: proposals.collect(),
            lsn: Lsn::new(self.lsn),
        }
    }

    /// The entry that commits a segment with batch number `round` of each of these partitions.
    fn commit_of(&mut self, round: i32, numbers: impl Iterator<Item = usize>) -> Entry {
        self.segments += 1;
        let segment =
            SegmentId { began: Lsn::new(self.lsn), incarnation: BROKER, counter: self.segments };
        let stored_bytes = BATCH_BYTES + u32::try_from(BLOCK_HEADER_BYTES).unwrap();
        let mut end = u64::try_from(HEADER_BYTES).unwrap();
        let run = |number| {
            let position = end;
            end += u64::from(stored_bytes);
            let batches = vec![summary(number, round)];
            Run { partition: partition(number), position, stored_bytes, batches }
        };
        let runs = numbers.map(run).collect();
        self.entry(vec![Command::CommitSegment { segment, bytes: end + 10_000, runs }])
    }

    /// The entry that commits the next segment of the active partitions.
    pub(crate) fn commit(&mut self, round: i32) -> Entry {
        self.commit_of(HISTORY + round, (0..ACTIVE).map(|at| at * APART))
    }

    /// A state of 10,000 partitions, a few batches in each.
    pub(crate) fn state(&mut self) -> State {
        let mut state = State::new();
        let genesis = Command::Genesis { cluster_id: Uuid::from_u128(2), log_id: LOG_ID, level: 1 };
        let broker = Command::RegisterBroker(BrokerAddress::default());
        apply(&mut state, &self.entry(vec![genesis, broker]));
        let topics = (0..PARTITIONS / TOPIC_PARTITIONS).map(|number| Command::CreateTopic {
            topic: partition(number * TOPIC_PARTITIONS).topic,
            name: format!("topic-{number}"),
            partitions: u32::try_from(TOPIC_PARTITIONS).unwrap(),
            replication_factor: 1,
            configs: Default::default(),
        });
        apply(&mut state, &self.entry(topics.collect()));
        for round in 0..HISTORY {
            for first in (0..PARTITIONS).step_by(HISTORY_RUNS) {
                let entry = self.commit_of(round, first..first + HISTORY_RUNS);
                assert_eq!(apply(&mut state, &entry).touched.len(), HISTORY_RUNS);
            }
        }
        state
    }
}

/// Applies an entry of a scribe.
pub(crate) fn apply(state: &mut State, entry: &Entry) -> Applied {
    state.apply(entry, EntryHash(entry.lsn.get())).unwrap()
}

/// A partition of the state.
pub(crate) fn partition(number: usize) -> TopicPartition {
    let topic = u128::try_from(number / TOPIC_PARTITIONS + 1).unwrap();
    let partition = i32::try_from(number % TOPIC_PARTITIONS).unwrap();
    TopicPartition { topic: TopicId(Uuid::from_u128(topic)), partition }
}

/// Batch number `round` of a partition.
pub(crate) fn summary(number: usize, round: i32) -> BatchSummary {
    BatchSummary {
        bytes: BATCH_BYTES,
        records: RECORDS,
        max_timestamp: NOW_MS,
        producer: Some(BatchProducer {
            id: ProducerId(i64::try_from(number % 16).unwrap()),
            epoch: 0,
            base_sequence: round * i32::try_from(RECORDS).unwrap(),
            transaction: BatchTransaction::None,
        }),
    }
}
