//! What happens to groups when their coordinator goes, step by step.

use std::collections::BTreeMap;
use std::time::Duration;

use bytes::Bytes;
use odradek::group::GroupError;
use odradek::group::classic::{JoinRequest, SyncRequest};
use odradek_protocol::id::{Offset, TopicId, TopicPartition};
use odradek_storage::command::{Command, CommittedOffset, Committer, Outcome};
use odradek_storage::log::faulty::LogFaults;
use odradek_storage::object::faulty::Faults;
use odradek_tests::groups::broker::{Broker, Site};
use odradek_tests::groups::history::What;
use odradek_tests::groups::{GroupPlan, Plan, Protocol, World, group_name, paused};
use tokio::time::sleep;
use uuid::Uuid;

const PARTITION: TopicPartition =
    TopicPartition { topic: TopicId(Uuid::from_u128(7)), partition: 0 };

fn group(protocol: Protocol) -> GroupPlan {
    GroupPlan {
        protocol,
        members: 10,
        static_members: 3,
        partitions: 25,
        session_timeout: Duration::from_secs(10),
        rebalance_timeout: Duration::from_secs(20),
        commit_interval_max: Duration::from_secs(4),
    }
}

/// A world in which nothing goes wrong by itself.
fn quiet() -> Plan {
    Plan {
        seed: 1,
        groups: vec![group(Protocol::Classic), group(Protocol::Consumer)],
        brokers: 3,
        duration: Duration::from_secs(3600),
        log_faults: LogFaults::default(),
        object_faults: Faults::default(),
        peers_lost: 0.0,
        requests_lost: 0.0,
        mishaps: Vec::new(),
        mishap_interval: Duration::ZERO,
        life: Duration::ZERO,
    }
}

/// Where another broker is started when a coordinator was killed.
#[derive(Clone, Copy, Debug)]
enum Successor {
    Nowhere,
    SamePlace,
    OtherPlace,
}

/// Kills the coordinator of a group, and sees that no group notices.
async fn kill_coordinator(number: usize, successor: Successor) {
    let mut world = World::begin(quiet()).await;
    let before = world.settle().await;
    let victim = world.coordinator(&group_name(number));
    let calls = world.history().calls().len();
    world.kill(&victim);
    match successor {
        Successor::Nowhere => {}
        Successor::SamePlace => world.start_broker(victim.place).await,
        Successor::OtherPlace => world.start_broker(99).await,
    }
    sleep(Duration::from_secs(60)).await;
    assert_eq!(world.settle().await, before, "{successor:?}");
    let calls = &world.history().calls()[calls..];
    let joins = |what: &What| matches!(what, What::Join { .. } | What::Turn { said: 0, .. });
    assert!(!calls.iter().any(|call| joins(&call.what)), "{successor:?}: a member joined again");
    let commits = calls.iter().filter(|call| matches!(call.what, What::Commit { .. }));
    assert!(commits.filter(|call| call.is_done).count() > 100);
}

#[test]
fn members_keep_generation_and_assignment_when_their_coordinator_is_killed() {
    for number in 0..2 {
        for successor in [Successor::Nowhere, Successor::SamePlace, Successor::OtherPlace] {
            paused(kill_coordinator(number, successor));
        }
    }
}

/// A member that is alone in its group, as the coordinator knows it.
async fn join_alone(coordinator: &Broker, group: &str) -> Committer {
    let request = JoinRequest {
        member: String::new(),
        instance_id: None,
        client_id: "client".to_owned(),
        client_host: "/127.0.0.1".to_owned(),
        session_timeout_ms: 60_000,
        rebalance_timeout_ms: 60_000,
        protocol_type: "consumer".to_owned(),
        protocols: vec![("range".to_owned(), Bytes::new())],
        knows_member_ids: false,
        can_skip_assignment: false,
    };
    let joined = coordinator.groups.join(group, request).await.unwrap();
    let member = Committer {
        member: joined.member.clone(),
        instance_id: None,
        generation: joined.generation,
    };
    let sync = SyncRequest {
        member: member.clone(),
        protocol_type: None,
        protocol: None,
        assignments: vec![(joined.member, Bytes::from_static(b"all"))],
    };
    coordinator.groups.sync(group, sync).await.unwrap();
    member
}

