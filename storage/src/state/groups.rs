//! Consumer groups: their members, and how far each has come.
//!
//! A group's membership is one of the two protocols' ([`classic`], [`consumer`]) or none, if
//! consumers only keep their positions here. Owns positions and the conditions under which a group
//! is changed; timers and everything that a crash may forget are the coordinator's, in the broker.

use std::collections::BTreeMap;

use odradek_protocol::id::{Offset, TopicId, TopicPartition};

use super::State;
use crate::command::{CommittedOffset, Committer, GroupChange, Incarnation, Outcome, Rejection};

pub mod classic;
pub mod consumer;

use classic::ClassicGroup;
use consumer::ConsumerGroup;

/// A committed position.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Position {
    /// The next record to read.
    pub offset: Offset,
    /// Leader epoch of the last record read, -1 if unknown.
    pub leader_epoch: i32,
    /// What the client wanted kept with it.
    pub metadata: String,
    /// Log time of the commit, in milliseconds since the Unix epoch.
    pub committed_ms: i64,
    /// Log time at which it expires, if its client set one.
    pub expires_ms: Option<i64>,
}

/// A group.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Group {
    /// Changes with every change of its membership, and is never used twice; 0 if there never was
    /// one.
    pub revision: u64,
    /// Who is in it.
    pub membership: Membership,
    /// How far it has come.
    pub positions: BTreeMap<TopicPartition, Position>,
    /// Log time since which nobody is in it, in milliseconds since the Unix epoch.
    pub empty_since_ms: i64,
}

/// Who is in a group, by the protocol they speak.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub enum Membership {
    /// Nobody: its consumers assign their partitions themselves.
    #[default]
    None,
    /// Members that assign their partitions among themselves.
    Classic(ClassicGroup),
    /// Members that are assigned their partitions (KIP-848).
    Consumer(ConsumerGroup),
}

impl Group {
    /// Whether anybody is in it.
    pub fn has_members(&self) -> bool {
        match &self.membership {
            Membership::None => false,
            Membership::Classic(classic) => !classic.members.is_empty(),
            Membership::Consumer(consumer) => !consumer.members().is_empty(),
        }
    }

    /// The classic part, if it is of that protocol.
    pub fn classic(&self) -> Option<&ClassicGroup> {
        match &self.membership {
            Membership::Classic(classic) => Some(classic),
            _ => None,
        }
    }

    /// The consumer part, if it is of that protocol.
    pub fn consumer(&self) -> Option<&ConsumerGroup> {
        match &self.membership {
            Membership::Consumer(consumer) => Some(consumer),
            _ => None,
        }
    }

    /// Whether it is no group at all: it was never more than its positions, and they are gone.
    fn is_nothing(&self) -> bool {
        self.positions.is_empty() && self.membership == Membership::None
    }

    /// Whether somebody may commit: members of the living generation, and anybody who claims no
    /// generation while the group is empty.
    fn admit(&self, committer: Option<&Committer>) -> Result<(), Rejection> {
        let generation = committer.map_or(-1, |committer| committer.generation);
        if generation < 0 && !self.has_members() {
            return Ok(());
        }
        let Some(committer) = committer else { return Err(Rejection::UnknownMember) };
        match &self.membership {
            Membership::None => Err(Rejection::UnknownMember),
            Membership::Classic(classic) => classic.admit(committer),
            Membership::Consumer(consumer) => consumer.admit(committer),
        }
    }

    /// Changes who is in it; what is turned away leaves it as it was.
    fn change_membership(&mut self, change: &GroupChange) -> Result<(), Rejection> {
        match (&mut self.membership, change) {
            (Membership::Consumer(consumer), GroupChange::ChangeConsumers(changes)) => {
                return consumer.change(changes);
            }
            (_, GroupChange::ChangeConsumers(_)) => {}
            (Membership::Classic(classic), change) => return classic.change(change),
            _ => {}
        }
        if self.has_members() {
            return Err(Rejection::Malformed("the group speaks the other protocol"));
        }
        self.membership = self.membership.begun_by(change)?;
        Ok(())
    }

    /// Drops positions that nobody wants any more, or that are old enough.
    fn drop_positions(
        &mut self,
        partitions: &[TopicPartition],
        expired_ms: Option<i64>,
        now_ms: i64,
    ) {
        for partition in partitions {
            let goes = |position: &Position| {
                let Some(expired_ms) = expired_ms else { return true };
                position.expires_ms.map_or(position.committed_ms <= expired_ms, |at| at <= now_ms)
            };
            if self.positions.get(partition).is_some_and(goes) {
                self.positions.remove(partition);
            }
        }
    }
}

impl Membership {
    /// What a group that nobody is in becomes by a change of the other protocol. Numbers go on, so
    /// that a generation means one thing only.
    fn begun_by(&self, change: &GroupChange) -> Result<Self, Rejection> {
        let last = match self {
            Self::None => 0,
            Self::Classic(classic) => classic.generation,
            Self::Consumer(consumer) => consumer.epoch,
        };
        if let GroupChange::ChangeConsumers(changes) = change {
            let mut consumer = ConsumerGroup::beginning_at(last);
            return consumer.change(changes).map(|()| Self::Consumer(consumer));
        }
        let mut classic = ClassicGroup { generation: last, ..ClassicGroup::default() };
        classic.change(change).map(|()| Self::Classic(classic))
    }
}

