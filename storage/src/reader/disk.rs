//! Blocks on the disk of this broker, for those that memory has no room for.
//!
//! An optional cache between memory and the store. A block is kept as it lies in its segment, with
//! its header and its checksum, and is opened as if it had come from there ([`open_one`]): what the
//! disk has changed, lost or mixed up is a miss and never a wrong record. Segments never change and
//! no name is used twice, so what lies here stays right over restarts.
//!
//! Nobody waits for a write: blocks wait in a queue of bounded length for a thread of their own
//! ([`shelver`]), and what does not fit into it is not kept. Nothing fails because of the disk
//! either: errors are counted, said once, and are misses. How blocks lie in files is in [`slab`],
//! which of them lie where in [`index`].

use std::collections::BTreeMap;
use std::fmt;
use std::fs::{self, File};
use std::io::{self, ErrorKind};
use std::os::unix::fs::FileExt;
use std::path::PathBuf;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::mpsc::{SyncSender, sync_channel};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::thread;
use std::time::Duration;

use bytes::Bytes;
use tokio::sync::Semaphore;
use tokio::time::{Instant, timeout};

use super::blocks::{BlockKey, BlockRead, Wanted};
use super::half_of_the_processors;
use super::lane::Lane;
use super::ranges::{open_one, stored_bytes};
use crate::counts::DiskCacheCounts;
use crate::disk::{Disk, LockError, RealDisk, lock_folder};
use crate::offload::off_the_workers;
use index::{Index, Place};
use shelver::Shelver;

mod index;
mod shelver;
mod slab;

/// Reads under way for those at the tail.
const TAIL_READS_MAX: usize = 32;

/// A disk that takes longer is no better than the store, nor is a longer wait for a turn.
const READ_MAX: Duration = Duration::from_secs(1);

/// For so long nothing is read from a disk that took longer.
const REST: Duration = Duration::from_secs(10);

/// Bytes of blocks that may wait to be written.
const QUEUE_BYTES_MAX: u64 = 32 * 1024 * 1024;

/// Groups of them.
const QUEUE_MAX: usize = 4096;

const CANT_READ: &str = "a block on disk can't be read; it is read from the store, and further \
                         ones are only counted";

const CANT_WRITE: &str = "the disk cache can't be written to; what fails from now on is only \
                          counted";

/// Where blocks are kept, and how many.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct DiskCacheConfig {
    /// The folder, which no other process may use.
    pub folder: PathBuf,
    /// Bytes that its files may have.
    pub bytes_max: u64,
}

/// Why there can be no cache in a folder.
#[derive(Debug, thiserror::Error)]
pub enum DiskCacheError {
    /// It is another's.
    #[error("disk cache {0} is in use by another process")]
    Locked(PathBuf),
    /// It can't be used.
    #[error("disk cache {path}: {cause}")]
    Io {
        /// What was touched.
        path: PathBuf,
        /// What came of it.
        cause: io::Error,
    },
}

impl From<LockError> for DiskCacheError {
    fn from(error: LockError) -> Self {
        match error {
            LockError::Held(folder) => Self::Locked(folder),
            LockError::Io { path, cause } => Self::Io { path, cause },
        }
    }
}

/// A cache on disk. Cheap to clone.
#[derive(Clone)]
pub struct DiskCache {
    inner: Arc<Inner>,
}

struct Inner {
    shelf: Arc<Shelf>,
    queue: SyncSender<Parcel>,
    tail: Arc<Semaphore>,
    catch_up: Arc<Semaphore>,
    rests_until: Mutex<Option<Instant>>,
}

/// Blocks to be kept.
struct Parcel {
    /// That of the blocks.
    length: u64,
    blocks: Vec<Stored>,
}

/// A block as it lies in its segment.
struct Stored {
    key: BlockKey,
    bytes: Bytes,
}

/// What those who read share with the thread that writes.
struct Shelf {
    folder: PathBuf,
    index: Mutex<Index>,
    counts: DiskCacheCounts,
    /// Bytes of blocks that wait to be written.
    queued: AtomicU64,
    /// Whether it was said that blocks can't be read.
    said_read: AtomicBool,
    /// Whether it was said that they can't be written.
    said_write: AtomicBool,
}

