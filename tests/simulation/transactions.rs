//! Random worlds of transactions.

use std::time::Duration;

use odradek_storage::log::faulty::LogFaults;
use odradek_storage::object::faulty::Faults;
use odradek_tests::groups::{self, GroupPlan, Mishap};
use odradek_tests::seeds::{Asked, asked};
use odradek_tests::transactions::network::Mischief;
use odradek_tests::transactions::producer::Protocol;
use odradek_tests::transactions::{Copies, Plan, Report, run};
use rand::rngs::StdRng;
use rand::{Rng, SeedableRng};

/// Seeds that found something: what it was stands beside each.
const KEPT: &[u64] = &[
    // A request waited for the log in a broker that did not know its client yet, and was taken for
    // a part of the transaction that its client had begun meanwhile.
    87,
];

/// Seeds that are run every time.
const FIXED: u64 = 30;

/// Seeds that are run once and are others the next time.
const FRESH: usize = 10;

const SECOND: Duration = Duration::from_secs(1);

fn plan(seed: u64) -> Plan {
    let mut random = StdRng::seed_from_u64(seed.rotate_left(7) ^ 0x7a);
    let world = world(seed, &mut random);
    let patience = SECOND * [1, 2, 5][random.random_range(0..3)];
    let mut chance = |most: f64| {
        if random.random_bool(0.5) { random.random_range(0.0..most) } else { 0.0 }
    };
    let mischief = Mischief {
        patience,
        lost: chance(0.05),
        doubled: chance(0.1),
        late: chance(0.05),
        astray: chance(0.5),
        hangs: chance(0.01),
        hang_max: SECOND * 15,
    };
    let protocol =
        |random: &mut StdRng| [Protocol::Explicit, Protocol::Implicit][random.random_range(0..2)];
    let copies = |random: &mut StdRng| Copies {
        count: random.random_range(1..=3),
        protocol: protocol(random),
        partitions: random.random_range(1..=4),
    };
    let pipelines = world.groups.iter().map(|_| copies(&mut random)).collect();
    let feeders = (0..random.random_range(1..=3)).map(|_| protocol(&mut random)).collect();
    Plan {
        world,
        pipelines,
        feeders,
        timeout: SECOND * random.random_range(3..=12),
        mischief,
        life: SECOND * [0, 5, 20, 40][random.random_range(0..4)],
        pause_max: Duration::from_millis([100, 500, 3000][random.random_range(0..3)]),
    }
}

/// The brokers of a world, and its groups.
fn world(seed: u64, random: &mut StdRng) -> groups::Plan {
    let mut chance = |most: f64| {
        if random.random_bool(0.5) { random.random_range(0.0..most) } else { 0.0 }
    };
    let mut calls = || LogFaults {
        refused: chance(0.05),
        lost: chance(0.1),
        answer_lost: chance(0.1),
        late: chance(0.05),
        late_max: SECOND * 3,
        delayed: 1.0,
        delay_max: Duration::from_millis(20),
        slow: chance(0.02),
        slow_max: SECOND * 5,
        throttled: chance(0.01),
        throttle_max: SECOND * 2,
        stale: chance(0.3),
    };
    let (log_faults, object_calls) = (calls(), calls());
    let object_faults = Faults {
        calls: object_calls,
        bit_flip: chance(0.05),
        truncated: chance(0.05),
        wrong_range: chance(0.05),
        not_found: chance(0.02),
    };
    let peers_lost = chance(1.0);
    let requests_lost = chance(0.05);
    let all = [
        Mishap::Killed,
        Mishap::Retired,
        Mishap::Joined,
        Mishap::ShortPause,
        Mishap::LongPause,
        Mishap::LogLost,
        Mishap::Overtaken,
    ];
    let mishaps = all.into_iter().filter(|_| random.random_bool(0.5)).collect();
    let group = |random: &mut StdRng| GroupPlan {
        protocol: [groups::Protocol::Classic, groups::Protocol::Consumer]
            [random.random_range(0..2)],
        members: [0, 1, 2, 3][random.random_range(0..4)],
        static_members: [0, 0, 1][random.random_range(0..3)],
        partitions: random.random_range(1..=4),
        session_timeout: SECOND * 6,
        rebalance_timeout: SECOND * [3, 8][random.random_range(0..2)],
        commit_interval_max: Duration::ZERO,
    };
    groups::Plan {
        seed,
        groups: (0..random.random_range(1..=2)).map(|_| group(random)).collect(),
        brokers: random.random_range(2..=3),
        duration: SECOND * 60,
        log_faults,
        object_faults,
        peers_lost,
        requests_lost,
        mishaps,
        mishap_interval: SECOND * 8,
        life: SECOND * [0, 20, 60][random.random_range(0..3)],
    }
}

fn summarise(what: &str, reports: &[Report]) {
    let sum = |of: fn(&Report) -> usize| reports.iter().map(of).sum::<usize>();
    println!(
        "{what}: {} worlds, {} transactions committed, {} aborted, {} unknown, {} records there, \
         {} positions compared, at the end after {:?} at most",
        reports.len(),
        sum(|it| it.endings[0]),
        sum(|it| it.endings[1]),
        sum(|it| it.endings[2]),
        sum(|it| it.records),
        sum(|it| it.compared),
        reports.iter().map(|it| it.drained_after).max().unwrap_or_default(),
    );
}

#[test]
fn transactions_keep_the_rules_whatever_happens_to_brokers_and_clients() {
    let judged = |seed| {
        println!("seed {seed}");
        let report = run(plan(seed));
        assert_eq!(report.violations, [], "seed {seed}");
        report
    };
    let fresh = match asked(FRESH) {
        Asked::One(seed) => {
            let report = run(plan(seed));
            report.trace.iter().for_each(|line| println!("{line}"));
            report.violations.iter().for_each(|violation| println!("{violation:?}"));
            return;
        }
        Asked::Only(seeds) => return seeds.map(judged).for_each(drop),
        Asked::Usual(fresh) => fresh,
    };
    let fixed: Vec<Report> = KEPT.iter().copied().chain(0..FIXED).map(judged).collect();
    summarise("fixed seeds", &fixed);
    assert!(fixed.iter().map(|it| it.endings[0]).sum::<usize>() > 1000);
    assert!(fixed.iter().map(|it| it.endings[1]).sum::<usize>() > 100);
    assert!(fixed.iter().map(|it| it.compared).sum::<usize>() > 1000);
    let fresh: Vec<Report> = fresh.into_iter().map(judged).collect();
    summarise("fresh seeds", &fresh);
}

#[test]
fn the_same_seed_gives_the_same_transactions() {
    for seed in [2, 7, 219] {
        let (first, second) = (run(plan(seed)), run(plan(seed)));
        let differs = first.trace.iter().zip(&second.trace).find(|(a, b)| a != b);
        assert_eq!(differs, None, "seed {seed}");
        assert_eq!(first, second, "seed {seed}");
        assert!(first.trace.len() > 100);
    }
}
