//! A transactional producer, as Kafka's clients are, of either protocol.
//!
//! A request of unknown outcome is sent again, to whatever broker is found then. What can't be done
//! any more leads to an abort; a producer that has batches of unknown outcome when it aborts takes
//! a new epoch as well (KIP-360). One that is told that it is fenced asks whether it may go on, or
//! another is made.

use std::collections::{BTreeMap, BTreeSet};
use std::time::Duration;

use bytes::Bytes;
use futures::FutureExt;
use odradek::group::Staging;
use odradek::transactions::TransactionError;
use odradek_protocol::id::{Offset, TopicPartition};
use odradek_storage::command::{
    BatchProducer, BatchSummary, BatchTransaction, CommittedOffset, Committer, ProducerIdAndEpoch,
    Rejection,
};
use odradek_storage::segment::builder::PendingBatch;
use odradek_storage::writer::AppendError;
use rand::Rng;
use tokio::time::Instant;

use super::ledger::{Ending, Ledger, Step};
use super::network::{Heard, Network};
use super::verdict::{Trouble, Verdict, judge, judge_append, judge_group};
use crate::batches::BatchSpec;

/// What a producer speaks.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Protocol {
    /// Partitions and groups are added before they are used; the epoch stays (KIP-98).
    Explicit,
    /// They are added by being used; each transaction has an epoch (KIP-890).
    Implicit,
}

/// A producer.
#[derive(Debug)]
pub struct Producer {
    /// Its way to the brokers.
    pub network: Network,
    /// Where it writes down what it does.
    pub ledger: Ledger,
    /// Its transactional id.
    pub id: String,
    /// Which of those who use it.
    pub instance: u64,
    protocol: Protocol,
    timeout: Duration,
    identity: Option<ProducerIdAndEpoch>,
    sequences: BTreeMap<TopicPartition, i32>,
    open: Open,
}

/// The transaction of a producer.
#[derive(Debug, Default)]
struct Open {
    number: usize,
    /// What was added to it, in the first protocol.
    partitions: BTreeSet<TopicPartition>,
    groups: BTreeSet<String>,
    /// Whether brokers may know of it.
    is_begun: bool,
    /// Whether there are batches of which nobody knows.
    has_unknown: bool,
    gives_up_at: Option<Instant>,
}

impl Producer {
    /// A producer without an identity yet.
    pub fn new(
        network: Network,
        ledger: Ledger,
        (id, instance): (String, u64),
        protocol: Protocol,
        timeout: Duration,
    ) -> Self {
        let network = Network { may_be_late: protocol == Protocol::Implicit, ..network };
        Self {
            network,
            ledger,
            id,
            instance,
            protocol,
            timeout,
            identity: None,
            sequences: BTreeMap::new(),
            open: Open::default(),
        }
    }

    fn who(&self) -> ProducerIdAndEpoch {
        self.identity.unwrap()
    }

    fn be(&mut self, identity: ProducerIdAndEpoch) {
        if self.identity != Some(identity) {
            self.sequences.clear();
        }
        self.identity = Some(identity);
    }

    /// Takes the transactional id, or goes on with it: not if another has taken it meanwhile.
    pub async fn init(&mut self, goes_on: bool) -> Result<(), Trouble> {
        let timeout_ms = u32::try_from(self.timeout.as_millis()).unwrap();
        let expected = self.identity.filter(|_| goes_on);
        self.open = Open::default();
        let patience = self.patience();
        loop {
            let broker = self.network.coordinator(&self.id.clone()).await;
            let id = self.id.clone();
            let heard = self.network.ask(&broker, move |broker| {
                let id = id.clone();
                async move { broker.transactions.init_producer(&id, timeout_ms, expected).await }
                    .boxed()
            });
            match heard.await.answer {
                Some(Ok(identity)) => {
                    self.be(identity);
                    self.say(&format!("is {identity:?}, from {expected:?}"));
                    return Ok(());
                }
                Some(Err(error)) => match judge(&error) {
                    Verdict::Trouble(trouble) => return Err(trouble),
                    Verdict::Again => {}
                },
                None => {}
            }
            patience.spend(self).await?;
        }
    }

    fn say(&self, what: &str) {
        self.ledger.say(&format!("{}/{}: {what}", self.id, self.instance));
    }

    fn patience(&mut self) -> Patience {
        let most = Duration::from_secs(40);
        Patience { ends_at: Instant::now() + Duration::from_secs(8) + self.network.up_to(most) }
    }

    /// Begins a transaction; nobody else hears of it yet. Returns its number.
    pub fn begin(&mut self) -> usize {
        let number = self.ledger.begin(&self.id, self.instance);
        let gives_up_at = Some(self.patience().ends_at);
        self.open = Open { number, gives_up_at, ..Open::default() };
        number
    }

    fn waits(&self) -> Patience {
        Patience { ends_at: self.open.gives_up_at.unwrap() }
    }

