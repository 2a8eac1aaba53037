//! Those who write, operate and read.

use std::collections::BTreeMap;
use std::time::Duration;

use bytes::Bytes;
use odradek_protocol::id::{Offset, TopicId, TopicPartition};
use odradek_storage::clock::Clock;
use odradek_storage::command::{Branch, Command, Outcome};
use odradek_storage::engine::Engine;
use odradek_storage::reader::{FetchError, FetchTarget, Isolation};
use odradek_storage::writer::AppendError;
use rand::rngs::StdRng;
use rand::seq::IndexedRandom;
use rand::{Rng, SeedableRng};
use tokio::task::JoinSet;
use tokio::time::{Instant, sleep, timeout};
use uuid::Uuid;

use super::model::{KINDS, Kind, Topic};
use super::records::{Record, batch};
use super::{TICK, World};
use crate::hasty::{self, DELETED_KEPT};

/// Keys in compacted topics.
const KEYS: u8 = 12;

/// How long it may take to finish what was begun before the end.
const PATIENCE: Duration = Duration::from_secs(120);

/// Topics that live at a time, about.
const TOPICS_MAX: usize = 12;

impl World {
    /// Everybody, at work.
    pub(super) fn actors(&self, random: &mut StdRng) -> JoinSet<()> {
        let mut tasks = JoinSet::new();
        for (number, kind) in (1..).zip(KINDS.into_iter().chain([Kind::Compacted])) {
            let writer = Writer {
                world: self.clone(),
                kind,
                // Some number their batches, among them one for compacted topics.
                id: (number % 2 == 1).then_some(number * 1_000_000),
                sequences: BTreeMap::new(),
                random: StdRng::seed_from_u64(random.random()),
            };
            tasks.spawn(writer.run());
        }
        tasks.spawn(self.clone().operate(StdRng::seed_from_u64(random.random())));
        tasks.spawn(self.clone().consume(StdRng::seed_from_u64(random.random())));
        tasks.spawn(self.clone().linger(StdRng::seed_from_u64(random.random())));
        if !self.plan.cut_interval.is_zero() {
            tasks.spawn(self.clone().cut_off(StdRng::seed_from_u64(random.random())));
        }
        tasks
    }

    /// Proposes a command until its outcome is known.
    async fn propose(&self, random: &mut StdRng, command: Command) -> (Engine, Outcome) {
        loop {
            self.is_not_late();
            if let Some(engine) = self.engine(random) {
                let proposed = engine.machine.propose(command.clone());
                if let Ok(Ok(outcome)) = timeout(Duration::from_secs(20), proposed).await {
                    return (engine, outcome);
                }
            }
            sleep(Duration::from_millis(100)).await;
        }
    }

    /// Whoever works on long after the end waits for brokers that are broken.
    fn is_not_late(&self) {
        assert!(Instant::now() < self.end + PATIENCE, "the brokers take no command");
    }

    fn new_name(&self, kind: Kind) -> (TopicId, String) {
        let mut shared = self.lock();
        shared.named += 1;
        let number = shared.named;
        (TopicId(Uuid::from_u128(u128::from(number))), format!("{kind:?}-{number}"))
    }

    pub(super) async fn create_topic(&self, kind: Kind) {
        let (topic, name) = self.new_name(kind);
        let create = Command::CreateTopic {
            topic,
            name: name.clone(),
            partitions: 1,
            replication_factor: 1,
            configs: kind.configs(),
        };
        self.propose(&mut StdRng::seed_from_u64(self.plan.seed), create).await;
        self.lock().model.topics.insert(topic, Topic::new(name, kind));
    }

    /// Now and then somebody branches, deletes, brings back.
    async fn operate(self, mut random: StdRng) {
        while Instant::now() < self.end {
            sleep(random.random_range(Duration::ZERO..Duration::from_secs(12))).await;
            let living = self.lock().model.living(None);
            let Some(topic) = living.choose(&mut random).copied() else { continue };
            match random.random_range(0..10) {
                0..5 if living.len() < TOPICS_MAX => self.branch(&mut random, topic).await,
                5..7 => self.cut(&mut random, topic).await,
                _ => self.delete(&mut random, topic).await,
            }
        }
    }

    /// A branch, of what is there now or up to a batch.
    async fn branch(&self, random: &mut StdRng, of: TopicId) {
        let end = match random.random_bool(0.5) {
            true => self.boundary(random, of).await,
            false => None,
        };
        if self.branched(random, of, end).await {
            self.lock().report.branched += 1;
        }
    }

    /// Where a batch ends, as a broker finds it for an offset that somebody has asked for.
    async fn boundary(&self, random: &mut StdRng, topic: TopicId) -> Option<Offset> {
        let engine = self.engine(random)?;
        let partition = TopicPartition { topic, partition: 0 };
        let watermarks = engine.reader.watermarks(partition).ok()?;
        let (first, last) = (watermarks.log_start.0, watermarks.last_stable_offset.0);
        let asked = Offset(random.random_range(first..=last));
        let found = engine.reader.batch_boundary(partition, asked).await.ok()?;
        self.say(&format!("{topic:?} can be cut at {found:?} for {asked:?}"));
        Some(found)
    }

