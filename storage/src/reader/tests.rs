//! What is below the log start offset is never an answer, wherever in a block it lies.

use std::sync::Arc;

use bytes::{Bytes, BytesMut};
use odradek_protocol::id::{Offset, TopicId, TopicPartition};
use odradek_protocol::record::RecordBatch;
use uuid::Uuid;

use super::{
    FetchError, FetchTarget, Fetched, Isolation, Reader, ReaderConfig, TimestampOffset, Watermarks,
};
use crate::clock::ManualClock;
use crate::command::{
    BatchProducer, BatchSummary, BrokerAddress, Command, Incarnation, Outcome, RunOutcome,
};
use crate::engine::Ports;
use crate::log::memory::MemoryLog;
use crate::lsn::Lsn;
use crate::machine::{Machine, MachineConfig};
use crate::object::memory::MemoryObjectStore;
use crate::object::{ObjectStore, Put};
use crate::peer::NoPeers;
use crate::segment::SegmentId;
use crate::segment::builder::{PendingBatch, SegmentBuilder};
use crate::state::tests::chain::create_topic;

mod disk;
mod lanes;
mod life;
mod transactions;

const ORDERS: TopicPartition = TopicPartition { topic: TopicId(Uuid::from_u128(1)), partition: 0 };

/// When the first record of every batch of these tests is from.
const BASE_MS: i64 = 1_700_000_000_000;

const LOG_APPEND_TIME: i16 = 0x08;
const GZIP: i16 = 0x01;

/// A batch of records with these times after [`BASE_MS`], at most 31 milliseconds.
fn batch(attributes: i16, times: &[u8]) -> Bytes {
    let count = u32::try_from(times.len()).unwrap();
    let latest = i64::from(times.iter().copied().max().unwrap());
    let mut records = Vec::new();
    for (at, time) in (0..).zip(times) {
        // Length, attributes, time, offset, no key, no value, no headers: numbers are doubled.
        records.extend_from_slice(&[12, 0, 2 * time, 2 * at, 1, 1, 0]);
    }
    let mut bytes = vec![0; 61];
    bytes[8..12].copy_from_slice(&u32::to_be_bytes(49 + 7 * count));
    bytes[16] = 2;
    bytes[21..23].copy_from_slice(&attributes.to_be_bytes());
    bytes[23..27].copy_from_slice(&(count - 1).to_be_bytes());
    bytes[27..35].copy_from_slice(&BASE_MS.to_be_bytes());
    bytes[35..43].copy_from_slice(&(BASE_MS + latest).to_be_bytes());
    bytes[57..61].copy_from_slice(&count.to_be_bytes());
    bytes.extend_from_slice(&records);
    bytes.into()
}

/// A replica and a store, for batches that are put together by hand.
struct Shelf {
    machine: Machine,
    objects: Arc<MemoryObjectStore>,
    reader: Reader,
    segments: u64,
}

impl Shelf {
    async fn new() -> Self {
        let objects = Arc::new(MemoryObjectStore::default());
        let ports = Ports {
            objects: Arc::<MemoryObjectStore>::clone(&objects),
            log: Arc::new(MemoryLog::default()),
            // Later than all records: what is made now would be found if it counted.
            clock: Arc::new(ManualClock::new(BASE_MS + 1_000_000)),
            peers: Arc::new(NoPeers),
        };
        let config = MachineConfig { exclusive: true, ..MachineConfig::default() };
        let store = Arc::clone(&ports.objects);
        let machine = Machine::start(config, BrokerAddress::default(), ports, 1).await.unwrap();
        let reader =
            Reader::new(machine.clone(), store, Arc::new(NoPeers), ReaderConfig::default());
        let created = machine.propose(create_topic(ORDERS, 1)).await;
        assert_eq!(created, Ok(Outcome::Done));
        Self { machine, objects, reader, segments: 0 }
    }

    /// Puts a segment with these batches and commits it: one extent.
    async fn add(&mut self, batches: &[Bytes]) {
        let batches: Vec<_> = batches.iter().map(|bytes| (bytes.clone(), None)).collect();
        self.add_of(&batches).await;
    }

