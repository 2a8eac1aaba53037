//! DescribeClientQuotas: none can be set yet (KIP-546), so none matches.

use odradek_protocol::messages::{DescribeClientQuotasRequest, DescribeClientQuotasResponse};

use crate::context::Context;
use crate::session::Session;

pub(crate) async fn handle(
    _: &Context,
    _: &Session,
    _: i16,
    _: DescribeClientQuotasRequest,
) -> DescribeClientQuotasResponse {
    // Null would say that there was an error.
    DescribeClientQuotasResponse::default().with_error_message(None).with_entries(Some(Vec::new()))
}
