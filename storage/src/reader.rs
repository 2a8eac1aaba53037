//! The reader: from offsets to record batches.
//!
//! Planning is one short look at the state and touches no network; fetching reads blocks and never
//! touches the state. Batches leave as they came, but for the sixteen bytes before their checksum
//! begins, where base offset and leader epoch stand. Where blocks come from (memory, flights, disk,
//! ranges) is in [`blocks`], who gets into whose way in [`lane`], which broker reads for which in
//! [`neighbours`], what is read before it is asked for in [`ahead`]; finding an offset by time is
//! in [`timestamps`].

use std::collections::BTreeMap;
use std::fmt;
use std::sync::Arc;

use bytes::{BufMut, Bytes, BytesMut};
use odradek_protocol::id::{Offset, TopicPartition};
use odradek_protocol::record::RecordBatch;

use crate::machine::Machine;
use crate::object::ObjectStore;
use crate::peer::PeerLink;
use crate::state::State;
use crate::state::partition::{AbortedTransaction, Content, Extent, Partition};

mod ahead;
mod batches;
mod blocks;
mod boundaries;
mod disk;
mod lane;
mod neighbours;
mod ranges;
mod spans;
mod timestamps;

pub use blocks::Blocks;
pub use disk::{DiskCache, DiskCacheConfig, DiskCacheError};
pub use timestamps::TimestampOffset;

use ahead::ReadAhead;
pub(crate) use batches::{Batches, PlacedBatch};
pub(crate) use blocks::Located;
use blocks::{BlockKey, BlockRead, Wanted};
use lane::Lane;
use neighbours::Neighbours;

/// How the reader behaves.
#[derive(Clone, Debug)]
pub struct ReaderConfig {
    /// Bytes of block content that are kept in memory, three eighths of them for those far behind.
    pub cache_bytes_max: u64,
    /// How many ranges are read from the store at once for those who read at the tail.
    pub gets_inflight_max: usize,
    /// How many are for those who are far behind it.
    pub catch_up_gets_inflight_max: usize,
    /// How many ranges that were read for those are unpacked at once, each by a processor.
    pub catch_up_opens_max: usize,
    /// Neighbouring blocks are read together up to this many bytes.
    pub range_bytes_max: u64,
    /// Blocks count as neighbours if no more than this many bytes lie between them.
    pub range_gap_max: u64,
    /// How long a read at the tail waits for others of the same segment, to be one range with them;
    /// zero if none does.
    pub gather: std::time::Duration,
    /// How long a read at the tail waits, if it gathers, for another broker of the same zone that
    /// may have the blocks or reads them for all, before it turns to the store; zero if none is
    /// asked.
    pub ask_max: std::time::Duration,
    /// How often a range is tried, and how long each try may take.
    pub get_attempts_max: u32,
    /// See `get_attempts_max`.
    pub get_attempt_max: std::time::Duration,
    /// Where blocks are kept that memory has no room for, if anywhere.
    pub disk: Option<DiskCache>,
}

impl Default for ReaderConfig {
    fn default() -> Self {
        Self {
            cache_bytes_max: 256 * 1024 * 1024,
            gets_inflight_max: 32,
            catch_up_gets_inflight_max: 32,
            catch_up_opens_max: half_of_the_processors(),
            range_bytes_max: 8 * 1024 * 1024,
            range_gap_max: 64 * 1024,
            gather: std::time::Duration::ZERO,
            ask_max: std::time::Duration::ZERO,
            get_attempts_max: 3,
            get_attempt_max: std::time::Duration::from_secs(5),
            disk: None,
        }
    }
}

impl ReaderConfig {
    /// How much of `cache_bytes_max` is for readers that are far behind.
    fn catch_up_bytes_max(&self) -> u64 {
        self.cache_bytes_max / 8 * 3
    }

    /// How much of it is for parts of segments as they were read, where reads gather.
    fn spans_bytes_max(&self) -> u64 {
        if self.gather.is_zero() { 0 } else { self.cache_bytes_max / 4 }
    }
}

/// The other half is for those who wait for less.
fn half_of_the_processors() -> usize {
    std::thread::available_parallelism().map_or(1, |count| count.get().div_ceil(2))
}

/// What of a partition may be seen (KIP-98).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Isolation {
    /// Up to the high watermark.
    ReadUncommitted,
    /// Up to the last stable offset.
    ReadCommitted,
}

