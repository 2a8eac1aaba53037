//! What the state promises, in the most naive way: everything that ever happened is kept, and every
//! question is answered by looking through all of it.
//!
//! The model knows no windows, no indexes and no counters of references. It does not expire
//! producers or transactional ids: whoever compares with it stays below the time after which they
//! may go.

use std::collections::{BTreeMap, BTreeSet};

use bytes::Bytes;
use odradek_protocol::id::{NodeId, Offset, ProducerId, TopicId, TopicPartition};
use xxhash_rust::xxh3::xxh3_64;

use super::chain::START_MS;
use crate::command::{
    BatchOutcome, BatchProducer, BatchSummary, BrokerAddress, Command, CommandId, CommittedOffset,
    Committer, ConfigChange, ConfigOperation, ConfigResource, Entry, GroupChange, Incarnation,
    Outcome, ProducerIdAndEpoch, Proposal, Rejection, Run, RunOutcome,
};
use crate::lsn::Lsn;
use crate::segment::SegmentId;
use crate::state::State;
use crate::state::partition::{Content, Extent, Location, Partition};

mod groups;
mod life;
mod transactions;

use groups::ModelGroups;
use life::{Looked, ModelDeleted};
use transactions::ModelTransactions;

const LEAP_MS_MAX: i64 = 600_000;
const SEQUENCES: i64 = 1 << 31;

#[derive(Clone, Debug)]
pub(super) struct Model {
    lsn: Lsn,
    now_ms: i64,
    level: u32,
    producer_ids: i64,
    nodes: i32,
    brokers: BTreeMap<NodeId, ModelBroker>,
    offices_changed: Lsn,
    has_claimed_store: bool,
    left: BTreeSet<Incarnation>,
    departed: Vec<(NodeId, String)>,
    topics: BTreeMap<TopicId, ModelTopic>,
    deleted: BTreeMap<TopicId, ModelDeleted>,
    segments: BTreeMap<SegmentId, ModelSegment>,
    horizon: Lsn,
    looked: Looked,
    cluster_configs: BTreeMap<String, String>,
    broker_configs: BTreeMap<NodeId, BTreeMap<String, String>>,
    named_configs: BTreeMap<ConfigResource, BTreeMap<String, String>>,
    groups: ModelGroups,
    transactions: ModelTransactions,
}

#[derive(Clone, Debug)]
struct ModelBroker {
    incarnation: Incarnation,
    host: String,
    zone: Option<String>,
    is_draining: bool,
    heard: Lsn,
    registered_as: u64,
    applied: BTreeSet<u64>,
}

#[derive(Clone, Debug)]
struct ModelTopic {
    name: String,
    replication_factor: u16,
    configs: BTreeMap<String, String>,
    partitions: Vec<ModelPartition>,
}

#[derive(Clone, Debug, Default)]
struct ModelPartition {
    log_start: i64,
    history: Vec<ModelBatch>,
    /// Where all of that lies, also what is below the log start offset: what the state calls
    /// extents.
    pieces: Vec<Extent>,
    cleaned: i64,
    /// Where branches left each other.
    cuts: Vec<i64>,
}

impl ModelPartition {
    fn end(&self) -> i64 {
        self.history.last().map_or(0, ModelBatch::end)
    }

    /// Where what can be read lies.
    fn stay(&self) -> impl Iterator<Item = &Extent> {
        self.pieces.iter().filter(|piece| piece.end().0 > self.log_start)
    }

