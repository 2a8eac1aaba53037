//! ListPartitionReassignments: nothing is ever on its way from one broker to another (KIP-455).

use odradek_protocol::messages::{
    ListPartitionReassignmentsRequest, ListPartitionReassignmentsResponse,
};

use crate::context::Context;
use crate::session::Session;

pub(crate) async fn handle(
    _: &Context,
    _: &Session,
    _: i16,
    _: ListPartitionReassignmentsRequest,
) -> ListPartitionReassignmentsResponse {
    ListPartitionReassignmentsResponse::default().with_error_message(None)
}
