//! A log in files: the embedded log of a broker that is alone.
//!
//! Chunks of a fixed size hold records one after the other. A chunk is written full of zeros and
//! synced before it is used, so that a full disk shows when a chunk is made and not when an entry
//! is committed. An append is one positioned write and one sync; nobody sees the entry before.
//!
//! ```text
//! DIR/lock                          held while the log is open
//! DIR/floor                         the trim floor, raised before anything is deleted
//! DIR/00000000000000000001.log      chunk, named by its first entry
//!
//! record  | "ODRW" | version u16 | kind u16 | lsn u64 | length u32 | crc32c of the body u32
//!         | crc32c of the 24 bytes before u32 | body: the entry, padded to 8 bytes, masked |
//! ```
//!
//! The last record of a full chunk is a seal, which says that there is another chunk.
//!
//! What stands behind the last good record decides whether the log opens:
//!
//! - zeros: nothing was written there.
//! - a bad record with a good one of a later number behind it: the bad one was acknowledged,
//!   because appends wait for each other. The log is damaged and does not open.
//! - a bad record that reached the disk only in part: a sector of it (512 bytes, or the part of the
//!   record in it) is all zeros, or the file ends before it does. Its append was never
//!   acknowledged, because the sync had not returned. It is cleared, and its slot is free.
//! - any other bad record: all of it was written, and some of it has changed since. It may have
//!   been acknowledged, so the log does not open. Losing it silently would be worse than refusing.
//!
//! The body is masked so that the third rule can't mistake an entry full of zeros for a torn one.
//!
//! A gap, a missing chunk or a wrong checksum of the floor keep the log closed as well.
//!
//! A write or a sync that fails leaves the log *broken* until it is opened again: after a failed
//! sync the page cache shows what the disk does not have, and asking again would be answered with
//! success. Opening writes the last record once more, for the same reason, and syncs the folder
//! before it believes a name. Only what fails before anything of the log was touched (a chunk that
//! could not be allocated, a floor that could not be prepared) is refused and nothing else.
//!
//! A file system that does not overwrite in place (btrfs, ZFS) can be full in spite of an allocated
//! chunk; the log is broken then.

use std::collections::BTreeMap;
use std::fmt;
use std::fs;
use std::io;
use std::num::NonZeroUsize;
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use async_trait::async_trait;
use bytes::Bytes;

use super::{Append, ENTRY_BYTES_MAX, Freshness, LogRead, Lsn, MetadataLog, Slot};
use crate::disk::{Disk, RealDisk};
use crate::port::PortError;

mod chunk;
mod floor;
mod record;
mod recovery;
mod view;

use chunk::{Chunk, offset};
use record::{Header, Kind};
pub use view::FileLogView;

/// Size of a chunk, in bytes, unless told otherwise.
pub const CHUNK_BYTES: u64 = 16 * 1024 * 1024;

/// Most bytes of entries in the answer to one read, unless the first entry alone is longer.
const READ_BYTES_MAX: usize = 4 * 1024 * 1024;

/// Why a log does not open.
#[derive(Debug, thiserror::Error)]
pub enum OpenError {
    /// The files can't be had.
    #[error("{path}: {cause}")]
    Io {
        /// Which.
        path: PathBuf,
        /// Why.
        cause: io::Error,
    },
    /// Another process has it.
    #[error("{0} is in use by another process")]
    Locked(PathBuf),
    /// Bytes at rest have changed, or files are missing.
    #[error(
        "{path} is damaged at byte {at}: {what}; it is not opened, so that nothing more is lost"
    )]
    Damaged {
        /// Which file.
        path: PathBuf,
        /// Where in it.
        at: u64,
        /// How it shows.
        what: String,
    },
}

/// An open log. Clones share it; the last one to go unlocks the folder.
#[derive(Clone)]
pub struct FileLog {
    inner: Arc<Inner>,
}

#[derive(Debug)]
struct Inner {
    folder: PathBuf,
    chunk_bytes: u64,
    disk: Box<dyn Disk>,
    /// Held, and let go when the log is dropped.
    _lock: fs::File,
    /// Held through an append or a trim. Poisoned, it stands for a write that nobody finished.
    turn: Mutex<()>,
    /// Held for moments, so that readers need not wait for the disk of a writer.
    state: Mutex<State>,
}

#[derive(Debug)]
struct State {
    chunks: BTreeMap<Lsn, Arc<Chunk>>,
    index: BTreeMap<Lsn, Place>,
    floor: Lsn,
    tail: Lsn,
    /// Where the next record goes in the last chunk.
    end: u64,
    broken: Option<String>,
}

/// Where the record of an entry is.
#[derive(Clone, Copy, Debug)]
struct Place {
    chunk: Lsn,
    at: u64,
    header: Header,
}