    /// A batch that follows the one before, in the segment too if it `joins` it.
    fn push(&mut self, batch: ModelBatch, run: &Run, joins: bool) {
        let ModelBatch { base, summary, place, .. } = batch;
        self.history.push(batch);
        let Place::Block { segment, position, skip } = place else { unreachable!("{batch:?}") };
        let BatchSummary { bytes, records, max_timestamp, .. } = summary;
        if let Some(piece) = self.pieces.last_mut().filter(|_| joins)
            && let Content::Batches(location) = &mut piece.content
            && let Some(records) = piece.records.checked_add(records)
        {
            piece.records = records;
            piece.max_timestamp = piece.max_timestamp.max(max_timestamp);
            location.bytes += bytes;
            return;
        }
        let stored_bytes = run.stored_bytes;
        let location = Location { segment, position, stored_bytes, skip, bytes };
        let content = Content::Batches(location);
        self.pieces.push(Extent { base: Offset(base), records, max_timestamp, content });
    }

    fn delete(&mut self, before: Option<Offset>) -> Outcome {
        let (first, last) = (Offset(self.log_start), Offset(self.end()));
        let offset = before.unwrap_or(last);
        if !(Offset(0)..=last).contains(&offset) {
            return Outcome::Rejected(Rejection::OffsetOutOfRange { offset, first, last });
        }
        self.log_start = self.log_start.max(offset.0);
        Outcome::RecordsDeleted(Offset(self.log_start))
    }
}

/// A batch in the log, or the end of a transaction.
#[derive(Clone, Copy, Debug)]
struct ModelBatch {
    base: i64,
    summary: BatchSummary,
    place: Place,
    /// The number of the transaction that it belongs to, or ends.
    transaction: Option<u64>,
    /// Whether it came with a branch: its producer is not known there.
    is_inherited: bool,
    /// Whose it was when it came.
    owner: TopicId,
}

/// Where the bytes of a batch are.
#[derive(Clone, Copy, Debug)]
enum Place {
    Block {
        segment: SegmentId,
        position: u64,
        skip: u32,
    },
    /// Nowhere: it ends a transaction.
    Marker {
        producer: ProducerIdAndEpoch,
        commits: bool,
    },
}

#[derive(Clone, Debug)]
struct ModelSegment {
    bytes: u64,
    references: bool,
    since: Lsn,
    /// Since it was first referred to after nothing did.
    level: u8,
    /// Of the command that named it last.
    offered_level: u8,
    inline: Option<Bytes>,
    by_footer: bool,
}

impl ModelBatch {
    fn end(&self) -> i64 {
        self.base + i64::from(self.summary.records)
    }
}

impl Model {
    /// After the first entry that `chain::begun` writes.
    pub(super) fn begun() -> Self {
        let broker = |incarnation, host: &str| ModelBroker {
            incarnation: Incarnation(incarnation),
            host: host.to_owned(),
            zone: None,
            is_draining: false,
            heard: Lsn::FIRST,
            registered_as: 1,
            applied: BTreeSet::new(),
        };
        Self {
            lsn: Lsn::FIRST,
            now_ms: START_MS,
            level: 1,
            producer_ids: 0,
            nodes: 2,
            brokers: [(NodeId(1), broker(1, "h1")), (NodeId(2), broker(2, "h2"))].into(),
            offices_changed: Lsn::FIRST,
            has_claimed_store: false,
            left: BTreeSet::new(),
            departed: Vec::new(),
            topics: BTreeMap::new(),
            deleted: BTreeMap::new(),
            segments: BTreeMap::new(),
            horizon: Lsn::ZERO,
            looked: Looked::default(),
            cluster_configs: BTreeMap::new(),
            broker_configs: BTreeMap::new(),
            named_configs: BTreeMap::new(),
            groups: ModelGroups::default(),
            transactions: ModelTransactions::default(),
        }
    }

    pub(super) fn apply(&mut self, entry: &Entry) -> Vec<Outcome> {
        self.lsn = entry.lsn;
        let latest = self.now_ms.saturating_add(LEAP_MS_MAX);
        self.now_ms = entry.time_ms.min(latest).max(self.now_ms);
        if let Some(broker) = self.broker_mut(entry.append_id.incarnation) {
            broker.heard = entry.lsn;
        }
        entry.proposals.iter().map(|proposal| self.apply_one(proposal)).collect()
    }

