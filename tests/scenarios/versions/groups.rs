//! Every version of the APIs of groups: one member comes, works, is looked at, goes.

use bytes::Bytes;
use kafka_protocol::messages::delete_records_request::{
    DeleteRecordsPartition, DeleteRecordsTopic,
};
use kafka_protocol::messages::incremental_alter_configs_request::{
    AlterConfigsResource, AlterableConfig,
};
use kafka_protocol::messages::join_group_request::JoinGroupRequestProtocol;
use kafka_protocol::messages::leave_group_request::MemberIdentity;
use kafka_protocol::messages::offset_delete_request::{
    OffsetDeleteRequestPartition, OffsetDeleteRequestTopic,
};
use kafka_protocol::messages::sync_group_request::SyncGroupRequestAssignment;
use kafka_protocol::messages::*;
use kafka_protocol::protocol::StrBytes;
use odradek_tests::batches::BatchSpec;
use odradek_tests::client::{Client, topic};
use uuid::Uuid;

use super::{commit_request, scene};

/// No group waits for more members.
async fn do_not_wait(client: &mut Client) {
    let config = AlterableConfig::default()
        .with_name("group.initial.rebalance.delay.ms".into())
        .with_value(Some("0".into()));
    let resource = AlterConfigsResource::default().with_resource_type(4).with_configs(vec![config]);
    let request = IncrementalAlterConfigsRequest::default().with_resources(vec![resource]);
    assert_eq!(client.call(1, &request).await.responses[0].error_code, 0);
}

fn join_request(group: &GroupId, member: StrBytes) -> JoinGroupRequest {
    let protocol = JoinGroupRequestProtocol::default()
        .with_name("range".into())
        .with_metadata(Bytes::from_static(b"subscription"));
    JoinGroupRequest::default()
        .with_group_id(group.clone())
        .with_member_id(member)
        .with_session_timeout_ms(10_000)
        .with_rebalance_timeout_ms(10_000)
        .with_protocol_type("consumer".into())
        .with_protocols(vec![protocol])
}

/// State and number of members, or the error; what is shown of a member must be what it said.
async fn described(client: &mut Client, version: i16, group: &GroupId) -> (String, i16, usize) {
    let request = DescribeGroupsRequest::default().with_groups(vec![group.clone()]);
    let found = client.call(version, &request).await.groups.remove(0);
    for member in &found.members {
        assert_eq!(member.member_metadata.as_ref(), b"subscription");
        assert_eq!(member.member_assignment.as_ref(), b"assignment");
        assert_eq!(member.client_id.as_str(), "test");
        assert_eq!(
            (found.protocol_type.as_str(), found.protocol_data.as_str()),
            ("consumer", "range")
        );
    }
    (found.group_state.to_string(), found.error_code, found.members.len())
}

