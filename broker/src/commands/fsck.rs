//! `odradek fsck`: is anything lost or damaged?

use clap::Args;
use odradek_storage::fsck::{self, Affected, Finding, Options, Report, Tally};
use odradek_storage::look::SnapshotSeen;
use odradek_storage::object::ObjectMeta;
use serde_json::{Value, json};

use super::{BAD, CommandError, GOOD, UNKNOWN, give_up, open, say, say_json, text};
use crate::config::Config;

/// How many ranges of offsets of one finding are named in a text; the document has all.
const AFFECTED_NAMED_MAX: usize = 20;

/// How many strange objects are named in a text; the document has all.
const UNKNOWN_NAMED_MAX: usize = 20;

/// How `fsck` looks, and what it prints.
#[derive(Args, Clone, Debug)]
pub struct FsckOptions {
    /// Reads every segment, and checks footers, blocks and record batches.
    #[arg(long)]
    deep: bool,
    /// Prints one JSON document.
    #[arg(long)]
    json: bool,
}

/// Looks, prints, and returns the code to end with.
pub async fn run(config: &Config, options: &FsckOptions) -> u8 {
    let report = match look(config, options).await {
        Ok(report) => report,
        Err(error) => {
            give_up(&error);
            return UNKNOWN;
        }
    };
    if options.json {
        say_json(&document(&report));
    } else {
        say(&in_words(&report));
    }
    if report.findings.is_empty() { GOOD } else { BAD }
}

async fn look(config: &Config, options: &FsckOptions) -> Result<Report, CommandError> {
    let look = open(config).await?;
    let options = Options { deep: options.deep, ..Options::default() };
    Ok(fsck::run(&look, &options).await?)
}

fn document(report: &Report) -> Value {
    let cluster = report.cluster.as_ref().map(|cluster| {
        json!({
            "cluster_id": cluster.cluster_id.to_string(),
            "log_id": cluster.log_id.to_string(),
            "entry": cluster.applied.get(),
            "horizon": cluster.horizon.get(),
            "topics": cluster.topics,
            "deleted_topics": cluster.deleted_topics,
            "partitions": cluster.partitions,
            "extents": cluster.extents,
        })
    });
    let read = report.read.map(|read| {
        json!({
            "segments": read.segments,
            "bytes": read.bytes,
            "blocks": read.blocks,
            "batches": read.batches,
        })
    });
    let unknown = |object: &ObjectMeta| {
        let (key, bytes) = (object.key.as_str(), object.size);
        json!({ "key": key, "bytes": bytes })
    };
    json!({
        "clean": report.findings.is_empty(),
        "cluster": cluster,
        "snapshots": report.snapshots.iter().map(snapshot).collect::<Vec<_>>(),
        "segments": {
            "referenced": tally(report.referenced),
            "inline": tally(report.inline),
            "waiting": tally(report.waiting),
        },
        "orphans": {
            "below_horizon": tally(report.orphans.decided),
            "may_be_committed": tally(report.orphans.undecided),
            "oldest": report.orphans.oldest.map(|it| it.key().to_string()),
        },
        "unknown": report.unknown.iter().map(unknown).collect::<Vec<_>>(),
        "read": read,
        "findings": report.findings.iter().map(finding).collect::<Vec<_>>(),
    })
}

fn tally(tally: Tally) -> Value {
    json!({ "objects": tally.objects, "bytes": tally.bytes })
}

fn snapshot(seen: &SnapshotSeen) -> Value {
    let judged = seen.judged.as_ref();
    json!({
        "key": seen.key.as_str(),
        "bytes": seen.bytes,
        "entry": judged.ok().map(|head| head.lsn.get()),
        "damage": judged.err(),
    })
}

fn finding(finding: &Finding) -> Value {
    let segment = finding.damage.segment();
    let affected = |it: &Affected| {
        json!({
            "topic": it.name,
            "topic_id": it.topic.to_string(),
            "deleted": it.is_deleted,
            "partition": it.partition,
            "first_offset": it.from.0,
            "last_offset": it.to.0 - 1,
        })
    };
    json!({
        "kind": finding.damage.kind(),
        "what": finding.damage.to_string(),
        "segment": segment.map(|it| it.to_string()),
        "key": segment.map(|it| it.key().to_string()),
        "affected": finding.affected.iter().map(affected).collect::<Vec<_>>(),
    })
}

fn in_words(report: &Report) -> String {
    let mut out = String::new();
    let mut line = |name: &str, what: String| out += &format!("{name:<11}{what}\n");
    if let Some(cluster) = &report.cluster {
        line("cluster", format!("{}, up to entry {}", cluster.cluster_id, cluster.applied));
        let deleted = match cluster.deleted_topics {
            0 => String::new(),
            deleted => format!(" and {deleted} deleted"),
        };
        let (topics, partitions) = (cluster.topics, cluster.partitions);
        line(
            "topics",
            format!("{topics}{deleted}, {partitions} partitions, {} extents", cluster.extents),
        );
        let segments = [
            (report.referenced, "referred to"),
            (report.inline, "held by the log"),
            (report.waiting, "waiting to be swept"),
        ];
        line("segments", tallies(&segments));
        let orphans = [
            (report.orphans.decided, "below the horizon"),
            (report.orphans.undecided, "that may still be committed"),
        ];
        line("orphans", tallies(&orphans));
    }
    let snapshots: Vec<String> = report.snapshots.iter().map(snapshot_in_words).collect();
    line("snapshots", if snapshots.is_empty() { "none".to_owned() } else { snapshots.join(", ") });
    if let Some(read) = report.read {
        let bytes = text::bytes(read.bytes);
        let (segments, blocks, batches) = (read.segments, read.blocks, read.batches);
        line("read", format!("{segments} segments ({bytes}), {blocks} blocks, {batches} batches"));
    }
    for object in report.unknown.iter().take(UNKNOWN_NAMED_MAX) {
        line("unknown", format!("{} ({})", object.key, text::bytes(object.size)));
    }
    if report.unknown.len() > UNKNOWN_NAMED_MAX {
        line("unknown", format!("and {} more", report.unknown.len() - UNKNOWN_NAMED_MAX));
    }
    out.push('\n');
    for finding in &report.findings {
        out += &format!("{}\n", finding.damage);
        for affected in finding.affected.iter().take(AFFECTED_NAMED_MAX) {
            out += &format!("  {affected}\n");
        }
        if finding.affected.len() > AFFECTED_NAMED_MAX {
            let more = finding.affected.len() - AFFECTED_NAMED_MAX;
            out += &format!("  and {more} more\n");
        }
    }
    out += &match report.findings.len() {
        0 => "nothing is lost or damaged\n".to_owned(),
        1 => "1 finding\n".to_owned(),
        many => format!("{many} findings\n"),
    };
    out
}

fn tallies(tallies: &[(Tally, &str)]) -> String {
    let some = tallies.iter().filter(|(tally, _)| tally.objects > 0);
    let some: Vec<String> = some
        .map(|(tally, what)| format!("{} {what} ({})", tally.objects, text::bytes(tally.bytes)))
        .collect();
    if some.is_empty() { "none".to_owned() } else { some.join(", ") }
}

fn snapshot_in_words(seen: &SnapshotSeen) -> String {
    match &seen.judged {
        Ok(head) => format!("entry {} good", head.lsn),
        Err(_) => format!("{} damaged", seen.key),
    }
}
