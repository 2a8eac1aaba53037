//! Ranges of segments: from blocks that are wanted to requests, and from bytes to blocks. What was
//! read is kept on disk, if there is a [`DiskCache`](super::DiskCache).

use std::collections::BTreeMap;
use std::ops::Range;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use bytes::Bytes;
use futures::FutureExt;
use futures::future::join_all;
use tokio::sync::Semaphore;
use tokio::time::timeout;

use super::ReaderConfig;
use super::blocks::{BlockKey, BlockRead, Wanted};
use super::lane::Lane;
use super::spans::{Plan, Spans};
use crate::object::ObjectStore;
use crate::offload::off_the_workers;
use crate::segment::{SegmentId, open_block};

/// Blocks of up to this many bytes are opened by whoever has read them.
const OPENED_AT_ONCE_MAX: u64 = 64 * 1024;

/// The way to the store, and to the disk before it.
pub(super) struct Ranges {
    objects: Arc<dyn ObjectStore>,
    config: ReaderConfig,
    gets: Semaphore,
    catch_up_gets: Semaphore,
    catch_up_opens: Semaphore,
    /// What was read by those who gather.
    spans: Mutex<Spans>,
}

impl Ranges {
    pub(super) fn new(objects: Arc<dyn ObjectStore>, config: ReaderConfig) -> Self {
        Self {
            objects,
            gets: Semaphore::new(config.gets_inflight_max),
            catch_up_gets: Semaphore::new(config.catch_up_gets_inflight_max),
            catch_up_opens: Semaphore::new(config.catch_up_opens_max),
            spans: Mutex::new(Spans::new(config.spans_bytes_max())),
            config,
        }
    }

    /// Reads blocks, which are in order.
    pub(super) async fn read_all(
        self: &Arc<Self>,
        wanted: &[Wanted],
    ) -> BTreeMap<BlockKey, BlockRead> {
        let groups = self.group(wanted);
        let reads = join_all(groups.iter().map(|group| self.read(group))).await;
        reads.into_iter().flatten().collect()
    }

    /// Groups blocks, which are in order, into ranges.
    pub(super) fn group(&self, wanted: &[Wanted]) -> Vec<Vec<Wanted>> {
        let mut groups: Vec<Vec<Wanted>> = Vec::new();
        for block in wanted {
            let joins = groups
                .last()
                .and_then(|group| group.first().zip(group.last()))
                .is_some_and(|(first, last)| {
                    first.key.segment == block.key.segment
                        && first.lane == block.lane
                        && block.key.position
                            <= last.end().saturating_add(self.config.range_gap_max)
                        && block.end() - first.key.position <= self.config.range_bytes_max
                });
            match groups.last_mut() {
                Some(group) if joins => group.push(block.clone()),
                _ => groups.push(vec![block.clone()]),
            }
        }
        groups
    }

    /// Reads blocks of one range.
    pub(super) async fn read(self: &Arc<Self>, group: &[Wanted]) -> BTreeMap<BlockKey, BlockRead> {
        let (Some(first), Some(last)) = (group.first(), group.last()) else {
            return BTreeMap::new();
        };
        let range = first.key.position..last.end();
        let mut failure = None;
        for _ in 0..self.config.get_attempts_max {
            match self.part(group, range.clone()).await {
                Ok((start, bytes)) => {
                    let blocks = self.open(group, start, bytes.clone()).await;
                    if blocks.values().all(Result::is_ok) {
                        self.put_on_disk(group, start, &bytes);
                        return blocks;
                    }
                    // Damaged on the way, perhaps: a second look tells.
                    self.spans().forget(first.key.segment);
                    failure = Some(blocks);
                }
                Err(cause) => {
                    let failed = |block: &Wanted| (block.key, Err(cause.clone()));
                    failure = Some(group.iter().map(failed).collect());
                }
            }
        }
        let failure = failure.unwrap_or_default();
        for (key, error) in
            failure.iter().filter_map(|(key, read)| Some((key, read.as_ref().err()?)))
        {
            let BlockKey { segment, position } = key;
            tracing::error!(%segment, position, error, "block can't be read");
        }
        failure
    }

    /// What lies on disk of blocks of one segment, which are in order.
    pub(super) async fn on_disk(&self, wanted: &[Wanted]) -> BTreeMap<BlockKey, BlockRead> {
        match &self.config.disk {
            Some(disk) => disk.read(wanted).await,
            None => BTreeMap::new(),
        }
    }

    /// Has blocks of a group kept on disk. What is read at the tail of a segment as it was written
    /// is not: it soon lies elsewhere, merged, and would drive out what stays.
    fn put_on_disk(&self, group: &[Wanted], start: u64, bytes: &Bytes) {
        let is_passing = |it: &Wanted| matches!(it.lane, Lane::Tail) && !it.may_be_packed;
        if let Some(disk) = &self.config.disk
            && !group.iter().any(is_passing)
        {
            disk.put(group, start, bytes, is_sparse(group, bytes));
        }
    }

