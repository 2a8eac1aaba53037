//! The stored form of what changes groups, shared with snapshots.

use std::collections::BTreeSet;

use bytes::Bytes;
use odradek_protocol::id::{Offset, TopicId, TopicPartition};

use super::{CodecError, topic_id, wire};
use crate::command::groups::{
    Assignment, ClassicMember, CommittedOffset, Committer, ConsumerChange, Current, GroupChange,
    MemberChange, MemberState, Subscription,
};
use crate::lsn::Lsn;

pub(super) fn to_wire(
    group: &str,
    office: Lsn,
    revision: u64,
    change: &GroupChange,
) -> wire::ChangeGroup {
    let (group, change) = (group.to_owned(), Some(change.into()));
    wire::ChangeGroup { group, revision, change, office: office.get() }
}

impl From<&CommittedOffset> for wire::CommittedOffset {
    fn from(offset: &CommittedOffset) -> Self {
        Self {
            topic: offset.partition.topic.as_bytes().to_vec(),
            partition: offset.partition.partition,
            offset: offset.offset.0,
            leader_epoch: offset.leader_epoch,
            metadata: offset.metadata.clone(),
        }
    }
}

impl TryFrom<wire::CommittedOffset> for CommittedOffset {
    type Error = CodecError;

    fn try_from(stored: wire::CommittedOffset) -> Result<Self, CodecError> {
        let (topic, partition) = (topic_id(&stored.topic)?, stored.partition);
        Ok(Self {
            partition: TopicPartition { topic, partition },
            offset: Offset(stored.offset),
            leader_epoch: stored.leader_epoch,
            metadata: stored.metadata,
        })
    }
}

impl From<&Committer> for wire::Committer {
    fn from(committer: &Committer) -> Self {
        Self {
            member: committer.member.clone(),
            instance_id: committer.instance_id.clone(),
            generation: committer.generation,
        }
    }
}

impl From<wire::Committer> for Committer {
    fn from(stored: wire::Committer) -> Self {
        let wire::Committer { member, instance_id, generation } = stored;
        Self { member, instance_id, generation }
    }
}

impl From<&GroupChange> for wire::GroupChange {
    fn from(change: &GroupChange) -> Self {
        match change {
            GroupChange::StageMembers { is_first, members } => {
                let members = members.iter().map(Into::into).collect();
                Self::StageMembers(wire::StageMembers { is_first: *is_first, members })
            }
            GroupChange::BeginGeneration {
                protocol_type,
                protocol,
                leader,
                with_staged,
                members,
            } => Self::BeginGeneration(wire::BeginGeneration {
                protocol_type: protocol_type.clone(),
                protocol: protocol.clone(),
                leader: leader.clone(),
                with_staged: *with_staged,
                members: members.iter().map(Into::into).collect(),
            }),
            GroupChange::AssignGeneration { assignments, is_last } => {
                let assignment = |(id, assignment): &(String, Bytes)| wire::MemberAssignment {
                    id: id.clone(),
                    assignment: assignment.to_vec(),
                };
                let assignments = assignments.iter().map(assignment).collect();
                Self::AssignGeneration(wire::AssignGeneration { assignments, is_last: *is_last })
            }
            GroupChange::ReplaceMember { old, new, member } => {
                let (old, new, member) = (old.clone(), new.clone(), Some(member.into()));
                Self::ReplaceMember(wire::ReplaceMember { old, new, member })
            }
            GroupChange::ChangeConsumers(changes) => {
                let change = |change| wire::ConsumerChange { kind: Some(change_to_wire(change)) };
                let changes = changes.iter().map(change).collect();
                Self::ChangeConsumers(wire::ChangeConsumers { changes })
            }
            GroupChange::DeleteOffsets { partitions, expired_ms } => {
                let partitions = partitions_to_wire(partitions);
                Self::DeleteOffsets(wire::DeleteOffsets { partitions, expired_ms: *expired_ms })
            }
            GroupChange::DeleteGroup => Self::DeleteGroup(wire::DeleteGroup {}),
        }
    }
}

impl TryFrom<wire::GroupChange> for GroupChange {
    type Error = CodecError;

