//! The task that commits segments in the order in which they were sealed.

use std::collections::BTreeMap;

use odradek_protocol::id::TopicPartition;
use tokio::sync::mpsc;
use tokio::task::{JoinHandle, JoinSet};

use super::{AppendError, Appended, Stored, Uploaded, Waiting, Wakes, WriterConfig, asleep};
use crate::command::{BatchOutcome, Command, FooterRef, Outcome, Run, RunOutcome};
use crate::machine::{Machine, ProposeError, Proposed};

/// What one batch came to.
type Answer = Result<Appended, AppendError>;

pub(super) struct Committer {
    config: WriterConfig,
    machine: Machine,
    uploads: mpsc::Receiver<JoinHandle<Uploaded>>,
    /// Commits that are proposed and not answered yet.
    proposed: JoinSet<()>,
    wakes: Wakes,
}

/// A part of a segment's runs, proposed.
struct Part {
    runs: Vec<(TopicPartition, usize)>,
    proposed: Result<Proposed, ProposeError>,
}

impl Committer {
    pub(super) fn new(
        config: WriterConfig,
        machine: Machine,
        uploads: mpsc::Receiver<JoinHandle<Uploaded>>,
        wakes: Wakes,
    ) -> Self {
        Self { config, machine, uploads, proposed: JoinSet::new(), wakes }
    }

    pub(super) async fn run(mut self) {
        while let Some(upload) = self.uploads.recv().await {
            // An upload that panicked took its waiters with it; they hear "unknown".
            let Ok(Uploaded { wakes, waiters, result }) = upload.await else { continue };
            let is_late = wakes != self.wakes.count();
            match result.and_then(|stored| if is_late { Err(asleep()) } else { Ok(stored) }) {
                Ok(stored) => self.propose(stored, waiters).await,
                Err(error) => {
                    waiters.into_iter().for_each(|it| it.answer(&mut |_, _| Err(error.clone())));
                }
            }
            while self.proposed.try_join_next().is_some() {}
        }
        while self.proposed.join_next().await.is_some() {}
    }

    /// Queues the commit, in pieces if it is long; the answer is awaited aside, so that the next
    /// segment's commit can gather behind this one in the same entry.
    async fn propose(&mut self, stored: Stored, waiters: Vec<Waiting>) {
        let Stored { id: segment, bytes, footer, runs, inline } = stored;
        let mut parts = Vec::new();
        let is_by_footer = inline.is_none() && self.is_left_to(&footer);
        let pieces = match &inline {
            None if !is_by_footer => split(runs, self.config.commit_bytes_max),
            _ => vec![runs],
        };
        for runs in pieces {
            let places = runs.iter().map(|run| (run.partition, run.batches.len())).collect();
            let content = inline.as_ref().map(|inline| inline.content.clone());
            let commit = match content {
                Some(content) => Command::CommitInline { segment, content, runs },
                None if is_by_footer => Command::CommitByFooter { footer, runs: Some(runs) },
                None => Command::CommitSegment { segment, bytes, runs },
            };
            parts.push(Part { runs: places, proposed: self.machine.submit(commit).await });
        }
        self.proposed.spawn(async move {
            let under_way = inline.map(|inline| inline.under_way);
            let mut answers: BTreeMap<TopicPartition, Vec<Answer>> = BTreeMap::new();
            for part in parts {
                let outcome = match part.proposed {
                    Ok(proposed) => proposed.await,
                    Err(error) => Err(error),
                };
                collect(&mut answers, part.runs, outcome);
            }
            drop(under_way);
            let mut answer = |partition, place: usize| {
                let answers = answers.get(&partition).and_then(|answers| answers.get(place));
                answers.cloned().unwrap_or(Err(AppendError::Unknown))
            };
            waiters.into_iter().for_each(|waiting| waiting.answer(&mut answer));
        });
    }

    /// Whether runs are so long that they are left to the footer, and not too long for that.
    fn is_left_to(&self, footer: &FooterRef) -> bool {
        let is_long = self.config.footer_bytes_min.is_some_and(|least| footer.bytes > least);
        is_long && footer.bytes <= FooterRef::BYTES_MAX
    }
}

impl Waiting {
    fn answer(self, answer: &mut dyn FnMut(TopicPartition, usize) -> Answer) {
        let Self { waiter, places } = self;
        let answers = places.into_iter().map(|(partition, place)| answer(partition, place));
        // A waiter that has given up is no loss: its batches stay committed.
        drop(waiter.send(answers.collect()));
    }
}

/// Cuts runs into pieces of about `bytes_max` each in an entry. A run is never cut: its block is
/// one.
fn split(runs: Vec<Run>, bytes_max: usize) -> Vec<Vec<Run>> {
    let mut parts: Vec<Vec<Run>> = Vec::new();
    let mut bytes = 0;
    for run in runs {
        let run_bytes = run.encoded_bytes();
        bytes += run_bytes;
        match parts.last_mut() {
            Some(part) if bytes <= bytes_max => part.push(run),
            _ => {
                bytes = run_bytes;
                parts.push(vec![run]);
            }
        }
    }
    parts
}

fn collect(
    answers: &mut BTreeMap<TopicPartition, Vec<Answer>>,
    runs: Vec<(TopicPartition, usize)>,
    outcome: Result<Outcome, ProposeError>,
) {
    let error = match outcome {
        Ok(Outcome::SegmentCommitted(outcomes)) => {
            for ((partition, batches), outcome) in runs.into_iter().zip(outcomes) {
                answers.entry(partition).or_default().extend(judged(outcome, batches));
            }
            return;
        }
        Ok(Outcome::Rejected(rejection)) => AppendError::Rejected(rejection),
        Ok(_) | Err(ProposeError::Unknown) => AppendError::Unknown,
        Err(ProposeError::NotAppended(cause)) => AppendError::NotStored(cause),
        Err(ProposeError::Stopped) => AppendError::Stopped,
    };
    for (partition, batches) in runs {
        let failed = std::iter::repeat_n(Err(error.clone()), batches);
        answers.entry(partition).or_default().extend(failed);
    }
}

fn judged(outcome: RunOutcome, batches: usize) -> Vec<Answer> {
    match outcome {
        RunOutcome::Judged { batches, log_start } => batches
            .into_iter()
            .map(|batch| match batch {
                BatchOutcome::Appended(base_offset) | BatchOutcome::Duplicate(base_offset) => {
                    Ok(Appended { base_offset, log_start })
                }
                BatchOutcome::Rejected(rejection) => Err(AppendError::Rejected(rejection)),
            })
            .collect(),
        RunOutcome::Rejected(rejection) => {
            vec![Err(AppendError::Rejected(rejection)); batches]
        }
    }
}
