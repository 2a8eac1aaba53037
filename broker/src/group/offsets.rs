//! Positions of consumers: committed, deleted, expired.

use std::collections::BTreeMap;

use odradek_protocol::id::TopicPartition;
use odradek_storage::command::{
    Command, CommittedOffset, Committer, GroupChange, Outcome, ProducerIdAndEpoch, StagedOffsets,
    TransactionChange,
};
use odradek_storage::lsn::Lsn;
use odradek_storage::state::State;
use odradek_storage::state::groups::{Group, Membership, Position};

use super::{GroupCoordinator, GroupError, Work, parts, unbroken};
use crate::transactions;

mod subscriptions;

use subscriptions::Subscribed;
#[cfg(feature = "test-util")]
pub(crate) use subscriptions::topics_of;

/// The transaction that positions depend on.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Staging {
    /// Its transactional id.
    pub transactional_id: String,
    /// Whom its client takes itself for.
    pub producer: ProducerIdAndEpoch,
    /// Whether the group is added to the transaction by this (KIP-890); else it was before.
    pub is_implicit: bool,
}

impl GroupCoordinator {
    /// Stores positions of consumers, all of them or, if they are too many for one command and
    /// something fails on the way, some. `committer` is none for consumers that assign their
    /// partitions themselves; `retention_ms` is how long they are kept, if not as long as others.
    pub async fn commit(
        &self,
        group: &str,
        committer: Option<Committer>,
        retention_ms: Option<i64>,
        offsets: Vec<CommittedOffset>,
    ) -> Result<(), GroupError> {
        let office = self.begin_commit(group, committer.as_ref()).await?;
        let commands = parts(offsets, bytes_of).into_iter().map(|offsets| {
            let (group, committer) = (group.to_owned(), committer.clone());
            Command::CommitOffsets { group, office, committer, retention_ms, offsets }
        });
        self.propose_all(commands).await
    }

    /// Stores positions that become the group's when a transaction is committed. `committer` is
    /// none for clients that don't say who they are.
    pub async fn stage_offsets(
        &self,
        group: &str,
        staging: Staging,
        committer: Option<Committer>,
        offsets: Vec<CommittedOffset>,
    ) -> Result<(), GroupError> {
        let Staging { transactional_id, producer, is_implicit } = staging;
        let machine = &self.shared.machine;
        let transaction = transactions::number_of(machine, &transactional_id, producer).await?;
        let office = self.begin_commit(group, committer.as_ref()).await?;
        let commands = parts(offsets, bytes_of).into_iter().map(|offsets| {
            let change = TransactionChange::StageOffsets(StagedOffsets {
                producer,
                transaction,
                is_implicit,
                group: group.to_owned(),
                office,
                committer: committer.clone(),
                offsets,
            });
            Command::ChangeTransaction { transactional_id: transactional_id.clone(), change }
        });
        self.propose_all(commands).await
    }

    /// The office in which positions are taken; their member is heard from.
    async fn begin_commit(
        &self,
        group: &str,
        committer: Option<&Committer>,
    ) -> Result<Lsn, GroupError> {
        self.check_office(group).await?;
        let office = self.shared.machine.read(State::offices_changed);
        // Looked at before: the office was this broker's then, or the commit comes too late.
        self.shared.check_office(group)?;
        if let Some(committer) = committer {
            // A commit shows that the member lives. Whether it may commit, the state says.
            self.renew(group, committer).await?;
        }
        Ok(office)
    }

    async fn propose_all(&self, commands: impl Iterator<Item = Command>) -> Result<(), GroupError> {
        let mut under_way = Vec::new();
        for command in commands {
            under_way.push(self.shared.machine.submit(command).await?);
        }
        for proposed in under_way {
            if let Outcome::Rejected(rejection) = proposed.await? {
                return Err(rejection.into());
            }
        }
        Ok(())
    }

    async fn renew(&self, group: &str, committer: &Committer) -> Result<(), GroupError> {
        let mut work = self.enter(group).await?;
        let speaks_consumer = |group: Option<&Group>| {
            group.is_some_and(|group| matches!(group.membership, Membership::Consumer(_)))
        };
        if work.read(speaks_consumer) {
            work.renew_consumer(&committer.member);
        } else {
            work.renew_classic(&committer.member);
        }
        Ok(())
    }

