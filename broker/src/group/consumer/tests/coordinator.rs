//! Groups in the log: coordinators over real machines, with time that passes as fast as it can.

use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use odradek_protocol::id::{Offset, TopicPartition};
use odradek_storage::clock::ManualClock;
use odradek_storage::command::{BrokerAddress, Command, CommittedOffset, Committer};
use odradek_storage::engine::Ports;
use odradek_storage::log::faulty::{FaultyLog, LogFaults};
use odradek_storage::log::memory::MemoryLog;
use odradek_storage::machine::{Machine, MachineConfig};
use odradek_storage::object::memory::MemoryObjectStore;
use odradek_storage::peer::NoPeers;
use odradek_storage::state::groups::Group;
use tokio::time::{Instant, sleep};

use super::*;
use crate::group::GroupSettings;
use crate::group::classic::{JoinRequest, Leaver};
use crate::group::town::{House, Town};
use crate::group::{GroupCoordinator, consumer::ConsumerHeartbeatAnswer};

const GROUP: &str = "g";

/// How often members speak.
const INTERVAL: Duration = Duration::from_secs(5);

/// A client that does what it is told.
struct Client {
    id: &'static str,
    epoch: i32,
    owned: Assignment,
}

impl Client {
    async fn joining(groups: &GroupCoordinator, heartbeat: ConsumerHeartbeat) -> Self {
        let id = Box::leak(heartbeat.member.clone().into_boxed_str());
        let answer = groups.consumer_heartbeat(GROUP, heartbeat).await.unwrap();
        let owned = answer.assignment.expect("who joins is told what it has");
        Self { id, epoch: answer.epoch, owned }
    }

    async fn join(groups: &GroupCoordinator, id: &str, topics: &[&str]) -> Self {
        Self::joining(groups, join(id, topics)).await
    }

    /// Says what it has, and takes what it is given.
    async fn beat(&mut self, groups: &GroupCoordinator) {
        let heartbeat = beat(self.id, self.epoch).owning(&self.owned);
        let answer = groups.consumer_heartbeat(GROUP, heartbeat).await.unwrap();
        self.take(answer);
    }

    fn take(&mut self, answer: ConsumerHeartbeatAnswer) {
        self.epoch = answer.epoch;
        self.owned = answer.assignment.unwrap_or_else(|| self.owned.clone());
    }

    fn count(&self) -> usize {
        self.owned.values().map(BTreeSet::len).sum()
    }
}

fn group(machine: &Machine) -> ConsumerGroup {
    machine.read(|state| state.groups().get(GROUP).and_then(Group::consumer).cloned()).unwrap()
}

fn members(machine: &Machine) -> Vec<String> {
    group(machine).members().keys().cloned().collect()
}

/// Lets clients speak until they have as many partitions as this, each at its usual pace.
async fn share(groups: &GroupCoordinator, clients: &mut [&mut Client], counts: &[usize]) {
    for _ in 0..10 {
        for client in clients.iter_mut() {
            client.beat(groups).await;
        }
        if clients.iter().map(|client| client.count()).eq(counts.iter().copied()) {
            return;
        }
        sleep(INTERVAL).await;
    }
    panic!("{:?}", clients.iter().map(|client| &client.owned).collect::<Vec<_>>());
}

/// Another broker in place of one that is killed, some time later.
async fn replace(town: &Town, first: &House) -> House {
    first.kill();
    sleep(Duration::from_secs(20)).await;
    let second = town.broker(2).await;
    while second.groups.check_office(GROUP).await.is_err() {
        sleep(Duration::from_millis(100)).await;
    }
    second
}

async fn broker() -> House {
    let house = Town::new().await.broker(1).await;
    house.create_topic("foo", 6).await;
    house
}

