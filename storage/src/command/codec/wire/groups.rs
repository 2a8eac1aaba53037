//! The protobuf messages of groups, in entries and in snapshots. Tags are for ever.

#[derive(Clone, PartialEq, prost::Message)]
pub(crate) struct CommitOffsets {
    #[prost(string, tag = "1")]
    pub group: String,
    #[prost(message, repeated, tag = "2")]
    pub offsets: Vec<CommittedOffset>,
    #[prost(message, optional, tag = "3")]
    pub committer: Option<Committer>,
    #[prost(int64, optional, tag = "4")]
    pub retention_ms: Option<i64>,
    #[prost(uint64, tag = "5")]
    pub office: u64,
}

#[derive(Clone, PartialEq, prost::Message)]
pub(crate) struct Committer {
    #[prost(string, tag = "1")]
    pub member: String,
    #[prost(string, optional, tag = "2")]
    pub instance_id: Option<String>,
    #[prost(sint32, tag = "3")]
    pub generation: i32,
}

#[derive(Clone, PartialEq, prost::Message)]
pub(crate) struct CommittedOffset {
    #[prost(bytes = "vec", tag = "1")]
    pub topic: Vec<u8>,
    #[prost(int32, tag = "2")]
    pub partition: i32,
    #[prost(int64, tag = "3")]
    pub offset: i64,
    #[prost(sint32, tag = "4")]
    pub leader_epoch: i32,
    #[prost(string, tag = "5")]
    pub metadata: String,
}

#[derive(Clone, PartialEq, prost::Message)]
pub(crate) struct ChangeGroup {
    #[prost(string, tag = "1")]
    pub group: String,
    #[prost(uint64, tag = "2")]
    pub revision: u64,
    #[prost(oneof = "GroupChange", tags = "3, 4, 5, 6, 7, 8, 9")]
    pub change: Option<GroupChange>,
    #[prost(uint64, tag = "10")]
    pub office: u64,
}

#[derive(Clone, PartialEq, prost::Oneof)]
pub(crate) enum GroupChange {
    #[prost(message, tag = "3")]
    StageMembers(StageMembers),
    #[prost(message, tag = "4")]
    BeginGeneration(BeginGeneration),
    #[prost(message, tag = "5")]
    AssignGeneration(AssignGeneration),
    #[prost(message, tag = "6")]
    ReplaceMember(ReplaceMember),
    #[prost(message, tag = "7")]
    ChangeConsumers(ChangeConsumers),
    #[prost(message, tag = "8")]
    DeleteOffsets(DeleteOffsets),
    #[prost(message, tag = "9")]
    DeleteGroup(DeleteGroup),
}

#[derive(Clone, PartialEq, prost::Message)]
pub(crate) struct StageMembers {
    #[prost(bool, tag = "1")]
    pub is_first: bool,
    #[prost(message, repeated, tag = "2")]
    pub members: Vec<MemberChange>,
}

#[derive(Clone, PartialEq, prost::Message)]
pub(crate) struct BeginGeneration {
    #[prost(string, tag = "1")]
    pub protocol_type: String,
    #[prost(string, optional, tag = "2")]
    pub protocol: Option<String>,
    #[prost(string, optional, tag = "3")]
    pub leader: Option<String>,
    #[prost(bool, tag = "4")]
    pub with_staged: bool,
    #[prost(message, repeated, tag = "5")]
    pub members: Vec<MemberChange>,
}

/// A member without a body is gone.
#[derive(Clone, PartialEq, prost::Message)]
pub(crate) struct MemberChange {
    #[prost(string, tag = "1")]
    pub id: String,
    #[prost(message, optional, tag = "2")]
    pub member: Option<ClassicMember>,
}

#[derive(Clone, PartialEq, prost::Message)]
pub(crate) struct ClassicMember {
    #[prost(string, optional, tag = "1")]
    pub instance_id: Option<String>,
    #[prost(string, tag = "2")]
    pub client_id: String,
    #[prost(string, tag = "3")]
    pub client_host: String,
    #[prost(int32, tag = "4")]
    pub session_timeout_ms: i32,
    #[prost(int32, tag = "5")]
    pub rebalance_timeout_ms: i32,
    #[prost(bytes = "vec", tag = "6")]
    pub metadata: Vec<u8>,
    #[prost(bytes = "vec", tag = "7")]
    pub assignment: Vec<u8>,
}

#[derive(Clone, PartialEq, prost::Message)]
pub(crate) struct AssignGeneration {
    #[prost(message, repeated, tag = "1")]
    pub assignments: Vec<MemberAssignment>,
    #[prost(bool, tag = "2")]
    pub is_last: bool,
}

