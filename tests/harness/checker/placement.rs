//! Records are where they belong, and for as long as they should: I1 and RT1.

use super::findings::Findings;
use super::index::Index;
use super::rule::Rule;
use crate::history::{Kind, Stage};

pub(super) fn check(index: &Index, findings: &mut Findings) {
    check_keys(index, findings);
    check_retention(index, findings);
}

/// I1: what is read was sent, and to there.
fn check_keys(index: &Index, findings: &mut Findings) {
    for fact in index.facts.iter().filter(|fact| fact.f == Kind::Misplaced) {
        findings.add(Rule::I1, &[fact.place], || {
            let key = fact.key.as_deref().unwrap_or("a key");
            let found = fact.note.as_ref().map(ToString::to_string).unwrap_or_default();
            format!("{key} at {}: {found}", fact.offset.unwrap_or(-1))
        });
    }
    for (at, op) in index.ops.iter().enumerate() {
        findings.judge(Rule::I1, op.reads.len());
        for read in &op.reads {
            let (key, number) = (&index.keys[read.key], read.number);
            let Some(value) = read.value.map(|value| &index.values[value]) else {
                findings.blame(Rule::I1, index, &[at], || {
                    format!("{number} was read in {key} at {}, and never sent", read.offset)
                });
                continue;
            };
            if value.key != read.key {
                findings.blame(Rule::I1, index, &[value.op, at], || {
                    format!("{number} was sent to {} and read in {key}", index.keys[value.key])
                });
            }
        }
    }
}

/// RT1: a log does not begin after a record that is neither old enough nor deleted.
fn check_retention(index: &Index, findings: &mut Findings) {
    let mut standing: Vec<Vec<(i64, usize)>> = vec![Vec::new(); index.keys.len()];
    for (at, value) in index.values.iter().enumerate().filter(|(_, value)| value.stands) {
        standing[value.key].extend(value.offset.map(|offset| (offset, at)));
    }
    standing.iter_mut().for_each(|values| values.sort_unstable());
    let mut told: Vec<(u64, usize)> = Vec::new();
    for (at, op) in index.ops.iter().enumerate() {
        if op.event.f == Kind::Watermarks && op.outcome == Stage::Ok {
            told.extend(op.ended.map(|ended| (ended, at)));
        }
    }
    told.sort_unstable();
    // Up to where each key's values were judged: earlier answers are the stricter ones.
    let mut judged = vec![0; index.keys.len()];
    for (time, at) in told {
        let event = &index.ops[at].event;
        let key = event.key.as_deref().and_then(|name| index.find_key(name));
        let (Some(key), Some(start)) = (key, event.log_start) else { continue };
        findings.judge(Rule::RT1, 1);
        while let Some(&(offset, value)) = standing[key].get(judged[key])
            && offset < start
        {
            judged[key] += 1;
            let writer = index.values[value].op;
            if !index.may_be_gone(key, offset, index.ops[writer].began, time) {
                findings.blame(Rule::RT1, index, &[writer, at], || {
                    let name = &index.keys[key];
                    format!("{name} begins at {start}, without {offset}")
                });
            }
        }
    }
}
