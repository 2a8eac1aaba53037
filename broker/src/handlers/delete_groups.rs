//! DeleteGroups: groups that nobody is in, with their offsets.

use odradek_protocol::messages::delete_groups_response::DeletableGroupResult;
use odradek_protocol::messages::{DeleteGroupsRequest, DeleteGroupsResponse};

use crate::context::Context;
use crate::error;
use crate::session::Session;

pub(crate) async fn handle(
    context: &Context,
    _: &Session,
    _: i16,
    request: DeleteGroupsRequest,
) -> DeleteGroupsResponse {
    let mut results = Vec::with_capacity(request.groups_names.len());
    for group in request.groups_names {
        let deleted = context.groups.delete_group(group.as_str()).await;
        let code = deleted.map_or_else(|refused| error::of_group(&refused).code(), |()| 0);
        results.push(DeletableGroupResult::default().with_group_id(group).with_error_code(code));
    }
    DeleteGroupsResponse::default().with_results(results)
}
