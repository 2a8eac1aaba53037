//! Who of a group reads which partitions: the assignors a broker offers (KIP-848).
//!
//! Pure functions of the members, their subscriptions and what they had by the last target: equal
//! arguments give equal answers on every broker. When to assign, and how members get from one
//! target to the next, is the business of the group's coordinator.

use std::collections::{BTreeMap, BTreeSet};
use std::ops::Range;

use odradek_protocol::id::{PartitionIndex, TopicId};
pub use odradek_storage::command::groups::Assignment;

mod range;
#[cfg(test)]
mod tests;
mod uniform;

/// A way to divide partitions among members.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Assignor {
    /// Everybody gets as many as everybody else, and keeps what can be kept.
    Uniform,
    /// Everybody gets a contiguous range of every topic.
    Range,
}

impl Assignor {
    /// What a group gets whose members ask for none.
    pub const DEFAULT: Self = Self::Uniform;

    /// The names of all, the default first.
    pub const NAMES: [&'static str; 2] = [Self::Uniform.name(), Self::Range.name()];

    /// The assignor of this name; none if there is no such.
    #[must_use]
    pub fn from_name(name: &str) -> Option<Self> {
        [Self::Uniform, Self::Range].into_iter().find(|assignor| assignor.name() == name)
    }

    /// The name by which members ask for it.
    #[must_use]
    pub const fn name(self) -> &'static str {
        match self {
            Self::Uniform => "uniform",
            Self::Range => "range",
        }
    }
}

/// What an assignor knows of a member.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Subscriber {
    /// The topics it wants to read. Those that do not exist count for nothing.
    pub topics: BTreeSet<TopicId>,
    /// Its instance id, if it is a static member (KIP-345).
    pub instance_id: Option<String>,
    /// What it has by the last target. It may be out of date: of other topics, of partitions that
    /// do not exist; of a partition that several members claim, the first of them has it.
    pub target: Assignment,
}

/// Divides the partitions among `members`, who are named by their ids.
///
/// `partitions` has the partition count of every topic somebody subscribes to, as far as it exists.
/// Every partition of such a topic goes to exactly one of its subscribers; every member is in the
/// answer, with or without partitions.
#[must_use]
pub fn assign(
    assignor: Assignor,
    members: &BTreeMap<String, Subscriber>,
    partitions: &BTreeMap<TopicId, u32>,
) -> BTreeMap<String, Assignment> {
    match assignor {
        Assignor::Uniform => uniform::assign(members, partitions),
        Assignor::Range => range::assign(members, partitions),
    }
}

/// Who subscribes to each topic that exists: positions in `members`, in the order of `members`.
/// Topics without subscribers are not named.
fn subscribers<'a>(
    members: impl Iterator<Item = &'a Subscriber>,
    partitions: &BTreeMap<TopicId, u32>,
) -> BTreeMap<TopicId, Vec<usize>> {
    let mut by_topic: BTreeMap<TopicId, Vec<usize>> =
        partitions.keys().map(|topic| (*topic, Vec::new())).collect();
    for (position, member) in members.enumerate() {
        for topic in &member.topics {
            if let Some(subscribers) = by_topic.get_mut(topic) {
                subscribers.push(position);
            }
        }
    }
    by_topic.retain(|_, subscribers| !subscribers.is_empty());
    by_topic
}

/// The partitions of a topic that has `count` of them.
fn indexes(count: u32) -> Range<PartitionIndex> {
    0..PartitionIndex::try_from(count).unwrap_or(PartitionIndex::MAX)
}
