//! `odradek inspect`: what there is, for people and for programs.
//!
//! Every answer is a document; without `--json` it is printed as text. Entries of the log are put
//! into words in [`entries`], the rest in [`views`].

use std::collections::BTreeMap;

use clap::{Args, Subcommand};
use odradek_protocol::id::{TopicId, TopicPartition};
use odradek_storage::command::Incarnation;
use odradek_storage::key::ObjectKey;
use odradek_storage::look::{Entries, Look};
use odradek_storage::lsn::Lsn;
use odradek_storage::segment::SegmentId;
use odradek_storage::snapshot::snapshot_lsn;
use odradek_storage::state::State;
use serde_json::{Map, Value, json};

use super::{CommandError, GOOD, give_up, open, say, say_json, text};
use crate::config::Config;

mod commands;
mod entries;
mod views;

/// What `inspect` shows, and how.
#[derive(Args, Clone, Debug)]
pub struct InspectOptions {
    #[command(subcommand)]
    what: What,
    /// Prints one JSON document.
    #[arg(long, global = true)]
    json: bool,
}

#[derive(Clone, Debug, Subcommand)]
enum What {
    /// Entries of the log.
    Log {
        /// The first [default: the oldest there is].
        #[arg(long, value_name = "ENTRY")]
        from: Option<u64>,
        /// The last [default: the newest there is].
        #[arg(long, value_name = "ENTRY")]
        to: Option<u64>,
    },
    /// A snapshot of the state: what brokers start from.
    Snapshot {
        /// The entry it ends with [default: the newest one that is good].
        entry: Option<u64>,
    },
    /// All topics, also those that were deleted lately.
    Topics,
    /// A topic, and where its records lie.
    Topic {
        /// Its name or id.
        topic: String,
        /// Only this partition.
        #[arg(long)]
        partition: Option<i32>,
    },
    /// How many segments there are, and which wait to be swept.
    Segments,
    /// A segment, its blocks and the batches in them.
    Segment {
        /// Its id, or the key of its object.
        segment: String,
    },
    /// A consumer group, its members and its offsets.
    Group {
        /// Its name.
        group: String,
    },
}

/// Shows what is asked for, and returns the code to end with.
pub async fn run(config: &Config, options: &InspectOptions) -> u8 {
    match show(config, options).await {
        Ok(()) => GOOD,
        Err(error) => give_up(&error),
    }
}

async fn show(config: &Config, options: &InspectOptions) -> Result<(), CommandError> {
    let look = open(config).await?;
    let document = match &options.what {
        What::Log { from, to } => return show_log(&look, *from, *to, options.json).await,
        What::Snapshot { entry } => snapshot(&look, *entry).await?,
        What::Topics => views::topics(&look.state().await?),
        What::Topic { topic, partition } => topic_of(&look.state().await?, topic, *partition)?,
        What::Segments => segments(&look).await?,
        What::Segment { segment } => segment_of(&look, segment).await?,
        What::Group { group } => {
            let state = look.state().await?;
            let found = state.groups().get(group);
            let found = found.ok_or_else(|| not_found(format!("there is no group {group:?}")))?;
            views::group(&state, group, found)
        }
    };
    print(document, options.json);
    Ok(())
}

fn print(document: Map<String, Value>, is_json: bool) {
    if is_json {
        say_json(&Value::Object(document));
    } else {
        say(&text::render(&document));
    }
}

fn not_found(sentence: String) -> CommandError {
    CommandError::NotFound(sentence)
}

/// The fields of a document that was written as one.
fn fields(document: Value) -> Map<String, Value> {
    match document {
        Value::Object(fields) => fields,
        other => Map::from_iter([("value".to_owned(), other)]),
    }
}

/// What topics are called.
#[derive(Debug, Default)]
struct Names(BTreeMap<TopicId, String>);

impl Names {
    fn of(state: &State) -> Self {
        let deleted = state.deleted_topics().values().map(|it| (it.topic.id, &it.topic.name));
        let living = state.topics().map(|topic| (topic.id, &topic.name));
        Self(deleted.chain(living).map(|(id, name)| (id, name.clone())).collect())
    }

    /// The name of a topic, or its id if nobody knows the name any more.
    fn topic(&self, topic: TopicId) -> String {
        self.0.get(&topic).cloned().unwrap_or_else(|| topic.to_string())
    }

    fn partition(&self, at: TopicPartition) -> String {
        format!("{}-{}", self.topic(at.topic), at.partition)
    }
}

