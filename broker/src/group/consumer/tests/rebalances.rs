//! Partitions on their way between members, after Kafka's `GroupMetadataManagerTest`.

use odradek_storage::command::groups::{Assignment, ConsumerChange};

use super::*;
use MemberState::{Stable, UnreleasedPartitions as Unreleased, UnrevokedPartitions as Unrevoked};

fn foo(indexes: &[i32]) -> Assignment {
    partitions(&[(FOO, indexes)])
}

#[test]
fn the_first_member_has_everything_at_once() {
    let mut scene = Scene::new();
    let everything = partitions(&[(FOO, &[0, 1, 2, 3, 4, 5]), (BAR, &[0, 1, 2, 3, 4, 5])]);
    let told = scene.told(join("a", &["foo", "bar", "missing"]));
    assert_eq!(told, (1, Some(everything.clone())));
    assert_eq!((scene.group.epoch, scene.group.target_epoch), (1, 1));
    assert_eq!(scene.told(beat("a", 1)), (1, None), "what it was told has not changed");
    let full = ConsumerHeartbeat { epoch: 1, ..join("a", &["foo", "bar", "missing"]) };
    assert_eq!(scene.told(full.owning(&everything)), (1, Some(everything)), "it said everything");
    assert_eq!(scene.group.epoch, 1);
}

#[test]
fn a_second_member_waits_for_what_the_first_gives_back() {
    let mut scene = Scene::with_foo(6);
    scene.told(join("a", &["foo"]));
    assert_eq!(scene.told(join("b", &["foo"])), (2, Some(Assignment::new())));
    assert_eq!(scene.state("b"), (2, Unreleased));

    let (epoch, left) = scene.told(beat("a", 1));
    let left = left.expect("it is told to give some back");
    assert_eq!((epoch, left[&FOO].len()), (1, 3), "its epoch stays until it has");
    assert_eq!(scene.state("a"), (1, Unrevoked));
    assert_eq!(scene.told(beat("b", 2)), (2, None), "nothing is free yet");
    assert_eq!(scene.told(beat("a", 1).owning(&foo(&[0, 1, 2, 3, 4, 5]))), (1, None));

    assert_eq!(scene.told(beat("a", 1).owning(&left)), (2, None));
    assert_eq!(scene.state("a"), (2, Stable));
    let (epoch, got) = scene.told(beat("b", 2));
    let got = got.expect("the others are free now");
    assert_eq!((epoch, scene.state("b")), (2, (2, Stable)));
    let both: BTreeSet<i32> = left[&FOO].union(&got[&FOO]).copied().collect();
    assert_eq!((both, got[&FOO].len()), ((0..6).collect(), 3));
}

#[test]
fn what_a_member_leaves_goes_to_the_others() {
    let mut scene = Scene::with_foo(6);
    scene.told(join("a", &["foo"]));
    scene.told(join("b", &["foo"]));
    scene.settle();
    let epoch = scene.state("b").0;
    let left = scene.hear(beat("b", LEAVE_EPOCH)).unwrap();
    assert_eq!((left.epoch, left.assignment), (LEAVE_EPOCH, None));
    assert_eq!(scene.group.epoch, epoch + 1);
    assert_eq!(scene.group.target_epoch, epoch, "the next one who speaks makes the target");
    let (told, all) = scene.told(beat("a", epoch));
    assert_eq!((told, all), (epoch + 1, Some(foo(&[0, 1, 2, 3, 4, 5]))));
    scene.hear(beat("a", LEAVE_EPOCH)).unwrap();
    assert!(scene.group.members().is_empty());
    assert_eq!(scene.group.target_epoch, scene.group.epoch, "there is no target to be made");
}

#[test]
fn three_members_share_and_nobody_ever_has_what_another_has() {
    let mut scene = Scene::new();
    for id in ["a", "b", "c"] {
        scene.told(join(id, &["foo", "bar"]));
    }
    // `a` has all, and is to keep a third; the other two wait for it.
    let (_, left) = scene.told(beat("a", 1));
    assert_eq!(scene.state("a"), (1, Unrevoked));
    assert_eq!(scene.state("b"), (2, Unreleased));
    assert_eq!(scene.state("c"), (3, Unreleased));
    scene.told(beat("a", 1).owning(&left.unwrap()));
    assert_eq!(scene.state("a"), (3, Stable));
    scene.settle();
    for id in ["a", "b", "c"] {
        assert_eq!(scene.state(id), (3, Stable));
        assert_eq!(scene.assigned(id).values().map(BTreeSet::len).sum::<usize>(), 4);
    }
}

