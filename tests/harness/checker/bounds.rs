//! Ends of logs, positions of groups, and bounds told by brokers: R17, R18 and W1.
//!
//! The end of a log only grows. So whoever asks is told no less than what was known before it
//! asked, and what is sent after the answer comes no earlier than it: no search is needed.

use std::collections::BTreeMap;

use super::findings::Findings;
use super::floor::Floor;
use super::index::Index;
use super::rule::Rule;
use crate::history::{Isolation, Kind, Stage};

pub(super) fn check(index: &Index, findings: &mut Findings) {
    check_ends(index, findings);
    check_positions(index, findings);
    check_watermarks(index, findings);
}

/// What is known of the end of a key.
#[derive(Clone, Debug, Default)]
struct Ends {
    /// Ends that follow from acknowledgements and from what was read, for all and for readers of
    /// what is committed.
    written: [Floor; 2],
    /// Ends that were told, for all and for readers of what is committed.
    told: [Floor; 2],
}

/// 0 for everything, 1 for what is committed.
fn side(isolation: Isolation) -> usize {
    usize::from(isolation == Isolation::ReadCommitted)
}

/// R17. The end of what is committed is no greater than the end; what a transaction wrote is behind
/// the former only once it was read.
fn check_ends(index: &Index, findings: &mut Findings) {
    let mut keys: Vec<Ends> = vec![Ends::default(); index.keys.len()];
    for (at, op) in index.ok() {
        let Some(ended) = op.ended else { continue };
        for sent in &op.sends {
            if let Some(offset) = index.values[sent.value].offset {
                keys[sent.key].written[0].push(ended, offset + 1, at);
            }
        }
        for read in &op.reads {
            keys[read.key].written[0].push(ended, read.offset + 1, at);
            if op.isolation == Isolation::ReadCommitted {
                keys[read.key].written[1].push(ended, read.offset + 1, at);
            }
        }
        if let Some((key, end)) = listed(index, at) {
            keys[key].told[0].push(ended, end, at);
            if op.isolation == Isolation::ReadCommitted {
                keys[key].told[1].push(ended, end, at);
            }
        }
    }
    for key in &mut keys {
        key.written.iter_mut().chain(&mut key.told).for_each(Floor::seal);
    }
    for (at, op) in index.ok() {
        if let Some((key, end)) = listed(index, at) {
            let side = side(op.isolation);
            for floor in [&keys[key].written[side], &keys[key].told[side]] {
                let Some((least, before)) = floor.before(op.began) else { continue };
                findings.judge(Rule::R17, 1);
                if end < least {
                    findings.blame(Rule::R17, index, &[before, at], || {
                        format!("{} ends at {end} though it had come to {least}", index.keys[key])
                    });
                }
            }
        }
        for sent in &op.sends {
            let Some(offset) = index.values[sent.value].offset else { continue };
            let Some((end, before)) = keys[sent.key].told[0].before(op.began) else { continue };
            findings.judge(Rule::R17, 1);
            if offset < end {
                findings.blame(Rule::R17, index, &[before, at], || {
                    let (key, number) = (&index.keys[sent.key], index.values[sent.value].number);
                    format!("{key} ended at {end} before {number} was sent, which is at {offset}")
                });
            }
        }
    }
}

/// Which key's end an operation was told.
fn listed(index: &Index, op: usize) -> Option<(usize, i64)> {
    let event = &index.ops[op].event;
    let key = index.find_key(event.key.as_deref()?)?;
    (event.f == Kind::ListOffsets).then_some(())?;
    Some((key, event.end?))
}

/// A commit of a group for a key.
#[derive(Clone, Copy, Debug)]
struct Commit {
    began: u64,
    /// Surely done by then.
    ended: Option<u64>,
    offset: i64,
}

/// Commits of a group for a key, or questions after where it stands.
type Positions<T> = BTreeMap<(String, usize), Vec<T>>;

