//! Generations: how one is prepared, begins, and is assigned.

use std::collections::BTreeMap;
use std::mem;
use std::time::Duration;

use bytes::Bytes;
use odradek_storage::command::GroupChange;
use odradek_storage::command::groups::{ClassicMember, MemberChange};
use tokio::sync::oneshot;
use tokio::time::Instant;

use super::choice::{Spoken, choose, metadata};
use super::{
    Desk, Initial, Joined, Joiner, Pending, Phase, Preparing, SyncRequest, Synced, Work, classic,
    milliseconds,
};
use crate::group::{GroupError, check_size, parts};

/// A generation that is about to begin.
struct Next {
    protocol_type: String,
    protocol: Option<String>,
    leader: Option<String>,
    changes: Vec<MemberChange>,
}

impl Work {
    /// Begins to prepare a generation, if none is being prepared.
    pub(super) fn prepare(&mut self) {
        if self.desk.classic.preparing.is_some() {
            return;
        }
        for answer in mem::take(&mut self.desk.classic.syncs).into_values() {
            drop(answer.send(Err(GroupError::RebalanceInProgress)));
        }
        self.desk.classic.sync_deadline = None;
        let is_first = self.phase() == Phase::Empty;
        let longest = self.read(|group| {
            let members = classic(group).into_iter().flat_map(|it| it.members.values());
            members.map(|it| it.rebalance_timeout_ms).max().unwrap_or(0)
        });
        let delay = self.settings().initial_rebalance_delay;
        let rejoining = self.at_least_after_takeover(milliseconds(longest));
        let wait = if is_first { delay } else { rejoining };
        let initial = is_first.then_some(Initial { remaining: None, has_new: false });
        self.desk.classic.preparing = Some(Preparing {
            deadline: Instant::now() + wait,
            initial,
            protocol_type: String::new(),
            joined: BTreeMap::new(),
            count: 0,
        });
        self.slot.hurry.notify_one();
    }

    /// Begins the generation, if nobody is waited for any more.
    pub(super) async fn complete_if_all_joined(&mut self) -> Result<(), GroupError> {
        let desk = &self.desk.classic;
        let Some(preparing) = &desk.preparing else { return Ok(()) };
        if preparing.initial.is_some() && preparing.deadline > Instant::now() {
            return Ok(());
        }
        let all_joined = desk.promised.is_empty()
            && self.read(|group| {
                let members = classic(group).into_iter().flat_map(|it| it.members.keys());
                members
                    .filter(|id| !desk.gone.contains(*id))
                    .all(|id| preparing.joined.contains_key(id))
            });
        if all_joined || preparing.initial.is_some() { self.begin().await } else { Ok(()) }
    }

    /// The time to join is over.
    pub(super) async fn end_preparing(&mut self) -> Result<(), GroupError> {
        let delay = self.settings().initial_rebalance_delay;
        let now = Instant::now();
        let Some(preparing) = &mut self.desk.classic.preparing else { return Ok(()) };
        if let Some(initial) = &mut preparing.initial {
            let longest = preparing.joined.values().map(|it| it.member.rebalance_timeout_ms).max();
            let longest = milliseconds(longest.unwrap_or(0));
            let remaining = initial.remaining.unwrap_or_else(|| longest.saturating_sub(delay));
            if mem::take(&mut initial.has_new) && !remaining.is_zero() {
                let more = delay.min(remaining);
                initial.remaining = Some(remaining.saturating_sub(more));
                preparing.deadline = now + more;
                return Ok(());
            }
            return self.begin().await;
        }
        // Who stayed away is out; static members keep their place until their session ends.
        let away: Vec<(String, bool)> = self.read(|group| {
            let members = classic(group).into_iter().flat_map(|it| &it.members);
            let stay = members.filter(|(id, _)| !self.desk.classic.has_joined(id));
            stay.map(|(id, member)| (id.clone(), member.instance_id.is_some())).collect()
        });
        let nobody_joined =
            self.desk.classic.preparing.as_ref().is_none_or(|it| it.joined.is_empty());
        for (id, is_static) in away {
            if !is_static {
                self.forget_member(&id);
            }
        }
        if nobody_joined && self.read(|group| self.is_anybody_left(classic(group))) {
            // Only static members, and none of them is there: wait again.
            let longest = self.read(|group| {
                let members = classic(group).into_iter().flat_map(|it| it.members.values());
                members.map(|it| it.rebalance_timeout_ms).max().unwrap_or(0)
            });
            if let Some(preparing) = &mut self.desk.classic.preparing {
                preparing.deadline = now + milliseconds(longest.max(1));
            }
            return Ok(());
        }
        self.begin().await
    }

