//! Joining: who may, under which id, and whether it takes a new generation.

use bytes::Bytes;
use odradek_storage::command::GroupChange;
use odradek_storage::command::groups::ClassicMember;
use tokio::sync::oneshot;
use tokio::time::Instant;

use super::choice::{Spoken, choose, common, metadata};
use super::{
    Answer, Joined, Joiner, NEW_MEMBER_TIMEOUT, Pending, Phase, Work, classic, milliseconds,
};
use crate::group::{GroupError, check_size};

/// A member wants to be in the next generation.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct JoinRequest {
    /// The id it was given; empty if none.
    pub member: String,
    /// The name it keeps over restarts (KIP-345).
    pub instance_id: Option<String>,
    /// What its client calls itself.
    pub client_id: String,
    /// Where it comes from.
    pub client_host: String,
    /// How long it may be silent, in milliseconds.
    pub session_timeout_ms: i32,
    /// How long it may take to rejoin, in milliseconds.
    pub rebalance_timeout_ms: i32,
    /// What kind of group it takes this for.
    pub protocol_type: String,
    /// What it speaks, best first, with what it says under each.
    pub protocols: Vec<(String, Bytes)>,
    /// Whether it can be sent away to come back with an id (KIP-394).
    pub knows_member_ids: bool,
    /// Whether a leader can be told that it need not assign (KIP-814).
    pub can_skip_assignment: bool,
}

impl JoinRequest {
    fn as_member(&self) -> ClassicMember {
        ClassicMember {
            instance_id: self.instance_id.clone(),
            client_id: self.client_id.clone(),
            client_host: self.client_host.clone(),
            session_timeout_ms: self.session_timeout_ms,
            rebalance_timeout_ms: self.rebalance_timeout_ms,
            metadata: Bytes::new(),
            assignment: Bytes::new(),
        }
    }
}

impl Work {
    pub(super) async fn join(
        &mut self,
        request: JoinRequest,
    ) -> Result<Pending<Joined>, GroupError> {
        let settings = self.settings();
        let timeout = milliseconds(request.session_timeout_ms);
        if !(settings.min_session_timeout..=settings.max_session_timeout).contains(&timeout) {
            return Err(GroupError::InvalidSessionTimeout);
        }
        for (_, metadata) in &request.protocols {
            check_size(&self.slot.name, &request.member, metadata.len())?;
        }
        self.check_protocols(&request)?;
        if request.member.is_empty() {
            let holder = request.instance_id.as_deref().and_then(|it| self.static_holder(it));
            return match holder {
                Some(holder) => self.replace(&holder, request).await,
                None => self.join_anew(request).await,
            };
        }
        if self.desk.classic.promised.contains_key(&request.member) {
            self.check_room()?;
            self.desk.classic.promised.remove(&request.member);
            let id = request.member.clone();
            return self.take_in(id, request).await;
        }
        if let Some(instance_id) = &request.instance_id {
            let holder = self.static_holder(instance_id).ok_or(GroupError::UnknownMember)?;
            if holder != request.member {
                return Err(GroupError::FencedInstance);
            }
        }
        self.rejoin(request).await
    }

    /// Whether a member fits in with the others.
    fn check_protocols(&mut self, request: &JoinRequest) -> Result<(), GroupError> {
        if self.is_other_protocol() || request.protocol_type.is_empty() {
            return Err(GroupError::InconsistentProtocol);
        }
        if !self.desk.classic.protocols.are_known_to_fit(&request.protocols) {
            let mut spoken = self.spoken_by_others(&request.member);
            if common(spoken.iter().chain(std::iter::once(&request.protocols))).is_empty() {
                return Err(GroupError::InconsistentProtocol);
            }
            // It may be sent away yet, and speak what it spoke.
            spoken.extend(Some(self.spoken(&request.member)).filter(|before| !before.is_empty()));
            self.desk.classic.protocols.learn(spoken.iter());
        }
        let same_type = self.read(|group| {
            classic(group).is_none_or(|it| it.protocol_type == request.protocol_type)
        });
        let same_type = match &self.desk.classic.preparing {
            Some(preparing) if !preparing.joined.is_empty() => {
                preparing.protocol_type == request.protocol_type
            }
            _ => same_type,
        };
        if same_type || self.is_alone(&request.member) {
            Ok(())
        } else {
            Err(GroupError::InconsistentProtocol)
        }
    }

