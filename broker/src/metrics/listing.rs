//! What is on the page: everything there is, read at the moment when somebody asks.

use std::sync::PoisonError;
use std::time::Duration;

use odradek_protocol::api::{self, APIS};
use odradek_storage::counts::{Calls, DiskCacheCounts, RewriteCounts};
use odradek_storage::state::State;

use super::errors;
use super::page::Page;
use crate::context::Context;

/// The page of a broker.
pub(super) fn page(context: &Context) -> String {
    let mut page = Page::default();
    let (version, node) = (env!("CARGO_PKG_VERSION"), context.node_id().0.to_string());
    page.gauge("odradek_info", "1, with the version and the node id of this broker.")
        .with(&[("version", version), ("node_id", &node)], 1);
    state(&mut page, context);
    waiting(&mut page, context);
    log(&mut page, context);
    ports(&mut page, context);
    if let Some(disk_cache) = &context.disk_cache {
        self::disk_cache(&mut page, disk_cache.counts());
    }
    life(&mut page, context);
    clients(&mut page, context);
    page.finish()
}

/// What the cluster holds: the same on every broker.
fn state(page: &mut Page, context: &Context) {
    let gauges = context.machine().read(State::gauges);
    page.gauge("odradek_brokers", "Brokers that are registered in the cluster.").is(gauges.brokers);
    page.gauge("odradek_topics", "Topics of the cluster.").is(gauges.topics);
    page.gauge("odradek_partitions", "Partitions of the cluster.").is(gauges.partitions);
    page.gauge("odradek_extents", "Pieces of partitions whose places are known one by one.")
        .is(gauges.extents);
    page.gauge("odradek_groups", "Consumer groups of the cluster.").is(gauges.groups);
    page.gauge("odradek_transactional_ids", "Transactional ids of the cluster.")
        .is(gauges.transactional_ids);
    page.gauge("odradek_open_transactions", "Transactions of the cluster that are open.")
        .is(gauges.transactions);
    let levels: Vec<(String, _)> =
        gauges.segments.iter().map(|(level, sum)| (level.to_string(), *sum)).collect();
    let help = "Segments that records lie in, by how often what is in them was merged.";
    let mut segments = page.gauge("odradek_segments", help);
    for (level, sum) in &levels {
        segments.with(&[("level", level)], sum.count);
    }
    let mut bytes = page.gauge("odradek_segments_bytes", "Bytes of those segments.");
    for (level, sum) in &levels {
        bytes.with(&[("level", level)], sum.bytes);
    }
    page.gauge("odradek_inline_segments", "Segments that the log holds itself, to be merged.")
        .is(gauges.inline.count);
    page.gauge("odradek_inline_bytes", "Bytes of those segments.").is(gauges.inline.bytes);
    let help = "Segments that nothing refers to any more and that wait to be deleted.";
    page.gauge("odradek_waiting_segments", help).is(gauges.waiting.count);
    page.gauge("odradek_waiting_bytes", "Bytes of segments that wait to be deleted.")
        .is(gauges.waiting.bytes);
    let help = "Topics that were deleted, and whose records are kept for a branch of them.";
    page.gauge("odradek_deleted_topics", help).is(gauges.deleted_topics);
    let help = "Time since the first of those topics was deleted, by the time of the log.";
    page.gauge("odradek_deleted_topics_oldest_seconds", help)
        .is(gauges.deleted_topics_age.as_secs_f64());
}

fn waiting(page: &mut Page, context: &Context) {
    let is_none = context.machine().read(|state| state.segments().unreferenced().is_empty());
    let wait = if is_none { Duration::ZERO } else { context.engine.life.longest_wait() };
    let help = "How long this broker has seen the oldest of those segments wait. Much more than \
                sweep-grace-ms: nobody sweeps.";
    page.gauge("odradek_waiting_oldest_seconds", help).is(wait.as_secs_f64());
}

