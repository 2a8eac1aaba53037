//! OffsetFetch: committed offsets.
//!
//! Answered only after following the log to its tail: what was acknowledged on one broker is never
//! answered older by another.

use std::collections::BTreeMap;

use odradek_protocol::ResponseError;
use odradek_protocol::id::{PartitionIndex, TopicPartition};
use odradek_protocol::messages::offset_fetch_request::OffsetFetchRequestTopics;
use odradek_protocol::messages::offset_fetch_response::{
    OffsetFetchResponseGroup, OffsetFetchResponsePartition, OffsetFetchResponsePartitions,
    OffsetFetchResponseTopic, OffsetFetchResponseTopics,
};
use odradek_protocol::messages::{OffsetFetchRequest, OffsetFetchResponse, TopicName};
use odradek_storage::state::State;
use odradek_storage::state::groups::Position;

use crate::context::Context;
use crate::error;
use crate::session::Session;

/// Topics and partitions asked for; `None` means all.
type Asked = Option<Vec<(TopicName, Vec<PartitionIndex>)>>;

/// What is known of them.
type Found = Vec<(TopicName, Vec<(PartitionIndex, Committed)>)>;

/// What is known of a partition.
enum Committed {
    /// Nothing was committed.
    None,
    /// The position.
    At(Position),
    /// A transaction that is open has a position that may become the group's (KIP-447).
    Unstable,
}

pub(crate) async fn handle(
    context: &Context,
    _: &Session,
    version: i16,
    request: OffsetFetchRequest,
) -> OffsetFetchResponse {
    let barrier = context.machine().barrier().await;
    let code = barrier.map_or(ResponseError::CoordinatorNotAvailable.code(), |()| 0);
    let stable = request.require_stable;
    let look = |group: &str, asked: Asked| {
        if code != 0 {
            return Vec::new();
        }
        context.machine().read(|state| find(state, group, asked, stable))
    };
    if version >= 8 {
        let groups = request.groups.into_iter().map(|group| {
            let names = |it: Vec<_>| {
                let pair = |topic: OffsetFetchRequestTopics| (topic.name, topic.partition_indexes);
                it.into_iter().map(pair).collect()
            };
            let name = group.group_id.as_str();
            let member = group.member_id.as_ref().map(|it| it.as_str()).filter(|it| !it.is_empty());
            let checked = context.groups.check_consumer(name, member, group.member_epoch);
            let code = match checked {
                Err(refused) if code == 0 => error::of_group(&refused).code(),
                _ => code,
            };
            let found = match code {
                0 => look(name, group.topics.map(names)),
                _ => Vec::new(),
            };
            let topics = found.into_iter().map(|(name, partitions)| {
                OffsetFetchResponseTopics::default()
                    .with_name(name)
                    .with_partitions(partitions.into_iter().map(in_group).collect())
            });
            OffsetFetchResponseGroup::default()
                .with_group_id(group.group_id)
                .with_error_code(code)
                .with_topics(topics.collect())
        });
        return OffsetFetchResponse::default().with_groups(groups.collect());
    }
    let asked = request.topics.map(|topics| {
        topics.into_iter().map(|topic| (topic.name, topic.partition_indexes)).collect()
    });
    let found = look(request.group_id.as_str(), asked);
    let topics = found.into_iter().map(|(name, partitions)| {
        let partitions = partitions.into_iter().map(|it| alone(it, version));
        OffsetFetchResponseTopic::default().with_name(name).with_partitions(partitions.collect())
    });
    let response = OffsetFetchResponse::default().with_topics(topics.collect());
    if version >= 2 { response.with_error_code(code) } else { response }
}

fn find(state: &State, group: &str, asked: Asked, stable: bool) -> Found {
    let positions = state.groups().positions(group);
    let Some(asked) = asked else { return all(state, group, stable) };
    let topic = |(name, indexes): (TopicName, Vec<PartitionIndex>)| {
        let id = state.topic_by_name(name.as_str()).map(|topic| topic.id);
        let committed = |partition: PartitionIndex| {
            let at = id.map(|topic| TopicPartition { topic, partition });
            let found = at.and_then(|at| positions?.get(&at));
            let is_staged = at.is_some_and(|at| state.transactions().is_staged(group, at));
            (partition, Committed::of(found, stable && is_staged))
        };
        (name, indexes.into_iter().map(committed).collect())
    };
    asked.into_iter().map(topic).collect()
}

fn all(state: &State, group: &str, stable: bool) -> Found {
    let mut topics: BTreeMap<String, Vec<(PartitionIndex, Committed)>> = BTreeMap::new();
    for (at, position) in state.groups().positions(group).into_iter().flatten() {
        if let Some(topic) = state.topic(at.topic) {
            let is_unstable = stable && state.transactions().is_staged(group, *at);
            let found = (at.partition, Committed::of(Some(position), is_unstable));
            topics.entry(topic.name.clone()).or_default().push(found);
        }
    }
    topics.into_iter().map(|(name, found)| (TopicName(name.into()), found)).collect()
}

impl Committed {
    fn of(found: Option<&Position>, is_unstable: bool) -> Self {
        match found {
            _ if is_unstable => Self::Unstable,
            Some(position) => Self::At(position.clone()),
            None => Self::None,
        }
    }

    /// Offset, leader epoch, metadata and error code.
    fn show(self) -> (i64, i32, String, i16) {
        match self {
            Self::At(position) => (position.offset.0, position.leader_epoch, position.metadata, 0),
            Self::None => (-1, -1, String::new(), 0),
            Self::Unstable => (-1, -1, String::new(), ResponseError::UnstableOffsetCommit.code()),
        }
    }
}

fn in_group((index, committed): (PartitionIndex, Committed)) -> OffsetFetchResponsePartitions {
    let (offset, epoch, metadata, code) = committed.show();
    OffsetFetchResponsePartitions::default()
        .with_partition_index(index)
        .with_committed_offset(offset)
        .with_committed_leader_epoch(epoch)
        .with_metadata(Some(metadata.into()))
        .with_error_code(code)
}

fn alone(
    (index, committed): (PartitionIndex, Committed),
    version: i16,
) -> OffsetFetchResponsePartition {
    let (offset, epoch, metadata, code) = committed.show();
    let result = OffsetFetchResponsePartition::default()
        .with_partition_index(index)
        .with_committed_offset(offset)
        .with_metadata(Some(metadata.into()))
        .with_error_code(code);
    if version >= 5 { result.with_committed_leader_epoch(epoch) } else { result }
}
