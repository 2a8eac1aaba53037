//! The rules find what is wrong: anomalies, planted in a history that has none.

use odradek_tests::groups::history::{Call, What};
use odradek_tests::groups::rules::check;

/// A call of a member, done from one moment to another.
fn call(member: &str, (began, ended): (u64, u64), what: What) -> Call {
    let instance = member.strip_prefix("static-").map(|it| it[..1].to_owned());
    Call {
        group: "g".to_owned(),
        member: member.to_owned(),
        instance,
        began,
        ended,
        is_done: true,
        what,
    }
}

fn join(generation: i32) -> What {
    What::Join { generation }
}

fn sync(generation: i32, partitions: &[i32]) -> What {
    What::Sync { generation, partitions: partitions.to_vec() }
}

fn heartbeat(generation: i32) -> What {
    What::Heartbeat { generation }
}

fn commit(generation: i32, partition: i32, offset: i64) -> What {
    What::Commit { generation, partition, offset, metadata: offset.to_string() }
}

fn read(partition: i32, offset: Option<i64>) -> What {
    What::Read { partition, position: offset.map(|offset| (offset, offset.to_string())) }
}

fn turn((said, epoch): (i32, i32), owned: &[i32], partitions: &[i32]) -> What {
    What::Turn { said, epoch, owned: owned.to_vec(), partitions: partitions.to_vec() }
}

/// Two members live through two generations, and partition 0 goes from one to the other.
fn classic() -> Vec<Call> {
    vec![
        call("a", (1, 10), join(1)),
        call("b", (2, 11), join(1)),
        call("a", (12, 20), sync(1, &[0])),
        call("b", (13, 21), sync(1, &[1])),
        call("a", (22, 23), read(0, None)),
        call("a", (24, 26), commit(1, 0, 5)),
        call("b", (25, 27), heartbeat(1)),
        call("a", (30, 40), join(2)),
        call("b", (31, 41), join(2)),
        call("a", (42, 50), sync(2, &[1])),
        call("b", (43, 51), sync(2, &[0])),
        call("b", (52, 53), read(0, Some(5))),
        call("b", (54, 55), commit(2, 0, 9)),
        call("a", (56, 57), heartbeat(2)),
        call("static-x1", (58, 59), join(2)),
        call("static-x1", (60, 61), heartbeat(2)),
        call("static-x2", (62, 64), join(2)),
    ]
}

/// A member is alone, another comes, and partition 1 goes from the one to the other.
fn consumer() -> Vec<Call> {
    vec![
        call("a", (1, 2), turn((0, 1), &[], &[0, 1])),
        call("a", (3, 4), commit(1, 1, 5)),
        call("b", (5, 6), turn((0, 2), &[], &[])),
        call("a", (7, 8), turn((1, 1), &[0, 1], &[0])),
        call("a", (9, 10), turn((1, 2), &[0], &[0])),
        call("b", (11, 12), turn((2, 2), &[], &[1])),
        call("b", (13, 14), read(1, Some(5))),
        call("b", (15, 16), commit(2, 1, 7)),
        call("a", (17, 18), turn((2, 2), &[0], &[0])),
        call("b", (19, 20), turn((2, 2), &[1], &[1])),
    ]
}

/// What is wrong with a history once a call was added to it.
fn broken(mut history: Vec<Call>, planted: Call) -> Vec<&'static str> {
    assert_eq!(check(&history), [], "nothing is wrong without the anomaly");
    history.push(planted);
    history.sort_by_key(|call| call.ended);
    let mut rules: Vec<_> = check(&history).into_iter().map(|it| it.rule).collect();
    rules.dedup();
    rules
}

#[test]
fn a_position_older_than_one_that_was_acknowledged_is_found() {
    assert_eq!(broken(classic(), call("a", (70, 71), read(0, Some(5)))), ["R18"]);
    assert_eq!(broken(classic(), call("a", (70, 71), read(0, None))), ["R18"]);
    // Before the newer one was acknowledged it was right.
    assert!(broken(classic(), call("a", (53, 71), read(0, Some(5)))).is_empty());
    assert_eq!(broken(consumer(), call("a", (70, 71), read(1, Some(5)))), ["R18"]);
}

