//! ElectLeaders: any broker serves any partition, so no election is ever needed (KIP-460).

use odradek_protocol::ResponseError;
use odradek_protocol::messages::elect_leaders_request::TopicPartitions;
use odradek_protocol::messages::elect_leaders_response::{PartitionResult, ReplicaElectionResult};
use odradek_protocol::messages::{ElectLeadersRequest, ElectLeadersResponse};
use odradek_storage::state::State;

use crate::context::Context;
use crate::session::Session;
use crate::topics::{catch_up_unless, has_partition};

/// Kinds of elections: of the first replica, or of any that is left.
const ELECTION_TYPES: [i8; 2] = [0, 1];

pub(crate) async fn handle(
    context: &Context,
    _: &Session,
    _: i16,
    request: ElectLeadersRequest,
) -> ElectLeadersResponse {
    if !ELECTION_TYPES.contains(&request.election_type) {
        // Only from version 1 on is there a type, and a place for this.
        let code = ResponseError::InvalidRequest.code();
        return ElectLeadersResponse::default().with_error_code(code);
    }
    // Null asks for all partitions; of those only the ones that need an election are shown.
    let asked = request.topic_partitions.unwrap_or_default();
    let all_known = |state: &State| {
        asked.iter().all(|it| it.partitions.iter().all(|at| has_partition(state, &it.topic, *at)))
    };
    let (code, message) = match catch_up_unless(context.machine(), all_known).await {
        Ok(()) => (ResponseError::UnknownTopicOrPartition, "there is no such partition".to_owned()),
        Err(error) => (ResponseError::RequestTimedOut, error.to_string()),
    };
    let missing = PartitionResult::default()
        .with_error_code(code.code())
        .with_error_message(Some(message.into()));
    let results = context
        .machine()
        .read(|state| asked.iter().map(|topic| elect(state, topic, &missing)).collect());
    ElectLeadersResponse::default().with_replica_election_results(results)
}

fn elect(
    state: &State,
    asked: &TopicPartitions,
    missing: &PartitionResult,
) -> ReplicaElectionResult {
    let needless = PartitionResult::default()
        .with_error_code(ResponseError::ElectionNotNeeded.code())
        .with_error_message(Some("every broker serves the partition".into()));
    let result = |index: &i32| {
        let is_there = has_partition(state, &asked.topic, *index);
        if is_there { &needless } else { missing }.clone().with_partition_id(*index)
    };
    ReplicaElectionResult::default()
        .with_topic(asked.topic.clone())
        .with_partition_result(asked.partitions.iter().map(result).collect())
}
