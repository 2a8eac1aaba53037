//! The consumer protocol (KIP-848): members that say what they want and are told what they have.
//!
//! ```text
//!  heartbeat --> who speaks --> what it asks for --> another target? --> its next step
//!                (an epoch)     (group epoch + 1)    (target epoch)      (its own epoch)
//! ```
//!
//! All of that is in the state, and [`turn`] decides without doing; here is when it is asked, and
//! who has been silent for too long.

use std::collections::{BTreeMap, BTreeSet};
use std::time::Duration;

use odradek_storage::command::GroupChange;
use odradek_storage::command::groups::{Assignment, ConsumerChange, MemberState, Subscription};
use odradek_storage::lsn::Lsn;
use odradek_storage::state::groups::consumer::ConsumerGroup;
use odradek_storage::state::groups::{Group, Membership};
use tokio::time::Instant;

use super::{GroupCoordinator, GroupError, Work, parts, unbroken};

mod reconcile;
pub(crate) mod target;
#[cfg(test)]
mod tests;
mod topics;
mod turn;

#[cfg(feature = "test-util")]
pub(crate) use topics::check_regex;
use topics::{Patterns, Topics, Wanted};
use turn::{Decision, Turn};

/// The member epoch of who joins.
pub const JOIN_EPOCH: i32 = 0;

/// The member epoch of who leaves.
pub const LEAVE_EPOCH: i32 = -1;

/// The member epoch of a static member that leaves for a while.
pub const STATIC_LEAVE_EPOCH: i32 = -2;

/// How late timers may be looked at before it counts that members may have been heard of meanwhile.
const LATE_MIN: Duration = Duration::from_secs(1);

/// What a member says of itself. What it leaves out has not changed.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct ConsumerHeartbeat {
    /// Its id.
    pub member: String,
    /// Its epoch; [`JOIN_EPOCH`], [`LEAVE_EPOCH`] or [`STATIC_LEAVE_EPOCH`] if it comes or goes.
    pub epoch: i32,
    /// The name it keeps over restarts.
    pub instance_id: Option<String>,
    /// Its rack.
    pub rack_id: Option<String>,
    /// How long it may take to give partitions back, in milliseconds.
    pub rebalance_timeout_ms: Option<i32>,
    /// Topics it names.
    pub topics: Option<BTreeSet<String>>,
    /// Topics it wants by a regular expression; empty: by none any more.
    pub regex: Option<String>,
    /// The assignor it prefers.
    pub assignor: Option<String>,
    /// The partitions it has.
    pub owned: Option<Assignment>,
    /// What its client calls itself.
    pub client_id: String,
    /// Where it comes from.
    pub client_host: String,
}

/// What a member hears.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ConsumerHeartbeatAnswer {
    /// Its id.
    pub member: String,
    /// Its epoch.
    pub epoch: i32,
    /// How often it is to speak.
    pub heartbeat_interval: Duration,
    /// The partitions it may have; none if they are what it was told before.
    pub assignment: Option<Assignment>,
}

impl ConsumerHeartbeat {
    /// Whether it says everything, and so wants to hear everything.
    fn is_full(&self) -> bool {
        let says_what_it_wants = self.topics.is_some() || self.regex.is_some();
        self.epoch == JOIN_EPOCH
            || (self.rebalance_timeout_ms.is_some() && says_what_it_wants && self.owned.is_some())
    }

    /// What is known of the member after it has spoken.
    fn update(&self, before: &Subscription) -> Subscription {
        fn newer<T: Clone>(said: &Option<T>, before: &Option<T>) -> Option<T> {
            said.as_ref().or(before.as_ref()).cloned()
        }
        let before = before.clone();
        Subscription {
            instance_id: newer(&self.instance_id, &before.instance_id),
            rack_id: newer(&self.rack_id, &before.rack_id),
            client_id: self.client_id.clone(),
            client_host: self.client_host.clone(),
            rebalance_timeout_ms: self.rebalance_timeout_ms.unwrap_or(before.rebalance_timeout_ms),
            topics: self.topics.clone().unwrap_or(before.topics),
            regex: newer(&self.regex, &before.regex).filter(|regex| !regex.is_empty()),
            assignor: newer(&self.assignor, &before.assignor),
        }
    }
}

/// What is kept in mind of a group of the consumer protocol.
#[derive(Default)]
pub(super) struct Desk {
    /// When each member must have been heard of.
    sessions: BTreeMap<String, Instant>,
    /// When each member that was told to must have given partitions back.
    revocations: BTreeMap<String, Instant>,
    /// The topics that the group's epoch rests on.
    seen: Option<Lsn>,
    patterns: Patterns,
}

impl Desk {
    pub(super) fn next_deadline(&self) -> Option<Instant> {
        self.sessions.values().chain(self.revocations.values()).min().copied()
    }
}

