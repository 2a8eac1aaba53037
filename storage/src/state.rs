//! The state: what every broker that has applied the same entries holds, byte for byte.
//!
//! [`State::apply`] is the only way in. It is synchronous, total and deterministic: no clock (time
//! comes in the entry), no randomness, no hash order, no floats, no I/O; nonsense is an outcome,
//! never a panic. Owns dispatch, the chain of entries, log time and the feature level; brokers,
//! topics, partitions, segments, groups and transactions are in the modules below. Following the
//! log is the `machine`'s business.

use std::collections::BTreeMap;

use odradek_protocol::id::{NodeId, Offset, ProducerId, TopicId, TopicPartition};
use uuid::Uuid;

use crate::command::{
    BrokerAddress, Command, CommandId, ConfigChange, ConfigResource, Entry, EntryHash, Incarnation,
    Outcome, Proposal, Rejection,
};
use crate::lsn::Lsn;
use crate::segment::SegmentId;

pub mod brokers;
mod commit;
pub mod configs;
pub mod gauges;
pub mod groups;
mod halt;
pub mod life;
pub mod partition;
pub mod producers;
#[cfg(any(test, feature = "test-util"))]
pub mod recount;
pub mod retention;
pub mod segments;
pub mod topics;
pub mod transactions;

use brokers::{Admission, Broker, Brokers};
use configs::Configs;
use groups::Groups;
pub use halt::Halt;
use partition::{Extent, Partition};
use segments::Segments;
use topics::{Topic, Topics};
use transactions::Transactions;

/// The newest feature level this release can apply. Level 1: what `command` lists.
pub const FEATURE_LEVEL: u32 = 1;

/// How far log time may move in one entry, in milliseconds: one wrong clock can't make the world
/// leap.
pub const LOG_TIME_STEP_MS_MAX: i64 = 10 * 60 * 1000;

/// The deterministic state machine.
///
/// Invariants: PART-1, PART-2 (see [`Partition`]), SEG-1 (see [`Segments`]), TXN-1 (see
/// [`transactions`]), CMD-1 (see [`Brokers`]).
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct State {
    pub(crate) cluster_id: Uuid,
    pub(crate) log_id: Uuid,
    pub(crate) has_claimed_store: bool,
    pub(crate) level: u32,
    pub(crate) applied: Lsn,
    pub(crate) last_hash: EntryHash,
    pub(crate) log_time_ms: i64,
    pub(crate) next_producer_id: i64,
    pub(crate) brokers: Brokers,
    pub(crate) topics: Topics,
    pub(crate) segments: Segments,
    pub(crate) configs: Configs,
    pub(crate) groups: Groups,
    pub(crate) transactions: Transactions,
}

/// What applying an entry did.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Applied {
    /// One outcome for each proposal, in order.
    pub outcomes: Vec<Outcome>,
    /// Partitions in which something became visible or went away.
    pub touched: Vec<TopicPartition>,
    /// A segment whose footer was needed, and not read.
    lacks: Option<SegmentId>,
}

impl State {
    /// A state that nothing has been applied to.
    pub fn new() -> Self {
        Self::default()
    }

    /// Applies the entry that follows, whose stored bytes have this hash.
    ///
    /// An entry either is applied whole or leaves the state untouched and answers [`Halt`].
    ///
    /// Where a footer was not read ([`Entry::is_whole`]) it shows on the way whether it is needed:
    /// a commit that is turned away does without. That takes as long as a copy of the state.
    pub fn apply(&mut self, entry: &Entry, hash: EntryHash) -> Result<Applied, Halt> {
        if entry.is_whole() {
            return self.apply_whole(entry, hash);
        }
        let mut tried = self.clone();
        let applied = tried.apply_whole(entry, hash)?;
        if let Some(segment) = applied.lacks {
            return Err(Halt::NoFooter { lsn: entry.lsn, segment });
        }
        *self = tried;
        Ok(applied)
    }

    fn apply_whole(&mut self, entry: &Entry, hash: EntryHash) -> Result<Applied, Halt> {
        self.admit(entry)?;
        self.applied = entry.lsn;
        self.last_hash = hash;
        self.advance_log_time(entry.time_ms);
        self.brokers.heard_from(entry.append_id.incarnation, entry.lsn);
        let mut applied = Applied::default();
        for proposal in &entry.proposals {
            let outcome = self.apply_proposal(proposal, &mut applied);
            applied.outcomes.push(outcome);
        }
        Ok(applied)
    }

