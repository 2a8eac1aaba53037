//! Groups, in the most naive way: every change is tried on a copy, step by step, and the copy is
//! looked through after each step.

use std::collections::{BTreeMap, BTreeSet};

use bytes::Bytes;
use odradek_protocol::id::{TopicId, TopicPartition};

use crate::command::groups::{ClassicMember, ConsumerChange, Current, MemberChange};
use crate::command::{CommittedOffset, Committer, GroupChange, Rejection};
use crate::state::State;
use crate::state::groups::{Group, Membership};

/// What a change is turned away for, without the text.
const NONSENSE: Rejection = Rejection::Malformed("");

#[derive(Clone, Debug, Default)]
pub(super) struct ModelGroups {
    groups: BTreeMap<String, ModelGroup>,
    revisions: u64,
}

#[derive(Clone, Debug, Default)]
struct ModelGroup {
    revision: u64,
    members: Members,
    positions: BTreeMap<TopicPartition, ModelPosition>,
    empty_since_ms: i64,
}

#[derive(Clone, Debug)]
struct ModelPosition {
    committed: CommittedOffset,
    committed_ms: i64,
    expires_ms: Option<i64>,
}

#[derive(Clone, Debug, Default)]
enum Members {
    #[default]
    Unheard,
    Classic(ModelClassic),
    Consumer(ModelConsumer),
}

#[derive(Clone, Debug, Default)]
struct ModelClassic {
    protocol_type: String,
    generation: i32,
    protocol: Option<String>,
    leader: Option<String>,
    is_assigned: bool,
    members: BTreeMap<String, ClassicMember>,
    staged: Vec<MemberChange>,
}

#[derive(Clone, Debug, Default)]
struct ModelConsumer {
    epoch: i32,
    metadata_hash: u64,
    target_epoch: i32,
    members: BTreeMap<String, ModelConsumerMember>,
}

type ModelConsumerMember = crate::state::groups::consumer::ConsumerMember;

impl ModelGroups {
    pub(super) fn forget_topic(&mut self, topic: TopicId) {
        for group in self.groups.values_mut() {
            group.positions.retain(|partition, _| partition.topic != topic);
        }
        self.drop_nothings();
    }

    fn drop_nothings(&mut self) {
        self.groups.retain(|_, group| {
            !group.positions.is_empty() || !matches!(group.members, Members::Unheard)
        });
    }

    pub(super) fn commit(
        &mut self,
        name: &str,
        committer: Option<&Committer>,
        offsets: Vec<&CommittedOffset>,
        (now_ms, retention_ms): (i64, Option<i64>),
    ) -> Result<(), Rejection> {
        self.may_commit(name, committer)?;
        offsets.into_iter().for_each(|it| self.store(name, it, (now_ms, retention_ms)));
        Ok(())
    }

    pub(super) fn may_commit(
        &self,
        name: &str,
        committer: Option<&Committer>,
    ) -> Result<(), Rejection> {
        self.groups.get(name).cloned().unwrap_or_default().may_commit(committer)
    }

    pub(super) fn store(
        &mut self,
        name: &str,
        committed: &CommittedOffset,
        (now_ms, retention_ms): (i64, Option<i64>),
    ) {
        let position = ModelPosition {
            committed: committed.clone(),
            committed_ms: now_ms,
            expires_ms: retention_ms.map(|it| now_ms.saturating_add(it)),
        };
        let group = self.groups.entry(name.to_owned()).or_default();
        group.positions.insert(committed.partition, position);
    }

    pub(super) fn change(
        &mut self,
        name: &str,
        expected: u64,
        change: &GroupChange,
        now_ms: i64,
    ) -> Result<u64, Rejection> {
        let known = self.groups.get(name).cloned();
        let mut group = known.clone().unwrap_or_default();
        let found = group.revision;
        if found != expected {
            return Err(Rejection::GroupMoved { found, expected });
        }
        match change {
            GroupChange::DeleteGroup => {
                if known.ok_or(Rejection::UnknownGroup)?.count() > 0 {
                    return Err(Rejection::GroupNotEmpty);
                }
                self.groups.remove(name);
                return Ok(0);
            }
            GroupChange::DeleteOffsets { partitions, expired_ms } => {
                let mut group = known.ok_or(Rejection::UnknownGroup)?;
                group.positions.retain(|partition, position| {
                    !partitions.contains(partition)
                        || expired_ms.is_some_and(|limit| match position.expires_ms {
                            Some(at) => at > now_ms,
                            None => position.committed_ms > limit,
                        })
                });
                let is_old = expired_ms.is_some_and(|limit| group.empty_since_ms <= limit);
                if is_old && group.positions.is_empty() && group.count() == 0 {
                    group = ModelGroup::default();
                }
                self.groups.insert(name.to_owned(), group);
                self.drop_nothings();
                return Ok(self.groups.get(name).map_or(0, |it| it.revision));
            }
            _ => {}
        }
        let before = known.map_or(1, |group| match group.members {
            Members::Unheard => 1,
            _ => group.count(),
        });
        group.members = match change {
            GroupChange::ChangeConsumers(changes) => {
                let mut consumer = group.as_consumer()?;
                for change in changes {
                    consumer.step(change)?;
                }
                Members::Consumer(consumer)
            }
            change => {
                let mut classic = group.as_classic()?;
                classic.step(change)?;
                Members::Classic(classic)
            }
        };
        if before > 0 && group.count() == 0 {
            group.empty_since_ms = now_ms;
        }
        self.revisions += 1;
        group.revision = self.revisions;
        self.groups.insert(name.to_owned(), group);
        Ok(self.revisions)
    }

