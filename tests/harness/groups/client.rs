//! What members of both protocols have in common: a network, a coordinator to be found, positions.

use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use odradek::group::GroupError;
use odradek_protocol::id::{Offset, TopicId, TopicPartition};
use odradek_storage::command::{CommittedOffset, Committer};
use rand::rngs::StdRng;
use rand::{Rng, SeedableRng};
use tokio::task::JoinHandle;
use tokio::time::{Instant, sleep};

use super::broker::Broker;
use super::history::{Call, History, View, What};

/// The brokers of a world, whoever they are just now.
pub type Brokers = Arc<Mutex<Vec<Broker>>>;

/// How long a client waits for an answer that should come at once.
const PATIENCE: Duration = Duration::from_secs(5);

/// Longest time a message takes.
const DELAY_MAX: Duration = Duration::from_millis(4);

/// A client of one group.
#[derive(Debug)]
pub struct Client {
    /// The group.
    pub group: String,
    /// The topic that the group reads.
    pub topic: TopicId,
    /// Its name.
    pub topic_name: String,
    /// Where everything is written down.
    pub history: History,
    /// Decides all that the client decides.
    pub random: StdRng,
    /// How often a request, or its answer, gets lost.
    pub lost: f64,
    /// All brokers.
    pub brokers: Brokers,
    /// When the client is stopped, as a process is by a signal, and for how long.
    pub stops: Option<(Instant, Duration)>,
    /// Whether another has begun to live in its place: it goes on as long as nobody tells it.
    pub is_replaced: Arc<AtomicBool>,
}

/// Who a client is to its group.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Identity {
    /// Its member id; empty if it has none yet.
    pub member: String,
    /// The name it keeps over restarts.
    pub instance: Option<String>,
    /// Its generation, or its member epoch.
    pub generation: i32,
}

impl Identity {
    /// As the group knows it.
    pub fn claim(&self) -> Committer {
        Committer {
            member: self.member.clone(),
            instance_id: self.instance.clone(),
            generation: self.generation,
        }
    }
}

/// What a client does after an answer that it did not hope for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Next {
    /// Looks for the coordinator again.
    LookAgain,
    /// Hears from the coordinator what has changed, as who it is.
    Rejoin,
    /// Waits until it is time to speak again.
    Wait,
    /// Joins as somebody new.
    Anew,
    /// Ends.
    End,
}

impl Next {
    /// What comes after an error; `None`: after no answer.
    ///
    /// # Panics
    ///
    /// If a member that does nothing wrong is never told so.
    pub fn after(error: Option<&GroupError>) -> Self {
        match error {
            None
            | Some(GroupError::NotCoordinator | GroupError::NotAvailable | GroupError::Unknown) => {
                Self::LookAgain
            }
            Some(GroupError::RebalanceInProgress | GroupError::StaleMemberEpoch) => Self::Rejoin,
            Some(GroupError::UnreleasedInstance(_)) => Self::Wait,
            Some(
                GroupError::UnknownMember
                | GroupError::IllegalGeneration
                | GroupError::FencedInstance
                | GroupError::UnknownGroup(_)
                | GroupError::FencedMemberEpoch(_),
            ) => Self::Anew,
            Some(error) => panic!("a member that does nothing wrong is told: {error}"),
        }
    }
}

/// A commit under way.
pub type Committing = JoinHandle<Option<Result<(), GroupError>>>;

impl Client {
    /// Another hand of the same client, that is not stopped with it.
    pub fn hand(&mut self) -> Self {
        Self {
            group: self.group.clone(),
            topic: self.topic,
            topic_name: self.topic_name.clone(),
            history: self.history.clone(),
            random: StdRng::seed_from_u64(self.random.random()),
            lost: self.lost,
            brokers: Arc::clone(&self.brokers),
            stops: None,
            is_replaced: Arc::default(),
        }
    }

    /// Whether another has begun to live in its place.
    pub fn is_replaced(&self) -> bool {
        self.is_replaced.load(Ordering::Relaxed)
    }

    /// Says where the member of this place of its group stands, unless another does.
    pub fn show(&self, place: usize, view: Option<View>) {
        if !self.is_replaced() {
            self.history.set_view(&self.group, place, view);
        }
    }

    /// Stops, if it is time to.
    pub async fn rest(&mut self) {
        if self.stops.is_some_and(|(at, _)| at <= Instant::now())
            && let Some((_, length)) = self.stops.take()
        {
            self.history.say(format!("{}: a client is stopped for {length:?}", self.group));
            sleep(length).await;
        }
    }

