//! Transactions: what a transactional id stands for, and what is open under it (KIP-98).
//!
//! A transaction ends in one entry: its markers are written, its positions become the groups', its
//! partitions' last stable offsets move, all in one step of [`State::apply`]. So there is no state
//! in between that a client could meet, and nothing to coordinate: who coordinates is only whom
//! clients ask.
//!
//! - A transactional id has one producer id and epoch at a time. What comes with another is fenced.
//! - Transactions are numbered. Clients of the first protocol keep their epoch from one transaction
//!   to the next; a change that was meant for an earlier one, and comes late, names its number.
//! - Positions in a group are staged here, and become the group's when the transaction is
//!   committed. One that is committed to the same partition meanwhile, without a transaction, is
//!   newer.
//! - **TXN-1** a partition's open transactions are exactly those that have records in it, each with
//!   the offset of its first record.

use std::collections::{BTreeMap, BTreeSet};

use odradek_protocol::id::{Offset, ProducerId, TopicId, TopicPartition};

use super::State;
use crate::command::{
    BatchProducer, BatchTransaction, CommittedOffset, Outcome, ProducerIdAndEpoch, Rejection,
    TransactionChange,
};

mod ending;
mod staging;

use ending::Ending;

/// The last epoch that a producer id is given out with. The one after it is only used to fence.
pub const EPOCH_MAX: i16 = i16::MAX - 1;

/// Fewer transactional ids than this are never looked through for expired ones.
const PURGE_AT_MIN: u64 = 64;

/// What is known of a transactional id.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Transactional {
    /// Whom it stands for.
    pub producer: ProducerIdAndEpoch,
    /// Whom it stood for before, if its client may not have heard of the change yet and asks again.
    pub previous: Option<ProducerIdAndEpoch>,
    /// How long its transactions may last, in milliseconds.
    pub timeout_ms: u32,
    /// The number of the transaction that is open, or comes next. No number is used twice.
    pub transaction: u64,
    /// Where it stands.
    pub phase: Phase,
    /// Log time of its last change, in milliseconds since the Unix epoch.
    pub last_ms: i64,
}

/// Where a transactional id stands.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Phase {
    /// Nothing was done with its epoch yet.
    Empty,
    /// A transaction is open.
    Ongoing(Ongoing),
    /// The last transaction was committed.
    Committed,
    /// The last transaction was aborted.
    Aborted,
}

/// An open transaction.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Ongoing {
    /// Log time at which it began, in milliseconds since the Unix epoch.
    pub started_ms: i64,
    /// Its partitions, and where its first record is in those that have one.
    pub partitions: BTreeMap<TopicPartition, Option<Offset>>,
    /// Its groups, and the positions that it has for them.
    pub groups: BTreeMap<String, BTreeMap<TopicPartition, CommittedOffset>>,
}

impl Transactional {
    /// The transaction that is open.
    pub fn ongoing(&self) -> Option<&Ongoing> {
        match &self.phase {
            Phase::Ongoing(ongoing) => Some(ongoing),
            _ => None,
        }
    }

    /// Whether `producer` is whom it stands for.
    fn check(&self, producer: ProducerIdAndEpoch) -> Result<(), Rejection> {
        if self.producer.id != producer.id {
            return Err(Rejection::UnknownProducer);
        }
        if self.producer.epoch != producer.epoch {
            let (epoch, current) = (producer.epoch, self.producer.epoch);
            return Err(Rejection::ProducerFenced { epoch, current });
        }
        Ok(())
    }

    fn check_number(&self, transaction: u64) -> Result<(), Rejection> {
        if self.transaction != transaction {
            let current = self.transaction;
            return Err(Rejection::TransactionMoved { asked: transaction, current });
        }
        Ok(())
    }
}

/// The transactional ids.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Transactions {
    pub(crate) by_id: BTreeMap<String, Transactional>,
    pub(crate) last_number: u64,
    /// How many there may be before expired ones are looked for: see [`super::producers`].
    pub(crate) purge_at: u64,
    /// Whom each producer id belongs to.
    by_producer: BTreeMap<ProducerId, String>,
    /// Who has a transaction open.
    ongoing: BTreeSet<ProducerId>,
    /// By group, who has staged positions in it.
    staged: BTreeMap<String, BTreeSet<ProducerId>>,
}

