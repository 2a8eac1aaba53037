//! What a pass leaves of a batch.
//!
//! Kafka keeps the last batch of every producer, empty if need be, because its brokers learn the
//! producers' sequence numbers from the log. Here they are in the state, so such batches go.

use std::collections::BTreeSet;

use odradek_protocol::compression;
use odradek_protocol::id::Offset;
use odradek_protocol::record::{ControlType, RecordBatch, RecordView, RecordViews};

use super::keys::{Aborted, LatestOffsets, UNPACKED_BYTES_MAX};

/// By what a pass goes.
#[derive(Debug)]
pub(super) struct Rules {
    /// The latest offset of every key, from `cleaned` on up to where the pass ends.
    pub(super) latest: LatestOffsets,
    /// Transactions whose records don't count.
    pub(super) aborted: Aborted,
    /// Up to where a pass was finished before.
    pub(super) cleaned: Offset,
    /// The time, in milliseconds since the Unix epoch.
    pub(super) now_ms: i64,
    /// `delete.retention.ms`: how long tombstones and markers stay once a pass has found nothing
    /// behind them.
    pub(super) delete_retention_ms: i64,
}

/// What is left of a batch.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum Left {
    /// All of it, as it was.
    Same,
    /// Some of it, or with a delete horizon.
    Changed(RecordBatch),
    /// Nothing.
    Nothing,
}

/// Goes through the batches of a partition, from the log start offset on, in order.
#[derive(Debug)]
pub(super) struct Filter {
    rules: Rules,
    /// Producers with records since their last marker, of transactions that count.
    in_transaction: BTreeSet<i64>,
    unreadable: u64,
}

impl Filter {
    /// At the log start offset.
    pub(super) fn new(rules: Rules) -> Self {
        Self { rules, in_transaction: BTreeSet::new(), unreadable: 0 }
    }

    /// Batches that can't be opened so far: their producers compressed nonsense, before the topic
    /// was a compacted one. They stay.
    pub(super) fn unreadable(&self) -> u64 {
        self.unreadable
    }

    /// What is left of the next batch, which says at what offset it is.
    pub(super) fn pass(&mut self, batch: &RecordBatch) -> Left {
        let end = Offset(batch.base_offset()).advanced_by(batch.offsets());
        if end > self.rules.latest.end() {
            return Left::Same;
        }
        let left = if batch.is_control() { self.control(batch) } else { self.records(batch) };
        match left {
            Left::Nothing if end == self.rules.latest.last_batch() => Self::kept_as_the_last(batch),
            left => left,
        }
    }

    /// The last batch of a pass says how far the log goes, even if nothing is in it (COMPACT-3).
    fn kept_as_the_last(batch: &RecordBatch) -> Left {
        if batch.is_control() || batch.record_count() == 0 {
            return Left::Same;
        }
        batch.retaining(&[], None).map_or(Left::Same, Left::Changed)
    }

    /// A marker goes some time after the last records of its transaction.
    fn control(&mut self, batch: &RecordBatch) -> Left {
        let has_records = match batch.control_type() {
            None => false,
            Some(ControlType::Commit) => self.in_transaction.remove(&batch.producer_id()),
            Some(ControlType::Abort) => self.rules.aborted.has_marker(batch.base_offset()),
            Some(ControlType::Other) => true,
        };
        match batch.delete_horizon() {
            _ if has_records => Left::Same,
            _ if batch.record_count() == 0 => Left::Nothing,
            Some(horizon_ms) if horizon_ms <= self.rules.now_ms => Left::Nothing,
            Some(_) => Left::Same,
            None => {
                let unpacked = batch.records();
                let records = RecordViews::of(&unpacked, batch.record_count());
                let records: Result<Vec<_>, _> = records.collect();
                let records = records.ok().map(|kept| batch.retaining(&kept, self.horizon_ms()));
                records.and_then(Result::ok).map_or(Left::Same, Left::Changed)
            }
        }
    }

    fn records(&mut self, batch: &RecordBatch) -> Left {
        if batch.record_count() == 0 || self.rules.aborted.has_records(batch) {
            return Left::Nothing;
        }
        if batch.is_transactional() {
            self.in_transaction.insert(batch.producer_id());
        }
        self.opened(batch).unwrap_or_else(|| {
            self.unreadable += 1;
            Left::Same
        })
    }

    fn opened(&self, batch: &RecordBatch) -> Option<Left> {
        let unpacked = compression::unpack(batch, UNPACKED_BYTES_MAX).ok()?;
        let mut kept = Vec::new();
        let mut has_tombstones = false;
        for record in RecordViews::of(&unpacked, batch.record_count()) {
            let record = record.ok()?;
            if self.keeps(batch, &record) {
                has_tombstones |= !record.has_value;
                kept.push(record);
            }
        }
        let is_whole = i32::try_from(kept.len()) == Ok(batch.record_count());
        let gets_horizon = has_tombstones && batch.delete_horizon().is_none();
        if kept.is_empty() {
            return Some(Left::Nothing);
        }
        if is_whole && !gets_horizon {
            return Some(Left::Same);
        }
        let horizon_ms = self.horizon_ms().filter(|_| gets_horizon);
        batch.retaining(&kept, horizon_ms).ok().map(Left::Changed)
    }

    fn keeps(&self, batch: &RecordBatch, record: &RecordView<'_>) -> bool {
        // What has no key can't have a latest value, and is not taken in the first place.
        let Some(key) = record.key else { return false };
        let offset = batch.base_offset().saturating_add(i64::from(record.offset_delta));
        let is_due = batch.delete_horizon().is_some_and(|it| it <= self.rules.now_ms);
        // COMPACT-2. SUBTLE: a pass that was broken off may have set the horizon of a tombstone and
        // left what the tombstone deletes; only below `cleaned` is all of that gone.
        let may_go = is_due && Offset(offset) < self.rules.cleaned;
        self.rules.latest.is_latest(key, offset) && (record.has_value || !may_go)
    }

    fn horizon_ms(&self) -> Option<i64> {
        Some(self.rules.now_ms.saturating_add(self.rules.delete_retention_ms))
    }
}
