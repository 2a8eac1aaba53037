//! Entries of the log.

use odradek_storage::look::EntrySeen;
use serde_json::{Map, Value, json};

use super::super::text;
use super::{Names, commands, fields};

/// An entry as a document.
pub(super) fn entry(seen: &EntrySeen, names: &Names) -> Map<String, Value> {
    let mut document = fields(json!({
        "entry": seen.lsn.get(),
        "bytes": seen.bytes,
        "hash": format!("{:016x}", seen.hash.0),
    }));
    let entry = match &seen.entry {
        Ok(entry) => entry,
        Err(cause) => {
            document.insert("damage".to_owned(), Value::String(cause.to_string()));
            return document;
        }
    };
    let commands = entry.proposals.iter().map(|it| commands::command(it, names));
    document.extend(fields(json!({
        "time": text::time(entry.time_ms),
        "by": entry.append_id.to_string(),
        "previous": format!("{:016x}", entry.previous.0),
        "level": entry.level,
        "digest": entry.digest.map(|digest| digest.to_string()),
        "commands": commands.collect::<Vec<_>>(),
    })));
    document
}

/// An entry as text: one line, and below it the commands.
pub(super) fn in_words(mut entry: Map<String, Value>) -> String {
    let commands = entry.shift_remove("commands");
    let word = |name: &str| match entry.get(name) {
        Some(Value::String(text)) => text.clone(),
        Some(other) => other.to_string(),
        None => String::new(),
    };
    let (number, bytes) = (word("entry"), word("bytes"));
    if let Some(Value::String(damage)) = entry.get("damage") {
        return format!("entry {number}, {bytes} bytes, can't be read: {damage}\n");
    }
    let mut out = format!("entry {number} of {} by {}, {bytes} bytes\n", word("time"), word("by"));
    for command in commands.iter().filter_map(Value::as_array).flatten() {
        let mut command = fields(command.clone());
        let kind = command.shift_remove("command");
        let kind = kind.as_ref().and_then(Value::as_str).unwrap_or_default();
        out.push_str(&format!("  {kind}\n"));
        command.shift_remove("id");
        for line in text::render(&command).lines() {
            out.push_str(&format!("    {line}\n"));
        }
    }
    out
}
