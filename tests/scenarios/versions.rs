//! Every version of every API: a plain request is answered by a response that decodes, without
//! error.

use kafka_protocol::messages::alter_configs_request::AlterConfigsResource as AlterResource;
use kafka_protocol::messages::alter_partition_reassignments_request::{
    ReassignablePartition, ReassignableTopic,
};
use kafka_protocol::messages::create_acls_request::AclCreation;
use kafka_protocol::messages::create_partitions_request::CreatePartitionsTopic;
use kafka_protocol::messages::create_topics_request::CreatableTopic;
use kafka_protocol::messages::delete_acls_request::DeleteAclsFilter;
use kafka_protocol::messages::delete_topics_request::DeleteTopicState;
use kafka_protocol::messages::describe_configs_request::DescribeConfigsResource;
use kafka_protocol::messages::describe_topic_partitions_request::TopicRequest;
use kafka_protocol::messages::elect_leaders_request::TopicPartitions;
use kafka_protocol::messages::incremental_alter_configs_request::AlterConfigsResource;
use kafka_protocol::messages::metadata_request::MetadataRequestTopic;
use kafka_protocol::messages::offset_commit_request::{
    OffsetCommitRequestPartition, OffsetCommitRequestTopic,
};
use kafka_protocol::messages::offset_fetch_request::{
    OffsetFetchRequestGroup, OffsetFetchRequestTopic, OffsetFetchRequestTopics,
};
use kafka_protocol::messages::offset_for_leader_epoch_request::{
    OffsetForLeaderPartition, OffsetForLeaderTopic,
};
use kafka_protocol::messages::*;
use odradek_protocol::api;
use odradek_tests::batches::BatchSpec;
use odradek_tests::client::{Client, fetch_request, produce_request, topic};
use odradek_tests::cluster::Cluster;
use uuid::Uuid;

mod groups;
mod transactions;

async fn scene() -> (Cluster, Client, Uuid) {
    let cluster = Cluster::in_memory(1).await;
    let mut client = Client::connect(cluster.address(0)).await;
    client.create_topic("t", 1).await;
    client.produce("t", 0, &BatchSpec::of(["x"])).await;
    let asked = MetadataRequestTopic::default().with_name(Some(topic("t")));
    let request = MetadataRequest::default().with_topics(Some(vec![asked]));
    let id = client.call(12, &request).await.topics[0].topic_id;
    (cluster, client, id)
}

/// Commits an offset of partition 0 of `t`, as a consumer without a group does.
fn commit_request(group: &'static str, offset: i64) -> OffsetCommitRequest {
    let partition = OffsetCommitRequestPartition::default()
        .with_committed_offset(offset)
        .with_committed_metadata(Some("note".into()));
    let asked =
        OffsetCommitRequestTopic::default().with_name(topic("t")).with_partitions(vec![partition]);
    OffsetCommitRequest::default()
        .with_group_id(GroupId(group.into()))
        .with_generation_id_or_member_epoch(-1)
        .with_topics(vec![asked])
}

/// Sends the default request of every API in every version.
macro_rules! send_plain {
    ($client:expr, $api:expr, $version:expr, { $($name:ident: $request:ident),+ $(,)? }) => {
        match $api {
            ApiKey::Produce => {
                let request = ProduceRequest::default().with_acks(-1);
                drop($client.call($version, &request).await);
            }
            $(ApiKey::$name => drop($client.call($version, &$request::default()).await),)+
            other => panic!("{other:?} has no row in this test"),
        }
    };
}

