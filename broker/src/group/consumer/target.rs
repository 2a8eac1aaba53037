//! Target assignments: by which assignor, and who gets something else than before.

use std::collections::BTreeMap;

use odradek_storage::command::groups::{Assignment, ConsumerChange, Subscription};

use super::topics::Topics;
use crate::group::assignors::{Assignor, Subscriber, assign};

/// The assignor that most members prefer; between equals, the one that comes first in the list.
pub(crate) fn preferred<'a>(subscriptions: impl Iterator<Item = &'a Subscription>) -> Assignor {
    let mut votes: BTreeMap<Assignor, usize> = BTreeMap::new();
    let names = subscriptions.filter_map(|subscription| subscription.assignor.as_deref());
    for assignor in names.filter_map(Assignor::from_name) {
        *votes.entry(assignor).or_default() += 1;
    }
    let best = votes.into_iter().rev().max_by_key(|(_, votes)| *votes);
    best.map_or(Assignor::DEFAULT, |(assignor, _)| assignor)
}

/// A member as the target is made for it.
pub(super) struct Wish<'a> {
    pub(super) id: &'a str,
    pub(super) subscription: &'a Subscription,
    /// What it was to have so far.
    pub(super) target: &'a Assignment,
}

/// Divides the partitions anew. Answers who is to have something else than before.
pub(super) fn divide(wishes: &[Wish<'_>], topics: &Topics) -> BTreeMap<String, Assignment> {
    let subscribers = wishes.iter().map(|wish| {
        let subscriber = Subscriber {
            topics: topics.of(wish.subscription),
            instance_id: wish.subscription.instance_id.clone(),
            target: wish.target.clone(),
        };
        (wish.id.to_owned(), subscriber)
    });
    let assignor = preferred(wishes.iter().map(|wish| wish.subscription));
    let mut divided = assign(assignor, &subscribers.collect(), topics.partitions());
    for wish in wishes {
        let mut target = divided.remove(wish.id).unwrap_or_default();
        target.retain(|_, indexes| !indexes.is_empty());
        if target != *wish.target {
            divided.insert(wish.id.to_owned(), target);
        }
    }
    divided
}

/// About how many bytes a change takes in the log.
pub(super) fn bytes(change: &ConsumerChange) -> usize {
    let size = |assignment: &Assignment| {
        assignment.values().map(|indexes| 20 + 3 * indexes.len()).sum::<usize>()
    };
    let length = |text: &Option<String>| text.as_ref().map_or(0, String::len);
    8 + match change {
        ConsumerChange::SetEpoch { .. } | ConsumerChange::SetTargetEpoch { .. } => 16,
        ConsumerChange::PutMember { id, subscription: it } => {
            let names = it.topics.iter().map(|name| name.len() + 2).sum::<usize>();
            let own = length(&it.instance_id) + length(&it.rack_id) + length(&it.assignor);
            let client = it.client_id.len() + it.client_host.len();
            32 + id.len() + names + own + client + length(&it.regex)
        }
        ConsumerChange::RemoveMember { id } => id.len(),
        ConsumerChange::SetTarget { id, target } => id.len() + size(target),
        ConsumerChange::SetCurrent { id, current } => {
            16 + id.len() + size(&current.assigned) + size(&current.revoking)
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn who_prefers(assignor: Option<&str>) -> Subscription {
        Subscription { assignor: assignor.map(ToOwned::to_owned), ..Subscription::default() }
    }

    #[test]
    fn most_members_choose_the_assignor() {
        let [none, range, uniform] = [None, Some("range"), Some("uniform")].map(who_prefers);
        let choose = |them: &[&Subscription]| preferred(them.iter().copied());
        assert_eq!(choose(&[]), Assignor::Uniform);
        assert_eq!(choose(&[&none, &none, &range]), Assignor::Range);
        assert_eq!(choose(&[&range, &uniform]), Assignor::Uniform);
        assert_eq!(choose(&[&range, &uniform, &range]), Assignor::Range);
        assert_eq!(choose(&[&who_prefers(Some("gone"))]), Assignor::Uniform);
    }
}
