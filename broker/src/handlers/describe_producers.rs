//! DescribeProducers: who writes to a partition, and since where a transaction is open in it
//! (KIP-664).

use odradek_protocol::ResponseError;
use odradek_protocol::id::{Offset, ProducerId, TopicPartition};
use odradek_protocol::messages::describe_producers_response::{
    PartitionResponse, ProducerState, TopicResponse,
};
use odradek_protocol::messages::{self, DescribeProducersRequest, DescribeProducersResponse};
use odradek_storage::state::partition::Partition;
use odradek_storage::state::producers::Producer;

use crate::context::Context;
use crate::session::Session;

pub(crate) async fn handle(
    context: &Context,
    _: &Session,
    _: i16,
    request: DescribeProducersRequest,
) -> DescribeProducersResponse {
    let is_at_tail = context.machine().barrier().await.is_ok();
    let topics = request.topics.into_iter().map(|topic| {
        let partitions = topic.partition_indexes.iter().map(|index| {
            let shown = PartitionResponse::default().with_partition_index(*index);
            let producers = context.machine().read(|state| {
                let topic = state.topic_by_name(topic.name.as_str())?.id;
                state.partition(TopicPartition { topic, partition: *index }).map(show)
            });
            let failed = |code: ResponseError| {
                shown
                    .clone()
                    .with_error_code(code.code())
                    .with_error_message(Some(code.to_string().into()))
            };
            match producers {
                _ if !is_at_tail => failed(ResponseError::NotLeaderOrFollower),
                Some(producers) => shown.with_active_producers(producers),
                None => failed(ResponseError::UnknownTopicOrPartition),
            }
        });
        let partitions = partitions.collect();
        TopicResponse::default().with_name(topic.name).with_partitions(partitions)
    });
    DescribeProducersResponse::default().with_topics(topics.collect())
}

fn show(partition: &Partition) -> Vec<ProducerState> {
    let open = |id: &ProducerId| -> Option<Offset> {
        let mut open = partition.open_transactions().iter();
        open.find_map(|(first, producer)| (producer == id).then_some(*first))
    };
    let producer = |(id, producer): (&ProducerId, &Producer)| {
        ProducerState::default()
            .with_producer_id(messages::ProducerId(id.0))
            .with_producer_epoch(i32::from(producer.epoch))
            .with_last_sequence(producer.batches.back().map_or(-1, |batch| batch.last))
            .with_last_timestamp(producer.last_ms)
            .with_coordinator_epoch(0)
            .with_current_txn_start_offset(open(id).map_or(-1, |offset| offset.0))
    };
    partition.producers().by_id().iter().map(producer).collect()
}
