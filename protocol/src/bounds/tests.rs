use bytes::{Bytes, BytesMut};
use kafka_protocol::protocol::Encodable;
use proptest::prelude::*;

use super::*;
use crate::api::{APIS, number};
use crate::frame::RequestHeader;
use crate::messages::*;
use crate::request::Request;

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
        other => panic!("{other:?} has no sample"),
    }
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
