//! The history of a run with real clients: what they asked, what they were told, and when.
//!
//! A worker writes one JSON object a line into a file of its own. The objects of all files of a
//! run, in the order of time, are its history; [`crate::checker`] judges it. This file owns the
//! format and reading it; what events mean together is not its business.
//!
//! ```json
//! {"time_us":10,"process":3,"stage":"ok","f":"header","client":"librdkafka","idempotent":true}
//! {"time_us":12,"process":3,"op":7,"stage":"invoke","f":"send","mops":[["send","a/0",3001]]}
//! {"time_us":19,"process":3,"op":7,"stage":"ok","f":"send","mops":[["send","a/0",[5,3001]]]}
//! ```
//!
//! Stages are Jepsen's: `ok` happened, `fail` surely did not, `info` may have happened, now or
//! later. An operation ([`Kind::is_operation`]) has an invocation and at most one completion with
//! the same `op`; one that never completes may have happened. A fact is one line with stage `ok`.
//! Fields that a completion leaves out are those of the invocation.

use std::collections::BTreeMap;
use std::fmt;
use std::fs::{self, File};
use std::io::{self, BufRead as _, BufReader};
use std::path::{Path, PathBuf};

use serde::{Deserialize, Serialize};

mod mop;
#[cfg(test)]
mod tests;

pub use mop::{Mop, Polled};

/// A line of a history.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Event {
    /// Microseconds of the machine's monotonic clock: comparable between processes.
    pub time_us: u64,
    /// Whose event: one worker with its producer and its consumer.
    pub process: u64,
    /// Which operation of the process; absent from facts.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub op: Option<u64>,
    /// How far it is.
    pub stage: Stage,
    /// What it is.
    pub f: Kind,
    /// The steps of a `send`, `poll` or `txn`.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub mops: Vec<Mop>,
    /// `txn`: committed; false while it is not known.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub committed: Option<bool>,
    /// `txn` that failed because it was to be aborted.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub aborted: Option<bool>,
    /// `txn`: version of the protocol of transactions, 1 or 2 (KIP-890). `header`: for all of them.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub tv: Option<u8>,
    /// `txn` of a pipeline: pairs of a value that was read and the value that was made from it.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub copies: Vec<(i64, i64)>,
    /// `txn`: offsets sent with it for `group`. `assign`: where reading begins, where known.
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    pub offsets: BTreeMap<String, i64>,
    /// `header`, `poll`, `txn`, `list_offsets`: what is shown to the reader.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub isolation: Option<Isolation>,
    /// "topic/partition", of what concerns one.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub key: Option<String>,
    /// `assign`, `rebalance`, `assigned`: "topic/partition" of each.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub keys: Vec<String>,
    /// `subscribe`: their names.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub topics: Vec<String>,
    /// `commit`, `committed`: next to read, -1 for none. `seek`, `delete_records`: first to read.
    /// `misplaced`: where it was found.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub offset: Option<i64>,
    /// `list_offsets`: the offset after the last one.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub end: Option<i64>,
    /// `commit`, `committed`, `assigned`, `heartbeat`, `txn`: the group.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub group: Option<String>,
    /// The same: its generation, or the member's epoch (KIP-848); -1 or absent for nobody's.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub generation: Option<i64>,
    /// The same: the member.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub member: Option<String>,
    /// The same: `group.instance.id` of a static member (KIP-345).
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub instance: Option<String>,
    /// The same: which protocol its group speaks, classic unless told.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub protocol: Option<Protocol>,
    /// The broker that answered (`watermarks`; others where known) or that it happened to.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub broker: Option<u64>,
    /// `watermarks`: first offset.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub log_start: Option<i64>,
    /// `watermarks`: last stable offset.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub stable: Option<i64>,
    /// `watermarks`: high watermark.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub high: Option<i64>,
    /// `fault`: which.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub name: Option<String>,
    /// `fault`: whether it begins or ends.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub on: Option<bool>,
    /// `exited`: whether somebody asked it to.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub asked: Option<bool>,
    /// `topic`: `retention.ms`; absent for ever.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub retention_ms: Option<u64>,
    /// `topic`: whether it is compacted, or limited by size: anything of it may go at any time.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub compacted: Option<bool>,
    /// `header`: the client's name and version.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub client: Option<String>,
    /// `header`: `enable.idempotence`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub idempotent: Option<bool>,
    /// `header`: whether it has a transactional id.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub transactional: Option<bool>,
    /// `header`: `transaction.timeout.ms`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub transaction_timeout_ms: Option<u64>,
    /// What the client said when it did not go well.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub error: Option<String>,
    /// Anything else, for people.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub note: Option<serde_json::Value>,
    /// Where it was read from.
    #[serde(skip)]
    pub place: Place,
}

/// How far an operation is.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Stage {
    /// It begins.
    Invoke,
    /// It happened.
    #[default]
    Ok,
    /// It surely did not happen.
    Fail,
    /// It may have happened, or may yet happen.
    Info,
}

