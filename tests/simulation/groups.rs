//! Random worlds of consumer groups.

use std::time::Duration;

use odradek_storage::log::faulty::LogFaults;
use odradek_storage::object::faulty::Faults;
use odradek_tests::groups::{GroupPlan, Mishap, Plan, Protocol, Report, run};
use odradek_tests::seeds::{Asked, asked};
use rand::rngs::StdRng;
use rand::{Rng, SeedableRng};

/// Seeds that found something: what it was stands beside each.
const KEPT: &[u64] = &[];

/// Seeds that are run every time.
const FIXED: u64 = 60;

/// Seeds that are run once and are others the next time.
const FRESH: usize = 10;

/// How many members the groups of a world have, at most together.
const MEMBERS_MAX: usize = 36;

fn plan(seed: u64) -> Plan {
    let mut random = StdRng::seed_from_u64(!seed);
    let mut chance = |most: f64| {
        if random.random_bool(0.5) { random.random_range(0.0..most) } else { 0.0 }
    };
    let log_faults = LogFaults {
        refused: chance(0.05),
        lost: chance(0.1),
        answer_lost: chance(0.1),
        late: chance(0.05),
        late_max: Duration::from_secs(3),
        delayed: 1.0,
        delay_max: Duration::from_millis(20),
        slow: chance(0.02),
        slow_max: Duration::from_secs(5),
        throttled: chance(0.01),
        throttle_max: Duration::from_secs(2),
        stale: chance(0.3),
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
    let mut groups = Vec::new();
    let mut members = 0;
    for _ in 0..random.random_range(1..=4) {
        let most = [1, 2, 5, 12, 30][random.random_range(0..5)];
        let group = GroupPlan {
            protocol: [Protocol::Classic, Protocol::Consumer][random.random_range(0..2)],
            members: random.random_range(1..=most).min(MEMBERS_MAX - members),
            static_members: [0, 0, 1, 5][random.random_range(0..4)],
            partitions: random.random_range(1..=40),
            session_timeout: Duration::from_secs([6, 10][random.random_range(0..2)]),
            rebalance_timeout: Duration::from_secs([3, 8, 20][random.random_range(0..3)]),
            commit_interval_max: Duration::from_secs([4, 4, 60][random.random_range(0..3)]),
        };
        members += group.members;
        groups.push(group);
    }
    groups.retain(|group| group.members > 0);
    Plan {
        seed,
        groups,
        brokers: 3,
        duration: Duration::from_secs(120),
        log_faults,
        object_faults: Faults::default(),
        peers_lost,
        requests_lost,
        mishaps,
        mishap_interval: Duration::from_secs(10),
        life: Duration::from_secs([0, 20, 60, 60][random.random_range(0..4)]),
    }
}

fn summarise(what: &str, reports: &[Report]) {
    let sum = |of: fn(&Report) -> usize| reports.iter().map(of).sum::<usize>();
    println!(
        "{what}: {} worlds, {} calls done, {} commits, {} generations, {} mishaps, {} positions \
         compared, stable after {:?} at most",
        reports.len(),
        sum(|it| it.calls),
        sum(|it| it.commits),
        reports.iter().map(|it| it.generations).sum::<i32>(),
        sum(|it| it.mishaps),
        sum(|it| it.compared),
        reports.iter().map(|it| it.settled_after).max().unwrap_or_default(),
    );
}

#[test]
fn groups_keep_the_rules_whatever_happens_to_brokers_and_members() {
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
    assert!(fixed.iter().map(|it| it.commits).sum::<usize>() > 1000);
    assert!(fixed.iter().map(|it| it.generations).sum::<i32>() > 100);
    assert!(fixed.iter().map(|it| it.compared).sum::<usize>() > 1000);
    let fresh: Vec<Report> = fresh.into_iter().map(judged).collect();
    summarise("fresh seeds", &fresh);
}

#[test]
fn the_same_seed_gives_the_same_groups() {
    for seed in [2, 7, 219] {
        let (first, second) = (run(plan(seed)), run(plan(seed)));
        let differs = first.trace.iter().zip(&second.trace).find(|(a, b)| a != b);
        assert_eq!(differs, None, "seed {seed}");
        assert_eq!(first, second, "seed {seed}");
        assert!(first.trace.len() > 100);
    }
}