impl GroupCoordinator {
    /// Hears what a member of the consumer protocol says.
    pub async fn consumer_heartbeat(
        &self,
        group: &str,
        heartbeat: ConsumerHeartbeat,
    ) -> Result<ConsumerHeartbeatAnswer, GroupError> {
        if group.is_empty() {
            return Err(GroupError::InvalidRequest("a group has a name"));
        }
        turn::check(&heartbeat)?;
        let mut work = self.enter(group).await?;
        if let Some(answer) = work.answer_quietly(&heartbeat) {
            return answer;
        }
        unbroken(async move { work.take_turn(&heartbeat).await }).await
    }

    /// Whether a member may read the group's positions, by the state as it is here. Who claims
    /// neither a member id nor an epoch may.
    pub fn check_consumer(
        &self,
        group: &str,
        member: Option<&str>,
        epoch: i32,
    ) -> Result<(), GroupError> {
        self.shared.machine.read(|state| {
            let group = state.groups().get(group).and_then(Group::consumer);
            let Some(group) = group.filter(|_| member.is_some() || epoch >= 0) else {
                return Ok(());
            };
            let member = member.and_then(|member| group.members().get(member));
            let current = member.ok_or(GroupError::UnknownMember)?.current.epoch;
            if current == epoch { Ok(()) } else { Err(GroupError::StaleMemberEpoch) }
        })
    }
}

impl Work {
    /// The answer to a member for whom there is nothing to do, as nearly always.
    fn answer_quietly(
        &mut self,
        heartbeat: &ConsumerHeartbeat,
    ) -> Option<Result<ConsumerHeartbeatAnswer, GroupError>> {
        if heartbeat.epoch < JOIN_EPOCH {
            return None;
        }
        let max_size = self.settings().consumer_max_size;
        let decision = self.read_with(|state, group| {
            let group = group.and_then(Group::consumer)?;
            if self.desk.consumer.seen != Some(state.topics_changed()) {
                return None;
            }
            match Turn::begin(group, heartbeat, max_size) {
                Ok(turn) => turn.quiet().map(Ok),
                Err(refused) => Some(Err(refused)),
            }
        })?;
        Some(decision.map(|decision| {
            self.renew_consumer(&heartbeat.member);
            self.answer(&heartbeat.member, decision)
        }))
    }

    async fn take_turn(
        &mut self,
        heartbeat: &ConsumerHeartbeat,
    ) -> Result<ConsumerHeartbeatAnswer, GroupError> {
        let group = self.consumer_group(heartbeat.epoch == JOIN_EPOCH)?;
        if heartbeat.epoch < JOIN_EPOCH {
            let decision =
                turn::leave(&group, heartbeat, |gone| self.topics_without(&group, gone))?;
            return self.carry_out(&heartbeat.member, decision).await;
        }
        if let Some(regex) = heartbeat.regex.as_deref().filter(|regex| !regex.is_empty()) {
            self.desk.consumer.patterns.check(regex)?;
        }
        let turn = Turn::begin(&group, heartbeat, self.settings().consumer_max_size)?;
        let wanted = Wanted::by(turn.subscriptions());
        let (topics, seen) = self.resolve(wanted);
        let answer = self.carry_out(&heartbeat.member, turn.finish(&topics)).await?;
        self.desk.consumer.seen = Some(seen);
        let session = Instant::now() + self.settings().consumer_session_timeout;
        self.desk.consumer.sessions.insert(heartbeat.member.clone(), session);
        self.slot.hurry.notify_one();
        Ok(answer)
    }

    /// The group as it is now. One that nobody is in becomes one of this protocol, if somebody
    /// joins.
    fn consumer_group(&self, joins: bool) -> Result<ConsumerGroup, GroupError> {
        let unknown = || Err(GroupError::UnknownGroup(self.slot.name.clone()));
        self.read(|group| {
            let has_members = group.is_some_and(Group::has_members);
            match group.map(|group| &group.membership) {
                Some(Membership::Consumer(group)) if has_members || !joins => Ok(group.clone()),
                Some(Membership::Classic(_)) if has_members => unknown(),
                _ if !joins => unknown(),
                // Members of the other protocol are on their way into it.
                _ if !self.desk.classic.is_idle() => Err(GroupError::NotAvailable),
                Some(Membership::Consumer(group)) => Ok(group.clone()),
                Some(Membership::Classic(group)) => {
                    Ok(ConsumerGroup::beginning_at(group.generation))
                }
                Some(Membership::None) | None => Ok(ConsumerGroup::default()),
            }
        })
    }

    fn resolve(&mut self, wanted: Wanted) -> (Topics, Lsn) {
        let machine = self.shared.machine.clone();
        self.desk.consumer.patterns.resolve(wanted, |look| machine.read(|state| look(state)))
    }

    /// What the members ask for who do not leave.
    fn topics_without(&mut self, group: &ConsumerGroup, gone: &[String]) -> Topics {
        let stays = group.members().iter().filter(|(id, _)| !gone.contains(id));
        self.resolve(Wanted::by(stays.map(|(_, member)| &member.subscription))).0
    }

