use bytes::{Bytes, BytesMut};
use kafka_protocol::protocol::Encodable;
use proptest::prelude::*;

use super::*;
use crate::StrBytes;
use crate::api::{APIS, number};
use crate::frame::RequestHeader;
use crate::messages::*;
use crate::request::Request;

mod transactions;

fn header(key: ApiKey, version: i16) -> RequestHeader {
    RequestHeader { api: number(key), version, correlation_id: 1, client_id: String::new() }
}

fn encoded(message: &impl Encodable, version: i16) -> Bytes {
    let mut body = BytesMut::new();
    message.encode(&mut body, version).unwrap();
    body.freeze()
}

/// A request with something in every array, as far as the version has it.
#[expect(clippy::too_many_lines, reason = "a table")]
fn sample(key: ApiKey, version: i16) -> Bytes {
    use crate::messages::*;
    let name = || TopicName("topic".into());
    let group = || GroupId("group".into());
    match key {
        ApiKey::Produce => {
            let partition = produce_request::PartitionProduceData::default()
                .with_records(Some(Bytes::from_static(b"records")));
            let mut topic =
                produce_request::TopicProduceData::default().with_partition_data(vec![partition]);
            if version <= 12 {
                topic = topic.with_name(name());
            }
            encoded(&ProduceRequest::default().with_topic_data(vec![topic]), version)
        }
        ApiKey::Fetch => {
            let mut topic = fetch_request::FetchTopic::default()
                .with_partitions(vec![fetch_request::FetchPartition::default()]);
            if version <= 12 {
                topic = topic.with_topic(name());
            }
            let mut request = FetchRequest::default().with_topics(vec![topic]);
            if version >= 7 {
                let forgotten =
                    fetch_request::ForgottenTopic::default().with_partitions(vec![1, 2]);
                request = request.with_forgotten_topics_data(vec![forgotten]);
            }
            if version >= 12 {
                request = request.with_cluster_id(Some("cluster".into()));
            }
            encoded(&request, version)
        }
        ApiKey::ListOffsets => {
            let topic = list_offsets_request::ListOffsetsTopic::default()
                .with_name(name())
                .with_partitions(vec![list_offsets_request::ListOffsetsPartition::default()]);
            encoded(&ListOffsetsRequest::default().with_topics(vec![topic]), version)
        }
        ApiKey::Metadata => {
            let topic = metadata_request::MetadataRequestTopic::default().with_name(Some(name()));
            encoded(&MetadataRequest::default().with_topics(Some(vec![topic])), version)
        }
        ApiKey::OffsetCommit => {
            let partition = offset_commit_request::OffsetCommitRequestPartition::default();
            let topic = offset_commit_request::OffsetCommitRequestTopic::default()
                .with_name(name())
                .with_partitions(vec![partition]);
            let request = OffsetCommitRequest::default().with_group_id(group());
            encoded(&request.with_topics(vec![topic]), version)
        }
        ApiKey::OffsetFetch if version >= 8 => {
            let topic = offset_fetch_request::OffsetFetchRequestTopics::default()
                .with_name(name())
                .with_partition_indexes(vec![1, 2, 3]);
            let group = offset_fetch_request::OffsetFetchRequestGroup::default()
                .with_group_id(group())
                .with_topics(Some(vec![topic]));
            encoded(&OffsetFetchRequest::default().with_groups(vec![group]), version)
        }
        ApiKey::OffsetFetch => {
            let topic = offset_fetch_request::OffsetFetchRequestTopic::default()
                .with_name(name())
                .with_partition_indexes(vec![1, 2, 3]);
            let request = OffsetFetchRequest::default().with_group_id(group());
            encoded(&request.with_topics(Some(vec![topic])), version)
        }
        ApiKey::FindCoordinator if version >= 4 => {
            let keys = vec!["a".into(), "b".into()];
            encoded(&FindCoordinatorRequest::default().with_coordinator_keys(keys), version)
        }
        ApiKey::FindCoordinator => encoded(&FindCoordinatorRequest::default(), version),
        ApiKey::ApiVersions if version >= 3 => {
            let request = ApiVersionsRequest::default().with_client_software_name("x".into());
            encoded(&request, version)
        }
        ApiKey::ApiVersions => encoded(&ApiVersionsRequest::default(), version),
        ApiKey::CreateTopics => {
            let assignment = create_topics_request::CreatableReplicaAssignment::default()
                .with_broker_ids(vec![BrokerId(1)]);
            let config = create_topics_request::CreatableTopicConfig::default();
            let topic = create_topics_request::CreatableTopic::default()
                .with_name(name())
                .with_assignments(vec![assignment])
                .with_configs(vec![config]);
            encoded(&CreateTopicsRequest::default().with_topics(vec![topic]), version)
        }
        ApiKey::DeleteTopics if version >= 6 => {
            let topic = delete_topics_request::DeleteTopicState::default().with_name(Some(name()));
            encoded(&DeleteTopicsRequest::default().with_topics(vec![topic]), version)
        }
        ApiKey::DeleteTopics => {
            encoded(&DeleteTopicsRequest::default().with_topic_names(vec![name()]), version)
        }
        ApiKey::InitProducerId => encoded(&InitProducerIdRequest::default(), version),
        ApiKey::OffsetForLeaderEpoch => {
            let partition = offset_for_leader_epoch_request::OffsetForLeaderPartition::default();
            let topic = offset_for_leader_epoch_request::OffsetForLeaderTopic::default()
                .with_topic(name())
                .with_partitions(vec![partition]);
            encoded(&OffsetForLeaderEpochRequest::default().with_topics(vec![topic]), version)
        }
        ApiKey::DescribeConfigs => {
            let resource = describe_configs_request::DescribeConfigsResource::default()
                .with_configuration_keys(Some(vec!["a".into()]));
            encoded(&DescribeConfigsRequest::default().with_resources(vec![resource]), version)
        }
        ApiKey::AlterConfigs => {
            let config = alter_configs_request::AlterableConfig::default();
            let resource =
                alter_configs_request::AlterConfigsResource::default().with_configs(vec![config]);
            encoded(&AlterConfigsRequest::default().with_resources(vec![resource]), version)
        }
        ApiKey::CreatePartitions => {
            let assignment = create_partitions_request::CreatePartitionsAssignment::default()
                .with_broker_ids(vec![BrokerId(1)]);
            let topic = create_partitions_request::CreatePartitionsTopic::default()
                .with_assignments(Some(vec![assignment]));
            encoded(&CreatePartitionsRequest::default().with_topics(vec![topic]), version)
        }
        ApiKey::IncrementalAlterConfigs => {
            let config = incremental_alter_configs_request::AlterableConfig::default();
            let resource = incremental_alter_configs_request::AlterConfigsResource::default()
                .with_configs(vec![config]);
            encoded(
                &IncrementalAlterConfigsRequest::default().with_resources(vec![resource]),
                version,
            )
        }
        ApiKey::DescribeCluster => encoded(&DescribeClusterRequest::default(), version),
        key => group_sample(key, version)
            .or_else(|| admin_sample(key, version))
            .or_else(|| transactions::sample(key, version))
            .unwrap(),
    }
}

