//! Groups of the consumer protocol (KIP-848): members that say what they want and are told what
//! they have.
//!
//! No partition is held by two members: neither what one may hold nor what it still has to give
//! back is anybody else's. A list of changes that would break this is rejected whole.

use std::collections::BTreeMap;

use odradek_protocol::id::{PartitionIndex, TopicId};

use crate::command::groups::{Assignment, ConsumerChange, Current, MemberState, Subscription};
use crate::command::{Committer, Rejection};

/// Members, and what each is to have and has.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct ConsumerGroup {
    /// Grows whenever a new target is wanted.
    pub epoch: i32,
    /// Hash of the partitions of the subscribed topics, as the epoch knows them.
    pub metadata_hash: u64,
    /// The epoch that the target assignment was made for.
    pub target_epoch: i32,
    pub(crate) members: BTreeMap<String, ConsumerMember>,
    /// Who holds a partition: what the members say, the other way round.
    pub(crate) owners: BTreeMap<(TopicId, PartitionIndex), String>,
}

/// A member of the consumer protocol.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct ConsumerMember {
    /// What it says of itself.
    pub subscription: Subscription,
    /// What it is to have.
    pub target: Assignment,
    /// What it has.
    pub current: Current,
}

/// What a list of changes does to who holds what, before it is done.
#[derive(Default)]
struct Plan<'a> {
    /// Members that come, go or have a new assignment, and whether they are members then. They hold
    /// what they claim, and nothing else.
    members: BTreeMap<&'a str, bool>,
    claims: BTreeMap<(TopicId, PartitionIndex), &'a str>,
}

impl ConsumerGroup {
    /// A group whose first epoch follows this one.
    pub fn beginning_at(epoch: i32) -> Self {
        Self { epoch, target_epoch: epoch, ..Self::default() }
    }

    /// The members, by id.
    pub fn members(&self) -> &BTreeMap<String, ConsumerMember> {
        &self.members
    }

    /// The member that holds a partition, or still has to give it back.
    pub fn owner(&self, topic: TopicId, partition: PartitionIndex) -> Option<&str> {
        self.owners.get(&(topic, partition)).map(String::as_str)
    }

    /// Where the group stands: Kafka's name.
    pub fn phase(&self) -> &'static str {
        let is_there = |member: &ConsumerMember| {
            member.current.epoch == self.target_epoch && member.current.state == MemberState::Stable
        };
        if self.members.is_empty() {
            "Empty"
        } else if self.epoch > self.target_epoch {
            "Assigning"
        } else if self.members.values().all(is_there) {
            "Stable"
        } else {
            "Reconciling"
        }
    }

    /// The member with this instance id.
    pub fn static_member(&self, instance_id: &str) -> Option<&str> {
        let has = |member: &ConsumerMember| {
            member.subscription.instance_id.as_deref() == Some(instance_id)
        };
        self.members.iter().find(|(_, member)| has(member)).map(|(id, _)| id.as_str())
    }

    pub(super) fn admit(&self, committer: &Committer) -> Result<(), Rejection> {
        let member = self.members.get(&committer.member).ok_or(Rejection::UnknownMember)?;
        if committer.generation != member.current.epoch {
            let (found, current) = (committer.generation, member.current.epoch);
            return Err(Rejection::StaleMemberEpoch { found, current });
        }
        Ok(())
    }

    /// Makes changes, all or none.
    pub fn change(&mut self, changes: &[ConsumerChange]) -> Result<(), Rejection> {
        self.check(changes)?;
        for change in changes {
            match change {
                ConsumerChange::SetEpoch { epoch, metadata_hash } => {
                    self.epoch = *epoch;
                    self.metadata_hash = *metadata_hash;
                }
                ConsumerChange::SetTargetEpoch { epoch } => self.target_epoch = *epoch,
                ConsumerChange::PutMember { id, subscription } => {
                    let member = self.members.entry(id.clone()).or_default();
                    member.subscription = subscription.clone();
                }
                ConsumerChange::RemoveMember { id } => {
                    self.set_current(id, Current::default());
                    self.members.remove(id);
                }
                ConsumerChange::SetTarget { id, target } => {
                    if let Some(member) = self.members.get_mut(id) {
                        member.target = target.clone();
                    }
                }
                ConsumerChange::SetCurrent { id, current } => {
                    self.set_current(id, current.clone());
                }
            }
        }
        Ok(())
    }

    fn set_current(&mut self, id: &str, current: Current) {
        let Some(member) = self.members.get_mut(id) else { return };
        for partition in member.current.held() {
            // What was given to another in the same list is not taken from it.
            if self.owners.get(&partition).is_some_and(|owner| owner == id) {
                self.owners.remove(&partition);
            }
        }
        self.owners.extend(current.held().map(|partition| (partition, id.to_owned())));
        member.current = current;
    }

    /// Puts a member in as it is, for a state that is read back. `false`: another has what it has.
    pub(crate) fn insert(&mut self, id: String, member: ConsumerMember) -> bool {
        for partition in member.current.held() {
            let owner = self.owners.entry(partition).or_insert_with(|| id.clone());
            if *owner != id {
                return false;
            }
        }
        self.members.insert(id, member);
        true
    }

    /// Whether all changes make sense together.
    fn check(&self, changes: &[ConsumerChange]) -> Result<(), Rejection> {
        let mut plan = Plan::default();
        let mut last_epoch = self.epoch;
        for change in changes {
            let is_member = |plan: &Plan<'_>, id: &str| {
                plan.members.get(id).copied().unwrap_or_else(|| self.members.contains_key(id))
            };
            match change {
                ConsumerChange::SetEpoch { epoch, .. } => {
                    if *epoch < last_epoch {
                        return Err(Rejection::Malformed("a group epoch never falls"));
                    }
                    last_epoch = *epoch;
                }
                ConsumerChange::SetTargetEpoch { .. } => {}
                ConsumerChange::PutMember { id, .. } => {
                    if !is_member(&plan, id) {
                        plan.members.insert(id, true);
                    }
                }
                ConsumerChange::RemoveMember { id } => {
                    plan.claims.retain(|_, owner| owner != id);
                    plan.members.insert(id, false);
                }
                ConsumerChange::SetTarget { id, .. } => {
                    if !is_member(&plan, id) {
                        return Err(Rejection::UnknownMember);
                    }
                }
                ConsumerChange::SetCurrent { id, current } => {
                    if !is_member(&plan, id) {
                        return Err(Rejection::UnknownMember);
                    }
                    plan.claims.retain(|_, owner| owner != id);
                    plan.members.insert(id, true);
                    self.claim(&mut plan, id, current)?;
                }
            }
        }
        Ok(())
    }

    fn claim<'a>(
        &self,
        plan: &mut Plan<'a>,
        id: &'a str,
        current: &'a Current,
    ) -> Result<(), Rejection> {
        for partition in current.held() {
            let claimed = plan.claims.insert(partition, id).is_some_and(|owner| owner != id);
            let owner = self.owners.get(&partition).map(String::as_str);
            if claimed || owner.is_some_and(|owner| !plan.members.contains_key(owner)) {
                return Err(Rejection::Malformed("a partition would have two owners"));
            }
        }
        Ok(())
    }
}

impl Current {
    /// What nobody else may have.
    fn held(&self) -> impl Iterator<Item = (TopicId, PartitionIndex)> + '_ {
        let topics = self.assigned.iter().chain(&self.revoking);
        topics.flat_map(|(topic, indexes)| indexes.iter().map(|index| (*topic, *index)))
    }
}
