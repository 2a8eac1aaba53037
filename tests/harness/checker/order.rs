//! The order of a key's values: R1, R2, R3, R4, R9, R10, R11 and R16.

use super::findings::Findings;
use super::floor::Floor;
use super::index::Index;
use super::rule::Rule;
use crate::history::{Kind, Stage};

/// A value at an offset, as somebody was told.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
struct Sighting {
    key: usize,
    offset: i64,
    number: i64,
    op: usize,
}

pub(super) fn check(index: &Index, findings: &mut Findings) {
    let acknowledged = acknowledged(index);
    let mut all = acknowledged.clone();
    all.extend(read(index));
    check_places(index, findings, &mut all);
    check_acknowledgements(index, findings, acknowledged);
    check_lost(index, findings);
    check_sends(index, findings);
    check_inside(index, findings);
}

/// What writers were told; of those that did not succeed as well, for where a value stood that was
/// aborted nothing else may stand.
fn acknowledged(index: &Index) -> Vec<Sighting> {
    let of_op = |(op, it): (usize, &super::index::Op)| -> Vec<Sighting> {
        let known = it.sends.iter().filter_map(|sent| {
            let number = index.values[sent.value].number;
            Some(Sighting { key: sent.key, offset: sent.offset?, number, op })
        });
        known.collect()
    };
    index.ops.iter().enumerate().flat_map(of_op).collect()
}

fn read(index: &Index) -> impl Iterator<Item = Sighting> {
    index.ops.iter().enumerate().flat_map(|(op, it)| {
        let sighting = move |read: &super::index::Read| {
            let super::index::Read { key, offset, number, .. } = *read;
            Sighting { key, offset, number, op }
        };
        it.reads.iter().map(sighting)
    })
}

/// R1: an offset of a key has one value. R2: a value has one place.
fn check_places(index: &Index, findings: &mut Findings, all: &mut Vec<Sighting>) {
    all.sort_unstable();
    all.dedup_by_key(|it| (it.key, it.offset, it.number));
    findings.judge(Rule::R1, all.len());
    for pair in all.windows(2) {
        let (one, two) = (pair[0], pair[1]);
        if (one.key, one.offset) == (two.key, two.offset) {
            findings.blame(Rule::R1, index, &[one.op, two.op], || {
                let key = &index.keys[one.key];
                format!("{key} has {} and {} at {}", one.number, two.number, one.offset)
            });
        }
    }
    all.sort_unstable_by_key(|it| (it.number, it.key, it.offset, it.op));
    for pair in all.windows(2) {
        let (one, two) = (pair[0], pair[1]);
        let writer = index.find_value(one.number).map(|value| index.values[value].op);
        let idempotent = writer.is_none_or(|op| index.ops[op].idempotent);
        let rule = if idempotent { Rule::R2 } else { Rule::R2NotIdempotent };
        findings.judge(rule, 1);
        if one.number == two.number {
            findings.blame(rule, index, &[one.op, two.op], || {
                let (a, b) = (&index.keys[one.key], &index.keys[two.key]);
                format!("{} is in {a} at {} and in {b} at {}", one.number, one.offset, two.offset)
            });
        }
    }
}

/// R16: offsets that were told with success are where the values are read, and nobody else's.
fn check_acknowledgements(index: &Index, findings: &mut Findings, mut told: Vec<Sighting>) {
    told.retain(|it| index.ops[it.op].outcome == Stage::Ok);
    told.sort_unstable();
    findings.judge(Rule::R16, told.len());
    for it in told.iter().filter(|it| it.offset < 0) {
        findings.blame(Rule::R16, index, &[it.op], || {
            format!("{} was acknowledged at {}", it.number, it.offset)
        });
    }
    for pair in told.windows(2) {
        let (one, two) = (pair[0], pair[1]);
        if (one.key, one.offset) == (two.key, two.offset) {
            findings.blame(Rule::R16, index, &[one.op, two.op], || {
                let key = &index.keys[one.key];
                let (a, b) = (one.number, two.number);
                format!("{key}: {a} and {b} were both acknowledged at {}", one.offset)
            });
        }
    }
    for (op, it) in index.ops.iter().enumerate() {
        for read in &it.reads {
            let Some(value) = read.value.map(|value| &index.values[value]) else { continue };
            let writer = &index.ops[value.op];
            // Without idempotence a value may stand elsewhere as well.
            let is_told = writer.outcome == Stage::Ok && writer.idempotent && value.key == read.key;
            if is_told && value.offset != Some(read.offset) {
                findings.blame(Rule::R16, index, &[value.op, op], || {
                    let (key, told) = (&index.keys[read.key], value.offset);
                    let (number, at) = (read.number, read.offset);
                    format!("{key}: {number} was acknowledged at {told:?} and read at {at}")
                });
            }
        }
    }
}

