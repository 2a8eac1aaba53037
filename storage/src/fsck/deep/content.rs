//! Whether the content of a block is what footer and state say.

use std::ops::Range;

use bytes::Bytes;
use odradek_protocol::id::Offset;
use odradek_protocol::record::{BatchError, RecordBatch};

use super::super::affected::{Placed, affected};
use super::super::{Affected, Damage, Finding, count};
use super::Block;
use crate::command::BatchSummary;
use crate::segment::SegmentId;
use crate::state::partition::Content;

/// What was found in a block.
pub(super) struct Judged {
    /// Record batches that were walked.
    pub(super) batches: u64,
    /// What is wrong.
    pub(super) findings: Vec<Finding>,
}

/// A batch in a block's content.
struct Walked {
    /// Where it begins and ends.
    at: Range<usize>,
    /// Its offset, if it says so itself.
    base: Offset,
    /// Offsets it takes.
    records: u32,
    max_timestamp: i64,
    /// Whether it is the end of a transaction.
    is_control: bool,
    /// What is wrong with it by itself.
    wrong: Option<BatchError>,
}

/// The batches of an extent with the offsets they have in it, and whether there were more, which
/// belong to the topic it was branched from.
struct Seated<'a> {
    batches: Vec<(&'a Walked, Range<Offset>)>,
    is_cut: bool,
}

/// Walks the batches of a block that was opened, and compares.
pub(super) fn judge(segment: SegmentId, block: &Block, content: &Bytes) -> Judged {
    let mut findings = Vec::new();
    let mut find = |what: String, affected| {
        let damage = Damage::Content { segment, position: block.position, what };
        findings.push(Finding { damage, affected });
    };
    let as_produced = |it: &Placed| matches!(it.extent.content, Content::Batches(_));
    let is_as_produced = !block.placed.is_empty() && block.placed.iter().all(as_produced);
    let (walked, end) = walk(content, is_as_produced);
    if end != content.len() {
        let what = format!("no batch begins at byte {end} of {} of the content", content.len());
        find(what, affected(block.placed.iter().filter(|it| place(it).end > end)));
    }
    for batch in &walked {
        if let Some(wrong) = &batch.wrong {
            let at = batch.at.start;
            let concerned = block.placed.iter().filter_map(|it| within(it, &walked, batch));
            find(format!("batch at byte {at} of the content: {wrong}"), concerned.collect());
        }
    }
    if let Some(summaries) = &block.batches
        && is_as_produced
        && !agree(&walked, summaries)
    {
        find("other batches than the footer lists".to_owned(), Vec::new());
    }
    for placed in &block.placed {
        if let Some(what) = differs(placed, &walked) {
            find(what, affected(std::iter::once(placed)));
        }
    }
    Judged { batches: count(walked.len()), findings }
}

/// The batches of a block, and where the last whole one ends.
fn walk(content: &Bytes, is_as_produced: bool) -> (Vec<Walked>, usize) {
    let mut walked = Vec::new();
    let (mut rest, mut start) = (content.clone(), 0);
    while let Some((batch, behind)) = RecordBatch::split_first(&rest) {
        let at = start..start + batch.bytes().len();
        start = at.end;
        rest = behind;
        let (count, last_offset_delta) = (batch.record_count(), batch.last_offset_delta());
        // Compaction takes records away, and leaves the offsets of a batch as they are.
        let counts = count >= 0 && last_offset_delta >= count.saturating_sub(1);
        let is_dense = count > 0 && last_offset_delta == count - 1;
        let counts = if counts && (is_dense || !is_as_produced) {
            Ok(())
        } else {
            Err(BatchError::Count { count, last_offset_delta })
        };
        walked.push(Walked {
            at,
            base: Offset(batch.base_offset()),
            records: batch.offsets(),
            max_timestamp: batch.max_timestamp(),
            is_control: batch.is_control(),
            wrong: batch.check_crc().and(counts).err(),
        });
    }
    (walked, start)
}

fn agree(walked: &[Walked], summaries: &[BatchSummary]) -> bool {
    walked.len() == summaries.len()
        && walked.iter().zip(summaries).all(|(batch, summary)| {
            u32::try_from(batch.at.len()) == Ok(summary.bytes)
                && batch.records == summary.records
                && batch.max_timestamp == summary.max_timestamp
        })
}

/// Where an extent lies in the content.
fn place(placed: &Placed) -> Range<usize> {
    let location = placed.extent.location();
    let start = location.and_then(|it| usize::try_from(it.skip).ok()).unwrap_or(usize::MAX);
    let bytes = location.and_then(|it| usize::try_from(it.bytes).ok()).unwrap_or(usize::MAX);
    start..start.saturating_add(bytes)
}

/// The offsets of a batch, if it is one of the extent's.
fn within(placed: &Placed, walked: &[Walked], batch: &Walked) -> Option<Affected> {
    let seated = seat(placed, walked).ok()?;
    let (_, offsets) = seated.batches.into_iter().find(|(it, _)| it.at == batch.at)?;
    Some(placed.between(offsets.start, offsets.end))
}

/// Gives the batches of an extent their offsets; or says why they can't have them.
fn seat<'a>(placed: &Placed, walked: &'a [Walked]) -> Result<Seated<'a>, String> {
    let (place, extent) = (place(placed), &placed.extent);
    let inside: Vec<&Walked> =
        walked.iter().filter(|it| it.at.start >= place.start && it.at.end <= place.end).collect();
    let begins = inside.first().is_some_and(|first| first.at.start == place.start);
    let ends = inside.last().is_some_and(|last| last.at.end == place.end);
    if !begins || !ends {
        let Range { start, end } = place;
        return Err(format!("no whole batches from byte {start} to {end} of the content"));
    }
    let is_merged = matches!(extent.content, Content::Merged(_));
    let mut seated = Seated { batches: Vec::new(), is_cut: false };
    let mut next = extent.base;
    for batch in inside {
        let base = if is_merged { batch.base } else { next };
        if next == extent.end() || base >= extent.end() {
            seated.is_cut = true;
            break;
        }
        let end = base.advanced_by(batch.records);
        if base < next || end > extent.end() {
            let (from, to) = (extent.base, extent.end());
            return Err(format!("a batch has offsets {base} to {end} in an extent {from} to {to}"));
        }
        seated.batches.push((batch, base..end));
        next = end;
    }
    if !is_merged && next != extent.end() {
        return Err(format!("batches from {} end at {next}, not {}", extent.base, extent.end()));
    }
    Ok(seated)
}

/// How the batches of an extent differ from what the state says of it.
fn differs(placed: &Placed, walked: &[Walked]) -> Option<String> {
    let seated = match seat(placed, walked) {
        Ok(seated) => seated,
        Err(what) => return Some(what),
    };
    let extent = &placed.extent;
    let batches = seated.batches.iter().map(|(batch, _)| batch).filter(|it| !it.is_control);
    let latest = batches.map(|it| it.max_timestamp).max()?;
    let is_exact = matches!(extent.content, Content::Batches(_)) && !seated.is_cut;
    let agrees = latest == extent.max_timestamp || (!is_exact && latest < extent.max_timestamp);
    let says = extent.max_timestamp;
    (!agrees).then(|| format!("the largest timestamp is {latest}, where the state says {says}"))
}
