//! ConsumerGroupDescribe: groups of the consumer protocol and their members (KIP-848).

use odradek_protocol::messages::consumer_group_describe_response::{
    Assignment as Shown, DescribedGroup, Member, TopicPartitions,
};
use odradek_protocol::messages::{
    ConsumerGroupDescribeRequest, ConsumerGroupDescribeResponse, TopicName,
};
use odradek_storage::command::groups::Assignment;
use odradek_storage::state::State;
use odradek_storage::state::groups::Group;
use odradek_storage::state::groups::consumer::ConsumerMember;

use crate::context::Context;
use crate::error;
use crate::group::GroupError;
use crate::group::consumer::target;
use crate::operations;
use crate::session::Session;

/// From this version on members say which protocol they speak.
const MEMBER_TYPES: i16 = 1;

/// The type of members that speak the consumer protocol.
const CONSUMER: i8 = 1;

pub(crate) async fn handle(
    context: &Context,
    _: &Session,
    version: i16,
    request: ConsumerGroupDescribeRequest,
) -> ConsumerGroupDescribeResponse {
    let mut groups = Vec::with_capacity(request.group_ids.len());
    let operations = operations::of_group(request.include_authorized_operations);
    for group in request.group_ids {
        let shown = match context.groups.check_office(group.as_str()).await {
            Ok(()) => context.machine().read(|state| find(state, group.as_str(), version)),
            Err(refused) => refuse(&refused, refused.to_string()),
        };
        groups.push(shown.with_group_id(group).with_authorized_operations(operations));
    }
    ConsumerGroupDescribeResponse::default().with_groups(groups)
}

fn refuse(refused: &GroupError, message: String) -> DescribedGroup {
    DescribedGroup::default()
        .with_error_code(error::of_group(refused).code())
        .with_error_message(Some(message.into()))
}

fn find(state: &State, name: &str, version: i16) -> DescribedGroup {
    let found = state.groups().get(name);
    let Some(group) = found.and_then(Group::consumer) else {
        let message = match found {
            Some(_) => format!("Group {name} is not a consumer group."),
            None => format!("Group {name} not found."),
        };
        return refuse(&GroupError::UnknownGroup(name.to_owned()), message);
    };
    let subscriptions = group.members().values().map(|member| &member.subscription);
    let members = group.members().iter().map(|(id, member)| show(state, id, member, version));
    DescribedGroup::default()
        .with_group_state(group.phase().into())
        .with_group_epoch(group.epoch)
        .with_assignment_epoch(group.target_epoch)
        .with_assignor_name(target::preferred(subscriptions).name().into())
        .with_members(members.collect())
}

fn show(state: &State, id: &str, member: &ConsumerMember, version: i16) -> Member {
    let said = member.subscription.clone();
    let topics = said.topics.into_iter().map(|topic| TopicName(topic.into()));
    let shown = Member::default()
        .with_member_id(id.to_owned().into())
        .with_instance_id(said.instance_id.map(Into::into))
        .with_rack_id(said.rack_id.map(Into::into))
        .with_member_epoch(member.current.epoch)
        .with_client_id(said.client_id.into())
        .with_client_host(said.client_host.into())
        .with_subscribed_topic_names(topics.collect())
        .with_subscribed_topic_regex(said.regex.map(Into::into))
        .with_assignment(partitions(state, &member.current.assigned))
        .with_target_assignment(partitions(state, &member.target));
    if version >= MEMBER_TYPES { shown.with_member_type(CONSUMER) } else { shown }
}

/// Partitions of topics that are still there.
fn partitions(state: &State, assignment: &Assignment) -> Shown {
    let topics = assignment.iter().filter_map(|(id, partitions)| {
        let name = state.topic(*id)?.name.clone();
        let shown = TopicPartitions::default()
            .with_topic_id(id.0)
            .with_topic_name(TopicName(name.into()))
            .with_partitions(partitions.iter().copied().collect());
        Some(shown)
    });
    Shown::default().with_topic_partitions(topics.collect())
}
