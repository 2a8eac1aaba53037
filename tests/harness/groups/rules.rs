//! The rules that a history of calls must keep (RELIABILITY R18, G1, G2, G3).
//!
//! A call that began after another had ended must not contradict it. Of calls that overlap nothing
//! is said.

use std::collections::{BTreeMap, BTreeSet};

use super::history::{Call, What};

/// A rule, and how it was broken.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Violation {
    /// The rule.
    pub rule: &'static str,
    /// The call that broke it, and what it contradicts.
    pub how: String,
}

/// All that is wrong with a history.
pub fn check(calls: &[Call]) -> Vec<Violation> {
    let mut groups: BTreeMap<&str, Vec<&Call>> = BTreeMap::new();
    for call in calls {
        groups.entry(&call.group).or_default().push(call);
    }
    let mut violations = Vec::new();
    for calls in groups.values() {
        check_positions(calls, &mut violations);
        check_owners(calls, &mut violations);
        check_generations(calls, &mut violations);
        check_static_members(calls, &mut violations);
        check_holders(calls, &mut violations);
        check_epochs(calls, &mut violations);
    }
    violations
}

fn breaks(rule: &'static str, call: &Call, other: &Call) -> Violation {
    Violation { rule, how: format!("{call:?} contradicts {other:?}") }
}

/// What was known for sure at a moment: the greatest of what calls proved that had ended by then.
struct Known<'a, T> {
    /// By the end of the call that proved it; each proves more than the one before.
    proofs: BTreeMap<u64, (T, &'a Call)>,
}

impl<'a, T: Ord + Copy> Known<'a, T> {
    /// From proofs in the order in which their calls ended.
    fn new(proofs: impl Iterator<Item = (T, &'a Call)>) -> Self {
        let mut known: BTreeMap<u64, (T, &Call)> = BTreeMap::new();
        for (value, call) in proofs {
            if known.last_key_value().is_none_or(|(_, (greatest, _))| value > *greatest) {
                known.insert(call.ended, (value, call));
            }
        }
        Self { proofs: known }
    }

    fn before(&self, moment: u64) -> Option<(T, &'a Call)> {
        self.proofs.range(..moment).next_back().map(|(_, proof)| *proof)
    }
}

/// R18: a position that is read is not older than one whose commit was acknowledged before; and it
/// is one that somebody sent.
fn check_positions(calls: &[&Call], violations: &mut Vec<Violation>) {
    let mut sent: BTreeSet<(i32, i64, &str)> = BTreeSet::new();
    let mut acknowledged: BTreeMap<i32, Vec<(i64, &Call)>> = BTreeMap::new();
    for call in calls {
        if let What::Commit { partition, offset, metadata, .. } = &call.what {
            sent.insert((*partition, *offset, metadata));
            if call.is_done {
                acknowledged.entry(*partition).or_default().push((*offset, *call));
            }
        }
    }
    let known: BTreeMap<i32, Known<'_, i64>> = acknowledged
        .into_iter()
        .map(|(partition, proofs)| (partition, Known::new(proofs.into_iter())))
        .collect();
    for call in calls {
        let What::Read { partition, position } = &call.what else { continue };
        let found = position.as_ref().map_or(-1, |(offset, _)| *offset);
        let before = known.get(partition).and_then(|known| known.before(call.began));
        if let Some((_, commit)) = before.filter(|(offset, _)| *offset > found) {
            violations.push(breaks("R18", call, commit));
        }
        if let Some((offset, metadata)) = position
            && !sent.contains(&(*partition, *offset, metadata))
        {
            let how = format!("{call:?} found what nobody sent");
            violations.push(Violation { rule: "R18", how });
        }
    }
}

/// G1: in one generation a partition has one owner. A static member that came back under another id
/// is the same owner.
fn check_owners(calls: &[&Call], violations: &mut Vec<Violation>) {
    let mut owners: BTreeMap<(i32, i32), &Call> = BTreeMap::new();
    for call in calls {
        let What::Sync { generation, partitions } = &call.what else { continue };
        for partition in partitions.iter().filter(|_| call.is_done) {
            let owner = owners.entry((*generation, *partition)).or_insert(call);
            if identity(owner) != identity(call) {
                violations.push(breaks("G1", call, owner));
            }
        }
    }
}

fn identity(call: &Call) -> &str {
    call.instance.as_deref().unwrap_or(&call.member)
}

/// G2 and G3: once a generation was seen, nobody is told any more that an older one lives, and
/// nothing is committed in it.
fn check_generations(calls: &[&Call], violations: &mut Vec<Violation>) {
    let generation = |call: &Call| match &call.what {
        What::Join { generation }
        | What::Sync { generation, .. }
        | What::Heartbeat { generation }
        | What::Commit { generation, .. } => Some(*generation).filter(|_| call.is_done),
        What::Read { .. } | What::Turn { .. } => None,
    };
    if calls.iter().any(|call| matches!(call.what, What::Turn { .. })) {
        return;
    }
    let proofs = calls.iter().filter_map(|call| Some((generation(call)?, *call)));
    let known = Known::new(proofs);
    for call in calls {
        let Some(generation) = generation(call) else { continue };
        let Some((seen, proof)) = known.before(call.began) else { continue };
        if seen > generation {
            let is_commit = matches!(call.what, What::Commit { .. });
            violations.push(breaks(if is_commit { "G3" } else { "G2" }, call, proof));
        }
    }
}

/// KIP-345: once a static member has joined under another id, the id before is good for nothing.
fn check_static_members(calls: &[&Call], violations: &mut Vec<Violation>) {
    let mut joins: BTreeMap<&str, Vec<&Call>> = BTreeMap::new();
    let done = || calls.iter().filter(|call| call.is_done);
    for call in done().filter(|call| matches!(call.what, What::Join { .. })) {
        if let Some(instance) = &call.instance {
            joins.entry(instance).or_default().push(call);
        }
    }
    for call in done().filter(|call| !matches!(call.what, What::Read { .. })) {
        let joins = call.instance.as_deref().and_then(|instance| joins.get(instance));
        let Some(joins) = joins else { continue };
        let own = joins.iter().filter(|join| join.member == call.member);
        let Some(last) = own.map(|join| join.began).max() else { continue };
        let successor = joins.iter().find(|join| {
            join.began > last && join.ended < call.began && join.member != call.member
        });
        if let Some(successor) = successor {
            violations.push(breaks("KIP-345", call, successor));
        }
    }
}

/// What a member of the consumer protocol was told, or tried to say.
struct Turn<'a> {
    call: &'a Call,
    epoch: i32,
    owned: &'a [i32],
    partitions: &'a [i32],
}

