//! OffsetForLeaderEpoch: where the log of an epoch ends (KIP-101, KIP-320).
//!
//! Nobody leads here, so there is one epoch, 0, and it ends where the log does.

use odradek_protocol::ResponseError;
use odradek_protocol::id::TopicPartition;
use odradek_protocol::messages::offset_for_leader_epoch_response::{
    EpochEndOffset, OffsetForLeaderTopicResult,
};
use odradek_protocol::messages::{OffsetForLeaderEpochRequest, OffsetForLeaderEpochResponse};

use crate::context::Context;
use crate::session::Session;

pub(crate) async fn handle(
    context: &Context,
    _: &Session,
    _: i16,
    request: OffsetForLeaderEpochRequest,
) -> OffsetForLeaderEpochResponse {
    // An end that is too low would look to the client as if the log had been cut.
    let barrier = context.machine().barrier().await;
    let topics = request.topics.into_iter().map(|topic| {
        let id =
            context.machine().read(|state| Some(state.topic_by_name(topic.topic.as_str())?.id));
        let partitions = topic.partitions.iter().map(|asked| {
            let partition = asked.partition;
            let result = EpochEndOffset::default().with_partition(partition);
            if barrier.is_err() {
                return result.with_error_code(ResponseError::OffsetNotAvailable.code());
            }
            let end = id.and_then(|topic| {
                let partition = TopicPartition { topic, partition };
                context.machine().read(|state| state.high_watermark(partition))
            });
            match end {
                Some(end) => result.with_leader_epoch(0).with_end_offset(end.0),
                None => result.with_error_code(ResponseError::UnknownTopicOrPartition.code()),
            }
        });
        let partitions = partitions.collect();
        OffsetForLeaderTopicResult::default().with_topic(topic.topic).with_partitions(partitions)
    });
    OffsetForLeaderEpochResponse::default().with_topics(topics.collect())
}