/// The groups.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Groups {
    pub(crate) by_name: BTreeMap<String, Group>,
    pub(crate) last_revision: u64,
}

impl Groups {
    /// A group, if there is one.
    pub fn get(&self, name: &str) -> Option<&Group> {
        self.by_name.get(name)
    }

    /// All groups, by name.
    pub fn iter(&self) -> impl Iterator<Item = (&String, &Group)> {
        self.by_name.iter()
    }

    /// Positions of a group; `None` if there is no such group.
    pub fn positions(&self, group: &str) -> Option<&BTreeMap<TopicPartition, Position>> {
        self.by_name.get(group).map(|group| &group.positions)
    }

    /// Whether positions would be taken from this committer.
    pub(crate) fn admit(
        &self,
        group: &str,
        committer: Option<&Committer>,
    ) -> Result<(), Rejection> {
        match self.by_name.get(group) {
            Some(group) => group.admit(committer),
            None if committer.is_none_or(|it| it.generation < 0) => Ok(()),
            None => Err(Rejection::UnknownGroup),
        }
    }

    pub(crate) fn commit(
        &mut self,
        group: &str,
        offset: &CommittedOffset,
        retention_ms: Option<i64>,
        now_ms: i64,
    ) {
        let position = Position {
            offset: offset.offset,
            leader_epoch: offset.leader_epoch,
            metadata: offset.metadata.clone(),
            committed_ms: now_ms,
            expires_ms: retention_ms.map(|retention| now_ms.saturating_add(retention)),
        };
        let group = self.by_name.entry(group.to_owned()).or_default();
        group.positions.insert(offset.partition, position);
    }

    /// Makes a change, if the group has this revision. Returns the revision it has afterwards.
    pub(crate) fn change(
        &mut self,
        name: &str,
        revision: u64,
        change: &GroupChange,
        now_ms: i64,
    ) -> Result<u64, Rejection> {
        let found = self.by_name.get(name).map_or(0, |group| group.revision);
        if found != revision {
            return Err(Rejection::GroupMoved { found, expected: revision });
        }
        match change {
            GroupChange::DeleteGroup => {
                let group = self.by_name.get(name).ok_or(Rejection::UnknownGroup)?;
                if group.has_members() {
                    return Err(Rejection::GroupNotEmpty);
                }
                self.by_name.remove(name);
                Ok(0)
            }
            GroupChange::DeleteOffsets { partitions, expired_ms } => {
                let group = self.by_name.get_mut(name).ok_or(Rejection::UnknownGroup)?;
                group.drop_positions(partitions, *expired_ms, now_ms);
                let is_old = expired_ms.is_some_and(|expired| group.empty_since_ms <= expired);
                let is_done = is_old && group.positions.is_empty() && !group.has_members();
                if is_done || group.is_nothing() {
                    self.by_name.remove(name);
                }
                Ok(self.by_name.get(name).map_or(0, |group| group.revision))
            }
            change => {
                let mut fresh = None;
                let group = match self.by_name.get_mut(name) {
                    Some(group) => group,
                    None => fresh.insert(Group::default()),
                };
                let was_empty = !group.has_members() && group.membership != Membership::None;
                group.change_membership(change)?;
                if !group.has_members() && !was_empty {
                    group.empty_since_ms = now_ms;
                }
                self.last_revision += 1;
                group.revision = self.last_revision;
                if let Some(group) = fresh {
                    self.by_name.insert(name.to_owned(), group);
                }
                Ok(self.last_revision)
            }
        }
    }

    pub(crate) fn forget_topic(&mut self, topic: TopicId) {
        for group in self.by_name.values_mut() {
            group.positions.retain(|partition, _| partition.topic != topic);
        }
        self.by_name.retain(|_, group| !group.is_nothing());
    }
}

impl State {
    /// Positions in partitions that no longer exist are dropped: the topic was deleted meanwhile.
    pub(super) fn commit_offsets(
        &mut self,
        group: &str,
        committer: Option<&Committer>,
        retention_ms: Option<i64>,
        offsets: &[CommittedOffset],
    ) -> Result<(), Rejection> {
        self.groups.admit(group, committer)?;
        for offset in offsets {
            if self.topics.partition(offset.partition).is_some() {
                self.transactions.supersede(group, offset.partition);
                self.groups.commit(group, offset, retention_ms, self.log_time_ms);
            }
        }
        Ok(())
    }

    pub(super) fn change_group(
        &mut self,
        proposer: Incarnation,
        group: &str,
        revision: u64,
        change: &GroupChange,
    ) -> Outcome {
        if self.coordinator_of(group) != self.brokers.node_of(proposer) {
            return Outcome::Rejected(Rejection::NotCoordinator(proposer));
        }
        match self.groups.change(group, revision, change, self.log_time_ms) {
            Ok(revision) => {
                if *change == GroupChange::DeleteGroup {
                    self.transactions.forget_group(group);
                }
                Outcome::GroupChanged(revision)
            }
            Err(rejection) => Outcome::Rejected(rejection),
        }
    }
}
