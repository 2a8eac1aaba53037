//! Fetch: records from an offset on.
//!
//! Sessionless (session id 0), which every client takes as long as a response has exactly the
//! partitions that were asked for. Where there is nothing to read, the fetch waits for something to
//! be applied. "There is no such offset" and "there is no such topic" are said only after following
//! the log to its tail: another broker may have acknowledged them, and a client that is told so
//! resets its position.

use std::collections::BTreeMap;
use std::time::Duration;

use odradek_protocol::ResponseError;
use odradek_protocol::fetch_response::{FetchResponse, FetchedPartition, FetchedTopic};
use odradek_protocol::id::{NodeId, Offset, TopicId, TopicPartition};
use odradek_protocol::messages::FetchRequest;
use odradek_protocol::messages::fetch_request::{FetchPartition, FetchTopic};
use odradek_storage::reader::{FetchError, FetchTarget, Fetched, Isolation};
use odradek_storage::state::State;
use tokio::time::{Instant, sleep_until};

use crate::context::Context;
use crate::directory;
use crate::error;
use crate::leadership;
use crate::session::Session;

/// Most bytes of records in one response (`fetch.max.bytes`).
const RESPONSE_BYTES_MAX: usize = 55 * 1024 * 1024;

/// Longest wait for records, whatever the client asks for.
const WAIT_MAX: Duration = Duration::from_secs(60);

/// First version in which topics have ids and no names.
const BY_ID: i16 = 13;

pub(crate) async fn handle(
    context: &Context,
    session: &Session,
    version: i16,
    request: FetchRequest,
) -> FetchResponse {
    if let Some(code) = refuse(&request) {
        return FetchResponse { error_code: code.code(), ..FetchResponse::default() };
    }
    let number = |value: i32| usize::try_from(value).unwrap_or(0);
    let bytes_max = number(request.max_bytes).min(RESPONSE_BYTES_MAX);
    let wait = Duration::from_millis(u64::try_from(request.max_wait_ms).unwrap_or(0));
    let deadline = Instant::now() + wait.min(WAIT_MAX);
    let isolation = match request.isolation_level {
        0 => Isolation::ReadUncommitted,
        _ => Isolation::ReadCommitted,
    };
    let mut at_tail = Ok(false);
    let nearer = nearer(context, session, version, &request);
    let fetched = loop {
        if context.is_leaving() {
            return everywhere(request.topics, |asked| {
                let code = ResponseError::NotLeaderOrFollower.code();
                FetchedPartition::failed(asked.partition, code)
            });
        }
        let targets = context.machine().read(|state| targets(state, version, &request.topics));
        // Before the look, so that nothing is missed between the two.
        let mut watch = context.machine().watch(targets.iter().map(|target| target.partition));
        let plan = context.engine.reader.plan(&targets, bytes_max, isolation);
        if plan.has_error() && at_tail == Ok(false) {
            at_tail = context.machine().barrier().await.map(|()| true);
            continue;
        }
        let enough = plan.has_error()
            || targets.is_empty()
            || !nearer.is_empty()
            || plan.available_bytes() >= number(request.min_bytes)
            || Instant::now() >= deadline;
        if enough {
            break context.engine.reader.fetch(plan).await;
        }
        tokio::select! {
            biased;
            () = watch.changed() => {}
            () = context.leaving.wait_for(true) => {}
            () = sleep_until(deadline) => {}
        }
    };
    let mut response = answer(version, request.topics, fetched, at_tail.is_err());
    send_nearer(&mut response, nearer);
    response
}

/// The brokers that a consumer with a rack should rather read some of the partitions from, by place
/// in the request (KIP-392).
fn nearer(
    context: &Context,
    session: &Session,
    version: i16,
    request: &FetchRequest,
) -> BTreeMap<usize, NodeId> {
    let rack = request.rack_id.as_str();
    if rack.is_empty() || context.address.zone.as_deref() == Some(rack) {
        return BTreeMap::new();
    }
    let this = context.node_id();
    context.machine().read(|state| {
        let brokers = directory::listed(state, session);
        let targets = targets(state, version, &request.topics).into_iter().enumerate();
        let near = targets.filter_map(|(place, target)| {
            let node = leadership::nearer(&brokers, target.partition, rack, this)?;
            Some((place, node))
        });
        near.collect()
    })
}

