//! Heartbeat: a member of the classic protocol lives.

use odradek_protocol::messages::{HeartbeatRequest, HeartbeatResponse};
use odradek_storage::command::Committer;

use crate::context::Context;
use crate::error;
use crate::session::Session;

pub(crate) async fn handle(
    context: &Context,
    _: &Session,
    _: i16,
    request: HeartbeatRequest,
) -> HeartbeatResponse {
    let member = Committer {
        member: request.member_id.as_str().to_owned(),
        instance_id: request.group_instance_id.map(|it| it.as_str().to_owned()),
        generation: request.generation_id,
    };
    let heard = context.groups.heartbeat(request.group_id.as_str(), &member).await;
    let code = heard.map_or_else(|refused| error::of_group(&refused).code(), |()| 0);
    HeartbeatResponse::default().with_error_code(code)
}
