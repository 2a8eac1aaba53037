//! Transactions, in the most naive way: every batch remembers the number of the transaction it came
//! with, every number its fate, and what a partition shows is worked out from all of them.

use std::collections::{BTreeMap, BTreeSet};

use odradek_protocol::id::{Offset, ProducerId, TopicId, TopicPartition};

use super::{Model, ModelBatch, ModelPartition, Place, find, newest_epoch};
use crate::command::{
    BatchOutcome, BatchProducer, BatchSummary, BatchTransaction, CommittedOffset, Outcome,
    ProducerIdAndEpoch, Rejection, StagedOffsets, TransactionChange,
};
use crate::state::State;
use crate::state::partition::{AbortedTransaction, Content, Extent, Marker, Partition};
use crate::state::transactions::Phase;

const EPOCH_LAST: i16 = 32_766;
const MARKER_BYTES: u32 = 78;

#[derive(Clone, Debug, Default)]
pub(super) struct ModelTransactions {
    ids: BTreeMap<String, ModelId>,
    numbers: u64,
    /// By number, who had the transaction, and whether it was committed.
    ended: BTreeMap<u64, (ProducerId, bool)>,
}

#[derive(Clone, Debug)]
struct ModelId {
    producer: ProducerIdAndEpoch,
    previous: Option<ProducerIdAndEpoch>,
    timeout_ms: u32,
    number: u64,
    last: Last,
    open: Option<ModelOpen>,
    changed_ms: i64,
}

/// What became of the last transaction.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Last {
    NeverWas,
    Committed,
    Aborted,
}

#[derive(Clone, Debug, Default)]
struct ModelOpen {
    since_ms: i64,
    partitions: BTreeSet<TopicPartition>,
    groups: BTreeSet<String>,
    staged: Vec<(String, CommittedOffset)>,
}

impl ModelId {
    fn is(&self, producer: ProducerIdAndEpoch) -> Result<(), Rejection> {
        match producer {
            it if it.id != self.producer.id => Err(Rejection::UnknownProducer),
            it if it.epoch != self.producer.epoch => Err(self.fences(it)),
            _ => Ok(()),
        }
    }

    fn fences(&self, producer: ProducerIdAndEpoch) -> Rejection {
        Rejection::ProducerFenced { epoch: producer.epoch, current: self.producer.epoch }
    }

    fn is_at(&self, number: u64) -> Result<(), Rejection> {
        let (asked, current) = (number, self.number);
        if asked == current { Ok(()) } else { Err(Rejection::TransactionMoved { asked, current }) }
    }

    fn opened(&mut self, now_ms: i64) -> &mut ModelOpen {
        self.changed_ms = now_ms;
        self.open.get_or_insert_with(|| ModelOpen { since_ms: now_ms, ..ModelOpen::default() })
    }
}

impl ModelTransactions {
    fn get(&self, name: &str) -> Result<&ModelId, Rejection> {
        self.ids.get(name).ok_or(Rejection::UnknownProducer)
    }

    fn of(&self, producer: ProducerId) -> Option<&ModelId> {
        self.ids.values().find(|it| it.producer.id == producer)
    }

    fn number(&mut self) -> u64 {
        self.numbers += 1;
        self.numbers
    }