/// R18: where a group stands is what was committed last. A commit is out of the question once
/// another one surely came after it; what is told is no less than the least of those that remain.
fn check_positions(index: &Index, findings: &mut Findings) {
    let mut commits: Positions<Commit> = BTreeMap::new();
    let mut questions: Positions<usize> = BTreeMap::new();
    for (at, op) in index.ops.iter().enumerate().filter(|(_, op)| op.outcome != Stage::Fail) {
        let Some(group) = &op.event.group else { continue };
        let key = op.event.key.as_deref().and_then(|name| index.find_key(name));
        let ended = op.ended.filter(|_| op.outcome == Stage::Ok);
        let commit = |offset| Commit { began: op.began, ended, offset };
        match (op.event.f, key, op.event.offset) {
            (Kind::Commit, Some(key), Some(offset)) => {
                commits.entry((group.clone(), key)).or_default().push(commit(offset));
            }
            (Kind::Committed, Some(key), Some(_)) if ended.is_some() => {
                questions.entry((group.clone(), key)).or_default().push(at);
            }
            (Kind::Txn, ..) => {
                for (name, &offset) in &op.event.offsets {
                    let key = index.find_key(name).expect("all that are named have a number");
                    commits.entry((group.clone(), key)).or_default().push(commit(offset));
                }
            }
            _ => {}
        }
    }
    for (of, questions) in questions {
        let Some(commits) = commits.get_mut(&of) else { continue };
        // Those that are not known to be done last, for they are never out of the question.
        commits.sort_by_key(|commit| commit.ended.unwrap_or(u64::MAX));
        let mut over = Floor::default();
        for commit in commits.iter() {
            if let Some(ended) = commit.ended {
                over.push(ended, i64::try_from(commit.began).unwrap_or(i64::MAX), 0);
            }
        }
        over.seal();
        for at in questions {
            let op = &index.ops[at];
            let Some((since, _)) = over.before(op.began) else { continue };
            let since = u64::try_from(since).unwrap_or_default();
            let ended = op.ended.unwrap_or(u64::MAX);
            let from = commits.partition_point(|it| it.ended.is_some_and(|end| end < since));
            let possible = commits[from..].iter().filter(|commit| commit.began < ended);
            let Some(least) = possible.map(|commit| commit.offset).min() else { continue };
            findings.judge(Rule::R18, 1);
            let told = op.event.offset.unwrap_or(-1);
            if told < least {
                findings.blame(Rule::R18, index, &[at], || {
                    let key = &index.keys[of.1];
                    format!("{} stands at {told} of {key}, committed was {least}", of.0)
                });
            }
        }
    }
}

/// W1: start <= high watermark, stable <= high watermark; none goes back on one broker; and what a
/// broker showed as committed was stable there.
fn check_watermarks(index: &Index, findings: &mut Findings) {
    let bounds = |op: usize| {
        let event = &index.ops[op].event;
        [("start", event.log_start), ("stable offset", event.stable), ("high", event.high)]
    };
    let mut floors: BTreeMap<(usize, Option<u64>, &str), Floor> = BTreeMap::new();
    for (at, op) in index.ok() {
        let (broker, ended) = (op.event.broker, op.ended.unwrap_or(op.began));
        if op.event.f == Kind::Watermarks {
            let key = op.event.key.as_deref().and_then(|name| index.find_key(name));
            for (name, bound) in bounds(at) {
                let (Some(key), Some(bound)) = (key, bound) else { continue };
                floors.entry((key, broker, name)).or_default().push(ended, bound, at);
            }
        } else if broker.is_some() && op.isolation == Isolation::ReadCommitted {
            for read in &op.reads {
                let floor = floors.entry((read.key, broker, "stable offset")).or_default();
                floor.push(ended, read.offset + 1, at);
            }
        }
    }
    floors.values_mut().for_each(Floor::seal);
    for (at, op) in index.ok().filter(|(_, op)| op.event.f == Kind::Watermarks) {
        let Some(key) = op.event.key.as_deref().and_then(|name| index.find_key(name)) else {
            continue;
        };
        let name = &index.keys[key];
        let high = op.event.high.unwrap_or(i64::MAX);
        for (which, bound) in bounds(at) {
            let Some(bound) = bound else { continue };
            findings.judge(Rule::W1, 1);
            if bound > high {
                findings.blame(Rule::W1, index, &[at], || {
                    format!("{name}: {which} is {bound}, above the high watermark {high}")
                });
            }
            let floor = floors.get(&(key, op.event.broker, which));
            let Some((least, before)) = floor.and_then(|floor| floor.before(op.began)) else {
                continue;
            };
            if bound < least {
                findings.blame(Rule::W1, index, &[before, at], || {
                    format!("{name}: {which} is {bound}, and was at least {least}")
                });
            }
        }
    }
}
