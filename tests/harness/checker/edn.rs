//! A history in the shape that `jepsen.tests.kafka` checks, so that anyone can ask Jepsen as well.
//!
//! ```edn
//! {:index 0, :time 12000, :process 3, :type :invoke, :f :send, :value [[:send "a/0" 3000000001]]}
//! {:index 1, :time 19000, :process 3, :type :ok, :f :send, :value [[:send "a/0" [5 3000000001]]]}
//! ```
//!
//! Sends, polls, transactions, assignments, subscriptions and crashes are written; Jepsen's checker
//! knows nothing of the rest. Its processes do one thing at a time, and end with an operation of
//! which nothing is known: such a process goes on under another number here.

use std::collections::BTreeMap;
use std::fmt::Write as _;
use std::io;

use crate::history::{Event, History, Kind, Mop, Stage};

/// Numbers of processes that go on after an operation of which nothing is known are this far apart,
/// so that they stay apart as long as there are fewer processes than this.
const PROCESSES: u64 = 10_000;

/// Writes `history` to `to`, one operation a line.
///
/// # Errors
/// Those of `to`.
pub fn write(history: &History, to: &mut impl io::Write) -> io::Result<()> {
    let mut lives: BTreeMap<u64, u64> = BTreeMap::new();
    let mut asked: BTreeMap<(u64, Option<u64>), &Event> = BTreeMap::new();
    let told = history.events.iter().filter(|event| {
        let done = matches!(event.f, Kind::Send | Kind::Poll | Kind::Txn);
        done || matches!(event.f, Kind::Assign | Kind::Subscribe | Kind::Crash)
    });
    for (number, event) in told.enumerate() {
        let life = lives.entry(event.process).or_default();
        let process = *life * PROCESSES + event.process;
        let id = (event.process, event.op);
        if event.stage == Stage::Invoke {
            asked.insert(id, event);
        } else if event.stage == Stage::Info || event.f == Kind::Crash {
            *life += 1;
        }
        let invocation = asked.get(&id).copied().unwrap_or(event);
        let line = operation(number, process, event, invocation);
        writeln!(to, "{line}")?;
    }
    Ok(())
}

fn operation(number: usize, process: u64, event: &Event, invocation: &Event) -> String {
    let stage = match event.stage {
        Stage::Invoke => ":invoke",
        Stage::Ok => ":ok",
        Stage::Fail => ":fail",
        Stage::Info => ":info",
    };
    let (f, value) = match event.f {
        Kind::Send => (":send", steps(event, invocation)),
        Kind::Poll => (":poll", steps(event, invocation)),
        Kind::Txn => (":txn", steps(event, invocation)),
        Kind::Assign => (":assign", strings(&invocation.keys)),
        Kind::Subscribe => (":subscribe", strings(&invocation.topics)),
        _ => (":crash", "nil".to_owned()),
    };
    let stage = if event.f == Kind::Crash { ":info" } else { stage };
    let time = event.time_us.saturating_mul(1000);
    let mut line = format!(
        "{{:index {number}, :time {time}, :process {process}, :type {stage}, :f {f}, :value {value}"
    );
    if let Some(error) = &event.error {
        write!(line, ", :error {}", string(error)).unwrap();
    }
    line.push('}');
    line
}

fn steps(event: &Event, invocation: &Event) -> String {
    let mops = if event.mops.is_empty() { &invocation.mops } else { &event.mops };
    let steps: Vec<String> = mops.iter().map(|mop| step(mop, event.stage)).collect();
    format!("[{}]", steps.join(" "))
}

fn step(mop: &Mop, stage: Stage) -> String {
    match mop {
        Mop::Send { key, value, offset: Some(offset) } => {
            format!("[:send {} [{offset} {value}]]", string(key))
        }
        Mop::Send { key, value, offset: None } if stage == Stage::Ok => {
            format!("[:send {} [nil {value}]]", string(key))
        }
        Mop::Send { key, value, offset: None } => format!("[:send {} {value}]", string(key)),
        Mop::Poll(_) if stage == Stage::Invoke => "[:poll]".to_owned(),
        Mop::Poll(polled) => {
            let key = |(key, values): &(String, Vec<(i64, i64)>)| {
                let pairs: Vec<String> =
                    values.iter().map(|(offset, value)| format!("[{offset} {value}]")).collect();
                format!("{} [{}]", string(key), pairs.join(" "))
            };
            let keys: Vec<String> = polled.0.iter().map(key).collect();
            format!("[:poll {{{}}}]", keys.join(", "))
        }
    }
}

fn strings(all: &[String]) -> String {
    let all: Vec<String> = all.iter().map(|one| string(one)).collect();
    format!("[{}]", all.join(" "))
}

fn string(text: &str) -> String {
    let mut quoted = String::from("\"");
    for letter in text.chars() {
        match letter {
            '"' | '\\' => quoted.extend(['\\', letter]),
            '\n' => quoted.push_str("\\n"),
            _ if letter.is_control() => quoted.push(' '),
            _ => quoted.push(letter),
        }
    }
    quoted.push('"');
    quoted
}