    /// Why a batch is not taken, before its sequence is looked at; what was sent before is found in
    /// between.
    pub(super) fn refuse(
        &self,
        at: TopicPartition,
        history: &[ModelBatch],
        batch: BatchProducer,
        duplicate: Option<BatchOutcome>,
    ) -> Option<BatchOutcome> {
        let refused = |rejection| Some(BatchOutcome::Rejected(rejection));
        let found = self.of(batch.id);
        let open = found.and_then(|it| it.open.as_ref().map(|open| (it.number, open)));
        if batch.transaction == BatchTransaction::None {
            let has_begun = |(number, _)| history.iter().any(|it| it.transaction == Some(number));
            let is_beside = open.is_some_and(has_begun);
            let beside = BatchOutcome::Rejected(Rejection::InvalidTransactionState);
            return duplicate.or_else(|| is_beside.then_some(beside));
        }
        let Some(found) = found else { return refused(Rejection::UnknownProducer) };
        if let Err(rejection) = found.is(batch.id_and_epoch()) {
            return refused(rejection);
        }
        let is_in = open.is_some_and(|(_, open)| open.partitions.contains(&at));
        let is_implicit = batch.transaction == BatchTransaction::Implicit;
        let out = !is_in && !is_implicit;
        let unknown = is_implicit && newest_epoch(history, batch.id).is_none();
        let out_of_order =
            Rejection::OutOfOrderSequence { found: batch.base_sequence, expected: 0 };
        let begins_late = (unknown && batch.base_sequence != 0).then_some(out_of_order);
        let refused = if out { Some(Rejection::NotInTransaction) } else { begins_late };
        duplicate.or_else(|| refused.map(BatchOutcome::Rejected))
    }

    /// The number of the transaction that a batch which is taken belongs to.
    pub(super) fn take(
        &mut self,
        at: TopicPartition,
        summary: &BatchSummary,
        now_ms: i64,
    ) -> Option<u64> {
        let producer = summary.producer?;
        if producer.transaction == BatchTransaction::None {
            return None;
        }
        let found = self.ids.values_mut().find(|it| it.producer.id == producer.id)?;
        found.opened(now_ms).partitions.insert(at);
        Some(found.number)
    }

    pub(super) fn forget_topic(&mut self, topic: TopicId) {
        for open in self.ids.values_mut().filter_map(|it| it.open.as_mut()) {
            open.partitions.retain(|it| it.topic != topic);
            open.staged.retain(|(_, offset)| offset.partition.topic != topic);
        }
    }

    pub(super) fn forget_group(&mut self, group: &str) {
        for open in self.ids.values_mut().filter_map(|it| it.open.as_mut()) {
            open.staged.retain(|(staged_in, _)| staged_in != group);
        }
    }

    /// What is staged is older than these.
    pub(super) fn supersede(&mut self, group: &str, offsets: &[&CommittedOffset]) {
        for open in self.ids.values_mut().filter_map(|it| it.open.as_mut()) {
            open.staged.retain(|(staged_in, staged)| {
                staged_in != group || offsets.iter().all(|it| it.partition != staged.partition)
            });
        }
    }

    pub(super) fn compare(&self, state: &State) {
        let found: Vec<&String> = state.transactions().iter().map(|(id, _)| id).collect();
        assert_eq!(found, Vec::from_iter(self.ids.keys()));
        let open = self.ids.iter().filter(|(_, it)| it.open.is_some()).map(|(id, _)| id);
        let ongoing: BTreeSet<_> = state.transactions().ongoing().map(|(id, _)| id).collect();
        assert_eq!(ongoing, open.collect());
        for (name, expected) in &self.ids {
            let id = state.transactions().get(name).unwrap();
            assert_eq!(id.producer, expected.producer, "{name}");
            assert_eq!(id.previous, expected.previous, "{name}");
            assert_eq!(id.timeout_ms, expected.timeout_ms, "{name}");
            assert_eq!(id.transaction, expected.number, "{name}");
            assert_eq!(id.last_ms, expected.changed_ms, "{name}");
            let last = match (&id.phase, &expected.open) {
                (Phase::Ongoing(_), Some(_)) => expected.last,
                (Phase::Empty, None) => Last::NeverWas,
                (Phase::Committed, None) => Last::Committed,
                (Phase::Aborted, None) => Last::Aborted,
                (found, expected) => panic!("{found:?} where the model has {expected:?}"),
            };
            assert_eq!(last, expected.last, "{name}");
            let (Some(found), Some(open)) = (id.ongoing(), &expected.open) else { continue };
            assert_eq!(found.started_ms, open.since_ms);
            let partitions: BTreeSet<_> = found.partitions.keys().copied().collect();
            assert_eq!(partitions, open.partitions, "{name}");
            assert_eq!(found.groups.keys().cloned().collect::<BTreeSet<_>>(), open.groups);
            let latest = |(group, offset): &(String, CommittedOffset)| {
                ((group.clone(), offset.partition), offset.clone())
            };
            let staged: BTreeMap<_, _> = open.staged.iter().map(latest).collect();
            let found = found.groups.iter().flat_map(|(group, offsets)| {
                offsets.iter().map(|(at, offset)| ((group.clone(), *at), offset.clone()))
            });
            assert_eq!(found.collect::<BTreeMap<_, _>>(), staged, "{name}");
        }
    }

