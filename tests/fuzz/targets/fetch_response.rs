//! The one response that is written by hand: what is written, the message decoder reads.

use bytes::{Buf, Bytes};
use kafka_protocol::messages::{self, ResponseHeader};
use kafka_protocol::protocol::Decodable;
use odradek_protocol::fetch_response::{FetchResponse, FetchedPartition, FetchedTopic};
use uuid::Uuid;

use super::input::Input;

pub(crate) fn run(data: &[u8]) {
    let mut input = Input::new(data);
    let version = 4 + i16::from(input.u8() % 15);
    let correlation_id = input.i32();
    let mut response = FetchResponse {
        throttle_time_ms: input.i32(),
        error_code: input.i16(),
        session_id: input.i32(),
        topics: Vec::new(),
    };
    while !input.is_empty() {
        let (name, id) = (input.text(), Uuid::from_u64_pair(1, u64::from(input.u16())));
        let partitions = (0..input.u8() % 4).map(|_| partition(&mut input)).collect();
        response.topics.push(FetchedTopic { name, id, partitions });
    }
    let mut frame = Bytes::from(response.encode(version, correlation_id).concat());
    let length = frame.get_i32();
    assert_eq!(usize::try_from(length), Ok(frame.len()), "the frame's length");
    let header_version = if version >= 12 { 1 } else { 0 };
    let header = ResponseHeader::decode(&mut frame, header_version).unwrap();
    assert_eq!(header.correlation_id, correlation_id);
    let read = messages::FetchResponse::decode(&mut frame, version).unwrap();
    assert!(frame.is_empty(), "bytes behind the response");
    compare(&response, &read, version);
}

fn partition(input: &mut Input<'_>) -> FetchedPartition {
    let aborted = match input.u8() % 4 {
        0 => None,
        count => Some((1..count).map(|_| (input.i64(), input.i64())).collect()),
    };
    FetchedPartition {
        index: input.i32(),
        error_code: input.i16(),
        high_watermark: input.i64(),
        last_stable_offset: input.i64(),
        log_start_offset: input.i64(),
        aborted_transactions: aborted,
        preferred_read_replica: input.i32(),
        records: (0..input.u8() % 3).map(|_| Bytes::copy_from_slice(input.blob())).collect(),
    }
}

fn compare(written: &FetchResponse, read: &messages::FetchResponse, version: i16) {
    assert_eq!(read.throttle_time_ms, written.throttle_time_ms);
    if version >= 7 {
        let of_session = (written.error_code, written.session_id);
        assert_eq!((read.error_code, read.session_id), of_session);
    }
    assert_eq!(read.responses.len(), written.topics.len());
    for (topic, read) in written.topics.iter().zip(&read.responses) {
        if version >= 13 {
            assert_eq!(read.topic_id, topic.id);
        } else {
            assert_eq!(*read.topic.0, *topic.name);
        }
        assert_eq!(read.partitions.len(), topic.partitions.len());
        for (partition, read) in topic.partitions.iter().zip(&read.partitions) {
            let offsets = (partition.high_watermark, partition.last_stable_offset);
            assert_eq!((read.high_watermark, read.last_stable_offset), offsets);
            assert_eq!(
                (read.partition_index, read.error_code),
                (partition.index, partition.error_code)
            );
            if version >= 5 {
                assert_eq!(read.log_start_offset, partition.log_start_offset);
            }
            if version >= 11 {
                assert_eq!(read.preferred_read_replica.0, partition.preferred_read_replica);
            }
            let aborted = |it: &messages::fetch_response::AbortedTransaction| {
                (it.producer_id.0, it.first_offset)
            };
            let aborted = read.aborted_transactions.as_ref().map(|it| it.iter().map(aborted));
            let aborted: Option<Vec<_>> = aborted.map(Iterator::collect);
            assert_eq!(aborted, partition.aborted_transactions);
            let records = read.records.as_deref().unwrap_or_default();
            assert_eq!(records, partition.records.concat());
        }
    }
}

pub(crate) fn seeds() -> Vec<Vec<u8>> {
    let shapes = [vec![1; 80], vec![3; 300], (0..=255).collect::<Vec<u8>>(), vec![0; 40]];
    let of = |shape: Vec<u8>| (0..15).map(move |version| [&[version], &shape[..]].concat());
    shapes.into_iter().flat_map(of).collect()
}
