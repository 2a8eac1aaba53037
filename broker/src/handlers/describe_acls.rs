//! DescribeAcls: there is no authorizer, and so there are no entries.

use odradek_protocol::ResponseError;
use odradek_protocol::messages::{DescribeAclsRequest, DescribeAclsResponse};

use crate::context::Context;
use crate::session::Session;

pub(crate) async fn handle(
    _: &Context,
    _: &Session,
    _: i16,
    _: DescribeAclsRequest,
) -> DescribeAclsResponse {
    DescribeAclsResponse::default()
        .with_error_code(ResponseError::SecurityDisabled.code())
        .with_error_message(Some("no authorizer is configured".into()))
}