    fn is_committed(&self, batch: &ModelBatch) -> bool {
        let fate = batch.transaction.map(|number| self.ended.get(&number));
        fate.is_none_or(|fate| fate.is_some_and(|(_, commits)| *commits))
    }

    fn is_open(&self, batch: &ModelBatch) -> bool {
        batch.transaction.is_some_and(|number| !self.ended.contains_key(&number))
    }

    /// Where reading of what is committed ends.
    pub(super) fn stable(&self, partition: &ModelPartition) -> i64 {
        let first = partition.history.iter().find(|batch| self.is_open(batch));
        match first {
            Some(first) => first.base.max(partition.log_start),
            None => partition.end(),
        }
    }

    /// What a branch has that leaves a partition at `end`: transactions that are aborted behind it
    /// end there.
    pub(super) fn branch(&self, own: TopicId, parent: &ModelPartition, end: i64) -> ModelPartition {
        let mut history: Vec<ModelBatch> =
            parent.history.iter().filter(|batch| batch.base < end).copied().collect();
        let mut torn = BTreeMap::new();
        for batch in &mut history {
            batch.is_inherited = true;
            let Some(number) = batch.transaction else { continue };
            if self.ended.get(&number).is_none_or(|(_, commits)| *commits) {
                batch.transaction = None;
            } else if let Place::Block { .. } = batch.place {
                torn.entry(number).or_insert(batch.base);
            } else {
                torn.remove(&number);
            }
        }
        let mut torn: Vec<(u64, i64)> = torn.into_iter().collect();
        torn.sort_by_key(|(_, first)| *first);
        if let Some(last) = history.last_mut().filter(|last| last.end() > end) {
            last.summary.records = u32::try_from(end - last.base).unwrap();
        }
        let mut pieces: Vec<Extent> =
            parent.pieces.iter().filter(|piece| piece.base.0 < end).copied().collect();
        if let Some(last) = pieces.last_mut().filter(|last| last.end().0 > end) {
            last.records = u32::try_from(end - last.base.0).unwrap();
        }
        let (log_start, cleaned) = (parent.log_start, parent.cleaned.min(end));
        let inherited = parent.cuts.iter().copied().filter(|cut| *cut < end);
        let cuts = inherited.chain([end]).collect();
        let mut branch = ModelPartition { log_start, history, pieces, cleaned, cuts };
        for (number, _) in torn {
            let producer = ProducerIdAndEpoch { id: self.ended[&number].0, epoch: 0 };
            branch.end_transaction(own, number, (producer, false), -1);
        }
        branch
    }

    pub(super) fn compare_partition(&self, found: &Partition, expected: &ModelPartition) {
        assert_eq!(found.last_stable_offset().0, self.stable(expected));
        for extent in found.extents() {
            let Content::Marker(marker) = extent.content else { continue };
            let ended = expected.history.iter().find(|batch| batch.base == extent.base.0).unwrap();
            let Place::Marker { producer, commits } = ended.place else { panic!("{ended:?}") };
            assert_eq!(marker, Marker { producer, commits });
        }
    }

