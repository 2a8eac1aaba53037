//! Data lives and dies in random worlds: retention, compaction, merging, branches, deletion and its
//! undoing, sweeping, snapshots and trimming at once, for ten minutes each.

use std::time::Duration;

use odradek_storage::log::faulty::LogFaults;
use odradek_storage::object::faulty::Faults;
use odradek_tests::life::{Plan, Report, run};
use odradek_tests::seeds::{Asked, asked};
use rand::rngs::StdRng;
use rand::{Rng, SeedableRng};

/// Seeds that found something: what it was stands beside each.
const KEPT: &[u64] = &[
    // An examination at the end was to find nothing, and found the snapshot that the world had
    // damaged late.
    142,
    // The log was to be trimmed a minute after the last fault, where two attempts had gone wrong.
    200,
];

/// Seeds that are run every time.
const FIXED: u64 = 20;

/// Seeds that are run once and are others the next time.
const FRESH: usize = 5;

fn plan(seed: u64) -> Plan {
    let mut random = StdRng::seed_from_u64(seed);
    let mut chance = |most: f64| {
        if random.random_bool(0.5) { random.random_range(0.0..most) } else { 0.0 }
    };
    let mut calls = || LogFaults {
        refused: chance(0.05),
        lost: chance(0.1),
        answer_lost: chance(0.1),
        late: chance(0.05),
        late_max: Duration::from_secs(3),
        delayed: 1.0,
        delay_max: Duration::from_millis(20),
        slow: chance(0.01),
        slow_max: Duration::from_secs(5),
        throttled: chance(0.01),
        throttle_max: Duration::from_secs(2),
        stale: chance(0.3),
    };
    let (object_calls, log_faults) = (calls(), calls());
    let mut faults = Faults {
        calls: object_calls,
        bit_flip: chance(0.05),
        truncated: chance(0.05),
        wrong_range: chance(0.05),
        not_found: chance(0.03),
    };
    if random.random_bool(0.5) {
        // A slow store: much happens between the reading of a segment and the swap of what it
        // became.
        faults.calls.delay_max = Duration::from_millis(300);
    }
    let kills = random.random_bool(0.7);
    let cuts = random.random_bool(0.5);
    Plan {
        seed,
        brokers: random.random_range(2..=3),
        duration: Duration::from_secs(600),
        faults,
        log_faults,
        kill_interval: if kills { Duration::from_secs(40) } else { Duration::ZERO },
        cut_interval: if cuts { Duration::from_secs(20) } else { Duration::ZERO },
        jumps: random.random_bool(0.3),
        loses_snapshot: random.random_bool(0.4),
        inline_bytes_max: if random.random_bool(0.5) { 0 } else { 1000 },
    }
}

fn live(seed: u64) -> Report {
    println!("seed {seed}");
    run(plan(seed))
}

fn sum(reports: &[Report]) -> Report {
    let mut sum = Report::default();
    for it in reports {
        sum.acknowledged += it.acknowledged;
        sum.unknown += it.unknown;
        sum.checked += it.checked;
        sum.kills += it.kills;
        sum.cut_off += it.cut_off;
        sum.lingered += it.lingered;
        sum.branched += it.branched;
        sum.deleted += it.deleted;
        sum.undone += it.undone;
        sum.purged += it.purged;
        sum.cut += it.cut;
        sum.compacted += it.compacted;
        sum.expired += it.expired;
        sum.merged += it.merged;
        sum.swept += it.swept;
        sum.trimmed += it.trimmed;
    }
    sum
}

#[test]
fn what_is_not_due_stays_and_what_is_due_goes() {
    let fresh = match asked(FRESH) {
        Asked::One(seed) => return println!("{:?}", live(seed)),
        Asked::Only(seeds) => return seeds.map(live).for_each(drop),
        Asked::Usual(fresh) => fresh,
    };
    let fixed: Vec<Report> = KEPT.iter().copied().chain(0..FIXED).map(live).collect();
    let fixed = sum(&fixed);
    println!("fixed seeds: {fixed:?}");
    for (what, happened) in [
        ("acknowledged", fixed.acknowledged),
        ("checked", fixed.checked),
        ("killed", fixed.kills),
        ("cut off", fixed.cut_off),
        ("lingered", fixed.lingered),
        ("branched", fixed.branched),
        ("undone", fixed.undone),
        ("purged", fixed.purged),
        ("cut", fixed.cut),
        ("compacted", fixed.compacted),
        ("expired", fixed.expired),
        ("merged", fixed.merged),
        ("swept", fixed.swept),
        ("trimmed", usize::try_from(fixed.trimmed).unwrap()),
    ] {
        assert!(happened > 10, "{what}: {happened}");
    }
    let fresh: Vec<Report> = fresh.into_iter().map(live).collect();
    println!("fresh seeds: {:?}", sum(&fresh));
}
