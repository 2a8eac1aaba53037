//! The rules that transactions must keep (RELIABILITY R1, R2, R4, R9, R14, R15, R16, G1a, W1), once
//! everything is over.
//!
//! What is true is what stands in the log: records, and markers behind them. That is compared with
//! what producers were told, with what readers were shown at any time, and with where groups stand.

use std::collections::{BTreeMap, BTreeSet};

use bytes::Bytes;
use odradek_protocol::id::TopicPartition;

use super::consumer::Chunk;
use super::ledger::{Ending, Ledger, Transaction, origin};
use super::pipeline::{copied, targets};
use crate::batches::{ReadBatch, ReadContent};

/// A group, what it reads and what it writes.
#[derive(Clone, Debug)]
pub struct Copying {
    /// The group.
    pub group: String,
    /// Partitions that it reads, with its positions in them.
    pub input: BTreeMap<TopicPartition, i64>,
    /// Partitions that it writes to.
    pub output: Vec<TopicPartition>,
}

/// All that there is in the end.
#[derive(Clone, Debug, Default)]
pub struct Outcome {
    /// All batches.
    pub log: BTreeMap<TopicPartition, Vec<ReadBatch>>,
    /// What a read_committed reader is shown, by each broker.
    pub shown: Vec<BTreeMap<TopicPartition, Chunk>>,
    /// The groups.
    pub groups: Vec<Copying>,
}

/// Where a record is, and whether its transaction was committed.
type Places = BTreeMap<Bytes, Vec<(TopicPartition, i64, bool)>>;

/// Compares everything with everything.
pub fn check(ledger: &Ledger, outcome: &Outcome) {
    let places = places(ledger, outcome);
    check_shown(ledger, outcome, &places);
    check_transactions(ledger, &places);
    check_order(ledger, &places);
    for group in &outcome.groups {
        check_copies(ledger, group, &places);
        check_positions(ledger, group, &places);
    }
}

/// Reads the log as it stands: a marker decides on the records of its producer before it.
fn places(ledger: &Ledger, outcome: &Outcome) -> Places {
    let mut places = Places::new();
    for (partition, batches) in &outcome.log {
        let mut open: BTreeMap<i64, Vec<(i64, Bytes)>> = BTreeMap::new();
        let mut next = 0;
        for batch in batches {
            let marker = match &batch.content {
                ReadContent::Marker(commits) => Some(*commits),
                ReadContent::Records(records) => {
                    for record in records {
                        if record.offset != next {
                            let how = format!("{partition}: {next} is missing");
                            ledger.accuse("R1", how);
                        }
                        next = record.offset + 1;
                    }
                    let records = records.iter().map(|it| (it.offset, it.value.clone()));
                    open.entry(batch.producer).or_default().extend(records);
                    None
                }
            };
            next = batch.last + 1;
            let Some(commits) = marker else { continue };
            let ended = open.remove(&batch.producer).unwrap_or_default();
            if ended.is_empty() {
                let how = format!("{partition}: a marker at {} ends nothing", batch.last);
                ledger.accuse("R14", how);
            }
            for (offset, value) in ended {
                places.entry(value).or_default().push((*partition, offset, commits));
            }
        }
        if !open.is_empty() {
            ledger.accuse("R14", format!("{partition}: open at the end: {open:?}"));
        }
    }
    places
}

/// What readers are shown, and were shown at any time, is what was committed.
fn check_shown(ledger: &Ledger, outcome: &Outcome, places: &Places) {
    let mut committed: BTreeMap<TopicPartition, BTreeSet<i64>> = BTreeMap::new();
    for (partition, offset, is_committed) in places.values().flatten() {
        if *is_committed {
            committed.entry(*partition).or_default().insert(*offset);
        }
    }
    let none = BTreeSet::new();
    for (partition, shown) in ledger.shown() {
        let truth = committed.get(&partition).unwrap_or(&none);
        for (offset, was_shown) in shown {
            if truth.contains(&offset) != was_shown {
                ledger.accuse("G1a", format!("{partition} at {offset}: shown {was_shown}"));
            }
        }
    }
    for shown in &outcome.shown {
        for (partition, chunk) in shown {
            let truth = committed.get(partition).unwrap_or(&none);
            if !chunk.records.iter().map(|(offset, _)| offset).eq(truth) {
                ledger.accuse("R14", format!("{partition}: shown {chunk:?}, not {truth:?}"));
            }
            if chunk.watermarks.last_stable_offset != chunk.watermarks.high_watermark {
                ledger.accuse("W1", format!("{partition}: {:?}", chunk.watermarks));
            }
        }
    }
}