    /// The fates of all the transactions with records in a partition that were aborted: producer,
    /// first record, marker.
    fn aborted(&self, partition: &ModelPartition) -> Vec<(ProducerId, i64, i64)> {
        let fate = |(number, (producer, commits)): (&u64, &(ProducerId, bool))| {
            let mut batches =
                partition.history.iter().filter(|batch| batch.transaction == Some(*number));
            let first = batches.next().filter(|_| !commits)?;
            Some((*producer, first.base, batches.next_back()?.base))
        };
        let mut aborted: Vec<_> = self.ended.iter().filter_map(fate).collect();
        aborted.sort_by_key(|(_, _, last)| *last);
        aborted
    }

    /// Below what compaction has finished nothing is left of aborted transactions: whatever stands
    /// there instead is part of none.
    pub(super) fn forget_aborted(&self, partition: &mut ModelPartition) {
        for (producer, first, last) in self.aborted(partition) {
            let gone = |batch: &&mut ModelBatch| {
                let number = batch.transaction.and_then(|number| self.ended.get(&number));
                let is_its = number.is_some_and(|(id, commits)| *id == producer && !commits);
                is_its && (first..=last).contains(&batch.base)
            };
            if last < partition.cleaned {
                partition.history.iter_mut().filter(gone).for_each(|it| it.transaction = None);
            }
        }
    }

    /// Whether a consumer is told of exactly the aborted transactions that reach into what it
    /// reads, whatever it reads, and so sees exactly what was committed.
    pub(super) fn compare_reads(&self, found: &Partition, expected: &ModelPartition) {
        let aborted = self.aborted(expected);
        let log_start = expected.log_start;
        let offsets: BTreeSet<i64> = expected
            .history
            .iter()
            .flat_map(|batch| [batch.base, batch.end() - 1, batch.end()])
            .filter(|offset| *offset > log_start)
            .chain([log_start])
            .collect();
        for from in &offsets {
            for to in offsets.range(from + 1..) {
                let listed = found.aborted_between(Offset(*from), Offset(*to));
                let listed: Vec<_> =
                    listed.map(|it| (it.producer, it.first.0, it.last.0)).collect();
                let reach = |it: &&(_, i64, i64)| it.2 >= *from && it.1 < *to;
                let expected: Vec<_> = aborted.iter().filter(reach).copied().collect();
                assert_eq!(listed, expected, "from {from} to {to}");
            }
            self.compare_read(found, expected, *from);
        }
    }

    /// Reads like a consumer that reads what is committed.
    fn compare_read(&self, found: &Partition, expected: &ModelPartition, from: i64) {
        let stable = self.stable(expected);
        let readable = expected.history.iter();
        // Only below the log start offset may a transaction begin in what is read.
        let readable = readable.filter(|it| from < stable && it.end() > from && it.base < stable);
        let mut ahead: Vec<AbortedTransaction> =
            found.aborted_between(Offset(from), Offset(stable)).copied().collect();
        ahead.sort_by_key(|it| std::cmp::Reverse(it.first));
        let mut skipped = BTreeSet::new();
        let mut seen = Vec::new();
        for batch in readable.clone() {
            while let Some(next) = ahead.pop_if(|it| it.first.0 < batch.end()) {
                skipped.insert(next.producer);
            }
            if let Place::Marker { producer, commits } = batch.place {
                if !commits {
                    skipped.remove(&producer.id);
                }
                continue;
            }
            let producer = batch.summary.producer;
            let producer = producer.filter(|it| it.transaction != BatchTransaction::None);
            if producer.is_none_or(|it| !skipped.contains(&it.id)) {
                seen.push(batch.base);
            }
        }
        let records = readable.filter(|it| matches!(it.place, Place::Block { .. }));
        let committed = records.filter(|it| self.is_committed(it)).map(|it| it.base);
        assert_eq!(seen, committed.collect::<Vec<_>>(), "from {from} on");
    }
}

