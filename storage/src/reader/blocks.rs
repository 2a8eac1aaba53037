//! Blocks: in memory, on their way, on disk, or in the store.
//!
//! However many readers want a block, it is read once: the first opens a flight, the others join
//! it. Blocks that lie close together in a segment are read by one range. All who wait at the tail
//! are woken by the same commit and want blocks of the same segment: a flight at the tail leaves a
//! moment later, with what has been asked for of its segment until then, to the broker of the zone
//! that reads it for all of them ([`Neighbours`]) or to the store. What the writer has uploaded is
//! put here by it, so a consumer at the tail of its own broker costs no read at all. Who is far
//! behind it has a [`Lane`] of its own.

use std::collections::BTreeMap;
use std::fmt;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use bytes::Bytes;
use futures::FutureExt;
use futures::future::{BoxFuture, Shared, join_all};
use odradek_protocol::id::TopicPartition;
use quick_cache::sync::{Cache, DefaultLifecycle};
use quick_cache::{OptionsBuilder, Weighter};
use tokio::time::sleep;
use xxhash_rust::xxh3::Xxh3Builder;

use super::lane::{Lane, Queue};
use super::neighbours::{Neighbour, Neighbours};
use super::ranges::{Ranges, open_one, stored_bytes};
use super::{FetchError, ReaderConfig};
use crate::object::ObjectStore;
use crate::peer::blocks::BlockAddress;
use crate::segment::SegmentId;
use crate::state::State;
use crate::state::partition::{Extent, Location, Partition};

/// How long a flight to a neighbour waits for more to ask for, at most.
const ASK_GATHER: Duration = Duration::from_millis(1);

/// So many bytes that are there or on their way are enough for one who reads on: four answers with
/// as much of a partition as clients take by default, each of which is some time on its way.
const AHEAD_BYTES_MIN: u64 = 4 * 1024 * 1024;

/// Where a block begins.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub(crate) struct BlockKey {
    pub(super) segment: SegmentId,
    pub(super) position: u64,
}