impl Default for Transactions {
    fn default() -> Self {
        Self {
            by_id: BTreeMap::new(),
            last_number: 0,
            purge_at: PURGE_AT_MIN,
            by_producer: BTreeMap::new(),
            ongoing: BTreeSet::new(),
            staged: BTreeMap::new(),
        }
    }
}

impl Transactions {
    /// A transactional id, if it is known.
    pub fn get(&self, transactional_id: &str) -> Option<&Transactional> {
        self.by_id.get(transactional_id)
    }

    /// The number of the transaction that a request of this producer is about.
    pub fn number_for(
        &self,
        transactional_id: &str,
        producer: ProducerIdAndEpoch,
    ) -> Result<u64, Rejection> {
        let found = self.get(transactional_id).ok_or(Rejection::UnknownProducer)?;
        found.check(producer)?;
        Ok(found.transaction)
    }

    /// The same, of a request that can only be about a transaction that is open: `None` if there
    /// is none. The next one has its number already, and must not be taken for it.
    pub fn open_number_for(
        &self,
        transactional_id: &str,
        producer: ProducerIdAndEpoch,
    ) -> Result<Option<u64>, Rejection> {
        let number = self.number_for(transactional_id, producer)?;
        let is_open = self.get(transactional_id).is_some_and(|it| it.ongoing().is_some());
        Ok(is_open.then_some(number))
    }

    /// All transactional ids.
    pub fn iter(&self) -> impl Iterator<Item = (&String, &Transactional)> {
        self.by_id.iter()
    }

    /// Whom a producer id belongs to, if to a transactional id that has it now.
    pub fn of_producer(&self, producer: ProducerId) -> Option<(&String, &Transactional)> {
        let id = self.by_producer.get(&producer)?;
        self.by_id.get_key_value(id)
    }

    /// Those with an open transaction.
    pub fn ongoing(&self) -> impl Iterator<Item = (&String, &Transactional)> {
        self.ongoing.iter().filter_map(|producer| self.of_producer(*producer))
    }

    /// Puts a transactional id in as it is: for a state that is read back.
    pub(crate) fn insert(&mut self, id: String, transactional: Transactional) {
        let producer = transactional.producer.id;
        if let Some(ongoing) = transactional.ongoing() {
            self.ongoing.insert(producer);
            for (group, offsets) in &ongoing.groups {
                if !offsets.is_empty() {
                    self.staged.entry(group.clone()).or_default().insert(producer);
                }
            }
        }
        self.by_producer.insert(producer, id.clone());
        self.by_id.insert(id, transactional);
    }

    /// Whether a batch may be appended to the transaction of its producer, or beside it.
    pub(crate) fn admit(
        &self,
        partition: TopicPartition,
        batch: &BatchProducer,
    ) -> Result<(), Rejection> {
        let found = self.of_producer(batch.id).map(|(_, found)| found);
        let ongoing = found.and_then(Transactional::ongoing);
        if batch.transaction == BatchTransaction::None {
            let first = ongoing.and_then(|it| it.partitions.get(&partition).copied().flatten());
            return if first.is_some() { Err(Rejection::InvalidTransactionState) } else { Ok(()) };
        }
        let is_in = ongoing.is_some_and(|it| it.partitions.contains_key(&partition));
        if batch.transaction == BatchTransaction::Added && !is_in {
            return Err(Rejection::NotInTransaction);
        }
        Ok(())
    }

    /// Whether a transactional batch comes from whom its producer id stands for.
    pub(crate) fn check(&self, batch: &BatchProducer) -> Result<(), Rejection> {
        if batch.transaction == BatchTransaction::None {
            return Ok(());
        }
        let (_, found) = self.of_producer(batch.id).ok_or(Rejection::UnknownProducer)?;
        found.check(batch.id_and_epoch())
    }

    /// A batch that was admitted is appended at `base`. Returns whether it is the first of its
    /// transaction in the partition.
    pub(crate) fn append(
        &mut self,
        partition: TopicPartition,
        batch: &BatchProducer,
        base: Offset,
        now_ms: i64,
    ) -> bool {
        if batch.transaction == BatchTransaction::None {
            return false;
        }
        let Some(id) = self.by_producer.get(&batch.id).cloned() else { return false };
        let Some(ongoing) = self.begin(&id, now_ms) else { return false };
        let first = ongoing.partitions.entry(partition).or_default();
        let is_first = first.is_none();
        first.get_or_insert(base);
        is_first
    }

