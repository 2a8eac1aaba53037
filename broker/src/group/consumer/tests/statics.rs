//! Static members, after Kafka's `GroupMetadataManagerTest`.

use super::*;
use MemberState::{Stable, UnrevokedPartitions as Unrevoked};

fn two_members() -> Scene {
    let mut scene = Scene::with_foo(6);
    scene.told(join("a", &["foo"]));
    scene.told(join("b", &["foo"]).named("i"));
    scene.settle();
    scene
}

#[test]
fn a_static_member_that_leaves_for_a_while_keeps_its_place() {
    let mut scene = two_members();
    let (had, epoch) = (scene.assigned("b"), scene.group.epoch);
    let left = scene.told(beat("b", STATIC_LEAVE_EPOCH).named("i"));
    assert_eq!(left, (STATIC_LEAVE_EPOCH, None));
    assert_eq!(scene.state("b"), (STATIC_LEAVE_EPOCH, Stable));
    assert_eq!((scene.assigned("b"), scene.group.epoch), (had.clone(), epoch));
    assert_eq!(scene.told(beat("a", epoch)), (epoch, None));

    let back = scene.told(join("c", &["foo"]).named("i"));
    assert_eq!(back, (epoch, Some(had)), "nobody else hears of it");
    assert_eq!(scene.group.epoch, epoch);
    assert_eq!(scene.group.members().keys().collect::<Vec<_>>(), ["a", "c"]);
    assert_eq!(scene.refused(beat("b", epoch).named("i")), GroupError::FencedInstance);
    assert_eq!(scene.refused(beat("b", LEAVE_EPOCH).named("i")), GroupError::FencedInstance);
}

#[test]
fn it_may_come_back_as_who_it_was() {
    let mut scene = two_members();
    let (had, epoch) = (scene.assigned("b"), scene.group.epoch);
    scene.told(beat("b", STATIC_LEAVE_EPOCH).named("i"));
    let stale = scene.refused(beat("b", epoch).named("i"));
    assert_eq!(stale, GroupError::FencedMemberEpoch(STATIC_LEAVE_EPOCH));
    assert_eq!(scene.told(join("b", &["foo"]).named("i")), (epoch, Some(had)));
    assert_eq!(scene.state("b"), (epoch, Stable));
}

#[test]
fn it_comes_back_to_what_became_of_the_group_meanwhile() {
    let mut scene = two_members();
    scene.told(beat("b", STATIC_LEAVE_EPOCH).named("i"));
    scene.told(beat("a", LEAVE_EPOCH));
    let all = partitions(&[(FOO, &[0, 1, 2, 3, 4, 5])]);
    assert_eq!(scene.told(join("c", &["foo"]).named("i")), (3, Some(all)));
    assert_eq!(scene.group.epoch, scene.group.target_epoch);
}

#[test]
fn who_wants_something_else_when_it_comes_back_makes_for_another_target() {
    let mut scene = Scene::new();
    scene.told(join("a", &["foo"]).named("i"));
    scene.told(beat("a", STATIC_LEAVE_EPOCH).named("i"));
    let bar = partitions(&[(BAR, &[0, 1, 2, 3, 4, 5])]);
    assert_eq!(scene.told(join("b", &["bar"]).named("i")), (2, Some(bar)));
}

#[test]
fn an_instance_id_is_one_members() {
    let mut scene = two_members();
    let epoch = scene.group.epoch;
    let taken = scene.refused(join("c", &["foo"]).named("i"));
    assert_eq!(taken, GroupError::UnreleasedInstance("i".to_owned()));
    assert_eq!(scene.refused(beat("c", epoch).named("i")), GroupError::FencedInstance);
    assert_eq!(scene.refused(beat("b", epoch).named("j")), GroupError::UnknownMember);
    assert_eq!(scene.refused(beat("c", LEAVE_EPOCH).named("i")), GroupError::FencedInstance);
    assert_eq!(scene.refused(beat("b", LEAVE_EPOCH).named("j")), GroupError::UnknownMember);
    let again = scene.told(join("b", &["foo"]).named("i"));
    assert_eq!(again.0, epoch, "the same member that did not hear the answer to its join");
}

#[test]
fn a_static_member_that_leaves_for_good_is_gone() {
    let mut scene = two_members();
    scene.told(beat("b", LEAVE_EPOCH).named("i"));
    assert_eq!(scene.group.static_member("i"), None);
    scene.settle();
    assert_eq!(scene.assigned("a")[&FOO].len(), 6);
    let (_, assignment) = scene.told(join("c", &["foo"]).named("i"));
    assert_eq!(assignment, Some(Assignment::new()), "it begins with nothing");
}

#[test]
fn what_it_was_to_give_back_is_free_when_it_leaves() {
    let mut scene = Scene::with_foo(6);
    scene.told(join("a", &["foo"]).named("i"));
    scene.told(join("b", &["foo"]));
    scene.told(beat("a", 1).named("i"));
    assert_eq!(scene.state("a"), (1, Unrevoked));
    scene.told(beat("a", STATIC_LEAVE_EPOCH).named("i"));
    let (_, got) = scene.told(beat("b", 2));
    assert_eq!(got.unwrap()[&FOO].len(), 3);
    let (epoch, kept) = scene.told(join("c", &["foo"]).named("i"));
    assert_eq!((epoch, kept.unwrap()[&FOO].len()), (2, 3));
    assert_eq!(scene.state("c"), (2, Stable));
}
