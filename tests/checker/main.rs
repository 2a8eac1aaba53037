//! Judges histories of real clients: see `odradek_tests::checker`.
//!
//! Exits with 1 if a rule is broken that must never be, with 2 if what it was given is no history
//! or has too little in it to prove anything.

use std::fs::{self, File};
use std::io::{BufWriter, Write as _};
use std::path::{Path, PathBuf};
use std::process::ExitCode;

use anyhow::Context as _;
use clap::Parser;
use odradek_tests::checker::{self, Enough, Verdict};
use odradek_tests::history::History;

/// Checks what real clients saw against what Kafka promises.
#[derive(Debug, Parser)]
struct Arguments {
    /// Files of one run, or directories with its *.jsonl files.
    #[arg(required = true)]
    paths: Vec<PathBuf>,
    /// What this program printed with --json for Apache Kafka: torn transactions of the old
    /// protocol may be as frequent as there.
    #[arg(long)]
    tv1_baseline: Option<PathBuf>,
    /// Print JSON instead of text.
    #[arg(long)]
    json: bool,
    /// Write the history there, as jepsen.tests.kafka reads it.
    #[arg(long)]
    edn: Option<PathBuf>,
    /// Acknowledged values that there must be at least.
    #[arg(long, default_value_t = Enough::default().acknowledged)]
    acknowledged_min: usize,
    /// Values that must have been read at least.
    #[arg(long, default_value_t = Enough::default().read)]
    read_min: usize,
}

fn main() -> ExitCode {
    match judge(&Arguments::parse()) {
        Ok(true) => ExitCode::SUCCESS,
        Ok(false) => ExitCode::from(1),
        Err(error) => {
            eprintln!("{error:#}");
            ExitCode::from(2)
        }
    }
}

/// Whether everything is as it should be; an error if that can't be told.
fn judge(arguments: &Arguments) -> anyhow::Result<bool> {
    let history = History::read(&arguments.paths)?;
    if let Some(path) = &arguments.edn {
        let context = || path.display().to_string();
        let mut file = BufWriter::new(File::create(path).with_context(context)?);
        checker::edn::write(&history, &mut file).with_context(context)?;
        file.flush().with_context(context)?;
    }
    let verdict = checker::check(history)?;
    if arguments.json {
        println!("{}", serde_json::to_string_pretty(&verdict)?);
    } else {
        print!("{verdict}");
    }
    let torn = verdict.torn_per_million();
    let torn_max = match &arguments.tv1_baseline {
        Some(path) => torn_of(path)?,
        None => u64::MAX,
    };
    if torn > torn_max {
        eprintln!("TV1: {torn} of a million transactions are torn, {torn_max} with Apache Kafka");
    }
    // What is broken is broken, however little there is of the rest.
    let is_good = verdict.is_good() && torn <= torn_max;
    let Arguments { acknowledged_min: acknowledged, read_min: read, .. } = *arguments;
    match verdict.lacks(Enough { acknowledged, read, ..Enough::default() }) {
        Some(lacking) if is_good => anyhow::bail!("nothing is proven by {lacking}"),
        _ => Ok(is_good),
    }
}

fn torn_of(path: &Path) -> anyhow::Result<u64> {
    let context = || path.display().to_string();
    let text = fs::read_to_string(path).with_context(context)?;
    let verdict: Verdict = serde_json::from_str(&text).with_context(context)?;
    Ok(verdict.torn_per_million())
}
