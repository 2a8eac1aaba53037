//! Groups in a snapshot.

use std::collections::BTreeMap;

use odradek_protocol::id::{Offset, TopicPartition};

use super::wire;
use crate::command::codec::groups::{assignment_from_wire, assignment_to_wire};
use crate::command::codec::{CodecError, topic_id};
use crate::command::groups::ClassicMember;
use crate::state::groups::classic::ClassicGroup;
use crate::state::groups::consumer::{ConsumerGroup, ConsumerMember};
use crate::state::groups::{Group, Groups, Membership, Position};

pub(super) fn to_wire(groups: &Groups) -> Vec<wire::Group> {
    groups.by_name.iter().map(group_to_wire).collect()
}

pub(super) fn from_wire(
    stored: Vec<wire::Group>,
    last_revision: u64,
) -> Result<Groups, CodecError> {
    let by_name = stored.into_iter().map(group).collect::<Result<_, _>>()?;
    Ok(Groups { by_name, last_revision })
}

fn group_to_wire((name, group): (&String, &Group)) -> wire::Group {
    wire::Group {
        name: name.clone(),
        positions: group.positions.iter().map(position_to_wire).collect(),
        revision: group.revision,
        empty_since_ms: group.empty_since_ms,
        membership: match &group.membership {
            Membership::None => None,
            Membership::Classic(it) => Some(wire::Membership::Classic(classic_to_wire(it))),
            Membership::Consumer(it) => Some(wire::Membership::Consumer(consumer_to_wire(it))),
        },
    }
}

fn position_to_wire((partition, position): (&TopicPartition, &Position)) -> wire::Position {
    wire::Position {
        topic: partition.topic.as_bytes().to_vec(),
        partition: partition.partition,
        offset: position.offset.0,
        leader_epoch: position.leader_epoch,
        metadata: position.metadata.clone(),
        committed_ms: position.committed_ms,
        expires_ms: position.expires_ms,
    }
}

fn classic_to_wire(classic: &ClassicGroup) -> wire::Classic {
    let named = |id: &String, member: Option<&ClassicMember>| wire::NamedMember {
        id: id.clone(),
        member: member.map(Into::into),
    };
    wire::Classic {
        protocol_type: classic.protocol_type.clone(),
        generation: classic.generation,
        protocol: classic.protocol.clone(),
        leader: classic.leader.clone(),
        is_assigned: classic.is_assigned,
        members: classic.members.iter().map(|(id, member)| named(id, Some(member))).collect(),
        staged: classic.staged.iter().map(|(id, member)| named(id, member.as_ref())).collect(),
    }
}

fn consumer_to_wire(consumer: &ConsumerGroup) -> wire::Consumer {
    let member = |(id, member): (&String, &ConsumerMember)| wire::ConsumerMember {
        id: id.clone(),
        subscription: Some((&member.subscription).into()),
        target: assignment_to_wire(&member.target),
        current: Some((&member.current).into()),
    };
    wire::Consumer {
        epoch: consumer.epoch,
        metadata_hash: consumer.metadata_hash,
        target_epoch: consumer.target_epoch,
        members: consumer.members.iter().map(member).collect(),
    }
}

fn group(stored: wire::Group) -> Result<(String, Group), CodecError> {
    let positions = stored.positions.into_iter().map(position);
    let group = Group {
        revision: stored.revision,
        membership: match stored.membership {
            None => Membership::None,
            Some(wire::Membership::Classic(stored)) => Membership::Classic(classic(stored)?),
            Some(wire::Membership::Consumer(stored)) => Membership::Consumer(consumer(stored)?),
        },
        positions: positions.collect::<Result<BTreeMap<_, _>, _>>()?,
        empty_since_ms: stored.empty_since_ms,
    };
    Ok((stored.name, group))
}

fn position(stored: wire::Position) -> Result<(TopicPartition, Position), CodecError> {
    let topic = topic_id(&stored.topic)?;
    let position = Position {
        offset: Offset(stored.offset),
        leader_epoch: stored.leader_epoch,
        metadata: stored.metadata,
        committed_ms: stored.committed_ms,
        expires_ms: stored.expires_ms,
    };
    Ok((TopicPartition { topic, partition: stored.partition }, position))
}

fn classic(stored: wire::Classic) -> Result<ClassicGroup, CodecError> {
    let member = |stored: wire::NamedMember| {
        let member = stored.member.ok_or(CodecError::Field("member"))?;
        Ok((stored.id, member.into()))
    };
    let staged = stored.staged.into_iter().map(|it| (it.id, it.member.map(Into::into)));
    Ok(ClassicGroup {
        protocol_type: stored.protocol_type,
        generation: stored.generation,
        protocol: stored.protocol,
        leader: stored.leader,
        is_assigned: stored.is_assigned,
        members: stored.members.into_iter().map(member).collect::<Result<_, CodecError>>()?,
        staged: staged.collect(),
    })
}

fn consumer(stored: wire::Consumer) -> Result<ConsumerGroup, CodecError> {
    let mut consumer = ConsumerGroup {
        epoch: stored.epoch,
        metadata_hash: stored.metadata_hash,
        target_epoch: stored.target_epoch,
        ..ConsumerGroup::default()
    };
    for member in stored.members {
        let subscription = member.subscription.ok_or(CodecError::Field("subscription"))?;
        let current = member.current.ok_or(CodecError::Field("current"))?;
        let found = ConsumerMember {
            subscription: subscription.into(),
            target: assignment_from_wire(member.target)?,
            current: current.try_into()?,
        };
        if !consumer.insert(member.id, found) {
            return Err(CodecError::Field("assigned"));
        }
    }
    Ok(consumer)
}
