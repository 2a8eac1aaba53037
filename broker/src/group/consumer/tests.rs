//! What the group of these tests is: members, topics, and who says what to whom.

use std::collections::{BTreeMap, BTreeSet};

use odradek_protocol::id::TopicId;
use odradek_storage::command::groups::{Assignment, MemberState};
use odradek_storage::state::groups::consumer::{ConsumerGroup, ConsumerMember};
use uuid::Uuid;

use super::topics::{Topics, Wanted};
use super::turn::{self, Decision, Turn};
use super::{ConsumerHeartbeat, JOIN_EPOCH, LEAVE_EPOCH, STATIC_LEAVE_EPOCH};
use crate::group::GroupError;

mod coordinator;
mod members;
mod properties;
mod rebalances;
mod statics;
mod steps;

pub(super) const FOO: TopicId = TopicId(Uuid::from_u128(1));
pub(super) const BAR: TopicId = TopicId(Uuid::from_u128(2));

/// Partitions as tests write them.
pub(super) fn partitions(topics: &[(TopicId, &[i32])]) -> Assignment {
    topics.iter().map(|(topic, indexes)| (*topic, indexes.iter().copied().collect())).collect()
}

/// What a member says that joins.
pub(super) fn join(member: &str, topics: &[&str]) -> ConsumerHeartbeat {
    ConsumerHeartbeat {
        member: member.to_owned(),
        rebalance_timeout_ms: Some(10_000),
        topics: Some(topics.iter().map(|topic| (*topic).to_owned()).collect()),
        owned: Some(Assignment::new()),
        client_id: "client".to_owned(),
        client_host: "/127.0.0.1".to_owned(),
        ..ConsumerHeartbeat::default()
    }
}

/// What a member says that has nothing to say.
pub(super) fn beat(member: &str, epoch: i32) -> ConsumerHeartbeat {
    ConsumerHeartbeat {
        member: member.to_owned(),
        epoch,
        client_id: "client".to_owned(),
        client_host: "/127.0.0.1".to_owned(),
        ..ConsumerHeartbeat::default()
    }
}

impl ConsumerHeartbeat {
    pub(super) fn owning(mut self, owned: &Assignment) -> Self {
        self.owned = Some(owned.clone());
        self
    }

    pub(super) fn named(mut self, instance_id: &str) -> Self {
        self.instance_id = Some(instance_id.to_owned());
        self
    }

    pub(super) fn preferring(mut self, assignor: &str) -> Self {
        self.assignor = Some(assignor.to_owned());
        self
    }
}

/// A group that does at once what was decided.
pub(super) struct Scene {
    pub(super) group: ConsumerGroup,
    topics: BTreeMap<&'static str, (TopicId, u32)>,
    max_size: usize,
}

impl Scene {
    /// A group that nobody is in, and two topics of six partitions.
    pub(super) fn new() -> Self {
        let topics = BTreeMap::from([("foo", (FOO, 6)), ("bar", (BAR, 6))]);
        Self { group: ConsumerGroup::beginning_at(0), topics, max_size: usize::MAX }
    }

    pub(super) fn with_foo(partitions: u32) -> Self {
        let mut scene = Self::new();
        scene.topics = BTreeMap::from([("foo", (FOO, partitions))]);
        scene
    }

    fn topics(&self, wanted: &Wanted) -> Topics {
        let named = self.topics.iter().filter(|(name, _)| wanted.names().contains(**name));
        let named: Vec<_> = named.map(|(name, (id, count))| (*name, *id, *count)).collect();
        Topics::only(&named)
    }

    /// Decides, without doing.
    pub(super) fn decide(&self, heartbeat: &ConsumerHeartbeat) -> Result<Decision, GroupError> {
        turn::check(heartbeat)?;
        if heartbeat.epoch < JOIN_EPOCH {
            return turn::leave(&self.group, heartbeat, |gone| {
                let members = self.group.members().iter();
                let stay = members.filter(|(id, _)| !gone.contains(id));
                self.topics(&Wanted::by(stay.map(|(_, member)| &member.subscription)))
            });
        }
        let turn = Turn::begin(&self.group, heartbeat, self.max_size)?;
        let topics = self.topics(&Wanted::by(turn.subscriptions()));
        let quiet = turn.quiet();
        let decision = turn.finish(&topics);
        if let Some(quiet) = quiet.filter(|_| topics.hash() == self.group.metadata_hash) {
            assert_eq!(quiet, decision, "what is answered quietly is what would be decided");
        }
        Ok(decision)
    }

    /// Says something to the group, and does what it decides.
    pub(super) fn hear(&mut self, heartbeat: ConsumerHeartbeat) -> Result<Decision, GroupError> {
        let decision = self.decide(&heartbeat)?;
        self.group.change(&decision.changes).unwrap();
        Ok(decision)
    }

    /// The same, where nothing is wrong: the member's epoch, and what it is told that it has.
    pub(super) fn told(&mut self, heartbeat: ConsumerHeartbeat) -> (i32, Option<Assignment>) {
        let decision = self.hear(heartbeat).unwrap();
        (decision.epoch, decision.assignment)
    }

    pub(super) fn refused(&mut self, heartbeat: ConsumerHeartbeat) -> GroupError {
        self.hear(heartbeat).unwrap_err()
    }

    pub(super) fn member(&self, id: &str) -> &ConsumerMember {
        &self.group.members()[id]
    }

    pub(super) fn state(&self, id: &str) -> (i32, MemberState) {
        let current = &self.member(id).current;
        (current.epoch, current.state)
    }

    pub(super) fn assigned(&self, id: &str) -> Assignment {
        self.member(id).current.assigned.clone()
    }

    /// Lets every member speak, as obedient clients do, until nothing changes.
    pub(super) fn settle(&mut self) {
        for _ in 0..20 {
            let before = self.group.clone();
            let members: BTreeSet<String> = self.group.members().keys().cloned().collect();
            for id in members {
                let member = self.member(&id);
                if member.current.epoch != STATIC_LEAVE_EPOCH {
                    let (epoch, owned) = (member.current.epoch, member.current.assigned.clone());
                    self.hear(beat(&id, epoch).owning(&owned)).unwrap();
                }
            }
            if self.group == before {
                return;
            }
        }
        panic!("the group does not come to rest: {:?}", self.group);
    }
}