impl FileLog {
    /// Opens the log in `folder`, making it if there is none. Reads every byte of it.
    pub fn open(folder: &Path) -> Result<Self, OpenError> {
        Self::open_with(folder, CHUNK_BYTES, Box::new(RealDisk))
    }

    /// Opens the log with chunks of another size from now on. A chunk is never too small for the
    /// first entry in it.
    pub fn open_with_chunks(folder: &Path, chunk_bytes: u64) -> Result<Self, OpenError> {
        Self::open_with(folder, chunk_bytes, Box::new(RealDisk))
    }

    pub(crate) fn open_with(
        folder: &Path,
        chunk_bytes: u64,
        disk: Box<dyn Disk>,
    ) -> Result<Self, OpenError> {
        Ok(Self { inner: Arc::new(Inner::open(folder, chunk_bytes, disk)?) })
    }

    async fn blocking<T: Send + 'static>(
        &self,
        work: impl FnOnce(&Inner) -> Result<T, PortError> + Send + 'static,
    ) -> Result<T, PortError> {
        let inner = Arc::clone(&self.inner);
        tokio::task::spawn_blocking(move || work(&inner)).await.map_err(PortError::indeterminate)?
    }
}

impl Inner {
    fn state(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn turn(&self) -> Result<MutexGuard<'_, ()>, PortError> {
        let cause = "an earlier call did not come to its end; restart to find out what is on disk";
        self.turn.lock().map_err(|_| PortError::broken(cause))
    }

    /// Fences the log: from now on every call gives this answer.
    fn fence(&self, path: &Path, error: &io::Error) -> PortError {
        let cause = format!("{}: {error}; restart to find out what is on disk", path.display());
        self.state().broken = Some(cause.clone());
        PortError::broken(cause)
    }

    fn append(&self, at: Lsn, entry: &Bytes) -> Result<Append, PortError> {
        let _turn = self.turn()?;
        let (tail, floor) = self.state().check().map(|state| (state.tail, state.floor))?;
        if entry.len() > ENTRY_BYTES_MAX {
            let cause = format!("entry of {} bytes, above {ENTRY_BYTES_MAX}", entry.len());
            return Err(PortError::determinate(cause));
        }
        if at < floor {
            return Ok(Append::Trimmed);
        }
        if at < tail {
            return self.entry(at).map(Append::Taken);
        }
        if at > tail {
            return Err(PortError::determinate(format!("{at} would leave a hole at {tail}")));
        }
        self.make_room(at, entry.len())?;
        let record = record::encode(Kind::Entry, at, entry);
        let header = record::parse(&record).expect("a record begins with its header");
        let (name, chunk, end) = self.last_chunk();
        self.write(&chunk, &record, end)?;
        let mut state = self.state();
        state.index.insert(at, Place { chunk: name, at: end, header });
        state.tail = at.next();
        state.end = end + offset(record.len());
        Ok(Append::Committed)
    }

    fn last_chunk(&self) -> (Lsn, Arc<Chunk>, u64) {
        let state = self.state();
        let (name, chunk) = state.chunks.last_key_value().expect("a log has a chunk");
        (*name, Arc::clone(chunk), state.end)
    }

    fn write(&self, chunk: &Chunk, record: &[u8], at: u64) -> Result<(), PortError> {
        let written = self.disk.write(&chunk.file, record, at).inspect_err(|_| {
            // A piece of a record could look like damage, and nobody was told that it is there. If
            // this fails too, opening the log judges what it finds.
            drop(self.disk.write(&chunk.file, &vec![0; record.len()], at));
        });
        let synced = written.and_then(|()| self.disk.sync(&chunk.file));
        synced.map_err(|error| self.fence(&chunk.path, &error))
    }

    /// Makes sure that the last chunk has room for an entry and for a seal behind it, or begins
    /// another.
    fn make_room(&self, at: Lsn, length: usize) -> Result<(), PortError> {
        let (name, chunk, end) = self.last_chunk();
        let room = chunk.bytes.saturating_sub(end);
        let needed = chunk::bytes_min(length);
        if room >= needed {
            return Ok(());
        }
        let made = Chunk::create(&*self.disk, &self.folder, at, self.chunk_bytes.max(needed));
        let next = made
            .map_err(|error| self.fence(&self.folder, &error))?
            .map_err(PortError::determinate)?;
        // A chunk without an entry is too small for this one, and has just been replaced. One that
        // was cut off may have no room for its seal.
        let seal = record::encode(Kind::Seal, at, &[]);
        if name != at && room >= offset(seal.len()) {
            self.write(&chunk, &seal, end)?;
        }
        let mut state = self.state();
        state.chunks.insert(at, Arc::new(next));
        state.end = 0;
        Ok(())
    }