    fn broker_mut(&mut self, incarnation: Incarnation) -> Option<&mut ModelBroker> {
        self.brokers.values_mut().find(|it| it.incarnation == incarnation)
    }

    fn apply_one(&mut self, proposal: &Proposal) -> Outcome {
        let id = proposal.id;
        if let Command::Genesis { .. } = proposal.command {
            return malformed();
        }
        if let Command::RegisterBroker(BrokerAddress { host, zone, .. }) = &proposal.command {
            return self.register(id, host, zone.clone());
        }
        let lsn = self.lsn;
        let Some(broker) = self.broker_mut(id.incarnation) else {
            return Outcome::Rejected(Rejection::BrokerFenced(id.incarnation));
        };
        if id.counter <= broker.registered_as {
            return Outcome::Rejected(Rejection::StaleCommand(id));
        }
        if !broker.applied.insert(id.counter) {
            return Outcome::Repeated;
        }
        broker.heard = lsn;
        let outcome = self.execute(id, &proposal.command);
        self.count_references();
        outcome
    }

    #[expect(clippy::too_many_lines, reason = "one arm for each command")]
    fn execute(&mut self, id: CommandId, command: &Command) -> Outcome {
        match command {
            Command::Genesis { .. } | Command::RegisterBroker(_) | Command::Heartbeat => {
                Outcome::Done
            }
            Command::ClaimStore => {
                self.has_claimed_store = true;
                Outcome::Done
            }
            Command::DrainBroker => {
                self.broker_mut(id.incarnation).unwrap().is_draining = true;
                self.offices_changed = self.lsn;
                Outcome::Done
            }
            Command::RaiseLevel { level } => {
                let current = self.level;
                if *level <= current {
                    let asked = *level;
                    return Outcome::Rejected(Rejection::LevelNotRising { current, asked });
                }
                self.level = *level;
                Outcome::Done
            }
            Command::ExpireBroker { incarnation, seen } => self.expire(id, *incarnation, *seen),
            Command::CreateTopic { .. } => self.create(command),
            Command::DeleteTopic { topic } => self.delete(*topic),
            Command::CreatePartitions { topic, total } => self.grow(*topic, *total),
            Command::AlterConfigs { resource, replace, changes } => {
                self.alter(resource, *replace, changes)
            }
            Command::CommitSegment { segment, bytes, runs } => self.commit(*segment, *bytes, runs),
            Command::CommitByFooter { footer, runs } => {
                let outcome =
                    self.commit(footer.segment, footer.segment_bytes, runs.as_ref().unwrap());
                self.note_footer(footer.segment, &outcome);
                outcome
            }
            Command::BranchTopic { .. }
            | Command::PurgeTopics { .. }
            | Command::CommitInline { .. }
            | Command::ReplaceExtents { .. }
            | Command::ReplaceByFooter { .. }
            | Command::RaiseHorizon { .. }
            | Command::ForgetSegments { .. }
            | Command::ExpireRecords { .. } => self.live(command),
            Command::AllocateProducerIds { count } => {
                let first = ProducerId(self.producer_ids);
                self.producer_ids += i64::from(*count);
                match count {
                    0 => malformed(),
                    _ => Outcome::ProducerIds { first, count: *count },
                }
            }
            Command::CommitOffsets { group, office, committer, retention_ms, offsets } => {
                if *office != self.offices_changed {
                    return Outcome::Rejected(Rejection::NotCoordinator(id.incarnation));
                }
                let times = (self.now_ms, *retention_ms);
                self.commit_offsets(group, committer.as_ref(), offsets, times)
            }
            Command::ChangeGroup { group, office, revision, change } => {
                let is_late = *office != self.offices_changed;
                if is_late || self.coordinator(group) != Some(id.incarnation) {
                    return Outcome::Rejected(Rejection::NotCoordinator(id.incarnation));
                }
                self.change_group(group, *revision, change)
            }
            Command::DeleteRecords { partition, before } => {
                match find(&mut self.topics, *partition) {
                    Ok(found) => found.delete(*before),
                    Err(rejection) => Outcome::Rejected(rejection),
                }
            }
            Command::ChangeTransaction { transactional_id, change } => {
                let office = command.office();
                if office.is_some_and(|office| office != self.offices_changed) {
                    return Outcome::Rejected(Rejection::NotCoordinator(id.incarnation));
                }
                self.change_transaction(transactional_id, change)
            }
        }
    }

