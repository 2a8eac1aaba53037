//! What changes consumer groups: memberships and positions.
//!
//! A change of a membership is conditional: on the group's revision, so that it rests on what its
//! proposer saw, and on the proposer being the group's coordinator where the command stands in the
//! log. A coordinator that lost its office without knowing is turned away by that.

use std::collections::{BTreeMap, BTreeSet};

use bytes::Bytes;
use odradek_protocol::id::{Offset, PartitionIndex, TopicId, TopicPartition};

/// Partitions of several topics.
pub type Assignment = BTreeMap<TopicId, BTreeSet<PartitionIndex>>;

/// A consumer's position in one partition.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct CommittedOffset {
    /// The partition.
    pub partition: TopicPartition,
    /// The next record to read.
    pub offset: Offset,
    /// Leader epoch of the last record read, -1 if unknown (KIP-320).
    pub leader_epoch: i32,
    /// Whatever the client wants back.
    pub metadata: String,
}

/// As whom positions are committed.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Committer {
    /// The member's id.
    pub member: String,
    /// Its instance id, if it is a static member and says so (KIP-345).
    pub instance_id: Option<String>,
    /// The generation it lives in; its member epoch in a group of the consumer protocol.
    pub generation: i32,
}

/// One step of a group's life.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum GroupChange {
    /// Brings a part of the members of a generation that is about to begin, when they are too many
    /// for one command.
    StageMembers {
        /// Whether this is the first part: what was staged before is forgotten.
        is_first: bool,
        /// The changes.
        members: Vec<MemberChange>,
    },
    /// Begins a generation of the classic protocol: all have joined, nobody has an assignment yet.
    BeginGeneration {
        /// What kind of group it is: `consumer`, `connect`.
        protocol_type: String,
        /// The protocol that was chosen; none if nobody is left.
        protocol: Option<String>,
        /// The member that assigns; none if nobody is left.
        leader: Option<String>,
        /// Whether what was staged counts.
        with_staged: bool,
        /// Who came, changed or went since the last generation, besides.
        members: Vec<MemberChange>,
    },
    /// Gives members of the generation what its leader assigned them.
    AssignGeneration {
        /// By member; who is not named gets nothing.
        assignments: Vec<(String, Bytes)>,
        /// Whether this is the last part: the generation is stable with it.
        is_last: bool,
    },
    /// A static member came back under another member id, and takes its old place (KIP-345).
    ReplaceMember {
        /// The id it had.
        old: String,
        /// The id it has.
        new: String,
        /// The member; it keeps the assignment it had.
        member: ClassicMember,
    },
    /// Changes a group of the consumer protocol (KIP-848), all or nothing.
    ChangeConsumers(Vec<ConsumerChange>),
    /// Drops positions, and with the last one a group that was never more than they.
    DeleteOffsets {
        /// Of these partitions.
        partitions: Vec<TopicPartition>,
        /// If they are dropped for their age: only those committed up to this log time, or whose
        /// own time has come, and the group if nothing is left of it and nobody was in it since.
        expired_ms: Option<i64>,
    },
    /// Drops a group that nobody is a member of.
    DeleteGroup,
}

/// One change to the members of a classic group.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum MemberChange {
    /// A member that is new or has changed.
    Put {
        /// Its id.
        id: String,
        /// The member.
        member: ClassicMember,
    },
    /// A member that is gone.
    Remove {
        /// Its id.
        id: String,
    },
}

/// A member of a group of the classic protocol.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct ClassicMember {
    /// The name it keeps over restarts, if it is a static member (KIP-345).
    pub instance_id: Option<String>,
    /// What its client calls itself.
    pub client_id: String,
    /// Where it came from.
    pub client_host: String,
    /// How long it may be silent, in milliseconds.
    pub session_timeout_ms: i32,
    /// How long it may take to rejoin, in milliseconds.
    pub rebalance_timeout_ms: i32,
    /// What it said under the protocol that was chosen; opaque.
    pub metadata: Bytes,
    /// What the leader gave it in this generation; opaque, empty until then.
    pub assignment: Bytes,
}

/// One change to a group of the consumer protocol.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum ConsumerChange {
    /// The group's epoch moves.
    SetEpoch {
        /// The new one.
        epoch: i32,
        /// Hash of the partitions of the topics that are subscribed to.
        metadata_hash: u64,
    },
    /// A member joins, or says something else than before.
    PutMember {
        /// Its id.
        id: String,
        /// What it says.
        subscription: Subscription,
    },
    /// A member is gone, with what it held.
    RemoveMember {
        /// Its id.
        id: String,
    },
    /// What a member is to have.
    SetTarget {
        /// The member.
        id: String,
        /// Its part of the target assignment.
        target: Assignment,
    },
    /// The target assignment is complete.
    SetTargetEpoch {
        /// The group epoch it was made for.
        epoch: i32,
    },
    /// What a member has.
    SetCurrent {
        /// The member.
        id: String,
        /// Where it is on its way to the target.
        current: Current,
    },
}

/// What a member of the consumer protocol says of itself.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Subscription {
    /// The name it keeps over restarts, if it is a static member.
    pub instance_id: Option<String>,
    /// Its rack.
    pub rack_id: Option<String>,
    /// What its client calls itself.
    pub client_id: String,
    /// Where it came from.
    pub client_host: String,
    /// How long it may take to give partitions back, in milliseconds.
    pub rebalance_timeout_ms: i32,
    /// Topics it names.
    pub topics: BTreeSet<String>,
    /// Topics it wants by a regular expression.
    pub regex: Option<String>,
    /// The assignor it prefers.
    pub assignor: Option<String>,
}

/// Where a member of the consumer protocol is on its way to its target.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Current {
    /// Its epoch: the target's, once it has given back all that is not in it. -2 for a static
    /// member that left for a while.
    pub epoch: i32,
    /// The epoch before, for a heartbeat whose answer was lost.
    pub previous_epoch: i32,
    /// What it may hold.
    pub assigned: Assignment,
    /// What it has been told to give back and has not yet.
    pub revoking: Assignment,
    /// What it has to wait for.
    pub state: MemberState,
}

/// What a member of the consumer protocol waits for.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum MemberState {
    /// Nothing: it has its target.
    #[default]
    Stable,
    /// It must give partitions back.
    UnrevokedPartitions,
    /// Others must give partitions back that it is to have.
    UnreleasedPartitions,
}
