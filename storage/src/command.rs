//! Commands: what a broker proposes. Outcomes: what applying them did.
//!
//! Owns the vocabulary in which the state changes; the stored bytes are in [`codec`], the meaning
//! is in `state`. Everything here is a plain value: time arrives inside an entry, ids are drawn by
//! the proposer.

use std::collections::BTreeMap;
use std::fmt;

use bytes::Bytes;
use odradek_protocol::id::{NodeId, Offset, ProducerId, TopicId, TopicPartition};
use uuid::Uuid;

use crate::lsn::Lsn;
use crate::segment::SegmentId;

mod address;
pub mod codec;
pub(crate) mod footer;
pub mod groups;
pub mod life;
mod outcome;
pub mod transactions;

pub use address::{BrokerAddress, Endpoint};
pub use footer::FooterRef;
pub use groups::{CommittedOffset, Committer, GroupChange};
pub use life::{Branch, NewBlock, NewExtent, Replacement};
pub use outcome::{BatchOutcome, Outcome, Rejection, RunOutcome};
pub use transactions::{ProducerIdAndEpoch, StagedOffsets, TransactionChange};

/// One life of one broker process: drawn at random at start and again after every long stall.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Incarnation(pub u64);

impl fmt::Display for Incarnation {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{:016x}", self.0)
    }
}

/// Identity of a command or of an append, unique for ever.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct CommandId {
    /// Who numbered it.
    pub incarnation: Incarnation,
    /// Its number, from 1, without gaps.
    pub counter: u64,
}

impl fmt::Display for CommandId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}.{}", self.incarnation, self.counter)
    }
}

/// Hash over the bytes of an entry (XXH3-64), by which entries are chained.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct EntryHash(pub u64);

/// Hash over the whole of a state (XXH3-64 of its snapshot payload).
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Digest(pub u64);

impl fmt::Display for Digest {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{:016x}", self.0)
    }
}

/// One item of the metadata log, decoded.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Entry {
    /// Which log this is an entry of: drawn when the log began, so that a restored or swapped log
    /// is noticed. Nil only in the genesis entry, which brings it.
    pub log_id: Uuid,
    /// The slot it was written for.
    pub lsn: Lsn,
    /// Hash of the entry in the slot before; zero in the first.
    pub previous: EntryHash,
    /// Identity of the append, by which a broker recognises its own.
    pub append_id: CommandId,
    /// The feature level one must know to apply it.
    pub level: u32,
    /// The appender's wall clock, in milliseconds since the Unix epoch. A wish: see
    /// `State::log_time_ms`.
    pub time_ms: i64,
    /// Digest of the state before this entry, every so many entries.
    pub digest: Option<Digest>,
    /// The commands, applied one after the other.
    pub proposals: Vec<Proposal>,
}

/// A command with the identity that makes repeating it harmless.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Proposal {
    /// Its identity.
    pub id: CommandId,
    /// What is asked for.
    pub command: Command,
}

