//! The words of the scripts for transactions.
//!
//! A command is about the transactional id `txn=`, on behalf of the producer that it stands for,
//! unless `producer=5/0` says another, in the transaction that it is at, unless `number=` says
//! another: `init txn=t timeout=60000 expected=5/0`, `add txn=t partitions=orders-0 groups=g`,
//! `stage-offsets txn=t group=g implicit` with positions as in `commit-offsets`, `end txn=t commit
//! bump`, `abort txn=t`. Batches say `in` if their partition was added before, and `implicit` if
//! they bring it with them.

use std::fmt::Write as _;

use odradek_protocol::id::{Offset, ProducerId};

use super::script_groups::{assignment, committed_offsets, committer, list, office};
use super::script_text::{Words, partition};
use crate::command::{
    BatchTransaction, Command, ProducerIdAndEpoch, StagedOffsets, TransactionChange,
};
use crate::state::State;
use crate::state::partition::{Content, Extent, Partition};
use crate::state::transactions::{Ongoing, Phase};

/// The command that the words say; `None` if they are not about a transaction.
pub(super) fn command(state: &State, words: &Words, details: &[Words]) -> Option<Command> {
    let transactional_id = words.text("txn")?.to_owned();
    let found = state.transactions().get(&transactional_id);
    let nobody = ProducerIdAndEpoch { id: ProducerId(0), epoch: 0 };
    let current = found.map_or(nobody, |it| it.producer);
    let producer = producer(words, "producer").unwrap_or(current);
    let transaction = words.number("number", found.map_or(0, |it| it.transaction));
    let change = match words.verb.as_str() {
        "init" => TransactionChange::InitProducer {
            timeout_ms: words.small("timeout", 60_000),
            expected: self::producer(words, "expected"),
        },
        "add" => TransactionChange::Add {
            producer,
            transaction,
            partitions: assignment(state, words, "partitions"),
            groups: list(words, "groups").map(ToOwned::to_owned).collect(),
        },
        "stage-offsets" => TransactionChange::StageOffsets(StagedOffsets {
            producer,
            transaction,
            is_implicit: words.has("implicit"),
            group: words.text("group").unwrap_or_default().to_owned(),
            office: office(state, words),
            committer: committer(words),
            offsets: committed_offsets(state, details),
        }),
        "end" => {
            let commits = words.has("commit");
            assert_ne!(commits, words.has("abort"), "commit or abort");
            let bumps_epoch = words.has("bump");
            TransactionChange::End { producer, transaction, commits, bumps_epoch }
        }
        "abort" => TransactionChange::Abort { transaction },
        _ => return None,
    };
    Some(Command::ChangeTransaction { transactional_id, change })
}

fn producer(words: &Words, key: &str) -> Option<ProducerIdAndEpoch> {
    let (id, epoch) = words.text(key)?.split_once('/').expect("an id, a slash, an epoch");
    Some(ProducerIdAndEpoch { id: ProducerId(id.parse().unwrap()), epoch: epoch.parse().unwrap() })
}

/// How a batch belongs to a transaction.
pub(super) fn in_transaction(line: &Words) -> BatchTransaction {
    match (line.has("in"), line.has("implicit")) {
        (true, _) => BatchTransaction::Added,
        (false, true) => BatchTransaction::Implicit,
        (false, false) => BatchTransaction::None,
    }
}

/// Answers a question about transactions; `None` if it is none.
pub(super) fn show(text: &mut String, state: &State, words: &Words) -> Option<()> {
    match words.verb.as_str() {
        "show-transactions" => show_transactions(text, state),
        "show-aborted" => {
            let found = state.partition(partition(state, words.text("of")?))?;
            let from = words.signed("from", found.log_start.0);
            let to = words.signed("to", found.high_watermark.0);
            for it in found.aborted_between(Offset(from), Offset(to)) {
                writeln!(text, "producer={} {}..={}", it.producer, it.first, it.last).unwrap();
            }
        }
        "show-staged" => {
            let at = partition(state, words.text("of")?);
            let is_staged = state.transactions().is_staged(words.text("group")?, at);
            writeln!(text, "{}", if is_staged { "staged" } else { "not staged" }).unwrap();
        }
        _ => return None,
    }
    Some(())
}

fn show_transactions(text: &mut String, state: &State) {
    for (id, it) in state.transactions().iter().take(8) {
        let ProducerIdAndEpoch { id: producer, epoch } = it.producer;
        write!(text, "{id} producer={producer}/{epoch}").unwrap();
        if let Some(ProducerIdAndEpoch { id: producer, epoch }) = it.previous {
            write!(text, " previous={producer}/{epoch}").unwrap();
        }
        let (number, timeout_ms, last_ms) = (it.transaction, it.timeout_ms, it.last_ms);
        let phase = match &it.phase {
            Phase::Empty => "empty",
            Phase::Ongoing(_) => "ongoing",
            Phase::Committed => "committed",
            Phase::Aborted => "aborted",
        };
        writeln!(text, " number={number} {phase} timeout={timeout_ms} last={last_ms}").unwrap();
        if let Some(ongoing) = it.ongoing() {
            show_ongoing(text, ongoing);
        }
    }
    writeln!(text, "{} in all", state.transactions().iter().count()).unwrap();
}

fn show_ongoing(text: &mut String, ongoing: &Ongoing) {
    write!(text, "  since {}", ongoing.started_ms).unwrap();
    for (partition, first) in &ongoing.partitions {
        match first {
            Some(first) => write!(text, " {partition}@{first}").unwrap(),
            None => write!(text, " {partition}").unwrap(),
        }
    }
    for (group, offsets) in &ongoing.groups {
        write!(text, " {group}:").unwrap();
        for offset in offsets.values() {
            write!(text, "{}={},", offset.partition, offset.offset).unwrap();
        }
    }
    writeln!(text).unwrap();
}

/// What of a partition is about transactions, if anything is.
pub(super) fn show_stable(text: &mut String, partition: &Partition) {
    let stable = partition.last_stable_offset();
    if stable != partition.high_watermark {
        write!(text, " stable={stable}").unwrap();
    }
}

/// An extent that is a marker.
pub(super) fn show_marker(text: &mut String, extent: &Extent) {
    let Content::Marker(marker) = extent.content else { return };
    let (first, end, time) = (extent.base, extent.end(), extent.max_timestamp);
    let ProducerIdAndEpoch { id, epoch } = marker.producer;
    let end_of = if marker.commits { "commit" } else { "abort" };
    writeln!(text, "{first}..{end} {end_of} of {id}/{epoch} time={time}").unwrap();
}
