//! Blocks: in memory, on their way, or in the store.
//!
//! However many readers want a block, it is read once: the first opens a flight, the others join
//! it. Blocks that lie close together in a segment are read by one range. What the writer has just
//! uploaded is put here by it, so a consumer at the tail costs no read at all. Who is far behind it
//! has a [`Lane`] of its own.

use std::collections::BTreeMap;
use std::fmt;
use std::ops::Range;
use std::sync::{Arc, Mutex, PoisonError};

use bytes::Bytes;
use futures::FutureExt;
use futures::future::{BoxFuture, Shared, join_all};
use odradek_protocol::id::TopicPartition;
use quick_cache::sync::{Cache, DefaultLifecycle};
use quick_cache::{OptionsBuilder, Weighter};
use tokio::sync::Semaphore;
use tokio::time::timeout;
use xxhash_rust::xxh3::Xxh3Builder;

use super::lane::{Lane, Queue};
use super::{FetchError, ReaderConfig};
use crate::object::ObjectStore;
use crate::offload::off_the_workers;
use crate::segment::{SegmentId, open_block};
use crate::state::State;
use crate::state::partition::{Extent, Location, Partition};

/// A range of up to this many bytes is opened by whoever has read it.
const OPENED_AT_ONCE_MAX: usize = 64 * 1024;

/// Where a block begins.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub(crate) struct BlockKey {
    segment: SegmentId,
    position: u64,
}

/// A block that somebody wants to read.
#[derive(Clone, Debug)]
pub(crate) struct Wanted {
    key: BlockKey,
    /// Who stands in its header.
    owner: TopicPartition,
    stored_bytes: u32,
    /// The object, if the state holds it itself.
    inline: Option<Bytes>,
    lane: Lane,
}

/// An extent, with the block that it lies in.
#[derive(Clone, Debug)]
pub(crate) struct Located {
    /// The extent.
    pub(crate) extent: Extent,
    /// The block; none if there is none to read.
    pub(crate) wanted: Option<Wanted>,
}

impl Located {
    /// Says where an extent of `partition`, which is called `own`, lies.
    pub(crate) fn of(
        state: &State,
        own: TopicPartition,
        partition: &Partition,
        extent: &Extent,
    ) -> Self {
        let wanted = extent.location().map(|location| Wanted {
            key: BlockKey { segment: location.segment, position: location.position },
            owner: partition.owner(own, extent.base),
            stored_bytes: location.stored_bytes,
            inline: state.segments().inline(location.segment).cloned(),
            lane: Lane::Tail,
        });
        Self { extent: *extent, wanted }
    }

    /// The same for one who reads in this lane.
    pub(super) fn in_lane(mut self, lane: Lane) -> Self {
        if let Some(wanted) = &mut self.wanted {
            wanted.lane = lane;
        }
        self
    }

    /// Unpacks the block from the whole object.
    pub(super) fn open(&self, object: &Bytes) -> Result<Bytes, String> {
        let block = self.wanted.as_ref().ok_or("there is no block to read")?;
        open_one(block, 0, object)
    }
}

/// The content of a block, or why it can't be had.
pub(crate) type BlockRead = Result<Bytes, String>;

/// Several blocks of one segment, read by one range.
type Flight = Shared<BoxFuture<'static, Arc<BTreeMap<BlockKey, BlockRead>>>>;

/// Blocks of which some are there and others on their way.
#[must_use]
pub(super) struct Opened {
    loaded: BTreeMap<BlockKey, BlockRead>,
    flights: Vec<Flight>,
}

/// The blocks of the cluster, as this broker sees them. Cheap to clone.
#[derive(Clone)]
pub struct Blocks {
    inner: Arc<Inner>,
}

struct Inner {
    objects: Arc<dyn ObjectStore>,
    config: ReaderConfig,
    /// What is read at the tail.
    cache: Cache<BlockKey, Bytes, ByBytes, Xxh3Builder>,
    /// What is read by those who catch up.
    queue: Queue,
    flights: Mutex<BTreeMap<BlockKey, Flight>>,
    gets: Semaphore,
    catch_up_gets: Semaphore,
    catch_up_opens: Semaphore,
}

#[derive(Clone)]
struct ByBytes;

impl Weighter<BlockKey, Bytes> for ByBytes {
    fn weight(&self, _: &BlockKey, content: &Bytes) -> u64 {
        u64::try_from(content.len()).unwrap_or(u64::MAX).max(1)
    }
}

