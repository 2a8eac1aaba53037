//! What a heartbeat comes to: from the group, the topics and what a member says to changes of the
//! group and an answer. Pure: nothing is done here.
//!
//! Rules after Kafka's group coordinator: the member is found or taken in, the group's epoch moves
//! if there is another target to be made, the target is made, and the member does its next step.

use odradek_protocol::id::{PartitionIndex, TopicId};
use odradek_storage::command::groups::{Assignment, ConsumerChange, Current, Subscription};
use odradek_storage::state::groups::consumer::{ConsumerGroup, ConsumerMember};

use super::reconcile::{Goal, is_within, reconcile};
use super::target::{Wish, divide, preferred};
use super::topics::Topics;
use super::{ConsumerHeartbeat, JOIN_EPOCH, LEAVE_EPOCH, STATIC_LEAVE_EPOCH};
use crate::group::GroupError;
use crate::group::assignors::Assignor;

/// What is to be done, and what the member hears once it is.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Decision {
    pub(super) changes: Vec<ConsumerChange>,
    /// The member's epoch.
    pub(super) epoch: i32,
    /// What it has, if it is to be told.
    pub(super) assignment: Option<Assignment>,
}

/// A member's turn: who it is, and what it says of itself now.
pub(super) struct Turn<'a> {
    group: &'a ConsumerGroup,
    id: &'a str,
    heartbeat: &'a ConsumerHeartbeat,
    /// The member as it was. A static member that takes over has what the one before it had.
    member: ConsumerMember,
    /// The member that it takes over from.
    replaces: Option<&'a str>,
    is_new: bool,
    subscription: Subscription,
}

/// Whether a heartbeat makes sense in itself.
pub(super) fn check(heartbeat: &ConsumerHeartbeat) -> Result<(), GroupError> {
    let invalid = |why| Err(GroupError::InvalidRequest(why));
    let is_empty = |text: &Option<String>| text.as_deref() == Some("");
    if is_empty(&heartbeat.instance_id) {
        return invalid("an instance id has at least one character");
    }
    if is_empty(&heartbeat.rack_id) {
        return invalid("a rack id has at least one character");
    }
    if heartbeat.member.is_empty() {
        return invalid("the member has no id");
    }
    match heartbeat.epoch {
        JOIN_EPOCH => {
            if heartbeat.rebalance_timeout_ms.is_none() {
                return invalid("who joins says its rebalance timeout");
            }
            if heartbeat.owned.as_ref().is_none_or(|owned| !owned.is_empty()) {
                return invalid("who joins owns no partitions, and says so");
            }
            if heartbeat.topics.is_none() && heartbeat.regex.is_none() {
                return invalid("who joins subscribes to names or to a regular expression");
            }
        }
        LEAVE_EPOCH | 1.. => {}
        STATIC_LEAVE_EPOCH => {
            if heartbeat.instance_id.is_none() {
                return invalid("only a member with an instance id leaves for a while");
            }
        }
        _ => return invalid("there are no such member epochs"),
    }
    match &heartbeat.assignor {
        Some(name) if Assignor::from_name(name).is_none() => {
            Err(GroupError::UnsupportedAssignor(name.clone()))
        }
        _ => Ok(()),
    }
}

impl<'a> Turn<'a> {
    /// Finds out who speaks. A group takes in members until it has so many.
    pub(super) fn begin(
        group: &'a ConsumerGroup,
        heartbeat: &'a ConsumerHeartbeat,
        max_size: usize,
    ) -> Result<Self, GroupError> {
        let id = heartbeat.member.as_str();
        let instance_id = heartbeat.instance_id.as_deref();
        let holder = instance_id.and_then(|instance_id| group.static_member(instance_id));
        let joins = heartbeat.epoch == JOIN_EPOCH;
        let known = group.members().get(id);
        let is_full = known.is_none() && group.members().len() >= max_size;
        if is_full && !(joins && holder.is_some()) {
            return Err(GroupError::GroupFull);
        }
        let replaces = holder.filter(|holder| joins && *holder != id);
        let member = match (replaces.and_then(|it| group.members().get(it)), known) {
            (Some(before), _) => take_over(before, instance_id)?,
            (None, None) if joins => ConsumerMember::default(),
            (None, _) => {
                let known = find(group, id, instance_id, joins)?;
                check_epoch(&known.current, heartbeat)?;
                // Who was away with its place kept begins again, with what it had.
                if known.current.epoch == STATIC_LEAVE_EPOCH {
                    as_new(known)
                } else {
                    known.clone()
                }
            }
        };
        let is_new = known.is_none() && replaces.is_none();
        let subscription = heartbeat.update(&member.subscription);
        Ok(Self { group, id, heartbeat, member, replaces, is_new, subscription })
    }

