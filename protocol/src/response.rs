//! Responses: messages turned into frames.

use bytes::Bytes;
use kafka_protocol::protocol::Encodable;

use crate::ResponseError;
use crate::api;
use crate::fetch_response::FetchResponse;
use crate::frame::{begin_response, put_length};
use crate::messages::api_versions_response::ApiVersion;
use crate::messages::{
    AddOffsetsToTxnResponse, AddPartitionsToTxnResponse, AlterConfigsResponse,
    AlterPartitionReassignmentsResponse, ApiKey, ApiVersionsResponse,
    ConsumerGroupDescribeResponse, ConsumerGroupHeartbeatResponse, CreateAclsResponse,
    CreatePartitionsResponse, CreateTopicsResponse, DeleteAclsResponse, DeleteGroupsResponse,
    DeleteRecordsResponse, DeleteTopicsResponse, DescribeAclsResponse,
    DescribeClientQuotasResponse, DescribeClusterResponse, DescribeConfigsResponse,
    DescribeGroupsResponse, DescribeLogDirsResponse, DescribeProducersResponse,
    DescribeTopicPartitionsResponse, DescribeTransactionsResponse,
    DescribeUserScramCredentialsResponse, ElectLeadersResponse, EndTxnResponse,
    FindCoordinatorResponse, HeartbeatResponse, IncrementalAlterConfigsResponse,
    InitProducerIdResponse, JoinGroupResponse, LeaveGroupResponse, ListConfigResourcesResponse,
    ListGroupsResponse, ListOffsetsResponse, ListPartitionReassignmentsResponse,
    ListTransactionsResponse, MetadataResponse, OffsetCommitResponse, OffsetDeleteResponse,
    OffsetFetchResponse, OffsetForLeaderEpochResponse, ProduceResponse, SyncGroupResponse,
    TxnOffsetCommitResponse, WriteTxnMarkersResponse,
};

/// A response can't be said in the version that was asked for: a bug of ours.
#[derive(Debug, thiserror::Error)]
#[error("{key:?} response can't be encoded in version {version}: {cause}")]
pub struct EncodeError {
    /// Which response.
    pub key: ApiKey,
    /// In which version.
    pub version: i16,
    /// What the encoder says.
    pub cause: String,
}

/// Declares the responses, and how each is encoded.
macro_rules! responses {
    ($($name:ident($message:ident)),+ $(,)?) => {
        /// A response of one of the kinds that are served.
        #[derive(Clone, Debug, PartialEq)]
        #[expect(missing_docs, reason = "named as in the protocol")]
        pub enum Response {
            $($name($message),)+
            Fetch(FetchResponse),
        }

        impl Response {
            /// The frame in parts, to be written one after the other. Record batches are not
            /// copied.
            pub fn encode(
                &self,
                version: i16,
                correlation_id: i32,
            ) -> Result<Vec<Bytes>, EncodeError> {
                match self {
                    $(Self::$name(message) => {
                        encode(ApiKey::$name, message, version, correlation_id)
                    })+
                    Self::Fetch(response) => Ok(response.encode(version, correlation_id)),
                }
            }
        }
    };
}

responses! {
    Produce(ProduceResponse),
    ListOffsets(ListOffsetsResponse),
    Metadata(MetadataResponse),
    OffsetCommit(OffsetCommitResponse),
    OffsetFetch(OffsetFetchResponse),
    FindCoordinator(FindCoordinatorResponse),
    JoinGroup(JoinGroupResponse),
    Heartbeat(HeartbeatResponse),
    LeaveGroup(LeaveGroupResponse),
    SyncGroup(SyncGroupResponse),
    DescribeGroups(DescribeGroupsResponse),
    ListGroups(ListGroupsResponse),
    ApiVersions(ApiVersionsResponse),
    CreateTopics(CreateTopicsResponse),
    DeleteTopics(DeleteTopicsResponse),
    DeleteRecords(DeleteRecordsResponse),
    InitProducerId(InitProducerIdResponse),
    OffsetForLeaderEpoch(OffsetForLeaderEpochResponse),
    AddPartitionsToTxn(AddPartitionsToTxnResponse),
    AddOffsetsToTxn(AddOffsetsToTxnResponse),
    EndTxn(EndTxnResponse),
    WriteTxnMarkers(WriteTxnMarkersResponse),
    TxnOffsetCommit(TxnOffsetCommitResponse),
    DescribeAcls(DescribeAclsResponse),
    CreateAcls(CreateAclsResponse),
    DeleteAcls(DeleteAclsResponse),
    DescribeConfigs(DescribeConfigsResponse),
    AlterConfigs(AlterConfigsResponse),
    DescribeLogDirs(DescribeLogDirsResponse),
    CreatePartitions(CreatePartitionsResponse),
    DeleteGroups(DeleteGroupsResponse),
    ElectLeaders(ElectLeadersResponse),
    IncrementalAlterConfigs(IncrementalAlterConfigsResponse),
    AlterPartitionReassignments(AlterPartitionReassignmentsResponse),
    ListPartitionReassignments(ListPartitionReassignmentsResponse),
    OffsetDelete(OffsetDeleteResponse),
    DescribeClientQuotas(DescribeClientQuotasResponse),
    DescribeUserScramCredentials(DescribeUserScramCredentialsResponse),
    DescribeCluster(DescribeClusterResponse),
    DescribeProducers(DescribeProducersResponse),
    DescribeTransactions(DescribeTransactionsResponse),
    ListTransactions(ListTransactionsResponse),
    ConsumerGroupHeartbeat(ConsumerGroupHeartbeatResponse),
    ConsumerGroupDescribe(ConsumerGroupDescribeResponse),
    ListConfigResources(ListConfigResourcesResponse),
    DescribeTopicPartitions(DescribeTopicPartitionsResponse),
}

fn encode(
    key: ApiKey,
    message: &impl Encodable,
    version: i16,
    correlation_id: i32,
) -> Result<Vec<Bytes>, EncodeError> {
    let mut frame = begin_response(key, version, correlation_id);
    message.encode(&mut frame, version).map_err(|error| EncodeError {
        key,
        version,
        cause: error.to_string(),
    })?;
    put_length(&mut frame, 0);
    Ok(vec![frame.freeze()])
}

/// The answer to an ApiVersions request of a version that is not served: in version 0, naming the
/// versions of ApiVersions itself, so that the client asks again in one of them (KIP-511).
pub fn unsupported_api_versions(correlation_id: i32) -> Result<Vec<Bytes>, EncodeError> {
    let own = api::find(api::number(ApiKey::ApiVersions)).map_or_else(Vec::new, |row| {
        let version = ApiVersion::default()
            .with_api_key(api::number(row.key))
            .with_min_version(row.advertised_min)
            .with_max_version(row.max);
        vec![version]
    });
    let response = ApiVersionsResponse::default()
        .with_error_code(ResponseError::UnsupportedVersion.code())
        .with_api_keys(own);
    Response::ApiVersions(response).encode(0, correlation_id)
}
