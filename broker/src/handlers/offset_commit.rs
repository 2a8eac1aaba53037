//! OffsetCommit, for consumers that assign their partitions themselves.
//!
//! Groups with members come later: whoever claims to be a member is not known here.

use std::collections::BTreeMap;

use odradek_protocol::ResponseError;
use odradek_protocol::id::{Offset, TopicPartition};
use odradek_protocol::messages::offset_commit_response::{
    OffsetCommitResponsePartition, OffsetCommitResponseTopic,
};
use odradek_protocol::messages::{OffsetCommitRequest, OffsetCommitResponse};
use odradek_storage::command::{Command, CommittedOffset, Outcome};

use crate::context::Context;
use crate::error;
use crate::session::Session;
use crate::topics::look_twice;

/// Longest metadata that is kept with an offset, in bytes (`offset.metadata.max.bytes`).
const METADATA_BYTES_MAX: usize = 4096;

pub(crate) async fn handle(
    context: &Context,
    _: &Session,
    _: i16,
    request: OffsetCommitRequest,
) -> OffsetCommitResponse {
    let refused = refuse(&request);
    let mut offsets = Vec::new();
    let mut codes = BTreeMap::new();
    for (topic_at, topic) in request.topics.iter().enumerate() {
        let name = topic.name.as_str();
        let found = look_twice(context.machine(), |state| {
            state.topic_by_name(name).map(|topic| (topic.id, topic.partitions.len()))
        });
        let found = if refused.is_some() { Ok(None) } else { found.await };
        for (at, asked) in topic.partitions.iter().enumerate() {
            let metadata = asked.committed_metadata.as_ref().map_or("", |it| it.as_str());
            let index = asked.partition_index;
            let exists = |partitions| usize::try_from(index).is_ok_and(|index| index < partitions);
            let code = match (refused, &found) {
                (Some(code), _) => code,
                (None, Err(_)) => ResponseError::CoordinatorNotAvailable,
                (None, _) if metadata.len() > METADATA_BYTES_MAX => {
                    ResponseError::OffsetMetadataTooLarge
                }
                (None, Ok(Some((topic, partitions)))) if exists(*partitions) => {
                    offsets.push(CommittedOffset {
                        partition: TopicPartition { topic: *topic, partition: index },
                        offset: Offset(asked.committed_offset.max(-1)),
                        leader_epoch: asked.committed_leader_epoch,
                        metadata: metadata.to_owned(),
                    });
                    continue;
                }
                (None, Ok(_)) => ResponseError::UnknownTopicOrPartition,
            };
            codes.insert((topic_at, at), code.code());
        }
    }
    let group = request.group_id.as_str().to_owned();
    let committed = commit(context, group, offsets).await;
    let topics = request.topics.iter().enumerate().map(|(topic_at, topic)| {
        let partitions = topic.partitions.iter().enumerate().map(|(at, partition)| {
            OffsetCommitResponsePartition::default()
                .with_partition_index(partition.partition_index)
                .with_error_code(codes.get(&(topic_at, at)).copied().unwrap_or(committed))
        });
        OffsetCommitResponseTopic::default()
            .with_name(topic.name.clone())
            .with_partitions(partitions.collect())
    });
    OffsetCommitResponse::default().with_topics(topics.collect())
}

fn refuse(request: &OffsetCommitRequest) -> Option<ResponseError> {
    if request.group_id.is_empty() {
        return Some(ResponseError::InvalidGroupId);
    }
    let is_member = request.generation_id_or_member_epoch >= 0 || !request.member_id.is_empty();
    is_member.then_some(ResponseError::UnknownMemberId)
}

async fn commit(context: &Context, group: String, offsets: Vec<CommittedOffset>) -> i16 {
    if offsets.is_empty() {
        return 0;
    }
    match context.machine().propose(Command::CommitOffsets { group, offsets }).await {
        Ok(Outcome::Rejected(rejection)) => error::of_rejection(&rejection).code(),
        Ok(_) => 0,
        Err(failure) => error::of_commit(&failure).code(),
    }
}