    /// Puts a segment with these batches of these producers and commits it: one extent.
    async fn add_of(&mut self, batches: &[(Bytes, Option<BatchProducer>)]) {
        self.segments += 1;
        let id =
            SegmentId { began: Lsn::FIRST, incarnation: Incarnation(1), counter: self.segments };
        let mut builder = SegmentBuilder::default();
        for (bytes, producer) in batches {
            let (batch, _) = RecordBatch::split_first(bytes).unwrap();
            let summary = BatchSummary {
                bytes: u32::try_from(bytes.len()).unwrap(),
                records: batch.offsets(),
                max_timestamp: batch.max_timestamp(),
                producer: *producer,
            };
            builder.push(ORDERS, PendingBatch { bytes: bytes.clone(), summary, compressed: false });
        }
        let sealed = builder.seal(id, None);
        let length = u64::try_from(sealed.bytes.len()).unwrap();
        let put = self.objects.put_if_absent(&id.key(), sealed.bytes).await;
        assert_eq!(put.unwrap(), Put::Created);
        let runs = sealed.blocks.into_iter().map(|block| block.run).collect();
        let commit = Command::CommitSegment { segment: id, bytes: length, runs };
        let outcome = self.machine.propose(commit).await.unwrap();
        let Outcome::SegmentCommitted(runs) = outcome else { panic!("{outcome:?}") };
        let log_start = self.reader.watermarks(ORDERS).unwrap().log_start;
        for run in runs {
            let RunOutcome::Judged { log_start: found, .. } = run else { panic!("{run:?}") };
            assert_eq!(found, log_start);
        }
    }

    async fn delete(&self, before: i64) {
        let before = Offset(before);
        let delete = Command::DeleteRecords { partition: ORDERS, before: Some(before) };
        let outcome = self.machine.propose(delete).await;
        assert_eq!(outcome, Ok(Outcome::RecordsDeleted(before)));
    }

    /// The batches that a fetch from `offset` on gives, with their offsets.
    async fn fetch(&self, offset: i64) -> Result<Vec<RecordBatch>, FetchError> {
        let fetched = self.fetch_as(Isolation::ReadUncommitted, offset, usize::MAX).await?;
        assert_eq!(fetched.aborted, None);
        Ok(batches_of(&fetched))
    }

    async fn fetch_as(
        &self,
        isolation: Isolation,
        offset: i64,
        bytes_max: usize,
    ) -> Result<Fetched, FetchError> {
        let target = FetchTarget { partition: ORDERS, offset: Offset(offset), bytes_max };
        let plan = self.reader.plan(&[target], bytes_max, isolation);
        self.reader.fetch(plan).await.remove(0)
    }

    async fn at_time(&self, time: u8) -> Option<TimestampOffset> {
        let timestamp = BASE_MS + i64::from(time);
        let isolation = Isolation::ReadUncommitted;
        self.reader.offset_for_timestamp(ORDERS, timestamp, isolation).await.unwrap()
    }

    async fn latest(&self) -> Option<TimestampOffset> {
        let isolation = Isolation::ReadUncommitted;
        self.reader.offset_of_max_timestamp(ORDERS, isolation).await.unwrap()
    }
}

fn batches_of(fetched: &Fetched) -> Vec<RecordBatch> {
    let mut rest = BytesMut::new();
    fetched.records.iter().for_each(|part| rest.extend_from_slice(part));
    assert_eq!(rest.len(), fetched.records_bytes);
    let mut rest = rest.freeze();
    let mut batches = Vec::new();
    while !rest.is_empty() {
        let (batch, after) = RecordBatch::split_first(&rest).unwrap();
        batches.push(batch);
        rest = after;
    }
    batches
}

fn found(record: Option<&(i64, u8)>) -> Option<TimestampOffset> {
    record.map(|(offset, time)| TimestampOffset {
        offset: Offset(*offset),
        timestamp_ms: BASE_MS + i64::from(*time),
    })
}

