//! Does the checker accept what is right, and find what is wrong?

use super::*;
use crate::history::Event;

mod cases;
mod kafka;
mod plants;
mod workers;

/// Histories that are judged each time.
const SEEDS: u64 = 200;

/// Histories in which each anomaly is planted.
const FIELDS: u64 = 25;

/// Of those, at least so many must have a place for it.
const PLANTED_MIN: u64 = 8;

fn judge(events: Vec<Event>) -> Verdict {
    check(History { events, files: Vec::new() }).unwrap()
}

#[test]
fn what_keeps_all_rules_is_accepted() {
    let mut judged = std::collections::BTreeMap::new();
    for seed in 0..SEEDS {
        let verdict = judge(kafka::history(seed).events);
        assert!(verdict.is_good(), "seed {seed}: {verdict}");
        assert_eq!(verdict.count(Rule::TV1), 0, "seed {seed}: {verdict}");
        assert_eq!(verdict.lacks(Enough::default()), None, "seed {seed}");
        for (rule, finding) in verdict.rules {
            *judged.entry(rule).or_insert(0) += finding.judged;
        }
    }
    // Nothing is accepted for want of asking.
    let unjudged: Vec<&Rule> = Rule::ALL.iter().filter(|rule| judged[rule] == 0).collect();
    assert_eq!(unjudged, [&Rule::R8Subscribed], "{judged:?}");
}

#[test]
fn what_breaks_a_rule_is_found_by_that_rule() {
    for plant in plants::all() {
        let mut planted = 0;
        for seed in 0..FIELDS {
            let mut field = plants::Field::new(seed);
            if (plant.plant)(&mut field).is_none() {
                continue;
            }
            planted += 1;
            let verdict = judge(field.events);
            let found = verdict.count(plant.rule);
            assert!(found > 0, "seed {seed}: {} is not {:?}: {verdict}", plant.name, plant.rule);
            if plant.rule.standing() == Standing::Never {
                assert!(!verdict.is_good());
            }
        }
        assert!(planted >= PLANTED_MIN, "{} fits into {planted} of {FIELDS}", plant.name);
    }
    assert!(plants::all().count() >= 40);
}

#[test]
fn histories_are_the_same_for_the_same_seed() {
    assert_eq!(kafka::history(7).events, kafka::history(7).events);
    assert_ne!(kafka::history(7).events, kafka::history(8).events);
}