    /// The answer, if the group stays as it is and its topics are what they were.
    pub(super) fn quiet(&self) -> Option<Decision> {
        let is_settled = !self.is_new
            && self.replaces.is_none()
            && self.subscription == self.member.subscription
            && self.group.epoch == self.group.target_epoch;
        if !is_settled {
            return None;
        }
        let goal = Goal { epoch: self.group.target_epoch, target: &self.member.target };
        match self.reconcile(&goal) {
            Some(_) => None,
            None => Some(self.decision(Vec::new(), &self.member.current)),
        }
    }

    /// What everybody in the group asks for, after this turn.
    pub(super) fn subscriptions(&self) -> impl Iterator<Item = &Subscription> {
        self.others().map(|(_, member)| &member.subscription).chain([&self.subscription])
    }

    fn others(&self) -> impl Iterator<Item = (&str, &ConsumerMember)> {
        let stays = |id: &str| id != self.id && Some(id) != self.replaces;
        let members = self.group.members().iter().map(|(id, member)| (id.as_str(), member));
        members.filter(move |(id, _)| stays(id))
    }

    /// What is to be done, with the topics that everybody asks for.
    pub(super) fn finish(self, topics: &Topics) -> Decision {
        let mut changes = Vec::new();
        if let Some(replaced) = self.replaces {
            changes.push(ConsumerChange::RemoveMember { id: replaced.to_owned() });
        }
        if self.is_new || self.replaces.is_some() || self.subscription != self.member.subscription {
            let (id, subscription) = (self.id.to_owned(), self.subscription.clone());
            changes.push(ConsumerChange::PutMember { id, subscription });
        }
        if self.replaces.is_some() {
            let (id, target) = (self.id.to_owned(), self.member.target.clone());
            changes.push(ConsumerChange::SetTarget { id, target });
            let (id, current) = (self.id.to_owned(), self.member.current.clone());
            changes.push(ConsumerChange::SetCurrent { id, current });
        }
        let metadata_hash = topics.hash();
        let mut epoch = self.group.epoch;
        if self.asks_for_more() || metadata_hash != self.group.metadata_hash {
            epoch = epoch.saturating_add(1);
            changes.push(ConsumerChange::SetEpoch { epoch, metadata_hash });
        }
        let mut goal = Goal { epoch: self.group.target_epoch, target: &self.member.target };
        let mut own = None;
        if epoch > self.group.target_epoch {
            let mut targets = divide(&self.wishes(), topics);
            own = targets.get(self.id).cloned();
            goal.epoch = epoch;
            // Its own first: it is taken in by this turn.
            let first = targets.remove_entry(self.id);
            let all = first.into_iter().chain(targets);
            changes.extend(all.map(|(id, target)| ConsumerChange::SetTarget { id, target }));
            changes.push(ConsumerChange::SetTargetEpoch { epoch });
        }
        goal.target = own.as_ref().unwrap_or(goal.target);
        match self.reconcile(&goal) {
            Some(current) => {
                let decision = self.decision(changes, &current);
                decision.and(ConsumerChange::SetCurrent { id: self.id.to_owned(), current })
            }
            None => self.decision(changes, &self.member.current),
        }
    }

    /// Whether there is another target to be made because of what the member says.
    fn asks_for_more(&self) -> bool {
        let before = &self.member.subscription;
        let (topics, regex) = (&self.subscription.topics, &self.subscription.regex);
        if self.is_new || *topics != before.topics || *regex != before.regex {
            return true;
        }
        let members = self.group.members().values();
        self.subscription.assignor != before.assignor
            && preferred(self.subscriptions())
                != preferred(members.map(|member| &member.subscription))
    }