impl ModelPartition {
    fn end_transaction(
        &mut self,
        owner: TopicId,
        number: u64,
        (producer, commits): (ProducerIdAndEpoch, bool),
        max_timestamp: i64,
    ) {
        let summary =
            BatchSummary { bytes: MARKER_BYTES, records: 1, max_timestamp, producer: None };
        let (base, content) = (self.end(), Content::Marker(Marker { producer, commits }));
        self.pieces.push(Extent { base: Offset(base), records: 1, max_timestamp, content });
        self.history.push(ModelBatch {
            base,
            summary,
            place: Place::Marker { producer, commits },
            transaction: Some(number),
            is_inherited: false,
            owner,
        });
    }
}

impl Model {
    pub(super) fn change_transaction(&mut self, name: &str, change: &TransactionChange) -> Outcome {
        let producer = match change {
            TransactionChange::InitProducer { timeout_ms, expected } => {
                self.init_producer(name, *timeout_ms, *expected).map(Some)
            }
            TransactionChange::End { producer, transaction, commits, bumps_epoch } => {
                self.end(name, *producer, *transaction, (*commits, *bumps_epoch)).map(Some)
            }
            TransactionChange::Add { producer, transaction, partitions, groups } => {
                let known = self.transactions.get(name).and_then(|id| {
                    id.is(*producer)?;
                    id.is_at(*transaction)
                });
                let mut added = Vec::new();
                for (topic, indexes) in partitions {
                    let at = |index: &i32| TopicPartition { topic: *topic, partition: *index };
                    added.extend(indexes.iter().map(at));
                }
                known.and_then(|()| self.add(name, added, groups)).map(|()| None)
            }
            TransactionChange::StageOffsets(staged) => self.stage(name, staged).map(|()| None),
            TransactionChange::Abort { transaction } => {
                self.abort(name, *transaction).map(|()| None)
            }
        };
        match producer {
            Ok(Some(producer)) => Outcome::Producer(producer),
            Ok(None) => Outcome::Done,
            Err(rejection) => Outcome::Rejected(rejection),
        }
    }

    fn new_producer(&mut self) -> ProducerIdAndEpoch {
        let id = ProducerId(self.producer_ids);
        self.producer_ids += 1;
        ProducerIdAndEpoch { id, epoch: 0 }
    }

    fn init_producer(
        &mut self,
        name: &str,
        timeout_ms: u32,
        expected: Option<ProducerIdAndEpoch>,
    ) -> Result<ProducerIdAndEpoch, Rejection> {
        if name.is_empty() || timeout_ms == 0 {
            return Err(Rejection::Malformed(""));
        }
        let Some(id) = self.transactions.ids.get(name) else {
            let (producer, number) = (self.new_producer(), self.transactions.number());
            let (changed_ms, last) = (self.now_ms, Last::NeverWas);
            let (previous, open) = (None, None);
            let id = ModelId { producer, previous, timeout_ms, number, last, open, changed_ms };
            self.transactions.ids.insert(name.to_owned(), id);
            return Ok(producer);
        };
        match expected {
            Some(it) if it == id.producer => {}
            Some(it) if Some(it) == id.previous && id.open.is_none() => return Ok(id.producer),
            Some(it) => return Err(id.fences(it)),
            None => {}
        }
        self.close(name, false, true);
        let producer = self.bump(name, expected);
        let number = self.transactions.number();
        let id = self.transactions.ids.get_mut(name).unwrap();
        (id.timeout_ms, id.number, id.last) = (timeout_ms, number, Last::NeverWas);
        Ok(producer)
    }

    fn add(
        &mut self,
        name: &str,
        partitions: Vec<TopicPartition>,
        groups: &[String],
    ) -> Result<(), Rejection> {
        for at in &partitions {
            find(&mut self.topics, *at)?;
        }
        let open = self.transactions.ids.get_mut(name).unwrap().opened(self.now_ms);
        open.partitions.extend(partitions);
        open.groups.extend(groups.iter().cloned());
        Ok(())
    }

