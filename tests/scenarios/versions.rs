//! Every version of every API: a plain request is answered by a response that decodes, without
//! error.

use kafka_protocol::messages::alter_configs_request::AlterConfigsResource as AlterResource;
use kafka_protocol::messages::create_partitions_request::CreatePartitionsTopic;
use kafka_protocol::messages::create_topics_request::CreatableTopic;
use kafka_protocol::messages::delete_topics_request::DeleteTopicState;
use kafka_protocol::messages::describe_configs_request::DescribeConfigsResource;
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
use odradek_tests::batches::BatchSpec;
use odradek_tests::client::{Client, fetch_request, produce_request, topic};
use odradek_tests::cluster::Cluster;
use uuid::Uuid;

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
        assert!(response.api_keys.len() >= 17, "v{version}");
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
        let partition = OffsetCommitRequestPartition::default()
            .with_committed_offset(i64::from(version))
            .with_committed_metadata(Some("note".into()));
        let asked = OffsetCommitRequestTopic::default()
            .with_name(topic("t"))
            .with_partitions(vec![partition]);
        let request = OffsetCommitRequest::default()
            .with_group_id(group())
            .with_generation_id_or_member_epoch(-1)
            .with_topics(vec![asked]);
        let response = client.call(version, &request).await;
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
        for (kind, name, at_least) in [(2, "t", 30), (4, "1", 10), (4, "", 0)] {
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
