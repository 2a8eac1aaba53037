//! Who may speak, and with which epoch, after Kafka's `GroupMetadataManagerTest`.

use super::*;
use MemberState::{UnreleasedPartitions as Unreleased, UnrevokedPartitions as Unrevoked};

/// A group of `a`, whose epoch went from 1 to 2 when `foo` grew.
fn at_the_second_epoch() -> Scene {
    let mut scene = Scene::with_foo(2);
    scene.told(join("a", &["foo"]));
    scene.topics.insert("foo", (FOO, 3));
    scene.told(beat("a", 1));
    assert_eq!(scene.member("a").current.previous_epoch, 1);
    scene
}

#[test]
fn requests_that_contradict_themselves_are_refused() {
    let good = || join("a", &["foo"]);
    let regex = || ConsumerHeartbeat { topics: None, regex: Some("f.*".to_owned()), ..good() };
    for heartbeat in [good(), regex(), beat("a", 1), beat("a", -1), beat("a", -2).named("i")] {
        assert_eq!(turn::check(&heartbeat), Ok(()));
    }
    let nothing = || Some(String::new());
    let bad = [
        ConsumerHeartbeat { member: String::new(), ..good() },
        ConsumerHeartbeat { instance_id: nothing(), ..good() },
        ConsumerHeartbeat { rack_id: nothing(), ..good() },
        ConsumerHeartbeat { rebalance_timeout_ms: None, ..good() },
        ConsumerHeartbeat { owned: None, ..good() },
        good().owning(&partitions(&[(FOO, &[0])])),
        ConsumerHeartbeat { topics: None, ..good() },
        beat("", 1),
        beat("", -1),
        beat("a", -2),
        beat("a", -3),
    ];
    for heartbeat in bad {
        let refused = turn::check(&heartbeat).unwrap_err();
        assert!(matches!(refused, GroupError::InvalidRequest(_)), "{heartbeat:?}: {refused}");
    }
    let unknown = turn::check(&good().preferring("best"));
    assert_eq!(unknown, Err(GroupError::UnsupportedAssignor("best".to_owned())));
}

#[test]
fn strangers_are_not_heard() {
    let mut scene = at_the_second_epoch();
    assert_eq!(scene.refused(beat("b", 2)), GroupError::UnknownMember);
    assert_eq!(scene.refused(beat("b", LEAVE_EPOCH)), GroupError::UnknownMember);
}

#[test]
fn an_epoch_that_is_not_the_members_is_fenced() {
    let mut scene = at_the_second_epoch();
    let fenced = || GroupError::FencedMemberEpoch(2);
    assert_eq!(scene.refused(beat("a", 3)), fenced());
    assert_eq!(scene.refused(beat("a", 1)), fenced(), "it does not say what it has");
    let too_much = partitions(&[(FOO, &[0, 7])]);
    assert_eq!(scene.refused(beat("a", 1).owning(&too_much)), fenced());
    let other = partitions(&[(BAR, &[0])]);
    assert_eq!(scene.refused(beat("a", 1).owning(&other)), fenced());
}

#[test]
fn who_missed_the_answer_with_its_new_epoch_may_ask_again() {
    let mut scene = at_the_second_epoch();
    let owned = partitions(&[(FOO, &[0, 1])]);
    let full = ConsumerHeartbeat { epoch: 1, ..join("a", &["foo"]) };
    let everything = partitions(&[(FOO, &[0, 1, 2])]);
    assert_eq!(scene.told(full.owning(&owned)), (2, Some(everything)));
    assert_eq!(scene.told(beat("a", 1).owning(&owned)), (2, None));
    assert_eq!(scene.group.epoch, 2);
}

#[test]
fn who_missed_the_answer_to_its_join_may_join_again() {
    let mut scene = Scene::with_foo(2);
    let first = scene.told(join("a", &["foo"]));
    let before = scene.group.clone();
    assert_eq!(scene.told(join("a", &["foo"])), first);
    assert_eq!(scene.group, before);
}

#[test]
fn a_fenced_member_joins_again_whatever_it_was_doing() {
    let mut scene = at_the_second_epoch();
    let everything = Some(partitions(&[(FOO, &[0, 1, 2])]));
    assert_eq!(scene.told(join("a", &["foo"])), (2, everything), "it was stable");

    scene.told(join("b", &["foo"]));
    assert_eq!(scene.state("b").1, Unreleased);
    assert_eq!(scene.told(join("b", &["foo"])), (3, Some(Assignment::new())), "it was waiting");

    let (_, left) = scene.told(beat("a", 2));
    assert_eq!(scene.state("a").1, Unrevoked);
    assert_eq!(scene.told(join("a", &["foo"])), (3, left), "it was to give back");
    assert_eq!(scene.group.epoch, 3, "it wants what it wanted");
}

#[test]
fn a_full_group_takes_nobody_in() {
    let mut scene = Scene::with_foo(2);
    scene.max_size = 2;
    scene.told(join("a", &["foo"]));
    scene.told(join("b", &["foo"]).named("i"));
    assert_eq!(scene.refused(join("c", &["foo"])), GroupError::GroupFull);
    scene.told(join("a", &["foo"]));
    scene.told(beat("b", STATIC_LEAVE_EPOCH).named("i"));
    scene.told(join("c", &["foo"]).named("i"));
    assert_eq!(scene.group.members().keys().collect::<Vec<_>>(), ["a", "c"]);
}

#[test]
fn what_a_member_leaves_out_stays_as_it_was() {
    let mut scene = Scene::with_foo(2);
    let said = ConsumerHeartbeat {
        rack_id: Some("r".to_owned()),
        regex: Some("b.*".to_owned()),
        ..join("a", &["foo"]).named("i").preferring("range")
    };
    scene.told(said);
    let before = scene.member("a").subscription.clone();
    assert_eq!(before.rebalance_timeout_ms, 10_000);
    scene.told(beat("a", 1));
    assert_eq!(scene.member("a").subscription, before);
    scene.told(ConsumerHeartbeat { regex: Some(String::new()), ..beat("a", 1) });
    assert_eq!(scene.member("a").subscription.regex, None, "an empty one takes it back");
    let moved = ConsumerHeartbeat { client_host: "/10.0.0.1".to_owned(), ..beat("a", 2) };
    let epoch = scene.group.epoch;
    scene.told(moved);
    assert_eq!(scene.member("a").subscription.client_host, "/10.0.0.1");
    assert_eq!(scene.group.epoch, epoch, "where it comes from has nothing to do with it");
}
