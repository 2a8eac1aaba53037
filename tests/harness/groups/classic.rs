//! A member of the classic protocol, as Kafka's clients are.

use std::time::Duration;

use bytes::Bytes;
use odradek::group::GroupError;
use odradek::group::classic::{JoinRequest, Joined, Leaver, SyncRequest};
use rand::Rng;
use tokio::time::{Instant, sleep_until};

use super::GroupPlan;
use super::broker::Broker;
use super::client::{Client, Identity, Next};
use super::history::{View, What};
use super::reading::Reading;

/// Longest time between two signs of life.
const HEARTBEAT_INTERVAL_MAX: Duration = Duration::from_secs(3);

/// How much longer than others may take a member waits for an answer that waits for them.
const MORE_PATIENCE: Duration = Duration::from_secs(5);

/// How long it waits for what is answered at once.
const BEAT_PATIENCE: Duration = Duration::from_secs(5);

/// A member.
#[derive(Debug)]
pub struct Member {
    client: Client,
    who: Identity,
    plan: GroupPlan,
    /// Its place among the members that there are to be.
    place: usize,
    reading: Reading,
    protocols: Vec<(String, Bytes)>,
}

impl Member {
    /// A member that is not in its group yet.
    pub fn new(
        mut client: Client,
        instance: Option<String>,
        plan: &GroupPlan,
        place: usize,
    ) -> Self {
        let mut protocols = vec![
            ("range".to_owned(), Bytes::from_static(b"wishes")),
            ("roundrobin".to_owned(), Bytes::from_static(b"others")),
        ];
        if client.random.random_bool(0.3) {
            protocols.reverse();
        }
        let who = Identity { instance, generation: -1, ..Identity::default() };
        let plan = plan.clone();
        let reading = Reading::default();
        Self { client, who, plan, place, reading, protocols }
    }

    /// Lives in its group; leaves it then, if ever.
    pub async fn live(&mut self, leaves_at: Option<Instant>) {
        loop {
            self.enter().await;
            if self.client.is_replaced() && self.who.member.is_empty() {
                return;
            }
            match self.stay(leaves_at).await {
                Next::End => return,
                Next::Anew if self.client.is_replaced() => return,
                Next::Anew => self.forget_id(),
                Next::Rejoin | Next::LookAgain | Next::Wait => {}
            }
        }
    }

    fn forget_id(&mut self) {
        self.who.member.clear();
        self.who.generation = -1;
    }

    /// Says what it has, or that it has nothing.
    fn show(&self, is_in: bool) {
        let view = is_in.then(|| View {
            member: self.who.member.clone(),
            generation: self.who.generation,
            partitions: self.reading.assigned().to_vec(),
        });
        self.client.show(self.place, view);
    }

    fn patience(&self) -> Duration {
        self.plan.rebalance_timeout + MORE_PATIENCE
    }

    /// Often enough to hear of a rebalance before it is over.
    fn heartbeat_interval(&self) -> Duration {
        HEARTBEAT_INTERVAL_MAX.min(self.plan.rebalance_timeout / 3)
    }

    /// Joins until it has an assignment; or is told that it has no place any more, when another has
    /// begun to live in it.
    async fn enter(&mut self) {
        self.show(false);
        loop {
            let coordinator = self.client.coordinator().await;
            let next = match self.join(&coordinator).await {
                Ok(joined) => match self.sync(&coordinator, joined).await {
                    Ok(()) => return self.show(true),
                    Err(next) => next,
                },
                Err(Next::Rejoin) => continue,
                Err(next) => next,
            };
            if next == Next::Anew {
                self.forget_id();
                if self.client.is_replaced() {
                    return;
                }
            }
            self.client.back_off().await;
        }
    }

    async fn join(&mut self, coordinator: &Broker) -> Result<Joined, Next> {
        let request = JoinRequest {
            member: self.who.member.clone(),
            instance_id: self.who.instance.clone(),
            client_id: "client".to_owned(),
            client_host: "/127.0.0.1".to_owned(),
            session_timeout_ms: milliseconds(self.plan.session_timeout),
            rebalance_timeout_ms: milliseconds(self.plan.rebalance_timeout),
            protocol_type: "consumer".to_owned(),
            protocols: self.protocols.clone(),
            knows_member_ids: self.client.random.random_bool(0.9),
            can_skip_assignment: self.client.random.random_bool(0.5),
        };
        let group = self.client.group.clone();
        let join = coordinator.groups.join(&group, request);
        let (began, answer) = self.client.ask(coordinator, self.patience(), join).await;
        match answer {
            Some(Ok(joined)) => {
                self.who.member.clone_from(&joined.member);
                self.who.generation = joined.generation;
                let what = What::Join { generation: joined.generation };
                self.client.note(&self.who, began, true, what);
                Ok(joined)
            }
            Some(Err(GroupError::MemberIdRequired(id))) => {
                self.who.member = id;
                Err(Next::Rejoin)
            }
            Some(Err(error)) => {
                self.client.history.say(format!("{group} {}: join: {error}", self.who.member));
                match Next::after(Some(&error)) {
                    Next::Rejoin => Err(Next::LookAgain),
                    next => Err(next),
                }
            }
            None => Err(Next::LookAgain),
        }
    }

