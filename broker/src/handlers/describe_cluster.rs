//! DescribeCluster: the brokers there are (KIP-700).

use odradek_protocol::ResponseError;
use odradek_protocol::messages::describe_cluster_response::DescribeClusterBroker;
use odradek_protocol::messages::{BrokerId, DescribeClusterRequest, DescribeClusterResponse};

use crate::cluster::cluster_id;
use crate::context::Context;
use crate::directory::{self, Listed};
use crate::leadership;
use crate::operations;
use crate::session::Session;

/// Endpoint type of controllers (KIP-919), which there are none of.
const CONTROLLERS: i8 = 2;

pub(crate) async fn handle(
    context: &Context,
    session: &Session,
    version: i16,
    request: DescribeClusterRequest,
) -> DescribeClusterResponse {
    if version >= 1 && request.endpoint_type == CONTROLLERS {
        return DescribeClusterResponse::default()
            .with_error_code(ResponseError::MismatchedEndpointType.code())
            .with_error_message(Some("there are no controllers, only brokers".into()))
            .with_endpoint_type(request.endpoint_type);
    }
    let (brokers, cluster_id) =
        context.machine().read(|state| (directory::listed(state, session), cluster_id(state)));
    let controller = leadership::controller(&brokers, context.node_id());
    let broker = |Listed { node, endpoint, zone }| {
        DescribeClusterBroker::default()
            .with_broker_id(BrokerId(node.0))
            .with_host(endpoint.host.into())
            .with_port(i32::from(endpoint.port))
            .with_rack(zone.map(Into::into))
    };
    let operations = operations::of_cluster(request.include_cluster_authorized_operations);
    DescribeClusterResponse::default()
        .with_cluster_authorized_operations(operations)
        .with_cluster_id(cluster_id.into())
        .with_brokers(brokers.into_iter().map(broker).collect())
        .with_controller_id(BrokerId(controller.0))
}
