//! FindCoordinator: which broker looks after a group, or a transactional id.

use odradek_protocol::messages::find_coordinator_response::Coordinator;
use odradek_protocol::messages::{BrokerId, FindCoordinatorRequest, FindCoordinatorResponse};
use odradek_protocol::{ResponseError, StrBytes};

use crate::context::Context;
use crate::directory::{self, Listed};
use crate::session::Session;

/// Key type of consumer groups.
const GROUP: i8 = 0;

/// Key type of transactional ids. Share groups (2) are not served.
const TRANSACTION: i8 = 1;

pub(crate) async fn handle(
    context: &Context,
    session: &Session,
    version: i16,
    request: FindCoordinatorRequest,
) -> FindCoordinatorResponse {
    let key_type = if version >= 1 { request.key_type } else { GROUP };
    if version >= 4 {
        let found =
            request.coordinator_keys.iter().map(|key| find(context, session, key_type, key));
        return FindCoordinatorResponse::default().with_coordinators(found.collect());
    }
    let found = find(context, session, key_type, &request.key);
    let response = FindCoordinatorResponse::default()
        .with_error_code(found.error_code)
        .with_node_id(found.node_id)
        .with_host(found.host)
        .with_port(found.port);
    if version >= 1 { response.with_error_message(found.error_message) } else { response }
}

fn find(context: &Context, session: &Session, key_type: i8, key: &StrBytes) -> Coordinator {
    let failed = |code: ResponseError, message: &'static str| {
        Coordinator::default()
            .with_key(key.clone())
            .with_node_id(BrokerId(-1))
            .with_port(-1)
            .with_error_code(code.code())
            .with_error_message(Some(message.into()))
    };
    if key_type != GROUP && key_type != TRANSACTION {
        let message = "share groups are not supported by this release";
        return failed(ResponseError::InvalidRequest, message);
    }
    let found = context.machine().read(|state| {
        let node = state.coordinator_of(key.as_str())?;
        directory::find(state, session, node)
    });
    match found {
        Some(Listed { node, endpoint, .. }) => Coordinator::default()
            .with_key(key.clone())
            .with_node_id(BrokerId(node.0))
            .with_host(endpoint.host.into())
            .with_port(i32::from(endpoint.port)),
        None => failed(ResponseError::CoordinatorNotAvailable, "no broker is registered"),
    }
}