    fn is_anybody_left(
        &self,
        group: Option<&odradek_storage::state::groups::classic::ClassicGroup>,
    ) -> bool {
        let mut members = group.into_iter().flat_map(|it| it.members.keys());
        members.any(|id| !self.desk.classic.gone.contains(id))
    }

    /// Begins the generation with all who have joined, and tells them once it stands in the log.
    async fn begin(&mut self) -> Result<(), GroupError> {
        let Some(next) = self.next() else { return Ok(()) };
        self.store(next).await?;
        let desk = mem::take(&mut self.desk.classic);
        let joined = desk.preparing.map(|it| it.joined).unwrap_or_default();
        self.desk.classic =
            Desk { promised: desk.promised, protocols: desk.protocols, ..Desk::default() };
        self.set_classic_sessions(Duration::ZERO);
        let known: Vec<String> = self.desk.classic.sessions.keys().cloned().collect();
        self.desk.classic.protocols.retain(|id| known.binary_search(id).is_ok());
        for (id, joiner) in joined {
            drop(joiner.answer.send(self.joined(&id)));
        }
        self.slot.hurry.notify_one();
        Ok(())
    }

    fn next(&self) -> Option<Next> {
        let desk = &self.desk.classic;
        let preparing = desk.preparing.as_ref()?;
        let mut ranked: Vec<(&String, &Joiner)> = preparing.joined.iter().collect();
        ranked.sort_by_key(|(_, joiner)| joiner.order);
        let (staying, leader, chosen_before, protocol_type): (Vec<_>, _, _, _) =
            self.read(|group| {
                let Some(group) = classic(group) else {
                    return (Vec::new(), None, None, String::new());
                };
                let stays =
                    |id: &&String| !desk.gone.contains(*id) && !preparing.joined.contains_key(*id);
                let staying = group.members.iter().filter(|(id, _)| stays(id));
                let staying = staying.map(|(id, member)| (id.clone(), member.clone())).collect();
                let leader = group.leader.clone();
                (staying, leader, group.protocol.clone(), group.protocol_type.clone())
            });
        let joined = ranked.iter().map(|(id, _)| self.spoken(id));
        let all: Vec<Spoken> =
            joined.chain(staying.iter().map(|(id, _)| self.spoken(id))).collect();
        let protocol = choose(&all.iter().collect::<Vec<_>>());
        let leader = leader.filter(|leader| preparing.joined.contains_key(leader));
        let leader = leader.or_else(|| ranked.first().map(|(id, _)| (*id).clone()));
        // A static member that is away leads if nobody else is there.
        let leader = leader.or_else(|| staying.first().map(|(id, _)| id.clone()));
        let said = |id: &str| metadata(&self.spoken(id), protocol.as_deref()?);
        let member = |id: &String, member: &ClassicMember| MemberChange::Put {
            id: id.clone(),
            member: ClassicMember { metadata: said(id).unwrap_or_default(), ..member.clone() },
        };
        let mut changes: Vec<MemberChange> =
            desk.gone.iter().map(|id| MemberChange::Remove { id: id.clone() }).collect();
        changes.extend(ranked.iter().map(|(id, joiner)| member(id, &joiner.member)));
        if protocol != chosen_before {
            changes.extend(staying.iter().map(|(id, before)| member(id, before)));
        }
        let is_named = !preparing.protocol_type.is_empty();
        let protocol_type = if is_named { preparing.protocol_type.clone() } else { protocol_type };
        Some(Next { protocol_type, protocol, leader, changes })
    }

