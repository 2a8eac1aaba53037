//! Range: of every topic, each subscriber gets a run of neighbouring partitions.
//!
//! All topics are divided in the same order of members, so members that subscribe to the same
//! topics get the same indexes of topics of the same size: what joins need. Nothing is remembered
//! from assignment to assignment; the order alone makes it steady, with static members in front,
//! whose place does not depend on the member ids they get when they come back.

use std::collections::BTreeMap;

use odradek_protocol::id::TopicId;

use super::{Assignment, Subscriber, indexes, subscribers};

/// Divides topic by topic; see [`super::assign`].
pub(super) fn assign(
    members: &BTreeMap<String, Subscriber>,
    partitions: &BTreeMap<TopicId, u32>,
) -> BTreeMap<String, Assignment> {
    let mut order: Vec<(&String, &Subscriber)> = members.iter().collect();
    order.sort_by_key(|(id, member)| (member.instance_id.is_none(), &member.instance_id, *id));

    let mut assignments = vec![Assignment::new(); order.len()];
    for (topic, subscribers) in subscribers(order.iter().map(|(_, member)| *member), partitions) {
        let mut left = indexes(partitions[&topic]);
        let (share, extra) = (left.len() / subscribers.len(), left.len() % subscribers.len());
        for (place, member) in subscribers.into_iter().enumerate() {
            let share = share + usize::from(place < extra);
            if share == 0 {
                break;
            }
            assignments[member].insert(topic, left.by_ref().take(share).collect());
        }
    }
    order.into_iter().map(|(id, _)| id.clone()).zip(assignments).collect()
}
