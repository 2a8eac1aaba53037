//! ListConfigResources: what there is that has configs (KIP-1142).

use std::collections::BTreeSet;

use odradek_protocol::ResponseError;
use odradek_protocol::messages::list_config_resources_response::ConfigResource;
use odradek_protocol::messages::{ListConfigResourcesRequest, ListConfigResourcesResponse};
use odradek_storage::state::State;

use crate::context::Context;
use crate::resources::{BROKER, BROKER_LOGGER, CLIENT_METRICS, GROUP, TOPIC};
use crate::session::Session;

/// The types that can be asked for.
const TYPES: [i8; 5] = [TOPIC, BROKER, BROKER_LOGGER, CLIENT_METRICS, GROUP];

pub(crate) async fn handle(
    context: &Context,
    _: &Session,
    version: i16,
    request: ListConfigResourcesRequest,
) -> ListConfigResourcesResponse {
    let asked: BTreeSet<i8> = match version {
        // As this was called when it could list nothing else (KIP-1000).
        0 => BTreeSet::from([CLIENT_METRICS]),
        _ if request.resource_types.is_empty() => BTreeSet::from(TYPES),
        _ => request.resource_types.into_iter().collect(),
    };
    if !asked.iter().all(|kind| TYPES.contains(kind)) {
        let code = ResponseError::UnsupportedVersion.code();
        return ListConfigResourcesResponse::default().with_error_code(code);
    }
    let resources = context.machine().read(|state| {
        let of_kind = |kind: i8| {
            names(state, kind).into_iter().map(move |name| {
                ConfigResource::default().with_resource_type(kind).with_resource_name(name.into())
            })
        };
        asked.into_iter().flat_map(of_kind).collect()
    });
    ListConfigResourcesResponse::default().with_config_resources(resources)
}

fn names(state: &State, kind: i8) -> Vec<String> {
    match kind {
        TOPIC => state.topics().map(|topic| topic.name.clone()).collect(),
        BROKER => state.brokers().keys().map(ToString::to_string).collect(),
        CLIENT_METRICS => state.configs().client_metrics().keys().cloned().collect(),
        GROUP => state.configs().groups().keys().cloned().collect(),
        // No logger has configs here.
        _ => Vec::new(),
    }
}