    fn change_group(&mut self, group: &str, revision: u64, change: &GroupChange) -> Outcome {
        match self.groups.change(group, revision, change, self.now_ms) {
            Ok(revision) => {
                if let GroupChange::DeleteGroup = change {
                    self.transactions.forget_group(group);
                }
                Outcome::GroupChanged(revision)
            }
            Err(rejection) => Outcome::Rejected(rejection),
        }
    }

    fn commit_offsets(
        &mut self,
        group: &str,
        committer: Option<&Committer>,
        offsets: &[CommittedOffset],
        times: (i64, Option<i64>),
    ) -> Outcome {
        let mut known = |it: &TopicPartition| find(&mut self.topics, *it).is_ok();
        let offsets: Vec<_> = offsets.iter().filter(|it| known(&it.partition)).collect();
        match self.groups.commit(group, committer, offsets.clone(), times) {
            Ok(()) => {
                self.transactions.supersede(group, &offsets);
                Outcome::Done
            }
            Err(rejection) => Outcome::Rejected(rejection),
        }
    }

    /// Who has the largest hash of those that are named to clients.
    fn coordinator(&self, group: &str) -> Option<Incarnation> {
        let named = self.brokers.values().any(|broker| !broker.is_draining);
        let brokers = self.brokers.iter().filter(|(_, broker)| !(named && broker.is_draining));
        let hash = |node: &NodeId| xxh3_64(&[group.as_bytes(), &node.0.to_be_bytes()].concat());
        let chosen = brokers.max_by_key(|(node, _)| (hash(node), **node));
        chosen.map(|(_, broker)| broker.incarnation)
    }

    fn register(&mut self, id: CommandId, host: &str, zone: Option<String>) -> Outcome {
        let CommandId { incarnation, counter } = id;
        let known = self.brokers.iter_mut().find(|(_, it)| it.incarnation == incarnation);
        if let Some((node, broker)) = known {
            let first = counter > broker.registered_as && broker.applied.insert(counter);
            if first {
                broker.heard = self.lsn;
            }
            return if first { malformed() } else { Outcome::BrokerRegistered(*node) };
        }
        if self.left.contains(&incarnation) {
            return Outcome::Rejected(Rejection::BrokerFenced(incarnation));
        }
        let node = self.brokers.iter().find(|(_, it)| it.host == host).map(|(node, _)| *node);
        let departed = self.departed.iter().position(|(_, it)| it == host);
        let node = node.or_else(|| Some(self.departed.remove(departed?).0)).unwrap_or_else(|| {
            self.nodes += 1;
            NodeId(self.nodes)
        });
        let broker = ModelBroker {
            incarnation,
            host: host.to_owned(),
            zone,
            is_draining: false,
            heard: self.lsn,
            registered_as: counter,
            applied: BTreeSet::new(),
        };
        if let Some(predecessor) = self.brokers.insert(node, broker) {
            self.left.insert(predecessor.incarnation);
        }
        self.offices_changed = self.lsn;
        Outcome::BrokerRegistered(node)
    }

    fn expire(&mut self, id: CommandId, incarnation: Incarnation, seen: Lsn) -> Outcome {
        let found = self.brokers.iter().find(|(_, it)| it.incarnation == incarnation);
        let Some((&node, broker)) = found else {
            return Outcome::Rejected(Rejection::BrokerFenced(incarnation));
        };
        if id.incarnation != incarnation && broker.heard > seen {
            return Outcome::Rejected(Rejection::BrokerAlive(node));
        }
        let gone = self.brokers.remove(&node).unwrap();
        self.departed.push((node, gone.host));
        self.left.insert(incarnation);
        self.offices_changed = self.lsn;
        Outcome::Done
    }

