//! The shapes of the requests that are served, after the schemas of Apache Kafka 4.1.

use super::{Field, Kind, Shape};
use crate::messages::ApiKey;

const ALWAYS: i16 = i16::MAX;
/// Of a request that no version made flexible.
const NEVER: i16 = i16::MAX;

const fn all(kind: Kind) -> Field {
    Field { since: 0, until: ALWAYS, kind }
}

const fn since(since: i16, kind: Kind) -> Field {
    Field { since, until: ALWAYS, kind }
}

const fn until(until: i16, kind: Kind) -> Field {
    Field { since: 0, until, kind }
}

const fn between(since: i16, until: i16, kind: Kind) -> Field {
    Field { since, until, kind }
}

const fn shape(fields: &'static [Field]) -> Shape {
    Shape { fields, tags: &[] }
}

/// Elements without tagged fields, marked by a tag that can't be.
const fn bare(fields: &'static [Field]) -> Shape {
    Shape { fields, tags: &[(u32::MAX, 0, Kind::Fixed(0))] }
}

const I8: Kind = Kind::Fixed(1);
const BOOL: Kind = Kind::Fixed(1);
const I16: Kind = Kind::Fixed(2);
const I32: Kind = Kind::Fixed(4);
const I64: Kind = Kind::Fixed(8);
const UUID: Kind = Kind::Fixed(16);
const TEXT: Kind = Kind::Text;

static I8S: Shape = bare(&[all(I8)]);
static I32S: Shape = bare(&[all(I32)]);
static I64S: Shape = bare(&[all(I64)]);
static TEXTS: Shape = bare(&[all(TEXT)]);

static PRODUCE: Shape = shape(&[all(TEXT), all(I16), all(I32), all(Kind::Array(&PRODUCE_TOPIC))]);
static PRODUCE_TOPIC: Shape =
    shape(&[until(12, TEXT), since(13, UUID), all(Kind::Array(&PRODUCE_PARTITION))]);
static PRODUCE_PARTITION: Shape = shape(&[all(I32), all(Kind::Blob)]);

static FETCH: Shape = Shape {
    fields: &[
        until(14, I32),
        all(I32),
        all(I32),
        all(I32),
        all(I8),
        since(7, I32),
        since(7, I32),
        all(Kind::Array(&FETCH_TOPIC)),
        since(7, Kind::Array(&FETCH_FORGOTTEN)),
        since(11, TEXT),
    ],
    tags: &[(0, 12, TEXT), (1, 15, Kind::Struct(&FETCH_REPLICA_STATE))],
};
static FETCH_TOPIC: Shape =
    shape(&[until(12, TEXT), since(13, UUID), all(Kind::Array(&FETCH_PARTITION))]);
static FETCH_PARTITION: Shape = Shape {
    fields: &[all(I32), since(9, I32), all(I64), since(12, I32), since(5, I64), all(I32)],
    tags: &[(0, 17, UUID), (1, 18, I64)],
};
static FETCH_FORGOTTEN: Shape = shape(&[until(12, TEXT), since(13, UUID), all(Kind::Array(&I32S))]);
static FETCH_REPLICA_STATE: Shape = shape(&[all(I32), all(I64)]);

static LIST_OFFSETS: Shape =
    shape(&[all(I32), since(2, I8), all(Kind::Array(&LIST_OFFSETS_TOPIC)), since(10, I32)]);
static LIST_OFFSETS_TOPIC: Shape = shape(&[all(TEXT), all(Kind::Array(&LIST_OFFSETS_PARTITION))]);
static LIST_OFFSETS_PARTITION: Shape = shape(&[all(I32), since(4, I32), all(I64)]);

static METADATA: Shape = shape(&[
    all(Kind::Array(&METADATA_TOPIC)),
    since(4, BOOL),
    between(8, 10, BOOL),
    since(8, BOOL),
]);
static METADATA_TOPIC: Shape = shape(&[since(10, UUID), all(TEXT)]);