    pub(super) fn compare(&self, state: &State) {
        let found: Vec<&String> = state.groups().iter().map(|(name, _)| name).collect();
        assert_eq!(found, Vec::from_iter(self.groups.keys()));
        for (name, expected) in &self.groups {
            let group = state.groups().get(name).unwrap();
            assert_eq!(group.revision, expected.revision, "{name}");
            assert_eq!(group.empty_since_ms, expected.empty_since_ms, "{name}");
            assert_eq!(group.has_members(), expected.count() > 0);
            assert_eq!(Vec::from_iter(group.positions.keys()), {
                Vec::from_iter(expected.positions.keys())
            });
            for (partition, position) in &group.positions {
                let expected = &expected.positions[partition];
                assert_eq!(position.offset, expected.committed.offset);
                assert_eq!(position.leader_epoch, expected.committed.leader_epoch);
                assert_eq!(position.metadata, expected.committed.metadata);
                assert_eq!(position.committed_ms, expected.committed_ms);
                assert_eq!(position.expires_ms, expected.expires_ms);
            }
            compare_members(group, &expected.members);
        }
    }
}

fn compare_members(group: &Group, expected: &Members) {
    match (&group.membership, expected) {
        (Membership::None, Members::Unheard) => {}
        (Membership::Classic(found), Members::Classic(expected)) => {
            assert_eq!(found.protocol_type, expected.protocol_type);
            assert_eq!(found.generation, expected.generation);
            assert_eq!(found.protocol, expected.protocol);
            assert_eq!(found.leader, expected.leader);
            assert_eq!(found.is_assigned, expected.is_assigned);
            assert_eq!(found.members, expected.members);
        }
        (Membership::Consumer(found), Members::Consumer(expected)) => {
            assert_eq!(found.epoch, expected.epoch);
            assert_eq!(found.metadata_hash, expected.metadata_hash);
            assert_eq!(found.target_epoch, expected.target_epoch);
            assert_eq!(found.members(), &expected.members);
            for (id, member) in &expected.members {
                for (topic, partition) in held(&member.current) {
                    assert_eq!(found.owner(topic, partition), Some(id.as_str()));
                }
            }
        }
        (found, expected) => panic!("{found:?} where the model has {expected:?}"),
    }
}

fn held(current: &Current) -> BTreeSet<(TopicId, i32)> {
    let topics = current.assigned.iter().chain(&current.revoking);
    topics.flat_map(|(topic, indexes)| indexes.iter().map(|index| (*topic, *index))).collect()
}

impl ModelGroup {
    fn count(&self) -> usize {
        match &self.members {
            Members::Unheard => 0,
            Members::Classic(classic) => classic.members.len(),
            Members::Consumer(consumer) => consumer.members.len(),
        }
    }

    fn number(&self) -> i32 {
        match &self.members {
            Members::Unheard => 0,
            Members::Classic(classic) => classic.generation,
            Members::Consumer(consumer) => consumer.epoch,
        }
    }

    fn as_classic(&self) -> Result<ModelClassic, Rejection> {
        match &self.members {
            Members::Classic(classic) => Ok(classic.clone()),
            _ if self.count() > 0 => Err(NONSENSE),
            _ => Ok(ModelClassic { generation: self.number(), ..ModelClassic::default() }),
        }
    }

    fn as_consumer(&self) -> Result<ModelConsumer, Rejection> {
        let number = self.number();
        match &self.members {
            Members::Consumer(consumer) => Ok(consumer.clone()),
            _ if self.count() > 0 => Err(NONSENSE),
            _ => Ok(ModelConsumer {
                epoch: number,
                target_epoch: number,
                ..ModelConsumer::default()
            }),
        }
    }