fn log(page: &mut Page, context: &Context) {
    let progress = context.machine().progress();
    page.gauge("odradek_log_position", "The last entry of the log that this broker has applied.")
        .is(progress.applied.get());
    page.gauge("odradek_log_behind_entries", "Entries that others say there are behind it.")
        .is(progress.behind);
    let never = f64::INFINITY;
    let seconds = |age: Option<Duration>| age.map_or(never, |age| age.as_secs_f64());
    let help = "Time since this broker last had applied everything in the log.";
    page.gauge("odradek_log_tail_seconds", help).is(Number(seconds(progress.tail_reached)));
    let help = "Entries of the log that are in no snapshot yet, as far as this broker knows.";
    page.gauge("odradek_log_entries_since_snapshot", help).is(progress.entries_since_snapshot);
    page.gauge("odradek_snapshot_position", "The entry that the newest snapshot known goes up to.")
        .is(progress.snapshot.get());
    page.gauge("odradek_snapshot_bytes", "Length of that snapshot.").is(progress.snapshot_bytes);
    let help = "How long this broker has known that snapshot.";
    page.gauge("odradek_snapshot_seconds", help).is(Number(seconds(progress.snapshot_known)));
    let help = "The oldest entry that this broker has left in the log; 0 if it never trimmed it.";
    page.gauge("odradek_log_floor", help).is(progress.floor.get());
    let counts = context.machine().counts();
    let help = "Attempts to append to the log: won, lost to another broker, of unknown outcome and \
                repeated, or refused.";
    let mut appends = page.counter("odradek_log_appends_total", help);
    let outcomes = [
        ("won", &counts.appended),
        ("lost", &counts.lost),
        ("unknown", &counts.unknown),
        ("refused", &counts.refused),
    ];
    for (outcome, count) in outcomes {
        appends.with(&[("outcome", outcome)], count.get());
    }
    let help = "Entries of other brokers that those sent along, so that they were not read.";
    page.counter("odradek_log_entries_told_total", help).is(counts.told.get());
    let help = "Footers of segments read from the store, because the log leaves to them what it \
                says of batches, and nobody had sent them along.";
    page.counter("odradek_log_footers_read_total", help).is(counts.footers_read.get());
}

fn ports(page: &mut Page, context: &Context) {
    let ports = &context.engine.ports;
    let store = [
        ("put", &ports.put),
        ("get", &ports.get),
        ("list", &ports.list),
        ("delete", &ports.delete),
    ];
    let log = [
        ("append", &ports.append),
        ("read", &ports.read),
        ("tail", &ports.tail),
        ("trim", &ports.trim),
    ];
    let names = [
        "odradek_store_request_seconds",
        "odradek_store_failures_total",
        "odradek_store_bytes_total",
    ];
    port(page, names, &store);
    let names =
        ["odradek_log_request_seconds", "odradek_log_failures_total", "odradek_log_bytes_total"];
    port(page, names, &log);
    let names =
        ["odradek_peer_request_seconds", "odradek_peer_failures_total", "odradek_peer_bytes_total"];
    port(page, names, &[("blocks", &ports.ask)]);
}

fn port(page: &mut Page, names: [&str; 3], operations: &[(&str, &Calls)]) {
    let [took, failures, bytes] = names;
    let help = "Calls that were answered, and how long that took, with what was tried again below.";
    let mut metric = page.histogram(took, help);
    for (operation, calls) in operations {
        metric.durations(&[("operation", operation)], &calls.answered.read());
    }
    let help = "Calls that were refused, and calls of which nobody knows what became of them.";
    let mut metric = page.counter(failures, help);
    for (operation, calls) in operations {
        for (outcome, count) in [("refused", &calls.refused), ("unknown", &calls.unknown)] {
            metric.with(&[("operation", operation), ("outcome", outcome)], count.get());
        }
    }
    let mut metric = page.counter(bytes, "Bytes that were written and read.");
    for (operation, calls) in operations.iter().take(2) {
        metric.with(&[("operation", operation)], calls.bytes.get());
    }
}

fn disk_cache(page: &mut Page, counts: &DiskCacheCounts) {
    let help = "Blocks that were looked for in the cache on disk, because they were not in memory.";
    let mut metric = page.counter("odradek_disk_cache_blocks_total", help);
    for (outcome, count) in [("hit", &counts.hits), ("miss", &counts.misses)] {
        metric.with(&[("outcome", outcome)], count.get());
    }
    let mut metric =
        page.counter("odradek_disk_cache_bytes_total", "Bytes of blocks written and read there.");
    for (operation, count) in [("write", &counts.bytes_written), ("read", &counts.bytes_read)] {
        metric.with(&[("operation", operation)], count.get());
    }
    page.gauge("odradek_disk_cache_held_bytes", "Room that the blocks in it take.")
        .is(counts.held_bytes.get());
    let help = "Blocks that were not written to it, because the disk was behind, or that were too \
                long for it.";
    page.counter("odradek_disk_cache_skipped_total", help).is(counts.skipped.get());
    let help = "What the disk failed to do: to read, to write, to read in time, or to give back \
                what was written.";
    let mut metric = page.counter("odradek_disk_cache_errors_total", help);
    let kinds = [
        ("read", &counts.read_errors),
        ("write", &counts.write_errors),
        ("slow", &counts.slow),
        ("damaged", &counts.damaged),
    ];
    for (kind, count) in kinds {
        metric.with(&[("kind", kind)], count.get());
    }
}

