//! DescribeGroups: groups of the classic protocol and their members.

use odradek_protocol::ResponseError;
use odradek_protocol::messages::describe_groups_response::{DescribedGroup, DescribedGroupMember};
use odradek_protocol::messages::{DescribeGroupsRequest, DescribeGroupsResponse, GroupId};
use odradek_storage::command::groups::ClassicMember;

use crate::context::Context;
use crate::error;
use crate::group::GroupError;
use crate::group::classic::Description;
use crate::operations;
use crate::session::Session;

/// From this version on a group that is not there is an error; before, it is dead (KIP-1043).
const NOT_FOUND: i16 = 6;

pub(crate) async fn handle(
    context: &Context,
    _: &Session,
    version: i16,
    request: DescribeGroupsRequest,
) -> DescribeGroupsResponse {
    let mut groups = Vec::with_capacity(request.groups.len());
    let operations = operations::of_group(request.include_authorized_operations);
    for group in request.groups {
        let found = context.groups.describe(group.as_str()).await;
        let shown = match found {
            Ok(found) => show(version, found),
            Err(refused) => refuse(version, &group, &refused),
        };
        groups.push(shown.with_group_id(group).with_authorized_operations(operations));
    }
    DescribeGroupsResponse::default().with_groups(groups)
}

fn show(version: i16, found: Description) -> DescribedGroup {
    let member = |(id, member): (String, ClassicMember)| {
        let shown = DescribedGroupMember::default()
            .with_member_id(id.into())
            .with_client_id(member.client_id.into())
            .with_client_host(member.client_host.into())
            .with_member_metadata(member.metadata)
            .with_member_assignment(member.assignment);
        if version < 4 {
            return shown;
        }
        shown.with_group_instance_id(member.instance_id.map(Into::into))
    };
    DescribedGroup::default()
        .with_group_state(found.phase.name().into())
        .with_protocol_type(found.protocol_type.into())
        .with_protocol_data(found.protocol.into())
        .with_members(found.members.into_iter().map(member).collect())
}

fn refuse(version: i16, group: &GroupId, refused: &GroupError) -> DescribedGroup {
    let shown = DescribedGroup::default();
    let code = error::of_group(refused);
    match code {
        ResponseError::GroupIdNotFound if version >= NOT_FOUND => {
            let message = format!("Group {} is not a classic group.", group.as_str());
            shown
                .with_group_state("Dead".into())
                .with_error_code(code.code())
                .with_error_message(Some(message.into()))
        }
        ResponseError::GroupIdNotFound => shown.with_group_state("Dead".into()),
        _ => shown.with_error_code(code.code()),
    }
}
