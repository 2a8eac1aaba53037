//! Ten connections on which the members of groups speak, and how they form a group.

use std::net::SocketAddr;

use bytes::Bytes;
use futures::future::join_all;
use kafka_protocol::messages::consumer_group_heartbeat_request::TopicPartitions;
use kafka_protocol::messages::join_group_request::JoinGroupRequestProtocol;
use kafka_protocol::messages::offset_commit_request::{
    OffsetCommitRequestPartition, OffsetCommitRequestTopic,
};
use kafka_protocol::messages::sync_group_request::SyncGroupRequestAssignment;
use kafka_protocol::messages::{
    ConsumerGroupHeartbeatRequest, GroupId, HeartbeatRequest, JoinGroupRequest,
    OffsetCommitRequest, SyncGroupRequest,
};
use kafka_protocol::protocol::StrBytes;
use odradek_tests::client::{Client, topic};

/// Members of a group, and partitions of the topic they share.
pub(crate) const MEMBERS: usize = 10;

/// The topic of all groups.
pub(crate) const TOPIC: &str = "topic";

/// A member and the generation it is in, or its epoch.
#[derive(Clone, PartialEq)]
pub(crate) struct Member {
    group: GroupId,
    id: StrBytes,
    generation: i32,
}

/// Connections that serve several groups, one after the other: member `n` of each on connection
/// `n`.
pub(crate) struct Crew {
    pub(crate) clients: Vec<Client>,
    pub(crate) groups: Vec<Vec<Member>>,
}

impl Crew {
    pub(crate) async fn new(address: SocketAddr) -> Self {
        let connections = (0..MEMBERS).map(|_| Client::connect(address));
        Self { clients: join_all(connections).await, groups: Vec::new() }
    }

    /// Forms a classic group: all join one generation, and the leader gives everybody a partition.
    pub(crate) async fn form_classic(&mut self, group: GroupId) {
        let protocol = JoinGroupRequestProtocol::default()
            .with_name("range".into())
            .with_metadata(Bytes::from_static(b"\0\0\0\0\0\x01\0\x05topic\0\0\0\0"));
        let request = JoinGroupRequest::default()
            .with_group_id(group.clone())
            .with_session_timeout_ms(600_000)
            .with_rebalance_timeout_ms(600_000)
            .with_protocol_type("consumer".into())
            .with_protocols(vec![protocol]);
        let joins = self.clients.iter_mut().map(|client| client.call(3, &request));
        let joined = join_all(joins).await;
        let syncs = self.clients.iter_mut().zip(&joined).map(|(client, joined)| {
            assert_eq!(joined.error_code, 0, "{joined:?}");
            let members = joined.members.iter().zip(0..);
            let assignments = members.map(|(member, partition)| {
                SyncGroupRequestAssignment::default()
                    .with_member_id(member.member_id.clone())
                    .with_assignment(assignment(partition))
            });
            let request = SyncGroupRequest::default()
                .with_group_id(group.clone())
                .with_member_id(joined.member_id.clone())
                .with_generation_id(joined.generation_id)
                .with_assignments(assignments.collect());
            async move { client.call(1, &request).await }
        });
        for synced in join_all(syncs).await {
            assert_eq!(synced.error_code, 0, "{synced:?}");
            assert_eq!(synced.assignment.len(), assignment(0).len());
        }
        let members = joined.into_iter().map(|joined| Member {
            group: group.clone(),
            id: joined.member_id,
            generation: joined.generation_id,
        });
        self.groups.push(members.collect());
    }

    /// Forms a group of the consumer protocol: its members say what they have until each has one
    /// partition and nothing changes any more.
    pub(crate) async fn form_consumer(&mut self, group: GroupId) {
        let new = |_| Member { group: group.clone(), id: StrBytes::default(), generation: 0 };
        let mut all: Vec<_> = (0..MEMBERS).map(|it| (new(it), Vec::new())).collect();
        loop {
            let before = all.clone();
            for (client, (member, owned)) in self.clients.iter_mut().zip(&mut all) {
                let request = consumer_heartbeat(member, 0)
                    .with_rebalance_timeout_ms(600_000)
                    .with_subscribed_topic_names(Some(vec![topic(TOPIC)]))
                    .with_topic_partitions(Some(owned.clone()));
                let answer = client.call(0, &request).await;
                assert_eq!(answer.error_code, 0, "{answer:?}");
                member.id = answer.member_id.unwrap();
                member.generation = answer.member_epoch;
                let assigned = answer.assignment.unwrap().topic_partitions.into_iter().map(|it| {
                    let owned = TopicPartitions::default().with_topic_id(it.topic_id);
                    owned.with_partitions(it.partitions)
                });
                *owned = assigned.collect();
            }
            let has_one = |owned: &[TopicPartitions]| {
                owned.iter().map(|it| it.partitions.len()).sum::<usize>() == 1
            };
            if all == before && all.iter().all(|(_, owned)| has_one(owned)) {
                break;
            }
        }
        self.groups.push(all.into_iter().map(|(member, _)| member).collect());
    }
}

/// An assignment of one partition, as the Java client writes it.
fn assignment(partition: i32) -> Bytes {
    let head: &[u8] = b"\0\0\0\0\0\x01\0\x05topic\0\0\0\x01";
    [head, &partition.to_be_bytes(), &[0xff; 4]].concat().into()
}

pub(crate) fn heartbeat(member: &Member, _: i32) -> HeartbeatRequest {
    HeartbeatRequest::default()
        .with_group_id(member.group.clone())
        .with_member_id(member.id.clone())
        .with_generation_id(member.generation)
}

pub(crate) fn consumer_heartbeat(member: &Member, _: i32) -> ConsumerGroupHeartbeatRequest {
    ConsumerGroupHeartbeatRequest::default()
        .with_group_id(member.group.clone())
        .with_member_id(member.id.clone())
        .with_member_epoch(member.generation)
}

pub(crate) fn commit(member: &Member, partition: i32) -> OffsetCommitRequest {
    let partition = OffsetCommitRequestPartition::default()
        .with_partition_index(partition)
        .with_committed_offset(1_000_000);
    let topic = OffsetCommitRequestTopic::default()
        .with_name(topic(TOPIC))
        .with_partitions(vec![partition]);
    OffsetCommitRequest::default()
        .with_group_id(member.group.clone())
        .with_member_id(member.id.clone())
        .with_generation_id_or_member_epoch(member.generation)
        .with_topics(vec![topic])
}
