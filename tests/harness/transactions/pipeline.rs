//! Pipelines: what one transaction commits is read, and written elsewhere by another, together with
//! how far it was read.
//!
//! The positions of a group are all that a pipeline remembers. Members of a group say who they are
//! when they stage positions (KIP-447); those that assign their partitions themselves rely on their
//! transactional id.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use bytes::Bytes;
use futures::FutureExt;
use odradek_protocol::id::{TopicId, TopicPartition};
use odradek_storage::command::Committer;
use odradek_storage::reader::Isolation;
use rand::Rng;
use tokio::time::sleep;

use super::consumer::fetch;
use super::ledger::{Step, origin, value};
use super::producer::Producer;
use super::verdict::Trouble;
use crate::groups::history::History;

/// Who says which partitions a pipeline reads.
#[derive(Clone, Debug)]
pub enum Share {
    /// It was told once: every so many of them, from one on.
    Fixed {
        /// The first.
        first: usize,
        /// How many pipelines there are.
        of: usize,
        /// How many partitions there are.
        partitions: u32,
    },
    /// Its group: what the member in this place is told.
    Member {
        /// Where members are known.
        history: History,
        /// The place.
        place: usize,
        /// The instance id of a static member.
        instance: Option<String>,
    },
}

impl Share {
    fn now(&self, group: &str) -> Option<(Option<Committer>, Vec<i32>)> {
        match self {
            Self::Fixed { first, of, partitions } => {
                let all = 0..i32::try_from(*partitions).unwrap();
                Some((None, all.skip(*first).step_by(*of).collect()))
            }
            Self::Member { history, place, instance } => {
                let view = history.view(group, *place)?;
                let committer = Committer {
                    member: view.member,
                    instance_id: instance.clone(),
                    generation: view.generation,
                };
                Some((Some(committer), view.partitions))
            }
        }
    }
}

/// A pipeline at work.
#[derive(Debug)]
pub struct Pipeline {
    /// Its producer.
    pub producer: Producer,
    /// Its group.
    pub group: String,
    /// What it reads of that topic.
    pub share: Share,
    /// What it reads.
    pub input: TopicId,
    /// What it writes to, and how many partitions that has.
    pub output: (TopicId, u32),
    /// Set when everything is done.
    pub stops: Arc<AtomicBool>,
}

/// What a pipeline has found in a partition.
struct Found {
    step: Step,
    records: Vec<(i64, Bytes)>,
}

/// The partitions that something is copied to.
pub fn targets(payload: &str, partitions: u32) -> Vec<i32> {
    let sum: u32 = crc32c::crc32c(payload.as_bytes());
    let (one, other) = (sum % partitions, sum / 7 % partitions);
    let mut targets = vec![i32::try_from(one).unwrap()];
    if one != other {
        targets.push(i32::try_from(other).unwrap());
    }
    targets
}

/// What becomes of something on its way to a partition.
pub fn copied(payload: &str, partition: i32) -> String {
    format!("{payload}>{partition}")
}

impl Pipeline {
    /// Works until all is done, or until there has to be another producer.
    pub async fn work(mut self) {
        if self.producer.init(false).await.is_err() {
            return;
        }
        let mut positions = BTreeMap::new();
        let mut known = None;
        while !self.stops.load(Ordering::Relaxed) {
            self.producer.network.back_off().await;
            let share = self.share.now(&self.group);
            if share != known {
                positions.clear();
                known = share;
            }
            let Some((committer, partitions)) = known.clone() else { continue };
            let found = self.poll(&partitions, &mut positions).await;
            if found.is_empty() {
                sleep(Duration::from_millis(50)).await;
                continue;
            }
            if let Err(trouble) = self.transact(committer, &found).await {
                positions.clear();
                if self.producer.recover(trouble).await.is_err() {
                    return;
                }
            }
        }
    }

