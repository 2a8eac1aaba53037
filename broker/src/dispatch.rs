//! Dispatch: from a request to its handler.

use std::sync::Arc;

use bytes::Bytes;
use futures::future::BoxFuture;
use odradek_protocol::frame::RequestHeader;
use odradek_protocol::messages::ProduceResponse;
use odradek_protocol::request::Request;
use odradek_protocol::response::{Response, unsupported_api_versions};

use tokio::time::Instant;

use crate::context::Context;
use crate::handlers::produce::Begun;
use crate::handlers::{
    add_offsets_to_txn, add_partitions_to_txn, alter_configs, alter_partition_reassignments,
    api_versions, consumer_group_describe, consumer_group_heartbeat, create_acls,
    create_partitions, create_topics, delete_acls, delete_groups, delete_records, delete_topics,
    describe_acls, describe_client_quotas, describe_cluster, describe_configs, describe_groups,
    describe_log_dirs, describe_producers, describe_topic_partitions, describe_transactions,
    describe_user_scram_credentials, elect_leaders, end_txn, fetch, find_coordinator, heartbeat,
    incremental_alter_configs, init_producer_id, join_group, leave_group, list_config_resources,
    list_groups, list_offsets, list_partition_reassignments, list_transactions, metadata,
    offset_commit, offset_delete, offset_fetch, offset_for_leader_epoch, produce, sync_group,
    txn_offset_commit, write_txn_markers,
};
use crate::session::Session;

/// A reply on its way.
pub(crate) enum Reply {
    /// Begun: batches are on their way into the log.
    Produce(BoxFuture<'static, ProduceResponse>),
    /// To be executed when its turn has come.
    Later(Box<(Session, Request)>),
    /// The client wants none.
    None,
    /// The client wants none and must learn of a failure: by losing its connection.
    Close,
}

/// Begins a request: a Produce request at once, any other when its turn has come.
pub(crate) async fn begin(
    context: &Arc<Context>,
    session: Session,
    version: i16,
    request: Request,
) -> Reply {
    match request {
        Request::Produce(request) => {
            match produce::begin(context, &session, version, request).await {
                Begun::Pending(response) => Reply::Produce(response),
                Begun::Silent => Reply::None,
                Begun::Close => Reply::Close,
            }
        }
        request => Reply::Later(Box::new((session, request))),
    }
}

/// Finishes a reply to a request that was there at `since`: the frame, in parts; `None` if it
/// can't be said, and the connection must end.
pub(crate) async fn finish(
    context: &Context,
    header: &RequestHeader,
    reply: Reply,
    since: Instant,
) -> Option<Vec<Bytes>> {
    let response = match reply {
        Reply::Produce(response) => Response::Produce(response.await),
        Reply::Later(later) => {
            let (session, request) = *later;
            if request == Request::UnsupportedApiVersions {
                return unsupported_api_versions(header.correlation_id).ok();
            }
            handle(context, &session, header.version, request).await?
        }
        Reply::None | Reply::Close => return None,
    };
    context.metrics.carried_out(header.api, since.elapsed(), Some(&response));
    match response.encode(header.version, header.correlation_id) {
        Ok(parts) => Some(parts),
        Err(error) => {
            tracing::error!(%error, "a response of ours can't be encoded");
            None
        }
    }
}

/// Declares which handler executes which request; Produce has [`begin`].
macro_rules! handlers {
    ($($name:ident => $handler:ident),+ $(,)?) => {
        /// Executes a request; `None` for those that are not executed here.
        async fn handle(
            context: &Context,
            session: &Session,
            version: i16,
            request: Request,
        ) -> Option<Response> {
            match request {
                Request::Produce(_) | Request::UnsupportedApiVersions => None,
                $(Request::$name(request) => {
                    let response = $handler::handle(context, session, version, request).await;
                    Some(Response::$name(response))
                })+
            }
        }
    };
}

handlers! {
    Fetch => fetch,
    ListOffsets => list_offsets,
    Metadata => metadata,
    OffsetCommit => offset_commit,
    OffsetFetch => offset_fetch,
    FindCoordinator => find_coordinator,
    JoinGroup => join_group,
    Heartbeat => heartbeat,
    LeaveGroup => leave_group,
    SyncGroup => sync_group,
    DescribeGroups => describe_groups,
    ListGroups => list_groups,
    ApiVersions => api_versions,
    CreateTopics => create_topics,
    DeleteTopics => delete_topics,
    DeleteRecords => delete_records,
    InitProducerId => init_producer_id,
    OffsetForLeaderEpoch => offset_for_leader_epoch,
    AddPartitionsToTxn => add_partitions_to_txn,
    AddOffsetsToTxn => add_offsets_to_txn,
    EndTxn => end_txn,
    WriteTxnMarkers => write_txn_markers,
    TxnOffsetCommit => txn_offset_commit,
    DescribeAcls => describe_acls,
    CreateAcls => create_acls,
    DeleteAcls => delete_acls,
    DescribeConfigs => describe_configs,
    AlterConfigs => alter_configs,
    DescribeLogDirs => describe_log_dirs,
    CreatePartitions => create_partitions,
    DeleteGroups => delete_groups,
    ElectLeaders => elect_leaders,
    IncrementalAlterConfigs => incremental_alter_configs,
    AlterPartitionReassignments => alter_partition_reassignments,
    ListPartitionReassignments => list_partition_reassignments,
    OffsetDelete => offset_delete,
    DescribeClientQuotas => describe_client_quotas,
    DescribeUserScramCredentials => describe_user_scram_credentials,
    DescribeCluster => describe_cluster,
    DescribeProducers => describe_producers,
    DescribeTransactions => describe_transactions,
    ListTransactions => list_transactions,
    ConsumerGroupHeartbeat => consumer_group_heartbeat,
    ConsumerGroupDescribe => consumer_group_describe,
    ListConfigResources => list_config_resources,
    DescribeTopicPartitions => describe_topic_partitions,
}
