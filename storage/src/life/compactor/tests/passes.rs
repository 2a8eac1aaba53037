//! Passes over a partition of a broker: what consumers find afterwards, what is stored, and what
//! happens when something else was faster.

use std::collections::BTreeMap;
use std::sync::Arc;

use bytes::BytesMut;
use odradek_protocol::id::{Offset, TopicId, TopicPartition};
use odradek_protocol::record::{Codec, RecordBatch};
use uuid::Uuid;

use super::log::{Draft, Fact, facts};
use super::plan;
use crate::clock::ManualClock;
use crate::command::{
    BatchProducer, BatchSummary, BatchTransaction, Branch, BrokerAddress, Command, ConfigChange,
    ConfigOperation, ConfigResource, Outcome, ProducerIdAndEpoch, TransactionChange,
};
use crate::engine::Ports;
use crate::key::ObjectKey;
use crate::life::compactor::{Compactor, CompactorConfig, Output};
use crate::log::memory::MemoryLog;
use crate::machine::{Machine, MachineConfig};
use crate::names::{Names, Task};
use crate::object::memory::MemoryObjectStore;
use crate::object::{ObjectStore, Put};
use crate::peer::NoPeers;
use crate::reader::{FetchTarget, Isolation, Reader, ReaderConfig};
use crate::segment::SegmentId;
use crate::segment::builder::{PendingBatch, SegmentBuilder};

const TABLE: TopicPartition = TopicPartition { topic: TopicId(Uuid::from_u128(1)), partition: 0 };
const BRANCH: TopicPartition = TopicPartition { topic: TopicId(Uuid::from_u128(2)), partition: 0 };

const NOW_MS: i64 = 1_700_000_000_000;

/// A broker with a compacted topic.
struct House {
    machine: Machine,
    objects: Arc<MemoryObjectStore>,
    clock: Arc<ManualClock>,
    compactor: Compactor,
    names: Names,
    producer: Option<ProducerIdAndEpoch>,
    sequence: i32,
}

fn configs(pairs: &[(&str, &str)]) -> BTreeMap<String, String> {
    let policy = [("cleanup.policy", "compact")];
    let pairs = policy.iter().chain(pairs);
    pairs.map(|(name, value)| ((*name).to_owned(), (*value).to_owned())).collect()
}

/// Keys with the lengths of their values, in one batch.
fn batch(records: &[(u8, Option<u16>)]) -> Draft {
    let records = records.iter().map(|(key, value)| (*key, *value, 1)).collect();
    Draft { codec: Codec::Lz4, producer: None, time_ms: NOW_MS, records }
}

impl House {
    async fn new(pairs: &[(&str, &str)]) -> Self {
        Self::with(pairs, CompactorConfig::default()).await
    }

    async fn with(pairs: &[(&str, &str)], config: CompactorConfig) -> Self {
        let objects = Arc::new(MemoryObjectStore::default());
        let clock = Arc::new(ManualClock::new(NOW_MS));
        let ports = Ports {
            objects: Arc::<MemoryObjectStore>::clone(&objects),
            log: Arc::new(MemoryLog::default()),
            clock: Arc::<ManualClock>::clone(&clock),
            peers: Arc::new(NoPeers),
        };
        let exclusive = MachineConfig { exclusive: true, ..MachineConfig::default() };
        let store = Arc::clone(&ports.objects);
        let machine = Machine::start(exclusive, BrokerAddress::default(), ports, 1).await.unwrap();
        let compactor = Compactor::new(machine.clone(), store, config, 3, Arc::default());
        let names = Names::new(machine.clone(), Task::WRITING);
        let (producer, sequence) = (None, 0);
        let house = Self { machine, objects, clock, compactor, names, producer, sequence };
        let created = Command::CreateTopic {
            topic: TABLE.topic,
            name: "table".to_owned(),
            partitions: 1,
            replication_factor: 1,
            configs: configs(pairs),
        };
        assert_eq!(house.machine.propose(created).await, Ok(Outcome::Done));
        house
    }

    /// Commits a segment with these batches: one extent.
    async fn write(&mut self, drafts: &[Draft]) {
        self.write_to(TABLE, drafts).await;
    }

