//! The protobuf messages of a snapshot, as stored. Tags are for ever.

use std::collections::BTreeMap;

use bytes::Bytes;

use crate::command::codec::wire::{Endpoint, ProducerIdAndEpoch, RegisterBroker, SegmentId};

mod groups;
mod transactions;

pub(crate) use groups::*;
pub(crate) use transactions::*;

#[derive(Clone, PartialEq, prost::Message)]
pub(crate) struct Snapshot {
    #[prost(bytes = "vec", tag = "1")]
    pub cluster_id: Vec<u8>,
    #[prost(bytes = "vec", tag = "2")]
    pub log_id: Vec<u8>,
    #[prost(uint32, tag = "3")]
    pub level: u32,
    #[prost(uint64, tag = "4")]
    pub applied: u64,
    #[prost(fixed64, tag = "5")]
    pub last_hash: u64,
    #[prost(int64, tag = "6")]
    pub log_time_ms: i64,
    #[prost(int64, tag = "7")]
    pub next_producer_id: i64,
    #[prost(int32, tag = "8")]
    pub last_node_id: i32,
    #[prost(message, repeated, tag = "9")]
    pub brokers: Vec<Broker>,
    #[prost(message, repeated, tag = "10")]
    pub topics: Vec<Topic>,
    #[prost(message, repeated, tag = "11")]
    pub segments: Vec<Segment>,
    #[prost(message, repeated, tag = "12")]
    pub unreferenced: Vec<Segment>,
    #[prost(btree_map = "string, string", tag = "13")]
    pub cluster_configs: BTreeMap<String, String>,
    #[prost(message, repeated, tag = "14")]
    pub broker_configs: Vec<BrokerConfigs>,
    #[prost(message, repeated, tag = "15")]
    pub groups: Vec<Group>,
    #[prost(fixed64, repeated, tag = "16")]
    pub left_incarnations: Vec<u64>,
    #[prost(message, repeated, tag = "17")]
    pub departed: Vec<Departed>,
    #[prost(bool, tag = "18")]
    pub has_claimed_store: bool,
    #[prost(uint64, tag = "19")]
    pub topics_changed: u64,
    #[prost(uint64, tag = "20")]
    pub last_group_revision: u64,
    #[prost(message, repeated, tag = "21")]
    pub group_configs: Vec<NamedConfigs>,
    #[prost(message, repeated, tag = "22")]
    pub client_metrics_configs: Vec<NamedConfigs>,
    #[prost(uint64, tag = "23")]
    pub offices_changed: u64,
    #[prost(message, repeated, tag = "24")]
    pub transactions: Vec<Transactional>,
    #[prost(uint64, tag = "25")]
    pub last_transaction: u64,
    #[prost(uint64, tag = "26")]
    pub purge_transactions_at: u64,
    #[prost(uint64, tag = "27")]
    pub purge_producers_at: u64,
    #[prost(uint64, tag = "28")]
    pub horizon: u64,
    #[prost(message, repeated, tag = "29")]
    pub deleted: Vec<Deleted>,
}

#[derive(Clone, PartialEq, prost::Message)]
pub(crate) struct Deleted {
    #[prost(message, optional, tag = "1")]
    pub topic: Option<Topic>,
    #[prost(uint64, tag = "2")]
    pub since: u64,
    #[prost(int64, tag = "3")]
    pub since_ms: i64,
}

#[derive(Clone, PartialEq, prost::Message)]
pub(crate) struct Departed {
    #[prost(int32, tag = "1")]
    pub node: i32,
    #[prost(message, optional, tag = "2")]
    pub at: Option<Endpoint>,
}

#[derive(Clone, PartialEq, prost::Message)]
pub(crate) struct Broker {
    #[prost(int32, tag = "1")]
    pub node: i32,
    #[prost(fixed64, tag = "2")]
    pub incarnation: u64,
    #[prost(message, optional, tag = "3")]
    pub address: Option<RegisterBroker>,
    #[prost(bool, tag = "4")]
    pub is_draining: bool,
    #[prost(uint64, tag = "6")]
    pub last_heard: u64,
    #[prost(uint64, tag = "7")]
    pub commands_floor: u64,
    #[prost(uint64, repeated, tag = "8")]
    pub commands_above: Vec<u64>,
}

#[derive(Clone, PartialEq, prost::Message)]
pub(crate) struct NamedConfigs {
    #[prost(string, tag = "1")]
    pub name: String,
    #[prost(btree_map = "string, string", tag = "2")]
    pub configs: BTreeMap<String, String>,
}