static OFFSET_COMMIT: Shape = shape(&[
    all(TEXT),
    all(I32),
    all(TEXT),
    since(7, TEXT),
    until(4, I64),
    all(Kind::Array(&OFFSET_COMMIT_TOPIC)),
]);
static OFFSET_COMMIT_TOPIC: Shape = shape(&[all(TEXT), all(Kind::Array(&OFFSET_COMMIT_PARTITION))]);
static OFFSET_COMMIT_PARTITION: Shape = shape(&[all(I32), all(I64), since(6, I32), all(TEXT)]);

static OFFSET_FETCH: Shape = shape(&[
    until(7, TEXT),
    until(7, Kind::Array(&OFFSET_FETCH_TOPIC)),
    since(8, Kind::Array(&OFFSET_FETCH_GROUP)),
    since(7, BOOL),
]);
static OFFSET_FETCH_GROUP: Shape =
    shape(&[all(TEXT), since(9, TEXT), since(9, I32), all(Kind::Array(&OFFSET_FETCH_TOPIC))]);
static OFFSET_FETCH_TOPIC: Shape = shape(&[all(TEXT), all(Kind::Array(&I32S))]);

static FIND_COORDINATOR: Shape =
    shape(&[until(3, TEXT), since(1, I8), since(4, Kind::Array(&TEXTS))]);

static JOIN_GROUP: Shape = shape(&[
    all(TEXT),
    all(I32),
    since(1, I32),
    all(TEXT),
    since(5, TEXT),
    all(TEXT),
    all(Kind::Array(&NAME_AND_BLOB)),
    since(8, TEXT),
]);
static NAME_AND_BLOB: Shape = shape(&[all(TEXT), all(Kind::Blob)]);

static HEARTBEAT: Shape = shape(&[all(TEXT), all(I32), all(TEXT), since(3, TEXT)]);

static LEAVE_GROUP: Shape =
    shape(&[all(TEXT), until(2, TEXT), since(3, Kind::Array(&LEAVE_GROUP_MEMBER))]);
static LEAVE_GROUP_MEMBER: Shape = shape(&[all(TEXT), all(TEXT), since(5, TEXT)]);

static SYNC_GROUP: Shape = shape(&[
    all(TEXT),
    all(I32),
    all(TEXT),
    since(3, TEXT),
    since(5, TEXT),
    since(5, TEXT),
    all(Kind::Array(&NAME_AND_BLOB)),
]);

static DESCRIBE_GROUPS: Shape = shape(&[all(Kind::Array(&TEXTS)), since(3, BOOL)]);

static LIST_GROUPS: Shape = shape(&[since(4, Kind::Array(&TEXTS)), since(5, Kind::Array(&TEXTS))]);

static DELETE_GROUPS: Shape = shape(&[all(Kind::Array(&TEXTS))]);

static OFFSET_DELETE: Shape = shape(&[all(TEXT), all(Kind::Array(&OFFSET_DELETE_TOPIC))]);
static OFFSET_DELETE_TOPIC: Shape = shape(&[all(TEXT), all(Kind::Array(&OFFSET_DELETE_PARTITION))]);
static OFFSET_DELETE_PARTITION: Shape = shape(&[all(I32)]);

static CONSUMER_GROUP_HEARTBEAT: Shape = shape(&[
    all(TEXT),
    all(TEXT),
    all(I32),
    all(TEXT),
    all(TEXT),
    all(I32),
    all(Kind::Array(&TEXTS)),
    since(1, TEXT),
    all(TEXT),
    all(Kind::Array(&CONSUMER_GROUP_TOPIC)),
]);
static CONSUMER_GROUP_TOPIC: Shape = shape(&[all(UUID), all(Kind::Array(&I32S))]);

static CONSUMER_GROUP_DESCRIBE: Shape = shape(&[all(Kind::Array(&TEXTS)), all(BOOL)]);

static API_VERSIONS: Shape = shape(&[since(3, TEXT), since(3, TEXT)]);