/// As [`sample`], of the requests about groups and their members.
#[expect(clippy::too_many_lines, reason = "a table")]
fn group_sample(key: ApiKey, version: i16) -> Option<Bytes> {
    let name = || TopicName("topic".into());
    let group = || GroupId("group".into());
    let blob = || Bytes::from_static(b"blob");
    let instance = (version >= 5 || key != ApiKey::JoinGroup && version >= 3)
        .then(|| StrBytes::from("instance"));
    Some(match key {
        ApiKey::JoinGroup => {
            let protocol = join_group_request::JoinGroupRequestProtocol::default()
                .with_name("range".into())
                .with_metadata(blob());
            let request = JoinGroupRequest::default()
                .with_group_id(group())
                .with_member_id("member".into())
                .with_group_instance_id(instance)
                .with_protocols(vec![protocol])
                .with_reason((version >= 8).then(|| "reason".into()));
            encoded(&request, version)
        }
        ApiKey::Heartbeat => {
            let request = HeartbeatRequest::default().with_group_id(group());
            encoded(&request.with_group_instance_id(instance), version)
        }
        ApiKey::LeaveGroup if version >= 3 => {
            let member = leave_group_request::MemberIdentity::default()
                .with_member_id("member".into())
                .with_group_instance_id(instance)
                .with_reason((version >= 5).then(|| "reason".into()));
            let request = LeaveGroupRequest::default().with_group_id(group());
            encoded(&request.with_members(vec![member]), version)
        }
        ApiKey::LeaveGroup => {
            encoded(&LeaveGroupRequest::default().with_member_id("member".into()), version)
        }
        ApiKey::SyncGroup => {
            let assignment = sync_group_request::SyncGroupRequestAssignment::default()
                .with_member_id("member".into())
                .with_assignment(blob());
            let mut request = SyncGroupRequest::default()
                .with_group_id(group())
                .with_group_instance_id(instance)
                .with_assignments(vec![assignment]);
            if version >= 5 {
                request = request
                    .with_protocol_type(Some("consumer".into()))
                    .with_protocol_name(Some("range".into()));
            }
            encoded(&request, version)
        }
        ApiKey::DescribeGroups => {
            let request = DescribeGroupsRequest::default().with_groups(vec![group(), group()]);
            encoded(&request.with_include_authorized_operations(version >= 3), version)
        }
        ApiKey::ListGroups => {
            let mut request = ListGroupsRequest::default();
            if version >= 4 {
                request = request.with_states_filter(vec!["Stable".into(), "Empty".into()]);
            }
            if version >= 5 {
                request = request.with_types_filter(vec!["classic".into()]);
            }
            encoded(&request, version)
        }
        ApiKey::DeleteGroups => {
            encoded(&DeleteGroupsRequest::default().with_groups_names(vec![group()]), version)
        }
        ApiKey::OffsetDelete => {
            let partition = offset_delete_request::OffsetDeleteRequestPartition::default();
            let topic = offset_delete_request::OffsetDeleteRequestTopic::default()
                .with_name(name())
                .with_partitions(vec![partition]);
            let request = OffsetDeleteRequest::default().with_group_id(group());
            encoded(&request.with_topics(vec![topic]), version)
        }
        ApiKey::ConsumerGroupHeartbeat => {
            let owned = consumer_group_heartbeat_request::TopicPartitions::default()
                .with_partitions(vec![1, 2]);
            let request = ConsumerGroupHeartbeatRequest::default()
                .with_group_id(group())
                .with_instance_id(Some("instance".into()))
                .with_subscribed_topic_names(Some(vec![name()]))
                .with_subscribed_topic_regex((version >= 1).then(|| "t.*".into()))
                .with_topic_partitions(Some(vec![owned]));
            encoded(&request, version)
        }
        ApiKey::ConsumerGroupDescribe => {
            encoded(&ConsumerGroupDescribeRequest::default().with_group_ids(vec![group()]), version)
        }
        _ => return None,
    })
}