    async fn add(
        &mut self,
        partitions: Vec<TopicPartition>,
        groups: Vec<String>,
    ) -> Result<(), Trouble> {
        let patience = self.waits();
        self.open.is_begun = true;
        loop {
            let broker = self.network.coordinator(&self.id.clone()).await;
            let (id, who) = (self.id.clone(), self.who());
            let (partitions, groups) = (partitions.clone(), groups.clone());
            let heard = self.network.ask(&broker, move |broker| {
                let (id, partitions, groups) = (id.clone(), partitions.clone(), groups.clone());
                async move { broker.transactions.add(&id, who, partitions, groups).await }.boxed()
            });
            match heard.await.answer {
                Some(Ok(())) => return Ok(()),
                Some(Err(error)) => self.unless_again("add", &error, judge(&error))?,
                None => {}
            }
            patience.spend(self).await?;
        }
    }

    fn unless_again(
        &self,
        what: &str,
        error: &dyn std::fmt::Display,
        verdict: Verdict,
    ) -> Result<(), Trouble> {
        match verdict {
            Verdict::Again => Ok(()),
            Verdict::Trouble(trouble) => {
                self.say(&format!("#{} {what}: {error}", self.open.number));
                Err(trouble)
            }
        }
    }

    /// Sends batches to partitions: those for one partition in their order, several under way at a
    /// time.
    pub async fn send(
        &mut self,
        batches: Vec<(TopicPartition, Vec<Bytes>)>,
    ) -> Result<(), Trouble> {
        if self.protocol == Protocol::Explicit {
            let partitions = batches.iter().map(|(partition, _)| *partition);
            let new: BTreeSet<_> =
                partitions.filter(|it| !self.open.partitions.contains(it)).collect();
            if !new.is_empty() {
                self.add(new.iter().copied().collect(), Vec::new()).await?;
                self.open.partitions.extend(new);
            }
        }
        self.open.is_begun = true;
        let mut pending = Vec::new();
        for (partition, values) in batches {
            let sequence = self.sequences.entry(partition).or_default();
            let batch = pending_batch(&values, self.identity.unwrap(), *sequence, self.protocol);
            *sequence += i32::try_from(values.len()).unwrap();
            let number = self.open.number;
            let send = |value| self.ledger.send(number, partition, value);
            let places: Vec<usize> = values.into_iter().map(send).collect();
            pending.push(Pending { partition, batch, places });
        }
        self.open.has_unknown = true;
        let patience = self.waits();
        while !pending.is_empty() {
            pending = self.send_once(pending).await?;
            if !pending.is_empty() {
                patience.spend(self).await?;
            }
        }
        self.open.has_unknown = false;
        Ok(())
    }

    /// Returns what has to be sent again.
    async fn send_once(&mut self, pending: Vec<Pending>) -> Result<Vec<Pending>, Trouble> {
        let Some(broker) = self.network.any_broker() else { return Ok(pending) };
        let batches: Vec<_> = pending.iter().map(|it| (it.partition, it.batch.clone())).collect();
        let heard = self.network.ask(&broker, move |broker| {
            let batches = batches.clone();
            let append = async move {
                Ok::<_, AppendError>(broker.engine.writer.append(batches).await?.await)
            };
            append.boxed()
        });
        let Some(Ok(answers)) = heard.await.answer else { return Ok(pending) };
        let mut again: Vec<Pending> = Vec::new();
        let mut trouble = None;
        for (it, answer) in pending.into_iter().zip(answers) {
            // What follows something that was not taken is out of order, and nothing else.
            let follows = again.iter().any(|before| before.partition == it.partition);
            match answer {
                Ok(appended) => {
                    for (place, at) in it.places.iter().zip(0..) {
                        let offset = appended.base_offset.0 + at;
                        self.ledger.acknowledge(self.open.number, *place, offset);
                    }
                }
                Err(AppendError::Rejected(Rejection::OutOfOrderSequence { .. })) if follows => {
                    again.push(it);
                }
                Err(error) => match judge_append(&error) {
                    Verdict::Again => again.push(it),
                    Verdict::Trouble(it) => {
                        self.say(&format!("#{} send: {error}", self.open.number));
                        trouble = trouble.or(Some(it));
                    }
                },
            }
        }
        trouble.map_or(Ok(again), Err)
    }

    /// Stages positions of a group.
    pub async fn stage(
        &mut self,
        group: &str,
        committer: Option<Committer>,
        steps: Vec<Step>,
    ) -> Result<(), Trouble> {
        if self.protocol == Protocol::Explicit && self.open.groups.insert(group.to_owned()) {
            self.add(Vec::new(), vec![group.to_owned()]).await?;
        }
        self.open.is_begun = true;
        let offsets: Vec<_> = steps.iter().map(committed_offset).collect();
        steps.into_iter().for_each(|step| self.ledger.stage(self.open.number, step));
        let staging = Staging {
            transactional_id: self.id.clone(),
            producer: self.who(),
            is_implicit: self.protocol == Protocol::Implicit,
        };
        let patience = self.waits();
        loop {
            let broker = self.network.coordinator(group).await;
            let (group, staging) = (group.to_owned(), staging.clone());
            let (committer, offsets) = (committer.clone(), offsets.clone());
            let heard = self.network.ask(&broker, move |broker| {
                let (group, staging) = (group.clone(), staging.clone());
                let (committer, offsets) = (committer.clone(), offsets.clone());
                let stage = async move {
                    broker.groups.stage_offsets(&group, staging, committer, offsets).await
                };
                stage.boxed()
            });
            match heard.await.answer {
                Some(Ok(())) => return Ok(()),
                Some(Err(error)) => self.unless_again("stage", &error, judge_group(&error))?,
                None => {}
            }
            patience.spend(self).await?;
        }
    }

