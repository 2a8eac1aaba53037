//! Whether what is drawn makes everything happen that the model is to be compared with.

use std::collections::BTreeMap;

use proptest::strategy::{Strategy, ValueTree};
use proptest::test_runner::TestRunner;

use super::chain::begun;
use super::properties::entries;
use super::strategies::{self, Step};
use crate::command::{
    BatchOutcome, BatchSummary, BatchTransaction, Command, Outcome, Proposal, Rejection,
    RunOutcome, TransactionChange,
};
use crate::state::State;
use crate::state::transactions::Transactional;

mod life;

/// How often something came about.
#[derive(Debug, Default)]
struct Happened(BTreeMap<&'static str, usize>);

impl Happened {
    fn count(&mut self, what: &'static str, happened: bool) {
        *self.0.entry(what).or_default() += usize::from(happened);
    }

    fn expect(&self, all: &[&'static str]) {
        println!("{self:#?}");
        let times = |what| self.0.get(what).copied().unwrap_or(0);
        let rare: Vec<_> = all.iter().filter(|what| times(**what) < 5).collect();
        assert!(rare.is_empty(), "less than five times: {rare:?}");
    }

    fn change(&mut self, before: &State, id: &str, change: &TransactionChange, outcome: &Outcome) {
        let found = before.transactions().get(id);
        let ongoing = found.and_then(Transactional::ongoing);
        let has_records = ongoing.is_some_and(|it| it.partitions.values().any(Option::is_some));
        let has_staged = ongoing.is_some_and(|it| it.groups.values().any(|it| !it.is_empty()));
        match (change, outcome) {
            (_, Outcome::Rejected(rejection)) => self.rejection(rejection),
            (TransactionChange::End { commits: true, .. }, _) => {
                self.count("committed", has_records);
                self.count("positions committed", has_staged);
                self.count("commit repeated", ongoing.is_none());
            }
            (TransactionChange::End { bumps_epoch, .. }, _) => {
                self.count("aborted", has_records);
                self.count("positions dropped", has_staged);
                self.count("nothing aborted", ongoing.is_none() && *bumps_epoch);
            }
            (TransactionChange::Abort { .. }, _) => self.count("timed out", true),
            (TransactionChange::Add { .. }, _) => self.count("added to", true),
            (TransactionChange::StageOffsets(it), _) => {
                let what = if it.is_implicit { "staged implicitly" } else { "staged" };
                self.count(what, !it.offsets.is_empty());
            }
            (TransactionChange::InitProducer { expected, .. }, Outcome::Producer(now)) => {
                let is_same = found.is_some_and(|it| it.producer == *now);
                self.count("asked again for its epoch", is_same && expected.is_some());
                self.count("went on", !is_same && expected.is_some());
                self.count("superseded", expected.is_none() && has_records);
            }
            (change, outcome) => panic!("{change:?}: {outcome:?}"),
        }
    }

    fn rejection(&mut self, rejection: &Rejection) {
        let what = match rejection {
            Rejection::ProducerFenced { .. } => "fenced",
            Rejection::UnknownProducer => "unknown producer",
            Rejection::TransactionMoved { .. } => "another transaction",
            Rejection::NotInTransaction => "not added",
            Rejection::InvalidTransactionState => "not allowed",
            Rejection::OutOfOrderSequence { .. } => "out of order",
            _ => "otherwise rejected",
        };
        self.count(what, true);
    }

    fn batch(&mut self, before: &State, batch: &BatchSummary, outcome: &BatchOutcome) {
        let Some(producer) = batch.producer else { return };
        let open = before.transactions().of_producer(producer.id);
        let is_open = open.is_some_and(|(_, it)| it.ongoing().is_some());
        let what = match (producer.transaction, outcome, is_open) {
            (_, BatchOutcome::Rejected(rejection), _) => return self.rejection(rejection),
            (BatchTransaction::None, ..) => return,
            (_, BatchOutcome::Duplicate(_), true) => "duplicate",
            (_, BatchOutcome::Duplicate(_), false) => "duplicate after the end",
            (BatchTransaction::Added, ..) => "appended where it was added",
            (BatchTransaction::Implicit, _, true) => "appended implicitly",
            (BatchTransaction::Implicit, _, false) => "begun implicitly",
        };
        self.count(what, true);
    }

    fn command(&mut self, before: &State, command: &Command, outcome: &Outcome) {
        match (command, outcome) {
            (_, Outcome::Rejected(Rejection::BrokerFenced(_)) | Outcome::Repeated) => {}
            (Command::ChangeTransaction { transactional_id, change }, outcome) => {
                self.change(before, transactional_id, change, outcome);
            }
            (Command::CommitSegment { runs, .. }, Outcome::SegmentCommitted(outcomes)) => {
                for (run, outcome) in runs.iter().zip(outcomes) {
                    let RunOutcome::Judged { batches, .. } = outcome else { continue };
                    let judged = run.batches.iter().zip(batches);
                    judged.for_each(|(batch, outcome)| self.batch(before, batch, outcome));
                }
            }
            _ => {}
        }
    }

    fn state(&mut self, state: &State) {
        for partition in state.topics().flat_map(|topic| &topic.partitions) {
            let open = partition.open_transactions();
            self.count("interleaved", open.len() > 1);
            self.count("several aborted", partition.aborted.len() > 1);
            let cut = open.keys().any(|first| *first < partition.log_start);
            self.count("cut by the log start", cut);
        }
    }
}

/// Applies what the steps become, each command in an entry of its own.
fn of_steps(
    cases: usize,
    steps: impl Strategy<Value = Vec<Step>>,
    mut see: impl FnMut(&State, &Proposal, &Outcome, &State),
) {
    let mut runner = TestRunner::deterministic();
    for _ in 0..cases {
        let steps = steps.new_tree(&mut runner).unwrap().current();
        let (mut chain, mut state, _) = begun();
        for (entry, _) in &entries(&steps)[1..] {
            let by = entry.append_id.incarnation;
            for proposal in &entry.proposals {
                let before = state.clone();
                let (entry, hash) = chain.write(by, entry.time_ms, vec![proposal.clone()]);
                let applied = state.apply(&entry, hash).unwrap();
                see(&before, proposal, &applied.outcomes[0], &state);
            }
        }
    }
}

#[test]
fn the_transactions_that_are_drawn_meet_all_there_is_to_meet() {
    let mut happened = Happened::default();
    of_steps(100, strategies::transaction_steps(40), |before, proposal, outcome, after| {
        happened.command(before, &proposal.command, outcome);
        happened.state(after);
    });
    happened.expect(&[
        "committed",
        "aborted",
        "positions committed",
        "positions dropped",
        "commit repeated",
        "nothing aborted",
        "timed out",
        "superseded",
        "added to",
        "staged",
        "staged implicitly",
        "went on",
        "asked again for its epoch",
        "fenced",
        "unknown producer",
        "another transaction",
        "not added",
        "not allowed",
        "out of order",
        "duplicate",
        "duplicate after the end",
        "appended where it was added",
        "appended implicitly",
        "begun implicitly",
        "interleaved",
        "several aborted",
        "cut by the log start",
    ]);
}