#[tokio::test(start_paused = true)]
async fn members_come_share_and_go() {
    let House { engine, groups } = broker().await;
    let mut a = Client::join(&groups, "a", &["foo"]).await;
    assert_eq!((a.epoch, a.count()), (1, 6));
    let mut b = Client::join(&groups, "b", &["foo"]).await;
    assert_eq!((b.epoch, b.count()), (2, 0));
    share(&groups, &mut [&mut a, &mut b], &[3, 3]).await;
    assert_eq!((a.epoch, b.epoch, group(&engine.machine).phase()), (2, 2, "Stable"));
    groups.consumer_heartbeat(GROUP, beat("b", LEAVE_EPOCH)).await.unwrap();
    share(&groups, &mut [&mut a], &[6]).await;
    groups.consumer_heartbeat(GROUP, beat("a", LEAVE_EPOCH)).await.unwrap();
    assert_eq!(group(&engine.machine).phase(), "Empty");
    let a = Client::join(&groups, "a", &["foo"]).await;
    assert_eq!((a.epoch, a.count()), (5, 6), "epochs go on");
}

#[tokio::test(start_paused = true)]
async fn a_heartbeat_that_changes_nothing_is_not_written() {
    let House { engine, groups } = broker().await;
    let mut a = Client::join(&groups, "a", &["foo"]).await;
    let revision =
        || engine.machine.read(|state| state.groups().get(GROUP).map(|group| group.revision));
    let before = revision();
    for _ in 0..5 {
        a.beat(&groups).await;
    }
    assert_eq!(revision(), before);
}

#[tokio::test(start_paused = true)]
async fn who_is_silent_is_out_and_who_is_not_is_not() {
    let House { engine, groups } = broker().await;
    let mut a = Client::join(&groups, "a", &["foo"]).await;
    let silent = [join("b", &["foo"]), join("c", &["foo"]).named("i")];
    for heartbeat in silent {
        Client::joining(&groups, heartbeat).await;
    }
    for _ in 0..8 {
        sleep(INTERVAL).await;
        a.beat(&groups).await;
        assert_eq!(members(&engine.machine).len(), 3);
    }
    while members(&engine.machine).len() > 1 {
        sleep(INTERVAL).await;
        a.beat(&groups).await;
    }
    share(&groups, &mut [&mut a], &[6]).await;
    sleep(GroupSettings::default().consumer_session_timeout * 2).await;
    assert!(members(&engine.machine).is_empty());
    let unknown = groups.consumer_heartbeat(GROUP, beat("a", a.epoch)).await;
    assert_eq!(unknown, Err(GroupError::UnknownMember));
}

#[tokio::test(start_paused = true)]
async fn who_spoke_while_others_were_at_work_is_not_out() {
    let House { engine, groups } = broker().await;
    Client::join(&groups, "a", &["foo"]).await;
    let at_work = groups.enter(GROUP).await.unwrap();
    sleep(GroupSettings::default().consumer_session_timeout + INTERVAL).await;
    // The end of its session has been noticed, and waits; and so does what it says.
    let (spoken, speaking) = (groups.clone(), beat("a", 1));
    let spoken = tokio::spawn(async move { spoken.consumer_heartbeat(GROUP, speaking).await });
    sleep(INTERVAL).await;
    drop(at_work);
    assert!(spoken.await.unwrap().is_ok());
    while !members(&engine.machine).is_empty() {
        sleep(INTERVAL).await;
    }
}

#[tokio::test(start_paused = true)]
async fn who_keeps_what_others_are_to_have_is_out() {
    let House { engine, groups } = broker().await;
    Client::join(&groups, "a", &["foo"]).await;
    let mut b = Client::join(&groups, "b", &["foo"]).await;
    // It speaks, but never says that it gave anything back; ten seconds are given to it.
    let told = groups.consumer_heartbeat(GROUP, beat("a", 1)).await.unwrap();
    assert_eq!(told.assignment.unwrap()[&topic(&engine.machine)].len(), 3);
    sleep(INTERVAL).await;
    assert!(groups.consumer_heartbeat(GROUP, beat("a", 1)).await.is_ok());
    sleep(INTERVAL * 2).await;
    assert_eq!(members(&engine.machine), ["b"]);
    let refused = groups.consumer_heartbeat(GROUP, beat("a", 1)).await;
    assert_eq!(refused, Err(GroupError::UnknownMember));
    share(&groups, &mut [&mut b], &[6]).await;
}