/// Prints entries page by page: a log can be longer than memory.
async fn show_log(
    look: &Look,
    from: Option<u64>,
    to: Option<u64>,
    is_json: bool,
) -> Result<(), CommandError> {
    // Without a state there are ids in the place of names, and that is when entries are looked at.
    let names = look.state().await.map_or_else(|_| Names::default(), |state| Names::of(&state));
    let mut next = Lsn::new(from.unwrap_or(1)).max(Lsn::FIRST);
    let mut printed = 0_u64;
    if is_json {
        say("{\"entries\": [");
    }
    'pages: loop {
        let (page, at_tail) = match look.entries(next).await? {
            Entries::Page { entries, at_tail } => (entries, at_tail),
            Entries::Trimmed(floor) => {
                next = floor;
                continue;
            }
        };
        for seen in page {
            if to.is_some_and(|to| seen.lsn.get() > to) {
                break 'pages;
            }
            next = seen.lsn.next();
            let entry = entries::entry(&seen, &names);
            if is_json {
                say(&format!(
                    "{}{:#}",
                    if printed > 0 { ",\n" } else { "\n" },
                    Value::Object(entry)
                ));
            } else {
                say(&entries::in_words(entry));
            }
            printed += 1;
        }
        if at_tail {
            break;
        }
    }
    if is_json {
        say("\n]}\n");
    } else if printed == 0 {
        return Err(not_found("the log has no such entries".to_owned()));
    }
    Ok(())
}

async fn snapshot(look: &Look, entry: Option<u64>) -> Result<Map<String, Value>, CommandError> {
    let seen = look.snapshots().await?;
    let is_it = |key: &ObjectKey| entry.is_none_or(|it| snapshot_lsn(key) == Some(Lsn::new(it)));
    let candidates = seen.iter().rev().filter(|it| is_it(&it.key));
    let good =
        candidates.clone().find(|it| it.judged.is_ok()).or_else(|| candidates.clone().next());
    let Some(chosen) = good else {
        let which = entry.map_or_else(String::new, |entry| format!(" of entry {entry}"));
        return Err(not_found(format!("there is no snapshot{which}")));
    };
    let state = match look.snapshot(&chosen.key).await? {
        Some(Ok(state)) => state,
        Some(Err(cause)) => return Err(not_found(format!("{} is damaged: {cause}", chosen.key))),
        None => return Err(not_found(format!("{} was just deleted", chosen.key))),
    };
    Ok(views::snapshot(&state, chosen, &seen))
}

fn topic_of(
    state: &State,
    topic: &str,
    partition: Option<i32>,
) -> Result<Map<String, Value>, CommandError> {
    let living = state.topics().map(|it| (it, None));
    let deleted = state.deleted_topics().values().map(|it| (&it.topic, Some(it)));
    let is_it = |id: TopicId, name: &str| name == topic || id.to_string() == topic;
    let found = living.chain(deleted).find(|(it, _)| is_it(it.id, &it.name));
    let (found, deleted) =
        found.ok_or_else(|| not_found(format!("there is no topic {topic:?}")))?;
    if let Some(partition) = partition
        && usize::try_from(partition).ok().and_then(|at| found.partitions.get(at)).is_none()
    {
        return Err(not_found(format!("topic {topic:?} has no partition {partition}")));
    }
    Ok(views::topic(state, found, deleted, partition))
}

async fn segments(look: &Look) -> Result<Map<String, Value>, CommandError> {
    let state = look.state().await?;
    let mut times = BTreeMap::new();
    for waits in state.segments().unreferenced().values() {
        if times.len() < views::WAITING_NAMED_MAX && !times.contains_key(&waits.since) {
            times.insert(waits.since, time_of(look, waits.since).await?);
        }
    }
    Ok(views::segments(&state, &times))
}

/// The time in an entry, if the log still has it.
async fn time_of(look: &Look, lsn: Lsn) -> Result<Value, CommandError> {
    Ok(match look.entries(lsn).await? {
        Entries::Page { entries, .. } => {
            let entry = entries.first().and_then(|seen| seen.entry.as_ref().ok());
            entry.map_or(Value::Null, |entry| text::time(entry.time_ms))
        }
        Entries::Trimmed(_) => Value::Null,
    })
}

async fn segment_of(look: &Look, name: &str) -> Result<Map<String, Value>, CommandError> {
    let id = segment_id(name).ok_or_else(|| {
        not_found(format!("{name:?} is no segment: use its id (1f-0123456789abcdef-2) or its key"))
    })?;
    let state = look.state().await?;
    let seen = odradek_storage::inspect::segment(look, &state, id).await?;
    let seen = seen.ok_or_else(|| not_found(format!("there is no segment {name}")))?;
    Ok(views::segment(id, &seen, &Names::of(&state)))
}

/// A segment by its key, or by its id as it is printed.
fn segment_id(name: &str) -> Option<SegmentId> {
    if name.contains('/') {
        return SegmentId::from_key(&ObjectKey::new(name).ok()?);
    }
    let mut parts = name.split('-').map(|part| u64::from_str_radix(part, 16).ok());
    let id = SegmentId {
        began: Lsn::new(parts.next()??),
        incarnation: Incarnation(parts.next()??),
        counter: parts.next()??,
    };
    parts.next().is_none().then_some(id)
}

/// A number of things.
fn count(number: usize) -> Value {
    json!(number)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_segment_is_found_by_its_key_and_by_its_id() {
        let id = SegmentId { began: Lsn::new(31), incarnation: Incarnation(77), counter: 300 };
        assert_eq!(segment_id(&id.to_string()), Some(id));
        assert_eq!(segment_id(id.key().as_str()), Some(id));
        for nonsense in ["", "1-2", "1-2-3-4", "x-1-2", "segment/00/1-2-3", "segment/", "cluster"] {
            assert_eq!(segment_id(nonsense), None, "{nonsense}");
        }
    }
}
