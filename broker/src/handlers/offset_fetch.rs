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

/// What is known of them; no position where none was committed.
type Found = Vec<(TopicName, Vec<(PartitionIndex, Option<Position>)>)>;

pub(crate) async fn handle(
    context: &Context,
    _: &Session,
    version: i16,
    request: OffsetFetchRequest,
) -> OffsetFetchResponse {
    let barrier = context.machine().barrier().await;
    let code = barrier.map_or(ResponseError::CoordinatorNotAvailable.code(), |()| 0);
    let look = |group: &str, asked: Asked| {
        if code != 0 { Vec::new() } else { context.machine().read(|s| find(s, group, asked)) }
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

fn find(state: &State, group: &str, asked: Asked) -> Found {
    let positions = state.groups().positions(group);
    let Some(asked) = asked else { return all(state, group) };
    let topic = |(name, indexes): (TopicName, Vec<PartitionIndex>)| {
        let id = state.topic_by_name(name.as_str()).map(|topic| topic.id);
        let position = |partition: PartitionIndex| {
            let found = id.and_then(|topic| positions?.get(&TopicPartition { topic, partition }));
            (partition, found.cloned())
        };
        (name, indexes.into_iter().map(position).collect())
    };
    asked.into_iter().map(topic).collect()
}

fn all(state: &State, group: &str) -> Found {
    let mut topics: BTreeMap<String, Vec<(PartitionIndex, Option<Position>)>> = BTreeMap::new();
    for (partition, position) in state.groups().positions(group).into_iter().flatten() {
        if let Some(topic) = state.topic(partition.topic) {
            let found = (partition.partition, Some(position.clone()));
            topics.entry(topic.name.clone()).or_default().push(found);
        }
    }
    topics.into_iter().map(|(name, found)| (TopicName(name.into()), found)).collect()
}

fn in_group(
    (index, position): (PartitionIndex, Option<Position>),
) -> OffsetFetchResponsePartitions {
    let result = OffsetFetchResponsePartitions::default().with_partition_index(index);
    match position {
        Some(position) => result
            .with_committed_offset(position.offset.0)
            .with_committed_leader_epoch(position.leader_epoch)
            .with_metadata(Some(position.metadata.into())),
        None => result
            .with_committed_offset(-1)
            .with_committed_leader_epoch(-1)
            .with_metadata(Some("".into())),
    }
}

fn alone(
    (index, position): (PartitionIndex, Option<Position>),
    version: i16,
) -> OffsetFetchResponsePartition {
    let result = OffsetFetchResponsePartition::default().with_partition_index(index);
    let (offset, epoch, metadata) =
        position.map_or((-1, -1, String::new()), |it| (it.offset.0, it.leader_epoch, it.metadata));
    let result = result.with_committed_offset(offset).with_metadata(Some(metadata.into()));
    if version >= 5 { result.with_committed_leader_epoch(epoch) } else { result }
}
