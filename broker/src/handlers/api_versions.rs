//! ApiVersions: what is spoken here (KIP-35, KIP-511).

use odradek_protocol::api;
use odradek_protocol::messages::api_versions_response::ApiVersion;
use odradek_protocol::messages::{ApiVersionsRequest, ApiVersionsResponse};

use crate::context::Context;
use crate::session::Session;

/// The same on every broker of a release, whoever asks: clients remember it per connection.
pub(crate) fn handle(
    _: &Context,
    session: &Session,
    version: i16,
    request: ApiVersionsRequest,
) -> ApiVersionsResponse {
    tracing::debug!(
        peer = %session.peer,
        client = session.client_id,
        software = %request.client_software_name.as_str().escape_default(),
        "connected"
    );
    let row = |api: &api::Api| {
        ApiVersion::default()
            .with_api_key(api::number(api.key))
            .with_min_version(api.advertised_min)
            .with_max_version(api.max)
    };
    let response =
        ApiVersionsResponse::default().with_api_keys(api::APIS.iter().map(row).collect());
    // No feature is finalised yet; an epoch of 0 says that this is known, and not just unknown.
    if version >= 3 { response.with_finalized_features_epoch(0) } else { response }
}