fn topic(machine: &Machine) -> TopicId {
    machine.read(|state| state.topic_by_name("foo").unwrap().id)
}

#[tokio::test(start_paused = true)]
async fn a_static_member_that_does_not_come_back_is_out() {
    let House { engine, groups } = broker().await;
    let mut a = Client::join(&groups, "a", &["foo"]).await;
    let b = Client::joining(&groups, join("b", &["foo"]).named("i")).await;
    let leaving = beat("b", STATIC_LEAVE_EPOCH).named("i");
    assert_eq!(groups.consumer_heartbeat(GROUP, leaving).await.unwrap().epoch, -2);
    assert_eq!((b.epoch, members(&engine.machine).len()), (2, 2));
    while members(&engine.machine).len() > 1 {
        sleep(INTERVAL).await;
        a.beat(&groups).await;
    }
    share(&groups, &mut [&mut a], &[6]).await;
}

#[tokio::test(start_paused = true)]
async fn an_answer_that_got_lost_is_given_again() {
    let House { groups, .. } = broker().await;
    let hear = |heartbeat| groups.consumer_heartbeat(GROUP, heartbeat);
    let first = hear(join("a", &["foo"])).await;
    assert_eq!(hear(join("a", &["foo"])).await, first);
    let mut a = Client::join(&groups, "a", &["foo"]).await;
    hear(join("b", &["foo"])).await.unwrap();
    a.beat(&groups).await;
    let confirms = || beat("a", 1).owning(&a.owned);
    assert_eq!(hear(confirms()).await.unwrap().epoch, 2);
    assert_eq!(hear(confirms()).await.unwrap().epoch, 2);
}

#[tokio::test(start_paused = true)]
async fn another_broker_takes_over_with_everybody_in_place() {
    let town = Town::new().await;
    let first = town.broker(1).await;
    first.create_topic("foo", 6).await;
    let mut a = Client::join(&first.groups, "a", &["foo"]).await;
    let mut b = Client::join(&first.groups, "b", &["foo"]).await;
    let mut silent = Client::join(&first.groups, "c", &["foo"]).await;
    share(&first.groups, &mut [&mut a, &mut b, &mut silent], &[2, 2, 2]).await;
    let session_end = Instant::now() + town.settings.consumer_session_timeout;
    let second = replace(&town, &first).await;
    let (had, epoch) = (a.owned.clone(), a.epoch);
    a.beat(&second.groups).await;
    b.beat(&second.groups).await;
    assert_eq!((&a.owned, a.epoch), (&had, epoch));
    while Instant::now() < session_end {
        sleep(INTERVAL).await;
        a.beat(&second.groups).await;
        b.beat(&second.groups).await;
    }
    assert_eq!(members(&second.engine.machine), ["a", "b", "c"], "all have a session anew");
    share(&second.groups, &mut [&mut a, &mut b], &[3, 3]).await;
}

#[tokio::test(start_paused = true)]
async fn a_rebalance_goes_on_at_another_broker() {
    let town = Town::new().await;
    let first = town.broker(1).await;
    first.create_topic("foo", 6).await;
    let patient = ConsumerHeartbeat { rebalance_timeout_ms: Some(30_000), ..join("a", &["foo"]) };
    let mut a = Client::joining(&first.groups, patient).await;
    Client::join(&first.groups, "b", &["foo"]).await;
    a.beat(&first.groups).await;
    assert_eq!((a.epoch, a.count()), (1, 3), "it is to give back");
    let given_until = Instant::now() + Duration::from_secs(30);
    let second = replace(&town, &first).await;
    // It speaks, and keeps what it has; the time for that begins anew.
    let keeps = || second.groups.consumer_heartbeat(GROUP, beat("a", 1));
    while Instant::now() < given_until {
        assert!(keeps().await.is_ok());
        sleep(INTERVAL).await;
    }
    // Nor is it waited for much longer, though offices change once more as the first broker goes.
    while keeps().await.is_ok() {
        assert!(given_until.elapsed() < Duration::from_secs(60));
        sleep(INTERVAL).await;
    }
    assert!(!members(&second.engine.machine).contains(&"a".to_owned()));
}