    /// Makes a generation begin in the log, in parts if it is large.
    async fn store(&mut self, next: Next) -> Result<(), GroupError> {
        let bytes = |change: &MemberChange| match change {
            MemberChange::Remove { id } => id.len() + 8,
            MemberChange::Put { id, member } => {
                let instance = member.instance_id.as_ref().map_or(0, String::len);
                let names = id.len() + instance + member.client_id.len() + member.client_host.len();
                names + member.metadata.len() + 32
            }
        };
        let mut parts = parts(next.changes, bytes);
        let last = parts.pop().unwrap_or_default();
        let with_staged = !parts.is_empty();
        for (at, members) in parts.into_iter().enumerate() {
            self.change(GroupChange::StageMembers { is_first: at == 0, members }).await?;
        }
        self.change(GroupChange::BeginGeneration {
            protocol_type: next.protocol_type,
            protocol: next.protocol,
            leader: next.leader,
            with_staged,
            members: last,
        })
        .await
    }

    /// What a member is told of the generation it is in.
    pub(super) fn joined(&self, id: &str) -> Result<Joined, GroupError> {
        self.read(|group| {
            let group = classic(group).ok_or(GroupError::UnknownMember)?;
            if !group.members.contains_key(id) {
                return Err(GroupError::UnknownMember);
            }
            let leader = group.leader.clone().unwrap_or_default();
            let to_assign = (leader == id).then_some(&group.members).into_iter().flatten();
            let members = to_assign.map(|(id, member)| {
                (id.clone(), member.instance_id.clone(), member.metadata.clone())
            });
            Ok(Joined {
                generation: group.generation,
                protocol_type: group.protocol_type.clone(),
                protocol: group.protocol.clone().unwrap_or_default(),
                members: members.collect(),
                leader,
                member: id.to_owned(),
                skip_assignment: false,
            })
        })
    }

    pub(super) async fn sync(
        &mut self,
        request: SyncRequest,
    ) -> Result<Pending<Synced>, GroupError> {
        self.check_member(&request.member)?;
        let agrees = self.read(|group| {
            classic(group).is_some_and(|group| {
                let same_type = request.protocol_type.as_ref();
                same_type.is_none_or(|it| *it == group.protocol_type)
                    && request
                        .protocol
                        .as_ref()
                        .is_none_or(|it| Some(it) == group.protocol.as_ref())
            })
        });
        if !agrees {
            return Err(GroupError::InconsistentProtocol);
        }
        for (member, assignment) in &request.assignments {
            check_size(&self.slot.name, member, assignment.len())?;
        }
        let id = request.member.member;
        match self.phase() {
            Phase::Empty => Err(GroupError::UnknownMember),
            Phase::Preparing => Err(GroupError::RebalanceInProgress),
            Phase::Stable => {
                self.renew_classic(&id);
                Ok(Pending::Ready(self.synced(&id)?))
            }
            Phase::Completing => {
                let leads = self.read(|group| {
                    classic(group).is_some_and(|it| it.leader.as_deref() == Some(&id))
                });
                let (answer, waiting) = oneshot::channel();
                // Whoever asked before with the same id has gone away.
                self.desk.classic.syncs.insert(id, answer);
                if leads {
                    self.assign(request.assignments).await?;
                }
                Ok(Pending::Waiting(waiting))
            }
        }
    }

    /// Stores what the leader decided, and tells all who wait.
    async fn assign(&mut self, assignments: Vec<(String, Bytes)>) -> Result<(), GroupError> {
        let parts = parts(assignments, |(id, assignment)| id.len() + assignment.len() + 8);
        let last = parts.len().saturating_sub(1);
        for (at, assignments) in parts.into_iter().enumerate() {
            let change = GroupChange::AssignGeneration { assignments, is_last: at == last };
            self.change(change).await?;
        }
        let waiting = mem::take(&mut self.desk.classic.syncs);
        self.set_classic_sessions(Duration::ZERO);
        self.desk.classic.sync_deadline = None;
        for (id, answer) in waiting {
            drop(answer.send(self.synced(&id)));
        }
        self.slot.hurry.notify_one();
        Ok(())
    }

    fn synced(&self, id: &str) -> Result<Synced, GroupError> {
        self.read(|group| {
            let group = classic(group).ok_or(GroupError::UnknownMember)?;
            let member = group.members.get(id).ok_or(GroupError::UnknownMember)?;
            Ok(Synced {
                protocol_type: group.protocol_type.clone(),
                protocol: group.protocol.clone().unwrap_or_default(),
                assignment: member.assignment.clone(),
            })
        })
    }
}