impl Wanted {
    fn end(&self) -> u64 {
        self.key.position.saturating_add(u64::from(self.stored_bytes))
    }
}

/// The content of the block that an extent lies in.
pub(super) fn content<'a>(
    blocks: &'a BTreeMap<BlockKey, BlockRead>,
    location: &Location,
) -> Result<&'a Bytes, FetchError> {
    let key = BlockKey { segment: location.segment, position: location.position };
    match blocks.get(&key) {
        Some(Ok(content)) => Ok(content),
        Some(Err(cause)) => Err(FetchError::Storage(cause.clone())),
        None => Err(FetchError::Storage(format!("block {key:?} was not read"))),
    }
}

impl Blocks {
    pub(crate) fn new(objects: Arc<dyn ObjectStore>, config: ReaderConfig) -> Self {
        let cache_bytes = config.cache_bytes_max - config.catch_up_bytes_max();
        let items = usize::try_from(cache_bytes / (64 * 1024)).unwrap_or(usize::MAX);
        // A fixed number of shards and a fixed hash: what is evicted when must not differ between
        // two runs of a simulation.
        let options = OptionsBuilder::new()
            .estimated_items_capacity(items.max(64))
            .weight_capacity(cache_bytes)
            .shards(1)
            .build()
            .expect("capacities are given");
        let cache =
            Cache::with_options(options, ByBytes, Xxh3Builder::new(), DefaultLifecycle::default());
        let inner = Inner {
            objects,
            cache,
            queue: Queue::new(config.catch_up_bytes_max()),
            flights: Mutex::default(),
            gets: Semaphore::new(config.gets_inflight_max),
            catch_up_gets: Semaphore::new(config.catch_up_gets_inflight_max),
            catch_up_opens: Semaphore::new(config.catch_up_opens_max),
            config,
        };
        Self { inner: Arc::new(inner) }
    }

    /// Keeps the content of a block in mind.
    pub(crate) fn insert(&self, segment: SegmentId, position: u64, content: Bytes) {
        self.inner.cache.insert(BlockKey { segment, position }, content);
    }

    /// Reads the blocks, each once.
    pub(crate) async fn load(&self, wanted: Vec<Wanted>) -> BTreeMap<BlockKey, BlockRead> {
        self.open(wanted).landed().await
    }

    /// Begins to read the blocks, each once.
    pub(super) fn open(&self, mut wanted: Vec<Wanted>) -> Opened {
        let mut loaded = BTreeMap::new();
        wanted.sort_by_key(|block| block.key);
        wanted.dedup_by_key(|block| block.key);
        wanted.retain(|block| match self.inner.in_memory(&block.key) {
            Some(content) => {
                loaded.insert(block.key, Ok(content));
                false
            }
            None => match &block.inline {
                Some(object) => {
                    let read = open_one(block, 0, object).inspect_err(|error| {
                        tracing::error!(segment = %block.key.segment, error, "block can't be read");
                    });
                    loaded.insert(block.key, read);
                    false
                }
                None => true,
            },
        });
        let flights = if wanted.is_empty() { Vec::new() } else { self.board(&wanted) };
        Opened { loaded, flights }
    }

    /// Begins to read what will be wanted soon, unless most of it is there or on its way: many
    /// small reads cost more than few large ones.
    pub(super) fn read_ahead(&self, mut wanted: Vec<Wanted>) {
        if wanted.is_empty() {
            return;
        }
        let count = |wanted: &[Wanted]| -> u64 {
            wanted.iter().map(|block| u64::from(block.stored_bytes)).sum()
        };
        let all = count(&wanted);
        {
            let flights = self.inner.flights.lock().unwrap_or_else(PoisonError::into_inner);
            wanted.retain(|block| {
                block.inline.is_none()
                    && !flights.contains_key(&block.key)
                    && self.inner.in_memory(&block.key).is_none()
            });
        }
        if !wanted.is_empty() && count(&wanted) * 2 >= all {
            wanted.sort_by_key(|block| block.key);
            wanted.dedup_by_key(|block| block.key);
            self.board(&wanted);
        }
    }

