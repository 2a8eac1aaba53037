//! OffsetCommit: how far the consumers of a group have come.

use odradek_protocol::ResponseError;
use odradek_protocol::messages::offset_commit_response::{
    OffsetCommitResponsePartition, OffsetCommitResponseTopic,
};
use odradek_protocol::messages::{OffsetCommitRequest, OffsetCommitResponse};
use odradek_storage::command::{CommittedOffset, Committer};

use crate::asked_offsets::{AskedOffset, CheckedOffsets};
use crate::context::Context;
use crate::error;
use crate::session::Session;

/// From this version on a client understands what the consumer protocol has to say (KIP-848).
const CONSUMER_PROTOCOL: i16 = 9;

/// Versions in which a client could say how long its offsets are kept.
const RETENTION: std::ops::RangeInclusive<i16> = 2..=4;

pub(crate) async fn handle(
    context: &Context,
    _: &Session,
    version: i16,
    request: OffsetCommitRequest,
) -> OffsetCommitResponse {
    let refused = request.group_id.is_empty().then_some(ResponseError::InvalidGroupId);
    let asked = request.topics.iter().map(|topic| {
        let asked = topic.partitions.iter().map(|it| AskedOffset {
            partition: it.partition_index,
            offset: it.committed_offset,
            leader_epoch: it.committed_leader_epoch,
            metadata: it.committed_metadata.as_ref(),
        });
        (topic.name.as_str(), asked.collect())
    });
    let mut checked = CheckedOffsets::of(context, asked.collect(), refused).await;
    let offsets = std::mem::take(&mut checked.offsets);
    let committed =
        if offsets.is_empty() { 0 } else { commit(context, version, &request, offsets).await };
    let topics = request.topics.iter().enumerate().map(|(topic_at, topic)| {
        let partitions = topic.partitions.iter().enumerate().map(|(at, partition)| {
            OffsetCommitResponsePartition::default()
                .with_partition_index(partition.partition_index)
                .with_error_code(checked.code(topic_at, at, committed))
        });
        OffsetCommitResponseTopic::default()
            .with_name(topic.name.clone())
            .with_partitions(partitions.collect())
    });
    OffsetCommitResponse::default().with_topics(topics.collect())
}

async fn commit(
    context: &Context,
    version: i16,
    request: &OffsetCommitRequest,
    offsets: Vec<CommittedOffset>,
) -> i16 {
    let generation = request.generation_id_or_member_epoch;
    let is_simple = generation < 0 && request.member_id.is_empty();
    let committer = (!is_simple).then(|| Committer {
        member: request.member_id.as_str().to_owned(),
        instance_id: request.group_instance_id.as_ref().map(|it| it.as_str().to_owned()),
        generation,
    });
    let retention_ms = RETENTION.contains(&version).then_some(request.retention_time_ms);
    let retention_ms = retention_ms.filter(|retention| *retention >= 0);
    let group = request.group_id.as_str();
    if committer.is_some() && version < CONSUMER_PROTOCOL && speaks_consumer(context, group) {
        return ResponseError::UnsupportedVersion.code();
    }
    let committed = context.groups.commit(group, committer, retention_ms, offsets).await;
    let refused = committed.map_or_else(|refused| Some(error::of_group(&refused)), |()| None);
    let code = match refused {
        Some(ResponseError::GroupIdNotFound) if version < CONSUMER_PROTOCOL => {
            ResponseError::IllegalGeneration
        }
        Some(code) => code,
        None => return 0,
    };
    code.code()
}

/// Whether there are members of the consumer protocol.
fn speaks_consumer(context: &Context, group: &str) -> bool {
    context.machine().read(|state| {
        let group = state.groups().get(group);
        group.is_some_and(|group| group.consumer().is_some() && group.has_members())
    })
}