    fn entry(&self, lsn: Lsn) -> Result<Bytes, PortError> {
        let found = self.state().find(lsn);
        let (place, chunk) =
            found.ok_or_else(|| PortError::broken(format!("entry {lsn} is not in the index")))?;
        read_entry(&place, &chunk)
    }

    fn read(&self, from: Lsn, limit: NonZeroUsize) -> Result<LogRead, PortError> {
        let places = {
            let state = self.state();
            state.check()?;
            if from < state.floor {
                return Ok(LogRead::Trimmed(state.floor));
            }
            state.places(from, limit)
        };
        let slot = |(place, chunk): &(Place, Arc<Chunk>)| {
            read_entry(place, chunk).map(|bytes| Slot { lsn: place.header.lsn, bytes })
        };
        let slots: Vec<Slot> = places.iter().map(slot).collect::<Result<_, _>>()?;
        let at_tail = slots.len() < limit.get();
        Ok(LogRead::Entries { slots, at_tail })
    }

    fn trim(&self, before: Lsn) -> Result<(), PortError> {
        let _turn = self.turn()?;
        let (tail, floor) = self.state().check().map(|state| (state.tail, state.floor))?;
        if before > tail {
            return Err(PortError::determinate(format!("{before} is past the tail {tail}")));
        }
        if before > floor {
            floor::write(&*self.disk, &self.folder, before)
                .map_err(|error| self.fence(&self.folder, &error))?
                .map_err(PortError::determinate)?;
        }
        let gone = self.state().raise_floor(before.max(floor));
        for chunk in &gone {
            // What stays is removed when the log is opened.
            fs::remove_file(&chunk.path).map_err(PortError::indeterminate)?;
        }
        Ok(())
    }
}

impl State {
    fn check(&self) -> Result<&Self, PortError> {
        match &self.broken {
            Some(cause) => Err(PortError::broken(cause.clone())),
            None => Ok(self),
        }
    }

    fn find(&self, lsn: Lsn) -> Option<(Place, Arc<Chunk>)> {
        let place = self.index.get(&lsn)?;
        Some((*place, Arc::clone(self.chunks.get(&place.chunk)?)))
    }

    fn places(&self, from: Lsn, limit: NonZeroUsize) -> Vec<(Place, Arc<Chunk>)> {
        let mut bytes = 0;
        let fits = |lsn: &Lsn| {
            let length = self.index.get(lsn).map_or(0, |place| place.header.record_bytes());
            bytes += length;
            bytes <= READ_BYTES_MAX.max(length)
        };
        let lsns = self.index.range(from..).map(|(lsn, _)| *lsn);
        lsns.take(limit.get()).take_while(fits).map_while(|lsn| self.find(lsn)).collect()
    }

    /// Forgets what is below the floor, and gives the chunks that hold nothing else. The last one
    /// stays: it says where the log goes on.
    fn raise_floor(&mut self, floor: Lsn) -> Vec<Arc<Chunk>> {
        self.floor = floor;
        self.index = self.index.split_off(&floor);
        let first = self.chunks.range(..=floor).next_back().map_or(floor, |(name, _)| *name);
        let live = self.chunks.split_off(&first);
        std::mem::replace(&mut self.chunks, live).into_values().collect()
    }
}

fn read_entry(place: &Place, chunk: &Chunk) -> Result<Bytes, PortError> {
    let found = chunk.entry(place.at, &place.header).map_err(PortError::indeterminate)?;
    let entry = found.ok_or_else(|| {
        let (lsn, at, path) = (place.header.lsn, place.at, chunk.path.display());
        PortError::broken(format!("entry {lsn} at byte {at} of {path} has changed on disk"))
    })?;
    Ok(entry.into())
}

impl fmt::Debug for FileLog {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("FileLog").field("folder", &self.inner.folder).finish_non_exhaustive()
    }
}

#[async_trait]
impl MetadataLog for FileLog {
    async fn append(&self, at: Lsn, bytes: Bytes) -> Result<Append, PortError> {
        self.blocking(move |log| log.append(at, &bytes)).await
    }

    async fn read(
        &self,
        from: Lsn,
        limit: NonZeroUsize,
        _: Freshness,
    ) -> Result<LogRead, PortError> {
        self.blocking(move |log| log.read(from, limit)).await
    }

    async fn tail(&self) -> Result<Lsn, PortError> {
        self.inner.state().check().map(|state| state.tail)
    }

    async fn trim(&self, before: Lsn) -> Result<(), PortError> {
        self.blocking(move |log| log.trim(before)).await
    }
}

#[cfg(test)]
mod tests;
