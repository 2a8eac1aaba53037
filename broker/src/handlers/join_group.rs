//! JoinGroup: a member enters a generation of the classic protocol.

use odradek_protocol::messages::join_group_response::JoinGroupResponseMember;
use odradek_protocol::messages::{JoinGroupRequest, JoinGroupResponse};
use odradek_protocol::{ResponseError, StrBytes};

use crate::context::Context;
use crate::error;
use crate::group::GroupError;
use crate::group::classic::{JoinRequest, Joined};
use crate::session::Session;

/// From this version on a client can be sent away to come back with a member id (KIP-394).
const MEMBER_ID_REQUIRED: i16 = 4;

/// From this version on a leader can be told that it need not assign (KIP-814).
const SKIP_ASSIGNMENT: i16 = 9;

pub(crate) async fn handle(
    context: &Context,
    session: &Session,
    version: i16,
    request: JoinGroupRequest,
) -> JoinGroupResponse {
    let group = request.group_id.as_str().to_owned();
    let member = request.member_id.clone();
    match context.groups.join(&group, understand(session, version, request)).await {
        Ok(joined) => answer(version, joined),
        Err(refused) => refuse(version, &refused, member),
    }
}

fn understand(session: &Session, version: i16, request: JoinGroupRequest) -> JoinRequest {
    // Before KIP-62 there was one timeout for both.
    let rebalance_timeout_ms =
        if version >= 1 { request.rebalance_timeout_ms } else { request.session_timeout_ms };
    let protocols = request.protocols.into_iter();
    JoinRequest {
        member: request.member_id.as_str().to_owned(),
        instance_id: request.group_instance_id.map(|it| it.as_str().to_owned()),
        client_id: session.client_id.clone(),
        client_host: session.client_host(),
        session_timeout_ms: request.session_timeout_ms,
        rebalance_timeout_ms,
        protocol_type: request.protocol_type.as_str().to_owned(),
        protocols: protocols.map(|it| (it.name.as_str().to_owned(), it.metadata)).collect(),
        knows_member_ids: version >= MEMBER_ID_REQUIRED,
        can_skip_assignment: version >= SKIP_ASSIGNMENT,
    }
}

fn answer(version: i16, joined: Joined) -> JoinGroupResponse {
    let members = joined.members.into_iter().map(|(id, instance_id, metadata)| {
        let member =
            JoinGroupResponseMember::default().with_member_id(id.into()).with_metadata(metadata);
        if version >= 5 {
            member.with_group_instance_id(instance_id.map(Into::into))
        } else {
            member
        }
    });
    let response = JoinGroupResponse::default()
        .with_generation_id(joined.generation)
        .with_protocol_name(Some(joined.protocol.into()))
        .with_leader(joined.leader.into())
        .with_member_id(joined.member.into())
        .with_members(members.collect());
    let response = if version >= SKIP_ASSIGNMENT {
        response.with_skip_assignment(joined.skip_assignment)
    } else {
        response
    };
    if version >= 7 {
        response.with_protocol_type(Some(joined.protocol_type.into()))
    } else {
        response
    }
}

fn refuse(version: i16, refused: &GroupError, member: StrBytes) -> JoinGroupResponse {
    let member = match refused {
        GroupError::MemberIdRequired(id) => id.clone().into(),
        // Nothing that the client could come back with.
        GroupError::UnknownMember | GroupError::GroupFull => StrBytes::default(),
        _ => member,
    };
    let code = match error::of_group(refused) {
        // Static members came with version 5.
        ResponseError::FencedInstanceId if version < 5 => ResponseError::UnknownMemberId,
        code => code,
    };
    // The newest versions can say that no protocol was chosen.
    let protocol = if version >= 7 { None } else { Some(StrBytes::default()) };
    JoinGroupResponse::default()
        .with_error_code(code.code())
        .with_generation_id(-1)
        .with_protocol_name(protocol)
        .with_member_id(member)
}