#[test]
fn a_position_that_nobody_sent_is_found() {
    assert_eq!(broken(classic(), call("a", (70, 71), read(0, Some(77)))), ["R18"]);
    let mut lost = call("b", (65, 66), commit(2, 0, 77));
    lost.is_done = false;
    let history = || classic().into_iter().chain([lost.clone()]).collect();
    assert!(broken(history(), call("a", (70, 71), read(0, Some(77)))).is_empty());
}

#[test]
fn a_partition_with_two_owners_in_a_generation_is_found() {
    assert_eq!(broken(classic(), call("a", (56, 71), sync(2, &[0]))), ["G1"]);
    assert_eq!(broken(classic(), call("b", (14, 22), sync(1, &[0, 1]))), ["G1"]);
    // A static member that came back is the same owner.
    let own = call("static-x1", (60, 63), sync(2, &[7]));
    let history = || classic().into_iter().chain([own.clone()]).collect();
    assert!(broken(history(), call("static-x2", (65, 66), sync(2, &[7]))).is_empty());
}

#[test]
fn an_answer_for_an_old_generation_is_found() {
    assert_eq!(broken(classic(), call("b", (42, 71), heartbeat(1))), ["G2"]);
    assert_eq!(broken(classic(), call("b", (42, 71), sync(1, &[1]))), ["G2"]);
    assert_eq!(broken(classic(), call("b", (70, 71), join(1))), ["G2"]);
    // It began before anybody knew of the new one.
    assert!(broken(classic(), call("b", (39, 71), heartbeat(1))).is_empty());
    assert_eq!(broken(consumer(), call("a", (70, 71), turn((1, 1), &[0], &[0]))), ["G2"]);
}

#[test]
fn a_commit_in_an_old_generation_is_found() {
    assert_eq!(broken(classic(), call("a", (42, 71), commit(1, 0, 99))), ["G3"]);
    assert!(broken(classic(), call("a", (39, 71), commit(1, 0, 99))).is_empty());
    assert_eq!(broken(consumer(), call("a", (21, 22), commit(1, 0, 99))), ["G3"]);
    // The partition went to another.
    assert_eq!(broken(consumer(), call("a", (21, 22), commit(2, 1, 99))), ["G3"]);
    assert!(broken(consumer(), call("a", (21, 22), commit(2, 0, 99))).is_empty());
}

#[test]
fn a_partition_that_two_members_of_the_consumer_protocol_hold_is_found() {
    // Another hears that it has the partition, and then the one who has it hears it again.
    let other = call("c", (21, 22), turn((0, 3), &[], &[1]));
    let history = || consumer().into_iter().chain([other.clone()]).collect();
    let again = call("b", (23, 24), turn((2, 2), &[1], &[1]));
    assert_eq!(broken(history(), again), ["G1"]);
    // Unless it has given it back.
    assert!(broken(history(), call("b", (23, 24), turn((2, 2), &[], &[]))).is_empty());
    let mut gives_back = call("b", (20, 21), turn((2, 2), &[], &[]));
    gives_back.is_done = false;
    let history = || consumer().into_iter().chain([gives_back.clone(), other.clone()]).collect();
    assert!(broken(history(), call("c", (23, 24), turn((3, 3), &[1], &[1]))).is_empty());
}

#[test]
fn a_static_member_that_was_replaced_and_lives_on_is_found() {
    assert_eq!(broken(classic(), call("static-x1", (70, 71), heartbeat(2))), ["KIP-345"]);
    assert_eq!(broken(classic(), call("static-x1", (70, 71), commit(2, 5, 1))), ["KIP-345"]);
    assert!(broken(classic(), call("static-x1", (63, 71), heartbeat(2))).is_empty());
    assert!(broken(classic(), call("static-x2", (70, 71), heartbeat(2))).is_empty());
}