    fn create(&mut self, command: &Command) -> Outcome {
        let Command::CreateTopic { topic, name, partitions, replication_factor, configs } = command
        else {
            unreachable!("the caller has looked")
        };
        let rest = (*replication_factor, configs);
        self.create_with(*topic, name, *partitions, rest)
    }

    fn create_with(
        &mut self,
        topic: TopicId,
        name: &str,
        partitions: u32,
        (replication_factor, configs): (u16, &BTreeMap<String, String>),
    ) -> Outcome {
        if let Some((existing, _)) = self.topics.iter().find(|(_, it)| it.name == *name) {
            let (name, existing) = (name.to_owned(), *existing);
            return Outcome::Rejected(Rejection::TopicExists { name, existing });
        }
        let is_used = self.topics.contains_key(&topic) || self.deleted.contains_key(&topic);
        if topic == TopicId::NIL || is_used {
            return Outcome::Rejected(Rejection::TopicIdInUse(topic));
        }
        if name.is_empty() || partitions == 0 {
            return malformed();
        }
        if let Some(rejected) = self.too_many(partitions) {
            return rejected;
        }
        let partitions = (0..partitions).map(|_| ModelPartition::default()).collect();
        let created = ModelTopic {
            name: name.to_owned(),
            replication_factor,
            configs: configs.clone(),
            partitions,
        };
        self.topics.insert(topic, created);
        Outcome::Done
    }

    fn grow(&mut self, topic: TopicId, asked: u32) -> Outcome {
        let Some(found) = self.topics.get(&topic) else {
            return Outcome::Rejected(Rejection::UnknownTopic(topic));
        };
        let has = u32::try_from(found.partitions.len()).unwrap();
        if asked <= has {
            return Outcome::Rejected(Rejection::PartitionsNotGrowing { has, asked });
        }
        if let Some(rejected) = self.too_many(asked - has) {
            return rejected;
        }
        let found = self.topics.get_mut(&topic).unwrap();
        found.partitions.resize(usize::try_from(asked).unwrap(), ModelPartition::default());
        Outcome::Done
    }

    fn too_many(&self, more: u32) -> Option<Outcome> {
        let has: usize = self.topics.values().map(|topic| topic.partitions.len()).sum();
        let asked = u64::try_from(has).unwrap() + u64::from(more);
        let rejection = Rejection::TooManyPartitions { asked, limit: 1_000_000 };
        (asked > 1_000_000).then_some(Outcome::Rejected(rejection))
    }

    fn alter(&mut self, of: &ConfigResource, replace: bool, changes: &[ConfigChange]) -> Outcome {
        let configs = match of {
            ConfigResource::Topic(topic) => match self.topics.get_mut(topic) {
                Some(found) => &mut found.configs,
                None => return Outcome::Rejected(Rejection::UnknownTopic(*topic)),
            },
            ConfigResource::Broker(node) => self.broker_configs.entry(*node).or_default(),
            ConfigResource::Cluster => &mut self.cluster_configs,
            ConfigResource::Group(_) | ConfigResource::ClientMetrics(_) => {
                self.named_configs.entry(of.clone()).or_default()
            }
        };
        if replace {
            configs.clear();
        }
        for change in changes {
            configs.remove(&change.name);
            if let ConfigOperation::Set(value) = &change.operation {
                configs.insert(change.name.clone(), value.clone());
            }
        }
        Outcome::Done
    }

    fn commit(&mut self, segment: SegmentId, bytes: u64, runs: &[Run]) -> Outcome {
        if let Some(rejected) = self.name_segment(segment, bytes, 0) {
            return rejected;
        }
        self.commit_runs(segment, bytes, runs)
    }

