//! Dispatch: from a request to its handler.

use std::sync::Arc;

use bytes::Bytes;
use futures::future::BoxFuture;
use odradek_protocol::frame::RequestHeader;
use odradek_protocol::messages::ProduceResponse;
use odradek_protocol::request::Request;
use odradek_protocol::response::{Response, unsupported_api_versions};

use crate::context::Context;
use crate::handlers::produce::Begun;
use crate::handlers::{
    alter_configs, api_versions, create_partitions, create_topics, delete_topics, describe_cluster,
    describe_configs, fetch, find_coordinator, incremental_alter_configs, init_producer_id,
    list_offsets, metadata, offset_commit, offset_fetch, offset_for_leader_epoch, produce,
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

/// Finishes a reply: the frame, in parts; `None` if it can't be said, and the connection must end.
pub(crate) async fn finish(
    context: &Context,
    header: &RequestHeader,
    reply: Reply,
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
    match response.encode(header.version, header.correlation_id) {
        Ok(parts) => Some(parts),
        Err(error) => {
            tracing::error!(%error, "a response of ours can't be encoded");
            None
        }
    }
}

/// Executes a request; `None` for those that are not executed here.
async fn handle(c: &Context, s: &Session, version: i16, request: Request) -> Option<Response> {
    Some(match request {
        Request::Produce(_) | Request::UnsupportedApiVersions => return None,
        Request::ApiVersions(it) => Response::ApiVersions(api_versions::handle(c, s, version, it)),
        Request::Fetch(it) => Response::Fetch(fetch::handle(c, s, version, it).await),
        Request::ListOffsets(it) => {
            Response::ListOffsets(list_offsets::handle(c, s, version, it).await)
        }
        Request::Metadata(it) => Response::Metadata(metadata::handle(c, s, version, it).await),
        Request::OffsetCommit(it) => {
            Response::OffsetCommit(offset_commit::handle(c, s, version, it).await)
        }
        Request::OffsetFetch(it) => {
            Response::OffsetFetch(offset_fetch::handle(c, s, version, it).await)
        }
        Request::FindCoordinator(it) => {
            Response::FindCoordinator(find_coordinator::handle(c, s, version, it).await)
        }
        Request::CreateTopics(it) => {
            Response::CreateTopics(create_topics::handle(c, s, version, it).await)
        }
        Request::DeleteTopics(it) => {
            Response::DeleteTopics(delete_topics::handle(c, s, version, it).await)
        }
        Request::InitProducerId(it) => {
            Response::InitProducerId(init_producer_id::handle(c, s, version, it).await)
        }
        Request::OffsetForLeaderEpoch(it) => {
            Response::OffsetForLeaderEpoch(offset_for_leader_epoch::handle(c, s, version, it).await)
        }
        Request::DescribeConfigs(it) => {
            Response::DescribeConfigs(describe_configs::handle(c, s, version, it).await)
        }
        Request::AlterConfigs(it) => {
            Response::AlterConfigs(alter_configs::handle(c, s, version, it).await)
        }
        Request::CreatePartitions(it) => {
            Response::CreatePartitions(create_partitions::handle(c, s, version, it).await)
        }
        Request::IncrementalAlterConfigs(it) => Response::IncrementalAlterConfigs(
            incremental_alter_configs::handle(c, s, version, it).await,
        ),
        Request::DescribeCluster(it) => {
            Response::DescribeCluster(describe_cluster::handle(c, s, version, it).await)
        }
    })
}