static CREATE_TOPICS: Shape = shape(&[all(Kind::Array(&CREATE_TOPIC)), all(I32), all(BOOL)]);
static CREATE_TOPIC: Shape = shape(&[
    all(TEXT),
    all(I32),
    all(I16),
    all(Kind::Array(&CREATE_TOPIC_ASSIGNMENT)),
    all(Kind::Array(&NAME_AND_VALUE)),
]);
static CREATE_TOPIC_ASSIGNMENT: Shape = shape(&[all(I32), all(Kind::Array(&I32S))]);
static NAME_AND_VALUE: Shape = shape(&[all(TEXT), all(TEXT)]);

static DELETE_TOPICS: Shape =
    shape(&[since(6, Kind::Array(&DELETE_TOPIC)), until(5, Kind::Array(&TEXTS)), all(I32)]);
static DELETE_TOPIC: Shape = shape(&[all(TEXT), all(UUID)]);

static DELETE_RECORDS: Shape = shape(&[all(Kind::Array(&DELETE_RECORDS_TOPIC)), all(I32)]);
static DELETE_RECORDS_TOPIC: Shape =
    shape(&[all(TEXT), all(Kind::Array(&DELETE_RECORDS_PARTITION))]);
static DELETE_RECORDS_PARTITION: Shape = shape(&[all(I32), all(I64)]);

static INIT_PRODUCER_ID: Shape = shape(&[all(TEXT), all(I32), since(3, I64), since(3, I16)]);

static OFFSET_FOR_LEADER_EPOCH: Shape =
    shape(&[since(3, I32), all(Kind::Array(&OFFSET_FOR_LEADER_EPOCH_TOPIC))]);
static OFFSET_FOR_LEADER_EPOCH_TOPIC: Shape =
    shape(&[all(TEXT), all(Kind::Array(&OFFSET_FOR_LEADER_EPOCH_PARTITION))]);
static OFFSET_FOR_LEADER_EPOCH_PARTITION: Shape = shape(&[all(I32), all(I32), all(I32)]);

static ADD_PARTITIONS_TO_TXN: Shape =
    shape(&[all(TEXT), all(I64), all(I16), all(Kind::Array(&NAME_AND_PARTITIONS))]);

static ADD_OFFSETS_TO_TXN: Shape = shape(&[all(TEXT), all(I64), all(I16), all(TEXT)]);

static END_TXN: Shape = shape(&[all(TEXT), all(I64), all(I16), all(BOOL)]);

static WRITE_TXN_MARKERS: Shape = shape(&[all(Kind::Array(&TXN_MARKER))]);
static TXN_MARKER: Shape =
    shape(&[all(I64), all(I16), all(BOOL), all(Kind::Array(&NAME_AND_PARTITIONS)), all(I32)]);

static TXN_OFFSET_COMMIT: Shape = shape(&[
    all(TEXT),
    all(TEXT),
    all(I64),
    all(I16),
    since(3, I32),
    since(3, TEXT),
    since(3, TEXT),
    all(Kind::Array(&TXN_OFFSET_COMMIT_TOPIC)),
]);
static TXN_OFFSET_COMMIT_TOPIC: Shape =
    shape(&[all(TEXT), all(Kind::Array(&TXN_OFFSET_COMMIT_PARTITION))]);
static TXN_OFFSET_COMMIT_PARTITION: Shape = shape(&[all(I32), all(I64), since(2, I32), all(TEXT)]);

static DESCRIBE_PRODUCERS: Shape = shape(&[all(Kind::Array(&NAME_AND_PARTITIONS))]);

static DESCRIBE_TRANSACTIONS: Shape = shape(&[all(Kind::Array(&TEXTS))]);

static LIST_TRANSACTIONS: Shape =
    shape(&[all(Kind::Array(&TEXTS)), all(Kind::Array(&I64S)), since(1, I64), since(2, TEXT)]);

static DESCRIBE_CONFIGS: Shape =
    shape(&[all(Kind::Array(&DESCRIBE_CONFIGS_RESOURCE)), all(BOOL), since(3, BOOL)]);
static DESCRIBE_CONFIGS_RESOURCE: Shape = shape(&[all(I8), all(TEXT), all(Kind::Array(&TEXTS))]);

