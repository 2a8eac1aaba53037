//! Reading segments: footers, blocks, batches.
//!
//! Owns what is read when and how much of it is in memory: some segments at once, of each one range
//! of some blocks. Whether a block holds what it should is in [`content`].

use std::collections::{BTreeMap, BTreeSet};

use bytes::Bytes;
use futures::StreamExt;
use futures::stream;
use odradek_protocol::id::TopicPartition;

use super::affected::{Index, Placed, affected};
use super::{Damage, Finding, Options, Read, count};
use crate::command::{BatchSummary, Run};
use crate::inspect::{self, BlockSeen, ExtentSeen};
use crate::look::{Look, LookError};
use crate::port::PortError;
use crate::segment::{BlockError, FooterError, HEADER_BYTES, SegmentId, footer_bytes};
use crate::segment::{open_block, open_footer};
use crate::state::State;

mod content;

/// How many segments' extents are looked up by one walk over the state.
const INDEXED_MAX: usize = 4096;

/// How much of a segment's end is read to find its footer.
const END_BYTES: u64 = 64 * 1024;

/// How often a block is read before what is wrong with it counts.
const LOOKS_MAX: u32 = 2;

/// Reads segments and says what is wrong in them. `total` counts what was read.
pub(super) async fn check(
    look: &Look,
    state: &State,
    segments: Vec<SegmentId>,
    options: &Options,
    total: &mut Read,
) -> Result<Vec<Finding>, LookError> {
    let mut findings = Vec::new();
    for segments in segments.chunks(INDEXED_MAX) {
        let wanted: BTreeSet<SegmentId> = segments.iter().copied().collect();
        let index = Index::of(state, &wanted);
        let referenced = state.segments().referenced();
        let jobs = segments.iter().filter_map(|segment| {
            let refs = referenced.get(segment)?;
            let (bytes, inline) = (refs.bytes, refs.inline.clone());
            let placed = index.extents(*segment).to_vec();
            let range_bytes_max = options.range_bytes_max;
            let (look, segment) = (look.clone(), *segment);
            Some(Job { look, segment, bytes, inline, placed, range_bytes_max })
        });
        let mut done = stream::iter(jobs.map(|job| tokio::spawn(job.run())))
            .buffered(options.segments_inflight_max.max(1));
        while let Some(checked) = done.next().await {
            let checked = checked.map_err(|error| {
                LookError::Objects(PortError::broken(format!("a check came to no end: {error}")))
            })?;
            let (read, found) = checked?;
            *total += read;
            findings.extend(found);
        }
    }
    Ok(findings)
}

/// Reads one segment of `bytes` bytes, whether the state knows it or not: what is wrong with it,
/// and its blocks.
pub(crate) async fn segment_blocks(
    look: &Look,
    state: &State,
    segment: SegmentId,
    bytes: u64,
) -> Result<(Vec<Finding>, Vec<BlockSeen>), LookError> {
    let job = Job {
        look: look.clone(),
        segment,
        bytes,
        inline: state.segments().inline(segment).cloned(),
        placed: Index::of(state, &BTreeSet::from([segment])).extents(segment).to_vec(),
        range_bytes_max: Options::default().range_bytes_max,
    };
    let mut blocks = Vec::new();
    let mut show = |block: &Block, opened: Result<Bytes, BlockError>| {
        let extent = |placed: &Placed| ExtentSeen {
            name: placed.name.clone(),
            partition: placed.partition,
            from: placed.extent.base,
            to: placed.extent.end(),
        };
        blocks.push(BlockSeen {
            position: block.position,
            stored_bytes: block.stored_bytes,
            owner: block.partition,
            extents: block.placed.iter().map(extent).collect(),
            batches: opened.map(|content| inspect::batches(&content)),
        });
    };
    job.visit(&mut Vec::new(), &mut show).await.or_else(|failure| match failure {
        // The check says it as well.
        Failure::Damage(_) => Ok(()),
        Failure::Look(error) => Err(error),
    })?;
    let (_, findings) = job.run().await?;
    Ok((findings, blocks))
}

/// One segment to be read.
struct Job {
    look: Look,
    segment: SegmentId,
    bytes: u64,
    /// The object, if the state holds it itself.
    inline: Option<Bytes>,
    placed: Vec<Placed>,
    range_bytes_max: u64,
}

/// What there should be at one position.
#[derive(Debug)]
struct Block {
    position: u64,
    stored_bytes: u32,
    partition: TopicPartition,
    /// What the footer says is in it.
    batches: Option<Vec<BatchSummary>>,
    /// What the state says is in it.
    placed: Vec<Placed>,
}

impl Block {
    fn end(&self) -> u64 {
        self.position.saturating_add(u64::from(self.stored_bytes))
    }
}

/// Why a range can't be had.
enum Failure {
    Damage(Damage),
    Look(LookError),
}

impl Job {
    async fn run(self) -> Result<(Read, Vec<Finding>), LookError> {
        let mut read = Read { segments: 1, bytes: self.bytes, ..Read::default() };
        let mut findings = Vec::new();
        match self.check(&mut read, &mut findings).await {
            Ok(()) => Ok((read, findings)),
            Err(Failure::Look(error)) => Err(error),
            Err(Failure::Damage(damage)) => {
                findings.push(Finding { damage, affected: affected(self.placed.iter()) });
                Ok((read, findings))
            }
        }
    }

