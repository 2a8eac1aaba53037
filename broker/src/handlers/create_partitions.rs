//! CreatePartitions: topics grow, and never shrink.

use odradek_protocol::ResponseError;
use odradek_protocol::messages::create_partitions_request::CreatePartitionsTopic;
use odradek_protocol::messages::create_partitions_response::CreatePartitionsTopicResult;
use odradek_protocol::messages::{CreatePartitionsRequest, CreatePartitionsResponse};
use odradek_storage::command::Command;
use odradek_storage::state::State;

use crate::context::Context;
use crate::session::Session;
use crate::topics::{PARTITIONS_MAX, Refusal, look_twice, propose};

pub(crate) async fn handle(
    context: &Context,
    _: &Session,
    _: i16,
    request: CreatePartitionsRequest,
) -> CreatePartitionsResponse {
    let mut results = Vec::with_capacity(request.topics.len());
    for topic in request.topics {
        let result = CreatePartitionsTopicResult::default().with_name(topic.name.clone());
        results.push(match grow(context, &topic, request.validate_only).await {
            Ok(()) => result,
            Err(Refusal { code, message }) => {
                result.with_error_code(code.code()).with_error_message(Some(message.into()))
            }
        });
    }
    CreatePartitionsResponse::default().with_results(results)
}

async fn grow(
    context: &Context,
    asked: &CreatePartitionsTopic,
    validate_only: bool,
) -> Result<(), Refusal> {
    let look = |state: &State| {
        let topic = state.topic_by_name(asked.name.as_str())?;
        Some((topic.id, topic.partitions.len()))
    };
    let found = look_twice(context.machine(), look).await;
    let found = found
        .map_err(|error| Refusal::new(ResponseError::RequestTimedOut, error.to_string()))?
        .ok_or_else(|| {
            Refusal::new(ResponseError::UnknownTopicOrPartition, "there is no such topic")
        })?;
    let (topic, has) = found;
    let invalid = |message: String| Err(Refusal::new(ResponseError::InvalidPartitions, message));
    let total = u32::try_from(asked.count).unwrap_or(0);
    let wanted = usize::try_from(total).unwrap_or(usize::MAX);
    if wanted <= has {
        return invalid(format!(
            "the topic has {has} partitions, and they can only grow in number"
        ));
    }
    if total > PARTITIONS_MAX {
        return invalid(format!("a topic has at most {PARTITIONS_MAX} partitions"));
    }
    if let Some(assignments) = &asked.assignments
        && assignments.len() != wanted - has
    {
        let message = "an assignment has an entry for each new partition";
        return Err(Refusal::new(ResponseError::InvalidReplicaAssignment, message));
    }
    if validate_only {
        return Ok(());
    }
    propose(context.machine(), Command::CreatePartitions { topic, total }).await
}
