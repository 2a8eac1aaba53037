//! SyncGroup: members of a generation get their assignments, which the leader brings.

use odradek_protocol::ResponseError;
use odradek_protocol::messages::{SyncGroupRequest, SyncGroupResponse};
use odradek_storage::command::Committer;

use crate::context::Context;
use crate::error;
use crate::group::classic::SyncRequest;
use crate::session::Session;

/// From this version on both sides name the protocol (KIP-559).
const PROTOCOLS_NAMED: i16 = 5;

pub(crate) async fn handle(
    context: &Context,
    _: &Session,
    version: i16,
    request: SyncGroupRequest,
) -> SyncGroupResponse {
    let owned = |text: odradek_protocol::StrBytes| text.as_str().to_owned();
    let names_both = request.protocol_type.is_some() && request.protocol_name.is_some();
    if version >= PROTOCOLS_NAMED && !names_both {
        let code = ResponseError::InconsistentGroupProtocol.code();
        return SyncGroupResponse::default().with_error_code(code);
    }
    let assignments = request.assignments.into_iter();
    let asked = SyncRequest {
        member: Committer {
            member: owned(request.member_id),
            instance_id: request.group_instance_id.map(owned),
            generation: request.generation_id,
        },
        protocol_type: request.protocol_type.map(owned),
        protocol: request.protocol_name.map(owned),
        assignments: assignments.map(|it| (owned(it.member_id), it.assignment)).collect(),
    };
    match context.groups.sync(request.group_id.as_str(), asked).await {
        Ok(synced) => {
            let response = SyncGroupResponse::default().with_assignment(synced.assignment);
            if version < PROTOCOLS_NAMED {
                return response;
            }
            response
                .with_protocol_type(Some(synced.protocol_type.into()))
                .with_protocol_name(Some(synced.protocol.into()))
        }
        Err(refused) => {
            SyncGroupResponse::default().with_error_code(error::of_group(&refused).code())
        }
    }
}