#[derive(Clone, PartialEq, prost::Message)]
pub(crate) struct BrokerConfigs {
    #[prost(int32, tag = "1")]
    pub node: i32,
    #[prost(btree_map = "string, string", tag = "2")]
    pub configs: BTreeMap<String, String>,
}

#[derive(Clone, PartialEq, prost::Message)]
pub(crate) struct Segment {
    #[prost(message, optional, tag = "1")]
    pub id: Option<SegmentId>,
    #[prost(uint64, tag = "2")]
    pub bytes: u64,
    #[prost(uint64, tag = "3")]
    pub references: u64,
    #[prost(uint64, tag = "4")]
    pub since: u64,
    #[prost(uint32, tag = "5")]
    pub level: u32,
    #[prost(bytes = "bytes", optional, tag = "6")]
    pub inline: Option<Bytes>,
    #[prost(bool, tag = "7")]
    pub by_footer: bool,
}

#[derive(Clone, PartialEq, prost::Message)]
pub(crate) struct Topic {
    #[prost(bytes = "vec", tag = "1")]
    pub id: Vec<u8>,
    #[prost(string, tag = "2")]
    pub name: String,
    #[prost(uint32, tag = "3")]
    pub replication_factor: u32,
    #[prost(btree_map = "string, string", tag = "4")]
    pub configs: BTreeMap<String, String>,
    #[prost(message, repeated, tag = "5")]
    pub partitions: Vec<Partition>,
}

#[derive(Clone, PartialEq, prost::Message)]
pub(crate) struct Partition {
    #[prost(int64, tag = "1")]
    pub log_start: i64,
    #[prost(int64, tag = "2")]
    pub high_watermark: i64,
    #[prost(int64, tag = "3")]
    pub first_base: i64,
    #[prost(message, repeated, tag = "4")]
    pub extents: Vec<Extent>,
    #[prost(message, repeated, tag = "5")]
    pub producers: Vec<Producer>,
    #[prost(message, repeated, tag = "7")]
    pub aborted: Vec<Aborted>,
    #[prost(int64, tag = "8")]
    pub cleaned: i64,
    #[prost(message, repeated, tag = "9")]
    pub origins: Vec<Origin>,
}

#[derive(Clone, PartialEq, prost::Message)]
pub(crate) struct Origin {
    #[prost(int64, tag = "1")]
    pub until: i64,
    #[prost(bytes = "vec", tag = "2")]
    pub topic: Vec<u8>,
}

#[derive(Clone, Copy, PartialEq, prost::Message)]
pub(crate) struct Extent {
    #[prost(uint32, tag = "1")]
    pub records: u32,
    #[prost(sint64, tag = "2")]
    pub max_timestamp: i64,
    /// Index into the snapshot's segments.
    #[prost(uint32, tag = "3")]
    pub segment: u32,
    #[prost(uint64, tag = "4")]
    pub position: u64,
    #[prost(uint32, tag = "5")]
    pub stored_bytes: u32,
    #[prost(uint32, tag = "6")]
    pub skip: u32,
    #[prost(uint32, tag = "7")]
    pub bytes: u32,
    /// In place of all but records and timestamp, if it is one.
    #[prost(message, optional, tag = "9")]
    pub marker: Option<Marker>,
    #[prost(bool, tag = "10")]
    pub is_merged: bool,
    /// In place of all but records, if nothing is left.
    #[prost(bool, tag = "11")]
    pub is_gap: bool,
}

#[derive(Clone, Copy, PartialEq, prost::Message)]
pub(crate) struct Marker {
    #[prost(message, optional, tag = "1")]
    pub producer: Option<ProducerIdAndEpoch>,
    #[prost(bool, tag = "2")]
    pub commits: bool,
}

#[derive(Clone, Copy, PartialEq, prost::Message)]
pub(crate) struct Aborted {
    #[prost(int64, tag = "1")]
    pub producer: i64,
    #[prost(int64, tag = "2")]
    pub first: i64,
    #[prost(int64, tag = "3")]
    pub last: i64,
    #[prost(int64, tag = "4")]
    pub stable: i64,
}

#[derive(Clone, PartialEq, prost::Message)]
pub(crate) struct Producer {
    #[prost(int64, tag = "1")]
    pub id: i64,
    #[prost(int32, tag = "2")]
    pub epoch: i32,
    #[prost(int64, tag = "3")]
    pub last_ms: i64,
    #[prost(message, repeated, tag = "4")]
    pub batches: Vec<SeenBatch>,
}

#[derive(Clone, Copy, PartialEq, prost::Message)]
pub(crate) struct SeenBatch {
    #[prost(int32, tag = "1")]
    pub first: i32,
    #[prost(int32, tag = "2")]
    pub last: i32,
    #[prost(int64, tag = "3")]
    pub base: i64,
}
