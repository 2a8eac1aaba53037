//! Fetch: records from an offset on.
//!
//! Outside a session a response has exactly the partitions that were asked for, in one those that
//! have changed (see [`fetch_session`](crate::fetch_session)). Where there is nothing to read, the
//! fetch waits for something to be applied. "There is no such offset" and "there is no such topic"
//! are said only after following the log to its tail: another broker may have acknowledged them,
//! and a client that is told so resets its position.

use std::collections::BTreeMap;
use std::time::Duration;

use odradek_protocol::ResponseError;
use odradek_protocol::fetch_response::{FetchResponse, FetchedPartition};
use odradek_protocol::id::{NodeId, Offset, TopicId, TopicPartition};
use odradek_protocol::messages::FetchRequest;
use odradek_storage::reader::{FetchError, FetchTarget, Fetched, Isolation};
use odradek_storage::state::State;
use tokio::time::{Instant, sleep_until};

use crate::answers::Claim;
use crate::context::Context;
use crate::directory;
use crate::error;
use crate::fetch_session::Asked;
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
    let begun = match is_replica(&request) {
        true => Err(ResponseError::InvalidRequest),
        false => {
            let sessions = &context.fetch_sessions;
            sessions.begin(&session.fetches, version >= BY_ID, &request)
        }
    };
    let fetching = match begun {
        Ok(fetching) => fetching,
        Err(code) => return FetchResponse { error_code: code.code(), ..FetchResponse::default() },
    };
    let session_id = fetching.session_id;
    let answers = answers(context, session, version, &request, &fetching.asked).await;
    let topics = fetching.told(&session.fetches, answers);
    FetchResponse { session_id, topics, ..FetchResponse::default() }
}

/// An answer for each partition that is asked for, as soon as there are records enough.
async fn answers(
    context: &Context,
    session: &Session,
    version: i16,
    request: &FetchRequest,
    asked: &[Asked],
) -> Vec<FetchedPartition> {
    let number = |value: i32| usize::try_from(value).unwrap_or(0);
    let bytes_max = number(request.max_bytes).min(RESPONSE_BYTES_MAX);
    let wait = Duration::from_millis(u64::try_from(request.max_wait_ms).unwrap_or(0));
    let deadline = Instant::now() + wait.min(WAIT_MAX);
    let isolation = match request.isolation_level {
        0 => Isolation::ReadUncommitted,
        _ => Isolation::ReadCommitted,
    };
    let mut at_tail = Ok(false);
    let nearer = nearer(context, session, request.rack_id.as_str(), version, asked);
    let (mut fetched, claim) = loop {
        if context.is_leaving() {
            let code = ResponseError::NotLeaderOrFollower.code();
            let failed = |asked: &Asked| FetchedPartition::failed(asked.partition, code);
            return asked.iter().map(failed).collect();
        }
        let targets = context.machine().read(|state| targets(state, version, asked));
        // Before the look, so that nothing is missed between the two.
        let mut watch = context.machine().watch(targets.iter().map(|target| target.partition));
        let mut plan = context.engine.reader.plan(&targets, bytes_max, isolation);
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
            let claim = context.answers.claim(plan.available_bytes().min(bytes_max));
            plan.limit_to(claim.bytes());
            break (context.engine.reader.fetch(plan).await, claim);
        }
        tokio::select! {
            biased;
            () = watch.changed() => {}
            () = context.leaving.wait_for(true) => {}
            () = sleep_until(deadline) => {}
        }
    };
    hold(claim, &mut fetched);
    let answer = |(asked, fetched): (&Asked, _)| match fetched {
        Ok(found) => show(asked.partition, found),
        Err(failure) => fail(version, asked.partition, &failure, at_tail.is_err()),
    };
    let mut answers: Vec<_> = asked.iter().zip(fetched).map(answer).collect();
    send_nearer(&mut answers, nearer);
    answers
}

/// Holds memory for as long as it takes to write what was fetched.
fn hold(mut claim: Claim, fetched: &mut [Result<Fetched, FetchError>]) {
    claim.settle(fetched.iter().flatten().map(|it| it.records_bytes).sum());
    let parts = fetched.iter_mut().flatten().flat_map(|it| &mut it.records);
    if let Some(last) = parts.last() {
        *last = claim.attach(std::mem::take(last));
    }
}

/// The brokers that a consumer with a rack should rather read some of the partitions from, by place
/// in the request (KIP-392).
fn nearer(
    context: &Context,
    session: &Session,
    rack: &str,
    version: i16,
    asked: &[Asked],
) -> BTreeMap<usize, NodeId> {
    if rack.is_empty() || context.address.zone.as_deref() == Some(rack) {
        return BTreeMap::new();
    }
    let this = context.node_id();
    context.machine().read(|state| {
        let brokers = directory::listed(state, session);
        let targets = targets(state, version, asked).into_iter().enumerate();
        let near = targets.filter_map(|(place, target)| {
            let node = leadership::nearer(&brokers, target.partition, rack, this)?;
            Some((place, node))
        });
        near.collect()
    })
}

/// Replaces records by the name of the broker that is nearer.
fn send_nearer(answers: &mut [FetchedPartition], nearer: BTreeMap<usize, NodeId>) {
    for (place, node) in nearer {
        if let Some(partition) = answers.get_mut(place).filter(|it| it.error_code == 0) {
            partition.preferred_read_replica = node.0;
            partition.records.clear();
        }
    }
}

/// Whether it comes from a follower. They replicate, and nobody does that here: a forged one must
/// not get ahead of consumers.
fn is_replica(request: &FetchRequest) -> bool {
    request.replica_id.0 >= 0 || request.replica_state.replica_id.0 >= 0
}

/// What is to be read. A topic that is not known gets an id that no topic has.
fn targets(state: &State, version: i16, asked: &[Asked]) -> Vec<FetchTarget> {
    let id_of = |asked: &Asked| match version {
        BY_ID.. => TopicId(asked.topic.id),
        _ => state.topic_by_name(&asked.topic.name).map_or(TopicId::NIL, |it| it.id),
    };
    let target = |asked: &Asked| FetchTarget {
        partition: TopicPartition { topic: id_of(asked), partition: asked.partition },
        offset: Offset(asked.offset),
        bytes_max: usize::try_from(asked.bytes_max).unwrap_or(0),
    };
    asked.iter().map(target).collect()
}

fn fail(version: i16, index: i32, failure: &FetchError, out_of_reach: bool) -> FetchedPartition {
    let code = code_of(version, failure, out_of_reach);
    let mut failed = FetchedPartition::failed(index, code.code());
    if let FetchError::OutOfRange { watermarks, .. } = failure {
        failed.high_watermark = watermarks.high_watermark.0;
        failed.last_stable_offset = watermarks.last_stable_offset.0;
        failed.log_start_offset = watermarks.log_start.0;
    }
    failed
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