/// Why a block that should lie here can't be had.
#[derive(Debug, thiserror::Error)]
enum Loss {
    #[error(transparent)]
    Io(#[from] io::Error),
    #[error("{0}")]
    Damaged(String),
}

impl DiskCache {
    /// Opens the cache in a folder, which is made if it is missing. What lies in it from before
    /// comes to be known by and by.
    pub async fn open(config: DiskCacheConfig) -> Result<Self, DiskCacheError> {
        off_the_workers(|| Self::open_on(config, Arc::new(RealDisk))).await
    }

    fn open_on(config: DiskCacheConfig, disk: Arc<dyn Disk>) -> Result<Self, DiskCacheError> {
        let DiskCacheConfig { folder, bytes_max } = config;
        let failed = |cause| DiskCacheError::Io { path: folder.clone(), cause };
        fs::create_dir_all(&folder).map_err(failed)?;
        let lock = lock_folder(&folder)?;
        let found = slab::list(&folder).map_err(failed)?;
        let shelf = Arc::new(Shelf::new(folder.clone()));
        let (queue, queued) = sync_channel(QUEUE_MAX);
        let shelver = Shelver::new(Arc::clone(&shelf), disk, bytes_max);
        let work = move || {
            shelver.run(found, &queued);
            drop(lock);
        };
        thread::Builder::new().name("disk-cache".to_owned()).spawn(work).map_err(failed)?;
        let inner = Inner {
            shelf,
            queue,
            tail: Arc::new(Semaphore::new(TAIL_READS_MAX)),
            // Each unpacks what it has read, by a processor.
            catch_up: Arc::new(Semaphore::new(half_of_the_processors())),
            rests_until: Mutex::new(None),
        };
        Ok(Self { inner: Arc::new(inner) })
    }

    /// What it has done.
    pub fn counts(&self) -> &DiskCacheCounts {
        &self.inner.shelf.counts
    }

    /// What lies here of blocks of one lane, opened.
    pub(super) async fn read(&self, wanted: &[Wanted]) -> BTreeMap<BlockKey, BlockRead> {
        let Inner { shelf, tail, catch_up, .. } = &*self.inner;
        let found = if self.rests() { Vec::new() } else { shelf.find(wanted) };
        let blocks = match found.first().map(|(block, _)| block.lane) {
            None => BTreeMap::new(),
            Some(Lane::Tail) => self.read_in_turn(tail, found).await,
            Some(Lane::CatchUp) => self.read_in_turn(catch_up, found).await,
        };
        shelf.counts.hits.add_len(blocks.len());
        shelf.counts.misses.add_len(wanted.len() - blocks.len());
        blocks
    }

    async fn read_in_turn(
        &self,
        turns: &Arc<Semaphore>,
        found: Vec<(Wanted, Place)>,
    ) -> BTreeMap<BlockKey, BlockRead> {
        // Behind many others the store is as quick, and nobody's disk is slow.
        let Ok(Ok(turn)) = timeout(READ_MAX, Arc::clone(turns).acquire_owned()).await else {
            return BTreeMap::new();
        };
        let shelf = Arc::clone(&self.inner.shelf);
        // It lasts as long as the disk takes, also when nobody waits for that any longer.
        let read = move || {
            let blocks = shelf.read(&found);
            drop(turn);
            blocks
        };
        let Ok(blocks) = timeout(READ_MAX, off_the_workers(read)).await else {
            self.counts().slow.add(1);
            *self.rests_until() = Some(Instant::now() + REST);
            return BTreeMap::new();
        };
        blocks
    }

    fn rests(&self) -> bool {
        self.rests_until().is_some_and(|until| Instant::now() < until)
    }

    fn rests_until(&self) -> MutexGuard<'_, Option<Instant>> {
        self.inner.rests_until.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Has blocks kept, unless too much waits for that already. They lie in `bytes`, which begin at
    /// `start` in their segment and are held meanwhile, or are copied out of it if `is_sparse`.
    pub(super) fn put(&self, blocks: &[Wanted], start: u64, bytes: &Bytes, is_sparse: bool) {
        let Inner { shelf, queue, .. } = &*self.inner;
        let length = stored_bytes(blocks);
        let queued = shelf.queued.fetch_add(length, Ordering::Relaxed);
        let is_taken = queued + length <= QUEUE_BYTES_MAX && {
            let blocks = blocks.iter().filter_map(|block| cut(block, start, bytes, is_sparse));
            queue.try_send(Parcel { length, blocks: blocks.collect() }).is_ok()
        };
        if !is_taken {
            shelf.queued.fetch_sub(length, Ordering::Relaxed);
            shelf.counts.skipped.add_len(blocks.len());
        }
    }
}

impl fmt::Debug for DiskCache {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("DiskCache")
            .field("folder", &self.inner.shelf.folder)
            .finish_non_exhaustive()
    }
}

