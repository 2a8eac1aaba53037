//! LeaveGroup: members go, on their own or because an operator takes them out (KIP-345, KIP-571).

use odradek_protocol::messages::leave_group_response::MemberResponse;
use odradek_protocol::messages::{LeaveGroupRequest, LeaveGroupResponse};

use crate::context::Context;
use crate::error;
use crate::group::classic::Leaver;
use crate::session::Session;

/// From this version on several may go at once.
const SEVERAL: i16 = 3;

pub(crate) async fn handle(
    context: &Context,
    _: &Session,
    version: i16,
    request: LeaveGroupRequest,
) -> LeaveGroupResponse {
    let owned = |text: &odradek_protocol::StrBytes| text.as_str().to_owned();
    let leavers = if version >= SEVERAL {
        let leaver =
            |member: &odradek_protocol::messages::leave_group_request::MemberIdentity| Leaver {
                member: owned(&member.member_id),
                instance_id: member.group_instance_id.as_ref().map(owned),
            };
        request.members.iter().map(leaver).collect()
    } else {
        vec![Leaver { member: owned(&request.member_id), instance_id: None }]
    };
    let code = |left: &Result<(), _>| match left {
        Ok(()) => 0,
        Err(refused) => error::of_group(refused).code(),
    };
    match context.groups.leave(request.group_id.as_str(), leavers).await {
        Err(refused) => {
            LeaveGroupResponse::default().with_error_code(error::of_group(&refused).code())
        }
        Ok(answers) if version < SEVERAL => {
            LeaveGroupResponse::default().with_error_code(answers.first().map_or(0, code))
        }
        Ok(answers) => {
            let members = request.members.into_iter().zip(&answers).map(|(member, left)| {
                MemberResponse::default()
                    .with_member_id(member.member_id)
                    .with_group_instance_id(member.group_instance_id)
                    .with_error_code(code(left))
            });
            LeaveGroupResponse::default().with_members(members.collect())
        }
    }
}