#[tokio::test(flavor = "multi_thread")]
async fn a_classic_group_lives_and_dies_in_every_version() {
    let (_cluster, mut client, _) = scene().await;
    do_not_wait(&mut client).await;
    for version in 0..=9_i16 {
        let group = GroupId(format!("classic-{version}").into());
        let mut joined = client.call(version, &join_request(&group, StrBytes::default())).await;
        if version >= 4 {
            assert_eq!(joined.error_code, 79, "v{version}");
            joined = client.call(version, &join_request(&group, joined.member_id)).await;
        }
        let member = joined.member_id;
        assert_eq!((joined.error_code, joined.generation_id, joined.members.len()), (0, 1, 1));
        assert!(!member.is_empty() && joined.leader == member, "v{version}");
        assert_eq!(joined.protocol_name.as_deref(), Some("range"));

        let assignment = SyncGroupRequestAssignment::default()
            .with_member_id(member.clone())
            .with_assignment(Bytes::from_static(b"assignment"));
        let mut request = SyncGroupRequest::default()
            .with_group_id(group.clone())
            .with_generation_id(1)
            .with_member_id(member.clone())
            .with_assignments(vec![assignment]);
        if version >= 5 {
            request = request
                .with_protocol_type(Some("consumer".into()))
                .with_protocol_name(Some("range".into()));
        }
        let synced = client.call(version.min(5), &request).await;
        let answer = (synced.error_code, synced.assignment.as_ref());
        assert_eq!(answer, (0, &b"assignment"[..]), "v{version}");

        let request = HeartbeatRequest::default()
            .with_group_id(group.clone())
            .with_generation_id(1)
            .with_member_id(member.clone());
        assert_eq!(client.call(version.min(4), &request).await.error_code, 0, "v{version}");
        let state = described(&mut client, version.min(6), &group).await;
        assert_eq!(state, ("Stable".to_owned(), 0, 1), "v{version}");
        let listed = client.call(version.min(5), &ListGroupsRequest::default()).await;
        let listed = listed.groups.iter().find(|it| it.group_id == group).unwrap();
        assert_eq!(listed.protocol_type.as_str(), "consumer");
        assert_eq!(listed.group_state.as_str(), if version >= 4 { "Stable" } else { "" });
        assert!(version < 5 || listed.group_type.eq_ignore_ascii_case("classic"));
        let delete = DeleteGroupsRequest::default().with_groups_names(vec![group.clone()]);
        let refused = client.call(version.min(2), &delete).await;
        assert_eq!(refused.results[0].error_code, 68, "v{version}");

        let request = LeaveGroupRequest::default().with_group_id(group.clone());
        let request = if version < 3 {
            request.with_member_id(member.clone())
        } else {
            request.with_members(vec![MemberIdentity::default().with_member_id(member.clone())])
        };
        let left = client.call(version.min(5), &request).await;
        assert!(left.error_code == 0 && left.members.iter().all(|it| it.error_code == 0));
        let state = described(&mut client, version.min(6), &group).await;
        assert_eq!(state, ("Empty".to_owned(), 0, 0), "v{version}");
        let deleted = client.call(version.min(2), &delete).await;
        assert_eq!(deleted.results[0].error_code, 0, "v{version}");
        let state = described(&mut client, version.min(6), &group).await;
        let code = if version >= 6 { 69 } else { 0 };
        assert_eq!(state, ("Dead".to_owned(), code, 0), "v{version}");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_consumer_group_lives_and_dies_in_every_version() {
    let (_cluster, mut client, topic_id) = scene().await;
    for version in 0..=1_i16 {
        let group = GroupId(format!("consumer-{version}").into());
        let beat = |member: StrBytes, epoch: i32| {
            ConsumerGroupHeartbeatRequest::default()
                .with_group_id(group.clone())
                .with_member_id(member)
                .with_member_epoch(epoch)
        };
        // From version 1 on members name themselves.
        let name = if version == 0 { String::new() } else { Uuid::from_u128(7).to_string() };
        let request = beat(name.clone().into(), 0)
            .with_rebalance_timeout_ms(10_000)
            .with_subscribed_topic_names(Some(vec![topic("t")]))
            .with_topic_partitions(Some(Vec::new()));
        let joined = client.call(version, &request).await;
        assert_eq!(joined.error_code, 0, "v{version}: {joined:?}");
        let member = joined.member_id.unwrap();
        assert!(version == 0 || member.as_str() == name);
        assert!(joined.member_epoch > 0 && joined.heartbeat_interval_ms == 5000);
        let assigned = joined.assignment.unwrap().topic_partitions;
        assert_eq!((assigned[0].topic_id, &assigned[0].partitions[..]), (topic_id, &[0][..]));

        let request = ConsumerGroupDescribeRequest::default().with_group_ids(vec![group.clone()]);
        let found = client.call(version, &request).await.groups.remove(0);
        assert_eq!((found.error_code, found.members.len()), (0, 1), "v{version}");
        assert_eq!(found.members[0].member_id, member);
        let left = client.call(version, &beat(member, -1)).await;
        assert_eq!((left.error_code, left.member_epoch), (0, -1), "v{version}");
        let found = client.call(version, &request).await.groups.remove(0);
        assert_eq!((found.group_state.as_str(), found.members.len()), ("Empty", 0));
        let delete = DeleteGroupsRequest::default().with_groups_names(vec![group.clone()]);
        assert_eq!(client.call(2, &delete).await.results[0].error_code, 0, "v{version}");
        let found = client.call(version, &request).await.groups.remove(0);
        assert_eq!(found.error_code, 69, "v{version}");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn offsets_and_records_are_deleted_in_every_version() {
    let (_cluster, mut client, _) = scene().await;
    let committed = client.call(9, &commit_request("group", 1)).await;
    assert_eq!(committed.topics[0].partitions[0].error_code, 0);
    let asked = [0, 9].map(|at| OffsetDeleteRequestPartition::default().with_partition_index(at));
    let asked =
        OffsetDeleteRequestTopic::default().with_name(topic("t")).with_partitions(asked.to_vec());
    let request = OffsetDeleteRequest::default()
        .with_group_id(GroupId("group".into()))
        .with_topics(vec![asked]);
    let deleted = client.call(0, &request).await;
    let codes: Vec<i16> = deleted.topics[0].partitions.iter().map(|it| it.error_code).collect();
    assert_eq!((deleted.error_code, codes), (0, vec![0, 3]));

    for version in 0..=2_i16 {
        client.produce("t", 0, &BatchSpec::of(["x"])).await;
        let before = i64::from(version) + 1;
        let asked = |offset| {
            let partition = DeleteRecordsPartition::default().with_offset(offset);
            let asked = DeleteRecordsTopic::default()
                .with_name(topic("t"))
                .with_partitions(vec![partition]);
            DeleteRecordsRequest::default().with_topics(vec![asked]).with_timeout_ms(10_000)
        };
        let deleted = client.call(version, &asked(before)).await;
        let partition = &deleted.topics[0].partitions[0];
        assert_eq!((partition.error_code, partition.low_watermark), (0, before), "v{version}");
        assert_eq!(client.list_offset(7, "t", 0, -2).await.offset, before);
        let deleted = client.call(version, &asked(99)).await;
        assert_eq!(deleted.topics[0].partitions[0].error_code, 1, "v{version}");
    }
}
