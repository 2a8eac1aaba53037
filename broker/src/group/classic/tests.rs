//! The classic protocol over a real machine, with time that passes as fast as it can.

use std::time::Duration;

use bytes::Bytes;
use odradek_protocol::id::{Offset, TopicPartition};
use odradek_storage::command::{CommittedOffset, Committer};
use tokio::task::JoinHandle;
use tokio::time::{Instant, sleep, timeout};

use super::{JoinRequest, Joined, Leaver, Phase, SyncRequest, Synced};
use crate::group::town::{House, Town};
use crate::group::{GroupCoordinator, GroupError};

const GROUP: &str = "g";

fn request(member: &str) -> JoinRequest {
    JoinRequest {
        member: member.to_owned(),
        instance_id: None,
        client_id: "client".to_owned(),
        client_host: "/127.0.0.1".to_owned(),
        session_timeout_ms: 10_000,
        rebalance_timeout_ms: 60_000,
        protocol_type: "consumer".to_owned(),
        protocols: vec![("range".to_owned(), Bytes::from_static(b"wishes"))],
        knows_member_ids: true,
        can_skip_assignment: true,
    }
}

fn stays(instance: &str) -> JoinRequest {
    JoinRequest { instance_id: Some(instance.to_owned()), ..request("") }
}

fn claim(joined: &Joined) -> Committer {
    Committer { member: joined.member.clone(), instance_id: None, generation: joined.generation }
}

/// Gets a member id and joins in the background.
async fn enter(groups: &GroupCoordinator) -> JoinHandle<Result<Joined, GroupError>> {
    let Err(GroupError::MemberIdRequired(id)) = groups.join(GROUP, request("")).await else {
        panic!("a new member is given an id first");
    };
    join(groups, request(&id))
}

fn join(groups: &GroupCoordinator, request: JoinRequest) -> JoinHandle<Result<Joined, GroupError>> {
    let groups = groups.clone();
    tokio::spawn(async move { groups.join(GROUP, request).await })
}

