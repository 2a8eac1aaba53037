//! Readers are shown what there is, soon: L2.

use std::collections::BTreeMap;

use super::findings::Findings;
use super::health::{Phase, phases};
use super::index::{Index, Op};
use super::rule::Rule;
use crate::history::{Isolation, Kind, Stage};

/// How long a reader may be shown nothing although there is something.
const LAG_US: u64 = 10_000_000;

/// `transaction.timeout.ms` of clients that do not say theirs, in microseconds.
const TRANSACTION_US: u64 = 60_000_000;

/// By key: offsets with the time from which everybody is shown what stands there, and that of the
/// earliest such time from there on.
type Shown = Vec<Vec<(i64, u64)>>;

/// A consumer with an assignment.
#[derive(Debug, Default)]
struct Reader {
    /// By key: next offset, as far as it is known.
    next: BTreeMap<usize, i64>,
    /// When it last was shown something, or was told what to read.
    moved: u64,
}

/// L2: in health, a consumer that polls and polls is not shown nothing for 10 s while something
/// acknowledged stands behind what it read. Only positions that are known are judged: after an
/// assignment that names them, or a first read. A subscriber's partitions may be elsewhere.
pub(super) fn check(index: &Index, findings: &mut Findings) {
    let phases = phases(index);
    let shown = [shown(index, Isolation::ReadUncommitted), shown(index, Isolation::ReadCommitted)];
    let mut polls: Vec<(u64, usize)> = Vec::new();
    for (at, op) in index.ops.iter().enumerate() {
        // Who reads in a transaction goes on from there; one that failed may have gone back.
        let reads = op.event.f == Kind::Txn && (op.outcome != Stage::Ok || !op.reads.is_empty());
        if reads || matches!(op.event.f, Kind::Assign | Kind::Subscribe | Kind::Seek | Kind::Poll) {
            polls.push((op.ended.unwrap_or(op.began), at));
        }
    }
    polls.sort_unstable();
    // What came or went with a group is where its next read shows, if it is still there.
    let crashes: Vec<(u64, u64)> = (index.facts.iter())
        .filter(|fact| matches!(fact.f, Kind::Crash | Kind::Final | Kind::Rebalance))
        .map(|fact| (fact.time_us, fact.process))
        .collect();
    let mut crashed = crashes.into_iter().peekable();
    let mut readers: BTreeMap<u64, Reader> = BTreeMap::new();
    for (time, at) in polls {
        while let Some((_, process)) = crashed.next_if(|(crash, _)| *crash <= time) {
            readers.remove(&process);
        }
        let op = &index.ops[at];
        let reader = readers.entry(op.event.process).or_default();
        let idle = op.event.f == Kind::Poll && op.outcome == Stage::Ok && op.reads.is_empty();
        if !idle {
            follow(index, reader, op, time);
            continue;
        }
        let Some(phase) = phases.iter().find(|phase| phase.until > time) else { continue };
        if !phase.faults.is_empty() {
            continue;
        }
        let shown = &shown[usize::from(op.isolation == Isolation::ReadCommitted)];
        judge(index, findings, reader, (at, shown, phase));
    }
}

fn judge(
    index: &Index,
    findings: &mut Findings,
    reader: &Reader,
    (at, shown, phase): (usize, &Shown, &Phase),
) {
    let op = &index.ops[at];
    for (&key, &next) in &reader.next {
        let from = shown[key].partition_point(|(offset, _)| *offset < next);
        let Some(&(_, since)) = shown[key].get(from) else { continue };
        findings.judge(Rule::L2, 1);
        // It waits since there is something, or since it was shown something, or since all is well.
        let since = since.max(reader.moved).max(phase.from);
        if op.began > since + LAG_US {
            findings.blame(Rule::L2, index, &[at], || {
                let waited = op.began - since;
                format!("{}: nothing from {next} on for {waited} us", index.keys[key])
            });
        }
    }
}

fn follow(index: &Index, reader: &mut Reader, op: &Op, time: u64) {
    let named = |name: &str| index.find_key(name).expect("all that are named have a number");
    reader.moved = time;
    match op.event.f {
        Kind::Assign if op.outcome == Stage::Ok => {
            let offsets = op.event.offsets.iter();
            reader.next = offsets.map(|(name, offset)| (named(name), *offset)).collect();
        }
        Kind::Assign | Kind::Subscribe => reader.next.clear(),
        Kind::Seek => {
            let Some(key) = op.event.key.as_deref().map(named) else { return };
            reader.next.remove(&key);
            let offset = op.event.offset.filter(|it| *it >= 0 && op.outcome == Stage::Ok);
            reader.next.extend(offset.map(|offset| (key, offset)));
        }
        _ if op.outcome != Stage::Ok => reader.next.clear(),
        _ => reader.next.extend(op.reads.iter().map(|read| (read.key, read.offset + 1))),
    }
}

/// From when on what stands at each offset is shown. What is committed is only shown once
/// everything before it is: a transaction that began before may be in front of it, and one of which
/// nobody knows the end may be until its time is over.
fn shown(index: &Index, isolation: Isolation) -> Shown {
    let mut open: Vec<Vec<(u64, u64)>> = vec![Vec::new(); index.keys.len()];
    let timeouts: BTreeMap<u64, u64> = (index.facts.iter())
        .filter(|fact| fact.f == Kind::Header)
        .filter_map(|fact| Some((fact.process, fact.transaction_timeout_ms?.saturating_mul(1000))))
        .collect();
    if isolation == Isolation::ReadCommitted {
        for op in index.ops.iter().filter(|op| op.event.f == Kind::Txn) {
            let timeout = timeouts.get(&op.event.process).copied().unwrap_or(TRANSACTION_US);
            let over = match (op.outcome, op.ended) {
                (Stage::Ok, Some(ended)) => ended,
                // An abort that fails leaves it to the coordinator, too.
                (_, ended) => ended.unwrap_or(op.began) + 2 * timeout,
            };
            for sent in &op.sends {
                open[sent.key].push((op.began, over));
            }
        }
    }
    for ends in &mut open {
        ends.sort_unstable();
        let mut latest = 0;
        for (_, over) in ends {
            latest = latest.max(*over);
            *over = latest;
        }
    }
    let mut shown: Shown = vec![Vec::new(); index.keys.len()];
    for (key, values) in index.required.iter().enumerate() {
        for &(offset, value) in values {
            let op = &index.ops[index.values[value].op];
            if let (Stage::Ok, Some(ended)) = (op.outcome, op.ended) {
                let before = open[key].partition_point(|(began, _)| *began <= ended);
                let over = before.checked_sub(1).map_or(0, |last| open[key][last].1);
                shown[key].push((offset, ended.max(over)));
            }
        }
        let mut earliest = u64::MAX;
        for (_, time) in shown[key].iter_mut().rev() {
            earliest = earliest.min(*time);
            *time = earliest;
        }
    }
    shown
}
