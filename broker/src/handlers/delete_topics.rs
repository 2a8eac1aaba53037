//! DeleteTopics, by name and by id.

use odradek_protocol::ResponseError;
use odradek_protocol::id::TopicId;
use odradek_protocol::messages::delete_topics_request::DeleteTopicState;
use odradek_protocol::messages::delete_topics_response::DeletableTopicResult;
use odradek_protocol::messages::{DeleteTopicsRequest, DeleteTopicsResponse, TopicName};
use odradek_storage::command::Command;
use odradek_storage::state::State;
use uuid::Uuid;

use crate::context::Context;
use crate::session::Session;
use crate::topics::{Refusal, look_twice, propose};

pub(crate) async fn handle(
    context: &Context,
    _: &Session,
    version: i16,
    request: DeleteTopicsRequest,
) -> DeleteTopicsResponse {
    let by_name = |name: TopicName| DeleteTopicState::default().with_name(Some(name));
    let asked: Vec<DeleteTopicState> = if version >= 6 {
        request.topics
    } else {
        request.topic_names.into_iter().map(by_name).collect()
    };
    let mut results = Vec::with_capacity(asked.len());
    for topic in asked {
        results.push(delete(context, version, topic).await);
    }
    DeleteTopicsResponse::default().with_responses(results)
}

async fn delete(context: &Context, version: i16, asked: DeleteTopicState) -> DeletableTopicResult {
    let DeleteTopicState { name, topic_id, .. } = asked;
    let look = |state: &State| {
        let topic = match &name {
            Some(name) => state.topic_by_name(name.as_str()),
            None => state.topic(TopicId(topic_id)),
        }?;
        Some((topic.id, topic.name.clone()))
    };
    let unknown = match name {
        Some(_) => ResponseError::UnknownTopicOrPartition,
        None => ResponseError::UnknownTopicId,
    };
    let deleted = match look_twice(context.machine(), look).await {
        Ok(Some((topic, found))) => propose(context.machine(), Command::DeleteTopic { topic })
            .await
            .map(|()| (topic, found)),
        Ok(None) => Err(Refusal::new(unknown, "there is no such topic")),
        Err(error) => Err(Refusal::new(ResponseError::RequestTimedOut, error.to_string())),
    };
    let (id, result) = match deleted {
        Ok((topic, found)) => {
            let name = Some(TopicName(found.into()));
            (topic.0, DeletableTopicResult::default().with_name(name))
        }
        Err(Refusal { code, message }) => {
            // Null names came with version 6.
            let name = if version >= 6 { name } else { Some(name.unwrap_or_default()) };
            let result = DeletableTopicResult::default()
                .with_name(name)
                .with_error_code(code.code())
                .with_error_message(Some(message.into()));
            (topic_id, result)
        }
    };
    let id = if version >= 6 { id } else { Uuid::nil() };
    result.with_topic_id(id)
}