    fn commit_runs(&mut self, segment: SegmentId, bytes: u64, runs: &[Run]) -> Outcome {
        let outcomes = runs.iter().map(|run| self.commit_run(segment, bytes, run)).collect();
        Outcome::SegmentCommitted(outcomes)
    }

    fn commit_run(&mut self, segment: SegmentId, segment_bytes: u64, run: &Run) -> RunOutcome {
        let partition = match find(&mut self.topics, run.partition) {
            Ok(partition) => partition,
            Err(rejection) => return RunOutcome::Rejected(rejection),
        };
        let end = u128::from(run.position) + u128::from(run.stored_bytes);
        let content: u64 = run.batches.iter().map(|batch| u64::from(batch.bytes)).sum();
        let sound = |batch: &BatchSummary| {
            (1..=i64::from(i32::MAX)).contains(&i64::from(batch.records))
                && batch.bytes > 0
                && batch
                    .producer
                    .is_none_or(|it| it.id.0 >= 0 && it.epoch >= 0 && it.base_sequence >= 0)
        };
        if end > u128::from(segment_bytes)
            || u32::try_from(content).is_err()
            || run.batches.is_empty()
            || !run.batches.iter().all(sound)
        {
            return RunOutcome::Rejected(Rejection::Malformed(""));
        }
        let mut batches = Vec::new();
        let mut skip = 0;
        let mut joins = false;
        for &summary in &run.batches {
            let (base, history) = (partition.end(), &partition.history);
            let transactions = &mut self.transactions;
            let refused = summary.producer.and_then(|producer| {
                let duplicate = find_duplicate(history, producer, summary.records);
                let refused = transactions.refuse(run.partition, history, producer, duplicate);
                refused.or_else(|| judge(history, producer))
            });
            if refused.is_none() {
                let transaction = transactions.take(run.partition, &summary, self.now_ms);
                let place = Place::Block { segment, position: run.position, skip };
                let is_inherited = false;
                let owner = run.partition.topic;
                let batch = ModelBatch { base, summary, place, transaction, is_inherited, owner };
                partition.push(batch, run, joins);
            }
            joins = refused.is_none();
            batches.push(refused.unwrap_or(BatchOutcome::Appended(Offset(base))));
            skip += summary.bytes;
        }
        RunOutcome::Judged { batches, log_start: Offset(partition.log_start) }
    }

    fn count_references(&mut self) {
        let mut referenced = BTreeSet::new();
        let deleted = self.deleted.values().map(|deleted| &deleted.topic);
        let topics = self.topics.values().chain(deleted);
        for partition in topics.flat_map(|topic| &topic.partitions) {
            referenced.extend(partition.stay().filter_map(Extent::segment));
        }
        self.segments.retain(|id, segment| {
            let references = referenced.contains(id);
            if segment.references && !references {
                segment.since = self.lsn;
            }
            if references && !segment.references {
                segment.level = segment.offered_level;
            }
            segment.references = references;
            references || segment.inline.is_none()
        });
    }