/// A block that somebody wants to read.
#[derive(Clone, Debug)]
pub(crate) struct Wanted {
    pub(super) key: BlockKey,
    /// Who stands in its header.
    pub(super) owner: TopicPartition,
    pub(super) stored_bytes: u32,
    /// Length of the segment.
    pub(super) segment_bytes: u64,
    /// The object, if the state holds it itself.
    inline: Option<Bytes>,
    pub(super) lane: Lane,
    /// Whether it may be packed, so that nobody knows how long it is before it is read.
    pub(super) may_be_packed: bool,
    /// Whether another broker wants it: no flight is opened to a third one for it. One that was
    /// opened before is joined, and takes as long as a question may.
    is_favour: bool,
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
            segment_bytes: state.segments().bytes_of(location.segment).unwrap_or(0),
            inline: state.segments().inline(location.segment).cloned(),
            lane: Lane::Tail,
            may_be_packed: !state.segments().is_as_written(location.segment),
            is_favour: false,
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

/// Several blocks of one segment, read together.
type Flight = Shared<BoxFuture<'static, Arc<BTreeMap<BlockKey, BlockRead>>>>;

/// Blocks of which some are there and others on their way.
#[must_use]
pub(super) struct Opened {
    loaded: BTreeMap<BlockKey, BlockRead>,
    boarded: Boarded,
}

/// Flights, and which of their blocks are wanted.
type Boarded = Vec<(Flight, Vec<BlockKey>)>;

/// Blocks on their way.
#[derive(Default)]
struct Flights {
    aloft: BTreeMap<BlockKey, Flight>,
    /// Flights that have not left yet, of which there is one for a segment.
    boarding: BTreeMap<SegmentId, (Flight, Vec<Wanted>)>,
}

/// What a flight carries.
enum Cargo {
    /// These blocks, which one range has.
    Range(Vec<Wanted>),
    /// What is asked for of this segment until it leaves.
    Gathered(SegmentId),
}

/// The blocks of the cluster, as this broker sees them. Cheap to clone.
#[derive(Clone)]
pub struct Blocks {
    inner: Arc<Inner>,
}

struct Inner {
    ranges: Arc<Ranges>,
    /// Who may be asked before the store is.
    neighbours: Option<Neighbours>,
    /// See [`ReaderConfig`].
    gather: Duration,
    /// What is read at the tail.
    cache: Cache<BlockKey, Bytes, ByBytes, Xxh3Builder>,
    /// What is read by those who catch up.
    queue: Queue,
    flights: Mutex<Flights>,
}

#[derive(Clone)]
struct ByBytes;

impl Weighter<BlockKey, Bytes> for ByBytes {
    fn weight(&self, _: &BlockKey, content: &Bytes) -> u64 {
        u64::try_from(content.len()).unwrap_or(u64::MAX).max(1)
    }
}

impl From<&Wanted> for BlockAddress {
    fn from(block: &Wanted) -> Self {
        Self {
            segment: block.key.segment,
            segment_bytes: block.segment_bytes,
            position: block.key.position,
            stored_bytes: block.stored_bytes,
            owner: block.owner,
        }
    }
}

impl From<BlockAddress> for Wanted {
    /// What another broker asks for.
    fn from(address: BlockAddress) -> Self {
        Self {
            key: BlockKey { segment: address.segment, position: address.position },
            owner: address.owner,
            stored_bytes: address.stored_bytes,
            segment_bytes: address.segment_bytes,
            inline: None,
            lane: Lane::Tail,
            may_be_packed: false,
            is_favour: true,
        }
    }
}

impl BlockKey {
    pub(super) fn of(segment: SegmentId, position: u64) -> Self {
        Self { segment, position }
    }
}

impl Wanted {
    /// The byte behind it.
    pub(super) fn end(&self) -> u64 {
        self.key.position.saturating_add(u64::from(self.stored_bytes))
    }
}

/// The blocks that are still to be had when these are there.
fn left<T>(wanted: &[Wanted], given: &BTreeMap<BlockKey, T>) -> Vec<Wanted> {
    wanted.iter().filter(|block| !given.contains_key(&block.key)).cloned().collect()
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
    /// The blocks in this store. Nobody else is asked for any.
    pub(crate) fn new(objects: Arc<dyn ObjectStore>, config: ReaderConfig) -> Self {
        Self::among(None, objects, config)
    }

    /// The same for a broker that has neighbours.
    pub(super) fn among(
        neighbours: Option<Neighbours>,
        objects: Arc<dyn ObjectStore>,
        config: ReaderConfig,
    ) -> Self {
        let others = config.catch_up_bytes_max() + config.spans_bytes_max();
        let cache_bytes = config.cache_bytes_max - others;
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
            cache,
            queue: Queue::new(config.catch_up_bytes_max()),
            flights: Mutex::default(),
            neighbours,
            gather: config.gather,
            ranges: Arc::new(Ranges::new(objects, config)),
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
        let boarded = if wanted.is_empty() { Vec::new() } else { self.board(&wanted) };
        Opened { loaded, boarded }
    }

    /// Begins to read what will be wanted soon, unless most of it, and enough of it, is there or on
    /// its way: many small reads cost more than few large ones.
    pub(super) fn read_ahead(&self, mut wanted: Vec<Wanted>) {
        if wanted.is_empty() {
            return;
        }
        let all = stored_bytes(&wanted);
        {
            let flights = self.inner.flights.lock().unwrap_or_else(PoisonError::into_inner);
            wanted.retain(|block| {
                block.inline.is_none()
                    && !flights.aloft.contains_key(&block.key)
                    && self.inner.in_memory(&block.key).is_none()
            });
        }
        let missing = stored_bytes(&wanted);
        if missing > 0 && (missing * 2 >= all || all - missing < AHEAD_BYTES_MIN) {
            wanted.sort_by_key(|block| block.key);
            wanted.dedup_by_key(|block| block.key);
            self.board(&wanted);
        }
    }

    /// Joins the flights that carry these blocks, and opens new ones for the rest.
    fn board(&self, wanted: &[Wanted]) -> Boarded {
        let mut boarded = Boarded::new();
        let mut join = |flight: Flight, block: &Wanted| match boarded.last_mut() {
            Some((last, keys)) if last.ptr_eq(&flight) => keys.push(block.key),
            _ => boarded.push((flight, vec![block.key])),
        };
        let mut rest = Vec::new();
        let mut flights = self.inner.flights.lock().unwrap_or_else(PoisonError::into_inner);
        let gathers = !self.inner.gather.is_zero();
        for block in wanted {
            match flights.aloft.get(&block.key) {
                Some(flight) => join(flight.clone(), block),
                None if gathers && matches!(block.lane, Lane::Tail) => {
                    join(self.gather(&mut flights, block), block);
                }
                None => rest.push(block.clone()),
            }
        }
        for group in self.inner.ranges.group(&rest) {
            let flight = self.fly(Cargo::Range(group.clone()));
            for block in &group {
                flights.aloft.insert(block.key, flight.clone());
                join(flight.clone(), block);
            }
        }
        drop(flights);
        boarded
    }

    /// Puts a block on the next flight of its segment.
    fn gather(&self, flights: &mut Flights, block: &Wanted) -> Flight {
        let segment = block.key.segment;
        let (flight, cargo) = flights
            .boarding
            .entry(segment)
            .or_insert_with(|| (self.fly(Cargo::Gathered(segment)), Vec::new()));
        cargo.push(block.clone());
        let flight = flight.clone();
        flights.aloft.insert(block.key, flight.clone());
        flight
    }

    fn fly(&self, cargo: Cargo) -> Flight {
        let inner = Arc::clone(&self.inner);
        let flight = async move {
            let (wanted, blocks) = match cargo {
                Cargo::Range(wanted) => {
                    let blocks = inner.read_range(&wanted).await;
                    (wanted, blocks)
                }
                Cargo::Gathered(segment) => inner.depart(segment).await,
            };
            let mut flights = inner.flights.lock().unwrap_or_else(PoisonError::into_inner);
            for block in &wanted {
                if let Some(Ok(content)) = blocks.get(&block.key) {
                    match block.lane {
                        Lane::Tail => inner.cache.insert(block.key, content.clone()),
                        Lane::CatchUp => inner.queue.insert(block.key, content.clone()),
                    }
                }
                flights.aloft.remove(&block.key);
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
        let Self { mut loaded, boarded } = self;
        let (flights, wanted): (Vec<_>, Vec<_>) = boarded.into_iter().unzip();
        for (blocks, keys) in join_all(flights).await.iter().zip(wanted) {
            let read = |key: BlockKey| Some((key, blocks.get(&key)?.clone()));
            loaded.extend(keys.into_iter().filter_map(read));
        }
        loaded
    }
}

impl Inner {
    fn in_memory(&self, key: &BlockKey) -> Option<Bytes> {
        self.cache.get(key).or_else(|| self.queue.get(key))
    }

    /// Waits until a flight leaves, and says what is on it when it is back.
    async fn depart(&self, segment: SegmentId) -> (Vec<Wanted>, BTreeMap<BlockKey, BlockRead>) {
        let neighbour = self.neighbours.as_ref().and_then(|all| Some((all, all.of(segment)?)));
        // A question costs no money.
        sleep(if neighbour.is_some() { self.gather.min(ASK_GATHER) } else { self.gather }).await;
        let wanted = self.cargo(segment);
        let mut blocks = self.ranges.on_disk(&wanted).await;
        let rest = left(&wanted, &blocks);
        if rest.is_empty() {
            return (wanted, blocks);
        }
        blocks.extend(match neighbour {
            Some((all, it)) if !rest.iter().any(|block| block.is_favour || block.may_be_packed) => {
                self.read_by(all, it, &rest).await
            }
            _ => self.ranges.read_all(&rest).await,
        });
        (wanted, blocks)
    }

    /// Reads blocks of one range, from disk as far as they are there.
    async fn read_range(&self, wanted: &[Wanted]) -> BTreeMap<BlockKey, BlockRead> {
        let mut blocks = self.ranges.on_disk(wanted).await;
        if blocks.is_empty() {
            return self.ranges.read(wanted).await;
        }
        blocks.extend(self.ranges.read_all(&left(wanted, &blocks)).await);
        blocks
    }

    /// Closes the door of the flight of a segment.
    fn cargo(&self, segment: SegmentId) -> Vec<Wanted> {
        let mut flights = self.flights.lock().unwrap_or_else(PoisonError::into_inner);
        let mut cargo = flights.boarding.remove(&segment).map_or_else(Vec::new, |it| it.1);
        cargo.sort_by_key(|block| block.key);
        cargo
    }

    /// Takes from a neighbour what it has, and reads the rest.
    async fn read_by(
        &self,
        neighbours: &Neighbours,
        neighbour: Neighbour,
        wanted: &[Wanted],
    ) -> BTreeMap<BlockKey, BlockRead> {
        let given = neighbours.ask(neighbour, wanted).await;
        let mut blocks = self.ranges.read_all(&left(wanted, &given)).await;
        blocks.extend(given.into_iter().map(|(key, content)| (key, Ok(content))));
        blocks
    }
}

impl fmt::Debug for Blocks {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Blocks").field("cached", &self.inner.cache.len()).finish_non_exhaustive()
    }
}
