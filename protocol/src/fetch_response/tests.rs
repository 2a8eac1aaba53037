use kafka_protocol::messages::fetch_response::{
    AbortedTransaction, FetchableTopicResponse, PartitionData,
};
use kafka_protocol::messages::{FetchResponse as Oracle, ProducerId, TopicName};
use kafka_protocol::protocol::Encodable;
use proptest::prelude::*;

use super::*;

/// The same response, encoded by the message crate.
fn oracle(response: &FetchResponse, version: i16, correlation_id: i32) -> Bytes {
    let partition = |it: &FetchedPartition| {
        let aborted = it.aborted_transactions.as_ref().map(|aborted| {
            let transaction = |(producer, first): &(i64, i64)| {
                AbortedTransaction::default()
                    .with_producer_id(ProducerId(*producer))
                    .with_first_offset(*first)
            };
            aborted.iter().map(transaction).collect()
        });
        let preferred = if version >= 11 { it.preferred_read_replica } else { -1 };
        PartitionData::default()
            .with_preferred_read_replica(preferred.into())
            .with_partition_index(it.index)
            .with_error_code(it.error_code)
            .with_high_watermark(it.high_watermark)
            .with_last_stable_offset(it.last_stable_offset)
            .with_log_start_offset(it.log_start_offset)
            .with_aborted_transactions(aborted)
            .with_records(Some(it.records.concat().into()))
    };
    let topic = |it: &FetchedTopic| {
        let topic = FetchableTopicResponse::default()
            .with_partitions(it.partitions.iter().map(partition).collect());
        if version >= 13 {
            topic.with_topic_id(it.id)
        } else {
            topic.with_topic(TopicName(it.name.clone().into()))
        }
    };
    let mut message = Oracle::default()
        .with_throttle_time_ms(response.throttle_time_ms)
        .with_responses(response.topics.iter().map(topic).collect());
    if version >= 7 {
        message = message.with_error_code(response.error_code).with_session_id(response.session_id);
    }
    let mut frame = begin_response(ApiKey::Fetch, version, correlation_id);
    message.encode(&mut frame, version).unwrap();
    put_length(&mut frame, 0);
    frame.freeze()
}

fn partitions() -> impl Strategy<Value = FetchedPartition> {
    let parts = prop::collection::vec(prop::collection::vec(any::<u8>(), 0..300), 0..4);
    let aborted = prop::option::of(prop::collection::vec(any::<(i64, i64)>(), 0..3));
    (any::<(i32, i16, i64, i64, i64, i32)>(), aborted, parts).prop_map(
        |(numbers, aborted, parts)| FetchedPartition {
            index: numbers.0,
            error_code: numbers.1,
            high_watermark: numbers.2,
            last_stable_offset: numbers.3,
            log_start_offset: numbers.4,
            aborted_transactions: aborted,
            preferred_read_replica: numbers.5,
            records: parts.into_iter().map(Bytes::from).collect(),
        },
    )
}

fn responses() -> impl Strategy<Value = FetchResponse> {
    let topic = ("[a-z]{1,200}", any::<u128>(), prop::collection::vec(partitions(), 0..4));
    let topic = topic.prop_map(|(name, id, partitions)| FetchedTopic {
        name,
        id: Uuid::from_u128(id),
        partitions,
    });
    (any::<(i32, i16, i32)>(), prop::collection::vec(topic, 0..4)).prop_map(|(numbers, topics)| {
        FetchResponse {
            throttle_time_ms: numbers.0,
            error_code: numbers.1,
            session_id: numbers.2,
            topics,
        }
    })
}

proptest! {
    #[test]
    fn every_version_is_byte_for_byte_what_the_message_crate_writes(
        response in responses(),
        correlation_id in any::<i32>(),
    ) {
        for version in 4..=18 {
            let parts = response.encode(version, correlation_id);
            prop_assert_eq!(
                Bytes::from(parts.concat()),
                oracle(&response, version, correlation_id),
                "version {}", version
            );
        }
    }
}
