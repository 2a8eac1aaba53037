//! ListOffsets: where a partition begins and ends, and what lies at a time.
//!
//! "Latest" is linearizable: the log is followed to its tail first, so that whoever reads "to the
//! end" misses nothing that was acknowledged before it asked.

use std::collections::BTreeSet;

use odradek_protocol::ResponseError;
use odradek_protocol::id::TopicPartition;
use odradek_protocol::messages::list_offsets_request::ListOffsetsPartition;
use odradek_protocol::messages::list_offsets_response::{
    ListOffsetsPartitionResponse, ListOffsetsTopicResponse,
};
use odradek_protocol::messages::{ListOffsetsRequest, ListOffsetsResponse};
use odradek_storage::reader::{Isolation, TimestampOffset};

use crate::context::Context;
use crate::error;
use crate::session::Session;

/// Timestamps that are questions of their own, and the versions from which on they can be asked.
const LATEST: i64 = -1;
const EARLIEST: i64 = -2;
const MAX_TIMESTAMP: (i64, i16) = (-3, 7);
const EARLIEST_LOCAL: (i64, i16) = (-4, 8);
const LATEST_TIERED: (i64, i16) = (-5, 9);

/// What stands for "there is none".
const NONE: TimestampOffset =
    TimestampOffset { offset: odradek_protocol::id::Offset(-1), timestamp_ms: -1 };

pub(crate) async fn handle(
    context: &Context,
    _: &Session,
    version: i16,
    request: ListOffsetsRequest,
) -> ListOffsetsResponse {
    let barrier = context.machine().barrier().await;
    let isolation = match request.isolation_level {
        0 => Isolation::ReadUncommitted,
        _ => Isolation::ReadCommitted,
    };
    let mut topics = Vec::with_capacity(request.topics.len());
    for topic in request.topics {
        let name = topic.name.as_str();
        let id = context.machine().read(|state| state.topic_by_name(name).map(|topic| topic.id));
        let mut seen = BTreeSet::new();
        let mut partitions = Vec::with_capacity(topic.partitions.len());
        for asked in topic.partitions {
            let partition =
                id.map(|topic| TopicPartition { topic, partition: asked.partition_index });
            let found = match (barrier, partition) {
                _ if !seen.insert(asked.partition_index) => Err(ResponseError::InvalidRequest),
                (Err(_), _) => Err(ResponseError::OffsetNotAvailable),
                (Ok(()), None) => Err(ResponseError::UnknownTopicOrPartition),
                (Ok(()), Some(partition)) => {
                    find(context, version, partition, &asked, isolation).await
                }
            };
            partitions.push(answer(&asked, version, found));
        }
        let response = ListOffsetsTopicResponse::default().with_name(topic.name);
        topics.push(response.with_partitions(partitions));
    }
    ListOffsetsResponse::default().with_topics(topics)
}

async fn find(
    context: &Context,
    version: i16,
    partition: TopicPartition,
    asked: &ListOffsetsPartition,
    isolation: Isolation,
) -> Result<TimestampOffset, ResponseError> {
    let watermarks = context.engine.reader.watermarks(partition);
    let watermarks = watermarks.map_err(|failure| error::of_fetch(&failure))?;
    let at = |offset| Ok(TimestampOffset { offset, timestamp_ms: -1 });
    let reader = &context.engine.reader;
    let can_ask = |(timestamp, since): (i64, i16)| asked.timestamp == timestamp && version >= since;
    let found = match asked.timestamp {
        LATEST => return at(watermarks.limit(isolation)),
        EARLIEST => return at(watermarks.log_start),
        // Everything is where everything is.
        _ if can_ask(EARLIEST_LOCAL) => return at(watermarks.log_start),
        // Nothing is moved to another tier.
        _ if can_ask(LATEST_TIERED) => return Ok(NONE),
        _ if can_ask(MAX_TIMESTAMP) => reader.offset_of_max_timestamp(partition, isolation).await,
        timestamp if timestamp < 0 => return Err(ResponseError::UnsupportedVersion),
        timestamp => reader.offset_for_timestamp(partition, timestamp, isolation).await,
    };
    let found = found.map_err(|failure| error::of_fetch(&failure))?;
    Ok(found.filter(|found| found.offset < watermarks.limit(isolation)).unwrap_or(NONE))
}

fn answer(
    asked: &ListOffsetsPartition,
    version: i16,
    found: Result<TimestampOffset, ResponseError>,
) -> ListOffsetsPartitionResponse {
    let response =
        ListOffsetsPartitionResponse::default().with_partition_index(asked.partition_index);
    match found {
        Ok(found) => {
            let epoch = if found == NONE { -1 } else { 0 };
            let response = response.with_offset(found.offset.0).with_timestamp(found.timestamp_ms);
            if version >= 4 { response.with_leader_epoch(epoch) } else { response }
        }
        Err(code) => response.with_error_code(code.code()).with_offset(-1).with_timestamp(-1),
    }
}