/// The turns of a group, by member, each in the order in which they began.
fn turns<'a>(calls: &[&'a Call]) -> BTreeMap<&'a str, Vec<Turn<'a>>> {
    let mut turns: BTreeMap<&str, Vec<Turn<'_>>> = BTreeMap::new();
    for call in calls {
        if let What::Turn { epoch, owned, partitions, .. } = &call.what {
            let turn = Turn { call, epoch: *epoch, owned, partitions };
            turns.entry(&call.member).or_default().push(turn);
        }
    }
    turns.values_mut().for_each(|turns| turns.sort_by_key(|turn| turn.call.began));
    turns
}

/// A time in which a member had a partition, by what it was told, and gave it back to nobody.
struct Hold<'a> {
    member: &'a str,
    first: &'a Call,
    last: &'a Call,
}

/// G1 of the consumer protocol: nobody is told to have a partition while another has it who is told
/// so before and after.
fn check_holders(calls: &[&Call], violations: &mut Vec<Violation>) {
    let mut holds: BTreeMap<i32, Vec<Hold<'_>>> = BTreeMap::new();
    for (member, turns) in turns(calls) {
        let mut open: BTreeMap<i32, Hold<'_>> = BTreeMap::new();
        for turn in turns {
            let gone: Vec<i32> =
                open.keys().filter(|it| !turn.owned.contains(it)).copied().collect();
            for partition in gone {
                holds.entry(partition).or_default().extend(open.remove(&partition));
            }
            for partition in turn.partitions.iter().filter(|_| turn.call.is_done) {
                let new = || Hold { member, first: turn.call, last: turn.call };
                open.entry(*partition).or_insert_with(new).last = turn.call;
            }
        }
        for (partition, hold) in open {
            holds.entry(partition).or_default().push(hold);
        }
    }
    for holds in holds.values() {
        for (at, one) in holds.iter().enumerate() {
            for other in holds[at + 1..].iter().filter(|other| other.member != one.member) {
                // Both had it from before the other began to until after.
                let overlaps = |a: &Hold<'_>, b: &Hold<'_>| {
                    a.first.ended < b.first.began && b.first.ended < a.last.began
                };
                if overlaps(one, other) {
                    violations.push(breaks("G1", one.last, other.first));
                } else if overlaps(other, one) {
                    violations.push(breaks("G1", other.last, one.first));
                }
            }
        }
    }
}

/// G2 and G3 of the consumer protocol: a member's epoch does not go back, and nothing is committed
/// with an older one, nor by a member in whose place another was told to have the partition.
fn check_epochs(calls: &[&Call], violations: &mut Vec<Violation>) {
    let turns = turns(calls);
    let mut known = BTreeMap::new();
    for (member, turns) in &turns {
        let done = turns.iter().filter(|turn| turn.call.is_done);
        let mut proofs: Vec<_> = done.map(|turn| (turn.epoch, turn.call)).collect();
        proofs.sort_by_key(|(_, call)| call.ended);
        known.insert(*member, Known::new(proofs.into_iter()));
    }
    for (member, turns) in &turns {
        for turn in turns.iter().filter(|turn| turn.call.is_done) {
            let before = known.get(member).and_then(|known| known.before(turn.call.began));
            if let Some((_, proof)) = before.filter(|(epoch, _)| *epoch > turn.epoch) {
                violations.push(breaks("G2", turn.call, proof));
            }
        }
    }
    for call in calls.iter().filter(|call| call.is_done) {
        let What::Commit { generation, partition, .. } = &call.what else { continue };
        let Some(own) = turns.get(call.member.as_str()) else { continue };
        let before = known.get(call.member.as_str()).and_then(|known| known.before(call.began));
        if let Some((_, proof)) = before.filter(|(epoch, _)| epoch > generation) {
            violations.push(breaks("G3", call, proof));
        }
        let granted = |turn: &&Turn<'_>| turn.call.is_done && turn.partitions.contains(partition);
        let own = own.iter().filter(|turn| turn.call.began < call.ended);
        let last_own = own.filter(granted).map(|turn| turn.call.ended).max().unwrap_or(0);
        let others = turns.iter().filter(|(member, _)| **member != call.member);
        let mut others = others.flat_map(|(_, turns)| turns).filter(granted);
        let taken = others.find(|turn| turn.call.ended < call.began && turn.call.began > last_own);
        if let Some(taken) = taken {
            violations.push(breaks("G3", call, taken.call));
        }
    }
}