    fn admit(&self, entry: &Entry) -> Result<(), Halt> {
        let lsn = entry.lsn;
        if lsn != self.applied.next() {
            return Err(Halt::Gap { found: lsn, expected: self.applied.next() });
        }
        if entry.previous != self.last_hash {
            return Err(Halt::Chain { lsn });
        }
        if entry.log_id != self.log_id {
            return Err(Halt::OtherLog { lsn, found: entry.log_id, expected: self.log_id });
        }
        // What was raised past this release may change what any command means.
        let needed = entry.level.max(self.level);
        if needed > FEATURE_LEVEL {
            return Err(Halt::Level { lsn, needed });
        }
        match entry.digest {
            Some(expected) if expected != self.digest() => {
                Err(Halt::Diverged { lsn, found: self.digest(), expected })
            }
            _ => Ok(()),
        }
    }

    /// Log time never runs backwards and never leaps: it follows the appenders' clocks by at most
    /// [`LOG_TIME_STEP_MS_MAX`] an entry.
    fn advance_log_time(&mut self, time_ms: i64) {
        if self.applied == Lsn::FIRST {
            self.log_time_ms = time_ms.max(0);
            return;
        }
        let latest = self.log_time_ms.saturating_add(LOG_TIME_STEP_MS_MAX);
        self.log_time_ms = time_ms.clamp(self.log_time_ms, latest);
    }

    #[expect(clippy::too_many_lines, reason = "one arm for each command")]
    fn apply_proposal(&mut self, proposal: &Proposal, applied: &mut Applied) -> Outcome {
        let id = proposal.id;
        let touched = &mut applied.touched;
        match &proposal.command {
            Command::Genesis { cluster_id, log_id, level } => {
                if self.applied != Lsn::FIRST || !applied.outcomes.is_empty() {
                    return Outcome::Rejected(Rejection::Malformed("genesis is the first command"));
                }
                return self.begin(*cluster_id, *log_id, *level);
            }
            Command::RegisterBroker(address) => return self.register_broker(id, address),
            _ => {}
        }
        if let Err(outcome) = self.admit_proposal(proposal) {
            return outcome;
        }
        let done = |result: Result<(), Rejection>| match result {
            Ok(()) => Outcome::Done,
            Err(rejection) => Outcome::Rejected(rejection),
        };
        match &proposal.command {
            Command::Genesis { .. } | Command::RegisterBroker(_) | Command::Heartbeat => {
                Outcome::Done
            }
            Command::ClaimStore => {
                self.has_claimed_store = true;
                Outcome::Done
            }
            Command::DrainBroker => {
                self.brokers.drain(id.incarnation, self.applied);
                Outcome::Done
            }
            Command::RaiseLevel { level } => done(self.raise_level(*level)),
            Command::ExpireBroker { incarnation, seen } => {
                done(self.expire_broker(id.incarnation, *incarnation, *seen))
            }
            Command::CreateTopic { topic, name, partitions, replication_factor, configs } => {
                let replicas = *replication_factor;
                done(self.change_topics(|topics| {
                    topics.create(*topic, name, *partitions, replicas, configs)
                }))
            }
            Command::BranchTopic { topic, name, replication_factor, configs, branch } => {
                let replicas = *replication_factor;
                done(self.branch_topic(*topic, name, replicas, configs, branch))
            }
            Command::DeleteTopic { topic } => done(self.delete_topic(*topic, touched)),
            Command::PurgeTopics { topics } => {
                self.purge_topics(topics);
                Outcome::Done
            }
            Command::CreatePartitions { topic, total } => {
                done(self.change_topics(|topics| topics.add_partitions(*topic, *total)))
            }
            Command::AlterConfigs { resource, replace, changes } => {
                done(self.alter_configs(resource, *replace, changes))
            }
            Command::CommitSegment { segment, bytes, runs } => {
                self.commit_segment(*segment, *bytes, runs, touched)
            }
            Command::CommitByFooter { footer, runs } => {
                self.commit_by_footer(footer, runs.as_deref(), applied)
            }
            Command::CommitInline { segment, content, runs } => {
                self.commit_inline(*segment, content, runs, touched)
            }
            Command::ReplaceExtents { segment, bytes, level, replacements } => {
                self.replace_extents(*segment, *bytes, *level, replacements)
            }
            Command::ReplaceByFooter { footer, level, replacements } => {
                self.replace_by_footer(footer, *level, replacements.as_deref(), applied)
            }
            Command::RaiseHorizon { to } => {
                self.segments.raise_horizon((*to).min(self.applied));
                Outcome::Done
            }
            Command::ForgetSegments { segments } => {
                self.segments.forget(segments);
                Outcome::Done
            }
            Command::ExpireRecords { partitions } => {
                self.expire_records(partitions, touched);
                Outcome::Done
            }
            Command::AllocateProducerIds { count } => self.allocate_producer_ids(*count),
            Command::CommitOffsets { group, committer, retention_ms, offsets, .. } => {
                done(self.commit_offsets(group, committer.as_ref(), *retention_ms, offsets))
            }
            Command::ChangeGroup { group, revision, change, .. } => {
                self.change_group(id.incarnation, group, *revision, change)
            }
            Command::DeleteRecords { partition, before } => {
                self.delete_records(*partition, *before, touched)
            }
            Command::ChangeTransaction { transactional_id, change } => {
                self.change_transaction(transactional_id, change, touched)
            }
        }
    }

