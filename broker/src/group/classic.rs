//! The classic protocol: members that agree on generations, one of which assigns.
//!
//! ```text
//!          join                 all have joined           leader's sync
//!  Empty --------> Preparing --------------------> Completing ----------> Stable
//!                      ^   (a generation begins)                            |
//!                      +------- join, leave, silence, a new leader ---------+
//! ```
//!
//! *Preparing* is in this memory only; the others are read from the state. Rules after Kafka's
//! group coordinator; static members KIP-345, member ids KIP-394, timeouts KIP-62.

use std::collections::{BTreeMap, BTreeSet};
use std::time::Duration;

use bytes::Bytes;
use odradek_storage::command::Committer;
use odradek_storage::command::groups::ClassicMember;
use odradek_storage::state::groups::classic::ClassicGroup;
use odradek_storage::state::groups::{Group, Membership};
use tokio::sync::oneshot;
use tokio::time::Instant;

use self::choice::Protocols;
use super::{GroupCoordinator, GroupError, Work, unbroken};

mod choice;
mod description;
mod generation;
mod join;
mod membership;

pub use description::Description;
pub use join::JoinRequest;

/// How long a member that joins for the first time is kept while nobody hears of it.
const NEW_MEMBER_TIMEOUT: Duration = Duration::from_secs(5 * 60);

type Answer<T> = oneshot::Sender<Result<T, GroupError>>;

/// A member's place in a generation.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Joined {
    /// The generation.
    pub generation: i32,
    /// What kind of group it is.
    pub protocol_type: String,
    /// The protocol that was chosen.
    pub protocol: String,
    /// The member that assigns.
    pub leader: String,
    /// The member that is told.
    pub member: String,
    /// Whether the leader need not assign, because nothing changed (KIP-814).
    pub skip_assignment: bool,
    /// For the leader, all members: id, instance id, metadata.
    pub members: Vec<(String, Option<String>, Bytes)>,
}

/// A member asks for its assignment, and the leader brings all.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct SyncRequest {
    /// Who asks.
    pub member: Committer,
    /// The protocol type it believes in, if it says (KIP-559).
    pub protocol_type: Option<String>,
    /// The protocol it believes in, if it says.
    pub protocol: Option<String>,
    /// Assignments by member.
    pub assignments: Vec<(String, Bytes)>,
}

/// A member's assignment.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Synced {
    /// What kind of group it is.
    pub protocol_type: String,
    /// The protocol that was chosen.
    pub protocol: String,
    /// The assignment; opaque.
    pub assignment: Bytes,
}

/// A member that is to leave.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Leaver {
    /// Its id; empty if it is named by its instance id alone.
    pub member: String,
    /// Its instance id.
    pub instance_id: Option<String>,
}

/// What is kept in mind of a classic group.
#[derive(Default)]
pub(super) struct Desk {
    /// When each member of the generation must have been heard of.
    sessions: BTreeMap<String, Instant>,
    /// Ids that were given to clients that are to come back with them, and until when.
    promised: BTreeMap<String, Instant>,
    protocols: Protocols,
    /// Members of the generation that are not in the next.
    gone: BTreeSet<String>,
    preparing: Option<Preparing>,
    /// Members of the generation that wait for its assignments.
    syncs: BTreeMap<String, Answer<Synced>>,
    /// When all members must have asked for their assignment.
    sync_deadline: Option<Instant>,
}

/// The time in which members join the next generation.
struct Preparing {
    /// When it ends.
    deadline: Instant,
    /// In a group that was empty: more may come, and are waited for.
    initial: Option<Initial>,
    /// What kind of group they take this for.
    protocol_type: String,
    joined: BTreeMap<String, Joiner>,
    /// How many have joined, ever.
    count: u64,
}

struct Initial {
    /// How much longer it can be drawn out, once it was.
    remaining: Option<Duration>,
    /// Whether somebody came since the deadline was set.
    has_new: bool,
}

/// A member of the next generation.
struct Joiner {
    member: ClassicMember,
    order: u64,
    /// Where its answer goes.
    answer: Answer<Joined>,
    /// Until when it may wait, if it was not a member before.
    until: Option<Instant>,
}