    async fn write_to(&mut self, at: TopicPartition, drafts: &[Draft]) {
        let mut builder = SegmentBuilder::default();
        for draft in drafts {
            let batch = draft.at(0);
            let producer = draft.producer.and(self.producer).map(|producer| {
                self.sequence += i32::try_from(batch.offsets()).unwrap();
                let base_sequence = self.sequence - i32::try_from(batch.offsets()).unwrap();
                let (id, epoch) = (producer.id, producer.epoch);
                let transaction = BatchTransaction::Implicit;
                BatchProducer { id, epoch, base_sequence, transaction }
            });
            let bytes = batch.bytes().clone();
            let summary = BatchSummary {
                bytes: u32::try_from(bytes.len()).unwrap(),
                records: batch.offsets(),
                max_timestamp: batch.max_timestamp(),
                producer,
            };
            builder.push(at, PendingBatch { bytes, summary, compressed: true });
        }
        let id = self.names.next();
        let sealed = builder.seal(id, None);
        let bytes = u64::try_from(sealed.bytes.len()).unwrap();
        let put = self.objects.put_if_absent(&id.key(), sealed.bytes).await;
        assert_eq!(put.unwrap(), Put::Created);
        let runs = sealed.blocks.into_iter().map(|block| block.run).collect();
        let commit = Command::CommitSegment { segment: id, bytes, runs };
        let outcome = self.machine.propose(commit).await.unwrap();
        assert!(matches!(outcome, Outcome::SegmentCommitted(_)), "{outcome:?}");
    }

    async fn change(&self, change: TransactionChange) -> ProducerIdAndEpoch {
        let transactional_id = "writer".to_owned();
        let command = Command::ChangeTransaction { transactional_id, change };
        match self.machine.propose(command).await {
            Ok(Outcome::Producer(producer)) => producer,
            outcome => panic!("{outcome:?}"),
        }
    }

    /// The producer, of which there is one.
    async fn init(&mut self) -> ProducerIdAndEpoch {
        if self.producer.is_none() {
            let init = TransactionChange::InitProducer { timeout_ms: 60_000, expected: None };
            self.producer = Some(self.change(init).await);
        }
        self.producer.unwrap()
    }

    /// A transaction of these batches, each in an extent.
    async fn transaction(&mut self, batches: &[&[(u8, Option<u16>)]], commits: bool) {
        let producer = self.init().await;
        for records in batches {
            self.write(&[Draft { producer: Some(producer.id.0), ..batch(records) }]).await;
        }
        let transaction = self
            .machine
            .read(|state| state.transactions().get("writer").map(|found| found.transaction))
            .unwrap();
        let end = TransactionChange::End { producer, transaction, commits, bumps_epoch: true };
        self.producer = Some(self.change(end).await);
        self.sequence = 0;
    }

    async fn configure(&self, name: &str, value: &str) {
        let operation = ConfigOperation::Set(value.to_owned());
        let changes = vec![ConfigChange { name: name.to_owned(), operation }];
        let resource = ConfigResource::Topic(TABLE.topic);
        let alter = Command::AlterConfigs { resource, replace: false, changes };
        assert_eq!(self.machine.propose(alter).await, Ok(Outcome::Done));
    }

    /// Time goes by, and the log notices.
    async fn wait(&self, ms: i64) {
        self.clock.shift(ms);
        let touch = Command::PurgeTopics { topics: Vec::new() };
        self.machine.propose(touch).await.unwrap();
    }

    async fn round(&mut self) {
        self.compactor.round().await.unwrap();
    }

    /// All batches that there are, and what consumers are told was aborted. Reading ends at the end
    /// of the log.
    async fn read(&self, at: TopicPartition) -> (Vec<RecordBatch>, usize) {
        let store: Arc<dyn ObjectStore> = Arc::<MemoryObjectStore>::clone(&self.objects);
        let reader =
            Reader::new(self.machine.clone(), store, Arc::new(NoPeers), ReaderConfig::default());
        let watermarks = reader.watermarks(at).unwrap();
        let target =
            FetchTarget { partition: at, offset: watermarks.log_start, bytes_max: usize::MAX };
        let plan = reader.plan(&[target], usize::MAX, Isolation::ReadCommitted);
        let fetched = reader.fetch(plan).await.remove(0).unwrap();
        let mut bytes = BytesMut::new();
        fetched.records.iter().for_each(|part| bytes.extend_from_slice(part));
        let mut rest = bytes.freeze();
        let mut batches = Vec::new();
        while let Some((batch, behind)) = RecordBatch::split_first(&rest) {
            batches.push(batch);
            rest = behind;
        }
        let end = batches
            .last()
            .map_or(watermarks.log_start, |it| Offset(it.base_offset()).advanced_by(it.offsets()));
        assert_eq!(end, watermarks.last_stable_offset, "COMPACT-3");
        (batches, fetched.aborted.map_or(0, |aborted| aborted.len()))
    }

