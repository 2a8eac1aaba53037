//! AlterPartitionReassignments: partitions belong to no broker, so nothing can be moved (KIP-455).
//!
//! To ask for what a client sees already is fine. To grant anything else would be a lie: it is
//! refused, so that no tool waits for data to arrive somewhere.

use std::collections::BTreeSet;

use odradek_protocol::ResponseError;
use odradek_protocol::id::{NodeId, PartitionIndex};
use odradek_protocol::messages::alter_partition_reassignments_request::{
    ReassignablePartition, ReassignableTopic,
};
use odradek_protocol::messages::alter_partition_reassignments_response::{
    ReassignablePartitionResponse, ReassignableTopicResponse,
};
use odradek_protocol::messages::{
    AlterPartitionReassignmentsRequest, AlterPartitionReassignmentsResponse, BrokerId,
};
use odradek_storage::state::State;

use crate::context::Context;
use crate::directory::{self, Listed};
use crate::leadership;
use crate::session::Session;
use crate::topics::{Refusal, catch_up_unless, has_partition};

pub(crate) async fn handle(
    context: &Context,
    session: &Session,
    _: i16,
    request: AlterPartitionReassignmentsRequest,
) -> AlterPartitionReassignmentsResponse {
    let all_known = |state: &State| {
        let is_known = |topic: &ReassignableTopic| {
            topic.partitions.iter().all(|it| has_partition(state, &topic.name, it.partition_index))
        };
        request.topics.iter().all(is_known)
    };
    let missing = match catch_up_unless(context.machine(), all_known).await {
        Ok(()) => {
            Refusal::new(ResponseError::UnknownTopicOrPartition, "there is no such partition")
        }
        Err(error) => Refusal::new(ResponseError::RequestTimedOut, error.to_string()),
    };
    let responses = context.machine().read(|state| {
        let brokers = directory::listed(state, session);
        let zone = session.zone.as_deref();
        let respond = |topic: &ReassignableTopic| {
            let partitions = topic.partitions.iter().map(|asked| {
                let shown = shown(state, &brokers, zone, (&topic.name, asked.partition_index));
                let is_broker = |node: NodeId| state.brokers().contains_key(&node);
                let checked = match shown {
                    Some(shown) => check(asked, &shown, is_broker),
                    None => Err(missing.clone()),
                };
                answer(asked, checked)
            });
            ReassignableTopicResponse::default()
                .with_name(topic.name.clone())
                .with_partitions(partitions.collect())
        };
        request.topics.iter().map(respond).collect()
    });
    AlterPartitionReassignmentsResponse::default()
        .with_allow_replication_factor_change(request.allow_replication_factor_change)
        .with_error_message(None)
        .with_responses(responses)
}

/// The replicas that Metadata shows to this client, if there is such a partition.
fn shown(
    state: &State,
    brokers: &[Listed],
    zone: Option<&str>,
    (topic, partition): (&str, PartitionIndex),
) -> Option<Vec<BrokerId>> {
    if !has_partition(state, topic, partition) {
        return None;
    }
    Some(leadership::named(brokers, state.topic_by_name(topic)?, partition, zone))
}

fn check(
    asked: &ReassignablePartition,
    shown: &[BrokerId],
    is_broker: impl Fn(NodeId) -> bool,
) -> Result<(), Refusal> {
    let Some(replicas) = &asked.replicas else {
        let message = "no reassignment is under way";
        return Err(Refusal::new(ResponseError::NoReassignmentInProgress, message));
    };
    let refuse =
        |message: String| Err(Refusal::new(ResponseError::InvalidReplicaAssignment, message));
    let set: BTreeSet<i32> = replicas.iter().map(|node| node.0).collect();
    if set.is_empty() {
        return refuse("the list of replicas is empty".to_owned());
    }
    if set.len() < replicas.len() {
        return refuse("a broker stands in the list of replicas twice".to_owned());
    }
    if let Some(stranger) = set.iter().find(|node| !is_broker(NodeId(**node))) {
        return refuse(format!("there is no broker {stranger}"));
    }
    if set != shown.iter().map(|node| node.0).collect() {
        return refuse(
            "records are in an object store and partitions belong to no broker: there is nothing \
             to move"
                .to_owned(),
        );
    }
    Ok(())
}

fn answer(
    asked: &ReassignablePartition,
    checked: Result<(), Refusal>,
) -> ReassignablePartitionResponse {
    let response = ReassignablePartitionResponse::default()
        .with_partition_index(asked.partition_index)
        .with_error_message(None);
    match checked {
        Ok(()) => response,
        Err(Refusal { code, message }) => {
            response.with_error_code(code.code()).with_error_message(Some(message.into()))
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// The code for replicas where brokers 1 to 4 are there and 1 and 2 are shown.
    fn code(replicas: Option<&[i32]>) -> i16 {
        let replicas = replicas.map(|nodes| nodes.iter().map(|node| BrokerId(*node)).collect());
        let asked = ReassignablePartition::default().with_replicas(replicas);
        let checked = check(&asked, &[BrokerId(1), BrokerId(2)], |node| (1..=4).contains(&node.0));
        answer(&asked, checked).error_code
    }

    #[test]
    fn only_what_is_so_already_is_granted() {
        assert_eq!(code(Some(&[1, 2])), 0);
        assert_eq!(code(Some(&[2, 1])), 0);
        let others: [&[i32]; 6] = [&[], &[1], &[1, 2, 3], &[1, 1, 2], &[1, 2, 5], &[3, 4]];
        for replicas in others {
            assert_eq!(code(Some(replicas)), 39, "{replicas:?}");
        }
    }

    #[test]
    fn there_is_nothing_to_cancel() {
        assert_eq!(code(None), 85);
    }
}
