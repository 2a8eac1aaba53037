//! Random worlds: a fixed set of seeds, some that are new each time, and those that once found a
//! bug.

use std::time::Duration;

use odradek_storage::log::faulty::LogFaults;
use odradek_storage::object::faulty::Faults;
use odradek_tests::seeds::{Asked, asked};
use odradek_tests::world::{Plan, Report, run};
use rand::rngs::StdRng;
use rand::{Rng, SeedableRng};

/// Seeds that found something: what it was stands beside each.
const KEPT: &[u64] = &[];

/// Seeds that are run every time.
const FIXED: u64 = 60;

/// Seeds that are run once and are others the next time.
const FRESH: usize = 20;

/// A world in which everything that the seed does not rule out goes wrong.
fn plan(seed: u64) -> Plan {
    let mut random = StdRng::seed_from_u64(seed);
    // A random subset of faults: a run in which everything fails at once shows less than one in
    // which a few things fail often.
    let mut chance = |most: f64| {
        if random.random_bool(0.5) { random.random_range(0.0..most) } else { 0.0 }
    };
    let mut calls = || LogFaults {
        refused: chance(0.1),
        lost: chance(0.2),
        answer_lost: chance(0.2),
        late: chance(0.1),
        late_max: Duration::from_secs(3),
        delayed: 1.0,
        delay_max: Duration::from_millis(20),
        slow: chance(0.02),
        slow_max: Duration::from_secs(5),
        throttled: chance(0.02),
        throttle_max: Duration::from_secs(2),
        stale: chance(0.3),
    };
    let (object_calls, log_faults) = (calls(), calls());
    let faults = Faults {
        calls: object_calls,
        bit_flip: chance(0.1),
        truncated: chance(0.1),
        wrong_range: chance(0.1),
        not_found: chance(0.05),
    };
    let peers_lost = chance(1.0);
    let kills = random.random_bool(0.6);
    Plan {
        seed,
        brokers: random.random_range(1..=4),
        producers: random.random_range(1..=6),
        partitions: random.random_range(1..=4),
        duration: Duration::from_secs(20),
        faults,
        log_faults,
        peers_lost,
        kill_interval: if kills { Duration::from_secs(2) } else { Duration::ZERO },
        moves: random.random_bool(0.7),
        inline_bytes_max: if random.random_bool(0.5) { 0 } else { 1000 },
    }
}

fn summarise(what: &str, reports: &[Report]) {
    let sum = |of: fn(&Report) -> usize| reports.iter().map(of).sum::<usize>();
    println!(
        "{what}: {} worlds, {} simulated minutes, {} records acknowledged, {} unknown, {} kills, \
         {} positions compared, {} segments merged, {} inline at the end, {} entries trimmed",
        reports.len(),
        reports.len() * 20 / 60,
        sum(|it| it.acknowledged),
        sum(|it| it.unknown),
        sum(|it| it.kills),
        sum(|it| it.compared),
        sum(|it| it.merged),
        sum(|it| it.inline),
        reports.iter().map(|it| it.trimmed).sum::<u64>(),
    );
}

#[test]
fn no_acknowledged_record_is_lost_or_doubled() {
    let live = |seed| {
        println!("seed {seed}");
        run(plan(seed))
    };
    let fresh = match asked(FRESH) {
        Asked::One(seed) => return live(seed).trace.iter().for_each(|line| println!("{line}")),
        Asked::Only(seeds) => return seeds.map(live).for_each(drop),
        Asked::Usual(fresh) => fresh,
    };
    let fixed: Vec<Report> = KEPT.iter().copied().chain(0..FIXED).map(live).collect();
    summarise("fixed seeds", &fixed);
    assert!(fixed.iter().map(|it| it.acknowledged).sum::<usize>() > 1000);
    assert!(fixed.iter().map(|it| it.compared).sum::<usize>() > 1000);
    assert!(fixed.iter().map(|it| it.merged).sum::<usize>() > 100);
    assert!(fixed.iter().map(|it| it.inline).sum::<usize>() > 100);
    assert!(fixed.iter().map(|it| it.trimmed).sum::<u64>() > 1000);
    let fresh: Vec<Report> = fresh.into_iter().map(live).collect();
    summarise("fresh seeds", &fresh);
}

#[test]
fn the_same_seed_gives_the_same_world() {
    for seed in [3, 11, 1234, 987_654_321] {
        let (first, second) = (run(plan(seed)), run(plan(seed)));
        let differs = first.trace.iter().zip(&second.trace).find(|(a, b)| a != b);
        assert_eq!(differs, None, "seed {seed}");
        assert_eq!(first, second, "seed {seed}");
        assert!(first.trace.len() > 20);
    }
}
