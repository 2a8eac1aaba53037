//! What is told of a classic group.

use bytes::Bytes;
use odradek_storage::command::groups::ClassicMember;
use odradek_storage::state::groups::Group;

use super::{Phase, classic};
use crate::group::{GroupCoordinator, GroupError, Work};

/// A classic group, or one that only keeps positions.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Description {
    /// Where it stands.
    pub phase: Phase,
    /// What kind of group it is; empty if nobody ever joined.
    pub protocol_type: String,
    /// The protocol of the generation; empty if there is none.
    pub protocol: String,
    /// Its members by id. What they say and have is told of a stable generation only.
    pub members: Vec<(String, ClassicMember)>,
}

impl GroupCoordinator {
    /// Describes a group; [`GroupError::UnknownGroup`] if there is none of the classic protocol.
    pub async fn describe(&self, group: &str) -> Result<Description, GroupError> {
        self.enter(group).await?.describe()
    }
}

impl Work {
    fn describe(&self) -> Result<Description, GroupError> {
        let phase = self.phase();
        let is_known = self.read(|group| group.is_some_and(|it| it.consumer().is_none()));
        if !is_known && phase != Phase::Preparing {
            return Err(GroupError::UnknownGroup(self.slot.name.clone()));
        }
        let desk = &self.desk.classic;
        let mut members: Vec<(String, ClassicMember)> = self.read(|group| {
            let members = classic(group).into_iter().flat_map(|it| &it.members);
            let members = members.filter(|(id, _)| !desk.gone.contains(*id));
            members.map(|(id, member)| (id.clone(), member.clone())).collect()
        });
        let joined = desk.preparing.iter().flat_map(|it| &it.joined);
        let new = joined.filter(|(id, _)| !self.is_member(id));
        members.extend(new.map(|(id, joiner)| (id.clone(), joiner.member.clone())));
        if phase != Phase::Stable {
            for (_, member) in &mut members {
                member.metadata = Bytes::new();
                member.assignment = Bytes::new();
            }
        }
        let (protocol_type, protocol) = self.read(|group| match group.and_then(Group::classic) {
            Some(it) => (it.protocol_type.clone(), it.protocol.clone().unwrap_or_default()),
            None => Default::default(),
        });
        let coming = desk.preparing.as_ref().map(|it| it.protocol_type.clone());
        let protocol_type =
            if protocol_type.is_empty() { coming.unwrap_or_default() } else { protocol_type };
        let protocol = if phase == Phase::Stable { protocol } else { String::new() };
        Ok(Description { phase, protocol_type, protocol, members })
    }
}