    async fn facts(&self) -> Vec<Fact> {
        let (batches, _) = self.read(TABLE).await;
        batches.iter().filter(|it| !it.is_control()).flat_map(facts).collect()
    }

    /// Offsets and keys of what is left.
    async fn left(&self) -> Vec<(i64, u8)> {
        self.facts().await.iter().map(|fact| (fact.offset, fact.key)).collect()
    }

    fn cleaned(&self) -> i64 {
        self.machine.read(|state| state.partition(TABLE).unwrap().cleaned().0)
    }

    fn objects(&self) -> usize {
        self.machine.read(|state| state.segments().referenced().len())
    }

    fn unreferenced(&self) -> Vec<SegmentId> {
        self.machine.read(|state| state.segments().unreferenced().keys().copied().collect())
    }
}

#[tokio::test(start_paused = true)]
async fn of_each_key_the_latest_record_stays_where_it_was() {
    let mut house = House::new(&[]).await;
    house.write(&[batch(&[(1, Some(5)), (2, Some(6))]), batch(&[(1, Some(7))])]).await;
    house.write(&[batch(&[(3, Some(8)), (1, Some(9))])]).await;
    let before = house.facts().await;
    house.round().await;
    assert_eq!(house.left().await, [(1, 2), (3, 3), (4, 1)]);
    assert!(house.facts().await.iter().all(|fact| before.contains(fact)));
    assert_eq!((house.cleaned(), house.unreferenced().len()), (5, 1), "one extent is untouched");
}

#[tokio::test(start_paused = true)]
async fn what_is_compact_is_left_alone() {
    let mut house = House::new(&[("min.cleanable.dirty.ratio", "0.0")]).await;
    house.write(&[batch(&[(1, Some(5)), (2, Some(6))])]).await;
    house.round().await;
    assert_eq!((house.cleaned(), house.objects(), house.unreferenced().len()), (2, 1, 0));
    let applied = house.machine.read(|state| state.applied());
    house.round().await;
    assert_eq!(house.machine.read(|state| state.applied()), applied);
}

#[tokio::test(start_paused = true)]
async fn a_topic_is_compacted_when_enough_of_it_is_dirty_or_after_long() {
    let mut house = House::new(&[]).await;
    house.write(&[batch(&[(1, Some(5)), (2, Some(6)), (3, Some(7))])]).await;
    house.round().await;
    house.write(&[batch(&[(1, Some(5))])]).await;
    house.round().await;
    assert_eq!(house.cleaned(), 3, "less than half is dirty");
    house.configure("max.compaction.lag.ms", "60000").await;
    house.wait(50_000).await;
    house.round().await;
    assert_eq!(house.cleaned(), 3, "not old enough");
    house.wait(20_000).await;
    house.round().await;
    assert_eq!((house.cleaned(), house.left().await.len()), (4, 3));
}

#[tokio::test(start_paused = true)]
async fn what_is_younger_than_the_least_lag_stays() {
    let mut house = House::new(&[("min.compaction.lag.ms", "30000")]).await;
    house.write(&[batch(&[(1, Some(5))])]).await;
    house.write(&[batch(&[(1, Some(6))])]).await;
    house.wait(40_000).await;
    let later = Draft { time_ms: NOW_MS + 20_000, ..batch(&[(1, Some(7))]) };
    house.write(&[later]).await;
    house.round().await;
    assert_eq!((house.cleaned(), house.left().await.len()), (2, 2));
}

#[tokio::test(start_paused = true)]
async fn other_topics_keep_everything() {
    let mut house = House::new(&[("cleanup.policy", "delete")]).await;
    house.write(&[batch(&[(1, Some(5))]), batch(&[(1, Some(6))])]).await;
    house.round().await;
    assert_eq!(house.left().await.len(), 2);
    house.configure("cleanup.policy", "delete,compact").await;
    house.round().await;
    assert_eq!(house.left().await, [(1, 1)]);
}

