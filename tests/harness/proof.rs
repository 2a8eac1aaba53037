//! What a long run came to, as a line of `tests/proof/runs.jsonl` if `PROOF=1` asks for it.

use std::path::Path;
use std::process::Command;

use crate::swarm::Report;

/// Adds worlds of a kind of swarm that broke no rule: `seeds 400..956`, or any other words for
/// seeds that were drawn.
pub fn add_swarm(kind: &str, seeds: &str, reports: &[Report]) {
    let sum = |of: fn(&Report) -> usize| reports.iter().map(of).sum::<usize>();
    let hours: f64 = reports.iter().map(|it| it.lived.as_secs_f64() / 3600.0).sum();
    let seeds = match seeds.strip_prefix("seeds ") {
        Some(range) => format!("seeds={range}"),
        None => format!("new_seeds={}", reports.len()),
    };
    let amounts = [
        format!("worlds={}", reports.len()),
        format!("cluster_hours={hours:.2}"),
        seeds,
        format!("records_acknowledged={}", sum(|it| it.acknowledged)),
        format!("transactions={}", sum(|it| it.transactions)),
        format!("brokers_killed={}", sum(|it| it.kills)),
    ];
    add(kind, &amounts);
}

fn add(kind: &str, amounts: &[String]) {
    if std::env::var_os("PROOF").is_none_or(|asked| asked != "1") {
        return;
    }
    let program = Path::new(env!("CARGO_MANIFEST_DIR")).join("proof/add.py");
    let done = Command::new("python3").arg(program).arg(kind).args(amounts).status();
    assert!(done.expect("python3 is there").success(), "{kind} {amounts:?} was not added");
}
