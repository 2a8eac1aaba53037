//! Requests: bodies turned into messages.

use bytes::Bytes;
use kafka_protocol::protocol::Decodable;

use crate::api;
use crate::bounds;
use crate::error::DecodeError;
use crate::frame::RequestHeader;
use crate::messages::{
    AddOffsetsToTxnRequest, AddPartitionsToTxnRequest, AlterConfigsRequest,
    AlterPartitionReassignmentsRequest, ApiKey, ApiVersionsRequest, ConsumerGroupDescribeRequest,
    ConsumerGroupHeartbeatRequest, CreateAclsRequest, CreatePartitionsRequest, CreateTopicsRequest,
    DeleteAclsRequest, DeleteGroupsRequest, DeleteRecordsRequest, DeleteTopicsRequest,
    DescribeAclsRequest, DescribeClientQuotasRequest, DescribeClusterRequest,
    DescribeConfigsRequest, DescribeGroupsRequest, DescribeLogDirsRequest,
    DescribeProducersRequest, DescribeTopicPartitionsRequest, DescribeTransactionsRequest,
    DescribeUserScramCredentialsRequest, ElectLeadersRequest, EndTxnRequest, FetchRequest,
    FindCoordinatorRequest, HeartbeatRequest, IncrementalAlterConfigsRequest,
    InitProducerIdRequest, JoinGroupRequest, LeaveGroupRequest, ListConfigResourcesRequest,
    ListGroupsRequest, ListOffsetsRequest, ListPartitionReassignmentsRequest,
    ListTransactionsRequest, MetadataRequest, OffsetCommitRequest, OffsetDeleteRequest,
    OffsetFetchRequest, OffsetForLeaderEpochRequest, ProduceRequest, SyncGroupRequest,
    TxnOffsetCommitRequest, WriteTxnMarkersRequest,
};

/// Declares the requests that are served, and how each is decoded.
macro_rules! requests {
    ($($name:ident($message:ident)),+ $(,)?) => {
        /// A request of one of the kinds that are served.
        #[derive(Clone, Debug, PartialEq)]
        #[expect(missing_docs, reason = "named as in the protocol")]
        pub enum Request {
            $($name($message),)+
            /// ApiVersions in a version that is not served: to be answered by
            /// [`crate::response::unsupported_api_versions`].
            UnsupportedApiVersions,
        }

        fn decode_body(
            key: ApiKey,
            version: i16,
            body: &mut Bytes,
        ) -> Result<Request, DecodeError> {
            match key {
                $(ApiKey::$name => decode(body, version).map(Request::$name),)+
                other => Err(DecodeError::UnknownApi(api::number(other))),
            }
        }
    };
}

requests! {
    Produce(ProduceRequest),
    Fetch(FetchRequest),
    ListOffsets(ListOffsetsRequest),
    Metadata(MetadataRequest),
    OffsetCommit(OffsetCommitRequest),
    OffsetFetch(OffsetFetchRequest),
    FindCoordinator(FindCoordinatorRequest),
    JoinGroup(JoinGroupRequest),
    Heartbeat(HeartbeatRequest),
    LeaveGroup(LeaveGroupRequest),
    SyncGroup(SyncGroupRequest),
    DescribeGroups(DescribeGroupsRequest),
    ListGroups(ListGroupsRequest),
    ApiVersions(ApiVersionsRequest),
    CreateTopics(CreateTopicsRequest),
    DeleteTopics(DeleteTopicsRequest),
    DeleteRecords(DeleteRecordsRequest),
    InitProducerId(InitProducerIdRequest),
    OffsetForLeaderEpoch(OffsetForLeaderEpochRequest),
    AddPartitionsToTxn(AddPartitionsToTxnRequest),
    AddOffsetsToTxn(AddOffsetsToTxnRequest),
    EndTxn(EndTxnRequest),
    WriteTxnMarkers(WriteTxnMarkersRequest),
    TxnOffsetCommit(TxnOffsetCommitRequest),
    DescribeAcls(DescribeAclsRequest),
    CreateAcls(CreateAclsRequest),
    DeleteAcls(DeleteAclsRequest),
    DescribeConfigs(DescribeConfigsRequest),
    AlterConfigs(AlterConfigsRequest),
    DescribeLogDirs(DescribeLogDirsRequest),
    CreatePartitions(CreatePartitionsRequest),
    DeleteGroups(DeleteGroupsRequest),
    ElectLeaders(ElectLeadersRequest),
    IncrementalAlterConfigs(IncrementalAlterConfigsRequest),
    AlterPartitionReassignments(AlterPartitionReassignmentsRequest),
    ListPartitionReassignments(ListPartitionReassignmentsRequest),
    OffsetDelete(OffsetDeleteRequest),
    DescribeClientQuotas(DescribeClientQuotasRequest),
    DescribeUserScramCredentials(DescribeUserScramCredentialsRequest),
    DescribeCluster(DescribeClusterRequest),
    DescribeProducers(DescribeProducersRequest),
    DescribeTransactions(DescribeTransactionsRequest),
    ListTransactions(ListTransactionsRequest),
    ConsumerGroupHeartbeat(ConsumerGroupHeartbeatRequest),
    ConsumerGroupDescribe(ConsumerGroupDescribeRequest),
    ListConfigResources(ListConfigResourcesRequest),
    DescribeTopicPartitions(DescribeTopicPartitionsRequest),
}

impl Request {
    /// Decodes the body that followed `header`. Record batches stay slices of it.
    pub fn decode(header: &RequestHeader, mut body: Bytes) -> Result<Self, DecodeError> {
        let row = api::find(header.api).ok_or(DecodeError::UnknownApi(header.api))?;
        let version = header.version;
        if version < row.min || version > row.max {
            return match row.key {
                ApiKey::ApiVersions => Ok(Self::UnsupportedApiVersions),
                _ => Err(DecodeError::UnsupportedVersion { api: header.api, version }),
            };
        }
        bounds::check(row.key, version, &body)?;
        decode_body(row.key, version, &mut body)
    }
}

fn decode<M: Decodable>(body: &mut Bytes, version: i16) -> Result<M, DecodeError> {
    M::decode(body, version).map_err(|error| DecodeError::Malformed(error.to_string()))
}
