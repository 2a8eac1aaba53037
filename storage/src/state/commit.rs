//! Committing a segment: where batches get their offsets.

use bytes::Bytes;
use odradek_protocol::id::{Offset, TopicPartition};

use super::partition::{Content, Extent, Location, Partition};
use super::segments::Committed;
use super::transactions::Transactions;
use super::{Applied, State};
use crate::command::{
    BatchOutcome, BatchProducer, BatchSummary, FooterRef, Outcome, Rejection, Run, RunOutcome,
};
use crate::segment::SegmentId;

impl State {
    pub(super) fn commit_segment(
        &mut self,
        segment: SegmentId,
        bytes: u64,
        runs: &[Run],
        touched: &mut Vec<TopicPartition>,
    ) -> Outcome {
        if let Err(rejection) = self.segments.admit(segment, bytes) {
            return Outcome::Rejected(rejection);
        }
        let (outcomes, references) = self.commit_runs(segment, bytes, runs, touched);
        let committed = Committed { bytes, level: 0, references, by_footer: false };
        self.segments.commit(segment, committed, self.applied);
        Outcome::SegmentCommitted(outcomes)
    }

    /// Whether the commit is taken shows without its runs; what it does, with them alone.
    pub(super) fn commit_by_footer(
        &mut self,
        footer: &FooterRef,
        runs: Option<&[Run]>,
        applied: &mut Applied,
    ) -> Outcome {
        let FooterRef { segment, segment_bytes: bytes, .. } = *footer;
        if let Err(rejection) = self.segments.admit(segment, bytes) {
            return Outcome::Rejected(rejection);
        }
        if runs.is_none() {
            applied.lacks = Some(segment);
        }
        let runs = runs.unwrap_or_default();
        let (outcomes, references) = self.commit_runs(segment, bytes, runs, &mut applied.touched);
        let committed = Committed { bytes, level: 0, references, by_footer: true };
        self.segments.commit(segment, committed, self.applied);
        Outcome::SegmentCommitted(outcomes)
    }

    pub(super) fn commit_inline(
        &mut self,
        segment: SegmentId,
        content: &Bytes,
        runs: &[Run],
        touched: &mut Vec<TopicPartition>,
    ) -> Outcome {
        if self.segments.is_known(segment) {
            return Outcome::Rejected(Rejection::Malformed("a segment is committed inline once"));
        }
        let bytes = u64::try_from(content.len()).unwrap_or(u64::MAX);
        let (outcomes, references) = self.commit_runs(segment, bytes, runs, touched);
        self.segments.commit_inline(segment, content.clone(), references);
        Outcome::SegmentCommitted(outcomes)
    }

    /// Commits the runs, and returns also how many extents lie in the segment now.
    fn commit_runs(
        &mut self,
        segment: SegmentId,
        bytes: u64,
        runs: &[Run],
        touched: &mut Vec<TopicPartition>,
    ) -> (Vec<RunOutcome>, u64) {
        let mut added = Added::default();
        let mut outcomes = Vec::with_capacity(runs.len());
        for run in runs {
            let outcome = self.commit_run(segment, bytes, run, &mut added);
            if let RunOutcome::Judged { .. } = outcome {
                touched.push(run.partition);
            }
            outcomes.push(outcome);
        }
        if added.producers > 0 {
            let kept_ms = self.configs.producer_expiration_ms();
            self.topics.add_producers(added.producers, self.log_time_ms, kept_ms);
        }
        (outcomes, added.references)
    }

    fn commit_run(
        &mut self,
        segment: SegmentId,
        segment_bytes: u64,
        run: &Run,
        added: &mut Added,
    ) -> RunOutcome {
        let now_ms = self.log_time_ms;
        let partition = match self.topics.partition_mut(run.partition) {
            Ok(partition) => partition,
            Err(rejection) => return RunOutcome::Rejected(rejection),
        };
        if let Err(rejection) = check_run(segment_bytes, run) {
            return RunOutcome::Rejected(rejection);
        }
        let transactions = &mut self.transactions;
        let mut placing =
            Placing { segment, run, transactions, now_ms, open: None, skip: 0, added };
        let batches = run.batches.iter().map(|batch| placing.place(partition, batch)).collect();
        placing.close(partition);
        RunOutcome::Judged { batches, log_start: partition.log_start }
    }
}

/// What a segment has added.
#[derive(Default)]
struct Added {
    /// Extents that refer to it.
    references: u64,
    /// Producers that were not known in their partitions before.
    producers: u64,
}