    fn wishes(&self) -> Vec<Wish<'_>> {
        let own =
            Wish { id: self.id, subscription: &self.subscription, target: &self.member.target };
        let others = self.others().map(|(id, member)| Wish {
            id,
            subscription: &member.subscription,
            target: &member.target,
        });
        others.chain([own]).collect()
    }

    fn reconcile(&self, goal: &Goal<'_>) -> Option<Current> {
        let is_free = |topic: TopicId, index: PartitionIndex| {
            let owner = self.group.owner(topic, index);
            owner.is_none_or(|owner| owner == self.id || Some(owner) == self.replaces)
        };
        reconcile(&self.member.current, goal, self.heartbeat.owned.as_ref(), is_free)
    }

    fn decision(&self, changes: Vec<ConsumerChange>, current: &Current) -> Decision {
        let is_told = self.heartbeat.is_full() || current.assigned != self.member.current.assigned;
        Decision {
            changes,
            epoch: current.epoch,
            assignment: is_told.then(|| current.assigned.clone()),
        }
    }
}

impl Decision {
    fn and(mut self, change: ConsumerChange) -> Self {
        self.changes.push(change);
        self
    }
}

/// The member that says it has this id.
fn find<'a>(
    group: &'a ConsumerGroup,
    id: &str,
    instance_id: Option<&str>,
    joins: bool,
) -> Result<&'a ConsumerMember, GroupError> {
    if let Some(instance_id) = instance_id {
        match group.static_member(instance_id) {
            Some(holder) if holder != id => return Err(GroupError::FencedInstance),
            None if !joins => return Err(GroupError::UnknownMember),
            _ => {}
        }
    }
    group.members().get(id).ok_or(GroupError::UnknownMember)
}

/// A static member that begins where another left off, if that one has left.
fn take_over(
    before: &ConsumerMember,
    instance_id: Option<&str>,
) -> Result<ConsumerMember, GroupError> {
    if before.current.epoch == STATIC_LEAVE_EPOCH {
        Ok(as_new(before))
    } else {
        Err(GroupError::UnreleasedInstance(instance_id.unwrap_or_default().to_owned()))
    }
}

fn as_new(member: &ConsumerMember) -> ConsumerMember {
    let mut member = member.clone();
    member.current.epoch = JOIN_EPOCH;
    member.current.previous_epoch = JOIN_EPOCH;
    member
}

/// Whether a member is where it believes to be. The epoch before is good as long as it owns nothing
/// that it may not: the answer that named the new one may be lost. Who joins anew has given up all
/// that it had.
fn check_epoch(current: &Current, heartbeat: &ConsumerHeartbeat) -> Result<(), GroupError> {
    let claimed = heartbeat.epoch;
    let owns_its_own =
        || heartbeat.owned.as_ref().is_some_and(|owned| is_within(owned, &current.assigned));
    if claimed == JOIN_EPOCH || claimed == current.epoch {
        return Ok(());
    }
    if claimed < current.epoch && claimed == current.previous_epoch && owns_its_own() {
        return Ok(());
    }
    Err(GroupError::FencedMemberEpoch(current.epoch))
}

/// A member leaves: for good, or, as a static one, for a while.
pub(super) fn leave(
    group: &ConsumerGroup,
    heartbeat: &ConsumerHeartbeat,
    topics: impl FnOnce(&[String]) -> Topics,
) -> Result<Decision, GroupError> {
    let id = heartbeat.member.clone();
    let member = find(group, &id, heartbeat.instance_id.as_deref(), false)?;
    let epoch = heartbeat.epoch;
    if epoch != STATIC_LEAVE_EPOCH {
        let gone = [id];
        let topics = topics(&gone);
        return Ok(Decision { changes: remove(group, &gone, &topics), epoch, assignment: None });
    }
    let current = Current { epoch, revoking: Assignment::new(), ..member.current.clone() };
    let changes = vec![ConsumerChange::SetCurrent { id, current }];
    Ok(Decision { changes, epoch, assignment: None })
}

/// Takes members out of a group. `topics` are what the others ask for.
pub(super) fn remove(
    group: &ConsumerGroup,
    gone: &[String],
    topics: &Topics,
) -> Vec<ConsumerChange> {
    let removed = gone.iter().map(|id| ConsumerChange::RemoveMember { id: id.clone() });
    let mut changes: Vec<ConsumerChange> = removed.collect();
    let epoch = group.epoch.saturating_add(1);
    changes.push(ConsumerChange::SetEpoch { epoch, metadata_hash: topics.hash() });
    if group.members().keys().all(|id| gone.contains(id)) {
        // Nobody is left to make a target for.
        changes.push(ConsumerChange::SetTargetEpoch { epoch });
    }
    changes
}
