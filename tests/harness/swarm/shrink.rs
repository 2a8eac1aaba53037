//! The smallest plan that still fails: kinds of faults are taken out (delta debugging), then time,
//! then clients and brokers.

use std::collections::BTreeSet;
use std::time::Duration;

use super::fault::Fault;
use super::plan::{Clients, Plan};

/// Shorter than this a world shows nothing.
const DURATION_MIN: Duration = Duration::from_secs(5);

/// Makes a plan that fails as small as it can be made so that it still does. `fails` is asked once
/// for each attempt.
pub fn shrink(plan: &Plan, fails: &mut dyn FnMut(&Plan) -> bool) -> Plan {
    let mut smallest = plan.clone();
    loop {
        let before = smallest.clone();
        smallest = without_faults(&smallest, fails);
        smallest = shorter(&smallest, fails);
        smallest = with_fewer(&smallest, fails);
        if smallest == before {
            return smallest;
        }
    }
}

/// Takes out half of the kinds, then quarters, and at last one at a time, as long as it fails
/// without them.
fn without_faults(plan: &Plan, fails: &mut dyn FnMut(&Plan) -> bool) -> Plan {
    let mut plan = plan.clone();
    let mut size = plan.faults.len().div_ceil(2).max(1);
    loop {
        let all: Vec<Fault> = plan.faults.iter().copied().collect();
        for part in all.chunks(size) {
            let rest: BTreeSet<Fault> =
                plan.faults.iter().filter(|it| !part.contains(it)).copied().collect();
            let fewer = Plan { faults: rest, ..plan.clone() };
            if fails(&fewer) {
                plan = fewer;
            }
        }
        if size == 1 {
            return plan;
        }
        size = size.div_ceil(2);
    }
}

fn shorter(plan: &Plan, fails: &mut dyn FnMut(&Plan) -> bool) -> Plan {
    let mut plan = plan.clone();
    while plan.duration / 2 >= DURATION_MIN {
        let shorter = Plan { duration: plan.duration / 2, ..plan.clone() };
        if !fails(&shorter) {
            break;
        }
        plan = shorter;
    }
    plan
}

fn with_fewer(plan: &Plan, fails: &mut dyn FnMut(&Plan) -> bool) -> Plan {
    let counts: [fn(&mut Clients) -> &mut usize; 6] = [
        |clients| &mut clients.operators,
        |clients| &mut clients.members,
        |clients| &mut clients.pipelines,
        |clients| &mut clients.transactional,
        |clients| &mut clients.readers,
        |clients| &mut clients.producers,
    ];
    let mut plan = plan.clone();
    for count in counts {
        while *count(&mut plan.clients) > 0 {
            let mut fewer = plan.clone();
            *count(&mut fewer.clients) -= 1;
            if !fails(&fewer) {
                break;
            }
            plan = fewer;
        }
    }
    while plan.brokers > 1 {
        let fewer = Plan { brokers: plan.brokers - 1, ..plan.clone() };
        if !fails(&fewer) {
            break;
        }
        plan = fewer;
    }
    plan
}

#[cfg(test)]
mod tests {
    use super::*;

    fn plan() -> Plan {
        let faults = Fault::ANY_TIME.into_iter().collect();
        Plan { faults, duration: Duration::from_secs(180), brokers: 5, ..Plan::of(1) }
    }

    #[test]
    fn only_what_it_takes_to_fail_is_left() {
        let needed = BTreeSet::from([Fault::LogLateAppend, Fault::Kill, Fault::StoreCut]);
        let mut attempts = 0;
        let smallest = shrink(&plan(), &mut |plan| {
            attempts += 1;
            needed.is_subset(&plan.faults)
                && plan.duration >= Duration::from_secs(20)
                && plan.clients.producers >= 1
                && plan.brokers >= 2
        });
        assert_eq!(smallest.faults, needed);
        assert_eq!(smallest.duration, Duration::from_millis(22_500));
        assert_eq!(smallest.clients, Clients { producers: 1, ..Clients::default() });
        assert_eq!(smallest.brokers, 2);
        assert!(attempts < 120, "{attempts}");
    }

    #[test]
    fn what_fails_without_any_fault_is_left_without() {
        let smallest = shrink(&plan(), &mut |_| true);
        assert_eq!(smallest.faults, BTreeSet::new());
        assert_eq!(smallest.clients, Clients::default());
        assert!(smallest.duration < DURATION_MIN * 2);
    }

    #[test]
    fn what_needs_either_of_two_faults_keeps_one() {
        let smallest = shrink(&plan(), &mut |plan| {
            plan.faults.contains(&Fault::Kill) || plan.faults.contains(&Fault::LongPause)
        });
        assert_eq!(smallest.faults.len(), 1);
    }
}