    /// Whether a command is new, and its proposer one that may propose it.
    fn admit_proposal(&mut self, proposal: &Proposal) -> Result<(), Outcome> {
        let id = proposal.id;
        let rejection = match self.brokers.admit(id, self.applied) {
            Admission::Repeated => return Err(Outcome::Repeated),
            Admission::Stale => Rejection::StaleCommand(id),
            Admission::Fenced => Rejection::BrokerFenced(id.incarnation),
            Admission::New => match proposal.command.office() {
                Some(office) if office != self.brokers.changed => {
                    Rejection::NotCoordinator(id.incarnation)
                }
                _ => return Ok(()),
            },
        };
        Err(Outcome::Rejected(rejection))
    }

    fn begin(&mut self, cluster_id: Uuid, log_id: Uuid, level: u32) -> Outcome {
        if log_id.is_nil() {
            return Outcome::Rejected(Rejection::Malformed("the log id is nil"));
        }
        self.cluster_id = cluster_id;
        self.log_id = log_id;
        self.level = level;
        Outcome::Done
    }

    fn register_broker(&mut self, id: CommandId, address: &BrokerAddress) -> Outcome {
        match self.brokers.register(id, address, self.applied) {
            Ok(node) => Outcome::BrokerRegistered(node),
            Err(outcome) => outcome,
        }
    }

    fn expire_broker(
        &mut self,
        proposer: Incarnation,
        incarnation: Incarnation,
        seen: Lsn,
    ) -> Result<(), Rejection> {
        if let Some(node) = self.brokers.expire(proposer, incarnation, seen, self.applied)? {
            self.configs.forget_broker(node);
        }
        Ok(())
    }

    fn raise_level(&mut self, level: u32) -> Result<(), Rejection> {
        if level <= self.level {
            return Err(Rejection::LevelNotRising { current: self.level, asked: level });
        }
        self.level = level;
        Ok(())
    }

    fn alter_configs(
        &mut self,
        resource: &ConfigResource,
        replace: bool,
        changes: &[ConfigChange],
    ) -> Result<(), Rejection> {
        if let ConfigResource::Topic(topic) = resource {
            return self.topics.alter_configs(*topic, replace, changes);
        }
        self.configs.alter(resource, replace, changes);
        Ok(())
    }

    /// Changes which topics there are. What is turned away has not changed them.
    fn change_topics<T>(
        &mut self,
        change: impl FnOnce(&mut Topics) -> Result<T, Rejection>,
    ) -> Result<T, Rejection> {
        let done = change(&mut self.topics)?;
        self.topics.changed = self.applied;
        Ok(done)
    }

    fn allocate_producer_ids(&mut self, count: u32) -> Outcome {
        let first = self.next_producer_id;
        match first.checked_add(i64::from(count)) {
            Some(next) if count > 0 => {
                self.next_producer_id = next;
                Outcome::ProducerIds { first: ProducerId(first), count }
            }
            _ => Outcome::Rejected(Rejection::Malformed("no such number of producer ids")),
        }
    }