#[derive(Clone, PartialEq, prost::Message)]
pub(crate) struct MemberAssignment {
    #[prost(string, tag = "1")]
    pub id: String,
    #[prost(bytes = "vec", tag = "2")]
    pub assignment: Vec<u8>,
}

#[derive(Clone, PartialEq, prost::Message)]
pub(crate) struct ReplaceMember {
    #[prost(string, tag = "1")]
    pub old: String,
    #[prost(string, tag = "2")]
    pub new: String,
    #[prost(message, optional, tag = "3")]
    pub member: Option<ClassicMember>,
}

#[derive(Clone, PartialEq, prost::Message)]
pub(crate) struct ChangeConsumers {
    #[prost(message, repeated, tag = "1")]
    pub changes: Vec<ConsumerChange>,
}

#[derive(Clone, PartialEq, prost::Message)]
pub(crate) struct ConsumerChange {
    #[prost(oneof = "ConsumerChangeKind", tags = "1, 2, 3, 4, 5, 6")]
    pub kind: Option<ConsumerChangeKind>,
}

#[derive(Clone, PartialEq, prost::Oneof)]
pub(crate) enum ConsumerChangeKind {
    #[prost(message, tag = "1")]
    SetEpoch(SetEpoch),
    #[prost(message, tag = "2")]
    PutMember(PutMember),
    #[prost(string, tag = "3")]
    RemoveMember(String),
    #[prost(message, tag = "4")]
    SetTarget(SetTarget),
    #[prost(int32, tag = "5")]
    SetTargetEpoch(i32),
    #[prost(message, tag = "6")]
    SetCurrent(SetCurrent),
}

#[derive(Clone, Copy, PartialEq, prost::Message)]
pub(crate) struct SetEpoch {
    #[prost(int32, tag = "1")]
    pub epoch: i32,
    #[prost(fixed64, tag = "2")]
    pub metadata_hash: u64,
}

#[derive(Clone, PartialEq, prost::Message)]
pub(crate) struct PutMember {
    #[prost(string, tag = "1")]
    pub id: String,
    #[prost(message, optional, tag = "2")]
    pub subscription: Option<Subscription>,
}

#[derive(Clone, PartialEq, prost::Message)]
pub(crate) struct SetTarget {
    #[prost(string, tag = "1")]
    pub id: String,
    #[prost(message, repeated, tag = "2")]
    pub target: Vec<TopicPartitions>,
}

#[derive(Clone, PartialEq, prost::Message)]
pub(crate) struct SetCurrent {
    #[prost(string, tag = "1")]
    pub id: String,
    #[prost(message, optional, tag = "2")]
    pub current: Option<Current>,
}

#[derive(Clone, PartialEq, prost::Message)]
pub(crate) struct Subscription {
    #[prost(string, optional, tag = "1")]
    pub instance_id: Option<String>,
    #[prost(string, optional, tag = "2")]
    pub rack_id: Option<String>,
    #[prost(string, tag = "3")]
    pub client_id: String,
    #[prost(string, tag = "4")]
    pub client_host: String,
    #[prost(int32, tag = "5")]
    pub rebalance_timeout_ms: i32,
    #[prost(string, repeated, tag = "6")]
    pub topics: Vec<String>,
    #[prost(string, optional, tag = "7")]
    pub regex: Option<String>,
    #[prost(string, optional, tag = "8")]
    pub assignor: Option<String>,
}

#[derive(Clone, PartialEq, prost::Message)]
pub(crate) struct Current {
    #[prost(sint32, tag = "1")]
    pub epoch: i32,
    #[prost(sint32, tag = "2")]
    pub previous_epoch: i32,
    #[prost(message, repeated, tag = "3")]
    pub assigned: Vec<TopicPartitions>,
    #[prost(message, repeated, tag = "4")]
    pub revoking: Vec<TopicPartitions>,
    /// 0 stable, 1 unrevoked, 2 unreleased.
    #[prost(uint32, tag = "5")]
    pub state: u32,
}

#[derive(Clone, PartialEq, prost::Message)]
pub(crate) struct TopicPartitions {
    #[prost(bytes = "vec", tag = "1")]
    pub topic: Vec<u8>,
    #[prost(int32, repeated, tag = "2")]
    pub partitions: Vec<i32>,
}

#[derive(Clone, PartialEq, prost::Message)]
pub(crate) struct DeleteOffsets {
    #[prost(message, repeated, tag = "1")]
    pub partitions: Vec<TopicPartitions>,
    #[prost(int64, optional, tag = "2")]
    pub expired_ms: Option<i64>,
}

#[derive(Clone, Copy, PartialEq, prost::Message)]
pub(crate) struct DeleteGroup {}