    /// Whether the state says the same.
    pub(super) fn compare(&self, state: &State) {
        assert_eq!(state.applied(), self.lsn);
        assert_eq!(state.log_time_ms(), self.now_ms);
        assert_eq!(state.level(), self.level);
        assert_eq!(state.has_claimed_store(), self.has_claimed_store);
        assert_eq!(state.next_producer_id, self.producer_ids);
        assert_eq!(state.brokers().keys().collect::<Vec<_>>(), Vec::from_iter(self.brokers.keys()));
        for (node, broker) in state.brokers() {
            let expected = &self.brokers[node];
            assert_eq!(broker.incarnation, expected.incarnation);
            assert_eq!(broker.address.host, expected.host);
            assert_eq!(broker.address.zone, expected.zone);
            assert_eq!(broker.is_draining, expected.is_draining);
            assert_eq!(broker.last_heard, expected.heard);
        }
        assert_eq!(state.topics().count(), self.topics.len());
        for (id, expected) in &self.topics {
            let topic = state.topic_by_name(&expected.name).unwrap();
            assert_eq!(topic.id, *id);
            assert_eq!(topic.configs, expected.configs);
            assert_eq!(topic.replication_factor, expected.replication_factor);
            assert_eq!(topic.partitions.len(), expected.partitions.len());
            for (partition, expected) in (0..).zip(&expected.partitions) {
                let at = TopicPartition { topic: *id, partition };
                let found = state.partition(at).unwrap();
                compare_partition(found, expected);
                life::compare_owners(found, at, expected);
                self.transactions.compare_partition(found, expected);
            }
        }
        self.compare_deleted(state);
        self.compare_segments(state);
        assert_eq!(state.configs().cluster(), &self.cluster_configs);
        for (node, configs) in &self.broker_configs {
            let expected = Some(configs).filter(|configs| !configs.is_empty());
            assert_eq!(state.configs().broker(*node), expected);
        }
        for (resource, configs) in &self.named_configs {
            let found = match resource {
                ConfigResource::Group(name) => state.configs().groups().get(name),
                ConfigResource::ClientMetrics(name) => state.configs().client_metrics().get(name),
                other => unreachable!("{other:?}"),
            };
            assert_eq!(found, Some(configs).filter(|configs| !configs.is_empty()));
        }
        self.groups.compare(state);
        self.transactions.compare(state);
    }

    /// Whether consumers see the same, from wherever they read.
    pub(super) fn compare_reads(&self, state: &State) {
        for (topic, expected) in &self.topics {
            for (partition, expected) in (0..).zip(&expected.partitions) {
                let at = TopicPartition { topic: *topic, partition };
                self.transactions.compare_reads(state.partition(at).unwrap(), expected);
            }
        }
        for (id, expected) in &self.deleted {
            let found = &state.deleted_topics()[id].topic.partitions;
            for (found, expected) in found.iter().zip(&expected.topic.partitions) {
                self.transactions.compare_reads(found, expected);
            }
        }
    }
}

fn find(
    topics: &mut BTreeMap<TopicId, ModelTopic>,
    partition: TopicPartition,
) -> Result<&mut ModelPartition, Rejection> {
    let TopicPartition { topic, partition } = partition;
    let found = topics.get_mut(&topic).ok_or(Rejection::UnknownTopic(topic))?;
    usize::try_from(partition)
        .ok()
        .and_then(|index| found.partitions.get_mut(index))
        .ok_or(Rejection::UnknownPartition { topic, partition })
}

fn malformed() -> Outcome {
    Outcome::Rejected(Rejection::Malformed(""))
}

/// The newest epoch with which a producer ever appended.
fn newest_epoch(history: &[ModelBatch], id: ProducerId) -> Option<i16> {
    let own = history.iter().filter(|it| !it.is_inherited);
    let of = own.filter_map(|it| it.summary.producer.filter(|it| it.id == id));
    of.map(|it| it.epoch).max()
}

/// What a producer ever appended here with this epoch, newest first.
fn newest_first(
    history: &[ModelBatch],
    producer: BatchProducer,
) -> impl Iterator<Item = (&ModelBatch, BatchProducer)> {
    let of = move |it: &BatchProducer| it.id == producer.id && it.epoch == producer.epoch;
    let own = history.iter().filter(|it| !it.is_inherited);
    own.rev().filter_map(move |it| Some((it, it.summary.producer.filter(of)?)))
}

fn find_duplicate(
    history: &[ModelBatch],
    batch: BatchProducer,
    records: u32,
) -> Option<BatchOutcome> {
    if newest_epoch(history, batch.id) != Some(batch.epoch) {
        return None;
    }
    let seen = newest_first(history, batch).take(5).filter(|(seen, producer)| {
        seen.summary.records == records && producer.base_sequence == batch.base_sequence
    });
    seen.last().map(|(seen, _)| BatchOutcome::Duplicate(Offset(seen.base)))
}