/// One partition to be read.
#[derive(Clone, Copy, Debug)]
pub struct FetchTarget {
    /// Which.
    pub partition: TopicPartition,
    /// From which record on.
    pub offset: Offset,
    /// About how much.
    pub bytes_max: usize,
}

/// What there is to read, as the state had it.
#[derive(Debug)]
#[must_use]
pub struct Plan {
    targets: Vec<(FetchTarget, Result<Found, FetchError>)>,
    bytes_max: usize,
}

#[derive(Debug)]
struct Found {
    watermarks: Watermarks,
    extents: Vec<Located>,
    /// Where reading ends.
    limit: Offset,
    /// Aborted transactions with records in the extents; none if they don't matter.
    aborted: Option<Vec<AbortedTransaction>>,
    /// Whether there is more behind the extents.
    is_behind: bool,
    /// What will be asked for next.
    ahead: Vec<Wanted>,
}

/// Where a partition begins and ends.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Watermarks {
    /// The oldest offset that can be read.
    pub log_start: Offset,
    /// What read_committed consumers may read up to.
    pub last_stable_offset: Offset,
    /// What others may read up to.
    pub high_watermark: Offset,
}

/// Batches of one partition.
#[derive(Clone, Debug)]
pub struct Fetched {
    /// Where the partition began and ended when this was planned.
    pub watermarks: Watermarks,
    /// Whole batches in parts, to be written one after the other.
    pub records: Vec<Bytes>,
    /// Their length.
    pub records_bytes: usize,
    /// Aborted transactions that have records among them, for a consumer to skip; `None` if all
    /// are to be seen.
    pub aborted: Option<Vec<AbortedTransaction>>,
}

/// Why there are none.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum FetchError {
    /// No such partition, as far as this broker knows.
    #[error("no partition {0}")]
    UnknownPartition(TopicPartition),
    /// The offset is below the log start or past the end, as far as this broker knows.
    #[error("offset {offset} lies outside the partition ({watermarks:?})")]
    OutOfRange {
        /// The offset asked for.
        offset: Offset,
        /// What there is.
        watermarks: Watermarks,
    },
    /// The bytes could not be had, or were not what was written.
    #[error("records can't be read: {0}")]
    Storage(String),
}

/// A handle on the reader. Cheap to clone.
#[derive(Clone)]
pub struct Reader {
    machine: Machine,
    blocks: Blocks,
    ahead: Arc<ReadAhead>,
}

impl Reader {
    /// A reader over this replica, this store and these other brokers.
    pub fn new(
        machine: Machine,
        objects: Arc<dyn ObjectStore>,
        peers: Arc<dyn PeerLink>,
        config: ReaderConfig,
    ) -> Self {
        // Half of what there is for them: the other half is what they were last given.
        let ahead = Arc::new(ReadAhead::new(config.catch_up_bytes_max() / 2));
        let neighbours = Neighbours::new(machine.clone(), peers, config.ask_max);
        let blocks = Blocks::among(Some(neighbours), objects, config);
        Self { machine, blocks, ahead }
    }

    /// The blocks in memory, for the writer to add to.
    pub fn blocks(&self) -> Blocks {
        self.blocks.clone()
    }

    /// Where a partition begins and ends.
    pub fn watermarks(&self, partition: TopicPartition) -> Result<Watermarks, FetchError> {
        self.machine.read(|state| {
            let found = state.partition(partition);
            found.map(Watermarks::of).ok_or(FetchError::UnknownPartition(partition))
        })
    }

    /// What there is to read for these targets, in about `bytes_max` in all.
    pub fn plan(&self, targets: &[FetchTarget], bytes_max: usize, isolation: Isolation) -> Plan {
        self.machine.read(|state| {
            let mut left = bytes_max;
            let targets = targets
                .iter()
                .map(|target| (*target, find(state, *target, isolation, &mut left, &self.ahead)))
                .collect();
            Plan { targets, bytes_max }
        })
    }

