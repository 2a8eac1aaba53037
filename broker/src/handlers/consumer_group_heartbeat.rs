//! ConsumerGroupHeartbeat: a member of the consumer protocol says that it lives, what it wants and
//! what it has (KIP-848).

use odradek_protocol::StrBytes;
use odradek_protocol::id::TopicId;
use odradek_protocol::messages::consumer_group_heartbeat_request::TopicPartitions as Owned;
use odradek_protocol::messages::consumer_group_heartbeat_response::{
    Assignment as Assigned, TopicPartitions,
};
use odradek_protocol::messages::{ConsumerGroupHeartbeatRequest, ConsumerGroupHeartbeatResponse};
use odradek_storage::command::groups::Assignment;

use crate::context::Context;
use crate::error;
use crate::group::consumer::{ConsumerHeartbeat, JOIN_EPOCH};
use crate::session::Session;

/// From this version on clients choose their member ids.
const CLIENT_MEMBER_IDS: i16 = 1;

pub(crate) async fn handle(
    context: &Context,
    session: &Session,
    version: i16,
    request: ConsumerGroupHeartbeatRequest,
) -> ConsumerGroupHeartbeatResponse {
    let group = request.group_id.as_str().to_owned();
    let mut heartbeat = understand(session, request);
    let needs_id = version < CLIENT_MEMBER_IDS && heartbeat.epoch == JOIN_EPOCH;
    if needs_id && heartbeat.member.is_empty() {
        heartbeat.member = context.machine().new_uuid().to_string();
    }
    match context.groups.consumer_heartbeat(&group, heartbeat).await {
        Ok(answer) => {
            let interval = answer.heartbeat_interval.as_millis();
            let assignment = answer.assignment.map(assigned);
            ConsumerGroupHeartbeatResponse::default()
                .with_member_id(Some(answer.member.into()))
                .with_member_epoch(answer.epoch)
                .with_heartbeat_interval_ms(i32::try_from(interval).unwrap_or(i32::MAX))
                .with_assignment(assignment)
        }
        Err(refused) => ConsumerGroupHeartbeatResponse::default()
            .with_error_code(error::of_group(&refused).code())
            .with_error_message(Some(refused.to_string().into())),
    }
}

fn understand(session: &Session, request: ConsumerGroupHeartbeatRequest) -> ConsumerHeartbeat {
    let text = |text: Option<StrBytes>| text.map(|text| text.as_str().to_owned());
    let topics = request.subscribed_topic_names;
    let topics = topics.map(|it| it.iter().map(|name| name.as_str().to_owned()).collect());
    ConsumerHeartbeat {
        member: request.member_id.as_str().to_owned(),
        epoch: request.member_epoch,
        instance_id: text(request.instance_id),
        rack_id: text(request.rack_id),
        rebalance_timeout_ms: Some(request.rebalance_timeout_ms).filter(|ms| *ms != -1),
        topics,
        regex: text(request.subscribed_topic_regex),
        assignor: text(request.server_assignor),
        owned: request.topic_partitions.map(owned),
        client_id: session.client_id.clone(),
        client_host: session.client_host(),
    }
}

fn owned(topics: Vec<Owned>) -> Assignment {
    let mut owned = Assignment::new();
    for topic in topics.into_iter().filter(|topic| !topic.partitions.is_empty()) {
        owned.entry(TopicId(topic.topic_id)).or_default().extend(topic.partitions);
    }
    owned
}

fn assigned(assignment: Assignment) -> Assigned {
    let topics = assignment.into_iter().map(|(topic, partitions)| {
        TopicPartitions::default()
            .with_topic_id(topic.0)
            .with_partitions(partitions.into_iter().collect())
    });
    Assigned::default().with_topic_partitions(topics.collect())
}