    /// Whether no other member is present or coming.
    fn is_alone(&self, member: &str) -> bool {
        let desk = &self.desk.classic;
        let is_other = |id: &String| id != member && !desk.gone.contains(id);
        !desk.preparing.iter().flat_map(|it| it.joined.keys()).any(is_other)
            && self.read(|group| {
                !classic(group).into_iter().flat_map(|it| it.members.keys()).any(is_other)
            })
    }

    /// What all but one of the present and the coming members speak.
    fn spoken_by_others(&self, member: &str) -> Vec<Spoken> {
        let mut others: Vec<String> = self.read(|group| {
            classic(group).map_or_else(Vec::new, |it| it.members.keys().cloned().collect())
        });
        others.retain(|id| !self.desk.classic.gone.contains(id));
        let joined = self.desk.classic.preparing.iter().flat_map(|it| it.joined.keys());
        others.extend(joined.filter(|id| !self.is_member(id)).cloned());
        others.iter().filter(|id| *id != member).map(|id| self.spoken(id)).collect()
    }

    /// What a member speaks; after a change of coordinator, only what was chosen is known.
    pub(super) fn spoken(&self, member: &str) -> Spoken {
        if let Some(spoken) = self.desk.classic.protocols.get(member) {
            return spoken.clone();
        }
        self.read(|group| {
            let chosen = classic(group).and_then(|group| {
                let metadata = group.members.get(member)?.metadata.clone();
                Some((group.protocol.clone()?, metadata))
            });
            chosen.into_iter().collect()
        })
    }

    async fn join_anew(&mut self, request: JoinRequest) -> Result<Pending<Joined>, GroupError> {
        self.check_room()?;
        let name = request.instance_id.as_ref().unwrap_or(&request.client_id);
        let id = format!("{name}-{}", self.shared.machine.new_uuid());
        if request.knows_member_ids && request.instance_id.is_none() {
            let until = Instant::now() + milliseconds(request.session_timeout_ms);
            self.desk.classic.promised.insert(id.clone(), until);
            self.slot.hurry.notify_one();
            return Err(GroupError::MemberIdRequired(id));
        }
        self.take_in(id, request).await
    }

    /// Whether one more may come.
    fn check_room(&self) -> Result<(), GroupError> {
        let max = self.settings().max_size;
        let members = self.read(|group| classic(group).map_or(0, |it| it.members.len()));
        let desk = &self.desk.classic;
        let present = members.saturating_sub(desk.gone.len());
        let joined = || desk.preparing.iter().flat_map(|it| it.joined.keys());
        // Who of thousands joined was a member before is asked only if it matters.
        let at_most = desk.preparing.as_ref().map_or(0, |it| it.joined.len());
        if present + at_most < max
            || present + joined().filter(|id| !self.is_member(id)).count() < max
        {
            Ok(())
        } else {
            Err(GroupError::GroupFull)
        }
    }

    /// A new member: there will be a new generation.
    async fn take_in(
        &mut self,
        id: String,
        request: JoinRequest,
    ) -> Result<Pending<Joined>, GroupError> {
        let until = Some(Instant::now() + NEW_MEMBER_TIMEOUT);
        let answer = self.park(id, request, until);
        self.complete_if_all_joined().await?;
        Ok(Pending::Waiting(answer))
    }

    /// A member that is known comes again.
    async fn rejoin(&mut self, request: JoinRequest) -> Result<Pending<Joined>, GroupError> {
        let id = request.member.clone();
        let has_joined = self.desk.classic.has_joined(&id);
        if !self.is_member(&id) && !has_joined {
            return Err(GroupError::UnknownMember);
        }
        let is_leader =
            self.read(|group| classic(group).is_some_and(|it| it.leader.as_deref() == Some(&id)));
        let nothing_new = match self.phase() {
            Phase::Empty => return Err(GroupError::UnknownMember),
            Phase::Preparing => false,
            Phase::Completing => self.says_the_same(&request),
            Phase::Stable => !is_leader && self.says_the_same(&request),
        };
        if nothing_new {
            self.renew_classic(&id);
            return Ok(Pending::Ready(self.joined(&id)?));
        }
        let until = if has_joined && !self.is_member(&id) {
            Some(Instant::now() + NEW_MEMBER_TIMEOUT)
        } else {
            None
        };
        let answer = self.park(id, request, until);
        self.complete_if_all_joined().await?;
        Ok(Pending::Waiting(answer))
    }

