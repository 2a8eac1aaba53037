//! CreateAcls: there is no authorizer that would heed an entry, so each is refused.

use odradek_protocol::ResponseError;
use odradek_protocol::messages::create_acls_response::AclCreationResult;
use odradek_protocol::messages::{CreateAclsRequest, CreateAclsResponse};

use crate::context::Context;
use crate::session::Session;

pub(crate) async fn handle(
    _: &Context,
    _: &Session,
    _: i16,
    request: CreateAclsRequest,
) -> CreateAclsResponse {
    let refused = AclCreationResult::default()
        .with_error_code(ResponseError::SecurityDisabled.code())
        .with_error_message(Some("no authorizer is configured".into()));
    CreateAclsResponse::default().with_results(vec![refused; request.creations.len()])
}