/// Judges the batches of a run, and turns those that are accepted into extents: neighbours into
/// one.
struct Placing<'a> {
    segment: SegmentId,
    run: &'a Run,
    transactions: &'a mut Transactions,
    now_ms: i64,
    /// The extent that the next accepted batch joins.
    open: Option<Extent>,
    /// Where in the block's content the next batch begins.
    skip: u32,
    added: &'a mut Added,
}

impl Placing<'_> {
    fn place(&mut self, partition: &mut Partition, batch: &BatchSummary) -> BatchOutcome {
        let skip = self.skip;
        // Can't overflow: `check_run` has added them up.
        self.skip = skip.saturating_add(batch.bytes);
        let judged = batch.producer.map(|it| self.judge(partition, &it, batch.records));
        if let Some(Err(outcome)) = judged {
            self.close(partition);
            return outcome;
        }
        let base = self.open.map_or(partition.high_watermark, |extent| extent.end());
        if base.0.checked_add(i64::from(batch.records)).is_none() {
            self.close(partition);
            return BatchOutcome::Rejected(Rejection::Malformed("offsets are used up"));
        }
        if let Some(producer) = &batch.producer {
            self.remember(partition, producer, batch.records, base);
        }
        let joined = self.open.and_then(|extent| join(extent, batch));
        if joined.is_none() {
            self.close(partition);
        }
        self.open = joined.or(Some(Extent {
            base,
            records: batch.records,
            max_timestamp: batch.max_timestamp,
            content: Content::Batches(Location {
                segment: self.segment,
                position: self.run.position,
                stored_bytes: self.run.stored_bytes,
                skip,
                bytes: batch.bytes,
            }),
        }));
        BatchOutcome::Appended(base)
    }

    /// What becomes of a batch that is not to be appended. In the order in which Kafka looks: a
    /// zombie is fenced before anything else, and what was sent before is no error.
    fn judge(
        &self,
        partition: &Partition,
        batch: &BatchProducer,
        records: u32,
    ) -> Result<(), BatchOutcome> {
        self.transactions.check(batch).map_err(BatchOutcome::Rejected)?;
        if let Some(base) = partition.producers.find_duplicate(batch, records) {
            return Err(BatchOutcome::Duplicate(base));
        }
        let admitted = self.transactions.admit(self.run.partition, batch);
        let admitted = admitted.and_then(|()| partition.producers.admit(batch));
        admitted.map_err(BatchOutcome::Rejected)
    }

    fn remember(
        &mut self,
        partition: &mut Partition,
        batch: &BatchProducer,
        records: u32,
        base: Offset,
    ) {
        if partition.producers.remember(batch, records, base, self.now_ms) {
            self.added.producers += 1;
        }
        if self.transactions.append(self.run.partition, batch, base, self.now_ms) {
            partition.open.insert(base, batch.id);
        }
    }

    fn close(&mut self, partition: &mut Partition) {
        if let Some(extent) = self.open.take() {
            partition.push(extent);
            self.added.references += 1;
        }
    }
}

/// The extent with one more batch; `None` if its counters have no room for it.
fn join(extent: Extent, batch: &BatchSummary) -> Option<Extent> {
    let Content::Batches(mut location) = extent.content else { return None };
    location.bytes = location.bytes.checked_add(batch.bytes)?;
    Some(Extent {
        base: extent.base,
        records: extent.records.checked_add(batch.records)?,
        max_timestamp: extent.max_timestamp.max(batch.max_timestamp),
        content: Content::Batches(location),
    })
}

fn check_run(segment_bytes: u64, run: &Run) -> Result<(), Rejection> {
    let end = run.position.checked_add(u64::from(run.stored_bytes));
    if end.is_none_or(|end| end > segment_bytes) {
        return Err(Rejection::Malformed("a run lies outside its segment"));
    }
    let bytes = run.batches.iter().try_fold(0_u32, |sum, batch| sum.checked_add(batch.bytes));
    if run.batches.is_empty() || bytes.is_none() {
        return Err(Rejection::Malformed("a run has no batches, or too many bytes"));
    }
    let sound = |batch: &BatchSummary| {
        batch.bytes > 0
            && batch.records > 0
            && i32::try_from(batch.records).is_ok()
            && batch
                .producer
                .is_none_or(|it| it.id.0 >= 0 && it.epoch >= 0 && it.base_sequence >= 0)
    };
    if run.batches.iter().all(sound) {
        Ok(())
    } else {
        Err(Rejection::Malformed("a batch is empty, or its producer can't be"))
    }
}
