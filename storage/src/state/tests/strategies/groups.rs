//! Changes of groups to draw: three groups, a few members, and what they may want.

use bytes::Bytes;
use odradek_protocol::id::Offset;
use proptest::collection::{btree_map, btree_set, vec};
use proptest::option;
use proptest::prelude::*;

use super::{partition, topic_id};
use crate::command::groups::{
    Assignment, ClassicMember, ConsumerChange, Current, MemberChange, MemberState, Subscription,
};
use crate::command::{Command, CommittedOffset, Committer, GroupChange};
use crate::lsn::Lsn;

pub(super) fn committed_offset() -> impl Strategy<Value = CommittedOffset> {
    (partition(), any::<i64>(), any::<i32>(), "[a-z]{0,3}").prop_map(
        |(partition, offset, leader_epoch, metadata)| CommittedOffset {
            partition,
            offset: Offset(offset),
            leader_epoch,
            metadata,
        },
    )
}

pub(super) fn committer() -> impl Strategy<Value = Committer> {
    (member_id(), option::weighted(0.3, instance_id()), epoch())
        .prop_map(|(member, instance_id, generation)| Committer { member, instance_id, generation })
}

pub(super) fn commit_offsets() -> impl Strategy<Value = Command> {
    let retention_ms = prop_oneof![3 => 0..2000_i64, 1 => any::<i64>()];
    let terms = (office(), option::of(committer()), option::weighted(0.2, retention_ms));
    (group(), terms, vec(committed_offset(), 0..4)).prop_map(|(group, terms, offsets)| {
        let (office, committer, retention_ms) = terms;
        Command::CommitOffsets { group, office, committer, retention_ms, offsets }
    })
}

/// Brokers come and go all the time here; a guess is right now and then.
pub(super) fn office() -> impl Strategy<Value = Lsn> {
    prop_oneof![6 => 1..12_u64, 1 => any::<u64>()].prop_map(Lsn::new)
}

pub(super) fn change_group() -> impl Strategy<Value = Command> {
    let revision = prop_oneof![4 => 0..6_u64, 1 => any::<u64>()];
    (group(), office(), revision, change()).prop_map(|(group, office, revision, change)| {
        Command::ChangeGroup { group, office, revision, change }
    })
}

pub(super) fn group() -> impl Strategy<Value = String> {
    "g[12]?"
}

fn member_id() -> impl Strategy<Value = String> {
    "m[1-4]"
}

fn instance_id() -> impl Strategy<Value = String> {
    "i[12]"
}

/// Of a generation or of a member: those that live are small.
fn epoch() -> impl Strategy<Value = i32> {
    prop_oneof![8 => 0..3_i32, 2 => Just(-1), 1 => -2_000_000_000..2_000_000_000_i32]
}

/// Numbers of a group rise: a few large ones, and it has no more to rise to.
fn group_epoch() -> impl Strategy<Value = i32> {
    prop_oneof![24 => 0..8_i32, 1 => -3..2000_i32]
}

fn bytes() -> impl Strategy<Value = Bytes> {
    "[a-z]{0,2}".prop_map(Bytes::from)
}

fn change() -> impl Strategy<Value = GroupChange> {
    let stage = (any::<bool>(), vec(member_change(), 0..3))
        .prop_map(|(is_first, members)| GroupChange::StageMembers { is_first, members });
    let assignment = (member_id(), bytes());
    let assign = (vec(assignment, 0..4), prop::bool::weighted(0.8))
        .prop_map(|(assignments, is_last)| GroupChange::AssignGeneration { assignments, is_last });
    let replace = (member_id(), member_id(), classic_member())
        .prop_map(|(old, new, member)| GroupChange::ReplaceMember { old, new, member });
    let expired_ms = prop_oneof![3 => 900_000..1_100_000_i64, 1 => any::<i64>()];
    let delete = (vec(partition(), 0..5), option::of(expired_ms))
        .prop_map(|(partitions, expired_ms)| GroupChange::DeleteOffsets { partitions, expired_ms });
    prop_oneof![
        1 => stage,
        4 => begin(),
        4 => assign,
        2 => replace,
        8 => change_consumers(),
        1 => delete,
        1 => Just(GroupChange::DeleteGroup),
    ]
}

