//! The swarm: whole clusters with everything going wrong that the catalogue of faults has.
//!
//! `ODRADEK_SHRINK=17` looks for the smallest plan of a seed that still fails; which seeds are run
//! otherwise, [`odradek_tests::seeds`] says.

use std::time::Duration;

use odradek_tests::proof;
use odradek_tests::seeds::{Asked, asked};
use odradek_tests::swarm::outages::{self, Outage};
use odradek_tests::swarm::{Plan, Report, ends, run, shrink};

/// Seeds that are run every time.
const FIXED: u64 = 60;

/// Seeds that are run once and are others the next time.
const FRESH: usize = 8;

/// Long worlds that are run every time, and those that are others the next time.
const LONG_FIXED: u64 = 3;
const LONG_FRESH: usize = 1;

/// Runs a plan, which must break no rule.
fn judged(plan: &Plan) -> Report {
    let report = run(plan.clone());
    let seed = plan.seed;
    assert!(
        report.violations.is_empty(),
        "seed {seed}: {:#?}\nODRADEK_SEED={seed} shows what happened, ODRADEK_SHRINK={seed} looks \
         for the smallest plan that fails, of {plan:?}",
        report.violations,
    );
    report
}

/// Runs a plan and prints what happened.
fn show(plan: &Plan) {
    let report = run(plan.clone());
    report.trace.iter().for_each(|line| println!("{line}"));
    println!("{plan:#?}\n{:#?}", report.violations);
    assert!(report.violations.is_empty());
}

/// Looks for the smallest plan that fails as one does, and prints what happens in it.
fn shrunk(plan: &Plan) {
    let mut attempts = 0;
    let smallest = shrink::shrink(plan, &mut |plan| {
        attempts += 1;
        !run(plan.clone()).violations.is_empty()
    });
    let report = run(smallest.clone());
    report.trace.iter().for_each(|line| println!("{line}"));
    println!("after {attempts} attempts: {smallest:#?}\n{:#?}", report.violations);
}

/// Runs the worlds that the environment asks for; the usual ones if it asks for none, of which it
/// gives the reports of those that are fixed.
fn swarm(kind: &str, plan: fn(u64) -> Plan, fixed: u64, fresh: usize) -> Vec<Report> {
    if let Ok(seed) = std::env::var("ODRADEK_SHRINK") {
        shrunk(&plan(seed.parse().expect("ODRADEK_SHRINK is a number")));
        return Vec::new();
    }
    let fresh = match asked(fresh) {
        Asked::One(seed) => {
            show(&plan(seed));
            return Vec::new();
        }
        Asked::Only(seeds) => {
            let what = format!("seeds {seeds:?}");
            let reports: Vec<Report> = seeds.map(|seed| judged(&plan(seed))).collect();
            summarise(kind, &what, &reports);
            return Vec::new();
        }
        Asked::Usual(fresh) => fresh,
    };
    let fixed_seeds = 0..fixed;
    let fixed: Vec<Report> = fixed_seeds.clone().map(|seed| judged(&plan(seed))).collect();
    summarise(kind, &format!("seeds {fixed_seeds:?}"), &fixed);
    let fresh: Vec<Report> = fresh
        .into_iter()
        .map(|seed| {
            println!("fresh seed {seed}");
            judged(&plan(seed))
        })
        .collect();
    if !fresh.is_empty() {
        summarise(kind, "fresh seeds", &fresh);
    }
    fixed
}

fn summarise(kind: &str, what: &str, reports: &[Report]) {
    let sum = |of: fn(&Report) -> usize| reports.iter().map(of).sum::<usize>();
    let hours: f64 = reports.iter().map(|it| it.lived.as_secs_f64() / 3600.0).sum();
    proof::add_swarm(kind, what, reports);
    println!(
        "{kind}, {what}: {} worlds, {hours:.2} cluster hours, {} records acknowledged, {} of them \
         of idempotent producers, {} unknown, {} transactions, {} calls of members, {} brokers \
         started, {} killed, {} positions compared, at the end after {:?} at most",
        reports.len(),
        sum(|it| it.acknowledged),
        sum(|it| it.acknowledged_once),
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
    let fixed = swarm("swarm", Plan::of, FIXED, FRESH);
    if fixed.is_empty() {
        return;
    }
    assert!(fixed.iter().map(|it| it.acknowledged).sum::<usize>() > 1000);
    assert!(fixed.iter().map(|it| it.acknowledged_once).sum::<usize>() > 1000);
    assert!(fixed.iter().map(|it| it.compared).sum::<usize>() > 1000);
    assert!(fixed.iter().map(|it| it.transactions).sum::<usize>() > 100);
    assert!(fixed.iter().map(|it| it.calls).sum::<usize>() > 100);
}

#[test]
fn a_swarm_of_two_hours_keeps_every_rule_whatever_goes_wrong() {
    let fixed = swarm("long swarm", Plan::long, LONG_FIXED, LONG_FRESH);
    assert!(fixed.iter().all(|it| it.lived > Duration::from_secs(2 * 60 * 60)));
}

#[test]
fn an_outage_of_an_hour_ends_no_broker_and_is_over_within_30_s() {
    for (seed, outage) in Outage::ALL.into_iter().enumerate() {
        let seed = u64::try_from(seed).unwrap();
        let outlived = outages::outlive(seed, outage, Duration::from_secs(60 * 60));
        println!(
            "{outage:?}: full service after {:?}, {:?} bytes of requests at most, {} records \
             acknowledged",
            outlived.served_after, outlived.request_bytes, outlived.report.acknowledged
        );
        assert_eq!(outlived.report.violations, Vec::<String>::new(), "{outage:?}");
        assert!(outlived.served_after < Duration::from_secs(30), "{outage:?}: {outlived:?}");
        assert_eq!(outlived.started, 5, "{outage:?}: some broker was started again");
        let (taken, budget) = outlived.request_bytes;
        assert!(taken <= budget, "{outage:?}: {taken} of {budget} bytes");
        assert!(outlived.report.acknowledged > 0, "{outage:?}");
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