/// Everything that can change the state.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Command {
    /// Begins a log. Only the first command of the first entry may be one.
    Genesis {
        /// Identity of the cluster, as clients see it.
        cluster_id: Uuid,
        /// Identity of this log.
        log_id: Uuid,
        /// Feature level to begin with.
        level: u32,
    },
    /// Says that the log has claimed its store: from now on there is a store that is the right one.
    ClaimStore,
    /// Raises the feature level, once every broker knows the new one.
    RaiseLevel {
        /// The new level.
        level: u32,
    },
    /// A broker announces itself. One that has, or lately had, the same address gives it its node
    /// id.
    RegisterBroker(BrokerAddress),
    /// A broker that is about to leave asks to be named to clients no more.
    DrainBroker,
    /// A broker leaves on its own (by [`CommandId::incarnation`]) or is declared dead by another.
    ExpireBroker {
        /// Who is to go.
        incarnation: Incarnation,
        /// The newest entry of its making that the proposer had seen: a later one saves it.
        seen: Lsn,
    },
    /// Says nothing but "I live" and what time it is.
    Heartbeat,
    /// Creates a topic.
    CreateTopic {
        /// Its id, drawn by the proposer.
        topic: TopicId,
        /// Its name, unique among living topics.
        name: String,
        /// How many partitions.
        partitions: u32,
        /// What the user asked for and sees; the object store replicates in its own way.
        replication_factor: u16,
        /// Configs that differ from the defaults.
        configs: BTreeMap<String, String>,
    },
    /// Creates a topic that shares the records of another up to a point. No byte is copied.
    BranchTopic {
        /// Its id, drawn by the proposer.
        topic: TopicId,
        /// Its name, unique among living topics.
        name: String,
        /// See `CreateTopic`.
        replication_factor: u16,
        /// Configs that differ from the defaults.
        configs: BTreeMap<String, String>,
        /// What it shares. It has as many partitions as its parent.
        branch: Branch,
    },
    /// Deletes a topic. What was in it is kept until the topic is purged.
    DeleteTopic {
        /// Which.
        topic: TopicId,
    },
    /// Gives up what deleted topics had in them.
    PurgeTopics {
        /// Which. Those that were not deleted stay.
        topics: Vec<TopicId>,
    },
    /// Adds partitions to a topic.
    CreatePartitions {
        /// Which.
        topic: TopicId,
        /// How many there shall be.
        total: u32,
    },
    /// Changes configs of one resource, all or none.
    AlterConfigs {
        /// Of what.
        resource: ConfigResource,
        /// Whether configs that are not named go back to their defaults.
        replace: bool,
        /// What to change, in order.
        changes: Vec<ConfigChange>,
    },
    /// Makes the batches of an uploaded segment (or of a part of it) part of their partitions.
    CommitSegment {
        /// The object that holds them.
        segment: SegmentId,
        /// Its length in bytes.
        bytes: u64,
        /// Its runs, in the order they are to be applied.
        runs: Vec<Run>,
    },
    /// What `CommitSegment` does, for so many batches that their runs would make the entry long:
    /// they stand in the footer of the segment, and the entry names that.
    CommitByFooter {
        /// The footer, and the segment that it belongs to.
        footer: FooterRef,
        /// What stands in it, once it was read. No part of the entry.
        runs: Option<Vec<Run>>,
    },
    /// Makes batches that come with the command part of their partitions: what `CommitSegment`
    /// does, for so few bytes that an object of their own would cost more.
    CommitInline {
        /// The segment that they would be in an object of.
        segment: SegmentId,
        /// That object without its footer: `runs` say where in it the blocks are.
        content: Bytes,
        /// Its runs, in the order they are to be applied.
        runs: Vec<Run>,
    },
    /// Puts extents of an uploaded segment in the place of others, which hold the same or, where a
    /// topic is compacted, more than is needed. Records keep their offsets.
    ReplaceExtents {
        /// The object that holds them.
        segment: SegmentId,
        /// Its length in bytes; 0 if nothing lies in it, because there is none.
        bytes: u64,
        /// How often its records have been merged, see `SegmentRefs::level`.
        level: u8,
        /// What is replaced. Each is judged by itself.
        replacements: Vec<Replacement>,
    },
    /// What `ReplaceExtents` does, for so many replacements that they would make the entry long:
    /// they stand in a footer of the segment, and the entry names that.
    ReplaceByFooter {
        /// The footer, and the segment that it belongs to.
        footer: FooterRef,
        /// See `ReplaceExtents`.
        level: u8,
        /// What stands in it, once it was read. No part of the entry.
        replacements: Option<Vec<Replacement>>,
    },
    /// Turns away, from now on, segments that were begun long ago and are not committed yet: what
    /// is in the store of them may be deleted.
    RaiseHorizon {
        /// Segments that were begun before this entry was applied by their brokers are too old. At
        /// most the entry that this command stands in.
        to: Lsn,
    },
    /// Forgets segments that nothing refers to, which have been deleted.
    ForgetSegments {
        /// Which. Those that can't be forgotten stay.
        segments: Vec<SegmentId>,
    },
    /// Takes the next block of producer ids.
    AllocateProducerIds {
        /// How many.
        count: u32,
    },
    /// Stores positions of consumers.
    CommitOffsets {
        /// The group.
        group: String,
        /// The entry in which the serving brokers last changed, as the group's coordinator knew it
        /// when it took the positions: if they have changed since, another may have taken newer
        /// ones, and these are too late.
        office: Lsn,
        /// The member that commits; none for consumers that assign their partitions themselves,
        /// which is only taken of groups without members.
        committer: Option<Committer>,
        /// How long the positions are kept, in milliseconds, if not as long as all others.
        retention_ms: Option<i64>,
        /// The positions.
        offsets: Vec<CommittedOffset>,
    },
    /// Changes a group, if it is as its coordinator saw it.
    ChangeGroup {
        /// The group.
        group: String,
        /// The entry in which the serving brokers last changed, as its coordinator knew it: a
        /// change that rests on what was seen in an office that was lost, and perhaps regained,
        /// comes too late.
        office: Lsn,
        /// The revision it had; 0 if there was no such group.
        revision: u64,
        /// The change.
        change: GroupChange,
    },
    /// Moves the log start offset of a partition forward: what lies below is gone.
    DeleteRecords {
        /// The partition.
        partition: TopicPartition,
        /// The offset of the oldest record that stays; none for the high watermark.
        before: Option<Offset>,
    },
    /// Lets go of records that are due by the retention of their topics: time and bytes are judged
    /// anew when this is applied.
    ExpireRecords {
        /// Partitions, and the offsets of the oldest records that stay in any case.
        partitions: Vec<(TopicPartition, Offset)>,
    },
    /// Changes what a transactional id is about.
    ChangeTransaction {
        /// The transactional id.
        transactional_id: String,
        /// The change.
        change: TransactionChange,
    },
}

