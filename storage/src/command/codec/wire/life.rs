//! What commands about the life of data carry, as stored.

use std::collections::BTreeMap;

use bytes::Bytes;

use super::{DeleteRecords, FooterRef, Run, SegmentId};

#[derive(Clone, Copy, PartialEq, prost::Message)]
pub(crate) struct RaiseHorizon {
    #[prost(uint64, tag = "1")]
    pub to: u64,
}

#[derive(Clone, PartialEq, prost::Message)]
pub(crate) struct ForgetSegments {
    #[prost(message, repeated, tag = "1")]
    pub segments: Vec<SegmentId>,
}

#[derive(Clone, PartialEq, prost::Message)]
pub(crate) struct CommitInline {
    #[prost(message, optional, tag = "1")]
    pub segment: Option<SegmentId>,
    #[prost(bytes = "bytes", tag = "2")]
    pub content: Bytes,
    #[prost(message, repeated, tag = "3")]
    pub runs: Vec<Run>,
}

#[derive(Clone, PartialEq, prost::Message)]
pub(crate) struct ReplaceExtents {
    #[prost(message, optional, tag = "1")]
    pub segment: Option<SegmentId>,
    #[prost(uint64, tag = "2")]
    pub bytes: u64,
    #[prost(uint32, tag = "3")]
    pub level: u32,
    #[prost(message, repeated, tag = "4")]
    pub replacements: Vec<Replacement>,
}

#[derive(Clone, Copy, PartialEq, prost::Message)]
pub(crate) struct ReplaceByFooter {
    #[prost(message, optional, tag = "1")]
    pub footer: Option<FooterRef>,
    #[prost(uint32, tag = "2")]
    pub level: u32,
}

/// What stands in a footer.
#[derive(Clone, PartialEq, prost::Message)]
pub(crate) struct Replacements {
    #[prost(message, repeated, tag = "1")]
    pub replacements: Vec<Replacement>,
}

#[derive(Clone, PartialEq, prost::Message)]
pub(crate) struct Replacement {
    #[prost(bytes = "vec", tag = "1")]
    pub topic: Vec<u8>,
    #[prost(int32, tag = "2")]
    pub partition: i32,
    #[prost(int64, tag = "3")]
    pub from: i64,
    #[prost(int64, tag = "4")]
    pub to: i64,
    #[prost(fixed64, tag = "5")]
    pub inputs: u64,
    #[prost(message, repeated, tag = "6")]
    pub extents: Vec<NewExtent>,
    #[prost(int64, optional, tag = "7")]
    pub cleaned: Option<i64>,
}

#[derive(Clone, Copy, PartialEq, prost::Message)]
pub(crate) struct NewExtent {
    #[prost(uint32, tag = "1")]
    pub records: u32,
    #[prost(sint64, tag = "2")]
    pub max_timestamp: i64,
    #[prost(message, optional, tag = "3")]
    pub block: Option<NewBlock>,
}

#[derive(Clone, Copy, PartialEq, prost::Message)]
pub(crate) struct NewBlock {
    #[prost(uint64, tag = "1")]
    pub position: u64,
    #[prost(uint32, tag = "2")]
    pub stored_bytes: u32,
    #[prost(uint32, tag = "3")]
    pub bytes: u32,
}

#[derive(Clone, PartialEq, prost::Message)]
pub(crate) struct BranchTopic {
    #[prost(bytes = "vec", tag = "1")]
    pub topic: Vec<u8>,
    #[prost(string, tag = "2")]
    pub name: String,
    #[prost(uint32, tag = "3")]
    pub replication_factor: u32,
    #[prost(btree_map = "string, string", tag = "4")]
    pub configs: BTreeMap<String, String>,
    #[prost(bytes = "vec", tag = "5")]
    pub of: Vec<u8>,
    #[prost(message, repeated, tag = "6")]
    pub ends: Vec<BranchEnd>,
}

#[derive(Clone, Copy, PartialEq, prost::Message)]
pub(crate) struct BranchEnd {
    /// None for the last stable offset.
    #[prost(int64, optional, tag = "1")]
    pub at: Option<i64>,
}

#[derive(Clone, PartialEq, prost::Message)]
pub(crate) struct ExpireRecords {
    #[prost(message, repeated, tag = "1")]
    pub partitions: Vec<DeleteRecords>,
}

#[derive(Clone, PartialEq, prost::Message)]
pub(crate) struct PurgeTopics {
    #[prost(bytes = "vec", repeated, tag = "1")]
    pub topics: Vec<Vec<u8>>,
}