/// As [`sample`], of the requests that only admin tools send.
#[expect(clippy::too_many_lines, reason = "a table")]
fn admin_sample(key: ApiKey, version: i16) -> Option<Bytes> {
    let name = || TopicName("topic".into());
    Some(match key {
        ApiKey::DeleteRecords => {
            let partition = delete_records_request::DeleteRecordsPartition::default();
            let topic = delete_records_request::DeleteRecordsTopic::default()
                .with_name(name())
                .with_partitions(vec![partition]);
            encoded(&DeleteRecordsRequest::default().with_topics(vec![topic]), version)
        }
        ApiKey::DescribeLogDirs => {
            let topic = describe_log_dirs_request::DescribableLogDirTopic::default()
                .with_topic(name())
                .with_partitions(vec![1, 2]);
            encoded(&DescribeLogDirsRequest::default().with_topics(Some(vec![topic])), version)
        }
        ApiKey::ElectLeaders => {
            let topic = elect_leaders_request::TopicPartitions::default()
                .with_topic(name())
                .with_partitions(vec![1, 2]);
            let request = ElectLeadersRequest::default().with_topic_partitions(Some(vec![topic]));
            encoded(&request.with_election_type(i8::from(version >= 1)), version)
        }
        ApiKey::AlterPartitionReassignments => {
            let partition = alter_partition_reassignments_request::ReassignablePartition::default()
                .with_replicas(Some(vec![BrokerId(1)]));
            let topic = alter_partition_reassignments_request::ReassignableTopic::default()
                .with_name(name())
                .with_partitions(vec![partition]);
            let request = AlterPartitionReassignmentsRequest::default().with_topics(vec![topic]);
            encoded(&request, version)
        }
        ApiKey::ListPartitionReassignments => {
            let topic =
                list_partition_reassignments_request::ListPartitionReassignmentsTopics::default()
                    .with_name(name())
                    .with_partition_indexes(vec![1, 2]);
            let request = ListPartitionReassignmentsRequest::default();
            encoded(&request.with_topics(Some(vec![topic])), version)
        }
        ApiKey::DescribeAcls => {
            let request = DescribeAclsRequest::default().with_host_filter(Some("*".into()));
            encoded(&request, version)
        }
        ApiKey::CreateAcls => {
            let acl = create_acls_request::AclCreation::default().with_principal("User:a".into());
            encoded(&CreateAclsRequest::default().with_creations(vec![acl]), version)
        }
        ApiKey::DeleteAcls => {
            let filter = delete_acls_request::DeleteAclsFilter::default()
                .with_principal_filter(Some("User:a".into()));
            encoded(&DeleteAclsRequest::default().with_filters(vec![filter]), version)
        }
        ApiKey::DescribeClientQuotas => {
            let component = describe_client_quotas_request::ComponentData::default()
                .with_entity_type("user".into())
                .with_match(Some("a".into()));
            let request = DescribeClientQuotasRequest::default().with_components(vec![component]);
            encoded(&request, version)
        }
        ApiKey::DescribeUserScramCredentials => {
            let user =
                describe_user_scram_credentials_request::UserName::default().with_name("a".into());
            let request = DescribeUserScramCredentialsRequest::default();
            encoded(&request.with_users(Some(vec![user])), version)
        }
        ApiKey::ListConfigResources => {
            let types = if version >= 1 { vec![2, 4] } else { Vec::new() };
            encoded(&ListConfigResourcesRequest::default().with_resource_types(types), version)
        }
        ApiKey::DescribeTopicPartitions => {
            let cursor =
                describe_topic_partitions_request::Cursor::default().with_topic_name(name());
            let topic =
                describe_topic_partitions_request::TopicRequest::default().with_name(name());
            let request = DescribeTopicPartitionsRequest::default().with_topics(vec![topic]);
            encoded(&request.with_cursor(Some(cursor)), version)
        }
        _ => return None,
    })
}