    fn try_from(stored: wire::GroupChange) -> Result<Self, CodecError> {
        let changes =
            |stored: Vec<wire::MemberChange>| stored.into_iter().map(Into::into).collect();
        Ok(match stored {
            wire::GroupChange::StageMembers(stage) => {
                Self::StageMembers { is_first: stage.is_first, members: changes(stage.members) }
            }
            wire::GroupChange::BeginGeneration(begin) => Self::BeginGeneration {
                protocol_type: begin.protocol_type,
                protocol: begin.protocol,
                leader: begin.leader,
                with_staged: begin.with_staged,
                members: changes(begin.members),
            },
            wire::GroupChange::AssignGeneration(assign) => Self::AssignGeneration {
                assignments: assign
                    .assignments
                    .into_iter()
                    .map(|stored| (stored.id, stored.assignment.into()))
                    .collect(),
                is_last: assign.is_last,
            },
            wire::GroupChange::ReplaceMember(replace) => Self::ReplaceMember {
                old: replace.old,
                new: replace.new,
                member: replace.member.ok_or(CodecError::Field("member"))?.into(),
            },
            wire::GroupChange::ChangeConsumers(change) => {
                let changes = change
                    .changes
                    .into_iter()
                    .map(|stored| change_from_wire(stored.kind.ok_or(CodecError::UnknownCommand)?));
                Self::ChangeConsumers(changes.collect::<Result<_, _>>()?)
            }
            wire::GroupChange::DeleteOffsets(delete) => {
                let partitions = partitions_from_wire(delete.partitions)?;
                Self::DeleteOffsets { partitions, expired_ms: delete.expired_ms }
            }
            wire::GroupChange::DeleteGroup(_) => Self::DeleteGroup,
        })
    }
}

impl From<&MemberChange> for wire::MemberChange {
    fn from(change: &MemberChange) -> Self {
        match change {
            MemberChange::Put { id, member } => {
                Self { id: id.clone(), member: Some(member.into()) }
            }
            MemberChange::Remove { id } => Self { id: id.clone(), member: None },
        }
    }
}

impl From<wire::MemberChange> for MemberChange {
    fn from(stored: wire::MemberChange) -> Self {
        let id = stored.id;
        match stored.member {
            Some(member) => Self::Put { id, member: member.into() },
            None => Self::Remove { id },
        }
    }
}

impl From<&ClassicMember> for wire::ClassicMember {
    fn from(member: &ClassicMember) -> Self {
        Self {
            instance_id: member.instance_id.clone(),
            client_id: member.client_id.clone(),
            client_host: member.client_host.clone(),
            session_timeout_ms: member.session_timeout_ms,
            rebalance_timeout_ms: member.rebalance_timeout_ms,
            metadata: member.metadata.to_vec(),
            assignment: member.assignment.to_vec(),
        }
    }
}

impl From<wire::ClassicMember> for ClassicMember {
    fn from(stored: wire::ClassicMember) -> Self {
        Self {
            instance_id: stored.instance_id,
            client_id: stored.client_id,
            client_host: stored.client_host,
            session_timeout_ms: stored.session_timeout_ms,
            rebalance_timeout_ms: stored.rebalance_timeout_ms,
            metadata: stored.metadata.into(),
            assignment: stored.assignment.into(),
        }
    }
}

fn change_to_wire(change: &ConsumerChange) -> wire::ConsumerChangeKind {
    use wire::ConsumerChangeKind as Kind;
    match change {
        ConsumerChange::SetEpoch { epoch, metadata_hash } => {
            Kind::SetEpoch(wire::SetEpoch { epoch: *epoch, metadata_hash: *metadata_hash })
        }
        ConsumerChange::PutMember { id, subscription } => Kind::PutMember(wire::PutMember {
            id: id.clone(),
            subscription: Some(subscription.into()),
        }),
        ConsumerChange::RemoveMember { id } => Kind::RemoveMember(id.clone()),
        ConsumerChange::SetTarget { id, target } => {
            Kind::SetTarget(wire::SetTarget { id: id.clone(), target: assignment_to_wire(target) })
        }
        ConsumerChange::SetTargetEpoch { epoch } => Kind::SetTargetEpoch(*epoch),
        ConsumerChange::SetCurrent { id, current } => {
            Kind::SetCurrent(wire::SetCurrent { id: id.clone(), current: Some(current.into()) })
        }
    }
}