    async fn carry_out(
        &mut self,
        member: &str,
        decision: Decision,
    ) -> Result<ConsumerHeartbeatAnswer, GroupError> {
        let mut decision = decision;
        self.make(std::mem::take(&mut decision.changes)).await?;
        Ok(self.answer(member, decision))
    }

    fn answer(&self, member: &str, decision: Decision) -> ConsumerHeartbeatAnswer {
        ConsumerHeartbeatAnswer {
            member: member.to_owned(),
            epoch: decision.epoch,
            heartbeat_interval: self.settings().consumer_heartbeat_interval,
            assignment: decision.assignment,
        }
    }

    /// Makes changes, in parts if they are many: a target that is not complete is made again by
    /// whoever comes next. Timers follow.
    async fn make(&mut self, changes: Vec<ConsumerChange>) -> Result<(), GroupError> {
        if changes.is_empty() {
            return Ok(());
        }
        for changes in parts(changes, target::bytes) {
            let touched: Vec<String> = changes.iter().filter_map(touched_member).collect();
            self.change(GroupChange::ChangeConsumers(changes)).await?;
            touched.iter().for_each(|member| self.set_revocation(member));
        }
        self.slot.hurry.notify_one();
        Ok(())
    }

    /// Sets the timer of a member whose assignment has changed, or forgets those of one that is
    /// gone.
    fn set_revocation(&mut self, member: &str) {
        let timeout = self.read(|group| {
            let member = group.and_then(Group::consumer)?.members().get(member)?;
            let has_to = member.current.state == MemberState::UnrevokedPartitions
                && member.current.epoch >= JOIN_EPOCH;
            Some(has_to.then(|| milliseconds(member.subscription.rebalance_timeout_ms)))
        });
        let desk = &mut self.desk.consumer;
        match timeout {
            Some(Some(timeout)) => {
                desk.revocations.insert(member.to_owned(), Instant::now() + timeout);
            }
            Some(None) => drop(desk.revocations.remove(member)),
            None => {
                desk.revocations.remove(member);
                desk.sessions.remove(member);
            }
        }
    }

    /// Sets timers for all members.
    pub(super) fn set_consumer_sessions(&mut self) {
        let until = Instant::now() + self.settings().consumer_session_timeout;
        let members: Vec<String> = self.read(|group| {
            let group = group.and_then(Group::consumer);
            group.into_iter().flat_map(|group| group.members().keys().cloned()).collect()
        });
        for member in members {
            self.set_revocation(&member);
            self.desk.consumer.sessions.insert(member, until);
        }
    }

    /// A member was heard of.
    pub(super) fn renew_consumer(&mut self, member: &str) {
        let until = Instant::now() + self.settings().consumer_session_timeout;
        if let Some(session) = self.desk.consumer.sessions.get_mut(member) {
            *session = until;
        }
    }

    /// Does what is due: members that were silent for too long are out, and those that keep what
    /// others are to have.
    pub(super) async fn tick_consumer(&mut self) {
        let now = Instant::now();
        let is_due = |(_, until): &(&String, &Instant)| **until <= now;
        let desk = &self.desk.consumer;
        let due = desk.sessions.iter().chain(&desk.revocations).filter(is_due);
        let Some(earliest) = due.clone().map(|(_, until)| *until).min() else { return };
        let late = now - earliest;
        if late > LATE_MIN {
            // Others were at work here, and who was heard of meanwhile may wait behind this.
            let more = late.min(self.settings().consumer_session_timeout);
            let desk = &mut self.desk.consumer;
            let timers = desk.sessions.values_mut().chain(desk.revocations.values_mut());
            timers.filter(|until| **until <= now).for_each(|until| *until = now + more);
            return;
        }
        let gone: BTreeSet<String> = due.map(|(member, _)| member.clone()).collect();
        let gone: Vec<String> = gone.into_iter().collect();
        for member in &gone {
            self.desk.consumer.sessions.remove(member);
            self.desk.consumer.revocations.remove(member);
            tracing::info!(group = self.slot.name, member, "member is gone");
        }
        // If that fails, what was kept in mind is forgotten with it: all get another session.
        drop(self.expel(&gone).await);
    }

    async fn expel(&mut self, gone: &[String]) -> Result<(), GroupError> {
        let group = self.consumer_group(false)?;
        let topics = self.topics_without(&group, gone);
        self.make(turn::remove(&group, gone, &topics)).await
    }
}

/// The member that a change takes out, or to another assignment.
fn touched_member(change: &ConsumerChange) -> Option<String> {
    match change {
        ConsumerChange::RemoveMember { id } | ConsumerChange::SetCurrent { id, .. } => {
            Some(id.clone())
        }
        _ => None,
    }
}

/// A duration as the protocol has it; a negative one is none.
fn milliseconds(ms: i32) -> Duration {
    Duration::from_millis(u64::try_from(ms).unwrap_or(0))
}