    /// Commits the transaction.
    pub async fn commit(&mut self) -> Result<(), Trouble> {
        let number = self.open.number;
        if !self.open.is_begun {
            self.ledger.end(number, Ending::Committed);
            return Ok(());
        }
        self.network.hang().await;
        self.ledger.ask(number);
        self.end(true).await
    }

    /// Aborts the transaction, and takes a new epoch if that is needed.
    pub async fn abort(&mut self) -> Result<(), Trouble> {
        if self.open.is_begun {
            self.end(false).await?;
        }
        if self.open.has_unknown && self.protocol == Protocol::Explicit {
            self.init(true).await?;
        }
        Ok(())
    }

    async fn end(&mut self, commits: bool) -> Result<(), Trouble> {
        let number = self.open.number;
        let bumps_epoch = self.protocol == Protocol::Implicit;
        let patience = if commits { self.waits() } else { self.patience() };
        // Whether nothing can have happened yet, nor can any more.
        let mut is_clean = true;
        loop {
            let broker = self.network.coordinator(&self.id.clone()).await;
            let (id, who) = (self.id.clone(), self.who());
            let heard = self.network.ask(&broker, move |broker| {
                let id = id.clone();
                async move { broker.transactions.end(&id, who, commits, bumps_epoch).await }.boxed()
            });
            let Heard { answer, has_echo } = heard.await;
            match answer {
                Some(Ok(identity)) => {
                    let ending = if commits { Ending::Committed } else { Ending::Aborted };
                    self.ledger.end(number, ending);
                    self.be(identity);
                    return Ok(());
                }
                Some(Err(error)) => {
                    let verdict = judge(&error);
                    if verdict != Verdict::Again && commits && is_clean && !has_echo {
                        self.ledger.end(number, Ending::Aborted);
                    }
                    self.unless_again("end", &error, verdict)?;
                    is_clean &= !has_echo && matches!(error, TransactionError::NotAvailable);
                }
                None => is_clean &= !has_echo,
            }
            patience.spend(self).await?;
        }
    }

    /// After trouble: aborts, or finds out whether it may go on. If not, there has to be another
    /// producer.
    pub async fn recover(&mut self, trouble: Trouble) -> Result<(), Trouble> {
        self.say(&format!("#{} {trouble:?}", self.open.number));
        match trouble {
            Trouble::Fenced => self.init(true).await,
            Trouble::Abort => match self.abort().await {
                Err(Trouble::Fenced) => self.init(true).await,
                done => done,
            },
            // Of a commit it may be that nobody knows: only a new epoch tells.
            Trouble::GaveUp if self.network.random.random_bool(0.5) => self.init(true).await,
            Trouble::GaveUp => Err(trouble),
        }
    }
}

struct Pending {
    partition: TopicPartition,
    batch: PendingBatch,
    /// Its records in the ledger.
    places: Vec<usize>,
}

/// How long somebody goes on trying.
struct Patience {
    ends_at: Instant,
}

impl Patience {
    async fn spend(&self, producer: &mut Producer) -> Result<(), Trouble> {
        if Instant::now() >= self.ends_at {
            return Err(Trouble::GaveUp);
        }
        producer.network.back_off().await;
        Ok(())
    }
}

fn committed_offset(step: &Step) -> CommittedOffset {
    CommittedOffset {
        partition: step.partition,
        offset: Offset(step.to),
        leader_epoch: 0,
        metadata: String::new(),
    }
}

fn pending_batch(
    values: &[Bytes],
    who: ProducerIdAndEpoch,
    sequence: i32,
    protocol: Protocol,
) -> PendingBatch {
    let spec = BatchSpec::of(values.iter().cloned());
    let bytes = spec.by(who.id.0, who.epoch, sequence).transactional().encode();
    let transaction = match protocol {
        Protocol::Explicit => BatchTransaction::Added,
        Protocol::Implicit => BatchTransaction::Implicit,
    };
    let summary = BatchSummary {
        bytes: u32::try_from(bytes.len()).unwrap(),
        records: u32::try_from(values.len()).unwrap(),
        max_timestamp: 1_700_000_000_000,
        producer: Some(BatchProducer {
            id: who.id,
            epoch: who.epoch,
            base_sequence: sequence,
            transaction,
        }),
    };
    PendingBatch { bytes, summary, compressed: false }
}
