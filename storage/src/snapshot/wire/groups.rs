//! The protobuf messages of groups in a snapshot. Tags are for ever.

use crate::command::codec::wire::{ClassicMember, Current, Subscription, TopicPartitions};

#[derive(Clone, PartialEq, prost::Message)]
pub(crate) struct Group {
    #[prost(string, tag = "1")]
    pub name: String,
    #[prost(message, repeated, tag = "2")]
    pub positions: Vec<Position>,
    #[prost(uint64, tag = "3")]
    pub revision: u64,
    #[prost(int64, tag = "4")]
    pub empty_since_ms: i64,
    #[prost(oneof = "Membership", tags = "5, 6")]
    pub membership: Option<Membership>,
}

#[derive(Clone, PartialEq, prost::Oneof)]
pub(crate) enum Membership {
    #[prost(message, tag = "5")]
    Classic(Classic),
    #[prost(message, tag = "6")]
    Consumer(Consumer),
}

#[derive(Clone, PartialEq, prost::Message)]
pub(crate) struct Position {
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
    #[prost(int64, tag = "6")]
    pub committed_ms: i64,
    #[prost(int64, optional, tag = "7")]
    pub expires_ms: Option<i64>,
}

#[derive(Clone, PartialEq, prost::Message)]
pub(crate) struct Classic {
    #[prost(string, tag = "1")]
    pub protocol_type: String,
    #[prost(int32, tag = "2")]
    pub generation: i32,
    #[prost(string, optional, tag = "3")]
    pub protocol: Option<String>,
    #[prost(string, optional, tag = "4")]
    pub leader: Option<String>,
    #[prost(bool, tag = "5")]
    pub is_assigned: bool,
    #[prost(message, repeated, tag = "6")]
    pub members: Vec<NamedMember>,
    #[prost(message, repeated, tag = "7")]
    pub staged: Vec<NamedMember>,
}

/// Without a member: a staged departure.
#[derive(Clone, PartialEq, prost::Message)]
pub(crate) struct NamedMember {
    #[prost(string, tag = "1")]
    pub id: String,
    #[prost(message, optional, tag = "2")]
    pub member: Option<ClassicMember>,
}

#[derive(Clone, PartialEq, prost::Message)]
pub(crate) struct Consumer {
    #[prost(int32, tag = "1")]
    pub epoch: i32,
    #[prost(fixed64, tag = "2")]
    pub metadata_hash: u64,
    #[prost(int32, tag = "3")]
    pub target_epoch: i32,
    #[prost(message, repeated, tag = "4")]
    pub members: Vec<ConsumerMember>,
}

#[derive(Clone, PartialEq, prost::Message)]
pub(crate) struct ConsumerMember {
    #[prost(string, tag = "1")]
    pub id: String,
    #[prost(message, optional, tag = "2")]
    pub subscription: Option<Subscription>,
    #[prost(message, repeated, tag = "3")]
    pub target: Vec<TopicPartitions>,
    #[prost(message, optional, tag = "4")]
    pub current: Option<Current>,
}
