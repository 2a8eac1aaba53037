//! The table of counts: written, read, and compared with what is counted now.

use std::fmt::Write as _;
use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;

use crate::counting::{count, profile_of};
use crate::{CASES, TOLERANCE};

/// Counts, and with what they were made.
pub(crate) struct Table {
    made: String,
    counts: Vec<(String, u64)>,
}

fn file() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("bench/instructions.md")
}

impl Table {
    /// Counts all cases.
    pub(crate) fn count() -> Self {
        let counts = CASES.iter().map(|case| (case.name.to_owned(), count(case.name)));
        Self { made: made(), counts: counts.collect() }
    }

    /// The table as the sources have it.
    pub(crate) fn read() -> Self {
        let text = fs::read_to_string(file()).unwrap();
        let made = text.lines().nth(2).unwrap_or_default().to_owned();
        let row = |line: &str| {
            let cells: Vec<&str> = line.split('|').map(str::trim).collect();
            Some(((*cells.get(1)?).to_owned(), cells.get(3)?.parse().ok()?))
        };
        Self { made, counts: text.lines().filter_map(row).collect() }
    }

    pub(crate) fn write(&self) {
        let mut text = format!(
            "# Instructions of the hot paths\n\n{}\n\n\
             What a processor is told to do for one operation, as callgrind counts it. It is no\n\
             time, and not all that a broker does; it is the same each time, to be compared with\n\
             what it was. `tests/bench/instructions/main.rs` says how it is counted, and rewrites\n\
             this; `tests/run instructions` fails if a count is not within {} % of it.\n\n\
             | case | one operation | instructions | |\n| --- | --- | --- | --- |\n",
            self.made,
            TOLERANCE * 100.0,
        );
        for (case, (name, count)) in CASES.iter().zip(&self.counts) {
            let (parts, part) = case.parts;
            let (operation, each) = (case.operation, count / parts);
            writeln!(text, "| {name} | {operation} | {count} | {each} a {part} |").unwrap();
        }
        print!("{text}");
        fs::write(file(), text).unwrap();
    }

    /// Says how far these counts are from those in another table. Whether none is too far.
    pub(crate) fn is_close_to(&self, table: &Self, tolerance: f64) -> bool {
        let mut off = 0;
        for (name, count) in &self.counts {
            let in_table = table.counts.iter().find(|(other, _)| other == name);
            let before = in_table.map_or(0, |(_, before)| *before);
            let change = *count as f64 / before as f64 - 1.0;
            print!("{name:<15} {count:>10}  {:+.2} %", change * 100.0);
            if change.abs() <= tolerance {
                println!();
            } else {
                off += 1;
                println!("  NOT {before}: callgrind_annotate {}", profile_of(name).display());
            }
        }
        if off == 0 {
            println!("{} counts are what the table says", self.counts.len());
            return true;
        }
        println!(
            "\n{off} of {} counts are not within {} % of tests/bench/instructions.md.\n\
             More: make it cheaper, or say in the commit what it buys. Less: keep it that way.\n\
             Either way `--rewrite` makes a new table.\n\
             the table: {}\n     here: {}",
            self.counts.len(),
            tolerance * 100.0,
            table.made,
            self.made,
        );
        false
    }
}

/// When and with what this is counted.
fn made() -> String {
    let said = |program: &str, arguments: &[&str]| {
        let output = Command::new(program).args(arguments).output().unwrap();
        let text = String::from_utf8(output.stdout).unwrap();
        text.lines().next().unwrap_or_default().to_owned()
    };
    let program = std::env::current_exe().unwrap();
    let profile = program.parent().and_then(Path::file_name).unwrap_or_default();
    format!(
        "{}, {}, {}, {}, {}, odradek {} (profile {})",
        said("date", &["-u", "+%Y-%m-%d"]),
        said("uname", &["-m"]),
        said("rustc", &["--version"]),
        said("valgrind", &["--version"]),
        said("getconf", &["GNU_LIBC_VERSION"]),
        env!("CARGO_PKG_VERSION"),
        profile.display(),
    )
}