/// What an event is about.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Kind {
    /// Values sent outside of transactions.
    Send,
    /// Values read outside of transactions.
    Poll,
    /// A transaction that sends and reads.
    Txn,
    /// From here on the process reads these keys.
    Assign,
    /// From here on the process reads what its group gives it of these topics.
    Subscribe,
    /// From here on the process reads a key from an offset.
    Seek,
    /// Asks where a key ends.
    ListOffsets,
    /// Commits where a group stands. A reset by an administrator is one without a generation.
    Commit,
    /// Asks where a group stands.
    Committed,
    /// A member tells its coordinator that it lives.
    Heartbeat,
    /// Asks one broker for all bounds of a key.
    Watermarks,
    /// Has everything before an offset deleted.
    DeleteRecords,
    /// Fact, the first of a process: what its client is. Another one replaces it.
    Header,
    /// Fact: these keys (all, if none is named) came to or went from the process's consumer.
    Rebalance,
    /// Fact: a member learned what it owns in a generation.
    Assigned,
    /// Fact: the process's clients were dropped without being closed, and made anew.
    Crash,
    /// Fact: a fault begins or ends.
    Fault,
    /// Fact: what the process polls from here on is to show all that there is.
    Final,
    /// Fact: what was read says of itself that it belongs elsewhere, or is not whole.
    Misplaced,
    /// Fact: a broker's process was started.
    Started,
    /// Fact: a broker answers for the first time after it was started.
    Serving,
    /// Fact: a broker's process ended.
    Exited,
    /// Fact: how long the records of a topic (in `key`) are kept.
    Topic,
    /// Fact that means nothing to the checker.
    #[default]
    Note,
}

impl Kind {
    /// Whether it has a beginning and an end; the others are facts of one line.
    pub fn is_operation(self) -> bool {
        self <= Self::DeleteRecords
    }
}

/// What a reader is shown.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Isolation {
    /// Everything.
    #[default]
    ReadUncommitted,
    /// What is committed.
    ReadCommitted,
}

/// How a group agrees on who reads what.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Protocol {
    /// By generations of the whole group.
    #[default]
    Classic,
    /// By epochs of each member (KIP-848).
    Consumer,
}

/// Where an event was read from.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
pub struct Place {
    /// Which of the files, from 0.
    pub file: u32,
    /// Which line, from 1.
    pub line: u32,
}

/// All events of a run.
#[derive(Clone, Debug, Default)]
pub struct History {
    /// In the order of time; those of the same time and file in the order of their lines.
    pub events: Vec<Event>,
    /// Where they come from.
    pub files: Vec<PathBuf>,
}

/// Why something is no history.
#[derive(Debug, thiserror::Error)]
pub enum Malformed {
    /// A file that can't be read.
    #[error("{}: {source}", path.display())]
    Unreadable {
        /// The file.
        path: PathBuf,
        /// Why.
        source: io::Error,
    },
    /// A line that is no event.
    #[error("{}:{line}: {what}", path.display())]
    Line {
        /// The file.
        path: PathBuf,
        /// Its line, from 1.
        line: u32,
        /// What is wrong with it.
        what: String,
    },
    /// Nothing to read.
    #[error("no events in {0} files")]
    Empty(usize),
}

impl History {
    /// Reads `paths`: files, or directories for all `*.jsonl` in them.
    ///
    /// # Errors
    /// The first file that can't be read, the first line that is no event, or that there is none. A
    /// last line without an end is left out: its writer was killed.
    pub fn read(paths: &[PathBuf]) -> Result<Self, Malformed> {
        let mut history = Self::default();
        for path in paths {
            if path.is_dir() {
                history.files.extend(files_of(path)?);
            } else {
                history.files.push(path.clone());
            }
        }
        for (file, path) in (0u32..).zip(&history.files) {
            read_file(file, path, &mut history.events)?;
        }
        if history.events.is_empty() {
            return Err(Malformed::Empty(history.files.len()));
        }
        history.events.sort_by_key(|event| (event.time_us, event.place));
        Ok(history)
    }

    /// The error that something is wrong at `place`.
    pub fn malformed(&self, place: Place, what: impl fmt::Display) -> Malformed {
        let path = usize::try_from(place.file).ok().and_then(|file| self.files.get(file));
        let path = path.cloned().unwrap_or_default();
        Malformed::Line { path, line: place.line, what: what.to_string() }
    }
}

fn files_of(folder: &Path) -> Result<Vec<PathBuf>, Malformed> {
    let unreadable = |source| Malformed::Unreadable { path: folder.to_owned(), source };
    let mut files = Vec::new();
    for item in fs::read_dir(folder).map_err(unreadable)? {
        let path = item.map_err(unreadable)?.path();
        if path.extension().is_some_and(|extension| extension == "jsonl") {
            files.push(path);
        }
    }
    files.sort();
    Ok(files)
}

fn read_file(file: u32, path: &Path, events: &mut Vec<Event>) -> Result<(), Malformed> {
    let unreadable = |source| Malformed::Unreadable { path: path.to_owned(), source };
    let mut reader = BufReader::new(File::open(path).map_err(unreadable)?);
    let mut text = String::new();
    for line in 1u32.. {
        text.clear();
        let read = reader.read_line(&mut text).map_err(unreadable)?;
        let whole = text.ends_with('\n');
        if read == 0 {
            break;
        }
        let parsed = serde_json::from_str::<Event>(&text);
        match parsed {
            Ok(event) => events.push(Event { place: Place { file, line }, ..event }),
            Err(_) if !whole || text.trim().is_empty() => {}
            Err(what) => {
                let what = what.to_string();
                return Err(Malformed::Line { path: path.to_owned(), line, what });
            }
        }
    }
    Ok(())
}