/// A generation in which everybody gets what is in `assignments`, in the order of `members`.
async fn sync_all(
    groups: &GroupCoordinator,
    members: &[Joined],
    assignments: &[&'static [u8]],
) -> Vec<Result<Synced, GroupError>> {
    let all: Vec<_> = members
        .iter()
        .zip(assignments)
        .map(|(member, assignment)| (member.member.clone(), Bytes::from_static(assignment)))
        .collect();
    let calls = members.iter().map(|member| {
        let assignments = if member.leader == member.member { all.clone() } else { Vec::new() };
        let request = SyncRequest {
            member: claim(member),
            protocol_type: Some("consumer".to_owned()),
            protocol: Some("range".to_owned()),
            assignments,
        };
        groups.sync(GROUP, request)
    });
    futures::future::join_all(calls).await
}

/// Two members in a stable generation, the leader first.
async fn pair(groups: &GroupCoordinator) -> [Joined; 2] {
    let first = enter(groups).await.await.unwrap().unwrap();
    sync_all(groups, std::slice::from_ref(&first), &[b"all"]).await[0].clone().unwrap();
    let second = enter(groups).await;
    rebalance_is_told(groups, &first).await;
    let first = groups.join(GROUP, request(&first.member)).await.unwrap();
    let second = second.await.unwrap().unwrap();
    assert_eq!(first.generation, second.generation);
    let pair = [first, second];
    for (synced, part) in sync_all(groups, &pair, &[b"a", b"b"]).await.into_iter().zip(["a", "b"]) {
        assert_eq!(synced.unwrap().assignment, part.as_bytes());
    }
    pair
}

async fn rebalance_is_told(groups: &GroupCoordinator, member: &Joined) {
    let told = async {
        while groups.heartbeat(GROUP, &claim(member)).await != Err(GroupError::RebalanceInProgress)
        {
            sleep(Duration::from_millis(100)).await;
        }
    };
    timeout(Duration::from_secs(60), told).await.unwrap();
}

async fn phase(groups: &GroupCoordinator) -> Phase {
    groups.describe(GROUP).await.unwrap().phase
}

async fn one_broker() -> House {
    Town::new().await.broker(1).await
}

#[tokio::test(start_paused = true)]
async fn members_join_are_assigned_and_rebalanced() {
    let broker = one_broker().await;
    let groups = &broker.groups;
    let [leader, follower] = pair(groups).await;
    assert_eq!(leader.leader, leader.member);
    assert_eq!(leader.members.len(), 2, "the leader hears of all");
    assert_eq!(follower.leader, leader.member);
    assert!(follower.members.is_empty());
    assert_eq!(groups.heartbeat(GROUP, &claim(&follower)).await, Ok(()));
    assert_eq!(phase(groups).await, Phase::Stable);
    let before = Committer { generation: leader.generation - 1, ..claim(&leader) };
    assert_eq!(groups.heartbeat(GROUP, &before).await, Err(GroupError::IllegalGeneration));
    let stranger = Committer { member: "nobody".to_owned(), ..claim(&leader) };
    assert_eq!(groups.heartbeat(GROUP, &stranger).await, Err(GroupError::UnknownMember));
}

#[tokio::test(start_paused = true)]
async fn a_follower_that_says_nothing_new_does_not_disturb_the_others() {
    let broker = one_broker().await;
    let groups = &broker.groups;
    let [leader, follower] = pair(groups).await;
    let again = groups.join(GROUP, request(&follower.member)).await.unwrap();
    assert_eq!(again.generation, follower.generation);
    let news = vec![("range".to_owned(), Bytes::from_static(b"other wishes"))];
    let changed = JoinRequest { protocols: news, ..request(&follower.member) };
    let changed = join(groups, changed);
    rebalance_is_told(groups, &leader).await;
    let leader = groups.join(GROUP, request(&leader.member)).await.unwrap();
    let follower = changed.await.unwrap().unwrap();
    assert_eq!(leader.generation, follower.generation);
    assert!(leader.generation > again.generation);
    let said = leader.members.iter().find(|(id, ..)| *id == follower.member).unwrap();
    assert_eq!(said.2, "other wishes");
}

#[tokio::test(start_paused = true)]
async fn who_leaves_is_not_waited_for() {
    let broker = one_broker().await;
    let groups = &broker.groups;
    let [leader, follower] = pair(groups).await;
    let gone = Leaver { member: leader.member.clone(), instance_id: None };
    let left = groups.leave(GROUP, vec![gone.clone(), gone]).await.unwrap();
    assert_eq!(left, [Ok(()), Err(GroupError::UnknownMember)]);
    rebalance_is_told(groups, &follower).await;
    let began = Instant::now();
    let alone = groups.join(GROUP, request(&follower.member)).await.unwrap();
    assert!(began.elapsed() < Duration::from_secs(10), "nobody is waited for");
    assert_eq!(alone.leader, follower.member);
    let gone = Leaver { member: follower.member, instance_id: None };
    groups.leave(GROUP, vec![gone]).await.unwrap();
    assert_eq!(phase(groups).await, Phase::Empty);
}

#[tokio::test(start_paused = true)]
async fn who_is_silent_is_out_after_its_session_timeout() {
    let broker = one_broker().await;
    let groups = &broker.groups;
    let [leader, follower] = pair(groups).await;
    let began = Instant::now();
    // The leader says that it lives, the follower does not.
    while groups.heartbeat(GROUP, &claim(&leader)).await == Ok(()) {
        sleep(Duration::from_secs(1)).await;
    }
    assert!(began.elapsed() >= Duration::from_secs(9), "no sooner than its session ends");
    assert_eq!(groups.heartbeat(GROUP, &claim(&follower)).await, Err(GroupError::UnknownMember));
    let alone = groups.join(GROUP, request(&leader.member)).await.unwrap();
    assert_eq!(alone.members.len(), 1);
}

#[tokio::test(start_paused = true)]
async fn who_does_not_rejoin_in_time_is_out() {
    let broker = one_broker().await;
    let groups = &broker.groups;
    let [leader, follower] = pair(groups).await;
    let third = enter(groups).await;
    rebalance_is_told(groups, &leader).await;
    // The follower goes on with heartbeats, but does not come.
    let alive = {
        let (groups, follower) = (groups.clone(), claim(&follower));
        tokio::spawn(async move {
            while groups.heartbeat(GROUP, &follower).await == Err(GroupError::RebalanceInProgress) {
                sleep(Duration::from_secs(3)).await;
            }
        })
    };
    let began = Instant::now();
    let leader = groups.join(GROUP, request(&leader.member)).await.unwrap();
    assert!(began.elapsed() >= Duration::from_secs(50), "it was given its rebalance timeout");
    assert_eq!(third.await.unwrap().unwrap().generation, leader.generation);
    assert_eq!(leader.members.len(), 2);
    alive.await.unwrap();
}

#[tokio::test(start_paused = true)]
async fn who_does_not_sync_in_time_is_out() {
    let broker = one_broker().await;
    let groups = &broker.groups;
    let [leader, follower] = pair(groups).await;
    let third = enter(groups).await;
    rebalance_is_told(groups, &leader).await;
    let rejoined = join(groups, request(&follower.member));
    let leader = groups.join(GROUP, request(&leader.member)).await.unwrap();
    rejoined.await.unwrap().unwrap();
    let third = third.await.unwrap().unwrap();
    // The leader never assigns.
    let request = SyncRequest {
        member: claim(&third),
        protocol_type: None,
        protocol: None,
        assignments: Vec::new(),
    };
    let outcome = groups.sync(GROUP, request).await;
    assert_eq!(outcome, Err(GroupError::RebalanceInProgress));
    assert_eq!(groups.heartbeat(GROUP, &claim(&leader)).await, Err(GroupError::UnknownMember));
}

#[tokio::test(start_paused = true)]
async fn a_static_member_that_comes_back_takes_its_old_place() {
    let broker = one_broker().await;
    let groups = &broker.groups;
    let first = groups.join(GROUP, stays("one")).await.unwrap();
    sync_all(groups, std::slice::from_ref(&first), &[b"all"]).await[0].clone().unwrap();
    let again = groups.join(GROUP, stays("one")).await.unwrap();
    assert_eq!(again.generation, first.generation, "no rebalance");
    assert_ne!(again.member, first.member);
    assert!(again.skip_assignment && again.leader == again.member);
    let old = Committer { instance_id: Some("one".to_owned()), ..claim(&first) };
    assert_eq!(groups.heartbeat(GROUP, &old).await, Err(GroupError::FencedInstance));
    let synced = sync_all(groups, &[Joined { leader: String::new(), ..again }], &[b""]).await;
    assert_eq!(synced[0].as_ref().unwrap().assignment, "all");
}

#[tokio::test(start_paused = true)]
async fn a_static_leader_that_can_not_skip_assigning_hears_the_old_name() {
    let broker = one_broker().await;
    let groups = &broker.groups;
    let first = groups.join(GROUP, stays("one")).await.unwrap();
    sync_all(groups, std::slice::from_ref(&first), &[b"all"]).await[0].clone().unwrap();
    let old_client = JoinRequest { can_skip_assignment: false, ..stays("one") };
    let again = groups.join(GROUP, old_client).await.unwrap();
    assert_eq!(again.leader, first.member);
    assert!(!again.skip_assignment && again.members.is_empty());
}

#[tokio::test(start_paused = true)]
async fn the_first_members_wait_for_more() {
    let mut town = Town::new().await;
    town.settings.initial_rebalance_delay = Duration::from_secs(3);
    let broker = town.broker(1).await;
    let groups = &broker.groups;
    let began = Instant::now();
    let first = enter(groups).await;
    sleep(Duration::from_secs(2)).await;
    let second = enter(groups).await;
    let (first, second) = (first.await.unwrap().unwrap(), second.await.unwrap().unwrap());
    assert_eq!(first.generation, second.generation);
    assert_eq!(first.generation, 1);
    let waited = began.elapsed();
    assert!(waited >= Duration::from_secs(6), "a newcomer draws it out: {waited:?}");
    assert!(waited < Duration::from_secs(8), "{waited:?}");
}

#[tokio::test(start_paused = true)]
async fn what_can_not_be_is_refused() {
    let mut town = Town::new().await;
    town.settings.max_size = 2;
    let broker = town.broker(1).await;
    let groups = &broker.groups;
    let hasty = JoinRequest { session_timeout_ms: 1000, ..request("") };
    assert_eq!(groups.join(GROUP, hasty).await, Err(GroupError::InvalidSessionTimeout));
    assert_eq!(groups.join("", request("")).await, Err(GroupError::InvalidGroupId));
    assert_eq!(groups.join(GROUP, request("made up")).await, Err(GroupError::UnknownMember));
    let silent = JoinRequest { protocols: Vec::new(), ..request("") };
    assert_eq!(groups.join(GROUP, silent).await, Err(GroupError::InconsistentProtocol));
    pair(groups).await;
    assert_eq!(groups.join(GROUP, request("")).await, Err(GroupError::GroupFull));
    let other = JoinRequest { protocol_type: "connect".to_owned(), ..request("") };
    assert_eq!(groups.join(GROUP, other).await, Err(GroupError::InconsistentProtocol));
    let foreign = vec![("roundrobin".to_owned(), Bytes::new())];
    let foreign = JoinRequest { protocols: foreign, ..request("") };
    assert_eq!(groups.join(GROUP, foreign).await, Err(GroupError::InconsistentProtocol));
    assert_eq!(groups.delete_group(GROUP).await, Err(GroupError::GroupNotEmpty));
    assert_eq!(groups.delete_group("x").await, Err(GroupError::UnknownGroup("x".to_owned())));
}

#[tokio::test(start_paused = true)]
async fn who_speaks_what_all_others_speak_now_is_taken_in() {
    let broker = one_broker().await;
    let groups = &broker.groups;
    let speaking = |member: &str, names: &[&str]| JoinRequest {
        protocols: names.iter().map(|name| ((*name).to_owned(), Bytes::new())).collect(),
        knows_member_ids: false,
        ..request(member)
    };
    let first = groups.join(GROUP, speaking("", &["range"])).await.unwrap();
    let sticky = || speaking("", &["sticky"]);
    assert_eq!(groups.join(GROUP, sticky()).await, Err(GroupError::InconsistentProtocol));
    let moved = speaking(&first.member, &["range", "sticky"]);
    let first = groups.join(GROUP, moved).await.unwrap();
    let second = join(groups, sticky());
    tokio::task::yield_now().await;
    let late = speaking("", &["range"]);
    assert_eq!(groups.join(GROUP, late).await, Err(GroupError::InconsistentProtocol));
    let again = join(groups, speaking(&first.member, &["sticky"]));
    assert_eq!(second.await.unwrap().unwrap().protocol, "sticky");
    assert_eq!(again.await.unwrap().unwrap().protocol, "sticky");
}

#[tokio::test(start_paused = true)]
async fn a_large_group_begins_in_parts() {
    let broker = one_broker().await;
    let groups = &broker.groups;
    let wishes = vec![("range".to_owned(), Bytes::from(vec![7; 30_000]))];
    let loud = JoinRequest { protocols: wishes, knows_member_ids: false, ..request("") };
    let first = groups.join(GROUP, loud.clone()).await.unwrap();
    let joining: Vec<_> = (0..9).map(|_| join(groups, loud.clone())).collect();
    let rejoin = JoinRequest { member: first.member.clone(), ..loud };
    sleep(Duration::from_secs(1)).await;
    let first = groups.join(GROUP, rejoin).await.unwrap();
    assert_eq!(first.members.len(), 10);
    assert!(first.members.iter().all(|(.., said)| said.len() == 30_000));
    let mut members = vec![first];
    for joined in joining {
        members.push(joined.await.unwrap().unwrap());
    }
    static LARGE: [u8; 30_000] = [9; 30_000];
    let synced = sync_all(groups, &members, &[&LARGE[..]; 10]).await;
    assert!(synced.iter().all(|it| it.as_ref().unwrap().assignment.len() == 30_000));
}

#[tokio::test(start_paused = true)]
async fn another_broker_goes_on_without_a_rebalance() {
    let town = Town::new().await;
    let first = town.broker(1).await;
    let [leader, follower] = pair(&first.groups).await;
    let topic = first.create_topic("t", 1).await;
    let partition = TopicPartition { topic, partition: 0 };
    first.kill();
    let second = town.broker(2).await;
    let groups = &second.groups;
    // Until the first is taken for dead, it is the coordinator still.
    while groups.heartbeat(GROUP, &claim(&leader)).await == Err(GroupError::NotCoordinator) {
        sleep(Duration::from_secs(1)).await;
    }
    for member in [&leader, &follower] {
        assert_eq!(groups.heartbeat(GROUP, &claim(member)).await, Ok(()));
    }
    let synced = sync_all(groups, &[leader.clone(), follower.clone()], &[b"x", b"y"]).await;
    assert_eq!(synced[1].as_ref().unwrap().assignment, "b", "what the first broker was told");
    let offset =
        CommittedOffset { partition, offset: Offset(5), leader_epoch: -1, metadata: String::new() };
    let commit = |member: Committer| groups.commit(GROUP, Some(member), None, vec![offset.clone()]);
    assert_eq!(commit(claim(&leader)).await, Ok(()));
    let old = Committer { generation: leader.generation - 1, ..claim(&leader) };
    assert_eq!(commit(old).await, Err(GroupError::IllegalGeneration));
    // Timers were set anew: who stays silent now is out.
    while groups.heartbeat(GROUP, &claim(&leader)).await == Ok(()) {
        sleep(Duration::from_secs(1)).await;
    }
    let alone = groups.join(GROUP, request(&leader.member)).await.unwrap();
    assert_eq!(alone.generation, leader.generation + 1);
}

#[tokio::test(start_paused = true)]
async fn only_the_coordinator_answers() {
    let town = Town::new().await;
    let brokers = [town.broker(1).await, town.broker(2).await];
    sleep(Duration::from_secs(5)).await;
    let mut answers = Vec::new();
    for broker in &brokers {
        answers.push(broker.groups.join(GROUP, request("")).await.unwrap_err());
    }
    let is_office = |error: &GroupError| matches!(error, GroupError::MemberIdRequired(_));
    assert_eq!(answers.iter().filter(|it| is_office(it)).count(), 1, "{answers:?}");
    assert!(answers.contains(&GroupError::NotCoordinator), "{answers:?}");
}

#[tokio::test(start_paused = true)]
async fn positions_expire_once_a_group_was_left() {
    let broker = one_broker().await;
    let groups = &broker.groups;
    let topic = broker.create_topic("t", 1).await;
    let offset = CommittedOffset {
        partition: TopicPartition { topic, partition: 0 },
        offset: Offset(5),
        leader_epoch: -1,
        metadata: String::new(),
    };
    let has = || broker.engine.machine.read(|it| it.groups().get(GROUP).is_some());
    let later = || async {
        // Log time moves with entries, some minutes with each.
        for _ in 0..20 {
            sleep(Duration::from_secs(600)).await;
            broker.create_topic(&broker.engine.machine.new_uuid().to_string(), 1).await;
        }
    };
    groups.commit(GROUP, None, None, vec![offset.clone()]).await.unwrap();
    groups.expire_offsets(3_600_000).await;
    assert!(has());
    later().await;
    groups.expire_offsets(3_600_000).await;
    assert!(!has(), "nothing is left of the group");
    let first = groups.join(GROUP, stays("one")).await.unwrap();
    groups.commit(GROUP, None, None, vec![offset]).await.unwrap_err();
    let gone = Leaver { member: first.member, instance_id: None };
    groups.leave(GROUP, vec![gone]).await.unwrap();
    groups.expire_offsets(3_600_000).await;
    assert!(has(), "a group that was left is kept for a while");
    later().await;
    groups.expire_offsets(3_600_000).await;
    assert!(!has());
}
