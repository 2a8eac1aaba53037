//! Transactions are visible as a whole or not at all: R14, and TV1 for those of the old protocol.

use super::findings::Findings;
use super::index::{Index, Op};
use super::rule::Rule;
use crate::history::{Isolation, Kind, Stage};

/// R14, once all that there is was read by somebody who is shown only what is committed. Partly
/// visible is what is partly read then, whatever the producer was told; what may be gone by then
/// does not count. In Kafka, a late request of the old protocol may end up in the next transaction
/// (KAFKA-17754), so those are counted apart.
pub(super) fn check(index: &Index, findings: &mut Findings) {
    let looked = final_keys(index);
    for (at, op) in index.ops.iter().enumerate() {
        if op.event.f != Kind::Txn || op.sends.is_empty() {
            continue;
        }
        let old = op.event.tv == Some(1);
        let rule = if old { Rule::TV1 } else { Rule::R14 };
        findings.judge(rule, 1);
        let seen = op.sends.iter().find(|sent| index.values[sent.value].read_committed);
        let Some(seen) = seen.map(|sent| &index.values[sent.value]) else { continue };
        let unseen = op.sends.iter().find(|sent| {
            let value = &index.values[sent.value];
            !value.read_committed && looked[sent.key] && !gone(index, op, value)
        });
        if op.outcome == Stage::Fail {
            if !old {
                // With the old protocol, R5 has counted it.
                findings.blame(rule, index, &[at], || format!("{} was read", seen.number));
            }
        } else if let Some(unseen) = unseen {
            findings.blame(rule, index, &[at], || {
                let unseen = &index.values[unseen.value];
                let (a, b) = (&index.keys[seen.key], &index.keys[unseen.key]);
                format!("{} of {a} was read, {} of {b} never", seen.number, unseen.number)
            });
        }
    }
}

/// Keys which somebody read to their end, after everything was over.
fn final_keys(index: &Index) -> Vec<bool> {
    let mut keys = vec![false; index.keys.len()];
    for fact in index.facts.iter().filter(|fact| fact.f == Kind::Final) {
        let committed = |op: &&Op| {
            op.event.process == fact.process
                && op.began >= fact.time_us
                && op.isolation == Isolation::ReadCommitted
        };
        // Operations are by the time of their beginning.
        let from = index.ops.partition_point(|op| op.began < fact.time_us);
        for op in index.ops[from..].iter().filter(committed) {
            for name in &op.event.keys {
                keys[index.find_key(name).expect("all that are named have a number")] = true;
            }
            op.reads.iter().for_each(|read| keys[read.key] = true);
        }
    }
    keys
}

fn gone(index: &Index, op: &Op, value: &super::index::Value) -> bool {
    let offset = value.offset.unwrap_or(i64::MAX - 1);
    index.may_be_gone(value.key, offset, op.began, index.end)
}
