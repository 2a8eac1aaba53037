//! Bodies of requests, of every kind in every version that is served.

use bytes::{Bytes, BytesMut};
use kafka_protocol::messages::{ApiKey, *};
use kafka_protocol::protocol::Encodable;
use odradek_protocol::api::{self, APIS};
use odradek_protocol::bounds;
use odradek_protocol::frame::RequestHeader;
use odradek_protocol::request::Request;

use super::oracle::bounded_with;

/// Memory that an element takes at most, besides eight times its bytes: messages are trees of
/// structs, with room for fields that this version does not have. A request has at most
/// [`bounds::ELEMENTS_MAX`] of them.
const ELEMENT_BYTES: u64 = 400;

/// The first byte chooses the API, the second the version.
pub(crate) fn run(data: &[u8]) {
    let [api, version, body @ ..] = data else { return };
    let row = &APIS[usize::from(*api) % APIS.len()];
    let versions = row.max - row.min + 1;
    let version = row.min + i16::from(*version) % versions;
    let header = RequestHeader {
        api: api::number(row.key),
        version,
        correlation_id: 1,
        client_id: String::new(),
    };
    let body = Bytes::copy_from_slice(body);
    let elements = u64::try_from(body.len().min(bounds::ELEMENTS_MAX)).unwrap();
    let decode = || Request::decode(&header, body.clone());
    let Ok(request) = bounded_with(body.len(), elements * ELEMENT_BYTES, decode) else { return };
    let Some(encoded) = encode(&request, version) else { return };
    let again = Request::decode(&header, encoded.clone());
    assert_eq!(again.as_ref(), Ok(&request), "{:?} {version}: {encoded:?}", row.key);
}

/// Declares how each kind is written again, and what an empty one is.
macro_rules! kinds {
    ($($name:ident($message:ident)),+ $(,)?) => {
        fn encode(request: &Request, version: i16) -> Option<Bytes> {
            match request {
                $(Request::$name(request) => Some(encoded(request, version)),)+
                Request::UnsupportedApiVersions => None,
            }
        }

        fn empty(key: ApiKey, version: i16) -> Bytes {
            match key {
                $(ApiKey::$name => encoded(&$message::default(), version),)+
                other => unreachable!("{other:?} is not served"),
            }
        }
    };
}

kinds! {
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

fn encoded<M: Encodable>(request: &M, version: i16) -> Bytes {
    let mut bytes = BytesMut::new();
    request.encode(&mut bytes, version).expect("what was read in a version can be written in it");
    bytes.freeze()
}

/// An empty request of each kind, in its first and in its last version.
pub(crate) fn samples() -> impl Iterator<Item = (ApiKey, i16, Bytes)> {
    let versions = APIS.iter().flat_map(|row| [(row.key, row.min), (row.key, row.max)]);
    versions.map(|(key, version)| (key, version, empty(key, version)))
}

pub(crate) fn seeds() -> Vec<Vec<u8>> {
    let mut seeds = Vec::new();
    for (api, row) in (0_u8..).zip(APIS) {
        for version in row.min..=row.max {
            let chosen = [api, u8::try_from(version - row.min).unwrap()];
            seeds.push([&chosen[..], &empty(row.key, version)].concat());
        }
    }
    seeds
}