/// Replaces records by the name of the broker that is nearer.
fn send_nearer(response: &mut FetchResponse, nearer: BTreeMap<usize, NodeId>) {
    let mut partitions: Vec<&mut FetchedPartition> =
        response.topics.iter_mut().flat_map(|topic| &mut topic.partitions).collect();
    for (place, node) in nearer {
        if let Some(partition) = partitions.get_mut(place).filter(|it| it.error_code == 0) {
            partition.preferred_read_replica = node.0;
            partition.records.clear();
        }
    }
}

/// The same answer for every partition.
fn everywhere(
    topics: Vec<FetchTopic>,
    answer: impl Fn(&FetchPartition) -> FetchedPartition,
) -> FetchResponse {
    let topics = topics.into_iter().map(|topic| FetchedTopic {
        name: topic.topic.as_str().to_owned(),
        id: topic.topic_id,
        partitions: topic.partitions.iter().map(&answer).collect(),
    });
    FetchResponse { topics: topics.collect(), ..FetchResponse::default() }
}

fn refuse(request: &FetchRequest) -> Option<ResponseError> {
    // Followers replicate; nobody does that here. A forged one must not get ahead of consumers.
    let replica = request.replica_id.0 >= 0 || request.replica_state.replica_id.0 >= 0;
    if replica {
        return Some(ResponseError::InvalidRequest);
    }
    // A session that this broker never gave out. With epoch 0 or -1 the request is whole anyway.
    let in_session = request.session_id != 0 && request.session_epoch > 0;
    in_session.then_some(ResponseError::FetchSessionIdNotFound)
}

/// What is to be read. A topic that is not known gets an id that no topic has.
fn targets(state: &State, version: i16, topics: &[FetchTopic]) -> Vec<FetchTarget> {
    let id_of = |topic: &FetchTopic| match version {
        BY_ID.. => TopicId(topic.topic_id),
        _ => state.topic_by_name(topic.topic.as_str()).map_or(TopicId::NIL, |it| it.id),
    };
    let of_topic = |topic: &FetchTopic| {
        let id = id_of(topic);
        let target = move |asked: &FetchPartition| FetchTarget {
            partition: TopicPartition { topic: id, partition: asked.partition },
            offset: Offset(asked.fetch_offset),
            bytes_max: usize::try_from(asked.partition_max_bytes).unwrap_or(0),
        };
        topic.partitions.iter().map(target).collect::<Vec<_>>()
    };
    topics.iter().flat_map(of_topic).collect()
}

fn answer(
    version: i16,
    topics: Vec<FetchTopic>,
    fetched: Vec<Result<Fetched, FetchError>>,
    out_of_reach: bool,
) -> FetchResponse {
    let mut fetched = fetched.into_iter();
    let topics = topics.into_iter().map(|topic| {
        let partitions = topic.partitions.iter().map(|asked| match fetched.next() {
            Some(Ok(found)) => show(asked.partition, found),
            Some(Err(failure)) => {
                let code = code_of(version, &failure, out_of_reach);
                let mut failed = FetchedPartition::failed(asked.partition, code.code());
                if let FetchError::OutOfRange { watermarks, .. } = failure {
                    failed.high_watermark = watermarks.high_watermark.0;
                    failed.last_stable_offset = watermarks.last_stable_offset.0;
                    failed.log_start_offset = watermarks.log_start.0;
                }
                failed
            }
            None => {
                let code = ResponseError::UnknownServerError.code();
                FetchedPartition::failed(asked.partition, code)
            }
        });
        let partitions = partitions.collect();
        FetchedTopic { name: topic.topic.as_str().to_owned(), id: topic.topic_id, partitions }
    });
    FetchResponse { topics: topics.collect(), ..FetchResponse::default() }
}

fn code_of(version: i16, failure: &FetchError, out_of_reach: bool) -> ResponseError {
    match failure {
        // "No" can't be said without the tail of the log; "ask again" can.
        FetchError::OutOfRange { .. } if out_of_reach => ResponseError::OffsetNotAvailable,
        FetchError::UnknownPartition(_) if out_of_reach => ResponseError::LeaderNotAvailable,
        FetchError::UnknownPartition(_) if version >= BY_ID => ResponseError::UnknownTopicId,
        failure => error::of_fetch(failure),
    }
}

fn show(index: i32, found: Fetched) -> FetchedPartition {
    FetchedPartition {
        index,
        error_code: 0,
        high_watermark: found.watermarks.high_watermark.0,
        last_stable_offset: found.watermarks.last_stable_offset.0,
        log_start_offset: found.watermarks.log_start.0,
        aborted_transactions: found
            .aborted
            .map(|aborted| aborted.iter().map(|it| (it.producer.0, it.first.0)).collect()),
        preferred_read_replica: -1,
        records: found.records,
    }
}