    /// The open transaction of a transactional id; begins one if there is none.
    fn begin(&mut self, id: &str, now_ms: i64) -> Option<&mut Ongoing> {
        let transactional = self.by_id.get_mut(id)?;
        transactional.last_ms = now_ms;
        if transactional.ongoing().is_none() {
            self.ongoing.insert(transactional.producer.id);
            transactional.phase =
                Phase::Ongoing(Ongoing { started_ms: now_ms, ..Ongoing::default() });
        }
        match &mut transactional.phase {
            Phase::Ongoing(ongoing) => Some(ongoing),
            _ => None,
        }
    }

    /// Partitions of a topic are a part of no transaction any more: it is gone.
    pub(crate) fn forget_topic(&mut self, topic: TopicId) {
        for producer in self.ongoing.clone() {
            let mut emptied = Vec::new();
            let Some(ongoing) = self.ongoing_mut(producer) else { continue };
            ongoing.partitions.retain(|partition, _| partition.topic != topic);
            for (group, staged) in &mut ongoing.groups {
                let was_empty = staged.is_empty();
                staged.retain(|partition, _| partition.topic != topic);
                if staged.is_empty() && !was_empty {
                    emptied.push(group.clone());
                }
            }
            emptied.iter().for_each(|group| self.unstage(group, producer));
        }
    }

    fn ongoing_mut(&mut self, producer: ProducerId) -> Option<&mut Ongoing> {
        let id = self.by_producer.get(&producer)?;
        match &mut self.by_id.get_mut(id)?.phase {
            Phase::Ongoing(ongoing) => Some(ongoing),
            _ => None,
        }
    }

    fn next_number(&mut self) -> u64 {
        self.last_number += 1;
        self.last_number
    }

    /// Forgets transactional ids without an open transaction that were not used since `oldest_ms`
    /// (`transactional.id.expiration.ms`): their producers are told so, and get another producer
    /// id when they begin anew.
    fn purge(&mut self, oldest_ms: i64) {
        let count = |ids: &BTreeMap<_, _>| u64::try_from(ids.len()).unwrap_or(u64::MAX);
        if count(&self.by_id) < self.purge_at {
            return;
        }
        let by_producer = &mut self.by_producer;
        self.by_id.retain(|_, it| {
            let stays = it.ongoing().is_some() || it.last_ms >= oldest_ms;
            if !stays {
                by_producer.remove(&it.producer.id);
            }
            stays
        });
        self.purge_at = (count(&self.by_id) * 2).max(PURGE_AT_MIN);
    }
}

impl State {
    pub(super) fn change_transaction(
        &mut self,
        id: &str,
        change: &TransactionChange,
        touched: &mut Vec<TopicPartition>,
    ) -> Outcome {
        let changed = match change {
            TransactionChange::InitProducer { timeout_ms, expected } => {
                return self
                    .init_producer(id, *timeout_ms, *expected, touched)
                    .map_or_else(Outcome::Rejected, Outcome::Producer);
            }
            TransactionChange::End { producer, transaction, commits, bumps_epoch } => {
                return self
                    .end_transaction(id, *producer, *transaction, (*commits, *bumps_epoch), touched)
                    .map_or_else(Outcome::Rejected, Outcome::Producer);
            }
            TransactionChange::Add { producer, transaction, partitions, groups } => {
                let partitions = partitions.iter().flat_map(|(topic, partitions)| {
                    partitions
                        .iter()
                        .map(|partition| TopicPartition { topic: *topic, partition: *partition })
                });
                self.add_to_transaction(id, *producer, *transaction, partitions.collect(), groups)
            }
            TransactionChange::StageOffsets(staged) => self.stage_offsets(id, staged),
            TransactionChange::Abort { transaction } => {
                self.abort_transaction(id, *transaction, touched)
            }
        };
        changed.map_or_else(Outcome::Rejected, |()| Outcome::Done)
    }