#[tokio::test(start_paused = true)]
async fn a_pass_that_knows_enough_keys_goes_on_the_next_time() {
    let few = CompactorConfig { keys_max: 2, window_bytes: 1, ..CompactorConfig::default() };
    let mut house = House::with(&[("min.cleanable.dirty.ratio", "0.0")], few).await;
    for value in 0..6 {
        for key in 0..2 {
            house.write(&[batch(&[(key, Some(value))])]).await;
        }
    }
    let mut ends = Vec::new();
    while house.cleaned() < 12 {
        house.round().await;
        ends.push(house.cleaned());
    }
    assert_eq!(ends, [2, 4, 6, 8, 10, 12]);
    assert_eq!(house.left().await, [(10, 0), (11, 1)]);
}

#[tokio::test(start_paused = true)]
async fn many_extents_become_few_and_large_ones_are_split() {
    let small = CompactorConfig { segment_bytes: 2 << 20, ..CompactorConfig::default() };
    let mut house = House::with(&[], small).await;
    let noise = |key: u8| Draft { codec: Codec::None, ..batch(&[(key, Some(60_000))]) };
    for _ in 0..2 {
        for key in 0..40 {
            house.write(&[noise(key), batch(&[(99, Some(1))])]).await;
        }
    }
    house.round().await;
    assert_eq!(house.left().await.len(), 41);
    let extents = house.machine.read(|state| state.partition(TABLE).unwrap().extents().count());
    assert!(extents <= 6, "{extents}");
}

#[tokio::test(start_paused = true)]
async fn what_changes_during_a_pass_is_not_touched_by_it() {
    let mut house = House::new(&[]).await;
    house.write(&[batch(&[(1, Some(5))]), batch(&[(2, Some(6))])]).await;
    house.write(&[batch(&[(1, Some(7))])]).await;
    let work = |house: &House| house.machine.read(|state| plan::work(state, TABLE)).unwrap();
    let (first, second) = (work(&house), work(&house));
    let mut outputs = Vec::new();
    for work in [first, second] {
        let mut output = Output::default();
        let end = house.compactor.pass(work, &mut output).await.unwrap();
        output.finished.push((TABLE, end));
        outputs.push(output);
    }
    for mut output in outputs {
        house.compactor.flush(&mut output).await.unwrap();
        let is_late = !output.turned_away.is_empty();
        house.compactor.finish(output).await.unwrap();
        assert_eq!((is_late, house.cleaned()), (house.unreferenced().len() == 2, 3));
    }
    assert_eq!(house.unreferenced().len(), 2, "what was replaced, and what came too late");
    assert_eq!(house.left().await, [(1, 2), (2, 1)]);
}

#[tokio::test(start_paused = true)]
async fn a_pass_that_is_turned_away_is_not_finished() {
    let mut house = House::new(&[]).await;
    house.write(&[batch(&[(1, Some(5))]), batch(&[(2, Some(6))])]).await;
    house.write(&[batch(&[(1, Some(7))])]).await;
    let work = house.machine.read(|state| plan::work(state, TABLE)).unwrap();
    let mut output = Output::default();
    let end = house.compactor.pass(work, &mut output).await.unwrap();
    output.finished.push((TABLE, end));
    let delete = Command::DeleteRecords { partition: TABLE, before: Some(Offset(2)) };
    house.machine.propose(delete).await.unwrap();
    house.compactor.flush(&mut output).await.unwrap();
    house.compactor.finish(output).await.unwrap();
    assert_eq!((house.cleaned(), house.left().await), (0, vec![(2, 1)]));
    house.round().await;
    assert_eq!(house.cleaned(), 3);
}