fn change_from_wire(stored: wire::ConsumerChangeKind) -> Result<ConsumerChange, CodecError> {
    use wire::ConsumerChangeKind as Kind;
    Ok(match stored {
        Kind::SetEpoch(wire::SetEpoch { epoch, metadata_hash }) => {
            ConsumerChange::SetEpoch { epoch, metadata_hash }
        }
        Kind::PutMember(put) => ConsumerChange::PutMember {
            id: put.id,
            subscription: put.subscription.ok_or(CodecError::Field("subscription"))?.into(),
        },
        Kind::RemoveMember(id) => ConsumerChange::RemoveMember { id },
        Kind::SetTarget(set) => {
            ConsumerChange::SetTarget { id: set.id, target: assignment_from_wire(set.target)? }
        }
        Kind::SetTargetEpoch(epoch) => ConsumerChange::SetTargetEpoch { epoch },
        Kind::SetCurrent(set) => ConsumerChange::SetCurrent {
            id: set.id,
            current: set.current.ok_or(CodecError::Field("current"))?.try_into()?,
        },
    })
}

impl From<&Subscription> for wire::Subscription {
    fn from(subscription: &Subscription) -> Self {
        Self {
            instance_id: subscription.instance_id.clone(),
            rack_id: subscription.rack_id.clone(),
            client_id: subscription.client_id.clone(),
            client_host: subscription.client_host.clone(),
            rebalance_timeout_ms: subscription.rebalance_timeout_ms,
            topics: subscription.topics.iter().cloned().collect(),
            regex: subscription.regex.clone(),
            assignor: subscription.assignor.clone(),
        }
    }
}

impl From<wire::Subscription> for Subscription {
    fn from(stored: wire::Subscription) -> Self {
        Self {
            instance_id: stored.instance_id,
            rack_id: stored.rack_id,
            client_id: stored.client_id,
            client_host: stored.client_host,
            rebalance_timeout_ms: stored.rebalance_timeout_ms,
            topics: stored.topics.into_iter().collect(),
            regex: stored.regex,
            assignor: stored.assignor,
        }
    }
}

impl From<&Current> for wire::Current {
    fn from(current: &Current) -> Self {
        Self {
            epoch: current.epoch,
            previous_epoch: current.previous_epoch,
            assigned: assignment_to_wire(&current.assigned),
            revoking: assignment_to_wire(&current.revoking),
            state: match current.state {
                MemberState::Stable => 0,
                MemberState::UnrevokedPartitions => 1,
                MemberState::UnreleasedPartitions => 2,
            },
        }
    }
}

impl TryFrom<wire::Current> for Current {
    type Error = CodecError;

    fn try_from(stored: wire::Current) -> Result<Self, CodecError> {
        Ok(Self {
            epoch: stored.epoch,
            previous_epoch: stored.previous_epoch,
            assigned: assignment_from_wire(stored.assigned)?,
            revoking: assignment_from_wire(stored.revoking)?,
            state: match stored.state {
                0 => MemberState::Stable,
                1 => MemberState::UnrevokedPartitions,
                2 => MemberState::UnreleasedPartitions,
                _ => return Err(CodecError::Field("state")),
            },
        })
    }
}

pub(crate) fn assignment_to_wire(assignment: &Assignment) -> Vec<wire::TopicPartitions> {
    let topic = |(topic, partitions): (&_, &BTreeSet<_>)| wire::TopicPartitions {
        topic: TopicId::as_bytes(topic).to_vec(),
        partitions: partitions.iter().copied().collect(),
    };
    assignment.iter().map(topic).collect()
}

pub(crate) fn assignment_from_wire(
    stored: Vec<wire::TopicPartitions>,
) -> Result<Assignment, CodecError> {
    let topic = |stored: wire::TopicPartitions| {
        Ok((topic_id(&stored.topic)?, stored.partitions.into_iter().collect()))
    };
    stored.into_iter().map(topic).collect()
}

/// Partitions in any order; those of one topic that follow each other share its id.
fn partitions_to_wire(partitions: &[TopicPartition]) -> Vec<wire::TopicPartitions> {
    let runs = partitions.chunk_by(|one, next| one.topic == next.topic);
    let run = |run: &[TopicPartition]| wire::TopicPartitions {
        topic: run[0].topic.as_bytes().to_vec(),
        partitions: run.iter().map(|it| it.partition).collect(),
    };
    runs.map(run).collect()
}

fn partitions_from_wire(
    stored: Vec<wire::TopicPartitions>,
) -> Result<Vec<TopicPartition>, CodecError> {
    let mut partitions = Vec::new();
    for run in stored {
        let topic = topic_id(&run.topic)?;
        let run = run.partitions.into_iter();
        partitions.extend(run.map(|partition| TopicPartition { topic, partition }));
    }
    Ok(partitions)
}