    fn delete_records(
        &mut self,
        at: TopicPartition,
        before: Option<Offset>,
        touched: &mut Vec<TopicPartition>,
    ) -> Outcome {
        let partition = match self.topics.partition_mut(at) {
            Ok(partition) => partition,
            Err(rejection) => return Outcome::Rejected(rejection),
        };
        let first_before = partition.log_start;
        match partition.delete_records(before) {
            Ok(gone) => {
                let first = partition.log_start;
                if first > first_before {
                    touched.push(at);
                }
                for segment in gone.iter().filter_map(Extent::segment) {
                    self.segments.release(segment, self.applied);
                }
                Outcome::RecordsDeleted(first)
            }
            Err(rejection) => Outcome::Rejected(rejection),
        }
    }

    /// Identity of the cluster; nil before the first entry.
    pub fn cluster_id(&self) -> Uuid {
        self.cluster_id
    }

    /// Identity of the log; nil before the first entry.
    pub fn log_id(&self) -> Uuid {
        self.log_id
    }

    /// The feature level in force.
    pub fn level(&self) -> u32 {
        self.level
    }

    /// The last entry applied.
    pub fn applied(&self) -> Lsn {
        self.applied
    }

    /// Hash of the last entry applied.
    pub fn last_hash(&self) -> EntryHash {
        self.last_hash
    }

    /// Log time, in milliseconds since the Unix epoch: the time by which things expire.
    pub fn log_time_ms(&self) -> i64 {
        self.log_time_ms
    }

    /// The broker that coordinates a group, or a transactional id: the same for whoever asks, at
    /// this point of the log. `None` if there are no brokers.
    pub fn coordinator_of(&self, group: &str) -> Option<NodeId> {
        self.brokers.coordinator_of(group)
    }

    /// Living brokers, by node id.
    pub fn brokers(&self) -> &BTreeMap<NodeId, Broker> {
        self.brokers.by_node()
    }

    /// Whether the log has claimed a store.
    pub fn has_claimed_store(&self) -> bool {
        self.has_claimed_store
    }

    /// Whether a command was applied, or is too old to tell.
    pub fn is_applied(&self, id: CommandId) -> bool {
        self.brokers.is_applied(id)
    }

    /// Whether this life of a broker is registered.
    pub fn is_registered(&self, incarnation: Incarnation) -> bool {
        self.brokers.node_of(incarnation).is_some()
    }

    /// A topic by id.
    pub fn topic(&self, topic: TopicId) -> Option<&Topic> {
        self.topics.get(topic)
    }

    /// A topic by name.
    pub fn topic_by_name(&self, name: &str) -> Option<&Topic> {
        self.topics.by_name(name)
    }

    /// All topics, by name.
    pub fn topics(&self) -> impl Iterator<Item = &Topic> {
        self.topics.iter()
    }

    /// The entry that last created or deleted a topic, or added partitions to one.
    pub fn topics_changed(&self) -> Lsn {
        self.topics.changed
    }

    /// How many partitions there are in all.
    pub fn partitions_total(&self) -> u64 {
        self.topics.partitions_total()
    }

    /// A partition.
    pub fn partition(&self, partition: TopicPartition) -> Option<&Partition> {
        self.topics.partition(partition)
    }

    /// Segments that are referred to or wait to be swept.
    pub fn segments(&self) -> &Segments {
        &self.segments
    }

    /// Configs of brokers and of the cluster.
    pub fn configs(&self) -> &Configs {
        &self.configs
    }

    /// The entry in which the serving brokers last changed, and with them perhaps who coordinates
    /// which group.
    pub fn offices_changed(&self) -> Lsn {
        self.brokers.changed
    }

    /// Living brokers that are named to clients: those that are about to leave are not, unless all
    /// are.
    pub fn serving_brokers(&self) -> impl Iterator<Item = (NodeId, &Broker)> {
        self.brokers.serving()
    }

    /// Consumer groups.
    pub fn groups(&self) -> &Groups {
        &self.groups
    }

    /// Transactions.
    pub fn transactions(&self) -> &Transactions {
        &self.transactions
    }

    /// End of the log of a partition; `None` if there is no such partition.
    pub fn high_watermark(&self, partition: TopicPartition) -> Option<Offset> {
        self.partition(partition).map(|partition| partition.high_watermark)
    }
}

#[cfg(test)]
pub(crate) mod tests;
