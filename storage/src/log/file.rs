//! A log in files: the embedded log of a broker that is alone.
//!
//! Chunks of a fixed size hold records one after the other; a chunk is written full of zeros and synced
//! before it is used, so that a full disk shows when a chunk is made and not when an entry is
//! committed. An append is one positioned write and one sync.
//!
//! ```text
//! DIR/lock                          held while the log is open
//! DIR/floor                         the trim floor, raised before anything is deleted
//! DIR/00000000000000000001.log      chunk, named by its first entry
//!
//! record  | "ODRW" | 0 u32 | lsn u64 | length u32 | crc32c of the payload u32
//!         | crc32c of the 24 bytes before u32 | payload, padded with zeros to 8 bytes |
//! ```
//!
//! What stands behind the last good record decides whether the log opens:
//!
//! - zeros: nothing was written there.
//! - a good record with a later number behind a bad one: the bad one was acknowledged. The log is
//!   damaged and does not open.
//! - a bad record that reached the disk only in part: at least one whole 512-byte sector of it is
//!   zeros, or it ends with the file. Its append was never acknowledged, because the sync had not
//!   returned. It is cleared.
//! - any other bad record: all of it was written, and some of it has changed since. It may have been
//!   acknowledged, so the log does not open. Losing it silently would be worse than refusing.
//!
//! A write or a sync that fails leaves the log *broken* until it is opened again: after a failed sync
//! the page cache shows what the disk does not have.

use std::collections::BTreeMap;
use std::fmt;
use std::fs::{self, File, OpenOptions, TryLockError};
use std::io::{self, ErrorKind, Write};
use std::num::NonZeroUsize;
use std::os::unix::fs::FileExt;
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, PoisonError};

use async_trait::async_trait;
use bytes::Bytes;

use super::{Append, ENTRY_BYTES_MAX, LogRead, Lsn, MetadataLog, Slot};
use crate::port::PortError;

mod record;
mod recovery;

use record::{HEADER_BYTES, header, padded};

/// Size of a chunk, in bytes, unless told otherwise.
pub const CHUNK_BYTES: u64 = 16 * 1024 * 1024;

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

/// What the log asks of the disk, so that a test can make it fail.
pub trait Disk: fmt::Debug + Send + Sync {
    /// Writes all of `bytes` at `at`.
    fn write_all_at(&self, file: &File, bytes: &[u8], at: u64) -> io::Result<()>;
    /// Makes what was written durable.
    fn sync(&self, file: &File) -> io::Result<()>;
}

/// The disk there is.
#[derive(Debug)]
pub struct RealDisk;

impl Disk for RealDisk {
    fn write_all_at(&self, file: &File, bytes: &[u8], at: u64) -> io::Result<()> {
        file.write_all_at(bytes, at)
    }

    fn sync(&self, file: &File) -> io::Result<()> {
        file.sync_data()
    }
}

/// An open log. Clones share it.
#[derive(Clone, Debug)]
pub struct FileLog {
    inner: Arc<Mutex<Inner>>,
}

#[derive(Debug)]
struct Inner {
    folder: PathBuf,
    chunk_bytes: u64,
    disk: Box<dyn Disk>,
    /// Held, and let go when the log is dropped.
    _lock: File,
    chunks: BTreeMap<Lsn, Chunk>,
    index: BTreeMap<Lsn, Place>,
    floor: Lsn,
    tail: Lsn,
    /// Where the next record goes in the last chunk.
    end: u64,
    broken: Option<String>,
}

#[derive(Debug)]
struct Chunk {
    file: File,
    path: PathBuf,
    bytes: u64,
}

/// Where the payload of an entry is.
#[derive(Clone, Copy, Debug)]
struct Place {
    chunk: Lsn,
    at: u64,
    length: u32,
    crc: u32,
}

impl FileLog {
    /// Opens the log in `folder`, making it if there is none.
    pub fn open(folder: &Path) -> Result<Self, OpenError> {
        Self::open_with(folder, CHUNK_BYTES, Box::new(RealDisk))
    }