async fn commit(
    broker: Broker,
    group: &'static str,
    member: Committer,
    offset: i64,
) -> Result<(), GroupError> {
    let committed = CommittedOffset {
        partition: PARTITION,
        offset: Offset(offset),
        leader_epoch: 0,
        metadata: String::new(),
    };
    broker.groups.commit(group, Some(member), None, vec![committed]).await
}

/// Two brokers and a topic; first the one that coordinates the group.
async fn two_brokers(group: &str) -> (Broker, Broker) {
    let site = Site::new(1, 0.0);
    let one = Broker::start(&site, 1, 1, 1, LogFaults::default()).await;
    let two = Broker::start(&site, 2, 2, 2, LogFaults::default()).await;
    let create = Command::CreateTopic {
        topic: PARTITION.topic,
        name: "topic".to_owned(),
        partitions: 1,
        replication_factor: 1,
        configs: BTreeMap::new(),
    };
    assert_eq!(two.engine.machine.propose(create).await, Ok(Outcome::Done));
    let coordinator = two.engine.machine.read(|state| state.coordinator_of(group));
    if coordinator == Some(one.node()) { (one, two) } else { (two, one) }
}

/// A commit that waits for the log on a broker that can't reach it; its client turns to the next
/// coordinator and commits again, further on. Whenever the first broker comes back, what it still
/// has of the first commit is worth nothing.
#[test]
fn a_commit_that_comes_late_is_not_made_over_a_newer_one() {
    paused(async {
        let (old, new) = two_brokers("g").await;
        let member = join_alone(&old, "g").await;
        assert_eq!(commit(old.clone(), "g", member.clone(), 4).await, Ok(()));
        let cut_off = old.clone();
        tokio::spawn(async move { cut_off.lose_log(Duration::from_secs(20)).await });
        sleep(Duration::from_secs(1)).await;
        let late = tokio::spawn(commit(old.clone(), "g", member.clone(), 5));
        let office = || new.engine.machine.read(|state| state.coordinator_of("g"));
        while office() != Some(new.node()) {
            sleep(Duration::from_millis(100)).await;
        }
        assert_eq!(commit(new.clone(), "g", member, 6).await, Ok(()));
        assert!(late.await.unwrap().is_err(), "it was not made");
        while office() == Some(new.node()) {
            sleep(Duration::from_millis(100)).await;
        }
        old.engine.machine.barrier().await.unwrap();
        let position = old.engine.machine.read(|state| {
            let positions = state.groups().positions("g").unwrap();
            positions.get(&PARTITION).map(|position| position.offset)
        });
        assert_eq!(position, Some(Offset(6)));
    });
}

/// A broker that can't reach the log says that all is well as long as it knows that it is: not when
/// another may have taken its office.
#[test]
fn a_coordinator_without_a_lease_does_not_say_that_a_member_lives() {
    paused(async {
        let (old, new) = two_brokers("g").await;
        let member = join_alone(&old, "g").await;
        let cut_off = old.clone();
        tokio::spawn(async move { cut_off.lose_log(Duration::from_secs(60)).await });
        let took_office = || {
            let coordinator = new.engine.machine.read(|state| state.coordinator_of("g"));
            coordinator == Some(new.node())
        };
        let mut trusted = 0;
        while !took_office() {
            sleep(Duration::from_millis(100)).await;
            trusted += usize::from(old.groups.heartbeat("g", &member).await.is_ok());
        }
        assert!(trusted > 50, "it is trusted for a while");
        let answer = new.groups.heartbeat("g", &member).await;
        assert_eq!(answer, Ok(()), "the next one knows the member");
        for _ in 0..100 {
            sleep(Duration::from_millis(100)).await;
            let answer = old.groups.heartbeat("g", &member).await;
            assert_eq!(answer, Err(GroupError::NotAvailable));
        }
    });
}
