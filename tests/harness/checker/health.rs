//! Service after faults: L1, L3 and P1.

use std::collections::BTreeMap;

use super::findings::Findings;
use super::index::{Index, Op};
use super::rule::Rule;
use super::summary::Latencies;
use crate::history::{Event, Kind, Stage};

const SECOND_US: u64 = 1_000_000;

/// How long after everything healed a kind of operation may be without success, and a broker that
/// is started without serving.
const RECOVERY_US: u64 = 30 * SECOND_US;

/// Less often tried, it may fail for reasons of its own.
const TRIES_MIN: usize = 3;

/// How long after everything healed sends must be as fast as before again.
const SPEED_US: u64 = 60 * SECOND_US;

/// How long clients may take to come back to a broker after a fault.
const SETTLED_US: u64 = 10 * SECOND_US;

/// Below this, latencies are noise of the machine.
const LATENCY_MIN_US: u64 = 100_000;

/// The longest that a slow broker may make the sends of others.
const LATENCY_MAX_US: u64 = SECOND_US;

/// Sends that are needed to speak of a 99th percentile.
const SENDS_MIN: usize = 100;

/// A stretch of time in which the same faults were on.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Phase {
    pub(super) from: u64,
    pub(super) until: u64,
    /// Names of faults, with the broker that they concern.
    pub(super) faults: Vec<(String, Option<u64>)>,
}

/// All phases of a history in the order of time; without a fault, there is one.
pub(super) fn phases(index: &Index) -> Vec<Phase> {
    let mut phases = Vec::new();
    let mut now: Vec<(String, Option<u64>)> = Vec::new();
    let mut from = 0;
    for fact in index.facts.iter().filter(|fact| fact.f == Kind::Fault) {
        let until = fact.time_us;
        if until > from {
            phases.push(Phase { from, until, faults: now.clone() });
        }
        from = until;
        let fault = (fact.name.clone().unwrap_or_default(), fact.broker);
        now.retain(|other| *other != fault);
        if fact.on == Some(true) {
            now.push(fault);
        }
    }
    phases.push(Phase { from, until: index.end + 1, faults: now });
    phases
}

pub(super) fn check(index: &Index, findings: &mut Findings) {
    let phases = phases(index);
    check_service(index, findings, &phases);
    check_speed(index, findings, &phases);
    check_exits(index, findings);
    check_starts(index, findings, &phases);
    check_slow_brokers(index, findings, &phases);
}

fn is_healthy(phase: &Phase) -> bool {
    phase.faults.is_empty()
}

/// L1: in any 30 s of health, of each kind of operation that was tried a few times, one succeeds.
fn check_service(index: &Index, findings: &mut Findings, phases: &[Phase]) {
    // A fault before: what went on undisturbed from the beginning is judged as well.
    for phase in phases.iter().filter(|phase| is_healthy(phase)) {
        let mut from = phase.from.max(index.ops.first().map_or(0, |op| op.began));
        while from + RECOVERY_US < phase.until {
            let until = from + RECOVERY_US;
            // What begins only towards the end has no time.
            let fair = from + RECOVERY_US / 2;
            let mut tried: BTreeMap<Kind, (Vec<usize>, usize)> = BTreeMap::new();
            let first = index.ops.partition_point(|op| op.began < from);
            for (at, op) in index.ops.iter().enumerate().skip(first) {
                if op.began >= fair {
                    break;
                }
                tried.entry(op.event.f).or_default().0.push(at);
            }
            for (_, op) in index.ok().filter(|(_, op)| within(op.ended, from, until)) {
                tried.entry(op.event.f).or_default().1 += 1;
            }
            for (kind, (tries, succeeded)) in tried {
                let enough = tries.len() >= TRIES_MIN;
                findings.judge(Rule::L1, usize::from(enough));
                if enough && succeeded == 0 {
                    findings.blame(Rule::L1, index, &tries[..TRIES_MIN], || {
                        format!("no {kind:?} succeeded for 30 s from {from} us on, in health")
                    });
                }
            }
            from = until;
        }
    }
}

fn within(time: Option<u64>, from: u64, until: u64) -> bool {
    time.is_some_and(|time| (from..until).contains(&time))
}

fn is_sent(op: &Op) -> bool {
    op.event.f == Kind::Send && op.outcome == Stage::Ok
}

/// Latencies of the sends that began and ended between two moments.
fn latencies<'a>(sends: impl Iterator<Item = &'a Op>, from: u64, until: u64) -> Latencies {
    let within = sends.filter(|op| op.began >= from && within(op.ended, from, until));
    Latencies::of(within.filter_map(|op| op.ended.map(|ended| ended - op.began)).collect())
}