/// Some members, so that there are any, and whatever may happen to them.
fn change_consumers() -> impl Strategy<Value = GroupChange> {
    let newcomers = vec((member_id(), subscription()), 0..4);
    (newcomers, vec(consumer_change(), 0..5)).prop_map(|(newcomers, mut changes)| {
        let put = newcomers.into_iter();
        let put = put.map(|(id, subscription)| ConsumerChange::PutMember { id, subscription });
        changes.splice(0..0, put);
        GroupChange::ChangeConsumers(changes)
    })
}

/// Most are led by somebody who joins.
fn begin() -> impl Strategy<Value = GroupChange> {
    let leader = (member_id(), classic_member(), prop::bool::weighted(0.8));
    let terms = (any::<bool>(), prop::bool::weighted(0.9), option::weighted(0.9, leader));
    (terms, vec(member_change(), 0..4)).prop_map(|((with_staged, fits, leader), mut members)| {
        let protocol = (leader.is_some() == fits).then(|| "range".to_owned());
        if let Some((id, member, true)) = leader.clone() {
            members.push(MemberChange::Put { id, member });
        }
        GroupChange::BeginGeneration {
            protocol_type: "consumer".to_owned(),
            protocol,
            leader: leader.map(|(id, _, _)| id),
            with_staged,
            members,
        }
    })
}

fn member_change() -> impl Strategy<Value = MemberChange> {
    prop_oneof![
        2 => (member_id(), classic_member())
            .prop_map(|(id, member)| MemberChange::Put { id, member }),
        1 => member_id().prop_map(|id| MemberChange::Remove { id }),
    ]
}

fn classic_member() -> impl Strategy<Value = ClassicMember> {
    (option::of(instance_id()), any::<(i32, i32)>(), bytes(), bytes()).prop_map(
        |(instance_id, timeouts, metadata, assignment)| ClassicMember {
            instance_id,
            client_id: "client".to_owned(),
            client_host: "/127.0.0.1".to_owned(),
            session_timeout_ms: timeouts.0,
            rebalance_timeout_ms: timeouts.1,
            metadata,
            assignment,
        },
    )
}

fn consumer_change() -> impl Strategy<Value = ConsumerChange> {
    prop_oneof![
        2 => (group_epoch(), any::<u64>()).prop_map(|(epoch, metadata_hash)| {
            ConsumerChange::SetEpoch { epoch, metadata_hash }
        }),
        1 => (member_id(), subscription())
            .prop_map(|(id, subscription)| ConsumerChange::PutMember { id, subscription }),
        2 => member_id().prop_map(|id| ConsumerChange::RemoveMember { id }),
        2 => (member_id(), assignment())
            .prop_map(|(id, target)| ConsumerChange::SetTarget { id, target }),
        1 => group_epoch().prop_map(|epoch| ConsumerChange::SetTargetEpoch { epoch }),
        4 => (member_id(), current())
            .prop_map(|(id, current)| ConsumerChange::SetCurrent { id, current }),
    ]
}

fn subscription() -> impl Strategy<Value = Subscription> {
    let names = (option::of(instance_id()), option::of("[ab]"), option::of("t.*"));
    (names, btree_set("t[12]", 0..3), any::<i32>(), option::of("uniform")).prop_map(
        |((instance_id, rack_id, regex), topics, rebalance_timeout_ms, assignor)| Subscription {
            instance_id,
            rack_id,
            client_id: "client".to_owned(),
            client_host: "/127.0.0.1".to_owned(),
            rebalance_timeout_ms,
            topics,
            regex,
            assignor,
        },
    )
}

fn assignment() -> impl Strategy<Value = Assignment> {
    btree_map(topic_id(), btree_set(0..3_i32, 0..3), 0..3)
}

fn current() -> impl Strategy<Value = Current> {
    let state = prop_oneof![
        Just(MemberState::Stable),
        Just(MemberState::UnrevokedPartitions),
        Just(MemberState::UnreleasedPartitions),
    ];
    (epoch(), epoch(), assignment(), assignment(), state).prop_map(
        |(epoch, previous_epoch, assigned, revoking, state)| Current {
            epoch,
            previous_epoch,
            assigned,
            revoking,
            state,
        },
    )
}