#[test]
fn a_target_that_changes_meanwhile_is_the_one_that_counts() {
    let mut scene = Scene::with_foo(6);
    scene.told(join("a", &["foo"]));
    scene.told(join("b", &["foo"]));
    let (_, left) = scene.told(beat("a", 1));
    assert_eq!(left.as_ref().unwrap()[&FOO].len(), 3);
    // Before it has given them back, who was to have them leaves.
    scene.told(beat("b", LEAVE_EPOCH));
    assert_eq!(scene.told(beat("a", 1)), (1, None), "it gives back first");
    assert_eq!(scene.state("a"), (1, Unrevoked));
    let told = scene.told(beat("a", 1).owning(&left.unwrap()));
    assert_eq!(told, (3, Some(foo(&[0, 1, 2, 3, 4, 5]))));
}

#[test]
fn another_subscription_is_another_target() {
    let mut scene = Scene::new();
    scene.told(join("a", &["foo"]));
    let more = ConsumerHeartbeat { topics: join("", &["bar"]).topics, ..beat("a", 1) };
    let (epoch, assignment) = scene.told(more);
    assert_eq!((epoch, assignment), (1, Some(Assignment::new())), "first it gives `foo` back");
    assert_eq!(scene.group.epoch, 2);
    let (epoch, assignment) = scene.told(beat("a", 1).owning(&Assignment::new()));
    assert_eq!(epoch, 2);
    assert_eq!(assignment, Some(partitions(&[(BAR, &[0, 1, 2, 3, 4, 5])])));
    let none = ConsumerHeartbeat { topics: Some(BTreeSet::new()), ..beat("a", 2) };
    assert_eq!(scene.told(none), (2, Some(Assignment::new())));
}

#[test]
fn what_changes_in_the_topics_is_another_target() {
    let mut scene = Scene::with_foo(2);
    scene.told(join("a", &["foo", "bar"]));
    scene.topics.insert("foo", (FOO, 3));
    assert_eq!(scene.told(beat("a", 1)), (2, Some(foo(&[0, 1, 2]))), "it has grown");
    scene.topics.insert("bar", (BAR, 1));
    let both = partitions(&[(FOO, &[0, 1, 2]), (BAR, &[0])]);
    assert_eq!(scene.told(beat("a", 2)), (3, Some(both.clone())), "one came");
    scene.topics.remove("foo");
    let bar = partitions(&[(BAR, &[0])]);
    assert_eq!(scene.told(beat("a", 3)), (3, Some(bar.clone())), "one went");
    assert_eq!(scene.member("a").target, bar);
    assert_eq!(scene.told(beat("a", 3).owning(&bar)), (4, None));
    assert_eq!(scene.group.owner(FOO, 0), None);
    let again = TopicId(Uuid::from_u128(3));
    scene.topics.insert("foo", (again, 1));
    let both = partitions(&[(BAR, &[0]), (again, &[0])]);
    assert_eq!(scene.told(beat("a", 4)), (5, Some(both)), "a topic of the same name is another");
}

#[test]
fn most_members_say_how_partitions_are_divided() {
    let mut scene = Scene::with_foo(4);
    scene.told(join("a", &["foo"]).preferring("range"));
    scene.told(join("b", &["foo"]).preferring("range"));
    scene.settle();
    assert_eq!(scene.assigned("a"), foo(&[0, 1]), "ranges");
    let epoch = scene.group.epoch;
    scene.told(beat("a", epoch).preferring("uniform"));
    assert_eq!(scene.group.epoch, epoch + 1, "as many for the one as for the other");
    let epoch = scene.group.epoch;
    scene.told(beat("b", scene.state("b").0).preferring("uniform"));
    assert_eq!(scene.group.epoch, epoch, "it was that already");
    assert_eq!(scene.member("b").subscription.assignor.as_deref(), Some("uniform"));
}

#[test]
fn only_members_whose_target_changes_are_written() {
    let mut scene = Scene::new();
    scene.told(join("a", &["foo"]));
    let decision = scene.hear(join("b", &["bar"])).unwrap();
    let targets = decision.changes.iter().filter_map(|change| match change {
        ConsumerChange::SetTarget { id, .. } => Some(id.as_str()),
        _ => None,
    });
    assert_eq!(targets.collect::<Vec<_>>(), ["b"]);
    assert_eq!(scene.told(beat("a", 1)), (2, None), "it only hears of the epoch");
}

#[test]
fn a_target_that_was_left_half_made_is_made_again() {
    let mut scene = Scene::with_foo(6);
    scene.told(join("a", &["foo"]));
    let mut decision = scene.decide(&join("b", &["foo"])).unwrap();
    let cut = decision
        .changes
        .iter()
        .position(|change| matches!(change, ConsumerChange::SetTarget { id, .. } if id == "a"));
    decision.changes.truncate(cut.unwrap());
    scene.group.change(&decision.changes).unwrap();
    assert!(scene.group.epoch > scene.group.target_epoch);
    scene.told(beat("a", 1));
    assert_eq!(scene.group.epoch, scene.group.target_epoch);
    scene.told(join("b", &["foo"]));
    scene.settle();
    assert_eq!(scene.assigned("b")[&FOO].len(), 3);
}