/// L1: 60 s after everything healed, sends are as fast as they were before the first fault.
fn check_speed(index: &Index, findings: &mut Findings, phases: &[Phase]) {
    let Some(first) = phases.first().filter(|phase| is_healthy(phase)) else { return };
    let sends = || index.ops.iter().filter(|op| is_sent(op));
    let before = latencies(sends(), first.from, first.until);
    if before.count < SENDS_MIN || phases.len() == 1 {
        return;
    }
    let limit = 2 * before.p99_us.max(LATENCY_MIN_US);
    for phase in phases[1..].iter().filter(|phase| is_healthy(phase)) {
        let after = latencies(sends(), phase.from + SPEED_US, phase.until);
        if after.count < SENDS_MIN {
            continue;
        }
        findings.judge(Rule::L1, 1);
        if after.p99_us > limit {
            let (after, before) = (after.p99_us, before.p99_us);
            findings.add(Rule::L1, &[], || {
                format!(
                    "99% of sends took {before} us at first, {after} us after {} us",
                    phase.from
                )
            });
        }
    }
}

/// L1: no broker ends by itself.
fn check_exits(index: &Index, findings: &mut Findings) {
    for fact in &index.facts {
        findings.judge(Rule::L1, usize::from(fact.f == Kind::Started));
        if fact.f == Kind::Exited && fact.asked != Some(true) {
            findings.add(Rule::L1, &[fact.place], || {
                format!("broker {} ended by itself", fact.broker.unwrap_or_default())
            });
        }
    }
}

/// L3: a broker serves 30 s after it was started and everything healed, whichever is later. Another
/// fault or its end in between, and the question is not asked.
fn check_starts(index: &Index, findings: &mut Findings, phases: &[Phase]) {
    for started in index.facts.iter().filter(|fact| fact.f == Kind::Started) {
        let next = |kinds: &[Kind]| {
            let from = index.facts.partition_point(|fact| fact.time_us < started.time_us);
            let its = |fact: &&Event| fact.broker == started.broker && kinds.contains(&fact.f);
            index.facts[from..].iter().find(its).map(|fact| fact.time_us)
        };
        let serving = next(&[Kind::Serving]).unwrap_or(u64::MAX);
        let over = next(&[Kind::Exited]).unwrap_or(u64::MAX);
        let healed = phases.iter().find(|it| is_healthy(it) && it.until > started.time_us);
        let Some(healed) = healed else { continue };
        let deadline = started.time_us.max(healed.from) + RECOVERY_US;
        if deadline >= healed.until.min(over) {
            continue;
        }
        findings.judge(Rule::L3, 1);
        if serving > deadline {
            findings.add(Rule::L3, &[started.place], || {
                let broker = started.broker.unwrap_or_default();
                format!("broker {broker} did not serve by {deadline} us")
            });
        }
    }
}

/// P1: while nothing is wrong but that one broker is slow, the others answer sends within a second.
fn check_slow_brokers(index: &Index, findings: &mut Findings, phases: &[Phase]) {
    let is_slow = |(name, _): &(String, Option<u64>)| name.starts_with("slow_broker");
    for phase in phases.iter().filter(|phase| phase.faults.iter().all(is_slow)) {
        let slow: Vec<u64> = phase.faults.iter().filter_map(|(_, broker)| *broker).collect();
        let mut brokers: BTreeMap<Option<u64>, Vec<&Op>> = BTreeMap::new();
        let is_after_fault = slow.is_empty() && phase.from > 0;
        let settled = phase.from + if is_after_fault { SETTLED_US } else { 0 };
        let from = index.ops.partition_point(|op| op.began < settled);
        let during = index.ops[from..].iter().take_while(|op| op.began < phase.until);
        for op in during.filter(|op| is_sent(op)) {
            brokers.entry(op.event.broker).or_default().push(op);
        }
        for (broker, sends) in brokers {
            let latencies = latencies(sends.into_iter(), settled, phase.until);
            // Who does not say which broker answered may have asked the slow one.
            let others = broker.map_or(slow.is_empty(), |broker| !slow.contains(&broker));
            if latencies.count < SENDS_MIN || !others {
                continue;
            }
            findings.judge(Rule::P1, 1);
            if latencies.p99_us > LATENCY_MAX_US {
                let p99 = latencies.p99_us;
                findings.add(Rule::P1, &[], || {
                    let (from, until) = (phase.from, phase.until);
                    format!("broker {broker:?}: 99% of sends took {p99} us in {from}..{until} us")
                });
            }
        }
    }
}