#[test]
fn a_good_request_of_every_version_passes_and_decodes() {
    for api in APIS {
        for version in api.min..=api.max {
            let body = sample(api.key, version);
            check(api.key, version, &body)
                .unwrap_or_else(|e| panic!("{:?} v{version}: {e}", api.key));
            Request::decode(&header(api.key, version), body)
                .unwrap_or_else(|e| panic!("{:?} v{version}: {e}", api.key));
        }
    }
}

#[test]
fn a_good_request_is_walked_to_its_last_byte() {
    for api in APIS {
        for version in api.min..=api.max {
            let body = sample(api.key, version);
            let (shape, flexible_since) = shapes::of(api.key).unwrap();
            let flexible = version >= flexible_since;
            let mut walk = Walk { rest: &body, version, flexible, elements: 0 };
            walk.shape(shape).unwrap();
            assert_eq!(walk.rest, b"", "{:?} v{version}", api.key);
        }
    }
}

#[test]
fn a_request_that_ends_early_is_refused() {
    for api in APIS {
        for version in api.min..=api.max {
            let body = sample(api.key, version);
            for end in 0..body.len() {
                let cut = body.slice(..end);
                assert!(check(api.key, version, &cut).is_err(), "{:?} v{version} {end}", api.key);
            }
        }
    }
}

