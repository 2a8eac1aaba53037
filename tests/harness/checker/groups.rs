//! Groups: G1, G2 and G3.

use std::collections::BTreeMap;

use super::findings::Findings;
use super::floor::Floor;
use super::index::Index;
use super::rule::Rule;
use crate::history::{Event, Kind, Protocol};

/// Whose generations are counted together: a group's (classic), or those of one of its members
/// (KIP-848), for there each member follows the group's epoch at its own pace.
type Counter = (String, Option<String>);

fn counter(event: &Event) -> Option<Counter> {
    let member = match event.protocol.unwrap_or_default() {
        Protocol::Classic => None,
        Protocol::Consumer => Some(event.member.clone()?),
    };
    Some((event.group.clone()?, member))
}

fn generation(event: &Event) -> Option<i64> {
    event.generation.filter(|generation| *generation >= 0)
}

pub(super) fn check(index: &Index, findings: &mut Findings) {
    check_owners(index, findings);
    check_generations(index, findings);
}

/// G1: within a generation, a partition has one owner. A static member that comes back with another
/// member id is still the same one.
fn check_owners(index: &Index, findings: &mut Findings) {
    let mut owners: BTreeMap<(&str, i64, &str), (&str, &Event)> = BTreeMap::new();
    for fact in index.facts.iter().filter(|fact| fact.f == Kind::Assigned) {
        let (Some(group), Some(generation)) = (&fact.group, generation(fact)) else { continue };
        let Some(owner) = fact.instance.as_deref().or(fact.member.as_deref()) else { continue };
        for key in &fact.keys {
            findings.judge(Rule::G1, 1);
            let (first, before) = *owners.entry((group, generation, key)).or_insert((owner, fact));
            if first != owner {
                findings.add(Rule::G1, &[before.place, fact.place], || {
                    format!("{group} in {generation}: {key} belongs to {first} and to {owner}")
                });
            }
        }
    }
}

/// G2 and G3: once anybody was told of a generation, the coordinator neither answers members of an
/// older one nor accepts their commits.
fn check_generations(index: &Index, findings: &mut Findings) {
    let mut known: BTreeMap<Counter, Floor> = BTreeMap::new();
    let mut learn = |event: &Event, time: u64, whom: usize| {
        if let (Some(counter), Some(generation)) = (counter(event), generation(event)) {
            known.entry(counter).or_default().push(time, generation, whom);
        }
    };
    for (at, fact) in index.facts.iter().enumerate().filter(|(_, it)| it.f == Kind::Assigned) {
        learn(fact, fact.time_us, index.ops.len() + at);
    }
    let asks_as_member =
        |kind| matches!(kind, Kind::Heartbeat | Kind::Commit | Kind::Committed | Kind::Txn);
    for (at, op) in index.ok().filter(|(_, op)| asks_as_member(op.event.f)) {
        learn(&op.event, op.ended.unwrap_or(op.began), at);
    }
    known.values_mut().for_each(Floor::seal);
    for (_, op) in index.ok().filter(|(_, op)| asks_as_member(op.event.f)) {
        let (Some(counter), Some(old)) = (counter(&op.event), generation(&op.event)) else {
            continue;
        };
        let commits = op.event.f == Kind::Commit || !op.event.offsets.is_empty();
        let rule = if commits { Rule::G3 } else { Rule::G2 };
        findings.judge(rule, 1);
        let floor = known.get(&counter).and_then(|floor| floor.before(op.began));
        let Some((new, whom)) = floor.filter(|(new, _)| *new > old) else { continue };
        let witness = match whom.checked_sub(index.ops.len()) {
            Some(fact) => index.facts[fact].place,
            None => index.ops[whom].event.place,
        };
        findings.add(rule, &[witness, op.place, op.event.place], || {
            format!("{}: generation {old} was served after {new} was known", counter.0)
        });
    }
}
