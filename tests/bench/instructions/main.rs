//! Instruction counts of the hot paths: a gate that a busy machine can neither open nor shut.
//!
//! Valgrind's callgrind counts what a processor is told to do for an operation whose input is made
//! of constants. That is no time: nothing is known of caches, and an instruction that copies 32
//! bytes counts as much as one that adds two numbers. It is the same each time, though, so that two
//! per cent more are a change of the code and never of the weather.
//!
//! ```text
//! cargo build --profile sim -p odradek-tests --bin instructions
//! target/sim/instructions --check      compares with tests/bench/instructions.md
//! target/sim/instructions --rewrite    writes it
//! target/sim/instructions apply 100    does an operation a hundred times and counts nothing
//! ```
//!
//! The profile is `sim`, which is built anyway wherever tests run. It is not what users run:
//! assertions are on, and crates are not optimised as one. What a change costs shows in both.

#![expect(clippy::unwrap_used, reason = "a benchmark fails by panicking")]
#![expect(clippy::as_conversions, reason = "counts are far from where a double gets coarse")]

use std::process::ExitCode;

use samples::{LARGE, SMALL};
use table::Table;

mod counting;
mod samples;
mod served;
mod stored;
mod table;

/// How far a count may be from the table's, as a part of that. A program gives the same twice; what
/// the compiler makes of other sources around it, or in another folder, moved one by a hundredth.
const TOLERANCE: f64 = 0.05;

/// An operation on a hot path.
struct Case {
    name: &'static str,
    operation: &'static str,
    /// What there are many of in it: how many, and of what.
    parts: (u64, &'static str),
    /// Does it so often.
    run: fn(usize),
}

const CASES: [Case; 12] = [
    Case {
        name: "parse_16k",
        operation: "read and check a Produce request: 16 partitions, 16 KiB each",
        parts: (16, "batch"),
        run: |times| served::parse(times, LARGE),
    },
    Case {
        name: "parse_1k",
        operation: "the same: 256 partitions, 1 KiB each",
        parts: (256, "batch"),
        run: |times| served::parse(times, SMALL),
    },
    Case {
        name: "produce_16k",
        operation: "answer a Produce request: 16 partitions, 16 KiB each",
        parts: (16, "batch"),
        run: |times| served::produce(times, LARGE),
    },
    Case {
        name: "produce_1k",
        operation: "the same: 256 partitions, 1 KiB each",
        parts: (256, "batch"),
        run: |times| served::produce(times, SMALL),
    },
    Case {
        name: "fetch_16k",
        operation: "answer a Fetch request from memory: 16 partitions, 16 KiB each",
        parts: (16, "batch"),
        run: |times| served::fetch(times, LARGE),
    },
    Case {
        name: "fetch_1k",
        operation: "the same: 256 partitions, 1 KiB each",
        parts: (256, "batch"),
        run: |times| served::fetch(times, SMALL),
    },
    Case {
        name: "commit_offsets",
        operation: "answer an OffsetCommit request: 10 partitions",
        parts: (10, "partition"),
        run: served::commit_offsets,
    },
    Case {
        name: "seal",
        operation: "seal a segment: 256 partitions, 16 KiB each",
        parts: (256, "batch"),
        run: stored::seal,
    },
    Case {
        name: "encode",
        operation: "write the log entry that commits it",
        parts: (256, "batch"),
        run: stored::encode,
    },
    Case {
        name: "decode",
        operation: "read that entry",
        parts: (256, "batch"),
        run: stored::decode,
    },
    Case {
        name: "apply",
        operation: "apply it to a state of 10,000 partitions",
        parts: (256, "batch"),
        run: stored::apply,
    },
    Case {
        name: "snapshot",
        operation: "write a snapshot of that state",
        parts: (10_000, "partition"),
        run: stored::snapshot,
    },
];

fn main() -> ExitCode {
    let arguments: Vec<String> = std::env::args().skip(1).collect();
    let arguments: Vec<&str> = arguments.iter().map(String::as_str).collect();
    match *arguments {
        ["--check"] if Table::count().is_close_to(&Table::read(), TOLERANCE) => {}
        ["--check"] => return ExitCode::FAILURE,
        ["--rewrite"] => Table::count().write(),
        [name, times] => {
            let case = CASES.iter().find(|case| case.name == name).expect("a case of this name");
            (case.run)(times.parse().expect("a number of times"));
        }
        _ => {
            let cases = CASES.map(|case| case.name).join(" ");
            eprintln!("usage: instructions --check | --rewrite | CASE TIMES\ncases: {cases}");
            return ExitCode::FAILURE;
        }
    }
    ExitCode::SUCCESS
}