static ALTER_CONFIGS: Shape = shape(&[all(Kind::Array(&ALTER_CONFIGS_RESOURCE)), all(BOOL)]);
static ALTER_CONFIGS_RESOURCE: Shape =
    shape(&[all(I8), all(TEXT), all(Kind::Array(&NAME_AND_VALUE))]);

static INCREMENTAL_ALTER_CONFIGS: Shape =
    shape(&[all(Kind::Array(&INCREMENTAL_RESOURCE)), all(BOOL)]);
static INCREMENTAL_RESOURCE: Shape =
    shape(&[all(I8), all(TEXT), all(Kind::Array(&INCREMENTAL_CONFIG))]);
static INCREMENTAL_CONFIG: Shape = shape(&[all(TEXT), all(I8), all(TEXT)]);

static CREATE_PARTITIONS: Shape =
    shape(&[all(Kind::Array(&CREATE_PARTITIONS_TOPIC)), all(I32), all(BOOL)]);
static CREATE_PARTITIONS_TOPIC: Shape =
    shape(&[all(TEXT), all(I32), all(Kind::Array(&CREATE_PARTITIONS_ASSIGNMENT))]);
static CREATE_PARTITIONS_ASSIGNMENT: Shape = shape(&[all(Kind::Array(&I32S))]);

static DESCRIBE_CLUSTER: Shape = shape(&[all(BOOL), since(1, I8), since(2, BOOL)]);

static DESCRIBE_LOG_DIRS: Shape = shape(&[all(Kind::Array(&NAME_AND_PARTITIONS))]);
static NAME_AND_PARTITIONS: Shape = shape(&[all(TEXT), all(Kind::Array(&I32S))]);

static ELECT_LEADERS: Shape =
    shape(&[since(1, I8), all(Kind::Array(&NAME_AND_PARTITIONS)), all(I32)]);

static ALTER_REASSIGNMENTS: Shape =
    shape(&[all(I32), since(1, BOOL), all(Kind::Array(&ALTER_REASSIGNMENTS_TOPIC))]);
static ALTER_REASSIGNMENTS_TOPIC: Shape =
    shape(&[all(TEXT), all(Kind::Array(&ALTER_REASSIGNMENTS_PARTITION))]);
static ALTER_REASSIGNMENTS_PARTITION: Shape = shape(&[all(I32), all(Kind::Array(&I32S))]);

static LIST_REASSIGNMENTS: Shape = shape(&[all(I32), all(Kind::Array(&NAME_AND_PARTITIONS))]);

static ACLS: Shape = shape(&[all(Kind::Array(&ACL))]);
/// An entry, or a filter of entries, which differs only in what may be null.
static ACL: Shape = shape(&[all(I8), all(TEXT), all(I8), all(TEXT), all(TEXT), all(I8), all(I8)]);

static DESCRIBE_CLIENT_QUOTAS: Shape =
    shape(&[all(Kind::Array(&DESCRIBE_CLIENT_QUOTAS_COMPONENT)), all(BOOL)]);
static DESCRIBE_CLIENT_QUOTAS_COMPONENT: Shape = shape(&[all(TEXT), all(I8), all(TEXT)]);

static DESCRIBE_SCRAM_CREDENTIALS: Shape = shape(&[all(Kind::Array(&NAME))]);
static NAME: Shape = shape(&[all(TEXT)]);

static LIST_CONFIG_RESOURCES: Shape = shape(&[since(1, Kind::Array(&I8S))]);

static DESCRIBE_TOPIC_PARTITIONS: Shape = shape(&[
    all(Kind::Array(&NAME)),
    all(I32),
    all(Kind::Option(&DESCRIBE_TOPIC_PARTITIONS_CURSOR)),
]);
static DESCRIBE_TOPIC_PARTITIONS_CURSOR: Shape = shape(&[all(TEXT), all(I32)]);