#[tokio::test(start_paused = true)]
async fn topics_that_match_are_found_when_they_come() {
    let house = broker().await;
    let House { groups, .. } = &house;
    let by_regex = |id, regex: &str| {
        let regex = Some(regex.to_owned());
        ConsumerHeartbeat { topics: None, regex, ..join(id, &[]) }
    };
    let mut a = Client::joining(groups, by_regex("a", "fo+|log-.*")).await;
    assert_eq!(a.count(), 6);
    let log = house.create_topic("log-1", 2).await;
    house.create_topic("blog-1", 2).await;
    share(groups, &mut [&mut a], &[8]).await;
    assert_eq!(a.owned[&log], BTreeSet::from([0, 1]));
    let mut b = Client::joining(groups, by_regex("b", "log-1")).await;
    share(groups, &mut [&mut a, &mut b], &[6, 2]).await;
    house.engine.machine.propose(Command::DeleteTopic { topic: log }).await.unwrap();
    share(groups, &mut [&mut a, &mut b], &[6, 0]).await;
    let bad = groups.consumer_heartbeat(GROUP, by_regex("c", "[")).await;
    assert!(matches!(bad, Err(GroupError::InvalidRegex(_))), "{bad:?}");
    assert_eq!(members(&house.engine.machine), ["a", "b"]);
}

#[tokio::test(start_paused = true)]
async fn a_target_too_large_for_one_change_is_made_in_parts() {
    let house = Town::new().await.broker(1).await;
    house.create_topic("foo", 30_000).await;
    let House { engine, groups } = &house;
    let revision =
        || engine.machine.read(|state| state.groups().get(GROUP).map(|group| group.revision));
    let mut a = Client::join(groups, "a", &["foo"]).await;
    assert!(revision() > Some(1), "{:?}", revision());
    let mut b = Client::join(groups, "b", &["foo"]).await;
    share(groups, &mut [&mut a, &mut b], &[15_000, 15_000]).await;
    assert_eq!(group(&engine.machine).phase(), "Stable");
}

#[tokio::test(start_paused = true)]
async fn positions_are_the_members_while_its_epoch_is() {
    let House { engine, groups } = broker().await;
    let mut a = Client::join(&groups, "a", &["foo"]).await;
    let partition = TopicPartition { topic: topic(&engine.machine), partition: 0 };
    let commit = |generation| {
        let committer = Committer { member: "a".to_owned(), instance_id: None, generation };
        let offset = CommittedOffset {
            partition,
            offset: Offset(7),
            leader_epoch: -1,
            metadata: String::new(),
        };
        groups.commit(GROUP, Some(committer), None, vec![offset])
    };
    assert_eq!(commit(1).await, Ok(()));
    assert_eq!(commit(2).await, Err(GroupError::StaleMemberEpoch));
    let check = |member, epoch| groups.check_consumer(GROUP, member, epoch);
    assert_eq!(check(Some("a"), 1), Ok(()));
    assert_eq!(check(Some("a"), 0), Err(GroupError::StaleMemberEpoch));
    assert_eq!(check(Some("b"), 1), Err(GroupError::UnknownMember));
    assert_eq!(check(None, 1), Err(GroupError::UnknownMember));
    assert_eq!(check(None, -1), Ok(()), "an admin client");
    assert_eq!(groups.check_consumer("other", Some("a"), 1), Ok(()), "there is nothing to read");
    // Who commits is alive.
    for _ in 0..12 {
        sleep(INTERVAL).await;
        assert_eq!(commit(1).await, Ok(()));
    }
    a.beat(&groups).await;
}

