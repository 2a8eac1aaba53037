//! What a pass knows of keys: the latest offset of each, and which records don't count.

use std::collections::{BTreeMap, BTreeSet};

use odradek_protocol::compression;
use odradek_protocol::id::{Offset, ProducerId};
use odradek_protocol::record::{RecordBatch, RecordViews};
use xxhash_rust::xxh3::xxh3_128_with_seed;

use crate::state::partition::AbortedTransaction;

/// No batch is unpacked to more than this; one that needs more stays as it is.
pub(super) const UNPACKED_BYTES_MAX: usize = 64 * 1024 * 1024;

/// The latest offset of every key in the dirty part of a partition, as far as memory goes.
///
/// Keys are known by a hash of 128 bits with a seed that nobody can guess.
#[derive(Debug)]
pub(super) struct LatestOffsets {
    seed: u64,
    offsets: BTreeMap<u128, i64>,
    keys_max: usize,
    end: Offset,
    last_batch: Offset,
}

impl LatestOffsets {
    /// None yet, of what begins at `from`. Takes about forty bytes for each of `keys_max` keys.
    pub(super) fn new(from: Offset, keys_max: usize, seed: u64) -> Self {
        Self { seed, offsets: BTreeMap::new(), keys_max, end: from, last_batch: from }
    }

    /// Notes the keys of the next batch, if its records count.
    ///
    /// A batch that can't be opened has no keys that anybody could ask for.
    pub(super) fn add(&mut self, batch: &RecordBatch, aborted: &Aborted) {
        self.last_batch = Offset(batch.base_offset()).advanced_by(batch.offsets());
        if batch.is_control() || batch.record_count() == 0 || aborted.has_records(batch) {
            return;
        }
        let Ok(unpacked) = compression::unpack(batch, UNPACKED_BYTES_MAX) else { return };
        let records = RecordViews::of(&unpacked, batch.record_count());
        let Ok(records) = records.collect::<Result<Vec<_>, _>>() else { return };
        for record in records {
            if let Some(key) = record.key {
                let offset = batch.base_offset().saturating_add(i64::from(record.offset_delta));
                self.offsets.insert(xxh3_128_with_seed(key, self.seed), offset);
            }
        }
    }

    /// Says that all batches below `end` were added.
    pub(super) fn advance(&mut self, end: Offset) {
        self.end = self.end.max(end);
    }

    /// The offset up to which every key is known: where the pass ends.
    pub(super) fn end(&self) -> Offset {
        self.end
    }

    /// Where the last batch ends that the pass will meet.
    pub(super) fn last_batch(&self) -> Offset {
        self.last_batch
    }

    /// Whether no more should be added. What lies in one extent always fits, or there would be logs
    /// that are never compacted.
    pub(super) fn is_full(&self) -> bool {
        self.offsets.len() >= self.keys_max
    }

    /// Whether a record with this key at this offset has no later one.
    pub(super) fn is_latest(&self, key: &[u8], offset: i64) -> bool {
        let latest = self.offsets.get(&xxh3_128_with_seed(key, self.seed));
        latest.is_none_or(|latest| offset >= *latest)
    }
}

/// Transactions of a partition that were aborted, as consumers are told of them.
#[derive(Clone, Debug, Default)]
pub(super) struct Aborted {
    /// The first record and the marker of each, by producer.
    transactions: BTreeMap<ProducerId, Vec<(Offset, Offset)>>,
    markers: BTreeSet<Offset>,
}

impl Aborted {
    /// These.
    pub(super) fn of<'a>(transactions: impl Iterator<Item = &'a AbortedTransaction>) -> Self {
        let mut aborted = Self::default();
        for it in transactions {
            aborted.transactions.entry(it.producer).or_default().push((it.first, it.last));
            aborted.markers.insert(it.last);
        }
        aborted
    }

    /// Whether the records of a batch are part of one of them.
    pub(super) fn has_records(&self, batch: &RecordBatch) -> bool {
        if !batch.is_transactional() || batch.is_control() {
            return false;
        }
        let base = Offset(batch.base_offset());
        let transactions = self.transactions.get(&ProducerId(batch.producer_id()));
        transactions
            .is_some_and(|all| all.iter().any(|(first, last)| (*first..*last).contains(&base)))
    }

    /// Whether the marker of one of them is at this offset.
    pub(super) fn has_marker(&self, offset: i64) -> bool {
        self.markers.contains(&Offset(offset))
    }
}