    async fn branched(&self, random: &mut StdRng, of: TopicId, end: Option<Offset>) -> bool {
        let kind = self.lock().model.topics[&of].kind;
        let (topic, name) = self.new_name(kind);
        let branch = Command::BranchTopic {
            topic,
            name: name.clone(),
            replication_factor: 1,
            configs: kind.configs(),
            branch: Branch { of, ends: vec![end] },
        };
        let (engine, outcome) = self.propose(random, branch).await;
        let at = |topic| TopicPartition { topic, partition: 0 };
        let watermarks = loop {
            self.is_not_late();
            if engine.machine.barrier().await.is_ok() {
                break engine.reader.watermarks(at(topic)).ok();
            }
            // A broker that is dead knows as much as it did.
            if let Ok(watermarks) = engine.reader.watermarks(at(topic)) {
                break Some(watermarks);
            }
            if outcome != Outcome::Done {
                break None;
            }
        };
        let Some(watermarks) = watermarks else {
            self.say(&format!("no branch of {of:?} at {end:?}: {outcome:?}"));
            return false;
        };
        let far =
            engine.machine.read(|state| state.kept_partition(at(of)).map(|it| it.high_watermark));
        let (floor, end) = (watermarks.log_start.0, watermarks.high_watermark.0);
        let mut shared = self.lock();
        let model = &mut shared.model;
        let far = far.map_or(end, |far| far.0.max(end));
        let parent = Some((of, end, far));
        let branch = Topic { parent, floor, log_start: floor, ..Topic::new(name, kind) };
        model.topics.insert(topic, branch);
        drop(shared);
        self.say(&format!("{topic:?} is a branch of {of:?} ({kind:?}), from {floor} to {end}"));
        true
    }

    /// A topic is deleted, and perhaps brought back, or created anew.
    async fn delete(&self, random: &mut StdRng, topic: TopicId) {
        let kind = {
            let mut shared = self.lock();
            let topic = shared.model.topics.get_mut(&topic).unwrap();
            topic.lives = false;
            topic.kind
        };
        self.propose(random, Command::DeleteTopic { topic }).await;
        self.lock().report.deleted += 1;
        self.say(&format!("{topic:?} is deleted"));
        if random.random_bool(0.5) {
            sleep(random.random_range(Duration::ZERO..DELETED_KEPT)).await;
            if self.branched(random, topic, None).await {
                self.lock().report.undone += 1;
            }
        }
        let is_last = self.lock().model.living(Some(kind)).is_empty();
        if is_last {
            self.create_topic(kind).await;
        }
    }

    /// The oldest records are deleted.
    async fn cut(&self, random: &mut StdRng, topic: TopicId) {
        let before = {
            let mut shared = self.lock();
            let acknowledged = shared.model.acknowledged(topic);
            let Some((last, _)) = acknowledged.last_key_value() else { return };
            let topic = shared.model.topics.get_mut(&topic).unwrap();
            let before = random.random_range(topic.log_start..=(*last).max(topic.log_start));
            topic.deleted_below = topic.deleted_below.max(before);
            before
        };
        let partition = TopicPartition { topic, partition: 0 };
        let command = Command::DeleteRecords { partition, before: Some(Offset(before)) };
        let (_, outcome) = self.propose(random, command).await;
        self.say(&format!("{topic:?} is cut at {before}: {outcome:?}"));
        if matches!(outcome, Outcome::RecordsDeleted(_)) {
            let mut shared = self.lock();
            shared.report.cut += 1;
            let topic = shared.model.topics.get_mut(&partition.topic).unwrap();
            topic.surely_deleted_below = topic.surely_deleted_below.max(before);
        }
    }

    /// Somebody reads a topic now and then.
    async fn consume(self, mut random: StdRng) {
        while Instant::now() < self.end {
            sleep(random.random_range(Duration::ZERO..Duration::from_secs(4))).await;
            let living = self.lock().model.living(None);
            let topic = living.choose(&mut random).copied();
            if let (Some(topic), Some(engine)) = (topic, self.engine(&mut random)) {
                self.check(&engine, topic).await;
            }
        }
    }

