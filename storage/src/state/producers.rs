//! Idempotent producers: which batches a partition has seen (KIP-98, KIP-360).
//!
//! Duplicates and gaps are judged here, in the order of the log, so that two brokers which both got
//! the same retry can't both win. Producers are remembered for a time, and not too many of them:
//! programs that make a producer for each record would fill the memory of every broker.

use std::collections::{BTreeMap, VecDeque};

use odradek_protocol::id::{Offset, ProducerId};

use crate::command::{BatchProducer, BatchTransaction, Rejection};

/// How many batches of a producer are remembered: what a client may have in flight.
pub const BATCHES_REMEMBERED: usize = 5;

/// The producers of one partition.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Producers {
    pub(crate) by_id: BTreeMap<ProducerId, Producer>,
}

/// What a partition remembers of a producer.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Producer {
    /// Its newest epoch.
    pub epoch: i16,
    /// Log time of its last batch, in milliseconds since the Unix epoch.
    pub last_ms: i64,
    /// Its last batches, oldest first, at most [`BATCHES_REMEMBERED`].
    pub batches: VecDeque<SeenBatch>,
}

/// A batch that was appended.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct SeenBatch {
    /// Sequence number of its first record.
    pub first: i32,
    /// Sequence number of its last record.
    pub last: i32,
    /// Where it went.
    pub base: Offset,
}

impl Producers {
    /// The producers, by id.
    pub fn by_id(&self) -> &BTreeMap<ProducerId, Producer> {
        &self.by_id
    }

    /// Where a batch went that was sent before.
    pub(crate) fn find_duplicate(&self, batch: &BatchProducer, records: u32) -> Option<Offset> {
        let producer = self.by_id.get(&batch.id).filter(|it| it.epoch == batch.epoch)?;
        let last = last_sequence(batch.base_sequence, records);
        let same = |seen: &&SeenBatch| seen.first == batch.base_sequence && seen.last == last;
        producer.batches.iter().find(same).map(|seen| seen.base)
    }

    /// Whether a batch follows what was appended before.
    pub(crate) fn admit(&self, batch: &BatchProducer) -> Result<(), Rejection> {
        let found = batch.base_sequence;
        let Some(producer) = self.by_id.get(&batch.id) else {
            // Of others nothing may be known because it was forgotten. A client that has an epoch
            // for each transaction begins each at zero (KIP-890).
            let begins = batch.transaction != BatchTransaction::Implicit || found == 0;
            let error = Rejection::OutOfOrderSequence { found, expected: 0 };
            return if begins { Ok(()) } else { Err(error) };
        };
        if batch.epoch < producer.epoch {
            let (epoch, current) = (batch.epoch, producer.epoch);
            return Err(Rejection::ProducerFenced { epoch, current });
        }
        let expected = match producer.batches.back() {
            Some(newest) if batch.epoch == producer.epoch => next_sequence(newest.last),
            _ => 0,
        };
        if found != expected {
            return Err(Rejection::OutOfOrderSequence { found, expected });
        }
        Ok(())
    }

    /// Remembers a batch that was appended. Returns whether its producer is new here.
    pub(crate) fn remember(
        &mut self,
        batch: &BatchProducer,
        records: u32,
        base: Offset,
        now_ms: i64,
    ) -> bool {
        let count = self.by_id.len();
        let fresh = || Producer { epoch: batch.epoch, last_ms: now_ms, batches: VecDeque::new() };
        let producer = self.by_id.entry(batch.id).or_insert_with(fresh);
        if producer.epoch != batch.epoch {
            producer.epoch = batch.epoch;
            producer.batches.clear();
        }
        producer.last_ms = now_ms;
        if producer.batches.len() == BATCHES_REMEMBERED {
            producer.batches.pop_front();
        }
        producer.batches.push_back(SeenBatch {
            first: batch.base_sequence,
            last: last_sequence(batch.base_sequence, records),
            base,
        });
        self.by_id.len() > count
    }

    /// Forgets producers that have appended nothing since `oldest_ms`, unless `stays`. Returns how
    /// many are left.
    pub(crate) fn forget(&mut self, oldest_ms: i64, stays: impl Fn(ProducerId) -> bool) -> u64 {
        self.by_id.retain(|id, producer| producer.last_ms >= oldest_ms || stays(*id));
        self.count()
    }

    pub(crate) fn count(&self) -> u64 {
        u64::try_from(self.by_id.len()).unwrap_or(u64::MAX)
    }
}

/// Sequence numbers run from 0 to 2^31-1 and then from 0 again.
fn last_sequence(base: i32, records: u32) -> i32 {
    let last = i64::from(base) + i64::from(records) - 1;
    let wrapped = last % (i64::from(i32::MAX) + 1);
    i32::try_from(wrapped).unwrap_or(0)
}

fn next_sequence(last: i32) -> i32 {
    last.checked_add(1).unwrap_or(0)
}
