//! DescribeCluster: the brokers there are (KIP-700).

use odradek_protocol::ResponseError;
use odradek_protocol::id::NodeId;
use odradek_protocol::messages::describe_cluster_response::DescribeClusterBroker;
use odradek_protocol::messages::{BrokerId, DescribeClusterRequest, DescribeClusterResponse};
use odradek_storage::state::brokers::Broker;

use crate::cluster::cluster_id;
use crate::context::Context;
use crate::session::Session;

/// Endpoint type of controllers (KIP-919), which there are none of.
const CONTROLLERS: i8 = 2;

pub(crate) async fn handle(
    context: &Context,
    _: &Session,
    version: i16,
    request: DescribeClusterRequest,
) -> DescribeClusterResponse {
    if version >= 1 && request.endpoint_type == CONTROLLERS {
        return DescribeClusterResponse::default()
            .with_error_code(ResponseError::MismatchedEndpointType.code())
            .with_error_message(Some("there are no controllers, only brokers".into()))
            .with_endpoint_type(request.endpoint_type);
    }
    let response = context.machine().read(|state| {
        let broker = |(node, broker): (&NodeId, &Broker)| {
            DescribeClusterBroker::default()
                .with_broker_id(BrokerId(node.0))
                .with_host(broker.host.clone().into())
                .with_port(i32::from(broker.port))
                .with_rack(broker.zone.clone().map(Into::into))
        };
        DescribeClusterResponse::default()
            .with_cluster_id(cluster_id(state).into())
            .with_brokers(state.brokers().iter().map(broker).collect())
    });
    response.with_controller_id(BrokerId(context.node_id().0))
}