    /// Reads what was planned; one result for each target, in order.
    ///
    /// Batches are whole. The first batch of the first partition that has any is given however long
    /// it is, or a consumer would never get past it (KIP-74).
    pub async fn fetch(&self, mut plan: Plan) -> Vec<Result<Fetched, FetchError>> {
        let opened = self.blocks.open(plan.wanted());
        for (_, found) in &mut plan.targets {
            if let Ok(found) = found {
                self.blocks.read_ahead(std::mem::take(&mut found.ahead));
            }
        }
        let blocks = opened.landed().await;
        let mut budget = Budget { left: plan.bytes_max, first: true };
        plan.targets
            .into_iter()
            .map(|(target, found)| {
                let found = found?;
                let is_behind = found.is_behind;
                let (fetched, end) = assemble(target, found, &blocks, &mut budget)?;
                if is_behind && end > target.offset {
                    self.ahead.advance(target.partition, target.offset, end);
                }
                Ok(fetched)
            })
            .collect()
    }
}

impl fmt::Debug for Reader {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Reader").finish_non_exhaustive()
    }
}

impl Plan {
    /// Bytes of batches in the plan: at most this much will be read, and more than nothing if there
    /// is anything.
    pub fn available_bytes(&self) -> usize {
        let found = self.targets.iter().filter_map(|(_, found)| found.as_ref().ok());
        found.flat_map(|found| &found.extents).map(|it| extent_bytes(&it.extent)).sum()
    }

    /// Plans to read no more than so many bytes, and at least one batch where there is any.
    pub fn limit_to(&mut self, bytes_max: usize) {
        self.bytes_max = self.bytes_max.min(bytes_max);
        let (mut left, mut is_first) = (self.bytes_max, true);
        for (target, found) in &mut self.targets {
            let Ok(found) = found else { continue };
            found.extents.retain(|located| {
                let bytes = least_bytes(&located.extent, target.offset);
                let is_kept = is_first || left > 0;
                is_first &= bytes == 0;
                left = left.saturating_sub(bytes);
                is_kept
            });
        }
    }

    /// Whether a target can't be read.
    pub fn has_error(&self) -> bool {
        self.targets.iter().any(|(_, found)| found.is_err())
    }

    fn wanted(&self) -> Vec<Wanted> {
        let found = self.targets.iter().filter_map(|(_, found)| found.as_ref().ok());
        let extents = found.flat_map(|found| &found.extents);
        extents.filter_map(|located| located.wanted.clone()).collect()
    }
}

impl Watermarks {
    fn of(partition: &Partition) -> Self {
        Self {
            log_start: partition.log_start,
            last_stable_offset: partition.last_stable_offset(),
            high_watermark: partition.high_watermark,
        }
    }

    /// Where reading ends.
    pub fn limit(&self, isolation: Isolation) -> Offset {
        match isolation {
            Isolation::ReadUncommitted => self.high_watermark,
            Isolation::ReadCommitted => self.last_stable_offset,
        }
    }
}

fn extent_bytes(extent: &Extent) -> usize {
    usize::try_from(extent.bytes()).unwrap_or(usize::MAX)
}

/// What an extent is counted as while a reader at this offset is looked for enough to read: of what
/// was merged nothing may be left from the offset on, and then the next one is needed.
fn least_bytes(extent: &Extent, offset: Offset) -> usize {
    let may_be_empty = extent.base < offset && matches!(extent.content, Content::Merged(_));
    if may_be_empty { 0 } else { extent_bytes(extent) }
}

fn find(
    state: &State,
    target: FetchTarget,
    isolation: Isolation,
    left: &mut usize,
    streams: &ReadAhead,
) -> Result<Found, FetchError> {
    let partition =
        state.partition(target.partition).ok_or(FetchError::UnknownPartition(target.partition))?;
    let watermarks = Watermarks::of(partition);
    if target.offset < watermarks.log_start || target.offset > watermarks.high_watermark {
        return Err(FetchError::OutOfRange { offset: target.offset, watermarks });
    }
    let limit = watermarks.limit(isolation);
    let mut extents: Vec<Located> = Vec::new();
    let mut here = target.bytes_max;
    let locate = |extent| Located::of(state, target.partition, partition, extent);
    // An extent may go on behind the limit: of one that begins there nothing may be seen.
    let visible = partition.extents_from(target.offset).take_while(|it| it.base < limit);
    let mut rest = visible.filter(|_| target.offset < limit).peekable();
    while here > 0
        && *left > 0
        && let Some(extent) = rest.next()
    {
        let bytes = least_bytes(extent, target.offset);
        extents.push(locate(extent));
        here = here.saturating_sub(bytes);
        *left = left.saturating_sub(bytes);
    }
    let is_behind = rest.peek().is_some();
    let mut ahead = Vec::new();
    if is_behind {
        extents = extents.into_iter().map(|it| it.in_lane(Lane::CatchUp)).collect();
        let window = streams.window(target.partition, target.offset);
        let mut bytes = 0;
        let near = rest.take_while(|extent| {
            bytes += u64::from(extent.bytes());
            bytes <= window
        });
        ahead = near.filter_map(|it| locate(it).in_lane(Lane::CatchUp).wanted).collect();
    }
    let aborted = (isolation == Isolation::ReadCommitted).then(|| {
        let end = extents.last().map_or(target.offset, |it: &Located| it.extent.end());
        partition.aborted_between(target.offset, end).copied().collect()
    });
    Ok(Found { watermarks, extents, limit, aborted, is_behind, ahead })
}