/// Where a group stands.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Phase {
    /// Nobody is in it.
    Empty,
    /// Members join the next generation.
    Preparing,
    /// A generation waits for its assignments.
    Completing,
    /// Everybody has an assignment.
    Stable,
}

impl Phase {
    /// Where a group stands, unless it is preparing.
    pub(super) fn of(group: &ClassicGroup) -> Self {
        match (group.members.is_empty(), group.is_assigned) {
            (true, _) => Self::Empty,
            (false, true) => Self::Stable,
            (false, false) => Self::Completing,
        }
    }

    /// Kafka's name for it.
    pub fn name(self) -> &'static str {
        match self {
            Self::Empty => "Empty",
            Self::Preparing => "PreparingRebalance",
            Self::Completing => "CompletingRebalance",
            Self::Stable => "Stable",
        }
    }
}

impl Desk {
    /// Tells all who wait that nothing comes of it.
    pub(super) fn refuse(self, error: &GroupError) {
        for joiner in self.preparing.into_iter().flat_map(|it| it.joined.into_values()) {
            drop(joiner.answer.send(Err(error.clone())));
        }
        for answer in self.syncs.into_values() {
            drop(answer.send(Err(error.clone())));
        }
    }

    /// Whether nobody is on the way into the group.
    pub(super) fn is_idle(&self) -> bool {
        self.preparing.is_none() && self.promised.is_empty()
    }

    pub(super) fn is_preparing(&self) -> bool {
        self.preparing.is_some()
    }

    pub(super) fn next_deadline(&self) -> Option<Instant> {
        let waits_for_join = self.preparing.as_ref();
        let joiners = waits_for_join.into_iter().flat_map(|it| it.joined.values());
        let waiting = |member: &&String| !self.is_waiting(member);
        let sessions = self.sessions.keys().filter(waiting).filter_map(|it| self.sessions.get(it));
        sessions
            .chain(self.promised.values())
            .chain(waits_for_join.map(|it| &it.deadline))
            .chain(&self.sync_deadline)
            .copied()
            .chain(joiners.filter_map(|joiner| joiner.until))
            .min()
    }

    /// Whether a member waits for an answer: it can't be heard of meanwhile.
    fn is_waiting(&self, member: &str) -> bool {
        let joined = self.preparing.as_ref().and_then(|it| it.joined.get(member));
        joined.is_some_and(|joiner| !joiner.answer.is_closed()) || self.syncs.contains_key(member)
    }

    fn has_joined(&self, member: &str) -> bool {
        self.preparing.as_ref().is_some_and(|it| it.joined.contains_key(member))
    }
}

/// The classic part of a group in the state, if it is one.
fn classic(group: Option<&Group>) -> Option<&ClassicGroup> {
    group.and_then(Group::classic)
}

impl GroupCoordinator {
    /// Joins a group: waits until its next generation begins, or answers at once if nothing
    /// changes.
    pub async fn join(&self, group: &str, request: JoinRequest) -> Result<Joined, GroupError> {
        let mut work = self.enter(group).await?;
        unbroken(async move { work.join(request).await }).await?.wait().await
    }

    /// Asks for the assignment in a generation: waits for the leader's.
    pub async fn sync(&self, group: &str, request: SyncRequest) -> Result<Synced, GroupError> {
        let mut work = self.enter(group).await?;
        unbroken(async move { work.sync(request).await }).await?.wait().await
    }

    /// Says that a member lives.
    pub async fn heartbeat(&self, group: &str, member: &Committer) -> Result<(), GroupError> {
        self.enter(group).await?.heartbeat(member)
    }

    /// Takes members out of a group. One answer for each.
    pub async fn leave(
        &self,
        group: &str,
        members: Vec<Leaver>,
    ) -> Result<Vec<Result<(), GroupError>>, GroupError> {
        let mut work = self.enter(group).await?;
        unbroken(async move { Ok(work.leave(members).await) }).await
    }
}

/// An answer that is there, or will be.
enum Pending<T> {
    Ready(T),
    Waiting(oneshot::Receiver<Result<T, GroupError>>),
}

impl<T> Pending<T> {
    async fn wait(self) -> Result<T, GroupError> {
        match self {
            Self::Ready(answer) => Ok(answer),
            Self::Waiting(answer) => answer.await.unwrap_or(Err(GroupError::NotCoordinator)),
        }
    }
}