    /// Somebody reads now and then, and takes a while between looking where records are and
    /// getting them. As long as what nothing refers to is kept, they have to be there.
    async fn linger(self, mut random: StdRng) {
        let grace = hasty::grace(TICK);
        while Instant::now() < self.end {
            sleep(random.random_range(Duration::ZERO..Duration::from_secs(2))).await;
            let living = self.lock().model.living(None);
            let topic = living.choose(&mut random).copied();
            let (Some(topic), Some(engine)) = (topic, self.engine(&mut random)) else { continue };
            let partition = TopicPartition { topic, partition: 0 };
            let Ok(watermarks) = engine.reader.watermarks(partition) else { continue };
            if engine.machine.barrier().await.is_err() {
                continue;
            }
            let (first, end) = (watermarks.log_start.0, watermarks.high_watermark.0);
            let offset = Offset(random.random_range(first..=end));
            let target = FetchTarget { partition, offset, bytes_max: 3000 };
            let began = Instant::now();
            let plan = engine.reader.plan(&[target], 3000, Isolation::ReadUncommitted);
            sleep(random.random_range(Duration::ZERO..grace)).await;
            let fetched = engine.reader.fetch(plan).await.remove(0);
            let is_in_time = began.elapsed() < grace && self.plan.faults.not_found == 0.0;
            self.lock().report.lingered += usize::from(is_in_time);
            if let Err(FetchError::Storage(cause)) = fetched {
                let is_gone = cause.contains("is not in the store");
                assert!(
                    !(is_gone && is_in_time),
                    "{partition} at {offset} was deleted under a reader: {cause}"
                );
            }
        }
    }
}

/// Somebody who writes to topics of one kind.
struct Writer {
    world: World,
    kind: Kind,
    /// A producer id, and how many there were, for those who number their batches.
    id: Option<i64>,
    sequences: BTreeMap<TopicId, i32>,
    random: StdRng,
}

impl Writer {
    async fn run(mut self) {
        while Instant::now() < self.world.end {
            sleep(self.random.random_range(Duration::ZERO..Duration::from_millis(1500))).await;
            let living = self.world.lock().model.living(Some(self.kind));
            // The youngest has most of it, or all would grow at the same rate.
            if let Some(topic) = living.choose(&mut self.random).copied() {
                self.send(topic).await;
            }
        }
    }

    fn new_records(&mut self, topic: TopicId) -> Vec<Record> {
        let world = self.world.clone();
        let mut shared = world.lock();
        let timestamp = world.clock.now_ms();
        let count = self.random.random_range(1..=3);
        let records = (0..count).map(|_| {
            let model = &mut shared.model;
            let name = u64::try_from(model.sent.len()).unwrap();
            let is_compacted = self.kind == Kind::Compacted;
            let key = is_compacted.then(|| self.random.random_range(0..KEYS));
            let is_tombstone = is_compacted && self.random.random_bool(0.2);
            let length = self.random.random_range(10..80);
            let value = || Bytes::from(format!("{name:>length$}"));
            let record = Record { name, key, value: (!is_tombstone).then(value), timestamp };
            model.sent.insert(name, record.clone());
            model.topics.get_mut(&topic).unwrap().unknown.insert(name);
            record
        });
        records.collect()
    }

    async fn send(&mut self, topic: TopicId) {
        let records = self.new_records(topic);
        let count = i32::try_from(records.len()).unwrap();
        let sequence = self.sequences.get(&topic).copied().unwrap_or(0);
        let producer = self.id.map(|id| (id, sequence));
        let attempts = if producer.is_some() { 10 } else { 1 };
        let mut is_known = true;
        for _ in 0..attempts {
            match self.append(topic, batch(&records, producer)).await {
                Ok(base) => {
                    self.sequences.insert(topic, sequence + count);
                    self.acknowledge(topic, &records, base);
                    return;
                }
                Err(AppendError::NotStored(_)) => {}
                // It may be what came of an attempt that nothing was heard of.
                Err(AppendError::Rejected(_)) => break,
                Err(AppendError::Unknown | AppendError::Stopped) => is_known = false,
            }
            sleep(Duration::from_millis(200)).await;
        }
        if is_known {
            let mut shared = self.world.lock();
            let unknown = &mut shared.model.topics.get_mut(&topic).unwrap().unknown;
            records.iter().for_each(|record| assert!(unknown.remove(&record.name)));
        } else if let Some(id) = &mut self.id {
            // Whoever can't tell how far it has come begins anew.
            *id += 1;
            self.sequences.clear();
        }
    }

    async fn append(
        &mut self,
        topic: TopicId,
        batch: odradek_storage::segment::builder::PendingBatch,
    ) -> Result<i64, AppendError> {
        let Some(engine) = self.world.engine(&mut self.random) else {
            return Err(AppendError::NotStored("nobody is there".to_owned()));
        };
        let partition = TopicPartition { topic, partition: 0 };
        let appending = engine.writer.append(vec![(partition, batch)]).await?;
        let answers = timeout(Duration::from_secs(5), appending).await;
        answers.map_or(Err(AppendError::Unknown), |mut answers| {
            answers.remove(0).map(|appended| appended.base_offset.0)
        })
    }

    fn acknowledge(&self, topic: TopicId, records: &[Record], base: i64) {
        let mut shared = self.world.lock();
        let topic = shared.model.topics.get_mut(&topic).unwrap();
        for (offset, record) in (base..).zip(records) {
            topic.unknown.remove(&record.name);
            let other = topic.acknowledged.insert(offset, record.name);
            assert_eq!(other, None, "{}: two records were acknowledged at {offset}", topic.name);
        }
    }
}
