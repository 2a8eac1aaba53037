//! Fuzzing without a fuzzer: every input that was kept is read again, and many like it.
//!
//! `corpus/TARGET/` holds what the guided fuzzer (`run`, beside this file) found worth keeping, and
//! what has broken decoders elsewhere. `ODRADEK_FUZZ=TARGET` runs one target only,
//! `ODRADEK_FUZZ_RUNS=1000000` tries so many inputs of each, `ODRADEK_SEED=17` others than always.

#![expect(clippy::unwrap_used, reason = "a test fails by panicking")]

mod mutate;
mod targets;

use std::panic::{AssertUnwindSafe, catch_unwind};
use std::path::Path;
use std::{env, fs};

use mutate::Mutator;
use targets::{TARGETS, Target};

/// Inputs tried of each target, besides those that are kept.
const RUNS: usize = 20_000;

/// Those of targets that write files.
const RUNS_WITH_FILES: usize = 500;

/// Runs an input; what breaks it is told with it.
fn run(target: &Target, what: &str, input: &[u8]) {
    let outcome = catch_unwind(AssertUnwindSafe(|| (target.run)(input)));
    assert!(outcome.is_ok(), "{}, {what}: {}", target.name, input.escape_ascii());
}

/// The inputs that are kept, by the names of their files.
fn corpus(target: &Target) -> Vec<(String, Vec<u8>)> {
    let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("fuzz/corpus").join(target.name);
    let Ok(items) = fs::read_dir(folder) else { return Vec::new() };
    let mut inputs: Vec<_> = items
        .map(|item| item.unwrap())
        .map(|item| (item.file_name().into_string().unwrap(), fs::read(item.path()).unwrap()))
        .collect();
    inputs.sort();
    inputs
}

fn number(variable: &str) -> Option<usize> {
    env::var(variable).ok().map(|text| text.parse().unwrap())
}

fn try_out(target: &Target) -> usize {
    let mut inputs = (target.seeds)();
    assert!(!inputs.is_empty(), "{} begins with nothing", target.name);
    for (at, input) in inputs.iter().enumerate() {
        run(target, &format!("seed {at}"), input);
    }
    for (name, input) in corpus(target) {
        run(target, &name, &input);
        inputs.push(input);
    }
    let usual = if target.name == "file_log" { RUNS_WITH_FILES } else { RUNS };
    let mut mutator = Mutator::new(u64::try_from(number("ODRADEK_SEED").unwrap_or(1)).unwrap());
    let runs = number("ODRADEK_FUZZ_RUNS").unwrap_or(usual);
    for number in 0..runs {
        let (one, other) = (mutator.below(inputs.len()), mutator.below(inputs.len()));
        let input = mutator.change(&inputs[one], &inputs[other]);
        run(target, &format!("run {number}"), &input);
    }
    inputs.len() + runs
}

/// Runs the targets whose place in the list leaves this rest: tests run side by side.
fn try_out_some(rest: usize) {
    let only = env::var("ODRADEK_FUZZ").ok();
    for (_, target) in TARGETS.iter().enumerate().filter(|(at, _)| at % 4 == rest) {
        if only.as_ref().is_none_or(|only| only == target.name) {
            let runs = try_out(target);
            println!("{}: {runs} inputs", target.name);
        }
    }
}

#[test]
fn whatever_is_read_breaks_nothing_1() {
    try_out_some(0);
}

#[test]
fn whatever_is_read_breaks_nothing_2() {
    try_out_some(1);
}

#[test]
fn whatever_is_read_breaks_nothing_3() {
    try_out_some(2);
}

#[test]
fn whatever_is_read_breaks_nothing_4() {
    try_out_some(3);
}

#[test]
fn every_folder_of_inputs_is_a_targets() {
    let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("fuzz/corpus");
    for item in fs::read_dir(folder).unwrap() {
        let name = item.unwrap().file_name().into_string().unwrap();
        assert!(TARGETS.iter().any(|target| target.name == name), "{name}");
    }
}