#[test]
fn what_librdkafka_sends_for_all_topics_is_understood() {
    // Version 13, captured from librdkafka 2.16.0: four zeros where one belongs.
    let body = Bytes::from_static(&[0, 0, 0, 0, 1, 0, 0]);
    let request = Request::decode(&header(ApiKey::Metadata, 13), body);
    let Ok(Request::Metadata(metadata)) = request else { panic!("{request:?}") };
    assert_eq!(metadata.topics, None);
}

#[test]
fn the_fourteen_bytes_that_kill_are_refused() {
    let body = Bytes::from_static(&[0x7f, 0xff, 0xff, 0xff]);
    assert_eq!(check(ApiKey::Metadata, 1, &body), Err(DecodeError::Truncated));
    let compact = Bytes::from_static(&[0xff, 0xff, 0xff, 0xff, 0x0f, 0, 0, 0]);
    assert!(check(ApiKey::Metadata, 9, &compact).is_err());
}

#[test]
fn more_elements_than_anybody_sends_are_refused() {
    let mut body = 1_000_000_i32.to_be_bytes().to_vec();
    body.resize(4 + 2_000_000, 0);
    assert_eq!(
        check(ApiKey::Metadata, 1, &body.into()),
        Err(DecodeError::TooManyElements(ELEMENTS_MAX))
    );
}

#[test]
fn a_tag_whose_length_lies_about_its_content_is_refused() {
    // Fetch v12 with cluster id "c" in a tag that claims to be empty.
    let request = FetchRequest::default().with_cluster_id(Some("c".into()));
    let mut body = encoded(&request, 12).to_vec();
    let length_at = body.len() - 3;
    assert_eq!(&body[length_at - 2..], [1, 0, 2, 2, b'c']);
    body[length_at] = 0;
    assert!(check(ApiKey::Fetch, 12, &body.into()).is_err());
}

proptest! {
    #[test]
    fn what_passes_never_brings_the_decoder_down(
        row in 0..APIS.len(),
        version in 0_i16..19,
        flips in prop::collection::vec((any::<prop::sample::Index>(), any::<u8>()), 0..6),
        cut in any::<prop::sample::Index>(),
    ) {
        let api = APIS[row];
        let version = version.clamp(api.min, api.max);
        let mut body = sample(api.key, version).to_vec();
        for (at, byte) in flips {
            if !body.is_empty() {
                let at = at.index(body.len());
                body[at] = byte;
            }
        }
        if cut.index(4) == 0 && !body.is_empty() {
            body.truncate(cut.index(body.len()));
        }
        // Either way is fine, as long as it comes back.
        drop(Request::decode(&header(api.key, version), body.into()));
    }

    #[test]
    fn random_bytes_never_bring_the_decoder_down(
        row in 0..APIS.len(),
        version in 0_i16..19,
        body in prop::collection::vec(any::<u8>(), 0..200),
    ) {
        let api = APIS[row];
        let version = version.clamp(api.min, api.max);
        drop(Request::decode(&header(api.key, version), body.into()));
    }
}