impl Shelf {
    fn new(folder: PathBuf) -> Self {
        Self {
            folder,
            index: Mutex::default(),
            counts: DiskCacheCounts::default(),
            queued: AtomicU64::new(0),
            said_read: AtomicBool::new(false),
            said_write: AtomicBool::new(false),
        }
    }

    fn index(&self) -> MutexGuard<'_, Index> {
        self.index.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn path(&self, slab: u64) -> PathBuf {
        self.folder.join(slab::name(slab))
    }

    /// Which of these blocks should lie where.
    fn find(&self, wanted: &[Wanted]) -> Vec<(Wanted, Place)> {
        let index = self.index();
        let found = |block: &Wanted| {
            let place = index.get(&block.key)?;
            (place.bytes == block.stored_bytes).then(|| (block.clone(), place))
        };
        wanted.iter().filter_map(found).collect()
    }

    /// Those of them that do.
    fn read(&self, found: &[(Wanted, Place)]) -> BTreeMap<BlockKey, BlockRead> {
        let mut open = None;
        let mut blocks = BTreeMap::new();
        for (block, place) in found {
            match self.read_one(&mut open, block, *place) {
                Ok(content) => {
                    self.counts.bytes_read.add(place.bytes.into());
                    blocks.insert(block.key, Ok(content));
                }
                Err(loss) => self.lose(block.key, *place, &loss),
            }
        }
        blocks
    }

    /// Reads a block; `open` is the slab that was read last.
    fn read_one(
        &self,
        open: &mut Option<(u64, File)>,
        block: &Wanted,
        place: Place,
    ) -> Result<Bytes, Loss> {
        let file = match open {
            Some((slab, file)) if *slab == place.slab => file,
            _ => &mut open.insert((place.slab, File::open(self.path(place.slab))?)).1,
        };
        let mut stored = vec![0; usize::try_from(place.bytes).unwrap_or(usize::MAX)];
        file.read_exact_at(&mut stored, place.at.into()).map_err(|error| match error.kind() {
            ErrorKind::UnexpectedEof => Loss::Damaged("its file ends before it".to_owned()),
            _ => Loss::Io(error),
        })?;
        open_one(block, block.key.position, &stored.into()).map_err(Loss::Damaged)
    }

    /// Forgets a block that is not to be had.
    fn lose(&self, key: BlockKey, place: Place, loss: &Loss) {
        if !self.index().forget(&key, place) {
            // Its slab was due to go, and went before it was read.
            return;
        }
        let count = match loss {
            Loss::Io(_) => &self.counts.read_errors,
            Loss::Damaged(_) => &self.counts.damaged,
        };
        count.add(1);
        if !self.said_read.swap(true, Ordering::Relaxed) {
            let folder = self.folder.display();
            let segment = key.segment;
            tracing::warn!(%folder, %segment, error = %loss, "{CANT_READ}");
        }
    }

    /// Notes that something can't be written.
    fn complain(&self, error: &io::Error) {
        self.counts.write_errors.add(1);
        if !self.said_write.swap(true, Ordering::Relaxed) {
            let folder = self.folder.display();
            tracing::warn!(%folder, %error, "{CANT_WRITE}");
        }
    }
}

/// Cuts a block out of the bytes that it lies in.
fn cut(block: &Wanted, start: u64, bytes: &Bytes, is_sparse: bool) -> Option<Stored> {
    let from = usize::try_from(block.key.position.checked_sub(start)?).ok()?;
    let to = from.checked_add(usize::try_from(block.stored_bytes).ok()?)?;
    let stored = (to <= bytes.len()).then(|| bytes.slice(from..to))?;
    let stored = if is_sparse { Bytes::copy_from_slice(&stored) } else { stored };
    Some(Stored { key: block.key, bytes: stored })
}

#[cfg(test)]
mod tests;
