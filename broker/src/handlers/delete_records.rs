//! DeleteRecords: partitions begin later from now on (KIP-107).
//!
//! Each partition is a command of its own, all on their way at once; the log decides which offsets
//! there are. What was deleted before is deleted: asked for less, a partition says where it begins.

use std::time::Duration;

use futures::future::join_all;
use odradek_protocol::ResponseError;
use odradek_protocol::id::{Offset, TopicId, TopicPartition};
use odradek_protocol::messages::delete_records_request::{
    DeleteRecordsPartition, DeleteRecordsTopic,
};
use odradek_protocol::messages::delete_records_response::{
    DeleteRecordsPartitionResult, DeleteRecordsTopicResult,
};
use odradek_protocol::messages::{DeleteRecordsRequest, DeleteRecordsResponse};
use odradek_storage::command::{Command, Outcome};
use tokio::time::timeout;

use crate::context::Context;
use crate::error;
use crate::session::Session;
use crate::topics::{catch_up_unless, has_partition};

/// Asks for all there is.
const HIGH_WATERMARK: i64 = -1;

/// Bounds on how long a client may have us wait, in milliseconds. Kafka waits for replicas, for
/// which a client may have no time; we wait for the log.
const TIMEOUT_MS: std::ops::RangeInclusive<i32> = 5000..=10 * 60 * 1000;

pub(crate) async fn handle(
    context: &Context,
    _: &Session,
    _: i16,
    request: DeleteRecordsRequest,
) -> DeleteRecordsResponse {
    let patience = request.timeout_ms.clamp(*TIMEOUT_MS.start(), *TIMEOUT_MS.end());
    let patience = Duration::from_millis(u64::try_from(patience).unwrap_or(0));
    let topics = &request.topics;
    let is_all_there = catch_up_unless(context.machine(), |state| {
        topics.iter().all(|topic| {
            let mut partitions = topic.partitions.iter();
            partitions.all(|it| has_partition(state, topic.name.as_str(), it.partition_index))
        })
    });
    let is_known = is_all_there.await.is_ok();
    let topics = request.topics.into_iter().map(|topic| delete(context, topic, is_known, patience));
    DeleteRecordsResponse::default().with_topics(join_all(topics).await)
}

async fn delete(
    context: &Context,
    asked: DeleteRecordsTopic,
    is_known: bool,
    patience: Duration,
) -> DeleteRecordsTopicResult {
    let DeleteRecordsTopic { name, partitions, .. } = asked;
    let topic = context.machine().read(|state| {
        state.topic_by_name(&name).map(|topic| (topic.id, state.is_only_compacted(topic)))
    });
    let partitions = partitions.iter().map(async |asked| {
        let deleted = match topic {
            // The latest record of every key is to stay.
            Some((_, true)) => Err(ResponseError::PolicyViolation),
            Some((topic, false)) => timeout(patience, delete_before(context, topic, asked))
                .await
                .unwrap_or(Err(ResponseError::RequestTimedOut)),
            None if is_known => Err(ResponseError::UnknownTopicOrPartition),
            // "No" can't be said without the tail of the log.
            None => Err(ResponseError::RequestTimedOut),
        };
        let result =
            DeleteRecordsPartitionResult::default().with_partition_index(asked.partition_index);
        match deleted {
            Ok(first) => result.with_low_watermark(first.0),
            Err(code) => result.with_low_watermark(-1).with_error_code(code.code()),
        }
    });
    let partitions = join_all(partitions).await;
    DeleteRecordsTopicResult::default().with_name(name).with_partitions(partitions)
}

/// Where the partition begins then.
async fn delete_before(
    context: &Context,
    topic: TopicId,
    asked: &DeleteRecordsPartition,
) -> Result<Offset, ResponseError> {
    let command = Command::DeleteRecords {
        partition: TopicPartition { topic, partition: asked.partition_index },
        before: (asked.offset != HIGH_WATERMARK).then_some(Offset(asked.offset)),
    };
    match context.machine().propose(command).await {
        Ok(Outcome::RecordsDeleted(first)) => Ok(first),
        Ok(Outcome::Rejected(rejection)) => Err(error::of_rejection(&rejection)),
        // Applied before, and nobody is left who knows what came of it.
        Ok(_) => Err(ResponseError::RequestTimedOut),
        Err(failure) => Err(error::of_deletion(&failure)),
    }
}