#[tokio::test(flavor = "multi_thread")]
async fn nothing_is_asked_for_and_still_there_is_an_answer() {
    let (_cluster, mut client, _) = scene().await;
    for api in api::APIS {
        for version in api.min..=api.max {
            send_plain!(client, api.key, version, {
                Fetch: FetchRequest,
                ListOffsets: ListOffsetsRequest,
                Metadata: MetadataRequest,
                OffsetCommit: OffsetCommitRequest,
                OffsetFetch: OffsetFetchRequest,
                FindCoordinator: FindCoordinatorRequest,
                JoinGroup: JoinGroupRequest,
                Heartbeat: HeartbeatRequest,
                LeaveGroup: LeaveGroupRequest,
                SyncGroup: SyncGroupRequest,
                DescribeGroups: DescribeGroupsRequest,
                ListGroups: ListGroupsRequest,
                ApiVersions: ApiVersionsRequest,
                CreateTopics: CreateTopicsRequest,
                DeleteTopics: DeleteTopicsRequest,
                DeleteRecords: DeleteRecordsRequest,
                InitProducerId: InitProducerIdRequest,
                OffsetForLeaderEpoch: OffsetForLeaderEpochRequest,
                AddPartitionsToTxn: AddPartitionsToTxnRequest,
                AddOffsetsToTxn: AddOffsetsToTxnRequest,
                EndTxn: EndTxnRequest,
                WriteTxnMarkers: WriteTxnMarkersRequest,
                TxnOffsetCommit: TxnOffsetCommitRequest,
                DescribeProducers: DescribeProducersRequest,
                DescribeTransactions: DescribeTransactionsRequest,
                ListTransactions: ListTransactionsRequest,
                DescribeAcls: DescribeAclsRequest,
                CreateAcls: CreateAclsRequest,
                DeleteAcls: DeleteAclsRequest,
                DescribeConfigs: DescribeConfigsRequest,
                AlterConfigs: AlterConfigsRequest,
                DescribeLogDirs: DescribeLogDirsRequest,
                CreatePartitions: CreatePartitionsRequest,
                DeleteGroups: DeleteGroupsRequest,
                ElectLeaders: ElectLeadersRequest,
                IncrementalAlterConfigs: IncrementalAlterConfigsRequest,
                AlterPartitionReassignments: AlterPartitionReassignmentsRequest,
                ListPartitionReassignments: ListPartitionReassignmentsRequest,
                OffsetDelete: OffsetDeleteRequest,
                DescribeClientQuotas: DescribeClientQuotasRequest,
                DescribeUserScramCredentials: DescribeUserScramCredentialsRequest,
                DescribeCluster: DescribeClusterRequest,
                ConsumerGroupHeartbeat: ConsumerGroupHeartbeatRequest,
                ConsumerGroupDescribe: ConsumerGroupDescribeRequest,
                ListConfigResources: ListConfigResourcesRequest,
                DescribeTopicPartitions: DescribeTopicPartitionsRequest,
            });
        }
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn produce_and_fetch() {
    let (_cluster, mut client, id) = scene().await;
    for version in 3..=13 {
        let mut request = produce_request("t", 0, -1, BatchSpec::of(["x"]).encode());
        if version >= 13 {
            request.topic_data[0].name = TopicName::default();
            request.topic_data[0].topic_id = id;
        }
        let response = client.call(version, &request).await;
        assert_eq!(response.responses[0].partition_responses[0].error_code, 0, "v{version}");
    }
    for version in 4..=18 {
        let mut request = fetch_request("t", 0, 0);
        if version >= 13 {
            request.topics[0].topic = TopicName::default();
            request.topics[0].topic_id = id;
        }
        let response = client.call(version, &request).await;
        let data = &response.responses[0].partitions[0];
        assert_eq!((data.error_code, data.high_watermark), (0, 12), "v{version}");
        assert!(data.records.as_ref().unwrap().len() > 100);
        assert_eq!(data.log_start_offset, if version >= 5 { 0 } else { -1 });
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn api_versions_metadata_and_cluster() {
    let (_cluster, mut client, _) = scene().await;
    for version in 0..=4 {
        let response = client.call(version, &ApiVersionsRequest::default()).await;
        assert_eq!(response.error_code, 0);
        assert_eq!(response.api_keys.len(), api::APIS.len(), "v{version}");
    }
    for version in 0..=13 {
        let known = MetadataRequestTopic::default().with_name(Some(topic("t")));
        let bad = MetadataRequestTopic::default().with_name(Some(topic("not/legal")));
        let request = MetadataRequest::default().with_topics(Some(vec![known, bad]));
        let response = client.call(version, &request).await;
        let codes: Vec<i16> = response.topics.iter().map(|it| it.error_code).collect();
        assert_eq!(codes, [0, 17], "v{version}");
        assert_eq!(response.topics[0].partitions[0].leader_id, response.brokers[0].node_id);
        assert_eq!(response.cluster_id.is_some(), version >= 2);
        // None of the topics, and all of them.
        let all = if version == 0 { Some(Vec::new()) } else { None };
        let response = client.call(version, &MetadataRequest::default().with_topics(all)).await;
        assert_eq!(response.topics.len(), 1, "v{version}");
    }
    for version in 12..=13 {
        let unknown =
            MetadataRequestTopic::default().with_name(None).with_topic_id(Uuid::from_u128(5));
        let request = MetadataRequest::default().with_topics(Some(vec![unknown]));
        assert_eq!(client.call(version, &request).await.topics[0].error_code, 100);
    }
    for version in 0..=2 {
        let response = client.call(version, &DescribeClusterRequest::default()).await;
        assert_eq!((response.error_code, response.brokers.len()), (0, 1), "v{version}");
        assert_eq!(response.cluster_id.len(), 22);
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn offsets_epochs_and_coordinators() {
    let (_cluster, mut client, _) = scene().await;
    for version in 1..=10 {
        let answer = client.list_offset(version, "t", 0, -1).await;
        assert_eq!((answer.error_code, answer.offset), (0, 1), "v{version}");
    }
    for version in 2..=4 {
        let asked = OffsetForLeaderPartition::default();
        let asked =
            OffsetForLeaderTopic::default().with_topic(topic("t")).with_partitions(vec![asked]);
        let request = OffsetForLeaderEpochRequest::default().with_topics(vec![asked]);
        let response = client.call(version, &request).await;
        let end = &response.topics[0].partitions[0];
        assert_eq!((end.error_code, end.leader_epoch, end.end_offset), (0, 0, 1), "v{version}");
    }
    for version in 0..=6 {
        let request = FindCoordinatorRequest::default();
        let request = if version >= 4 {
            request.with_coordinator_keys(vec!["a".into(), "b".into()])
        } else {
            request.with_key("a".into())
        };
        let response = client.call(version, &request).await;
        let codes = response.coordinators.iter().map(|it| it.error_code);
        assert!(response.error_code == 0 && codes.into_iter().all(|it| it == 0), "v{version}");
    }
    for version in 0..=5 {
        let response = client
            .call(version, &InitProducerIdRequest::default().with_transactional_id(None))
            .await;
        assert_eq!((response.error_code, response.producer_epoch), (0, 0), "v{version}");
        assert_eq!(response.producer_id.0, i64::from(version));
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn committed_offsets() {
    let (_cluster, mut client, _) = scene().await;
    let group = || GroupId("group".into());
    for version in 2..=9 {
        let response = client.call(version, &commit_request("group", i64::from(version))).await;
        assert_eq!(response.topics[0].partitions[0].error_code, 0, "v{version}");
    }
    for version in 1..=7 {
        let asked = OffsetFetchRequestTopic::default()
            .with_name(topic("t"))
            .with_partition_indexes(vec![0, 1]);
        let request =
            OffsetFetchRequest::default().with_group_id(group()).with_topics(Some(vec![asked]));
        let response = client.call(version, &request).await;
        let offsets: Vec<i64> =
            response.topics[0].partitions.iter().map(|it| it.committed_offset).collect();
        assert_eq!(offsets, [9, -1], "v{version}");
    }
    for version in 8..=9 {
        let asked = OffsetFetchRequestTopics::default()
            .with_name(topic("t"))
            .with_partition_indexes(vec![0]);
        let named = OffsetFetchRequestGroup::default()
            .with_group_id(group())
            .with_topics(Some(vec![asked]));
        let all = OffsetFetchRequestGroup::default().with_group_id(group()).with_topics(None);
        let request = OffsetFetchRequest::default().with_groups(vec![named, all]);
        let response = client.call(version, &request).await;
        for group in &response.groups {
            assert_eq!(group.topics[0].partitions[0].committed_offset, 9, "v{version}");
            assert_eq!(group.topics[0].partitions[0].metadata.as_deref(), Some("note"));
        }
    }
    // Whoever claims to be a member is not one.
    let request = OffsetCommitRequest::default()
        .with_group_id(group())
        .with_generation_id_or_member_epoch(3)
        .with_member_id("me".into())
        .with_topics(vec![
            OffsetCommitRequestTopic::default()
                .with_name(topic("t"))
                .with_partitions(vec![OffsetCommitRequestPartition::default()]),
        ]);
    assert_eq!(client.call(9, &request).await.topics[0].partitions[0].error_code, 25);
}

#[tokio::test(flavor = "multi_thread")]
async fn topics() {
    let (_cluster, mut client, _) = scene().await;
    for version in 2..=7 {
        let name = format!("v{version}");
        let new = CreatableTopic::default()
            .with_name(topic(&name))
            .with_num_partitions(2)
            .with_replication_factor(1);
        let request = CreateTopicsRequest::default().with_topics(vec![new]);
        let check = client.call(version, &request.clone().with_validate_only(true)).await;
        assert_eq!(check.topics[0].error_code, 0, "v{version}");
        let response = client.call(version, &request).await;
        assert_eq!(response.topics[0].error_code, 0, "v{version}");
        assert_eq!(client.call(version, &request).await.topics[0].error_code, 36);
    }
    for version in 0..=3 {
        let grow = CreatePartitionsTopic::default()
            .with_name(topic("v2"))
            .with_count(3 + i32::from(version))
            .with_assignments(None);
        let request = CreatePartitionsRequest::default().with_topics(vec![grow]);
        assert_eq!(client.call(version, &request).await.results[0].error_code, 0, "v{version}");
        assert_eq!(client.call(version, &request).await.results[0].error_code, 37);
    }
    for version in 1..=6 {
        let name = topic(&format!("v{}", version + 1));
        let request = DeleteTopicsRequest::default().with_timeout_ms(1000);
        let request = if version >= 6 {
            let asked = DeleteTopicState::default().with_name(Some(name));
            request.with_topics(vec![asked])
        } else {
            request.with_topic_names(vec![name])
        };
        assert_eq!(client.call(version, &request).await.responses[0].error_code, 0, "v{version}");
        assert_eq!(client.call(version, &request).await.responses[0].error_code, 3);
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn configs() {
    let (_cluster, mut client, _) = scene().await;
    for version in 1..=4 {
        let resources = [(2, "t", 30), (4, "1", 10), (4, "", 0), (16, "m", 0), (32, "group", 10)];
        for (kind, name, at_least) in resources {
            let resource = DescribeConfigsResource::default()
                .with_resource_type(kind)
                .with_resource_name(name.into())
                .with_configuration_keys(None);
            let request = DescribeConfigsRequest::default()
                .with_resources(vec![resource])
                .with_include_synonyms(true);
            let request =
                if version >= 3 { request.with_include_documentation(true) } else { request };
            let response = client.call(version, &request).await;
            assert_eq!(response.results[0].error_code, 0, "v{version}");
            assert!(response.results[0].configs.len() >= at_least, "v{version} {kind} {name}");
        }
    }
    for version in 0..=2 {
        let resource =
            AlterResource::default().with_resource_type(2).with_resource_name("t".into());
        let request = AlterConfigsRequest::default().with_resources(vec![resource]);
        assert_eq!(client.call(version, &request).await.responses[0].error_code, 0);
    }
    for version in 0..=1 {
        let resource =
            AlterConfigsResource::default().with_resource_type(2).with_resource_name("t".into());
        let request = IncrementalAlterConfigsRequest::default().with_resources(vec![resource]);
        assert_eq!(client.call(version, &request).await.responses[0].error_code, 0);
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn log_dirs_and_leaders() {
    let (_cluster, mut client, _) = scene().await;
    for version in 1..=4 {
        let request = DescribeLogDirsRequest::default().with_topics(None);
        let response = client.call(version, &request).await;
        let dir = &response.results[0];
        assert_eq!((response.error_code, dir.error_code), (0, 0), "v{version}");
        let partition = &dir.topics[0].partitions[0];
        assert!(partition.partition_size > 60, "v{version}");
        assert_eq!((dir.total_bytes, dir.usable_bytes), (-1, -1), "v{version}");
    }
    for version in 0..=2 {
        let asked = TopicPartitions::default().with_topic(topic("t")).with_partitions(vec![0, 1]);
        let request = ElectLeadersRequest::default().with_topic_partitions(Some(vec![asked]));
        let response = client.call(version, &request).await;
        let codes = response.replica_election_results[0].partition_result.iter();
        let codes: Vec<i16> = codes.map(|it| it.error_code).collect();
        assert_eq!((response.error_code, codes), (0, vec![84, 3]), "v{version}");
    }
    for version in 0..=1 {
        let asked = ReassignablePartition::default().with_replicas(Some(vec![BrokerId(1)]));
        let asked = ReassignableTopic::default().with_name(topic("t")).with_partitions(vec![asked]);
        let request = AlterPartitionReassignmentsRequest::default().with_topics(vec![asked]);
        let response = client.call(version, &request).await;
        let answer = &response.responses[0].partitions[0];
        assert_eq!((response.error_code, answer.error_code), (0, 0), "v{version}");
    }
    let response = client.call(0, &ListPartitionReassignmentsRequest::default()).await;
    assert_eq!((response.error_code, response.topics.len()), (0, 0));
    let asked = TopicRequest::default().with_name(topic("t"));
    let request = DescribeTopicPartitionsRequest::default().with_topics(vec![asked]);
    let response = client.call(0, &request).await;
    let described = &response.topics[0];
    assert_eq!((described.error_code, described.partitions[0].leader_id), (0, BrokerId(1)));
}

#[tokio::test(flavor = "multi_thread")]
async fn access_and_resources() {
    let (_cluster, mut client, _) = scene().await;
    for version in 1..=3 {
        let response = client.call(version, &DescribeAclsRequest::default()).await;
        assert_eq!(response.error_code, 54, "v{version}");
        let request = CreateAclsRequest::default().with_creations(vec![AclCreation::default()]);
        let response = client.call(version, &request).await;
        assert_eq!(response.results[0].error_code, 54, "v{version}");
        let request = DeleteAclsRequest::default().with_filters(vec![DeleteAclsFilter::default()]);
        let response = client.call(version, &request).await;
        assert_eq!(response.filter_results[0].error_code, 54, "v{version}");
    }
    for version in 0..=1 {
        let response = client.call(version, &DescribeClientQuotasRequest::default()).await;
        assert_eq!((response.error_code, response.entries), (0, Some(Vec::new())), "v{version}");
        let response = client.call(version, &ListConfigResourcesRequest::default()).await;
        let count = if version == 0 { 0 } else { 2 };
        assert_eq!((response.error_code, response.config_resources.len()), (0, count));
    }
    let response = client.call(0, &DescribeUserScramCredentialsRequest::default()).await;
    assert_eq!((response.error_code, response.results.len()), (0, 0));
}