#[tokio::test(start_paused = true)]
async fn wherever_the_log_starts_only_what_is_left_is_found() {
    let mut shelf = Shelf::new().await;
    let extents: &[&[(i16, &[u8])]] = &[
        &[(0, &[5, 20, 3]), (0, &[2, 7])],
        &[(0, &[9, 1]), (LOG_APPEND_TIME, &[8, 8, 8]), (0, &[8])],
        &[(0, &[4, 20, 20, 6])],
        &[(0, &[1]), (0, &[0, 2, 0])],
        &[(0, &[2])],
    ];
    let mut records: Vec<(i64, u8)> = Vec::new();
    let mut bases = Vec::new();
    for extent in extents {
        let mut batches = Vec::new();
        for (attributes, times) in *extent {
            let first = i64::try_from(records.len()).unwrap();
            bases.push(first);
            records.extend((first..).zip(times.iter().copied()));
            batches.push(batch(*attributes, times));
        }
        shelf.add(&batches).await;
    }
    let end = i64::try_from(records.len()).unwrap();
    for log_start in 0..=end {
        shelf.delete(log_start).await;
        let watermarks = shelf.reader.watermarks(ORDERS).unwrap();
        assert_eq!((watermarks.log_start.0, watermarks.high_watermark.0), (log_start, end));
        let left = records.iter().filter(|(offset, _)| *offset >= log_start);
        for time in 0..=21 {
            let first = left.clone().find(|(_, it)| *it >= time);
            assert_eq!(shelf.at_time(time).await, found(first), "{time} from {log_start} on");
        }
        let most = left.clone().map(|(_, time)| *time).max();
        let latest = left.clone().find(|(_, time)| Some(*time) == most);
        assert_eq!(shelf.latest().await, found(latest), "from {log_start} on");
        for offset in 0..log_start {
            let offset = Offset(offset);
            let expected = Err(FetchError::OutOfRange { offset, watermarks });
            assert_eq!(shelf.fetch(offset.0).await, expected);
        }
        for offset in log_start..end {
            // Whole batches, from the one on that holds the offset.
            let batches = shelf.fetch(offset).await.unwrap();
            let from = bases.partition_point(|base| *base <= offset) - 1;
            let fetched: Vec<i64> = batches.iter().map(RecordBatch::base_offset).collect();
            assert_eq!(fetched, bases[from..]);
        }
        assert_eq!(shelf.fetch(end).await, Ok(Vec::new()));
    }
}

#[tokio::test(start_paused = true)]
async fn a_batch_that_can_not_be_opened_is_answered_by_its_first_offset_that_is_left() {
    let mut shelf = Shelf::new().await;
    shelf.add(&[batch(0, &[1]), batch(GZIP, &[5, 9, 3])]).await;
    shelf.add(&[batch(0, &[7])]).await;
    for log_start in 0..4 {
        shelf.delete(log_start).await;
        let nonsense = found(Some(&(log_start.max(1), 9)));
        assert_eq!(shelf.at_time(2).await, nonsense);
        assert_eq!(shelf.latest().await, nonsense);
    }
    shelf.delete(4).await;
    assert_eq!(shelf.at_time(2).await, found(Some(&(4, 7))));
    assert_eq!(shelf.latest().await, found(Some(&(4, 7))));
}

#[tokio::test(start_paused = true)]
async fn what_lies_before_a_segment_that_is_gone_is_read_and_the_segment_is_named() {
    let mut shelf = Shelf::new().await;
    shelf.add(&[batch(0, &[1, 2])]).await;
    shelf.add(&[batch(0, &[3])]).await;
    shelf.add(&[batch(0, &[4])]).await;
    let gone = SegmentId { began: Lsn::FIRST, incarnation: Incarnation(1), counter: 2 };
    shelf.objects.delete(&[gone.key()]).await.unwrap();
    let bases = |batches: Vec<RecordBatch>| -> Vec<i64> {
        batches.iter().map(RecordBatch::base_offset).collect()
    };
    assert_eq!(bases(shelf.fetch(0).await.unwrap()), [0]);
    let error = shelf.fetch(2).await.unwrap_err();
    assert!(error.to_string().contains(gone.key().as_str()), "{error}");
    assert_eq!(bases(shelf.fetch(3).await.unwrap()), [3]);
}
