//! Groups of the classic protocol: members that agree on generations, one of which assigns.
//!
//! A generation's number is given once; its leader is one of its members.

use std::collections::BTreeMap;

use bytes::Bytes;

use crate::command::groups::{ClassicMember, MemberChange};
use crate::command::{Committer, GroupChange, Rejection};

/// What all members of a generation agree on.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct ClassicGroup {
    /// What kind of group it is: `consumer`, `connect`.
    pub protocol_type: String,
    /// The number of the generation; grows with each.
    pub generation: i32,
    /// The protocol that was chosen; none if nobody is in it.
    pub protocol: Option<String>,
    /// The member that assigns; none if nobody is in it.
    pub leader: Option<String>,
    /// Whether the leader has assigned.
    pub is_assigned: bool,
    /// The members of the generation, by id.
    pub members: BTreeMap<String, ClassicMember>,
    /// Changes for the generation that is about to begin; none: the member is gone.
    pub(crate) staged: BTreeMap<String, Option<ClassicMember>>,
}

impl ClassicGroup {
    /// The member with this instance id (KIP-345).
    pub fn static_member(&self, instance_id: &str) -> Option<&str> {
        let mut members = self.members.iter();
        let found = members.find(|(_, member)| member.instance_id.as_deref() == Some(instance_id));
        found.map(|(id, _)| id.as_str())
    }

    pub(super) fn admit(&self, committer: &Committer) -> Result<(), Rejection> {
        if let Some(instance_id) = &committer.instance_id {
            let holder = self.static_member(instance_id).ok_or(Rejection::UnknownMember)?;
            if holder != committer.member {
                return Err(Rejection::FencedInstance);
            }
        }
        if !self.members.contains_key(&committer.member) {
            return Err(Rejection::UnknownMember);
        }
        if committer.generation != self.generation {
            let (found, current) = (committer.generation, self.generation);
            return Err(Rejection::IllegalGeneration { found, current });
        }
        if self.is_assigned { Ok(()) } else { Err(Rejection::RebalanceInProgress) }
    }

    pub(super) fn change(&mut self, change: &GroupChange) -> Result<(), Rejection> {
        match change {
            GroupChange::StageMembers { is_first, members } => {
                if *is_first {
                    self.staged.clear();
                }
                stage(&mut self.staged, members);
                Ok(())
            }
            GroupChange::BeginGeneration { .. } => self.begin(change),
            GroupChange::AssignGeneration { assignments, is_last } => {
                self.assign(assignments, *is_last)
            }
            GroupChange::ReplaceMember { old, new, member } => self.replace(old, new, member),
            _ => Err(Rejection::Malformed("not a change of a classic group")),
        }
    }

    fn begin(&mut self, change: &GroupChange) -> Result<(), Rejection> {
        let GroupChange::BeginGeneration { protocol_type, protocol, leader, with_staged, members } =
            change
        else {
            return Err(Rejection::Malformed("no generation begins"));
        };
        let mut last: BTreeMap<&str, bool> = BTreeMap::new();
        if *with_staged {
            last.extend(self.staged.iter().map(|(id, member)| (id.as_str(), member.is_some())));
        }
        last.extend(members.iter().map(|change| match change {
            MemberChange::Put { id, .. } => (id.as_str(), true),
            MemberChange::Remove { id } => (id.as_str(), false),
        }));
        let will_be_member =
            |id: &str| last.get(id).copied().unwrap_or_else(|| self.members.contains_key(id));
        let mut ids = self.members.keys().map(String::as_str).chain(last.keys().copied());
        let makes_sense = match leader {
            Some(leader) => will_be_member(leader) && protocol.is_some(),
            None => !ids.any(will_be_member) && protocol.is_none(),
        };
        if !makes_sense {
            return Err(Rejection::Malformed("a generation is led by one of its members"));
        }
        let mut changes = std::mem::take(&mut self.staged);
        if !with_staged {
            changes.clear();
        }
        stage(&mut changes, members);
        for (id, change) in changes {
            match change {
                Some(member) => self.members.insert(id, member),
                None => self.members.remove(&id),
            };
        }
        self.members.values_mut().for_each(|member| member.assignment = Bytes::new());
        self.protocol_type.clone_from(protocol_type);
        self.protocol.clone_from(protocol);
        self.leader.clone_from(leader);
        // Kafka's number wraps as well, in some thousand years.
        self.generation = self.generation.checked_add(1).unwrap_or(1);
        self.is_assigned = false;
        Ok(())
    }

    fn assign(&mut self, assignments: &[(String, Bytes)], is_last: bool) -> Result<(), Rejection> {
        if self.is_assigned || self.members.is_empty() {
            return Err(Rejection::Malformed("no generation waits to be assigned"));
        }
        for (id, assignment) in assignments {
            if let Some(member) = self.members.get_mut(id) {
                member.assignment = assignment.clone();
            }
        }
        self.is_assigned = is_last;
        Ok(())
    }

    fn replace(&mut self, old: &str, new: &str, member: &ClassicMember) -> Result<(), Rejection> {
        if self.members.contains_key(new) {
            return Err(Rejection::Malformed("the new member id is in use"));
        }
        let before = self.members.remove(old).ok_or(Rejection::UnknownMember)?;
        let assignment = before.assignment;
        self.members.insert(new.to_owned(), ClassicMember { assignment, ..member.clone() });
        if self.leader.as_deref() == Some(old) {
            self.leader = Some(new.to_owned());
        }
        Ok(())
    }
}

fn stage(staged: &mut BTreeMap<String, Option<ClassicMember>>, changes: &[MemberChange]) {
    for change in changes {
        match change {
            MemberChange::Put { id, member } => staged.insert(id.clone(), Some(member.clone())),
            MemberChange::Remove { id } => staged.insert(id.clone(), None),
        };
    }
}
