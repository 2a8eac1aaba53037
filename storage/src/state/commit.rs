//! Committing a segment: where batches get their offsets.

use odradek_protocol::id::TopicPartition;

use super::State;
use super::partition::{Extent, Location, Partition};
use crate::command::{BatchOutcome, BatchSummary, Outcome, Rejection, Run, RunOutcome};
use crate::segment::SegmentId;

impl State {
    pub(super) fn commit_segment(
        &mut self,
        segment: SegmentId,
        bytes: u64,
        runs: &[Run],
        touched: &mut Vec<TopicPartition>,
    ) -> Outcome {
        if self.segments.bytes_of(segment).is_some_and(|known| known != bytes) {
            return Outcome::Rejected(Rejection::Malformed("a segment has one length"));
        }
        let mut references = 0;
        let mut outcomes = Vec::with_capacity(runs.len());
        for run in runs {
            let outcome = self.commit_run(segment, bytes, run, &mut references);
            if let RunOutcome::Judged { .. } = outcome {
                touched.push(run.partition);
            }
            outcomes.push(outcome);
        }
        self.segments.commit(segment, bytes, references, self.applied);
        Outcome::SegmentCommitted(outcomes)
    }

    fn commit_run(
        &mut self,
        segment: SegmentId,
        segment_bytes: u64,
        run: &Run,
        references: &mut u64,
    ) -> RunOutcome {
        let now_ms = self.log_time_ms;
        let partition = match self.topics.partition_mut(run.partition) {
            Ok(partition) => partition,
            Err(rejection) => return RunOutcome::Rejected(rejection),
        };
        if let Err(rejection) = check_run(segment_bytes, run) {
            return RunOutcome::Rejected(rejection);
        }
        let mut extents = Extents { segment, run, open: None, skip: 0, closed: 0 };
        let batches =
            run.batches.iter().map(|batch| extents.place(partition, batch, now_ms)).collect();
        extents.close(partition);
        *references += extents.closed;
        RunOutcome::Judged { batches, log_start: partition.log_start }
    }
}

/// Turns the accepted batches of a run into extents: neighbours into one.
struct Extents<'a> {
    segment: SegmentId,
    run: &'a Run,
    /// The extent that the next accepted batch joins.
    open: Option<Extent>,
    /// Where in the block's content the next batch begins.
    skip: u32,
    /// Extents given to the partition so far.
    closed: u64,
}

impl Extents<'_> {
    fn place(
        &mut self,
        partition: &mut Partition,
        batch: &BatchSummary,
        now_ms: i64,
    ) -> BatchOutcome {
        let skip = self.skip;
        // Can't overflow: `check_run` has added them up.
        self.skip = skip.saturating_add(batch.bytes);
        let judged = batch.producer.and_then(|it| partition.producers.judge(it, batch.records));
        if let Some(outcome) = judged {
            self.close(partition);
            return outcome;
        }
        let base = self.open.map_or(partition.high_watermark, |extent| extent.end());
        if base.0.checked_add(i64::from(batch.records)).is_none() {
            self.close(partition);
            return BatchOutcome::Rejected(Rejection::Malformed("offsets are used up"));
        }
        if let Some(producer) = batch.producer {
            partition.producers.remember(producer, batch.records, base, now_ms);
        }
        let joined = self.open.and_then(|extent| join(extent, batch));
        if joined.is_none() {
            self.close(partition);
        }
        self.open = joined.or(Some(Extent {
            base,
            records: batch.records,
            max_timestamp: batch.max_timestamp,
            location: Location {
                segment: self.segment,
                position: self.run.position,
                stored_bytes: self.run.stored_bytes,
                skip,
                bytes: batch.bytes,
            },
        }));
        BatchOutcome::Appended(base)
    }

    fn close(&mut self, partition: &mut Partition) {
        if let Some(extent) = self.open.take() {
            partition.push(extent);
            self.closed += 1;
        }
    }
}

/// The extent with one more batch; `None` if its counters have no room for it.
fn join(extent: Extent, batch: &BatchSummary) -> Option<Extent> {
    let mut joined = extent;
    joined.records = extent.records.checked_add(batch.records)?;
    joined.location.bytes = extent.location.bytes.checked_add(batch.bytes)?;
    joined.max_timestamp = extent.max_timestamp.max(batch.max_timestamp);
    Some(joined)
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
