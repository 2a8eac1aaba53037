//! DeleteAcls: there is no authorizer and there are no entries, so each filter is refused.

use odradek_protocol::ResponseError;
use odradek_protocol::messages::delete_acls_response::DeleteAclsFilterResult;
use odradek_protocol::messages::{DeleteAclsRequest, DeleteAclsResponse};

use crate::context::Context;
use crate::session::Session;

pub(crate) async fn handle(
    _: &Context,
    _: &Session,
    _: i16,
    request: DeleteAclsRequest,
) -> DeleteAclsResponse {
    let refused = DeleteAclsFilterResult::default()
        .with_error_code(ResponseError::SecurityDisabled.code())
        .with_error_message(Some("no authorizer is configured".into()));
    DeleteAclsResponse::default().with_filter_results(vec![refused; request.filters.len()])
}