impl Command {
    /// The office that its proposer held, if it is one of a group's coordinator.
    pub(crate) fn office(&self) -> Option<Lsn> {
        match self {
            Self::CommitOffsets { office, .. } | Self::ChangeGroup { office, .. } => Some(*office),
            Self::ChangeTransaction { change, .. } => change.office(),
            _ => None,
        }
    }
}

/// Something that has configs.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum ConfigResource {
    /// A topic.
    Topic(TopicId),
    /// One broker.
    Broker(NodeId),
    /// All brokers: the cluster-wide default.
    Cluster,
    /// A group, whether there is one of that name or not (KIP-848).
    Group(String),
    /// A subscription to the metrics of clients (KIP-714).
    ClientMetrics(String),
}

/// One change to one config (KIP-339).
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ConfigChange {
    /// The config's name.
    pub name: String,
    /// What to do with it.
    pub operation: ConfigOperation,
}

/// What can be done to a config.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum ConfigOperation {
    /// Gives it this value.
    Set(String),
    /// Gives it back its default.
    Delete,
}

/// The batches of one partition that lie together in a segment.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Run {
    /// Whose batches.
    pub partition: TopicPartition,
    /// First byte of the block in the segment.
    pub position: u64,
    /// Length of the block in the segment, with its header.
    pub stored_bytes: u32,
    /// The batches, in order. Their lengths add up to the block's content once it is unpacked.
    pub batches: Vec<BatchSummary>,
}

/// What the state needs to know of a record batch.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct BatchSummary {
    /// Length as the producer sent it.
    pub bytes: u32,
    /// Offsets it takes: its last offset delta and one.
    pub records: u32,
    /// Largest timestamp in it, in milliseconds since the Unix epoch.
    pub max_timestamp: i64,
    /// Who produced it, if idempotently.
    pub producer: Option<BatchProducer>,
}

/// The producer fields of a batch (KIP-98).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct BatchProducer {
    /// The producer.
    pub id: ProducerId,
    /// Its epoch.
    pub epoch: i16,
    /// Sequence number of the batch's first record.
    pub base_sequence: i32,
    /// Whether it is a part of a transaction.
    pub transaction: BatchTransaction,
}

impl BatchProducer {
    /// The producer, as it names itself.
    pub fn id_and_epoch(&self) -> ProducerIdAndEpoch {
        ProducerIdAndEpoch { id: self.id, epoch: self.epoch }
    }
}

/// How a batch belongs to a transaction.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum BatchTransaction {
    /// Not at all.
    #[default]
    None,
    /// It does if its partition was added before.
    Added,
    /// It does, and brings its partition with it (KIP-890).
    Implicit,
}