    /// Opens the log with chunks of another size, or another disk.
    pub fn open_with(
        folder: &Path,
        chunk_bytes: u64,
        disk: Box<dyn Disk>,
    ) -> Result<Self, OpenError> {
        let inner = Inner::open(folder, chunk_bytes, disk)?;
        Ok(Self { inner: Arc::new(Mutex::new(inner)) })
    }

    async fn blocking<T: Send + 'static>(
        &self,
        work: impl FnOnce(&mut Inner) -> Result<T, PortError> + Send + 'static,
    ) -> Result<T, PortError> {
        let inner = Arc::clone(&self.inner);
        let work = move || work(&mut inner.lock().unwrap_or_else(PoisonError::into_inner));
        tokio::task::spawn_blocking(work).await.map_err(PortError::broken)?
    }
}

impl Inner {
    fn append(&mut self, at: Lsn, bytes: &Bytes) -> Result<Append, PortError> {
        self.check()?;
        if bytes.len() > ENTRY_BYTES_MAX {
            return Err(PortError::determinate(format!("entry of {} bytes", bytes.len())));
        }
        if at < self.floor {
            return Ok(Append::Trimmed);
        }
        if at < self.tail {
            return self.payload(at).map(Append::Taken);
        }
        if at > self.tail {
            return Err(PortError::determinate(format!(
                "{at} would leave a hole at {}",
                self.tail
            )));
        }
        let length = u32::try_from(bytes.len()).map_err(PortError::determinate)?;
        let record_bytes = padded(HEADER_BYTES + u64::from(length));
        self.make_room(at, record_bytes).map_err(PortError::determinate)?;
        let crc = crc32c::crc32c(bytes);
        let mut record = Vec::with_capacity(usize::try_from(record_bytes).unwrap_or(0));
        record.extend_from_slice(&header(at, length, crc));
        record.extend_from_slice(bytes);
        record.resize(usize::try_from(record_bytes).unwrap_or(0), 0);
        let (name, chunk) =
            self.chunks.last_key_value().ok_or_else(|| PortError::broken("no chunk"))?;
        let place = Place { chunk: *name, at: self.end + HEADER_BYTES, length, crc };
        let written = self.disk.write_all_at(&chunk.file, &record, self.end);
        if let Err(error) = written.and_then(|()| self.disk.sync(&chunk.file)) {
            let cause =
                format!("{}: {error}; restart to find out what is on disk", chunk.path.display());
            self.broken = Some(cause.clone());
            return Err(PortError::broken(cause));
        }
        self.index.insert(at, place);
        self.tail = at.next();
        self.end += record_bytes;
        Ok(Append::Committed)
    }

    fn check(&self) -> Result<(), PortError> {
        match &self.broken {
            Some(cause) => Err(PortError::broken(cause.clone())),
            None => Ok(()),
        }
    }

    /// Makes sure that the last chunk has room, or begins another.
    fn make_room(&mut self, at: Lsn, record_bytes: u64) -> io::Result<()> {
        let room = self.chunks.last_key_value().map_or(0, |(_, chunk)| chunk.bytes - self.end);
        if room >= record_bytes {
            return Ok(());
        }
        let bytes = self.chunk_bytes.max(record_bytes);
        let path = self.folder.join(format!("{:020}.log", at.get()));
        match create_zeroed(&path, bytes) {
            Ok(file) => {
                sync_folder(&self.folder)?;
                self.chunks.insert(at, Chunk { file, path, bytes });
                self.end = 0;
                Ok(())
            }
            Err(error) => {
                // It holds nothing; should it stay, it is an empty chunk.
                drop(fs::remove_file(&path));
                Err(error)
            }
        }
    }