    /// Reads on in each partition, from where the group stands if that is not known.
    async fn poll(&mut self, partitions: &[i32], positions: &mut BTreeMap<i32, i64>) -> Vec<Found> {
        let mut found = Vec::new();
        for number in partitions {
            let partition = TopicPartition { topic: self.input, partition: *number };
            let from = match positions.get(number) {
                Some(position) => *position,
                None => match self.committed(partition).await {
                    Some(position) => position,
                    None => continue,
                },
            };
            positions.insert(*number, from);
            let Some(broker) = self.producer.network.any_broker() else { continue };
            let bytes_max = self.producer.network.random.random_range(1..1500);
            let read = self.producer.network.ask(&broker, move |broker| {
                let isolation = Isolation::ReadCommitted;
                async move { fetch(&broker.engine, (partition, from), bytes_max, isolation).await }
                    .boxed()
            });
            let Some(Ok(chunk)) = read.await.answer else { continue };
            self.producer.ledger.show(&self.producer.id, broker.number, partition, &chunk);
            positions.insert(*number, chunk.next);
            if !chunk.records.is_empty() {
                let group = self.group.clone();
                let step = Step { group, partition, from, to: chunk.next };
                found.push(Found { step, records: chunk.records });
            }
        }
        found
    }

    /// Where the group stands, as OffsetFetch says: nothing while a transaction is open that may
    /// change it.
    async fn committed(&mut self, partition: TopicPartition) -> Option<i64> {
        let least = self.producer.ledger.position(&self.group, partition);
        let broker = self.producer.network.any_broker()?;
        let group = self.group.clone();
        let look = self.producer.network.ask(&broker, move |broker| {
            let group = group.clone();
            let look = async move {
                broker.engine.machine.barrier().await.ok()?;
                broker.engine.machine.read(|state| {
                    let positions = state.groups().positions(&group);
                    let found = positions.and_then(|it| it.get(&partition));
                    let is_staged = state.transactions().is_staged(&group, partition);
                    (!is_staged).then(|| found.map_or(0, |it| it.offset.0))
                })
            };
            look.boxed()
        });
        let found = look.await.answer.flatten()?;
        if found < least {
            let how = format!("{} {partition}: {found}, {least} was committed", self.group);
            self.producer.ledger.accuse("R18", how);
        }
        Some(found)
    }

    async fn transact(
        &mut self,
        committer: Option<Committer>,
        found: &[Found],
    ) -> Result<(), Trouble> {
        let number = self.producer.begin();
        let batches = self.batches(number, found);
        let steps: Vec<Step> = found.iter().map(|it| it.step.clone()).collect();
        let early = self.producer.network.random.random_range(0..=batches.len());
        let (early, late) = batches.split_at(early);
        if !early.is_empty() {
            self.producer.send(early.to_vec()).await?;
        }
        let group = self.group.clone();
        self.producer.stage(&group, committer, steps).await?;
        if !late.is_empty() {
            self.producer.send(late.to_vec()).await?;
        }
        if self.producer.network.random.random_bool(0.05) {
            return Err(Trouble::Abort);
        }
        self.producer.commit().await
    }

    fn batches(&self, number: usize, found: &[Found]) -> Vec<(TopicPartition, Vec<Bytes>)> {
        let (topic, partitions) = self.output;
        let mut batches: BTreeMap<TopicPartition, Vec<Bytes>> = BTreeMap::new();
        for (_, record) in found.iter().flat_map(|it| &it.records) {
            let (payload, _) = origin(record);
            for partition in targets(payload, partitions) {
                let batch = batches.entry(TopicPartition { topic, partition }).or_default();
                batch.push(value(&copied(payload, partition), number));
            }
        }
        let halves = batches.into_iter().flat_map(|(partition, mut values)| {
            let rest = values.split_off(values.len() / 2);
            [(partition, values), (partition, rest)]
        });
        halves.filter(|(_, values)| !values.is_empty()).collect()
    }
}
