//! The swarm: whole clusters with everything going wrong that the catalogue of faults has.
//!
//! `ODRADEK_SHRINK=17` looks for the smallest plan of a seed that still fails; which seeds are run
//! otherwise, [`odradek_tests::seeds`] says.

use std::time::Duration;

use odradek_tests::seeds::{Asked, asked};
use odradek_tests::swarm::{Plan, Report, ends, run, shrink};

/// Seeds that are run every time.
const FIXED: u64 = 60;

/// Seeds that are run once and are others the next time.
const FRESH: usize = 8;

/// Runs a seed, which must break no rule.
fn judged(seed: u64) -> Report {
    let report = run(Plan::of(seed));
    assert!(
        report.violations.is_empty(),
        "seed {seed}: {:#?}\nODRADEK_SEED={seed} shows what happened, ODRADEK_SHRINK={seed} looks \
         for the smallest plan that fails, of {:?}",
        report.violations,
        Plan::of(seed),
    );
    report
}

/// Runs a seed and prints what happened.
fn show(seed: u64) {
    let report = run(Plan::of(seed));
    report.trace.iter().for_each(|line| println!("{line}"));
    println!("{:#?}\n{:#?}", Plan::of(seed), report.violations);
    assert!(report.violations.is_empty());
}

fn summarise(what: &str, reports: &[Report]) {
    let sum = |of: fn(&Report) -> usize| reports.iter().map(of).sum::<usize>();
    let hours: f64 = reports.iter().map(|it| it.lived.as_secs_f64() / 3600.0).sum();
    println!(
        "{what}: {} worlds, {hours:.2} cluster hours, {} records acknowledged, {} unknown, {} \
         transactions, {} calls of members, {} brokers started, {} killed, {} positions compared, \
         at the end after {:?} at most",
        reports.len(),
        sum(|it| it.acknowledged),
        sum(|it| it.unknown),
        sum(|it| it.transactions),
        sum(|it| it.calls),
        reports.iter().map(|it| it.started).sum::<u64>(),
        sum(|it| it.kills),
        sum(|it| it.compared),
        reports.iter().map(|it| it.converged_after).max().unwrap_or_default(),
    );
}

#[test]
fn a_swarm_keeps_every_rule_whatever_goes_wrong() {
    if let Ok(seed) = std::env::var("ODRADEK_SHRINK") {
        let seed = seed.parse().expect("ODRADEK_SHRINK is a number");
        let mut attempts = 0;
        let smallest = shrink::shrink(&Plan::of(seed), &mut |plan| {
            attempts += 1;
            !run(plan.clone()).violations.is_empty()
        });
        let report = run(smallest.clone());
        report.trace.iter().for_each(|line| println!("{line}"));
        println!("after {attempts} attempts: {smallest:#?}\n{:#?}", report.violations);
        return;
    }
    let fresh = match asked(FRESH) {
        Asked::One(seed) => return show(seed),
        Asked::Only(seeds) => {
            let what = format!("seeds {seeds:?}");
            return summarise(&what, &seeds.map(judged).collect::<Vec<_>>());
        }
        Asked::Usual(fresh) => fresh,
    };
    let fixed: Vec<Report> = (0..FIXED).map(judged).collect();
    summarise("fixed seeds", &fixed);
    assert!(fixed.iter().map(|it| it.acknowledged).sum::<usize>() > 1000);
    assert!(fixed.iter().map(|it| it.compared).sum::<usize>() > 1000);
    assert!(fixed.iter().map(|it| it.transactions).sum::<usize>() > 100);
    assert!(fixed.iter().map(|it| it.calls).sum::<usize>() > 100);
    let fresh: Vec<Report> = fresh
        .into_iter()
        .map(|seed| {
            println!("fresh seed {seed}");
            judged(seed)
        })
        .collect();
    if !fresh.is_empty() {
        summarise("fresh seeds", &fresh);
    }
}

#[test]
fn the_same_seed_gives_the_same_swarm() {
    for seed in [1, 2, 3, 4, 5] {
        let plan = || Plan { duration: Duration::from_secs(30), ..Plan::of(seed) };
        let (first, second) = (run(plan()), run(plan()));
        let differs = first.trace.iter().zip(&second.trace).find(|(a, b)| a != b);
        assert_eq!(differs, None, "seed {seed}");
        assert_eq!(first.hash(), second.hash(), "seed {seed}");
        assert!(first.trace.len() > 50, "seed {seed}");
    }
}

#[test]
fn brokers_stop_at_an_entry_that_none_of_them_wrote() {
    for seed in 0..5 {
        for halt in ends::garbage(seed) {
            assert!(halt.contains("entry"), "seed {seed}: {halt}");
        }
    }
}

#[test]
fn no_broker_starts_over_a_log_that_was_put_back_to_where_it_was() {
    for seed in 0..5 {
        let refusal = ends::swapped(seed).unwrap_or_else(|| panic!("seed {seed}: it serves"));
        assert!(refusal.contains("the log ends at"), "seed {seed}: {refusal}");
    }
}
