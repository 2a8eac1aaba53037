//! The steps of one member, after Kafka's `CurrentAssignmentBuilderTest`.

use odradek_protocol::id::{PartitionIndex, TopicId};
use odradek_storage::command::groups::{Assignment, Current, MemberState};

use super::super::reconcile::{Goal, reconcile};
use super::{BAR, FOO, partitions};

use MemberState::{Stable, UnreleasedPartitions as Unreleased, UnrevokedPartitions as Unrevoked};

/// A member on its way: what is assigned to it, and what it must give back.
fn at(epoch: i32, state: MemberState, assigned: &Assignment, revoking: &Assignment) -> Current {
    let (assigned, revoking) = (assigned.clone(), revoking.clone());
    Current { epoch, previous_epoch: epoch - 1, assigned, revoking, state }
}

fn all(foo: &[i32], bar: &[i32]) -> Assignment {
    let mut assignment = partitions(&[(FOO, foo), (BAR, bar)]);
    assignment.retain(|_, indexes| !indexes.is_empty());
    assignment
}

/// One step: what the member is to have, what it says it has, what others have.
struct Case {
    before: Current,
    target: (i32, Assignment),
    owned: Option<Assignment>,
    taken: Assignment,
    /// None if it stays.
    after: Option<Current>,
}

fn check(name: &str, case: Case) {
    let (epoch, target) = case.target;
    let goal = Goal { epoch, target: &target };
    let is_free = |topic: TopicId, index: PartitionIndex| {
        case.taken.get(&topic).is_none_or(|indexes| !indexes.contains(&index))
    };
    let after = reconcile(&case.before, &goal, case.owned.as_ref(), is_free);
    let expected = case.after.map(|after| Current { previous_epoch: case.before.epoch, ..after });
    assert_eq!(after, expected, "{name}");
}

#[test]
fn a_stable_member_moves_with_the_target() {
    let none = Assignment::new();
    let before = || at(10, Stable, &all(&[1, 2, 3], &[4, 5, 6]), &none);
    let case = |target, owned, taken, after| Case { before: before(), target, owned, taken, after };
    let alone = |target, after| case(target, None, Assignment::new(), after);
    check("no new target", alone((10, all(&[9], &[])), None));
    let same = all(&[1, 2, 3], &[4, 5, 6]);
    let after = at(11, Stable, &same, &none);
    check("a new epoch, the same partitions", alone((11, same), Some(after)));
    let more = || all(&[1, 2, 3, 4], &[4, 5, 6, 7]);
    let after = at(11, Stable, &more(), &none);
    check("only new partitions", alone((11, more()), Some(after)));
    let other = || all(&[2, 3, 4], &[5, 6, 7]);
    let after = at(10, Unrevoked, &all(&[2, 3], &[5, 6]), &all(&[1], &[4]));
    check("something to give back", alone((11, other()), Some(after)));
    let (never, after) = (all(&[2, 3], &[5, 6]), at(11, Stable, &other(), &none));
    let taken = case((11, other()), Some(never), none.clone(), Some(after));
    check("something to give back that it never took", taken);
    let after = at(11, Unreleased, &all(&[1, 2, 3], &[4, 5, 6, 7]), &none);
    let taken = case((11, more()), None, all(&[4], &[]), Some(after));
    check("some of the new ones are with others", taken);
    let after = at(11, Unreleased, &all(&[1, 2, 3], &[4, 5, 6]), &none);
    check("all of them are", case((11, more()), None, all(&[4], &[7]), Some(after)));
    let after = at(10, Unrevoked, &none, &all(&[1, 2, 3], &[4, 5, 6]));
    check("everything goes", alone((12, none.clone()), Some(after)));
}

#[test]
fn a_member_stays_until_it_has_given_back_what_it_must() {
    let none = Assignment::new();
    let before = || at(10, Unrevoked, &all(&[2, 3], &[5, 6]), &all(&[1], &[4]));
    let target = || (12, all(&[2, 3, 4], &[5, 6, 7]));
    let case =
        |owned, taken, after| Case { before: before(), target: target(), owned, taken, after };
    check("it does not say", case(None, none.clone(), None));
    for owned in [all(&[1, 2, 3], &[4, 5, 6]), all(&[1], &[]), all(&[2, 3], &[4, 5, 6])] {
        check("it still has some", case(Some(owned), none.clone(), None));
    }
    let done = at(12, Stable, &all(&[2, 3, 4], &[5, 6, 7]), &none);
    check("it has not", case(Some(all(&[2, 3], &[5, 6])), none.clone(), Some(done)));
    let waits = at(12, Unreleased, &all(&[2, 3], &[5, 6, 7]), &none);
    check("it has not, but others have", case(Some(none.clone()), all(&[4], &[]), Some(waits)));
}

#[test]
fn a_member_that_has_given_back_may_have_to_give_back_more() {
    let none = Assignment::new();
    check(
        "another target came meanwhile",
        Case {
            before: at(10, Unrevoked, &all(&[2, 3], &[5, 6]), &all(&[1], &[4])),
            target: (12, all(&[3], &[6])),
            owned: Some(all(&[2, 3], &[5, 6])),
            taken: none.clone(),
            after: Some(at(11, Unrevoked, &all(&[3], &[6]), &all(&[2], &[5]))),
        },
    );
    check(
        "and what it gave back is to be its own again",
        Case {
            before: at(10, Unrevoked, &all(&[2], &[]), &all(&[1], &[])),
            target: (12, all(&[1, 2], &[])),
            owned: Some(all(&[2], &[])),
            taken: none.clone(),
            after: Some(at(12, Stable, &all(&[1, 2], &[]), &none)),
        },
    );
}

#[test]
fn a_member_that_waits_takes_what_comes_free() {
    let none = Assignment::new();
    let before = || at(11, Unreleased, &all(&[2, 3], &[5, 6]), &none);
    let case = |target, taken, after| Case { before: before(), target, owned: None, taken, after };
    let target = || (11, all(&[2, 3, 4], &[5, 6, 7]));
    check("nothing is", case(target(), all(&[4], &[7]), None));
    let one = at(11, Unreleased, &all(&[2, 3, 4], &[5, 6]), &none);
    check("one is", case(target(), all(&[], &[7]), Some(one)));
    let both = at(11, Stable, &all(&[2, 3, 4], &[5, 6, 7]), &none);
    check("all is", case(target(), none.clone(), Some(both)));
    let less = at(12, Stable, &all(&[2, 3], &[5, 6]), &none);
    check("another target wants less", case((12, all(&[2, 3], &[5, 6])), none.clone(), Some(less)));
    let back = at(11, Unrevoked, &all(&[2], &[5]), &all(&[3], &[6]));
    check("or something back", case((12, all(&[2, 4], &[5])), none.clone(), Some(back)));
}