    fn may_commit(&self, committer: Option<&Committer>) -> Result<(), Rejection> {
        if self.count() == 0 && committer.is_none_or(|it| it.generation < 0) {
            return Ok(());
        }
        let Some(Committer { member, instance_id, generation }) = committer else {
            return Err(Rejection::UnknownMember);
        };
        let found = *generation;
        match &self.members {
            Members::Unheard if self.positions.is_empty() => Err(Rejection::UnknownGroup),
            Members::Unheard => Err(Rejection::UnknownMember),
            Members::Consumer(consumer) => {
                let member = consumer.members.get(member).ok_or(Rejection::UnknownMember)?;
                let current = member.current.epoch;
                if found == current {
                    Ok(())
                } else {
                    Err(Rejection::StaleMemberEpoch { found, current })
                }
            }
            Members::Classic(classic) => {
                let has_instance = |it: &ClassicMember| it.instance_id == *instance_id;
                let holder = classic.members.iter().find(|(_, it)| has_instance(it));
                if instance_id.is_some() && holder.is_none_or(|(id, _)| id != member) {
                    let known = holder.is_some();
                    return Err(if known {
                        Rejection::FencedInstance
                    } else {
                        Rejection::UnknownMember
                    });
                }
                let current = classic.generation;
                match classic.members.contains_key(member) {
                    false => Err(Rejection::UnknownMember),
                    true if found != current => {
                        Err(Rejection::IllegalGeneration { found, current })
                    }
                    true if classic.is_assigned => Ok(()),
                    true => Err(Rejection::RebalanceInProgress),
                }
            }
        }
    }
}

impl ModelClassic {
    fn step(&mut self, change: &GroupChange) -> Result<(), Rejection> {
        match change {
            GroupChange::StageMembers { is_first, members } => {
                if *is_first {
                    self.staged = Vec::new();
                }
                self.staged.extend(members.clone());
            }
            GroupChange::BeginGeneration {
                protocol_type,
                protocol,
                leader,
                with_staged,
                members,
            } => {
                let staged = std::mem::take(&mut self.staged);
                for change in staged.iter().filter(|_| *with_staged).chain(members) {
                    match change.clone() {
                        MemberChange::Put { id, member } => self.members.insert(id, member),
                        MemberChange::Remove { id } => self.members.remove(&id),
                    };
                }
                let leads = leader.as_ref().is_some_and(|it| self.members.contains_key(it));
                let is_left_empty = leader.is_none() && self.members.is_empty();
                if !(leads || is_left_empty) || protocol.is_some() != leads {
                    return Err(NONSENSE);
                }
                for member in self.members.values_mut() {
                    member.assignment = Bytes::new();
                }
                (self.protocol_type, self.protocol) = (protocol_type.clone(), protocol.clone());
                self.leader = leader.clone();
                self.generation += 1;
                self.is_assigned = false;
            }
            GroupChange::AssignGeneration { assignments, is_last } => {
                if self.is_assigned || self.members.is_empty() {
                    return Err(NONSENSE);
                }
                for (id, assignment) in assignments {
                    if let Some(member) = self.members.get_mut(id) {
                        member.assignment = assignment.clone();
                    }
                }
                self.is_assigned = *is_last;
            }
            GroupChange::ReplaceMember { old, new, member } => {
                if self.members.contains_key(new) {
                    return Err(NONSENSE);
                }
                let gone = self.members.remove(old).ok_or(Rejection::UnknownMember)?;
                let mut member = member.clone();
                member.assignment = gone.assignment;
                self.members.insert(new.clone(), member);
                if self.leader.as_ref() == Some(old) {
                    self.leader = Some(new.clone());
                }
            }
            _ => return Err(NONSENSE),
        }
        Ok(())
    }
}

impl ModelConsumer {
    fn step(&mut self, change: &ConsumerChange) -> Result<(), Rejection> {
        match change.clone() {
            ConsumerChange::SetEpoch { epoch, metadata_hash } => {
                if epoch < self.epoch {
                    return Err(NONSENSE);
                }
                (self.epoch, self.metadata_hash) = (epoch, metadata_hash);
            }
            ConsumerChange::SetTargetEpoch { epoch } => self.target_epoch = epoch,
            ConsumerChange::PutMember { id, subscription } => {
                self.members.entry(id).or_default().subscription = subscription;
            }
            ConsumerChange::RemoveMember { id } => drop(self.members.remove(&id)),
            ConsumerChange::SetTarget { id, target } => {
                self.members.get_mut(&id).ok_or(Rejection::UnknownMember)?.target = target;
            }
            ConsumerChange::SetCurrent { id, current } => {
                self.members.get_mut(&id).ok_or(Rejection::UnknownMember)?.current = current;
            }
        }
        let mut owned = BTreeSet::new();
        for member in self.members.values() {
            if !held(&member.current).into_iter().all(|partition| owned.insert(partition)) {
                return Err(NONSENSE);
            }
        }
        Ok(())
    }
}
