//! Leaving: on one's own, by silence, or by staying away.

use tokio::time::Instant;

use super::{GroupError, Leaver, Phase, Work, classic};

impl Work {
    pub(super) async fn leave(&mut self, leavers: Vec<Leaver>) -> Vec<Result<(), GroupError>> {
        let mut left = Vec::new();
        let mut answers = Vec::with_capacity(leavers.len());
        for leaver in leavers {
            let found = self.find_leaver(&leaver).and_then(|id| {
                if left.contains(&id) { Err(GroupError::UnknownMember) } else { Ok(id) }
            });
            answers.push(found.map(|id| left.push(id)));
        }
        // Whether the next generation begins now is no matter of who left.
        drop(self.remove(left).await);
        answers
    }

    fn find_leaver(&self, leaver: &Leaver) -> Result<String, GroupError> {
        if let Some(instance_id) = &leaver.instance_id {
            let holder = self.static_holder(instance_id).ok_or(GroupError::UnknownMember)?;
            if !leaver.member.is_empty() && leaver.member != holder {
                return Err(GroupError::FencedInstance);
            }
            return Ok(holder);
        }
        let id = &leaver.member;
        let is_promised = self.desk.classic.promised.contains_key(id);
        if is_promised || self.is_member(id) || self.desk.classic.has_joined(id) {
            return Ok(id.clone());
        }
        Err(GroupError::UnknownMember)
    }

    /// Takes members out: there will be a generation without them.
    async fn remove(&mut self, members: Vec<String>) -> Result<(), GroupError> {
        if members.is_empty() {
            return Ok(());
        }
        for id in members {
            // An id that was only promised has no place in a generation.
            if self.desk.classic.promised.remove(&id).is_none() {
                self.forget_member(&id);
                if self.phase() != Phase::Empty {
                    self.prepare();
                }
            }
        }
        self.complete_if_all_joined().await
    }

    /// A member is not in the next generation.
    pub(super) fn forget_member(&mut self, id: &str) {
        let is_in_generation =
            self.read(|group| classic(group).is_some_and(|it| it.members.contains_key(id)));
        let desk = &mut self.desk.classic;
        desk.sessions.remove(id);
        desk.protocols.remove(id);
        let joiner = desk.preparing.as_mut().and_then(|it| it.joined.remove(id));
        if let Some(joiner) = joiner {
            drop(joiner.answer.send(Err(GroupError::UnknownMember)));
        }
        if let Some(answer) = desk.syncs.remove(id) {
            drop(answer.send(Err(GroupError::UnknownMember)));
        }
        if is_in_generation {
            desk.gone.insert(id.to_owned());
        }
    }

    /// Does what is due.
    pub(in crate::group) async fn tick_classic(&mut self) {
        let now = Instant::now();
        self.desk.classic.promised.retain(|_, until| *until > now);
        let desk = &self.desk.classic;
        let mut silent: Vec<String> = desk
            .sessions
            .iter()
            .filter(|(id, until)| **until <= now && !desk.is_waiting(id))
            .map(|(id, _)| id.clone())
            .collect();
        let joined = desk.preparing.iter().flat_map(|it| &it.joined);
        let given_up = joined.filter(|(_, joiner)| {
            let is_late = joiner.until.is_some_and(|until| until <= now);
            is_late || (joiner.until.is_some() && joiner.answer.is_closed())
        });
        silent.extend(given_up.map(|(id, _)| id.clone()));
        if desk.sync_deadline.is_some_and(|deadline| deadline <= now) {
            // Who has not asked for its assignment is not there any more.
            let asked = |id: &&String| desk.syncs.contains_key(*id);
            silent.extend(desk.sessions.keys().filter(|id| !asked(id)).cloned());
            self.desk.classic.sync_deadline = None;
        }
        for id in &silent {
            tracing::info!(group = self.slot.name, member = id, "member is gone");
        }
        // An error has told all who wait, and what was in mind is forgotten.
        drop(self.remove(silent).await);
        let preparing = self.desk.classic.preparing.as_ref();
        let outcome = match preparing {
            Some(preparing) if preparing.deadline <= now => self.end_preparing().await,
            Some(_) => self.complete_if_all_joined().await,
            None => Ok(()),
        };
        drop(outcome);
    }
}