/// R3: what stands below something that was read was read as well. R4: everything acknowledged was,
/// in the end; asked only if there was a last look, and not of what may be gone by then.
fn check_lost(index: &Index, findings: &mut Findings) {
    let mut highest: Vec<Option<(i64, usize)>> = vec![None; index.keys.len()];
    for (at, op) in index.ops.iter().enumerate() {
        for read in &op.reads {
            highest[read.key] = highest[read.key].max(Some((read.offset, at)));
        }
    }
    let is_final = index.facts.iter().any(|fact| fact.f == Kind::Final);
    for values in &index.required {
        findings.judge(Rule::R3, values.len());
    }
    for value in index.values.iter().filter(|value| value.stands) {
        let writer = &index.ops[value.op];
        let key = &index.keys[value.key];
        let below =
            highest[value.key].filter(|(most, _)| value.offset.is_some_and(|at| at <= *most));
        // Where it stands is not known: it can't have gone before everything could.
        let offset = value.offset.unwrap_or(i64::MAX - 1);
        let gone = index.may_be_gone(value.key, offset, writer.began, index.end);
        let asked = is_final && writer.outcome == Stage::Ok;
        findings.judge(Rule::R4, usize::from(asked));
        if value.read || gone {
            continue;
        }
        if let Some((most, reader)) = below {
            findings.blame(Rule::R3, index, &[value.op, reader], || {
                let (number, at) = (value.number, value.offset.unwrap_or_default());
                format!("{key}: {number} at {at} was never read, but {most} was")
            });
        } else if asked {
            findings.blame(Rule::R4, index, &[value.op], || {
                format!("{key}: {} at {:?} was never read", value.number, value.offset)
            });
        }
    }
}

/// R9: what was acknowledged before another value was sent stands before it, whoever sent them.
/// What was only perhaps written comes at any later time, so the earlier one must be acknowledged.
fn check_sends(index: &Index, findings: &mut Findings) {
    let mut acknowledged = vec![Floor::default(); index.keys.len()];
    for (at, op) in index.ok() {
        for sent in &op.sends {
            if let (Some(offset), Some(ended)) = (index.values[sent.value].offset, op.ended) {
                acknowledged[sent.key].push(ended, offset, at);
            }
        }
    }
    acknowledged.iter_mut().for_each(Floor::seal);
    for values in &index.required {
        for &(offset, value) in values {
            let value = &index.values[value];
            let began = index.ops[value.op].began;
            let Some((most, earlier)) = acknowledged[value.key].before(began) else { continue };
            findings.judge(Rule::R9, 1);
            if most > offset {
                findings.blame(Rule::R9, index, &[earlier, value.op], || {
                    let key = &index.keys[value.key];
                    let number = value.number;
                    format!("{key}: {number} stands at {offset}, sent after {most} was told")
                });
            }
        }
    }
}

/// R10 and R11: order within an operation, and what others wrote between.
fn check_inside(index: &Index, findings: &mut Findings) {
    for (at, op) in index.ok().filter(|(_, op)| op.sends.len() > 1) {
        let mut placed: Vec<(usize, i64)> = Vec::with_capacity(op.sends.len());
        let offset = |value: usize| index.values[value].offset;
        placed.extend(op.sends.iter().filter_map(|it| Some((it.key, offset(it.value)?))));
        // Stable: values of a key stay in the order in which they were sent.
        placed.sort_by_key(|(key, _)| *key);
        for pair in placed.windows(2) {
            let ((key, first), (other, second)) = (pair[0], pair[1]);
            if key != other {
                continue;
            }
            findings.judge(Rule::R11, 1);
            findings.judge(Rule::R10, usize::from(op.idempotent));
            let name = &index.keys[key];
            if second < first && op.idempotent {
                findings
                    .blame(Rule::R10, index, &[at], || format!("{name}: {first}, then {second}"));
            } else if index.skipped(key, first + 1, second).next().is_some() {
                findings
                    .blame(Rule::R11, index, &[at], || format!("{name}: {first}, then {second}"));
            }
        }
    }
}
