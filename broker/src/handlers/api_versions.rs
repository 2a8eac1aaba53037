//! ApiVersions: what is spoken here (KIP-35, KIP-511).

use odradek_protocol::api;
use odradek_protocol::messages::api_versions_response::{
    ApiVersion, FinalizedFeatureKey, SupportedFeatureKey,
};
use odradek_protocol::messages::{ApiVersionsRequest, ApiVersionsResponse};

use crate::context::Context;
use crate::session::Session;

/// Features that are in force, with their levels (KIP-584, KIP-1022): groups of the consumer
/// protocol (KIP-848), transactions with an epoch each (KIP-890).
const FEATURES: &[(&str, i16)] = &[("group.version", 1), ("transaction.version", 2)];

/// Says that the features are known, and not just unknown. Grows when they change.
const FEATURES_EPOCH: i64 = 0;

/// The same on every broker of a release, whoever asks: clients remember it per connection.
pub(crate) async fn handle(
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
    if version < 3 {
        return response;
    }
    let supported = FEATURES.iter().map(|(name, level)| {
        SupportedFeatureKey::default()
            .with_name((*name).into())
            .with_min_version(0)
            .with_max_version(*level)
    });
    let finalized = FEATURES.iter().map(|(name, level)| {
        FinalizedFeatureKey::default()
            .with_name((*name).into())
            .with_min_version_level(*level)
            .with_max_version_level(*level)
    });
    response
        .with_supported_features(supported.collect())
        .with_finalized_features_epoch(FEATURES_EPOCH)
        .with_finalized_features(finalized.collect())
}
