//! OffsetDelete: committed offsets of topics that nobody in the group reads any more (KIP-496).

use std::collections::BTreeMap;

use odradek_protocol::ResponseError;
use odradek_protocol::id::TopicPartition;
use odradek_protocol::messages::offset_delete_response::{
    OffsetDeleteResponsePartition, OffsetDeleteResponseTopic,
};
use odradek_protocol::messages::{OffsetDeleteRequest, OffsetDeleteResponse};

use crate::context::Context;
use crate::error;
use crate::session::Session;
use crate::topics::look_twice;

pub(crate) async fn handle(
    context: &Context,
    _: &Session,
    _: i16,
    request: OffsetDeleteRequest,
) -> OffsetDeleteResponse {
    let mut ids = BTreeMap::new();
    for topic in &request.topics {
        let name = topic.name.as_str();
        let found = look_twice(context.machine(), |state| {
            state.topic_by_name(name).map(|topic| (topic.id, topic.partitions.len()))
        });
        if let Ok(Some(found)) = found.await {
            ids.insert(topic.name.clone(), found);
        }
    }
    let known = |name, partition: i32| {
        let (topic, partitions) = *ids.get(name)?;
        let exists = usize::try_from(partition).is_ok_and(|index| index < partitions);
        exists.then_some(TopicPartition { topic, partition })
    };
    let asked = request.topics.iter().flat_map(|topic| {
        let partitions = topic.partitions.iter();
        partitions.filter_map(|partition| known(&topic.name, partition.partition_index))
    });
    let deleted = match context.groups.delete_offsets(&request.group_id, asked.collect()).await {
        Ok(deleted) => deleted,
        Err(refused) => {
            let code = error::of_group(&refused).code();
            return OffsetDeleteResponse::default().with_error_code(code);
        }
    };
    let topics = request.topics.iter().map(|topic| {
        let partitions = topic.partitions.iter().map(|partition| {
            let index = partition.partition_index;
            let code = match known(&topic.name, index).and_then(|it| deleted.get(&it)) {
                Some(Ok(())) => 0,
                Some(Err(refused)) => error::of_group(refused).code(),
                None => ResponseError::UnknownTopicOrPartition.code(),
            };
            OffsetDeleteResponsePartition::default()
                .with_partition_index(index)
                .with_error_code(code)
        });
        OffsetDeleteResponseTopic::default()
            .with_name(topic.name.clone())
            .with_partitions(partitions.collect())
    });
    OffsetDeleteResponse::default().with_topics(topics.collect())
}
