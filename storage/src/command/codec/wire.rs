//! The protobuf messages of an entry, as stored. Tags are for ever.

use std::collections::BTreeMap;

mod groups;
mod life;
mod transactions;

pub(crate) use groups::*;
pub(crate) use life::*;
pub(crate) use transactions::*;

#[derive(Clone, PartialEq, prost::Message)]
pub(crate) struct Entry {
    #[prost(bytes = "vec", tag = "1")]
    pub log_id: Vec<u8>,
    #[prost(uint64, tag = "2")]
    pub lsn: u64,
    #[prost(fixed64, tag = "3")]
    pub previous: u64,
    #[prost(message, optional, tag = "4")]
    pub append_id: Option<CommandId>,
    #[prost(uint32, tag = "5")]
    pub level: u32,
    #[prost(int64, tag = "6")]
    pub time_ms: i64,
    #[prost(fixed64, optional, tag = "7")]
    pub digest: Option<u64>,
    #[prost(message, repeated, tag = "8")]
    pub proposals: Vec<Proposal>,
}

#[derive(Clone, Copy, PartialEq, prost::Message)]
pub(crate) struct CommandId {
    #[prost(fixed64, tag = "1")]
    pub incarnation: u64,
    #[prost(uint64, tag = "2")]
    pub counter: u64,
}

#[derive(Clone, Copy, PartialEq, prost::Message)]
pub(crate) struct SegmentId {
    #[prost(uint64, tag = "1")]
    pub began: u64,
    #[prost(fixed64, tag = "2")]
    pub incarnation: u64,
    #[prost(uint64, tag = "3")]
    pub counter: u64,
}

#[derive(Clone, PartialEq, prost::Message)]
pub(crate) struct Proposal {
    #[prost(message, optional, tag = "1")]
    pub id: Option<CommandId>,
    #[prost(
        oneof = "Command",
        tags = "2, 3, 4, 5, 6, 7, 8, 9, 10, 11, 12, 13, 14, 15, 16, 17, 18, 19, 20, 30, 31, 32, \
                33, 34, 35, 40"
    )]
    pub command: Option<Command>,
}

#[derive(Clone, PartialEq, prost::Oneof)]
pub(crate) enum Command {
    #[prost(message, tag = "2")]
    Genesis(Genesis),
    #[prost(message, tag = "3")]
    RaiseLevel(RaiseLevel),
    #[prost(message, tag = "4")]
    RegisterBroker(RegisterBroker),
    #[prost(message, tag = "5")]
    ExpireBroker(ExpireBroker),
    #[prost(message, tag = "6")]
    Heartbeat(Heartbeat),
    #[prost(message, tag = "7")]
    CreateTopic(CreateTopic),
    #[prost(message, tag = "8")]
    DeleteTopic(DeleteTopic),
    #[prost(message, tag = "9")]
    CreatePartitions(CreatePartitions),
    #[prost(message, tag = "10")]
    AlterConfigs(AlterConfigs),
    #[prost(message, tag = "11")]
    CommitSegment(CommitSegment),
    #[prost(message, tag = "12")]
    AllocateProducerIds(AllocateProducerIds),
    #[prost(message, tag = "13")]
    CommitOffsets(CommitOffsets),
    #[prost(message, tag = "14")]
    DrainBroker(DrainBroker),
    #[prost(message, tag = "15")]
    ClaimStore(ClaimStore),
    #[prost(message, tag = "16")]
    DeleteRecords(DeleteRecords),
    #[prost(message, tag = "17")]
    RaiseHorizon(RaiseHorizon),
    #[prost(message, tag = "18")]
    ForgetSegments(ForgetSegments),
    #[prost(message, tag = "19")]
    CommitInline(CommitInline),
    #[prost(message, tag = "20")]
    ChangeTransaction(ChangeTransaction),
    #[prost(message, tag = "30")]
    ReplaceExtents(ReplaceExtents),
    #[prost(message, tag = "31")]
    BranchTopic(BranchTopic),
    #[prost(message, tag = "32")]
    ExpireRecords(ExpireRecords),
    #[prost(message, tag = "33")]
    PurgeTopics(PurgeTopics),
    #[prost(message, tag = "34")]
    CommitByFooter(FooterRef),
    #[prost(message, tag = "35")]
    ReplaceByFooter(ReplaceByFooter),
    #[prost(message, tag = "40")]
    ChangeGroup(ChangeGroup),
}

#[derive(Clone, PartialEq, prost::Message)]
pub(crate) struct Genesis {
    #[prost(bytes = "vec", tag = "1")]
    pub cluster_id: Vec<u8>,
    #[prost(bytes = "vec", tag = "2")]
    pub log_id: Vec<u8>,
    #[prost(uint32, tag = "3")]
    pub level: u32,
}

#[derive(Clone, Copy, PartialEq, prost::Message)]
pub(crate) struct RaiseLevel {
    #[prost(uint32, tag = "1")]
    pub level: u32,
}

#[derive(Clone, PartialEq, prost::Message)]
pub(crate) struct RegisterBroker {
    #[prost(string, tag = "1")]
    pub host: String,
    #[prost(uint32, tag = "2")]
    pub port: u32,
    #[prost(string, optional, tag = "3")]
    pub zone: Option<String>,
    #[prost(message, optional, tag = "4")]
    pub peer: Option<Endpoint>,
    #[prost(btree_map = "string, message", tag = "5")]
    pub zone_listeners: BTreeMap<String, Endpoint>,
}

#[derive(Clone, PartialEq, prost::Message)]
pub(crate) struct Endpoint {
    #[prost(string, tag = "1")]
    pub host: String,
    #[prost(uint32, tag = "2")]
    pub port: u32,
}

