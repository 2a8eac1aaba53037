//! The protobuf messages of transactions in a snapshot. Tags are for ever.

use crate::command::codec::wire::{CommittedOffset, ProducerIdAndEpoch};

#[derive(Clone, PartialEq, prost::Message)]
pub(crate) struct Transactional {
    #[prost(string, tag = "1")]
    pub id: String,
    #[prost(message, optional, tag = "2")]
    pub producer: Option<ProducerIdAndEpoch>,
    #[prost(message, optional, tag = "3")]
    pub previous: Option<ProducerIdAndEpoch>,
    #[prost(uint32, tag = "4")]
    pub timeout_ms: u32,
    #[prost(uint64, tag = "5")]
    pub transaction: u64,
    #[prost(int64, tag = "6")]
    pub last_ms: i64,
    /// 0 empty, 1 ongoing, 2 committed, 3 aborted.
    #[prost(uint32, tag = "7")]
    pub phase: u32,
    #[prost(message, optional, tag = "8")]
    pub ongoing: Option<Ongoing>,
}

#[derive(Clone, PartialEq, prost::Message)]
pub(crate) struct Ongoing {
    #[prost(int64, tag = "1")]
    pub started_ms: i64,
    #[prost(message, repeated, tag = "2")]
    pub partitions: Vec<OngoingPartition>,
    #[prost(message, repeated, tag = "3")]
    pub groups: Vec<OngoingGroup>,
}

#[derive(Clone, PartialEq, prost::Message)]
pub(crate) struct OngoingPartition {
    #[prost(bytes = "vec", tag = "1")]
    pub topic: Vec<u8>,
    #[prost(int32, tag = "2")]
    pub partition: i32,
    #[prost(int64, optional, tag = "3")]
    pub first: Option<i64>,
}

#[derive(Clone, PartialEq, prost::Message)]
pub(crate) struct OngoingGroup {
    #[prost(string, tag = "1")]
    pub group: String,
    #[prost(message, repeated, tag = "2")]
    pub offsets: Vec<CommittedOffset>,
}
