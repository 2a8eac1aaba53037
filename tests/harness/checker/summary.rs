//! What was done in a history, how fast, and when nothing went through.

use std::collections::BTreeMap;
use std::fmt;

use serde::{Deserialize, Serialize};

use super::health::{Phase, phases};
use super::index::Index;
use crate::history::{Kind, Stage};

/// A stretch without any success of a kind of operation that is told, in microseconds.
const GAP_US: u64 = 2_000_000;

/// How long operations took.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Latencies {
    /// How many.
    pub count: usize,
    /// The median, in microseconds.
    pub p50_us: u64,
    /// The 99th percentile.
    pub p99_us: u64,
    /// The longest.
    pub max_us: u64,
}

impl Latencies {
    /// Of `times` in microseconds.
    pub fn of(mut times: Vec<u64>) -> Self {
        times.sort_unstable();
        let count = times.len();
        let at = |share: usize| times.get((count * share / 100).min(count.max(1) - 1));
        let rank = |share| at(share).copied().unwrap_or_default();
        Self { count, p50_us: rank(50), p99_us: rank(99), max_us: rank(100) }
    }
}

/// How operations of a kind ended.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Outcomes {
    /// They happened.
    pub ok: usize,
    /// They did not.
    pub fail: usize,
    /// Nobody knows.
    pub info: usize,
}

/// A stretch in which operations were tried and none succeeded.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Gap {
    /// Of which kind.
    pub kind: Kind,
    /// The last success before it, in microseconds.
    pub from_us: u64,
    /// The first success after it, or the end.
    pub until_us: u64,
}

/// What was done in a history.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct Summary {
    /// From the first event to the last, in microseconds.
    pub duration_us: u64,
    /// Partitions.
    pub keys: usize,
    /// Values that were acknowledged.
    pub acknowledged: usize,
    /// Values that were read, each as often as it was.
    pub read: usize,
    /// Processes that polled everything at the end.
    pub finals: usize,
    /// Transactions of the old protocol.
    pub transactions_v1: usize,
    /// How operations ended.
    pub operations: BTreeMap<Kind, Outcomes>,
    /// Of those that succeeded, by the faults that were on when they began.
    pub latencies: BTreeMap<String, BTreeMap<Kind, Latencies>>,
    /// When nothing went through for 2 s and more.
    pub gaps: Vec<Gap>,
}

pub(super) fn summarize(index: &Index) -> Summary {
    let mut operations: BTreeMap<Kind, Outcomes> = BTreeMap::new();
    for op in &index.ops {
        let outcomes = operations.entry(op.event.f).or_default();
        match op.outcome {
            Stage::Ok => outcomes.ok += 1,
            Stage::Fail => outcomes.fail += 1,
            Stage::Invoke | Stage::Info => outcomes.info += 1,
        }
    }
    let first = index.ops.first().map(|op| op.began);
    let first = first.into_iter().chain(index.facts.first().map(|fact| fact.time_us)).min();
    let old = |op: &&super::index::Op| op.event.f == Kind::Txn && op.event.tv == Some(1);
    Summary {
        duration_us: index.end - first.unwrap_or(index.end),
        keys: index.keys.len(),
        acknowledged: index.ok().map(|(_, op)| op.sends.len()).sum(),
        read: index.ok().map(|(_, op)| op.reads.len()).sum(),
        finals: index.facts.iter().filter(|fact| fact.f == Kind::Final).count(),
        transactions_v1: index.ops.iter().filter(old).count(),
        operations,
        latencies: latencies(index),
        gaps: gaps(index),
    }
}

fn name(phase: &Phase) -> String {
    let names: Vec<&str> = phase.faults.iter().map(|(name, _)| name.as_str()).collect();
    if names.is_empty() { "healthy".to_owned() } else { names.join("+") }
}

fn latencies(index: &Index) -> BTreeMap<String, BTreeMap<Kind, Latencies>> {
    let mut times: BTreeMap<String, BTreeMap<Kind, Vec<u64>>> = BTreeMap::new();
    for phase in phases(index) {
        let of_phase = times.entry(name(&phase)).or_default();
        let from = index.ops.partition_point(|op| op.began < phase.from);
        let during = index.ops[from..].iter().take_while(|op| op.began < phase.until);
        for op in during.filter(|op| op.outcome == Stage::Ok) {
            let time = op.ended.map(|ended| ended - op.began);
            of_phase.entry(op.event.f).or_default().extend(time);
        }
    }
    let of = |kinds: BTreeMap<Kind, Vec<u64>>| {
        kinds.into_iter().map(|(kind, times)| (kind, Latencies::of(times))).collect()
    };
    times.into_iter().map(|(phase, kinds)| (phase, of(kinds))).collect()
}

/// Stretches between successes in which something was tried. Judged by the last success and the
/// first operation that was begun after it.
fn gaps(index: &Index) -> Vec<Gap> {
    let mut gaps = Vec::new();
    for kind in [Kind::Send, Kind::Poll, Kind::Txn, Kind::ListOffsets, Kind::Commit] {
        let its = || index.ops.iter().filter(move |op| op.event.f == kind);
        let successes = its().filter(|op| op.outcome == Stage::Ok);
        let mut ends: Vec<u64> = successes.filter_map(|op| op.ended).collect();
        ends.sort_unstable();
        let Some(began) = its().next().map(|op| op.began) else { continue };
        ends.insert(0, began);
        ends.push(its().map(|op| op.ended.unwrap_or(op.began)).max().unwrap_or(began));
        for pair in ends.windows(2).filter(|pair| pair[0] + GAP_US < pair[1]) {
            let (from_us, until_us) = (pair[0], pair[1]);
            // Nobody tried: no gap of availability.
            let from = index.ops.partition_point(|op| op.began < from_us);
            let mut during = index.ops[from..].iter().take_while(|op| op.began + GAP_US < until_us);
            if during.any(|op| op.event.f == kind) {
                gaps.push(Gap { kind, from_us, until_us });
            }
        }
    }
    gaps.sort_by_key(|gap| (gap.from_us, gap.kind));
    gaps
}

impl fmt::Display for Summary {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { duration_us, keys, acknowledged, read, finals, .. } = self;
        let seconds = duration_us / 1_000_000;
        writeln!(
            formatter,
            "{seconds} s, {keys} partitions, {acknowledged} values acknowledged, {read} read, \
             {finals} final polls"
        )?;
        for (kind, Outcomes { ok, fail, info }) in &self.operations {
            writeln!(formatter, "{:<14} {ok:>9} ok {fail:>7} fail {info:>7} info", named(*kind))?;
        }
        for (phase, kinds) in &self.latencies {
            for (kind, Latencies { count, p50_us, p99_us, max_us }) in kinds {
                let kind = named(*kind);
                writeln!(
                    formatter,
                    "{kind:<14} {count:>9} in p50 {p50_us} us, p99 {p99_us} us, max {max_us} us \
                     ({phase})"
                )?;
            }
        }
        for Gap { kind, from_us, until_us } in &self.gaps {
            let ms = (until_us - from_us) / 1000;
            writeln!(formatter, "{:<14} none for {ms} ms from {from_us} us on", named(*kind))?;
        }
        Ok(())
    }
}

/// As it is written in histories.
fn named(kind: Kind) -> String {
    serde_json::to_value(kind).ok().and_then(|name| Some(name.as_str()?.to_owned())).unwrap()
}