#[derive(Clone, Copy, PartialEq, prost::Message)]
pub(crate) struct DrainBroker {}

#[derive(Clone, Copy, PartialEq, prost::Message)]
pub(crate) struct ClaimStore {}

#[derive(Clone, Copy, PartialEq, prost::Message)]
pub(crate) struct ExpireBroker {
    #[prost(fixed64, tag = "1")]
    pub incarnation: u64,
    #[prost(uint64, tag = "2")]
    pub seen: u64,
}

#[derive(Clone, Copy, PartialEq, prost::Message)]
pub(crate) struct Heartbeat {}

#[derive(Clone, PartialEq, prost::Message)]
pub(crate) struct CreateTopic {
    #[prost(bytes = "vec", tag = "1")]
    pub topic: Vec<u8>,
    #[prost(string, tag = "2")]
    pub name: String,
    #[prost(uint32, tag = "3")]
    pub partitions: u32,
    #[prost(uint32, tag = "4")]
    pub replication_factor: u32,
    #[prost(btree_map = "string, string", tag = "5")]
    pub configs: BTreeMap<String, String>,
}

#[derive(Clone, PartialEq, prost::Message)]
pub(crate) struct DeleteTopic {
    #[prost(bytes = "vec", tag = "1")]
    pub topic: Vec<u8>,
}

#[derive(Clone, PartialEq, prost::Message)]
pub(crate) struct CreatePartitions {
    #[prost(bytes = "vec", tag = "1")]
    pub topic: Vec<u8>,
    #[prost(uint32, tag = "2")]
    pub total: u32,
}

#[derive(Clone, PartialEq, prost::Message)]
pub(crate) struct AlterConfigs {
    #[prost(message, optional, tag = "1")]
    pub resource: Option<ConfigResource>,
    #[prost(bool, tag = "2")]
    pub replace: bool,
    #[prost(message, repeated, tag = "3")]
    pub changes: Vec<ConfigChange>,
}

#[derive(Clone, PartialEq, prost::Message)]
pub(crate) struct ConfigResource {
    #[prost(oneof = "Resource", tags = "1, 2, 3, 4, 5")]
    pub resource: Option<Resource>,
}

#[derive(Clone, PartialEq, prost::Oneof)]
pub(crate) enum Resource {
    #[prost(bytes, tag = "1")]
    Topic(Vec<u8>),
    #[prost(int32, tag = "2")]
    Broker(i32),
    #[prost(bool, tag = "3")]
    Cluster(bool),
    #[prost(string, tag = "4")]
    Group(String),
    #[prost(string, tag = "5")]
    ClientMetrics(String),
}

#[derive(Clone, PartialEq, prost::Message)]
pub(crate) struct ConfigChange {
    #[prost(string, tag = "1")]
    pub name: String,
    #[prost(string, optional, tag = "2")]
    pub value: Option<String>,
}

#[derive(Clone, PartialEq, prost::Message)]
pub(crate) struct CommitSegment {
    #[prost(message, optional, tag = "1")]
    pub segment: Option<SegmentId>,
    #[prost(uint64, tag = "2")]
    pub bytes: u64,
    #[prost(message, repeated, tag = "3")]
    pub runs: Vec<Run>,
}

#[derive(Clone, Copy, PartialEq, prost::Message)]
pub(crate) struct FooterRef {
    #[prost(message, optional, tag = "1")]
    pub segment: Option<SegmentId>,
    #[prost(uint64, tag = "2")]
    pub segment_bytes: u64,
    #[prost(uint32, tag = "3")]
    pub bytes: u32,
    #[prost(fixed64, tag = "4")]
    pub hash: u64,
    #[prost(uint64, tag = "5")]
    pub position: u64,
}

#[derive(Clone, PartialEq, prost::Message)]
pub(crate) struct Run {
    #[prost(bytes = "vec", tag = "1")]
    pub topic: Vec<u8>,
    #[prost(int32, tag = "2")]
    pub partition: i32,
    #[prost(uint64, tag = "3")]
    pub position: u64,
    #[prost(uint32, tag = "4")]
    pub stored_bytes: u32,
    #[prost(message, repeated, tag = "6")]
    pub batches: Vec<Batch>,
}

#[derive(Clone, Copy, PartialEq, prost::Message)]
pub(crate) struct Batch {
    #[prost(uint32, tag = "1")]
    pub bytes: u32,
    #[prost(uint32, tag = "2")]
    pub records: u32,
    #[prost(sint64, tag = "3")]
    pub max_timestamp: i64,
    #[prost(message, optional, tag = "4")]
    pub producer: Option<Producer>,
}

#[derive(Clone, Copy, PartialEq, prost::Message)]
pub(crate) struct Producer {
    #[prost(int64, tag = "1")]
    pub id: i64,
    #[prost(int32, tag = "2")]
    pub epoch: i32,
    #[prost(sint32, tag = "3")]
    pub base_sequence: i32,
    /// 0 no transaction, 1 one that the partition was added to, 2 one that it is added to by this.
    #[prost(uint32, tag = "4")]
    pub transaction: u32,
}

#[derive(Clone, Copy, PartialEq, prost::Message)]
pub(crate) struct AllocateProducerIds {
    #[prost(uint32, tag = "1")]
    pub count: u32,
}

#[derive(Clone, PartialEq, prost::Message)]
pub(crate) struct DeleteRecords {
    #[prost(bytes = "vec", tag = "1")]
    pub topic: Vec<u8>,
    #[prost(int32, tag = "2")]
    pub partition: i32,
    #[prost(int64, optional, tag = "3")]
    pub before: Option<i64>,
}
