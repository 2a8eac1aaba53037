//! DescribeLogDirs: how many bytes each partition has in the object store (KIP-113, KIP-827).
//!
//! The store is the one directory of all brokers. Clients ask every broker and add up what they
//! hear, so each partition is shown by one broker only: the one that is named as its leader to
//! clients of no zone.

use odradek_protocol::ResponseError;
use odradek_protocol::messages::describe_log_dirs_request::DescribableLogDirTopic;
use odradek_protocol::messages::describe_log_dirs_response::{
    DescribeLogDirsPartition, DescribeLogDirsResult, DescribeLogDirsTopic,
};
use odradek_protocol::messages::{
    BrokerId, DescribeLogDirsRequest, DescribeLogDirsResponse, TopicName,
};
use odradek_storage::state::State;
use odradek_storage::state::topics::Topic;

use crate::context::Context;
use crate::directory::{self, Listed};
use crate::leadership;
use crate::session::Session;
use crate::topics::catch_up_unless;

/// What stands for an amount that is not known: a store has neither a size nor an end.
const UNKNOWN_BYTES: i64 = -1;

pub(crate) async fn handle(
    context: &Context,
    session: &Session,
    _: i16,
    request: DescribeLogDirsRequest,
) -> DescribeLogDirsResponse {
    let store = DescribeLogDirsResult::default()
        .with_log_dir(context.config.store.clone().into())
        .with_total_bytes(UNKNOWN_BYTES)
        .with_usable_bytes(UNKNOWN_BYTES);
    let asked = request.topics.as_deref();
    let all_known = |state: &State| {
        let is_known = |it: &DescribableLogDirTopic| state.topic_by_name(&it.topic.0).is_some();
        asked.unwrap_or_default().iter().all(is_known)
    };
    let result = match catch_up_unless(context.machine(), all_known).await {
        // What is not there even now has no bytes, and is not shown.
        Ok(()) => {
            let topics = context.machine().read(|state| {
                let brokers = directory::listed(state, session);
                led(state, &brokers, BrokerId(context.node_id().0), asked)
            });
            store.with_topics(topics)
        }
        Err(_) => store.with_error_code(ResponseError::KafkaStorageError.code()),
    };
    DescribeLogDirsResponse::default().with_results(vec![result])
}

/// The partitions that `this` is named as leader of, among those that are asked for.
fn led(
    state: &State,
    brokers: &[Listed],
    this: BrokerId,
    asked: Option<&[DescribableLogDirTopic]>,
) -> Vec<DescribeLogDirsTopic> {
    let describe = |topic: &Topic, asked: Option<&[i32]>| {
        let partitions = (0_i32..).zip(&topic.partitions).filter(|(index, _)| {
            asked.is_none_or(|asked| asked.contains(index))
                && leadership::named(brokers, topic, *index, None).first() == Some(&this)
        });
        let partitions = partitions.map(|(index, partition)| {
            DescribeLogDirsPartition::default()
                .with_partition_index(index)
                .with_partition_size(i64::try_from(partition.bytes()).unwrap_or(i64::MAX))
        });
        DescribeLogDirsTopic::default()
            .with_name(TopicName(topic.name.clone().into()))
            .with_partitions(partitions.collect())
    };
    let topics: Vec<_> = match asked {
        None => state.topics().map(|topic| describe(topic, None)).collect(),
        Some(asked) => asked
            .iter()
            .filter_map(|it| {
                Some(describe(state.topic_by_name(&it.topic.0)?, Some(&it.partitions)))
            })
            .collect(),
    };
    topics.into_iter().filter(|topic| !topic.partitions.is_empty()).collect()
}
