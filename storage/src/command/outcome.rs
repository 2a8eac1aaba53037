//! Outcomes: what applying a command did, and why it did nothing.

use odradek_protocol::id::{NodeId, Offset, PartitionIndex, ProducerId, TopicId};

use super::{CommandId, Incarnation, ProducerIdAndEpoch};
use crate::lsn::Lsn;

/// What applying a command did. The same on every broker.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Outcome {
    /// It was done, and there is nothing more to say.
    Done,
    /// The broker is registered.
    BrokerRegistered(NodeId),
    /// The segment is committed; per run, what became of its batches.
    SegmentCommitted(Vec<RunOutcome>),
    /// These ids, `count` of them from the first on, are the proposer's to give out.
    ProducerIds {
        /// The first.
        first: ProducerId,
        /// How many.
        count: u32,
    },
    /// The group is changed, and has this revision now; 0 if it is gone, or never had members.
    GroupChanged(u64),
    /// The partition begins here now.
    RecordsDeleted(Offset),
    /// What became of each replacement: extents were replaced, or why not.
    ExtentsReplaced(Vec<Result<(), Rejection>>),
    /// The transactional id has this producer id and epoch now.
    Producer(ProducerIdAndEpoch),
    /// Nothing was changed, and why.
    Rejected(Rejection),
    /// The command had been applied before; the first outcome counts.
    Repeated,
}

/// What became of a run.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum RunOutcome {
    /// Its batches were judged one by one.
    Judged {
        /// In order.
        batches: Vec<BatchOutcome>,
        /// Log start offset of the partition afterwards.
        log_start: Offset,
    },
    /// None of them was looked at.
    Rejected(Rejection),
}

/// What became of a batch.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum BatchOutcome {
    /// It is in the log.
    Appended(Offset),
    /// It was already in the log, at this offset; the producer sent it twice.
    Duplicate(Offset),
    /// It is not in the log.
    Rejected(Rejection),
}

/// Why something was not done. Facts; the broker finds the Kafka error for each.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum Rejection {
    /// No such topic.
    #[error("no topic {0}")]
    UnknownTopic(TopicId),
    /// The topic has no such partition.
    #[error("topic {topic} has no partition {partition}")]
    UnknownPartition {
        /// The topic.
        topic: TopicId,
        /// The partition asked for.
        partition: PartitionIndex,
    },
    /// The name is in use.
    #[error("topic {name} exists as {existing}")]
    TopicExists {
        /// The name.
        name: String,
        /// Who has it.
        existing: TopicId,
    },
    /// The id is in use.
    #[error("topic id {0} is in use")]
    TopicIdInUse(TopicId),
    /// Partitions can be added, never taken away.
    #[error("topic has {has} partitions, {asked} were asked for")]
    PartitionsNotGrowing {
        /// How many there are.
        has: u32,
        /// How many were asked for.
        asked: u32,
    },
    /// More partitions than a cluster takes.
    #[error("the cluster would have {asked} partitions, at most {limit} are allowed")]
    TooManyPartitions {
        /// How many there would be.
        asked: u64,
        /// How many there may be.
        limit: u64,
    },
    /// The producer has another epoch: a zombie is turned away.
    #[error("producer epoch {epoch} where {current} is the newest")]
    ProducerFenced {
        /// What it says.
        epoch: i16,
        /// The newest epoch of the transactional id, or else in the partition.
        current: i16,
    },
    /// The transactional id has another producer id, or the producer id no transactional id.
    #[error("no transactional id has this producer id")]
    UnknownProducer,
    /// Another transaction of the transactional id has begun since the proposer looked.
    #[error("transaction {asked} where {current} is the latest")]
    TransactionMoved {
        /// The number of the transaction that the command is about.
        asked: u64,
        /// The number of the latest.
        current: u64,
    },
    /// The partition, or the group, was not added to the transaction.
    #[error("not a part of the transaction")]
    NotInTransaction,
    /// There is no transaction that could be ended so, or one that must be ended first.
    #[error("the transaction does not allow it")]
    InvalidTransactionState,
    /// A batch before this one is missing.
    #[error("sequence {found} where {expected} was expected")]
    OutOfOrderSequence {
        /// The batch's first sequence number.
        found: i32,
        /// What would have followed.
        expected: i32,
    },
    /// The proposer is not (or no longer) a registered broker.
    #[error("broker incarnation {0} is not registered")]
    BrokerFenced(Incarnation),
    /// The proposer was heard from after the entry that the expiry rests on.
    #[error("broker {0} is alive")]
    BrokerAlive(NodeId),
    /// The command is too old to tell whether it was applied.
    #[error("command {0} is older than the window of known commands")]
    StaleCommand(CommandId),
    /// The feature level only rises.
    #[error("feature level is {current}, {asked} was asked for")]
    LevelNotRising {
        /// The level.
        current: u32,
        /// The level asked for.
        asked: u32,
    },
    /// Another broker coordinates the group.
    #[error("broker {0} does not coordinate the group")]
    NotCoordinator(Incarnation),
    /// The group is not as the proposer saw it.
    #[error("the group has revision {found}, {expected} was expected")]
    GroupMoved {
        /// The revision it has.
        found: u64,
        /// The revision that the command rests on.
        expected: u64,
    },
    /// No such group.
    #[error("there is no such group")]
    UnknownGroup,
    /// The group has no such member.
    #[error("the group has no such member")]
    UnknownMember,
    /// The member's generation is not the group's.
    #[error("generation {found} where {current} lives")]
    IllegalGeneration {
        /// The member's.
        found: i32,
        /// The group's.
        current: i32,
    },
    /// The member's epoch is not the one it has.
    #[error("member epoch {found} where it has {current}")]
    StaleMemberEpoch {
        /// What it said.
        found: i32,
        /// What it has.
        current: i32,
    },
    /// Another member took the place of the static member.
    #[error("the instance id belongs to another member")]
    FencedInstance,
    /// The generation has no assignments yet.
    #[error("the group is rebalancing")]
    RebalanceInProgress,
    /// The group has members.
    #[error("the group has members")]
    GroupNotEmpty,
    /// No such offset in the partition.
    #[error("offset {offset} is not from {first} to {last}")]
    OffsetOutOfRange {
        /// What was asked for.
        offset: Offset,
        /// The least there is.
        first: Offset,
        /// The high watermark.
        last: Offset,
    },
    /// The segment was begun too long ago: it may have been deleted.
    #[error("a segment that was begun at {began}, before the horizon {horizon}")]
    SegmentTooOld {
        /// When it was begun.
        began: Lsn,
        /// When it would have had to be.
        horizon: Lsn,
    },
    /// Extents are not as they were when they were rewritten.
    #[error("the extents from {from} to {to} have changed")]
    ExtentsChanged {
        /// Where they began.
        from: Offset,
        /// Where they ended.
        to: Offset,
    },
    /// No sense in it.
    #[error("malformed command: {0}")]
    Malformed(&'static str),
}
