//! ListGroups: the groups that this broker coordinates; clients ask every broker.

use odradek_protocol::messages::list_groups_response::ListedGroup;
use odradek_protocol::messages::{GroupId, ListGroupsRequest, ListGroupsResponse};
use odradek_storage::state::groups::{Group, Membership};

use crate::context::Context;
use crate::group::Listed;
use crate::session::Session;

/// From this version on the state is told and can be asked for (KIP-518).
const STATES: i16 = 4;

/// The same for the type (KIP-848).
const TYPES: i16 = 5;

pub(crate) async fn handle(
    context: &Context,
    _: &Session,
    version: i16,
    request: ListGroupsRequest,
) -> ListGroupsResponse {
    let any = |wanted: &[odradek_protocol::StrBytes], it: &str| {
        wanted.is_empty() || wanted.iter().any(|wanted| wanted.eq_ignore_ascii_case(it))
    };
    let listed = context.groups.list(kind);
    let groups = listed.into_iter().filter_map(|Listed { name, state, kind }| {
        let (group_type, protocol_type) = kind;
        let is_wanted =
            any(&request.states_filter, state) && any(&request.types_filter, group_type);
        let group = ListedGroup::default()
            .with_group_id(GroupId(name.into()))
            .with_protocol_type(protocol_type.into());
        let group = if version >= STATES { group.with_group_state(state.into()) } else { group };
        let group = if version >= TYPES { group.with_group_type(group_type.into()) } else { group };
        is_wanted.then_some(group)
    });
    ListGroupsResponse::default().with_groups(groups.collect())
}

/// Type and protocol type of a group.
fn kind(group: &Group) -> (&'static str, String) {
    match &group.membership {
        Membership::None => ("Classic", String::new()),
        Membership::Classic(classic) => ("Classic", classic.protocol_type.clone()),
        Membership::Consumer(_) => ("Consumer", "consumer".to_owned()),
    }
}