    fn says_the_same(&self, request: &JoinRequest) -> bool {
        if let Some(spoken) = self.desk.classic.protocols.get(&request.member) {
            return *spoken == request.protocols;
        }
        self.read(|group| {
            let said = classic(group).and_then(|group| {
                let said = &group.members.get(&request.member)?.metadata;
                Some(
                    metadata(&request.protocols, group.protocol.as_deref()?).as_ref() == Some(said),
                )
            });
            said.unwrap_or(false)
        })
    }

    /// Puts a member into the next generation, which begins to be prepared with it.
    pub(super) fn park(
        &mut self,
        id: String,
        request: JoinRequest,
        until: Option<Instant>,
    ) -> oneshot::Receiver<Result<Joined, GroupError>> {
        let (answer, waiting): (Answer<Joined>, _) = oneshot::channel();
        self.prepare();
        let member = request.as_member();
        let desk = &mut self.desk.classic;
        desk.protocols.insert(id.clone(), request.protocols);
        if let Some(preparing) = &mut desk.preparing {
            preparing.protocol_type = request.protocol_type;
            if until.is_some()
                && !preparing.joined.is_empty()
                && let Some(initial) = &mut preparing.initial
            {
                initial.has_new = true;
            }
            preparing.count += 1;
            let order = preparing.joined.get(&id).map_or(preparing.count, |before| before.order);
            preparing.joined.insert(id, Joiner { member, order, answer, until });
        }
        waiting
    }

    /// A static member came back without its id, and takes its old place.
    async fn replace(
        &mut self,
        old: &str,
        request: JoinRequest,
    ) -> Result<Pending<Joined>, GroupError> {
        let name = request.instance_id.as_deref().unwrap_or_default();
        let new = format!("{name}-{}", self.shared.machine.new_uuid());
        if let Some(answer) = self.desk.classic.syncs.remove(old) {
            drop(answer.send(Err(GroupError::FencedInstance)));
        }
        if self.phase() == Phase::Stable && self.keeps_protocol(old, &request) {
            return self.replace_in_place(old, new, request).await.map(Pending::Ready);
        }
        let desk = &mut self.desk.classic;
        let joined = desk.preparing.as_mut().and_then(|it| it.joined.remove(old));
        if let Some(joiner) = joined {
            drop(joiner.answer.send(Err(GroupError::FencedInstance)));
        }
        desk.sessions.remove(old);
        desk.protocols.remove(old);
        desk.gone.insert(old.to_owned());
        self.take_in(new, request).await
    }

    /// Whether the group would choose the same protocol with the member as it is now.
    fn keeps_protocol(&self, old: &str, request: &JoinRequest) -> bool {
        let others = self.spoken_by_others(old);
        let all: Vec<&Spoken> = others.iter().chain(std::iter::once(&request.protocols)).collect();
        let chosen = choose(&all);
        chosen.is_some()
            && self.read(|group| classic(group).map(|it| it.protocol == chosen)) == Some(true)
    }

    async fn replace_in_place(
        &mut self,
        old: &str,
        new: String,
        request: JoinRequest,
    ) -> Result<Joined, GroupError> {
        let chosen = self.read(|group| classic(group).and_then(|it| it.protocol.clone()));
        let said = chosen.and_then(|chosen| metadata(&request.protocols, &chosen));
        let member = ClassicMember { metadata: said.unwrap_or_default(), ..request.as_member() };
        let timeout = milliseconds(member.session_timeout_ms);
        let (old, new_id) = (old.to_owned(), new.clone());
        let change = GroupChange::ReplaceMember { old: old.clone(), new: new_id, member };
        self.change(change).await?;
        let desk = &mut self.desk.classic;
        desk.sessions.remove(&old);
        desk.protocols.remove(&old);
        desk.sessions.insert(new.clone(), Instant::now() + timeout);
        desk.protocols.insert(new.clone(), request.protocols);
        let mut joined = self.joined(&new)?;
        if joined.leader == new {
            if request.can_skip_assignment {
                joined.skip_assignment = true;
            } else {
                // It must not assign: that would take a new generation. So it hears the old name.
                joined.leader = old;
                joined.members.clear();
            }
        }
        Ok(joined)
    }
}
