//! The protobuf messages of transactions, in entries and in snapshots. Tags are for ever.

use super::{CommittedOffset, Committer, TopicPartitions};

#[derive(Clone, PartialEq, prost::Message)]
pub(crate) struct ChangeTransaction {
    #[prost(string, tag = "1")]
    pub transactional_id: String,
    #[prost(oneof = "TransactionChange", tags = "2, 3, 4, 5, 6")]
    pub change: Option<TransactionChange>,
}

#[derive(Clone, PartialEq, prost::Oneof)]
pub(crate) enum TransactionChange {
    #[prost(message, tag = "2")]
    InitProducer(InitProducer),
    #[prost(message, tag = "3")]
    Add(AddToTransaction),
    #[prost(message, tag = "4")]
    StageOffsets(StageOffsets),
    #[prost(message, tag = "5")]
    End(EndTransaction),
    #[prost(message, tag = "6")]
    Abort(AbortTransaction),
}

#[derive(Clone, Copy, PartialEq, prost::Message)]
pub(crate) struct ProducerIdAndEpoch {
    #[prost(int64, tag = "1")]
    pub id: i64,
    #[prost(int32, tag = "2")]
    pub epoch: i32,
}

#[derive(Clone, PartialEq, prost::Message)]
pub(crate) struct InitProducer {
    #[prost(uint32, tag = "1")]
    pub timeout_ms: u32,
    #[prost(message, optional, tag = "2")]
    pub expected: Option<ProducerIdAndEpoch>,
}

#[derive(Clone, PartialEq, prost::Message)]
pub(crate) struct AddToTransaction {
    #[prost(message, optional, tag = "1")]
    pub producer: Option<ProducerIdAndEpoch>,
    #[prost(uint64, tag = "2")]
    pub transaction: u64,
    #[prost(message, repeated, tag = "3")]
    pub partitions: Vec<TopicPartitions>,
    #[prost(string, repeated, tag = "4")]
    pub groups: Vec<String>,
}

#[derive(Clone, PartialEq, prost::Message)]
pub(crate) struct StageOffsets {
    #[prost(message, optional, tag = "1")]
    pub producer: Option<ProducerIdAndEpoch>,
    #[prost(uint64, tag = "2")]
    pub transaction: u64,
    #[prost(bool, tag = "3")]
    pub is_implicit: bool,
    #[prost(string, tag = "4")]
    pub group: String,
    #[prost(uint64, tag = "5")]
    pub office: u64,
    #[prost(message, optional, tag = "6")]
    pub committer: Option<Committer>,
    #[prost(message, repeated, tag = "7")]
    pub offsets: Vec<CommittedOffset>,
}

#[derive(Clone, PartialEq, prost::Message)]
pub(crate) struct EndTransaction {
    #[prost(message, optional, tag = "1")]
    pub producer: Option<ProducerIdAndEpoch>,
    #[prost(uint64, tag = "2")]
    pub transaction: u64,
    #[prost(bool, tag = "3")]
    pub commits: bool,
    #[prost(bool, tag = "4")]
    pub bumps_epoch: bool,
}

#[derive(Clone, Copy, PartialEq, prost::Message)]
pub(crate) struct AbortTransaction {
    #[prost(uint64, tag = "1")]
    pub transaction: u64,
}
