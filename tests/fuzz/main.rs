//! Fuzzing without a fuzzer: every input that was kept is read again, and many like it.
//!
//! `corpus/TARGET/` holds what the guided fuzzer (`run`, beside this file) found worth keeping, and
//! what has broken decoders elsewhere. The inputs like them are the same each time:
//!
//! - `ODRADEK_FUZZ=TARGET`: of this target only.
//! - `ODRADEK_SEED=17`: others than always.
//! - `ODRADEK_FUZZ_RUNS=1000000`: so many of each target.
//! - `ODRADEK_FUZZ_SECONDS=60`: and then for so long those that nobody has tried before. What finds
//!   something is told with its seed and the number of its run. The seconds are those that the
//!   process has a processor, which is one target's time with `--test-threads=1`.

#![expect(clippy::unwrap_used, reason = "a test fails by panicking")]

mod mutate;
mod targets;

use std::fmt::Display;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::path::Path;
use std::time::Duration;
use std::{env, fs};

use mutate::Mutator;
use rand::TryRngCore;
use rand::rngs::OsRng;
use rustix::time::{ClockId, clock_gettime};
use targets::{TARGETS, Target};

/// Inputs tried of each target, besides those that are kept.
const RUNS: u64 = 20_000;

/// Those of targets that write files.
const RUNS_WITH_FILES: u64 = 500;

/// Runs between two looks at the clock, which cost more than many a run.
const RUNS_BETWEEN_LOOKS: u64 = 16;

/// Runs an input; what breaks it is told with it.
fn run(target: &Target, what: &dyn Display, input: &[u8]) {
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

fn number(variable: &str) -> Option<u64> {
    env::var(variable).ok().map(|text| text.parse().unwrap())
}

/// What this process has had of the processors: a busy machine tries as many inputs, only later.
fn processor_time() -> Duration {
    clock_gettime(ClockId::ProcessCPUTime).try_into().unwrap()
}

/// Tries inputs like these, as long as `more` says of the number of runs so far; returns that.
fn mutate(target: &Target, inputs: &[Vec<u8>], seed: u64, more: impl Fn(u64) -> bool) -> u64 {
    let mut mutator = Mutator::new(seed);
    let mut runs = 0;
    while more(runs) {
        let (one, other) = (mutator.below(inputs.len()), mutator.below(inputs.len()));
        let input = mutator.change(&inputs[one], &inputs[other]);
        run(target, &format_args!("seed {seed}, run {runs}"), &input);
        runs += 1;
    }
    runs
}

fn try_out(target: &Target) {
    let mut inputs = (target.seeds)();
    assert!(!inputs.is_empty(), "{} begins with nothing", target.name);
    for (at, input) in inputs.iter().enumerate() {
        run(target, &format_args!("sample {at}"), input);
    }
    for (name, input) in corpus(target) {
        run(target, &name, &input);
        inputs.push(input);
    }
    let seed = number("ODRADEK_SEED");
    let usual = if target.name == "file_log" { RUNS_WITH_FILES } else { RUNS };
    let limit = number("ODRADEK_FUZZ_RUNS").unwrap_or(usual);
    let runs = mutate(target, &inputs, seed.unwrap_or(1), |runs| runs < limit);
    println!("{}: {} inputs that are kept, {runs} like them", target.name, inputs.len());

    if let Some(seconds) = number("ODRADEK_FUZZ_SECONDS") {
        let seed = seed.unwrap_or_else(|| OsRng.try_next_u64().unwrap());
        // Said before: an input may end the process, or never end.
        println!("{}: for {seconds} s from ODRADEK_SEED={seed}", target.name);
        let end = processor_time() + Duration::from_secs(seconds);
        let runs = mutate(target, &inputs, seed, |runs| {
            !runs.is_multiple_of(RUNS_BETWEEN_LOOKS) || processor_time() < end
        });
        println!("{}: {runs} more inputs", target.name);
    }
}

/// Runs the targets whose place in the list leaves this rest: tests run side by side.
fn try_out_some(rest: usize) {
    let only = env::var("ODRADEK_FUZZ").ok();
    for (_, target) in TARGETS.iter().enumerate().filter(|(at, _)| at % 4 == rest) {
        if only.as_ref().is_none_or(|only| only == target.name) {
            try_out(target);
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