    /// Opens the blocks of a group. Much of it takes milliseconds, and those at the tail would wait
    /// for each of them.
    async fn open(
        &self,
        group: &[Wanted],
        start: u64,
        bytes: Bytes,
    ) -> BTreeMap<BlockKey, BlockRead> {
        if stored_bytes(group) <= OPENED_AT_ONCE_MAX {
            return open(group, start, &bytes);
        }
        let _turn = match group.first().map(|block| block.lane) {
            Some(Lane::CatchUp) => self.catch_up_opens.acquire().await.ok(),
            _ => None,
        };
        let group = group.to_vec();
        off_the_workers(move || open(&group, start, &bytes)).await
    }

    /// Bytes in which the blocks of a group lie, in `range` of their segment, and where they begin.
    async fn part(
        self: &Arc<Self>,
        group: &[Wanted],
        range: Range<u64>,
    ) -> Result<(u64, Bytes), String> {
        let Some(Wanted { key, segment_bytes, lane, .. }) = group.first() else {
            return Err("there is nothing to read".to_owned());
        };
        if self.config.gather.is_zero() || !matches!(lane, Lane::Tail) {
            return Ok((range.start, self.get(key.segment, range, *lane).await?));
        }
        let (segment, lane) = (key.segment, *lane);
        let plan = self.spans().plan(segment, *segment_bytes, range, stored_bytes(group));
        let (start, bytes) = match plan {
            Plan::Kept { start, bytes } => return Ok((start, bytes)),
            Plan::Join(reading) => return reading.await,
            Plan::Part(range) => (range.start, self.get(segment, range, lane).await?),
            Plan::Whole(range) => {
                let inner = Arc::clone(self);
                let reading = async move {
                    let start = range.start;
                    inner.get(segment, range, lane).await.map(|bytes| (start, bytes))
                };
                let reading = reading.boxed().shared();
                self.spans().begin(segment, reading.clone());
                let read = reading.await;
                self.spans().end(segment);
                read?
            }
        };
        if is_sparse(group, &bytes) {
            self.spans().keep(segment, start, bytes.clone());
        }
        Ok((start, bytes))
    }

    fn spans(&self) -> MutexGuard<'_, Spans> {
        self.spans.lock().unwrap_or_else(PoisonError::into_inner)
    }

    async fn get(
        &self,
        segment: SegmentId,
        range: Range<u64>,
        lane: Lane,
    ) -> Result<Bytes, String> {
        let gets = match lane {
            Lane::Tail => &self.gets,
            Lane::CatchUp => &self.catch_up_gets,
        };
        let Ok(_permit) = gets.acquire().await else {
            return Err("the reader is gone".to_owned());
        };
        let key = segment.key();
        let get = self.objects.get_range(&key, range);
        match timeout(self.config.get_attempt_max, get).await {
            Ok(Ok(Some(bytes))) => Ok(bytes),
            Ok(Ok(None)) => Err(format!("segment {key} is not in the store")),
            Ok(Err(error)) => Err(error.to_string()),
            Err(_) => Err("the object store takes too long".to_owned()),
        }
    }
}

/// Cuts the bytes of a range, which begins at `start`, into the blocks of a group.
fn open(group: &[Wanted], start: u64, bytes: &Bytes) -> BTreeMap<BlockKey, BlockRead> {
    let is_sparse = is_sparse(group, bytes);
    let open = |block: &Wanted| {
        let mut content = open_one(block, start, bytes)?;
        // What lies between them would be held with them for as long as one of them is.
        if is_sparse && bytes.as_ptr_range().contains(&content.as_ptr()) {
            content = Bytes::copy_from_slice(&content);
        }
        Ok(content)
    };
    group.iter().map(|block| (block.key, open(block))).collect()
}

/// Whether much else lies between the blocks of a group in these bytes.
fn is_sparse(group: &[Wanted], bytes: &Bytes) -> bool {
    u64::try_from(bytes.len()).is_ok_and(|all| stored_bytes(group) < all / 4 * 3)
}

/// Bytes that blocks take in their segment.
pub(super) fn stored_bytes(blocks: &[Wanted]) -> u64 {
    blocks.iter().map(|block| u64::from(block.stored_bytes)).sum()
}

/// Opens a block of bytes that begin at `start` in its segment.
pub(super) fn open_one(block: &Wanted, start: u64, bytes: &Bytes) -> BlockRead {
    let from = usize::try_from(block.key.position - start).unwrap_or(usize::MAX);
    let to = usize::try_from(block.end() - start).unwrap_or(usize::MAX);
    if to > bytes.len() {
        return Err("segment is shorter than the log says".to_owned());
    }
    let stored = bytes.slice(from..to);
    open_block(block.key.segment, block.owner, block.key.position, &stored)
        .map_err(|error| error.to_string())
}