impl Work {
    fn phase(&self) -> Phase {
        if self.desk.classic.preparing.is_some() {
            return Phase::Preparing;
        }
        self.read(|group| classic(group).map_or(Phase::Empty, Phase::of))
    }

    /// Whether the group speaks the other protocol.
    fn is_other_protocol(&self) -> bool {
        self.read(|group| {
            group.is_some_and(|group| {
                matches!(group.membership, Membership::Consumer(_)) && group.has_members()
            })
        })
    }

    /// Whether this is a member of the generation that will be in the next, unless it stays away.
    fn is_member(&self, member: &str) -> bool {
        !self.desk.classic.gone.contains(member)
            && self.read(|group| classic(group).is_some_and(|it| it.members.contains_key(member)))
    }

    /// Sets timers for all members of the generation.
    pub(super) fn set_classic_sessions(&mut self, at_least: Duration) {
        let now = Instant::now();
        let (sessions, longest, is_assigned) = self.read(|group| {
            let Some(group) = classic(group) else { return (BTreeMap::new(), 0, true) };
            let gone = &self.desk.classic.gone;
            let staying = group.members.iter().filter(|(id, _)| !gone.contains(*id));
            let sessions = staying.map(|(id, member)| {
                (id.clone(), now + milliseconds(member.session_timeout_ms).max(at_least))
            });
            let longest = group.members.values().map(|member| member.rebalance_timeout_ms).max();
            (sessions.collect(), longest.unwrap_or(0), group.is_assigned)
        });
        let waits = !is_assigned && !sessions.is_empty();
        self.desk.classic.sessions = sessions;
        self.desk.classic.sync_deadline = waits.then(|| now + milliseconds(longest));
    }

    /// A member was heard of.
    pub(super) fn renew_classic(&mut self, member: &str) {
        let timeout = self.read(|group| {
            let member = classic(group)?.members.get(member)?;
            Some(milliseconds(member.session_timeout_ms))
        });
        let session = self.desk.classic.sessions.get_mut(member);
        if let (Some(timeout), Some(session)) = (timeout, session) {
            *session = Instant::now() + timeout;
        }
    }

    /// Whether a member may speak for itself.
    fn check_member(&self, claim: &Committer) -> Result<(), GroupError> {
        if let Some(instance_id) = &claim.instance_id {
            let holder = self.static_holder(instance_id).ok_or(GroupError::UnknownMember)?;
            if holder != claim.member {
                return Err(GroupError::FencedInstance);
            }
        }
        if !self.is_member(&claim.member) && !self.desk.classic.has_joined(&claim.member) {
            return Err(GroupError::UnknownMember);
        }
        let generation = self.read(|group| classic(group).map_or(0, |group| group.generation));
        if claim.generation == generation { Ok(()) } else { Err(GroupError::IllegalGeneration) }
    }

    fn heartbeat(&mut self, claim: &Committer) -> Result<(), GroupError> {
        self.check_member(claim)?;
        self.renew_classic(&claim.member);
        match self.phase() {
            Phase::Empty => Err(GroupError::UnknownMember),
            Phase::Preparing => Err(GroupError::RebalanceInProgress),
            Phase::Completing | Phase::Stable => Ok(()),
        }
    }

    /// The member that has an instance id, in the generation or on the way into the next.
    fn static_holder(&self, instance_id: &str) -> Option<String> {
        let joined = self.desk.classic.preparing.iter().flat_map(|it| &it.joined);
        let mut joined =
            joined.filter(|(_, joiner)| joiner.member.instance_id.as_deref() == Some(instance_id));
        if let Some((id, _)) = joined.next() {
            return Some(id.clone());
        }
        let holder =
            self.read(|group| classic(group)?.static_member(instance_id).map(ToOwned::to_owned))?;
        (!self.desk.classic.gone.contains(&holder)).then_some(holder)
    }
}

/// A duration as the protocol has it; a negative one is none.
fn milliseconds(ms: i32) -> Duration {
    Duration::from_millis(u64::try_from(ms).unwrap_or(0))
}

#[cfg(test)]
mod tests;