#[tokio::test(start_paused = true)]
async fn of_aborted_transactions_nothing_stays_in_the_end() {
    let pairs = [("delete.retention.ms", "1000"), ("min.cleanable.dirty.ratio", "0.0")];
    let mut house = House::new(&pairs).await;
    house.transaction(&[&[(1, Some(5))], &[(2, Some(6))]], false).await;
    house.transaction(&[&[(1, Some(7))]], true).await;
    house.transaction(&[&[(1, Some(8))]], true).await;
    let (_, aborted) = house.read(TABLE).await;
    assert_eq!((aborted, house.facts().await.len()), (1, 4));
    house.round().await;
    let (batches, aborted) = house.read(TABLE).await;
    assert_eq!((aborted, house.left().await), (0, vec![(5, 1)]));
    assert_eq!(batches.iter().filter(|it| it.is_control()).count(), 3, "two of them for now");
    for _ in 0..2 {
        house.wait(2000).await;
        house.write(&[batch(&[(9, Some(1))])]).await;
        house.round().await;
    }
    let (batches, _) = house.read(TABLE).await;
    assert_eq!(batches.iter().filter(|it| it.is_control()).count(), 1, "of what is still there");
}

#[tokio::test(start_paused = true)]
async fn an_open_transaction_is_not_looked_at() {
    let mut house = House::new(&[]).await;
    house.write(&[batch(&[(1, Some(5))]), batch(&[(1, Some(6))])]).await;
    let producer = house.init().await.id.0;
    house.write(&[Draft { producer: Some(producer), ..batch(&[(1, Some(7))]) }]).await;
    house.write(&[batch(&[(1, Some(8))])]).await;
    house.round().await;
    assert_eq!(house.cleaned(), 2);
    assert_eq!(house.left().await, [(1, 1)], "as a read_committed consumer sees it");
}

#[tokio::test(start_paused = true)]
async fn a_partition_that_can_not_be_read_waits_and_keeps_nobody_from_his_turn() {
    let mut house = House::new(&[]).await;
    let other = Command::CreateTopic {
        topic: BRANCH.topic,
        name: "other".to_owned(),
        partitions: 1,
        replication_factor: 1,
        configs: configs(&[]),
    };
    house.machine.propose(other).await.unwrap();
    house.write(&[batch(&[(1, Some(5))]), batch(&[(1, Some(6))])]).await;
    let lost: Vec<ObjectKey> = house
        .machine
        .read(|state| state.segments().referenced().keys().map(SegmentId::key).collect());
    let object = house.objects.get_range(&lost[0], 0..1 << 20).await.unwrap().unwrap();
    house.objects.delete(&lost).await.unwrap();
    house.write_to(BRANCH, &[batch(&[(1, Some(5))]), batch(&[(1, Some(6))])]).await;
    house.round().await;
    let cleaned = |at| house.machine.read(|state| state.partition(at).unwrap().cleaned().0);
    assert_eq!((cleaned(TABLE), cleaned(BRANCH)), (0, 2));
    // The second time it waits for twice as long.
    let interval = house.compactor.config.interval;
    tokio::time::advance(interval).await;
    house.round().await;
    assert_eq!(house.objects.put_if_absent(&lost[0], object).await.unwrap(), Put::Created);
    for _ in 0..2 {
        house.round().await;
        assert_eq!(house.cleaned(), 0, "not at once");
        tokio::time::advance(interval).await;
    }
    house.round().await;
    assert_eq!((house.cleaned(), house.left().await), (2, vec![(1, 1)]));
}

#[tokio::test(start_paused = true)]
async fn a_branch_is_compacted_without_its_parent() {
    let mut house = House::new(&[("cleanup.policy", "delete")]).await;
    house.write(&[batch(&[(1, Some(5))]), batch(&[(2, Some(6)), (1, Some(7))])]).await;
    house.write(&[batch(&[(1, Some(8))])]).await;
    let branch = Command::BranchTopic {
        topic: BRANCH.topic,
        name: "branch".to_owned(),
        replication_factor: 1,
        configs: configs(&[]),
        branch: Branch { of: TABLE.topic, ends: vec![Some(Offset(3))] },
    };
    assert_eq!(house.machine.propose(branch).await, Ok(Outcome::Done));
    house.write_to(BRANCH, &[batch(&[(2, Some(9))]), batch(&[(3, None)])]).await;
    for _ in 0..2 {
        house.round().await;
        let (batches, _) = house.read(BRANCH).await;
        let left: Vec<_> = batches.iter().flat_map(facts).map(|it| (it.offset, it.key)).collect();
        assert_eq!(left, [(2, 1), (3, 2), (4, 3)]);
    }
    assert_eq!(house.left().await, [(0, 1), (1, 2), (2, 1), (3, 1)], "the parent has them all");
}