    /// Drops positions in partitions, if nobody is subscribed to their topics. One answer for each;
    /// an error if none can be dropped.
    pub async fn delete_offsets(
        &self,
        group: &str,
        partitions: Vec<TopicPartition>,
    ) -> Result<BTreeMap<TopicPartition, Result<(), GroupError>>, GroupError> {
        let mut work = self.enter(group).await?;
        let subscribed = work.read_with(|state, group| {
            group.map(|group| (Subscribed::of(state, group), group.has_members()))
        });
        let Some((subscribed, has_members)) = subscribed else {
            return Err(GroupError::UnknownGroup(group.to_owned()));
        };
        if subscribed == Subscribed::Unknowable && has_members {
            return Err(GroupError::GroupNotEmpty);
        }
        let (kept, dropped): (Vec<_>, Vec<_>) =
            partitions.into_iter().partition(|it| has_members && subscribed.contains(it.topic));
        let refused = kept.into_iter().map(|it| (it, Err(GroupError::SubscribedToTopic)));
        let done: Vec<_> = dropped.iter().map(|it| (*it, Ok(()))).collect();
        if !dropped.is_empty() {
            unbroken(async move { work.delete_offsets(dropped, None).await }).await?;
        }
        Ok(refused.chain(done).collect())
    }

    /// Drops a group that nobody is in.
    pub async fn delete_group(&self, group: &str) -> Result<(), GroupError> {
        let mut work = self.enter(group).await?;
        if !work.desk.classic.is_idle() {
            return Err(GroupError::GroupNotEmpty);
        }
        if work.read(|group| group.is_none()) {
            return Err(GroupError::UnknownGroup(group.to_owned()));
        }
        unbroken(async move { work.change(GroupChange::DeleteGroup).await }).await
    }

    /// Drops positions of this broker's groups that were committed, in groups that were left,
    /// longer than `retention_ms` of log time ago (KIP-211), and groups of which nothing remains.
    /// What can't be dropped now is dropped another time.
    pub async fn expire_offsets(&self, retention_ms: i64) {
        let machine = &self.shared.machine;
        let node = Some(machine.node_id());
        let expired_ms = machine.read(State::log_time_ms).saturating_sub(retention_ms);
        let due: Vec<String> = machine.read(|state| {
            let ours = state.groups().iter().filter(|(name, group)| {
                expired(state, group, expired_ms).is_some() && state.coordinator_of(name) == node
            });
            ours.map(|(name, _)| name.clone()).collect()
        });
        for group in due {
            let Ok(mut work) = self.enter(&group).await else { continue };
            let found = work.read_with(|state, group| expired(state, group?, expired_ms));
            let Some(partitions) = found else { continue };
            if !work.desk.classic.is_idle() {
                continue;
            }
            tracing::info!(group, positions = partitions.len(), "positions have expired");
            let dropping = async move { work.delete_offsets(partitions, Some(expired_ms)).await };
            drop(unbroken(dropping).await);
        }
    }
}

impl Work {
    async fn delete_offsets(
        &mut self,
        partitions: Vec<TopicPartition>,
        expired_ms: Option<i64>,
    ) -> Result<(), GroupError> {
        for partitions in parts(partitions, |_| 24) {
            self.change(GroupChange::DeleteOffsets { partitions, expired_ms }).await?;
        }
        Ok(())
    }
}

/// About how long a position is in a command.
fn bytes_of(offset: &CommittedOffset) -> usize {
    offset.metadata.len() + 32
}

/// Positions of a group that have expired; none if there is nothing to do.
fn expired(state: &State, group: &Group, expired_ms: i64) -> Option<Vec<TopicPartition>> {
    let now_ms = state.log_time_ms();
    let is_old = |position: &Position| {
        position.expires_ms.map_or(position.committed_ms <= expired_ms, |at| at <= now_ms)
    };
    let was_left = !group.has_members()
        && (group.membership == Membership::None || group.empty_since_ms <= expired_ms);
    let subscribed = Subscribed::of(state, group);
    let is_wanted = |partition: &TopicPartition| {
        if group.has_members() { subscribed.contains(partition.topic) } else { !was_left }
    };
    let positions = group.positions.iter();
    let goes = positions.filter(|(partition, position)| is_old(position) && !is_wanted(partition));
    let goes: Vec<_> = goes.map(|(partition, _)| *partition).collect();
    let nothing_stays = was_left && goes.len() == group.positions.len();
    (!goes.is_empty() || nothing_stays).then_some(goes)
}