    fn init_producer(
        &mut self,
        id: &str,
        timeout_ms: u32,
        expected: Option<ProducerIdAndEpoch>,
        touched: &mut Vec<TopicPartition>,
    ) -> Result<ProducerIdAndEpoch, Rejection> {
        if id.is_empty() || timeout_ms == 0 {
            return Err(Rejection::Malformed("a transactional id has a name and a timeout"));
        }
        let now_ms = self.log_time_ms;
        let Some(found) = self.transactions.by_id.get(id) else {
            return self.first_producer(id, timeout_ms);
        };
        if let Some(expected) = expected
            && expected != found.producer
        {
            if Some(expected) == found.previous && found.ongoing().is_none() {
                return Ok(found.producer);
            }
            let (epoch, current) = (expected.epoch, found.producer.epoch);
            return Err(Rejection::ProducerFenced { epoch, current });
        }
        self.check_epochs(found)?;
        self.finish(id, Ending::ABORT, touched);
        let producer = self.bump_epoch(id)?;
        let transaction = self.transactions.next_number();
        if let Some(transactional) = self.transactions.by_id.get_mut(id) {
            transactional.previous = expected;
            transactional.timeout_ms = timeout_ms;
            transactional.transaction = transaction;
            transactional.phase = Phase::Empty;
            transactional.last_ms = now_ms;
        }
        Ok(producer)
    }

    fn first_producer(
        &mut self,
        id: &str,
        timeout_ms: u32,
    ) -> Result<ProducerIdAndEpoch, Rejection> {
        let producer = self.new_producer()?;
        let oldest_ms = self.log_time_ms.saturating_sub(self.configs.transactional_expiration_ms());
        self.transactions.purge(oldest_ms);
        let transactional = Transactional {
            producer,
            previous: None,
            timeout_ms,
            transaction: self.transactions.next_number(),
            phase: Phase::Empty,
            last_ms: self.log_time_ms,
        };
        self.transactions.insert(id.to_owned(), transactional);
        Ok(producer)
    }

    /// A producer id that nobody had before.
    fn new_producer(&mut self) -> Result<ProducerIdAndEpoch, Rejection> {
        let id = self.next_producer_id;
        self.next_producer_id =
            id.checked_add(1).ok_or(Rejection::Malformed("producer ids are used up"))?;
        Ok(ProducerIdAndEpoch { id: ProducerId(id), epoch: 0 })
    }

    /// Whether there is an epoch left, or a producer id.
    fn check_epochs(&self, it: &Transactional) -> Result<(), Rejection> {
        let is_left = it.producer.epoch < EPOCH_MAX || self.next_producer_id < i64::MAX;
        is_left.then_some(()).ok_or(Rejection::Malformed("producer ids are used up"))
    }

    /// Gives a transactional id its next epoch, or another producer id if all epochs are used up.
    fn bump_epoch(&mut self, id: &str) -> Result<ProducerIdAndEpoch, Rejection> {
        let found = self.transactions.by_id.get(id).ok_or(Rejection::UnknownProducer)?;
        let mut producer = found.producer;
        if producer.epoch >= EPOCH_MAX {
            producer = self.new_producer()?;
        } else {
            producer.epoch += 1;
        }
        if let Some(transactional) = self.transactions.by_id.get_mut(id) {
            self.transactions.by_producer.remove(&transactional.producer.id);
            self.transactions.by_producer.insert(producer.id, id.to_owned());
            transactional.producer = producer;
        }
        Ok(producer)
    }

    fn add_to_transaction(
        &mut self,
        id: &str,
        producer: ProducerIdAndEpoch,
        transaction: u64,
        partitions: Vec<TopicPartition>,
        groups: &[String],
    ) -> Result<(), Rejection> {
        let found = self.transactions.by_id.get(id).ok_or(Rejection::UnknownProducer)?;
        found.check(producer)?;
        found.check_number(transaction)?;
        for partition in &partitions {
            self.topics.check(*partition)?;
        }
        if let Some(ongoing) = self.transactions.begin(id, self.log_time_ms) {
            for partition in partitions {
                ongoing.partitions.entry(partition).or_default();
            }
            for group in groups {
                ongoing.groups.entry(group.clone()).or_default();
            }
        }
        Ok(())
    }
}