/// What a member of the other protocol says.
fn classic(knows_member_ids: bool) -> JoinRequest {
    JoinRequest {
        member: String::new(),
        instance_id: None,
        client_id: "client".to_owned(),
        client_host: "/127.0.0.1".to_owned(),
        session_timeout_ms: 10_000,
        rebalance_timeout_ms: 60_000,
        protocol_type: "consumer".to_owned(),
        protocols: vec![("range".to_owned(), Bytes::new())],
        knows_member_ids,
        can_skip_assignment: false,
    }
}

#[tokio::test(start_paused = true)]
async fn a_group_of_the_other_protocol_is_taken_over_once_it_is_empty() {
    let House { groups, .. } = broker().await;
    let member = groups.join(GROUP, classic(false)).await.unwrap().member;
    let unknown = Err(GroupError::UnknownGroup(GROUP.to_owned()));
    assert_eq!(groups.consumer_heartbeat(GROUP, join("a", &["foo"])).await, unknown);
    let leaver = Leaver { member, instance_id: None };
    assert_eq!(groups.leave(GROUP, vec![leaver]).await.unwrap(), [Ok(())]);
    assert_eq!(groups.consumer_heartbeat(GROUP, beat("a", 1)).await, unknown);
    let a = Client::join(&groups, "a", &["foo"]).await;
    assert_eq!(a.count(), 6);
    assert!(a.epoch > 1, "numbers go on: {}", a.epoch);
}

#[tokio::test(start_paused = true)]
async fn who_is_on_the_way_into_a_group_has_it_for_its_protocol() {
    let House { groups, .. } = broker().await;
    let Err(GroupError::MemberIdRequired(_)) = groups.join(GROUP, classic(true)).await else {
        panic!("it is to come back");
    };
    let first = groups.consumer_heartbeat(GROUP, join("a", &["foo"])).await;
    assert_eq!(first, Err(GroupError::NotAvailable));
    // It does not come back.
    sleep(INTERVAL * 3).await;
    Client::join(&groups, "a", &["foo"]).await;
    let second = groups.join(GROUP, classic(true)).await;
    assert_eq!(second, Err(GroupError::InconsistentProtocol));
}

#[tokio::test(start_paused = true)]
async fn there_is_no_group_until_somebody_joins() {
    let House { groups, .. } = broker().await;
    let unknown = Err(GroupError::UnknownGroup(GROUP.to_owned()));
    assert_eq!(groups.consumer_heartbeat(GROUP, beat("a", 1)).await, unknown);
    assert_eq!(groups.consumer_heartbeat(GROUP, beat("a", -1)).await, unknown);
    let nameless = groups.consumer_heartbeat("", join("a", &["foo"])).await;
    assert!(matches!(nameless, Err(GroupError::InvalidRequest(_))), "{nameless:?}");
}

#[tokio::test(start_paused = true)]
async fn who_is_silent_is_out_even_if_the_log_is_away_just_then() {
    let log = FaultyLog::new(Arc::new(MemoryLog::default()), 1, LogFaults::default());
    let ports = Ports {
        objects: Arc::new(MemoryObjectStore::default()),
        log: Arc::new(log.clone()),
        clock: Arc::new(ManualClock::new(1_700_000_000_000)),
        peers: Arc::new(NoPeers),
    };
    let config = MachineConfig { exclusive: true, ..MachineConfig::default() };
    let machine = Machine::start(config, BrokerAddress::default(), ports, 1).await.unwrap();
    let groups = GroupCoordinator::start(machine.clone(), |_| GroupSettings::default());
    Client::join(&groups, "a", &["foo"]).await;
    log.control().set(LogFaults { refused: 1.0, ..LogFaults::default() });
    sleep(Duration::from_secs(120)).await;
    assert_eq!(members(&machine), ["a"]);
    log.control().set(LogFaults::default());
    while !members(&machine).is_empty() {
        sleep(INTERVAL).await;
    }
}