fn life(page: &mut Page, context: &Context) {
    let counts = context.engine.life.counts();
    let by = [("merging", &counts.merging), ("compaction", &counts.compaction)];
    let mut rewriting = |name: &str, help: &str, of: fn(&RewriteCounts) -> u64| {
        let mut metric = page.counter(name, help);
        for (task, counts) in by {
            metric.with(&[("task", task)], of(counts));
        }
    };
    let help = "Bytes that were read to be rewritten.";
    rewriting("odradek_rewrite_bytes_in_total", help, |it| it.bytes_in.get());
    let help = "Bytes of the segments that came out.";
    rewriting("odradek_rewrite_bytes_out_total", help, |it| it.bytes_out.get());
    let help = "Segments that came out.";
    rewriting("odradek_rewrite_segments_total", help, |it| it.segments_out.get());
    let help = "Pieces of partitions that were swapped for what came out.";
    rewriting("odradek_rewrite_swaps_total", help, |it| it.swapped.get());
    let help = "Pieces of partitions that had changed meanwhile and stayed.";
    rewriting("odradek_rewrite_swaps_rejected_total", help, |it| it.rejected.get());
    let help = "Rounds that were broken off by a failure.";
    rewriting("odradek_rewrite_put_off_total", help, |it| it.put_off.get());
    page.counter("odradek_expired_records_total", "Records that this broker let expire.")
        .is(counts.records_expired.get());
    page.counter("odradek_purged_topics_total", "Deleted topics that this broker gave up.")
        .is(counts.topics_purged.get());
    let kinds = [
        ("unreferenced", &counts.segments_swept, &counts.bytes_swept),
        ("orphan", &counts.orphans_swept, &counts.orphan_bytes_swept),
    ];
    let help = "Segments that this broker deleted: nothing referred to them any more, or they were \
                never committed.";
    let mut metric = page.counter("odradek_swept_segments_total", help);
    for (kind, segments, _) in kinds {
        metric.with(&[("kind", kind)], segments.get());
    }
    let mut metric = page.counter("odradek_swept_bytes_total", "Bytes of those segments.");
    for (kind, _, bytes) in kinds {
        metric.with(&[("kind", kind)], bytes.get());
    }
    page.counter("odradek_sweep_put_off_total", "Rounds of sweeping broken off by a failure.")
        .is(counts.sweeps_put_off.get());
}

fn clients(page: &mut Page, context: &Context) {
    let metrics = &context.metrics;
    let named = APIS.iter().filter_map(|row| {
        let requests = metrics.requests.get(&api::number(row.key))?;
        let took = requests.took.read();
        // What no client has asked for yet would be half of the page.
        (took.count > 0).then(|| (format!("{:?}", row.key), took, requests))
    });
    let named: Vec<_> = named.collect();
    let help = "Requests that were carried out, and how long that took, with what they waited for.";
    let mut metric = page.histogram("odradek_request_seconds", help);
    for (api, took, _) in &named {
        metric.durations(&[("api", api)], took);
    }
    let help = "Errors in responses: one for each partition, topic or group that has one.";
    let mut metric = page.counter("odradek_request_errors_total", help);
    for (api, _, requests) in &named {
        for (code, count) in &*requests.errors.lock().unwrap_or_else(PoisonError::into_inner) {
            metric.with(&[("api", api), ("error", &errors::name(*code))], count);
        }
    }
    page.counter("odradek_produced_bytes_total", "Bytes of batches that producers sent.")
        .is(metrics.bytes_in.get());
    page.counter("odradek_produced_records_total", "Records that producers sent.")
        .is(metrics.records_in.get());
    page.counter("odradek_fetched_bytes_total", "Bytes of batches that consumers were sent.")
        .is(metrics.bytes_out.get());
    let (opened, closed) = (metrics.connections_opened.get(), metrics.connections_closed.get());
    page.gauge("odradek_connections", "Connections of clients and of other brokers.")
        .is(opened.saturating_sub(closed));
    page.counter("odradek_connections_accepted_total", "Connections that were accepted.")
        .is(opened);
    let (used, total) = context.memory.used_bytes();
    page.gauge("odradek_request_memory_bytes", "Memory that requests in flight take.").is(used);
    page.gauge("odradek_request_memory_max_bytes", "Memory that they may take.").is(total);
    let (used, total) = context.answers.used_bytes();
    page.gauge("odradek_answer_memory_bytes", "Records in answers that clients have yet to take.")
        .is(used);
    page.gauge(
        "odradek_answer_memory_max_bytes",
        "How many there may be before each client gets a batch at a time.",
    )
    .is(total);
}

/// A number as Prometheus writes it.
struct Number(f64);

impl std::fmt::Display for Number {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        if self.0.is_infinite() { f.write_str("+Inf") } else { self.0.fmt(f) }
    }
}