    async fn sync(&mut self, coordinator: &Broker, joined: Joined) -> Result<(), Next> {
        let assignments = if joined.leader == joined.member && !joined.skip_assignment {
            self.assign(&joined)
        } else {
            Vec::new()
        };
        let request = SyncRequest {
            member: self.who.claim(),
            protocol_type: Some(joined.protocol_type),
            protocol: Some(joined.protocol),
            assignments,
        };
        let group = self.client.group.clone();
        let sync = coordinator.groups.sync(&group, request);
        let (began, answer) = self.client.ask(coordinator, self.patience(), sync).await;
        match answer {
            Some(Ok(synced)) => {
                let partitions = decode(&synced.assignment);
                self.reading.assign(partitions.clone(), false);
                let generation = self.who.generation;
                let what = What::Sync { generation, partitions };
                self.client.note(&self.who, began, true, what);
                Ok(())
            }
            Some(Err(error)) => {
                self.client.history.say(format!("{group} {}: sync: {error}", self.who.member));
                Err(Next::after(Some(&error)))
            }
            None => Err(Next::LookAgain),
        }
    }

    /// Deals the partitions out, one by one.
    fn assign(&self, joined: &Joined) -> Vec<(String, Bytes)> {
        let partitions = i32::try_from(self.plan.partitions).unwrap();
        let mut dealt: Vec<Vec<i32>> = vec![Vec::new(); joined.members.len()];
        for (partition, place) in (0..partitions).zip((0..joined.members.len()).cycle()) {
            dealt[place].push(partition);
        }
        let members = joined.members.iter().map(|(id, ..)| id.clone());
        members.zip(dealt.iter().map(|partitions| encode(partitions))).collect()
    }

    /// Reads and commits until something happens.
    async fn stay(&mut self, leaves_at: Option<Instant>) -> Next {
        let mut coordinator = self.client.coordinator().await;
        let mut beat_at = Instant::now() + self.heartbeat_interval();
        let mut work_at = Instant::now();
        loop {
            sleep_until(beat_at.min(work_at)).await;
            self.client.rest().await;
            let now = Instant::now();
            if leaves_at.is_some_and(|leaves_at| leaves_at <= now) {
                self.leave(&coordinator).await;
                return Next::End;
            }
            let failure = self.reading.failure().await;
            let mut next = failure.map(|error| Next::after(error.as_ref()));
            if next.is_none() && work_at <= now {
                let most = self.plan.commit_interval_max;
                let work = self.reading.work(&mut self.client, &self.who, &coordinator, most);
                work_at = now + work.await;
            }
            if next.is_none() && beat_at <= now {
                beat_at = now + self.heartbeat_interval();
                next = self.heartbeat(&coordinator).await;
                if next == Some(Next::LookAgain) {
                    beat_at = Instant::now();
                }
            }
            match next {
                None => {}
                Some(Next::LookAgain) => {
                    self.client.back_off().await;
                    coordinator = self.client.coordinator().await;
                }
                Some(Next::Rejoin) => {
                    self.reading.end(&mut self.client, &self.who, &coordinator).await;
                    return Next::Rejoin;
                }
                Some(next) => return next,
            }
        }
    }

    async fn heartbeat(&mut self, coordinator: &Broker) -> Option<Next> {
        let group = self.client.group.clone();
        let claim = self.who.claim();
        let beat = coordinator.groups.heartbeat(&group, &claim);
        let (began, answer) = self.client.ask(coordinator, BEAT_PATIENCE, beat).await;
        match answer {
            Some(Ok(())) => {
                let what = What::Heartbeat { generation: claim.generation };
                self.client.note(&self.who, began, true, what);
                None
            }
            Some(Err(error)) => {
                let member = &self.who.member;
                self.client.history.say(format!("{group} {member}: heartbeat: {error}"));
                Some(Next::after(Some(&error)))
            }
            None => Some(Next::after(None)),
        }
    }

    async fn leave(&mut self, coordinator: &Broker) {
        let group = self.client.group.clone();
        let leaver =
            Leaver { member: self.who.member.clone(), instance_id: self.who.instance.clone() };
        let leave = coordinator.groups.leave(&group, vec![leaver]);
        let (_, answer) = self.client.ask(coordinator, BEAT_PATIENCE, leave).await;
        self.client.history.say(format!("{group} {} leaves: {answer:?}", self.who.member));
    }
}

fn encode(partitions: &[i32]) -> Bytes {
    let partitions: Vec<String> = partitions.iter().map(ToString::to_string).collect();
    Bytes::from(partitions.join(","))
}

pub(super) fn decode(assignment: &Bytes) -> Vec<i32> {
    let text = str::from_utf8(assignment).unwrap();
    text.split(',').filter(|it| !it.is_empty()).map(|it| it.parse().unwrap()).collect()
}

fn milliseconds(time: Duration) -> i32 {
    i32::try_from(time.as_millis()).unwrap()
}