/// Looks through everything the producer ever appended here.
fn judge(history: &[ModelBatch], batch: BatchProducer) -> Option<BatchOutcome> {
    let current = newest_epoch(history, batch.id)?;
    if batch.epoch < current {
        let rejection = Rejection::ProducerFenced { epoch: batch.epoch, current };
        return Some(BatchOutcome::Rejected(rejection));
    }
    let after = |(seen, producer): (&ModelBatch, BatchProducer)| {
        (i64::from(producer.base_sequence) + i64::from(seen.summary.records)) % SEQUENCES
    };
    let expected = newest_first(history, batch).next().map_or(0, after);
    let expected = i32::try_from(expected).unwrap();
    let found = batch.base_sequence;
    (found != expected)
        .then_some(BatchOutcome::Rejected(Rejection::OutOfOrderSequence { found, expected }))
}

/// Whether everything lies where it should, and each extent that was not rewritten covers whole
/// batches that lie side by side.
fn compare_partition(found: &Partition, expected: &ModelPartition) {
    let ModelPartition { log_start, history, .. } = expected;
    assert_eq!(found.log_start, Offset(*log_start));
    let end = expected.end();
    assert_eq!(found.high_watermark, Offset(end));
    assert_eq!(found.cleaned(), Offset(expected.cleaned));
    let extents: Vec<&Extent> = found.extents().collect();
    assert_eq!(extents, expected.stay().collect::<Vec<_>>());
    for extent in extents {
        let Content::Batches(location) = extent.content else { continue };
        let mut bytes = 0;
        let inside = |batch: &&ModelBatch| (extent.base.0..extent.end().0).contains(&batch.base);
        for batch in history.iter().filter(inside) {
            let Place::Block { segment, position, skip } = batch.place else {
                panic!("{batch:?} in {extent:?}");
            };
            assert!(batch.end() <= extent.end().0);
            assert_eq!((location.segment, location.position), (segment, position));
            assert_eq!(location.skip + bytes, skip, "batches of an extent lie side by side");
            assert!(batch.summary.max_timestamp <= extent.max_timestamp);
            bytes += batch.summary.bytes;
        }
        assert!((1..=location.bytes).contains(&bytes), "no more than was cut off by a branch");
    }
    // Any offset leads to the extent that holds it.
    for batch in history.iter().filter(|batch| batch.base >= *log_start) {
        for offset in [batch.base, batch.end() - 1] {
            let found = found.extents_from(Offset(offset)).next();
            let found = found.expect("every record lies in an extent");
            assert!((found.base.0..found.end().0).contains(&offset));
        }
    }
    assert!(found.extents_from(Offset(end)).next().is_none());
}

/// Outcomes without the texts, which are for people.
pub(super) fn without_texts(mut outcomes: Vec<Outcome>) -> Vec<Outcome> {
    for outcome in &mut outcomes {
        match outcome {
            Outcome::Rejected(rejection) => forget_text(rejection),
            Outcome::SegmentCommitted(runs) => {
                for run in runs {
                    match run {
                        RunOutcome::Rejected(rejection) => forget_text(rejection),
                        RunOutcome::Judged { batches, .. } => {
                            for batch in batches {
                                if let BatchOutcome::Rejected(rejection) = batch {
                                    forget_text(rejection);
                                }
                            }
                        }
                    }
                }
            }
            Outcome::ExtentsReplaced(outcomes) => {
                outcomes.iter_mut().filter_map(|it| it.as_mut().err()).for_each(forget_text);
            }
            _ => {}
        }
    }
    outcomes
}

fn forget_text(rejection: &mut Rejection) {
    if let Rejection::Malformed(text) = rejection {
        *text = "";
    }
}
