//! What a pipeline read it has written exactly once: R15.

use std::collections::{BTreeMap, BTreeSet};

use super::findings::Findings;
use super::index::Index;
use super::rule::Rule;
use crate::history::Kind;

/// How far a pipeline read a key.
#[derive(Clone, Copy, Debug)]
struct Span {
    /// The first offset it was shown.
    first: i64,
    /// Before which it committed everything.
    end: i64,
    /// Which transaction did.
    op: usize,
}

/// At how many places a value was read. At several stands only what was sent without idempotence
/// (R2), and a pipeline copies each of them.
fn places(index: &Index, number: i64) -> usize {
    let reads = index.ops.iter().flat_map(|op| &op.reads).filter(|read| read.number == number);
    reads.map(|read| (read.key, read.offset)).collect::<BTreeSet<_>>().len()
}

/// R15: of all that stands before a group's committed offset, there is one copy that stands; of
/// nothing there are two. A pipeline is a group whose transactions say what they copied.
pub(super) fn check(index: &Index, findings: &mut Findings) {
    let mut groups: BTreeMap<&str, BTreeMap<usize, Span>> = BTreeMap::new();
    let mut copies: BTreeMap<(&str, i64), Vec<usize>> = BTreeMap::new();
    for (at, op) in index.ops.iter().enumerate() {
        let Some(group) = op.event.group.as_deref().filter(|_| op.event.f == Kind::Txn) else {
            continue;
        };
        if op.event.copies.is_empty() && !groups.contains_key(group) {
            continue;
        }
        let stands = op.sends.iter().any(|sent| index.values[sent.value].stands);
        let spans = groups.entry(group).or_default();
        for read in &op.reads {
            let new = Span { first: read.offset, end: i64::MIN, op: at };
            let span = spans.entry(read.key).or_insert(new);
            span.first = span.first.min(read.offset);
        }
        for (name, &end) in op.event.offsets.iter().filter(|_| stands) {
            let key = index.find_key(name).expect("all that are named have a number");
            let span = spans.entry(key).or_insert(Span { first: i64::MAX, end, op: at });
            if end > span.end {
                (span.end, span.op) = (end, at);
            }
        }
        for &(source, copy) in &op.event.copies {
            let value = index.find_value(copy).map(|value| &index.values[value]);
            if value.is_some_and(|value| value.stands) {
                copies.entry((group, source)).or_default().push(at);
            }
        }
    }
    for ((group, source), ops) in &copies {
        findings.judge(Rule::R15, 1);
        if ops.len() > 1 && ops.len() > places(index, *source) {
            findings.blame(Rule::R15, index, ops, || {
                format!("{group} has {} copies of {source}", ops.len())
            });
        }
    }
    for (group, spans) in &groups {
        for (&key, span) in spans {
            for value in index.skipped(key, span.first, span.end) {
                let value = &index.values[value];
                findings.judge(Rule::R15, 1);
                if !copies.contains_key(&(*group, value.number)) {
                    findings.blame(Rule::R15, index, &[value.op, span.op], || {
                        let (key, at) = (&index.keys[key], value.offset.unwrap_or_default());
                        format!("{group} has no copy of {} of {key}, at {at}", value.number)
                    });
                }
            }
        }
    }
}