    /// Joins the flights that carry these blocks, and opens new ones for the rest.
    fn board(&self, wanted: &[Wanted]) -> Vec<Flight> {
        let mut boarded = Vec::new();
        let mut rest = Vec::new();
        let mut flights = self.inner.flights.lock().unwrap_or_else(PoisonError::into_inner);
        for block in wanted {
            match flights.get(&block.key) {
                Some(flight) => boarded.push(flight.clone()),
                None => rest.push(block.clone()),
            }
        }
        for group in self.inner.group(&rest) {
            let flight = self.fly(group.clone());
            for block in &group {
                flights.insert(block.key, flight.clone());
            }
            boarded.push(flight);
        }
        drop(flights);
        boarded
    }

    fn fly(&self, group: Vec<Wanted>) -> Flight {
        let inner = Arc::clone(&self.inner);
        let flight = async move {
            let blocks = inner.read(&group).await;
            let mut flights = inner.flights.lock().unwrap_or_else(PoisonError::into_inner);
            for block in &group {
                if let Some(Ok(content)) = blocks.get(&block.key) {
                    match block.lane {
                        Lane::Tail => inner.cache.insert(block.key, content.clone()),
                        Lane::CatchUp => inner.queue.insert(block.key, content.clone()),
                    }
                }
                flights.remove(&block.key);
            }
            drop(flights);
            Arc::new(blocks)
        };
        let flight = flight.boxed().shared();
        // It lands also if everybody who boarded it gives up: its blocks are wanted again soon.
        tokio::spawn(flight.clone());
        flight
    }
}

impl Opened {
    /// The blocks, when all of them are there.
    pub(super) async fn landed(self) -> BTreeMap<BlockKey, BlockRead> {
        let mut loaded = self.loaded;
        for landed in join_all(self.flights).await {
            let blocks = landed.iter().map(|(key, read)| (*key, read.clone()));
            loaded.extend(blocks);
        }
        loaded
    }
}

impl Inner {
    fn in_memory(&self, key: &BlockKey) -> Option<Bytes> {
        self.cache.get(key).or_else(|| self.queue.get(key))
    }

    /// Groups blocks, which are in order, into ranges.
    fn group(&self, wanted: &[Wanted]) -> Vec<Vec<Wanted>> {
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

    async fn read(&self, group: &[Wanted]) -> BTreeMap<BlockKey, BlockRead> {
        let (Some(first), Some(last)) = (group.first(), group.last()) else {
            return BTreeMap::new();
        };
        let segment = first.key.segment;
        let range = first.key.position..last.end();
        let mut failure = None;
        for _ in 0..self.config.get_attempts_max {
            let read = self.get(segment, range.clone(), first.lane).await;
            let blocks = match read {
                Ok(bytes) => Ok(self.open(group, range.start, bytes).await),
                Err(cause) => Err(cause),
            };
            match blocks {
                Ok(blocks) if blocks.values().all(Result::is_ok) => return blocks,
                // Damaged on the way, perhaps: a second look tells.
                Ok(blocks) => failure = Some(blocks),
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

    /// Opens the blocks of a group. Much of it takes milliseconds, and those at the tail would wait
    /// for each of them.
    async fn open(
        &self,
        group: &[Wanted],
        start: u64,
        bytes: Bytes,
    ) -> BTreeMap<BlockKey, BlockRead> {
        if bytes.len() <= OPENED_AT_ONCE_MAX {
            return open(group, start, &bytes);
        }
        let _turn = match group.first().map(|block| block.lane) {
            Some(Lane::CatchUp) => self.catch_up_opens.acquire().await.ok(),
            _ => None,
        };
        let group = group.to_vec();
        off_the_workers(move || open(&group, start, &bytes)).await
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
    group.iter().map(|block| (block.key, open_one(block, start, bytes))).collect()
}

/// Opens a block of bytes that begin at `start` in its segment.
fn open_one(block: &Wanted, start: u64, bytes: &Bytes) -> BlockRead {
    let from = usize::try_from(block.key.position - start).unwrap_or(usize::MAX);
    let to = usize::try_from(block.end() - start).unwrap_or(usize::MAX);
    if to > bytes.len() {
        return Err("segment is shorter than the log says".to_owned());
    }
    let stored = bytes.slice(from..to);
    open_block(block.key.segment, block.owner, block.key.position, &stored)
        .map_err(|error| error.to_string())
}

impl fmt::Debug for Blocks {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Blocks").field("cached", &self.inner.cache.len()).finish_non_exhaustive()
    }
}