/// The shape of a request, and the first version in which it is flexible (KIP-482).
pub(super) fn of(key: ApiKey) -> Option<(&'static Shape, i16)> {
    Some(match key {
        ApiKey::Produce => (&PRODUCE, 9),
        ApiKey::Fetch => (&FETCH, 12),
        ApiKey::ListOffsets => (&LIST_OFFSETS, 6),
        ApiKey::Metadata => (&METADATA, 9),
        ApiKey::OffsetCommit => (&OFFSET_COMMIT, 8),
        ApiKey::OffsetFetch => (&OFFSET_FETCH, 6),
        ApiKey::FindCoordinator => (&FIND_COORDINATOR, 3),
        ApiKey::JoinGroup => (&JOIN_GROUP, 6),
        ApiKey::Heartbeat => (&HEARTBEAT, 4),
        ApiKey::LeaveGroup => (&LEAVE_GROUP, 4),
        ApiKey::SyncGroup => (&SYNC_GROUP, 4),
        ApiKey::DescribeGroups => (&DESCRIBE_GROUPS, 5),
        ApiKey::ListGroups => (&LIST_GROUPS, 3),
        ApiKey::ApiVersions => (&API_VERSIONS, 3),
        ApiKey::CreateTopics => (&CREATE_TOPICS, 5),
        ApiKey::DeleteTopics => (&DELETE_TOPICS, 4),
        ApiKey::DeleteRecords => (&DELETE_RECORDS, 2),
        ApiKey::InitProducerId => (&INIT_PRODUCER_ID, 2),
        ApiKey::OffsetForLeaderEpoch => (&OFFSET_FOR_LEADER_EPOCH, 4),
        ApiKey::AddPartitionsToTxn => (&ADD_PARTITIONS_TO_TXN, 3),
        ApiKey::AddOffsetsToTxn => (&ADD_OFFSETS_TO_TXN, 3),
        ApiKey::EndTxn => (&END_TXN, 3),
        ApiKey::WriteTxnMarkers => (&WRITE_TXN_MARKERS, 1),
        ApiKey::TxnOffsetCommit => (&TXN_OFFSET_COMMIT, 3),
        ApiKey::DescribeProducers => (&DESCRIBE_PRODUCERS, 0),
        ApiKey::DescribeTransactions => (&DESCRIBE_TRANSACTIONS, 0),
        ApiKey::ListTransactions => (&LIST_TRANSACTIONS, 0),
        ApiKey::DescribeAcls => (&ACL, 2),
        ApiKey::CreateAcls => (&ACLS, 2),
        ApiKey::DeleteAcls => (&ACLS, 2),
        ApiKey::DescribeConfigs => (&DESCRIBE_CONFIGS, 4),
        ApiKey::AlterConfigs => (&ALTER_CONFIGS, 2),
        ApiKey::DescribeLogDirs => (&DESCRIBE_LOG_DIRS, 2),
        ApiKey::CreatePartitions => (&CREATE_PARTITIONS, 2),
        ApiKey::DeleteGroups => (&DELETE_GROUPS, 2),
        ApiKey::ElectLeaders => (&ELECT_LEADERS, 2),
        ApiKey::IncrementalAlterConfigs => (&INCREMENTAL_ALTER_CONFIGS, 1),
        ApiKey::AlterPartitionReassignments => (&ALTER_REASSIGNMENTS, 0),
        ApiKey::ListPartitionReassignments => (&LIST_REASSIGNMENTS, 0),
        ApiKey::OffsetDelete => (&OFFSET_DELETE, NEVER),
        ApiKey::DescribeClientQuotas => (&DESCRIBE_CLIENT_QUOTAS, 1),
        ApiKey::DescribeUserScramCredentials => (&DESCRIBE_SCRAM_CREDENTIALS, 0),
        ApiKey::DescribeCluster => (&DESCRIBE_CLUSTER, 0),
        ApiKey::ConsumerGroupHeartbeat => (&CONSUMER_GROUP_HEARTBEAT, 0),
        ApiKey::ConsumerGroupDescribe => (&CONSUMER_GROUP_DESCRIBE, 0),
        ApiKey::ListConfigResources => (&LIST_CONFIG_RESOURCES, 0),
        ApiKey::DescribeTopicPartitions => (&DESCRIBE_TOPIC_PARTITIONS, 0),
        _ => return None,
    })
}
