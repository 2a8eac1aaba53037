//! What readers are shown, and in which order: R5, R6, R7 and R8.

use std::collections::BTreeMap;

use super::findings::Findings;
use super::index::{Index, Op};
use super::rule::Rule;
use crate::history::{Event, Isolation, Kind, Stage};

pub(super) fn check(index: &Index, findings: &mut Findings) {
    check_writers(index, findings);
    check_inside(index, findings);
    check_between(index, findings);
}

/// R5: nobody reads what was not written, and who reads what is committed nothing that was not. R6:
/// no transaction reads its own values.
fn check_writers(index: &Index, findings: &mut Findings) {
    for (at, op) in index.ok() {
        for read in &op.reads {
            let Some(value) = read.value.map(|value| &index.values[value]) else { continue };
            let writer = &index.ops[value.op];
            findings.judge(Rule::R6, usize::from(op.event.f == Kind::Txn));
            findings.judge(Rule::R5, 1);
            if value.op == at {
                findings.blame(Rule::R6, index, &[at], || format!("it read {}", value.number));
            }
            // An aborted value is there, for who asks for everything.
            let hidden = writer.event.f == Kind::Send || op.isolation == Isolation::ReadCommitted;
            if writer.outcome == Stage::Fail && hidden {
                let old = writer.event.f == Kind::Txn && writer.event.tv == Some(1);
                let rule = if old { Rule::TV1 } else { Rule::R5 };
                findings.blame(rule, index, &[value.op, at], || {
                    let key = &index.keys[read.key];
                    format!("{key}: {} was read at {}", value.number, read.offset)
                });
            }
        }
    }
}

/// How a read does not continue where the last one stopped.
fn gap(index: &Index, key: usize, next: i64, offset: i64) -> Option<String> {
    let name = &index.keys[key];
    if offset < next {
        return Some(format!("{name}: {offset} was read after {}", next - 1));
    }
    let mut skipped = index.skipped(key, next, offset);
    let value = &index.values[skipped.next()?];
    let (number, at) = (value.number, value.offset.unwrap_or_default());
    let more = skipped.count();
    Some(format!(
        "{name}: {number} at {at} (and {more} more) was left out between {next} and {offset}"
    ))
}

/// R7: within an operation the values of a key are read one after the other, unless the key came or
/// went meanwhile.
fn check_inside(index: &Index, findings: &mut Findings) {
    let mut rebalances: BTreeMap<u64, Vec<&Event>> = BTreeMap::new();
    for fact in index.facts.iter().filter(|fact| fact.f == Kind::Rebalance) {
        rebalances.entry(fact.process).or_default().push(fact);
    }
    for (at, op) in index.ops.iter().enumerate().filter(|(_, op)| op.reads.len() > 1) {
        let all = rebalances.get(&op.event.process).map_or(&[][..], |all| all);
        let from = all.partition_point(|fact| fact.time_us < op.began);
        let ended = op.ended.unwrap_or(index.end);
        let moved = |key: usize| {
            let during = all[from..].iter().take_while(|fact| fact.time_us <= ended);
            during
                .into_iter()
                .any(|fact| fact.keys.is_empty() || fact.keys.contains(&index.keys[key]))
        };
        let mut next: BTreeMap<usize, i64> = BTreeMap::new();
        for read in &op.reads {
            let Some(next) = next.insert(read.key, read.offset + 1) else { continue };
            findings.judge(Rule::R7, 1);
            if let Some(how) = gap(index, read.key, next, read.offset)
                && !moved(read.key)
            {
                findings.blame(Rule::R7, index, &[at], || how);
            }
        }
    }
}

/// Where the consumer of a process is.
#[derive(Debug, Default)]
struct Position {
    subscribed: bool,
    /// By key: next offset, and which operation read the one before.
    next: BTreeMap<usize, (i64, usize)>,
}

/// What moves positions, in the order of time.
enum Step<'a> {
    Done(usize, &'a Op),
    Fact(&'a Event),
}

/// R8: the same between the operations of a process, from an assignment on. A subscriber's
/// partitions come and go without its doing, and with them its position: that is only counted.
/// After a read whose end is not known, or a transaction that was not committed, the position isn't
/// either.
fn check_between(index: &Index, findings: &mut Findings) {
    let mut steps: Vec<(u64, Step<'_>)> = Vec::with_capacity(index.ops.len());
    for (at, op) in index.ops.iter().enumerate() {
        let moves = matches!(op.event.f, Kind::Assign | Kind::Subscribe | Kind::Seek);
        if moves || op.event.f == Kind::Poll || op.event.f == Kind::Txn {
            // Without an end, it may take effect from its beginning on.
            steps.push((op.ended.unwrap_or(op.began), Step::Done(at, op)));
        }
    }
    steps.extend(index.facts.iter().map(|fact| (fact.time_us, Step::Fact(fact))));
    steps.sort_by_key(|(time, _)| *time);
    let mut positions: BTreeMap<u64, Position> = BTreeMap::new();
    for (_, step) in steps {
        match step {
            Step::Done(at, op) => {
                let position = positions.entry(op.event.process).or_default();
                follow(index, findings, position, (at, op));
            }
            Step::Fact(fact) => {
                let Some(position) = positions.get_mut(&fact.process) else { continue };
                match fact.f {
                    Kind::Crash | Kind::Final => *position = Position::default(),
                    Kind::Rebalance if fact.keys.is_empty() => position.next.clear(),
                    Kind::Rebalance => {
                        let named = |key: &usize| fact.keys.contains(&index.keys[*key]);
                        position.next.retain(|key, _| !named(key));
                    }
                    _ => {}
                }
            }
        }
    }
}

fn follow(index: &Index, findings: &mut Findings, position: &mut Position, (at, op): (usize, &Op)) {
    match op.event.f {
        Kind::Assign | Kind::Subscribe => {
            let subscribed = op.event.f == Kind::Subscribe;
            *position = Position { subscribed, next: BTreeMap::new() };
            if op.outcome == Stage::Ok {
                for (name, offset) in &op.event.offsets {
                    let key = index.find_key(name).expect("all that are named have a number");
                    position.next.insert(key, (*offset, at));
                }
            }
        }
        Kind::Seek => {
            let key = op.event.key.as_deref().and_then(|name| index.find_key(name));
            let Some((key, offset)) = key.zip(op.event.offset) else { return };
            position.next.remove(&key);
            if op.outcome == Stage::Ok && offset >= 0 {
                position.next.insert(key, (offset, at));
            }
        }
        _ if op.outcome != Stage::Ok => position.next.clear(),
        _ => {
            let rule = if position.subscribed { Rule::R8Subscribed } else { Rule::R8 };
            for read in &op.reads {
                let old = position.next.insert(read.key, (read.offset + 1, at));
                // What is within the operation is R7's.
                let Some((next, before)) = old.filter(|(_, before)| *before != at) else {
                    continue;
                };
                findings.judge(rule, 1);
                if let Some(how) = gap(index, read.key, next, read.offset) {
                    findings.blame(rule, index, &[before, at], || how);
                }
            }
        }
    }
}
