//! AddPartitionsToTxn: partitions that a transaction will write to, for clients that say so before
//! they do (KIP-98).

use std::collections::BTreeSet;

use odradek_protocol::ResponseError;
use odradek_protocol::id::{ProducerId, TopicPartition};
use odradek_protocol::messages::add_partitions_to_txn_response::{
    AddPartitionsToTxnPartitionResult, AddPartitionsToTxnTopicResult,
};
use odradek_protocol::messages::{AddPartitionsToTxnRequest, AddPartitionsToTxnResponse};
use odradek_storage::command::ProducerIdAndEpoch;

use crate::context::Context;
use crate::error;
use crate::session::Session;
use crate::topics::look_twice;

/// From this version on a client knows PRODUCER_FENCED.
const FENCED: i16 = 2;

pub(crate) async fn handle(
    context: &Context,
    _: &Session,
    version: i16,
    request: AddPartitionsToTxnRequest,
) -> AddPartitionsToTxnResponse {
    let id = request.v3_and_below_transactional_id.as_str();
    let producer = ProducerIdAndEpoch {
        id: ProducerId(request.v3_and_below_producer_id.0),
        epoch: request.v3_and_below_producer_epoch,
    };
    let topics = &request.v3_and_below_topics;
    let mut partitions = Vec::new();
    let mut missing = BTreeSet::new();
    let mut out_of_reach = false;
    for (topic_at, topic) in topics.iter().enumerate() {
        let name = topic.name.as_str();
        let found = look_twice(context.machine(), |state| {
            state.topic_by_name(name).map(|topic| (topic.id, topic.partitions.len()))
        });
        let found = found.await.unwrap_or_else(|_| {
            out_of_reach = true;
            None
        });
        for index in &topic.partitions {
            let exists = |count| usize::try_from(*index).is_ok_and(|index| index < count);
            match found {
                Some((topic, count)) if exists(count) => {
                    partitions.push(TopicPartition { topic, partition: *index });
                }
                _ => {
                    missing.insert((topic_at, *index));
                }
            }
        }
    }
    let code = if id.is_empty() {
        Some(ResponseError::InvalidRequest)
    } else if out_of_reach {
        Some(ResponseError::CoordinatorNotAvailable)
    } else if missing.is_empty() {
        let added = context.transactions.add(id, producer, partitions, Vec::new()).await;
        added.err().map(|refused| error::of_transaction(&refused, version >= FENCED))
    } else {
        None
    };
    let code_of = |topic_at: usize, index: i32| match code {
        Some(code) => code.code(),
        None if missing.contains(&(topic_at, index)) => {
            ResponseError::UnknownTopicOrPartition.code()
        }
        None if missing.is_empty() => 0,
        None => ResponseError::OperationNotAttempted.code(),
    };
    let results = topics.iter().enumerate().map(|(topic_at, topic)| {
        let partitions = topic.partitions.iter().map(|index| {
            AddPartitionsToTxnPartitionResult::default()
                .with_partition_index(*index)
                .with_partition_error_code(code_of(topic_at, *index))
        });
        AddPartitionsToTxnTopicResult::default()
            .with_name(topic.name.clone())
            .with_results_by_partition(partitions.collect())
    });
    AddPartitionsToTxnResponse::default().with_results_by_topic_v3_and_below(results.collect())
}