/// How much the response may still grow.
struct Budget {
    left: usize,
    /// Whether no batch was given yet.
    first: bool,
}

/// The batches, and where the next one is to be asked for.
fn assemble(
    target: FetchTarget,
    found: Found,
    blocks: &BTreeMap<BlockKey, BlockRead>,
    budget: &mut Budget,
) -> Result<(Fetched, Offset), FetchError> {
    let mut parts = Parts::default();
    let mut here = target.bytes_max;
    let mut end = target.offset;
    let mut is_cut_short = false;
    'extents: for located in &found.extents {
        let batches = match Batches::of(&located.extent, blocks) {
            // What lies before it can be read, and is what was asked for: the error comes next.
            Err(_) if parts.bytes > 0 => break 'extents,
            batches => batches?,
        };
        for batch in batches {
            let batch = match batch {
                Err(_) if parts.bytes > 0 => break 'extents,
                batch => batch?,
            };
            if batch.base >= found.limit {
                break 'extents;
            }
            if batch.end() <= target.offset {
                continue;
            }
            let bytes = batch.bytes.len();
            if !budget.first && (bytes > here || bytes > budget.left) {
                is_cut_short = true;
                break 'extents;
            }
            budget.first = false;
            here = here.saturating_sub(bytes);
            budget.left = budget.left.saturating_sub(bytes);
            end = batch.end();
            parts.push(batch.patched_head(), batch.bytes);
        }
    }
    let mut next = end;
    let passed = found.extents.last().map_or(end, |it| it.extent.end().min(found.limit));
    if parts.bytes == 0 && !is_cut_short && passed > end {
        // Compaction has left nothing here, and perhaps a branch ends here (COMPACT-3): without a
        // batch that says so a consumer would ask for the same for ever.
        let offsets = u32::try_from(passed.0 - end.0).unwrap_or(u32::MAX);
        parts.put(&RecordBatch::empty(end.0, offsets));
        budget.first = false;
        next = passed;
    }
    let mut aborted = found.aborted;
    aborted.iter_mut().for_each(|aborted| aborted.retain(|it| it.first < end));
    let (records_bytes, records) = (parts.bytes, parts.finish());
    let fetched = Fetched { watermarks: found.watermarks, records, records_bytes, aborted };
    Ok((fetched, next))
}

/// Batches shorter than this are copied: one more part of a response costs more than the copy.
const COPY_BYTES_MAX: usize = 4096;

/// The parts of a response: short ones joined, long ones by reference.
#[derive(Default)]
struct Parts {
    done: Vec<Bytes>,
    open: BytesMut,
    bytes: usize,
}

impl Parts {
    /// Adds a batch whose first bytes are replaced by `head`.
    fn push(&mut self, head: [u8; batches::HEAD_BYTES], batch: Bytes) {
        self.bytes += batch.len();
        self.open.put_slice(&head);
        if batch.len() <= COPY_BYTES_MAX {
            self.open.put_slice(&batch[batches::HEAD_BYTES..]);
        } else {
            self.done.push(self.open.split().freeze());
            self.done.push(batch.slice(batches::HEAD_BYTES..));
        }
    }

    /// Adds a batch that is made here.
    fn put(&mut self, batch: &[u8]) {
        self.bytes += batch.len();
        self.open.put_slice(batch);
    }

    fn finish(mut self) -> Vec<Bytes> {
        if !self.open.is_empty() {
            self.done.push(self.open.freeze());
        }
        self.done
    }
}

#[cfg(test)]
mod tests;