/// All of a transaction is there, once and where it was said to be, or nothing.
fn check_transactions(ledger: &Ledger, places: &Places) {
    let mut known: BTreeSet<&Bytes> = BTreeSet::new();
    let transactions = ledger.transactions();
    for (number, transaction) in transactions.iter().enumerate() {
        let mut torn = Vec::new();
        let is_committed = is_committed(transaction, places);
        for sent in &transaction.records {
            known.insert(&sent.value);
            let found = places.get(&sent.value).map_or(&[][..], Vec::as_slice);
            if found.len() > 1 {
                ledger.accuse("R2", format!("{sent:?} is at {found:?}"));
            }
            let is_there = found.iter().any(|(.., commits)| *commits);
            if is_there != is_committed {
                torn.push((sent.clone(), found.to_vec()));
            }
            let said = sent.offset.map(|offset| (sent.partition, offset));
            if said.is_some() && found.first().map(|(at, offset, _)| (*at, *offset)) != said {
                ledger.accuse("R16", format!("{sent:?} is at {found:?}"));
            }
        }
        let how = || format!("#{number} {:?} {:?}", transaction.producer, transaction.ending);
        if !torn.is_empty() {
            ledger.accuse("R14", format!("{}: not the same: {torn:?}", how()));
        }
        if is_committed && matches!(transaction.ending, Ending::Unasked | Ending::Aborted) {
            ledger.accuse("G1a", format!("{}: it is there", how()));
        }
        if !is_committed
            && !transaction.records.is_empty()
            && transaction.ending == Ending::Committed
        {
            ledger.accuse("R4", format!("{}: it is lost", how()));
        }
        if is_committed && !transaction.passed.is_empty() {
            ledger.accuse("W1", format!("{}: {:?}", how(), transaction.passed));
        }
    }
    let strange: Vec<_> = places.keys().filter(|value| !known.contains(value)).collect();
    if !strange.is_empty() {
        ledger.accuse("R1", format!("nobody sent {strange:?}"));
    }
}

/// Whether anything of a transaction is there.
fn is_committed(transaction: &Transaction, places: &Places) -> bool {
    let found = transaction.records.iter().filter_map(|sent| places.get(&sent.value)).flatten();
    found.into_iter().any(|(.., commits)| *commits)
}

/// What one producer sent to a partition stands there in the order in which it was sent.
fn check_order(ledger: &Ledger, places: &Places) {
    let mut last: BTreeMap<((String, u64), TopicPartition), i64> = BTreeMap::new();
    for transaction in ledger.transactions() {
        for sent in transaction.records {
            for (partition, offset, _) in places.get(&sent.value).into_iter().flatten() {
                let before = last.insert((transaction.producer.clone(), *partition), *offset);
                if before > Some(*offset) {
                    let value = &sent.value;
                    ledger.accuse("R9", format!("{value:?} at {offset} is before {before:?}"));
                }
            }
        }
    }
}

/// What was read was written, once to each partition that it belongs in.
fn check_copies(ledger: &Ledger, group: &Copying, places: &Places) {
    let payloads = |is_of: &dyn Fn(&TopicPartition) -> bool| {
        let mut payloads: Vec<String> = Vec::new();
        for (value, places) in places {
            let count = places.iter().filter(|(at, _, commits)| *commits && is_of(at)).count();
            payloads.extend((0..count).map(|_| origin(value).0.to_owned()));
        }
        payloads
    };
    let partitions = u32::try_from(group.output.len()).unwrap();
    let read = payloads(&|at| group.input.contains_key(at));
    let mut expected: Vec<String> = read
        .iter()
        .flat_map(|payload| {
            targets(payload, partitions).into_iter().map(|partition| copied(payload, partition))
        })
        .collect();
    let mut written = payloads(&|at| group.output.contains(at));
    expected.sort_unstable();
    written.sort_unstable();
    if expected != written {
        let count = |of: &[String]| {
            let mut counts: BTreeMap<String, i32> = BTreeMap::new();
            of.iter().for_each(|it| *counts.entry(it.clone()).or_default() += 1);
            counts
        };
        let mut counts = count(&written);
        for payload in expected {
            *counts.entry(payload).or_default() -= 1;
        }
        counts.retain(|_, count| *count != 0);
        ledger.accuse(
            "R15",
            format!("{}: more or less than there should be: {counts:?}", group.group),
        );
    }
}

/// Positions are those of the transactions that were committed.
fn check_positions(ledger: &Ledger, group: &Copying, places: &Places) {
    let mut positions: BTreeMap<TopicPartition, Vec<(i64, i64)>> = BTreeMap::new();
    for transaction in ledger.transactions() {
        if is_committed(&transaction, places) {
            for step in transaction.steps.iter().filter(|step| step.group == group.group) {
                positions.entry(step.partition).or_default().push((step.from, step.to));
            }
        }
    }
    for (partition, position) in &group.input {
        let mut steps = positions.remove(partition).unwrap_or_default();
        steps.sort_unstable();
        if steps.windows(2).any(|pair| pair[0].1 > pair[1].0) {
            ledger.accuse("R15", format!("{} {partition}: read twice: {steps:?}", group.group));
        }
        let last = steps.last().map_or(0, |(_, to)| *to);
        if last != *position {
            let how = format!("{} {partition}: {position}, not {last}", group.group);
            ledger.accuse("R18", how);
        }
    }
}
