//! A member's way from what it has to what it is to have.
//!
//! ```text
//!            it has more than its target           it says it has not
//!   Stable ------------------------------> Unrevoked -----------------+
//!      |                                   (epoch stays)              |
//!      | a new target                                                 v
//!      +------------------------------------------------> takes the target's epoch,
//!                                                          and what is free of it:
//!                                                   all -> Stable,  some -> Unreleased
//! ```

use odradek_protocol::id::{PartitionIndex, TopicId};
use odradek_storage::command::groups::{Assignment, Current, MemberState};

/// Where a member is to go.
pub(super) struct Goal<'a> {
    /// The epoch of the target assignment.
    pub(super) epoch: i32,
    /// The member's part of it.
    pub(super) target: &'a Assignment,
}

/// The next step of a member; none if it has to stay where it is.
///
/// `owned` is what it says it has, if it says. `is_free` tells whether nobody else has a partition.
pub(super) fn reconcile(
    current: &Current,
    goal: &Goal<'_>,
    owned: Option<&Assignment>,
    is_free: impl Fn(TopicId, PartitionIndex) -> bool,
) -> Option<Current> {
    let epoch = match current.state {
        MemberState::Stable if current.epoch == goal.epoch => return None,
        MemberState::Stable | MemberState::UnreleasedPartitions => current.epoch,
        MemberState::UnrevokedPartitions if has_any(owned, &current.revoking) => return None,
        MemberState::UnrevokedPartitions => current.epoch.saturating_add(1),
    };
    let next = step(current, epoch, goal, owned, is_free);
    // The epoch before is no reason to write: it only widens what is forgiven.
    let is_same = Current { previous_epoch: current.previous_epoch, ..next.clone() } == *current;
    (!is_same).then_some(next)
}

fn step(
    current: &Current,
    epoch: i32,
    goal: &Goal<'_>,
    owned: Option<&Assignment>,
    is_free: impl Fn(TopicId, PartitionIndex) -> bool,
) -> Current {
    let kept = select(&current.assigned, |topic, index| contains(goal.target, topic, index));
    let revoking = select(&current.assigned, |topic, index| !contains(&kept, topic, index));
    if has_any(owned, &revoking) {
        return Current {
            epoch,
            previous_epoch: current.epoch,
            assigned: kept,
            revoking,
            state: MemberState::UnrevokedPartitions,
        };
    }
    let assigned =
        select(goal.target, |topic, index| contains(&kept, topic, index) || is_free(topic, index));
    let state = if assigned == *goal.target {
        MemberState::Stable
    } else {
        MemberState::UnreleasedPartitions
    };
    Current {
        epoch: goal.epoch,
        previous_epoch: current.epoch,
        assigned,
        revoking: Assignment::new(),
        state,
    }
}

/// Whether a member has any of these partitions; who does not say may have them all.
fn has_any(owned: Option<&Assignment>, partitions: &Assignment) -> bool {
    if partitions.is_empty() {
        return false;
    }
    owned.is_none_or(|owned| {
        let has = |topic: &TopicId, index: &PartitionIndex| contains(owned, *topic, *index);
        partitions.iter().any(|(topic, indexes)| indexes.iter().any(|index| has(topic, index)))
    })
}

/// Whether all of `part` is in `whole`.
pub(super) fn is_within(part: &Assignment, whole: &Assignment) -> bool {
    let is_in = |topic: &TopicId, index: &PartitionIndex| contains(whole, *topic, *index);
    part.iter().all(|(topic, indexes)| indexes.iter().all(|index| is_in(topic, index)))
}

fn contains(assignment: &Assignment, topic: TopicId, index: PartitionIndex) -> bool {
    assignment.get(&topic).is_some_and(|indexes| indexes.contains(&index))
}

/// The partitions that are wanted; topics of which nothing is left are left out.
fn select(
    assignment: &Assignment,
    is_wanted: impl Fn(TopicId, PartitionIndex) -> bool,
) -> Assignment {
    let wanted = assignment.iter().map(|(topic, indexes)| {
        let indexes = indexes.iter().copied().filter(|index| is_wanted(*topic, *index));
        (*topic, indexes.collect())
    });
    wanted.filter(|(_, indexes): &(_, std::collections::BTreeSet<_>)| !indexes.is_empty()).collect()
}