    /// Waits a moment before the next attempt.
    pub async fn back_off(&mut self) {
        sleep(self.random.random_range(Duration::from_millis(50)..Duration::from_millis(200)))
            .await;
    }

    /// Asks a broker; gives the moment at which that began, and the answer, if one comes.
    pub async fn ask<T>(
        &mut self,
        broker: &Broker,
        patience: Duration,
        request: impl Future<Output = T>,
    ) -> (u64, Option<T>) {
        self.rest().await;
        let began = self.history.moment();
        let is_lost = self.random.random_bool(self.lost);
        sleep(self.random.random_range(Duration::ZERO..DELAY_MAX)).await;
        if is_lost && self.random.random_bool(0.5) {
            sleep(self.random.random_range(Duration::ZERO..Duration::from_secs(1))).await;
            return (began, None);
        }
        let answer = broker.serve(patience, request).await;
        sleep(self.random.random_range(Duration::ZERO..DELAY_MAX)).await;
        self.rest().await;
        (began, answer.filter(|_| !is_lost))
    }

    /// A broker, whichever.
    pub fn any_broker(&mut self) -> Option<Broker> {
        let brokers = self.brokers.lock().unwrap();
        let place = self.random.random_range(0..brokers.len().max(1));
        brokers.get(place).cloned()
    }

    /// The group's coordinator, as any broker says.
    pub async fn coordinator(&mut self) -> Broker {
        loop {
            if let Some(broker) = self.any_broker() {
                let group = self.group.clone();
                let look = async { broker.engine.machine.read(|it| it.coordinator_of(&group)) };
                let (_, node) = self.ask(&broker, PATIENCE, look).await;
                let brokers = self.brokers.lock().unwrap();
                let found = brokers.iter().find(|it| Some(it.node()) == node.flatten());
                if let Some(found) = found {
                    return found.clone();
                }
            }
            self.back_off().await;
        }
    }

    /// Writes a call down.
    pub fn note(&self, who: &Identity, began: u64, is_done: bool, what: What) {
        let Identity { member, instance, .. } = who.clone();
        let group = self.group.clone();
        self.history.add(Call { group, member, instance, began, ended: 0, is_done, what });
    }

    /// Reads positions through any broker, which follows the log to its tail first, as OffsetFetch
    /// does. No positions if it can't; an offset of zero where none was committed.
    pub async fn read(&mut self, who: &Identity, partitions: &[i32]) -> Option<Vec<(i32, i64)>> {
        let broker = self.any_broker()?;
        let (group, topic) = (self.group.clone(), self.topic);
        let fetch = async {
            broker.engine.machine.barrier().await.ok()?;
            Some(broker.engine.machine.read(|state| {
                let positions = state.groups().positions(&group);
                let position = |partition: &i32| {
                    let partition = TopicPartition { topic, partition: *partition };
                    let found = positions?.get(&partition)?;
                    Some((found.offset.0, found.metadata.clone()))
                };
                partitions.iter().map(position).collect::<Vec<_>>()
            }))
        };
        let (began, found) = self.ask(&broker, PATIENCE, fetch).await;
        let found = found.flatten()?;
        let mut offsets = Vec::new();
        for (partition, position) in partitions.iter().zip(found) {
            offsets.push((*partition, position.as_ref().map_or(0, |(offset, _)| *offset)));
            self.note(who, began, true, What::Read { partition: *partition, position });
        }
        Some(offsets)
    }

    /// Commits a position in the background.
    pub fn commit(
        &mut self,
        broker: Broker,
        who: &Identity,
        partition: i32,
        offset: i64,
    ) -> Committing {
        let mut hand = self.hand();
        let who = who.clone();
        tokio::spawn(async move {
            let metadata = format!("{:08x}", hand.random.random::<u32>());
            let committed = CommittedOffset {
                partition: TopicPartition { topic: hand.topic, partition },
                offset: Offset(offset),
                leader_epoch: 0,
                metadata: metadata.clone(),
            };
            let group = hand.group.clone();
            let commit = broker.groups.commit(&group, Some(who.claim()), None, vec![committed]);
            let (began, answer) = hand.ask(&broker, PATIENCE, commit).await;
            let generation = who.generation;
            let what = What::Commit { generation, partition, offset, metadata };
            hand.note(&who, began, matches!(answer, Some(Ok(()))), what);
            answer
        })
    }
}