    fn payload(&self, lsn: Lsn) -> Result<Bytes, PortError> {
        let found =
            self.index.get(&lsn).and_then(|place| Some((place, self.chunks.get(&place.chunk)?)));
        let (place, chunk) =
            found.ok_or_else(|| PortError::broken(format!("entry {lsn} is not in the index")))?;
        let mut bytes = vec![0; usize::try_from(place.length).unwrap_or(0)];
        chunk.file.read_exact_at(&mut bytes, place.at).map_err(PortError::indeterminate)?;
        if crc32c::crc32c(&bytes) != place.crc {
            let what = format!("entry {lsn} at byte {} of {}", place.at, chunk.path.display());
            return Err(PortError::broken(format!("{what} has changed since it was written")));
        }
        Ok(bytes.into())
    }

    fn read(&self, from: Lsn, limit: NonZeroUsize) -> Result<LogRead, PortError> {
        self.check()?;
        if from < self.floor {
            return Ok(LogRead::Trimmed(self.floor));
        }
        let lsns = self.index.range(from..).take(limit.get()).map(|(lsn, _)| *lsn);
        let slots = lsns.map(|lsn| self.payload(lsn).map(|bytes| Slot { lsn, bytes }));
        slots.collect::<Result<_, _>>().map(LogRead::Entries)
    }

    fn trim(&mut self, before: Lsn) -> Result<(), PortError> {
        self.check()?;
        if before > self.tail {
            return Err(PortError::determinate(format!("{before} is past the tail {}", self.tail)));
        }
        if before <= self.floor {
            return Ok(());
        }
        recovery::write_floor(&self.folder, before).map_err(PortError::indeterminate)?;
        self.floor = before;
        self.index = self.index.split_off(&before);
        // A chunk goes if the next one begins at or below the floor. The last one stays.
        let names: Vec<Lsn> = self.chunks.keys().copied().collect();
        let gone = names.windows(2).filter(|pair| pair[1] <= before).map(|pair| pair[0]);
        for name in gone {
            if let Some(chunk) = self.chunks.remove(&name) {
                fs::remove_file(&chunk.path).map_err(PortError::indeterminate)?;
            }
        }
        sync_folder(&self.folder).map_err(PortError::indeterminate)
    }
}

/// A file of zeros that are really there: blocks allocated, and synced.
fn create_zeroed(path: &Path, bytes: u64) -> io::Result<File> {
    static PIECE: [u8; 64 * 1024] = [0; 64 * 1024];
    let mut file = OpenOptions::new().read(true).write(true).create_new(true).open(path)?;
    let mut left = bytes;
    while left > 0 {
        let piece = usize::try_from(left).unwrap_or(usize::MAX).min(PIECE.len());
        file.write_all(&PIECE[..piece])?;
        left -= u64::try_from(piece).unwrap_or(left);
    }
    file.sync_all()?;
    Ok(file)
}

fn sync_folder(folder: &Path) -> io::Result<()> {
    File::open(folder)?.sync_all()
}

fn lock(folder: &Path) -> Result<File, OpenError> {
    let path = folder.join("lock");
    let io_error = |cause| OpenError::Io { path: path.clone(), cause };
    let file = OpenOptions::new().write(true).create(true).truncate(false).open(&path);
    let file = file.map_err(io_error)?;
    match file.try_lock() {
        Ok(()) => Ok(file),
        Err(TryLockError::WouldBlock) => Err(OpenError::Locked(folder.to_owned())),
        Err(TryLockError::Error(cause)) => Err(io_error(cause)),
    }
}

fn is_missing(error: &io::Error) -> bool {
    error.kind() == ErrorKind::NotFound
}

#[async_trait]
impl MetadataLog for FileLog {
    async fn append(&self, at: Lsn, bytes: Bytes) -> Result<Append, PortError> {
        self.blocking(move |log| log.append(at, &bytes)).await
    }

    async fn read(&self, from: Lsn, limit: NonZeroUsize) -> Result<LogRead, PortError> {
        self.blocking(move |log| log.read(from, limit)).await
    }

    async fn tail(&self) -> Result<Lsn, PortError> {
        self.blocking(|log| log.check().map(|()| log.tail)).await
    }

    async fn trim(&self, before: Lsn) -> Result<(), PortError> {
        self.blocking(move |log| log.trim(before)).await
    }
}

#[cfg(test)]
mod tests;
