//! Idempotent producers: which batches a partition has seen (KIP-98, KIP-360).
//!
//! Duplicates and gaps are judged here, in the order of the log, so that two brokers which both got
//! the same retry can't both win.

use std::collections::{BTreeMap, VecDeque};

use odradek_protocol::id::{Offset, ProducerId};

use crate::command::{BatchOutcome, BatchProducer, Rejection};

/// How many batches of a producer are remembered: what a client may have in flight.
pub const BATCHES_REMEMBERED: usize = 5;

/// How long a producer is remembered at least after its last batch, in milliseconds of log time
/// (`producer.id.expiration.ms`).
pub const EXPIRATION_MS: i64 = 24 * 60 * 60 * 1000;

/// Fewer producers than this are never looked through for expired ones.
const PURGE_AT_MIN: u64 = 64;

/// The producers of one partition.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Producers {
    pub(crate) by_id: BTreeMap<ProducerId, Producer>,
    /// How many there may be before expired ones are looked for: twice as many as were left the
    /// last time, so that looking costs little per producer.
    pub(crate) purge_at: u64,
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

impl Default for Producers {
    fn default() -> Self {
        Self { by_id: BTreeMap::new(), purge_at: PURGE_AT_MIN }
    }
}

impl Producers {
    /// The producers, by id.
    pub fn by_id(&self) -> &BTreeMap<ProducerId, Producer> {
        &self.by_id
    }

    /// Says what is to become of a batch; `None` if it is to be appended.
    pub(crate) fn judge(&self, batch: BatchProducer, records: u32) -> Option<BatchOutcome> {
        let producer = self.by_id.get(&batch.id)?;
        let last = last_sequence(batch.base_sequence, records);
        if batch.epoch == producer.epoch {
            let seen = producer
                .batches
                .iter()
                .find(|seen| seen.first == batch.base_sequence && seen.last == last);
            if let Some(seen) = seen {
                return Some(BatchOutcome::Duplicate(seen.base));
            }
        }
        if batch.epoch < producer.epoch {
            return Some(BatchOutcome::Rejected(Rejection::ProducerFenced {
                epoch: batch.epoch,
                current: producer.epoch,
            }));
        }
        let expected = match producer.batches.back() {
            Some(newest) if batch.epoch == producer.epoch => next_sequence(newest.last),
            _ => 0,
        };
        (batch.base_sequence != expected).then_some(BatchOutcome::Rejected(
            Rejection::OutOfOrderSequence { found: batch.base_sequence, expected },
        ))
    }

    /// Remembers a batch that was appended.
    pub(crate) fn remember(
        &mut self,
        batch: BatchProducer,
        records: u32,
        base: Offset,
        now_ms: i64,
    ) {
        if !self.by_id.contains_key(&batch.id) {
            self.purge(now_ms);
        }
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
    }

    fn purge(&mut self, now_ms: i64) {
        let count = |producers: &BTreeMap<_, _>| u64::try_from(producers.len()).unwrap_or(u64::MAX);
        if count(&self.by_id) < self.purge_at {
            return;
        }
        let oldest = now_ms.saturating_sub(EXPIRATION_MS);
        self.by_id.retain(|_, producer| producer.last_ms >= oldest);
        self.purge_at = (count(&self.by_id) * 2).max(PURGE_AT_MIN);
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
