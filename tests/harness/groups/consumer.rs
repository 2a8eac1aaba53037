//! A member of the consumer protocol (KIP-848), as Kafka's clients are.

use std::collections::BTreeSet;
use std::time::Duration;

use odradek::group::consumer::{
    ConsumerHeartbeat, ConsumerHeartbeatAnswer, JOIN_EPOCH, LEAVE_EPOCH, STATIC_LEAVE_EPOCH,
};
use odradek_protocol::id::TopicId;
use odradek_storage::command::groups::Assignment;
use rand::Rng;
use tokio::time::{Instant, sleep_until};

use super::GroupPlan;
use super::broker::Broker;
use super::client::{Client, Identity, Next};
use super::history::{View, What};
use super::reading::Reading;

const HEARTBEAT_INTERVAL: Duration = Duration::from_secs(3);

const PATIENCE: Duration = Duration::from_secs(5);

/// A member.
#[derive(Debug)]
pub struct Member {
    client: Client,
    who: Identity,
    plan: GroupPlan,
    /// Its place among the members that there are to be.
    place: usize,
    reading: Reading,
    /// Whether the coordinator has still to hear what it has.
    has_news: bool,
}

impl Member {
    /// A member that is not in its group yet.
    pub fn new(
        mut client: Client,
        instance: Option<String>,
        plan: &GroupPlan,
        place: usize,
    ) -> Self {
        let member = format!("member-{:08x}", client.random.random::<u32>());
        let who = Identity { member, instance, generation: JOIN_EPOCH };
        let plan = plan.clone();
        Self { client, who, plan, place, reading: Reading::default(), has_news: true }
    }

    /// Lives in its group; leaves it then, if ever.
    pub async fn live(&mut self, leaves_at: Option<Instant>) {
        let mut coordinator = self.client.coordinator().await;
        let mut beat_at = Instant::now();
        let mut work_at = Instant::now();
        loop {
            sleep_until(beat_at.min(work_at)).await;
            self.client.rest().await;
            let now = Instant::now();
            let is_in = self.who.generation > JOIN_EPOCH;
            if leaves_at.is_some_and(|leaves_at| leaves_at <= now) {
                self.leave(&coordinator).await;
                return;
            }
            let failure = self.reading.failure().await;
            let mut next = failure.map(|error| Next::after(error.as_ref()));
            if next.is_none() && work_at <= now {
                work_at = now + HEARTBEAT_INTERVAL;
                if is_in {
                    let most = self.plan.commit_interval_max;
                    let work = self.reading.work(&mut self.client, &self.who, &coordinator, most);
                    work_at = now + work.await;
                }
            }
            if next.is_none() && beat_at <= now {
                beat_at = now + HEARTBEAT_INTERVAL;
                next = self.heartbeat(&coordinator).await;
            }
            match next {
                None | Some(Next::Wait) => continue,
                Some(Next::LookAgain) => {
                    self.has_news = true;
                    self.client.back_off().await;
                    coordinator = self.client.coordinator().await;
                }
                Some(Next::Rejoin) => {}
                Some(Next::Anew) if self.client.is_replaced() => return,
                Some(Next::Anew | Next::End) => self.begin_anew(),
            }
            beat_at = Instant::now();
        }
    }

    /// Was put out: has nothing any more.
    fn begin_anew(&mut self) {
        self.who.generation = JOIN_EPOCH;
        self.reading.assign(Vec::new(), false);
        self.has_news = true;
        self.show(false);
    }

    fn show(&self, is_in: bool) {
        let view = is_in.then(|| View {
            member: self.who.member.clone(),
            generation: self.who.generation,
            partitions: self.reading.assigned().to_vec(),
        });
        self.client.show(self.place, view);
    }

    fn message(&mut self) -> ConsumerHeartbeat {
        let joins = self.who.generation == JOIN_EPOCH;
        let says_all = joins || self.client.random.random_bool(0.2);
        let owned = assignment(self.client.topic, self.reading.assigned());
        let timeout = i32::try_from(self.plan.rebalance_timeout.as_millis()).unwrap();
        ConsumerHeartbeat {
            member: self.who.member.clone(),
            epoch: self.who.generation,
            instance_id: self.who.instance.clone(),
            rebalance_timeout_ms: says_all.then_some(timeout),
            topics: says_all.then(|| BTreeSet::from([self.client.topic_name.clone()])),
            owned: (says_all || self.has_news).then_some(owned),
            client_id: "client".to_owned(),
            client_host: "/127.0.0.1".to_owned(),
            ..ConsumerHeartbeat::default()
        }
    }

    async fn heartbeat(&mut self, coordinator: &Broker) -> Option<Next> {
        let group = self.client.group.clone();
        let message = self.message();
        let (said, owned) = (message.epoch, self.reading.assigned().to_vec());
        let speak = coordinator.groups.consumer_heartbeat(&group, message);
        let (began, answer) = self.client.ask(coordinator, PATIENCE, speak).await;
        let (epoch, partitions, next) = match &answer {
            Some(Ok(answer)) => {
                let told = answer.assignment.as_ref().map(|it| partitions(self.client.topic, it));
                (answer.epoch, told.unwrap_or_else(|| owned.clone()), None)
            }
            Some(Err(error)) => {
                let member = &self.who.member;
                self.client.history.say(format!("{group} {member}: heartbeat: {error}"));
                (said, owned.clone(), Some(Next::after(Some(error))))
            }
            None => (said, owned.clone(), Some(Next::after(None))),
        };
        let is_done = next.is_none();
        let what = What::Turn { said, epoch, owned, partitions: partitions.clone() };
        self.client.note(&self.who, began, is_done, what);
        if let Some(Ok(ConsumerHeartbeatAnswer { epoch, .. })) = answer {
            self.take(coordinator, epoch, partitions).await;
        }
        next
    }

    /// Takes what it was told: gives back what is not in it, and is glad of the rest.
    async fn take(&mut self, coordinator: &Broker, epoch: i32, partitions: Vec<i32>) {
        let has_changed = partitions != self.reading.assigned();
        if self.reading.assigned().iter().any(|partition| !partitions.contains(partition)) {
            self.reading.end(&mut self.client, &self.who, coordinator).await;
        }
        self.who.generation = epoch;
        self.reading.assign(partitions, true);
        self.has_news = has_changed;
        self.show(true);
    }

    async fn leave(&mut self, coordinator: &Broker) {
        self.reading.end(&mut self.client, &self.who, coordinator).await;
        let epoch = if self.who.instance.is_some() { STATIC_LEAVE_EPOCH } else { LEAVE_EPOCH };
        let message = ConsumerHeartbeat { epoch, ..self.message() };
        let group = self.client.group.clone();
        let leave = coordinator.groups.consumer_heartbeat(&group, message);
        let (_, answer) = self.client.ask(coordinator, PATIENCE, leave).await;
        self.client.history.say(format!("{group} {} leaves: {answer:?}", self.who.member));
    }
}

fn assignment(topic: TopicId, partitions: &[i32]) -> Assignment {
    let partitions: BTreeSet<i32> = partitions.iter().copied().collect();
    if partitions.is_empty() { Assignment::new() } else { Assignment::from([(topic, partitions)]) }
}

/// Partitions of the one topic that there is.
pub(super) fn partitions(topic: TopicId, assignment: &Assignment) -> Vec<i32> {
    assignment.get(&topic).into_iter().flatten().copied().collect()
}