    fn stage(&mut self, name: &str, staged: &StagedOffsets) -> Result<(), Rejection> {
        let id = self.transactions.get(name)?;
        id.is(staged.producer)?;
        let is_in = id.open.as_ref().is_some_and(|open| open.groups.contains(&staged.group));
        if !is_in && !staged.is_implicit {
            return Err(Rejection::NotInTransaction);
        }
        id.is_at(staged.transaction)?;
        if let Some(committer) = &staged.committer {
            self.groups.may_commit(&staged.group, Some(committer))?;
        }
        let open = self.transactions.ids.get_mut(name).unwrap().opened(self.now_ms);
        open.groups.insert(staged.group.clone());
        for offset in &staged.offsets {
            if find(&mut self.topics, offset.partition).is_ok() {
                open.staged.push((staged.group.clone(), offset.clone()));
            }
        }
        Ok(())
    }

    /// The tables of KIP-98 and KIP-890.
    fn end(
        &mut self,
        name: &str,
        producer: ProducerIdAndEpoch,
        number: u64,
        (commits, bumps): (bool, bool),
    ) -> Result<ProducerIdAndEpoch, Rejection> {
        let id = self.transactions.get(name)?.clone();
        let is_retry = bumps && id.open.is_none() && id.previous == Some(producer);
        if !is_retry {
            id.is(producer)?;
        }
        if id.open.is_some() {
            id.is_at(number)?;
            self.close(name, commits, bumps);
            return Ok(if bumps { self.bump(name, Some(producer)) } else { id.producer });
        }
        match (bumps, is_retry, id.last, commits) {
            (false, _, Last::Committed, true) | (false, _, Last::Aborted, false) => Ok(id.producer),
            (true, true, Last::Committed, true) | (true, true, Last::Aborted, false) => {
                Ok(id.producer)
            }
            (true, true, Last::NeverWas, false) => Err(id.fences(producer)),
            (true, false, _, false) => {
                self.close(name, false, true);
                Ok(self.bump(name, Some(producer)))
            }
            _ => Err(Rejection::InvalidTransactionState),
        }
    }

    fn abort(&mut self, name: &str, number: u64) -> Result<(), Rejection> {
        let id = self.transactions.get(name)?.clone();
        id.is_at(number)?;
        if id.open.is_none() {
            return Err(Rejection::InvalidTransactionState);
        }
        self.close(name, false, true);
        self.bump(name, Some(id.producer));
        Ok(())
    }

    fn bump(&mut self, name: &str, previous: Option<ProducerIdAndEpoch>) -> ProducerIdAndEpoch {
        let ProducerIdAndEpoch { id, epoch } = self.transactions.ids[name].producer;
        let next = match epoch {
            EPOCH_LAST => self.new_producer(),
            epoch => ProducerIdAndEpoch { id, epoch: epoch + 1 },
        };
        let id = self.transactions.ids.get_mut(name).unwrap();
        (id.producer, id.previous) = (next, previous);
        next
    }

    fn close(&mut self, name: &str, commits: bool, raises: bool) {
        let next = self.transactions.number();
        let id = self.transactions.ids.get_mut(name).unwrap();
        let number = std::mem::replace(&mut id.number, next);
        id.changed_ms = self.now_ms;
        id.last = if commits { Last::Committed } else { Last::Aborted };
        let mut producer = id.producer;
        producer.epoch += i16::from(raises);
        let Some(open) = id.open.take() else { return };
        self.transactions.ended.insert(number, (producer.id, commits));
        for (id, topic) in &mut self.topics {
            for partition in &mut topic.partitions {
                if partition.history.iter().any(|it| it.transaction == Some(number)) {
                    partition.end_transaction(*id, number, (producer, commits), self.now_ms);
                }
            }
        }
        for (group, offset) in open.staged.into_iter().filter(|_| commits) {
            self.groups.store(&group, &offset, (self.now_ms, None));
        }
    }
}