    async fn check(&self, read: &mut Read, findings: &mut Vec<Finding>) -> Result<(), Failure> {
        let mut found = Vec::new();
        let mut judge = |block: &Block, opened: Result<Bytes, BlockError>| {
            read.blocks += 1;
            match opened {
                Ok(unpacked) => {
                    let judged = content::judge(self.segment, block, &unpacked);
                    read.batches += judged.batches;
                    found.extend(judged.findings);
                }
                Err(cause) => {
                    let (segment, position) = (self.segment, block.position);
                    let damage = Damage::Block { segment, position, cause };
                    found.push(Finding { damage, affected: affected(block.placed.iter()) });
                }
            }
        };
        let visited = self.visit(findings, &mut judge).await;
        findings.extend(found);
        visited
    }

    /// Reads the segment and shows each block, in order of positions. What is wrong with the
    /// segment besides is a finding.
    async fn visit(
        &self,
        findings: &mut Vec<Finding>,
        show: &mut (dyn FnMut(&Block, Result<Bytes, BlockError>) + Send),
    ) -> Result<(), Failure> {
        let footer = match &self.inline {
            None => Some(self.footer().await?),
            Some(_) => None,
        };
        let runs = match footer.transpose() {
            Ok(runs) => runs,
            Err(cause) => {
                // Records are read without it: the state knows where they lie.
                let damage = Damage::Footer { segment: self.segment, cause };
                findings.push(Finding { damage, affected: Vec::new() });
                None
            }
        };
        let blocks = self.blocks(runs, findings);
        for group in groups(&blocks, self.range_bytes_max) {
            let (Some(first), Some(last)) = (group.first(), group.last()) else { continue };
            let bytes = self.get(first.position, last.end()).await?;
            for block in group {
                let from = usize::try_from(block.position - first.position).unwrap_or(usize::MAX);
                let to = usize::try_from(block.end() - first.position).unwrap_or(usize::MAX);
                let stored = bytes.slice(from.min(bytes.len())..to.min(bytes.len()));
                show(block, self.open(block, stored).await?);
            }
        }
        Ok(())
    }

    async fn footer(&self) -> Result<Result<Vec<Run>, FooterError>, Failure> {
        let start = self.get(0, count(HEADER_BYTES)).await?;
        let mut end = self.get(self.bytes.saturating_sub(END_BYTES), self.bytes).await?;
        let footer = footer_bytes(&end).map_or(0, count).min(self.bytes);
        if footer > count(end.len()) {
            end = self.get(self.bytes - footer, self.bytes).await?;
        }
        Ok(open_footer(self.segment, self.bytes, &start, &end))
    }

    /// The blocks that footer and state name, in order of their positions. Where the two do not
    /// agree, that is a finding, and the state is believed.
    fn blocks(&self, runs: Option<Vec<Run>>, findings: &mut Vec<Finding>) -> Vec<Block> {
        let has_footer = runs.is_some();
        let mut blocks: BTreeMap<u64, Block> = BTreeMap::new();
        for Run { partition, position, stored_bytes, batches } in runs.unwrap_or_default() {
            let (batches, placed) = (Some(batches), Vec::new());
            blocks.insert(position, Block { position, stored_bytes, partition, batches, placed });
        }
        for placed in &self.placed {
            let Some(location) = placed.extent.location() else { continue };
            let (position, stored_bytes) = (location.position, location.stored_bytes);
            let partition = placed.owner;
            let new =
                || Block { position, stored_bytes, partition, batches: None, placed: Vec::new() };
            let block = blocks.entry(position).or_insert_with(new);
            let agrees = block.partition == partition && block.stored_bytes == stored_bytes;
            if !agrees {
                *block = Block { placed: std::mem::take(&mut block.placed), ..new() };
            }
            let is_listed = block.batches.is_some();
            block.placed.push(placed.clone());
            if has_footer && !is_listed {
                let segment = self.segment;
                let what = "the footer names another block here, or none".to_owned();
                let damage = Damage::Content { segment, position, what };
                findings.push(Finding { damage, affected: affected(std::iter::once(placed)) });
            }
        }
        blocks.into_values().collect()
    }

    /// Opens a block; one that is damaged is read again: perhaps it was damaged on the way.
    async fn open(
        &self,
        block: &Block,
        mut stored: Bytes,
    ) -> Result<Result<Bytes, BlockError>, Failure> {
        let mut looks = 1;
        loop {
            let opened = open_block(self.segment, block.partition, block.position, &stored);
            if opened.is_ok() || looks == LOOKS_MAX {
                return Ok(opened);
            }
            looks += 1;
            stored = self.get(block.position, block.end()).await?;
        }
    }

    async fn get(&self, from: u64, to: u64) -> Result<Bytes, Failure> {
        if let Some(inline) = &self.inline {
            let at = |at| usize::try_from(at).unwrap_or(usize::MAX).min(inline.len());
            return Ok(inline.slice(at(from)..at(to)));
        }
        let segment = self.segment;
        match self.look.object(&segment.key(), from..to).await {
            Ok(Some(bytes)) => Ok(bytes),
            Ok(None) => Err(Failure::Damage(Damage::Missing(segment))),
            // The disk or the store has it and does not give it: nor would it to a consumer.
            Err(LookError::Objects(PortError::Determinate(cause))) => {
                Err(Failure::Damage(Damage::Unreadable { segment, cause: cause.to_string() }))
            }
            Err(error) => Err(Failure::Look(error)),
        }
    }
}

/// Groups blocks, which are in order, so that each group is read by one range.
fn groups(blocks: &[Block], bytes_max: u64) -> Vec<&[Block]> {
    let mut groups = Vec::new();
    let mut first = 0;
    for at in 1..=blocks.len() {
        let ends = blocks.get(at).is_none_or(|next| {
            blocks.get(first).is_none_or(|it| next.end() - it.position > bytes_max)
        });
        if ends {
            groups.extend(blocks.get(first..at));
            first = at;
        }
    }
    groups
}
