//! A log in files, looked at while its broker may be running.
//!
//! Opening the log for good locks it, mends it and writes to it. A view does none of that: it reads
//! the chunks as they are, each time anew where something may have been added. It is for looking
//! only: what it shows last may not be on the disk yet (LOG-3 does not hold), and an append that is
//! being written looks torn and is not shown.

use std::fmt;
use std::fs;
use std::io::{self, ErrorKind};
use std::num::NonZeroUsize;
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use async_trait::async_trait;
use bytes::Bytes;

use super::record::HEADER_BYTES;
use super::recovery::{Scanned, scan};
use super::{
    Append, Freshness, LogRead, Lsn, MetadataLog, OpenError, READ_BYTES_MAX, Slot, chunk, floor,
};
use crate::port::PortError;

/// How often a chunk is read before what is wrong with it counts: the broker may have been in the
/// middle of a write.
const LOOKS_MAX: u32 = 3;

/// Time between two such looks.
const LOOK_INTERVAL: Duration = Duration::from_millis(50);

/// A log that can only be read. Clones share it.
#[derive(Clone)]
pub struct FileLogView {
    inner: Arc<View>,
}

struct View {
    folder: PathBuf,
    /// The chunk that was read last.
    last: Mutex<Option<Arc<Seen>>>,
}

/// A chunk as it was when it was read.
struct Seen {
    name: Lsn,
    contents: Vec<u8>,
    found: Scanned,
    /// The slot after its last entry.
    end: Lsn,
}

impl FileLogView {
    /// Looks at the log in `folder`, which has to be there.
    pub fn open(folder: &Path) -> Result<Self, OpenError> {
        let io_error = |cause| OpenError::Io { path: folder.to_owned(), cause };
        let names = chunk::names(folder).map_err(io_error)?;
        if names.is_empty() {
            return Err(io_error(io::Error::new(ErrorKind::NotFound, "there is no log in it")));
        }
        let folder = folder.to_owned();
        Ok(Self { inner: Arc::new(View { folder, last: Mutex::default() }) })
    }

    async fn blocking<T: Send + 'static>(
        &self,
        work: impl FnOnce(&View) -> Result<T, OpenError> + Send + 'static,
    ) -> Result<T, PortError> {
        let inner = Arc::clone(&self.inner);
        let done = tokio::task::spawn_blocking(move || work(&inner)).await;
        done.map_err(PortError::indeterminate)?.map_err(refusal)
    }
}

impl View {
    fn floor(&self) -> Result<Lsn, OpenError> {
        Ok(floor::read(&self.folder)?.unwrap_or(Lsn::FIRST))
    }

    fn names(&self) -> Result<Vec<Lsn>, OpenError> {
        chunk::names(&self.folder)
            .map_err(|cause| OpenError::Io { path: self.folder.clone(), cause })
    }

    fn read(&self, from: Lsn, limit: NonZeroUsize) -> Result<LogRead, OpenError> {
        let known = self.last.lock().unwrap_or_else(PoisonError::into_inner).clone();
        if let Some(seen) = known.filter(|seen| (seen.name..seen.end).contains(&from)) {
            // Not the tail, whatever it was: there may be more by now.
            return Ok(LogRead::Entries { slots: seen.slots(from, limit), at_tail: false });
        }
        loop {
            let floor = self.floor()?;
            if from < floor {
                return Ok(LogRead::Trimmed(floor));
            }
            let names = self.names()?;
            let at = names.partition_point(|name| *name <= from);
            let Some(name) = at.checked_sub(1).and_then(|at| names.get(at)) else {
                // Trimmed between the two looks, or missing.
                if self.floor()? > floor {
                    continue;
                }
                return Err(self.missing(from));
            };
            let Some(seen) = self.chunk(*name)? else { continue };
            if from >= seen.end && (seen.found.sealed || at < names.len()) {
                return Err(self.missing(from));
            }
            let slots = seen.slots(from, limit);
            let at_tail = slots.last().map_or(from, |slot| slot.lsn.next()) >= seen.end;
            let at_tail = at_tail && !seen.found.sealed && at == names.len();
            *self.last.lock().unwrap_or_else(PoisonError::into_inner) = Some(seen);
            return Ok(LogRead::Entries { slots, at_tail });
        }
    }

    fn tail(&self) -> Result<Lsn, OpenError> {
        loop {
            let Some(name) = self.names()?.last().copied() else {
                return Err(self.missing(self.floor()?));
            };
            if let Some(seen) = self.chunk(name)? {
                return Ok(seen.end);
            }
        }
    }

    /// Reads a chunk; `None` if it was trimmed meanwhile.
    fn chunk(&self, name: Lsn) -> Result<Option<Arc<Seen>>, OpenError> {
        let path = chunk::path(&self.folder, name);
        let mut looks = 0;
        loop {
            let contents = match fs::read(&path) {
                Ok(contents) => contents,
                Err(error) if error.kind() == ErrorKind::NotFound => return Ok(None),
                Err(cause) => return Err(OpenError::Io { path, cause }),
            };
            match scan(name, &contents) {
                Ok(found) => {
                    let end = found.entries.last().map_or(name, |(header, _)| header.lsn.next());
                    return Ok(Some(Arc::new(Seen { name, contents, found, end })));
                }
                Err((at, what)) => {
                    looks += 1;
                    if looks == LOOKS_MAX {
                        let at = chunk::offset(at);
                        return Err(OpenError::Damaged { path, at, what });
                    }
                    std::thread::sleep(LOOK_INTERVAL);
                }
            }
        }
    }

    fn missing(&self, lsn: Lsn) -> OpenError {
        let what = format!("the chunk with entry {lsn} is missing");
        OpenError::Damaged { path: self.folder.clone(), at: 0, what }
    }
}

impl Seen {
    fn slots(&self, from: Lsn, limit: NonZeroUsize) -> Vec<Slot> {
        let first = self.found.entries.partition_point(|(header, _)| header.lsn < from);
        let mut slots: Vec<Slot> = Vec::new();
        let mut bytes = 0;
        for (header, at) in self.found.entries.iter().skip(first).take(limit.get()) {
            bytes += header.record_bytes();
            if bytes > READ_BYTES_MAX && !slots.is_empty() {
                break;
            }
            let body = &self.contents[at + HEADER_BYTES..at + header.record_bytes()];
            // The scan has checked it.
            let Some(entry) = header.open(body.to_vec()) else { break };
            slots.push(Slot { lsn: header.lsn, bytes: entry.into() });
        }
        slots
    }
}

impl fmt::Debug for FileLogView {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("FileLogView").field("folder", &self.inner.folder).finish_non_exhaustive()
    }
}

/// Looking again helps against a disk that can't be read, not against what is damaged on it.
fn refusal(error: OpenError) -> PortError {
    match error {
        OpenError::Damaged { .. } => PortError::broken(error),
        OpenError::Io { .. } | OpenError::Locked(_) => PortError::determinate(error),
    }
}

fn refused<T>() -> Result<T, PortError> {
    Err(PortError::determinate("the log was opened to be looked at"))
}

#[async_trait]
impl MetadataLog for FileLogView {
    async fn append(&self, _: Lsn, _: Bytes) -> Result<Append, PortError> {
        refused()
    }

    async fn read(
        &self,
        from: Lsn,
        limit: NonZeroUsize,
        _: Freshness,
    ) -> Result<LogRead, PortError> {
        self.blocking(move |view| view.read(from, limit)).await
    }

    async fn tail(&self) -> Result<Lsn, PortError> {
        self.blocking(View::tail).await
    }

    async fn trim(&self, _: Lsn) -> Result<(), PortError> {
        refused()
    }
}

#[cfg(test)]
mod tests {
    use super::super::FileLog;
    use super::super::record::{self, Kind};
    use super::*;

    const LIMIT: NonZeroUsize = NonZeroUsize::new(3).unwrap();

    fn entry(lsn: u64) -> Bytes {
        Bytes::from(format!("entry {lsn} {}", "x".repeat(100)))
    }

    async fn append(log: &FileLog, lsns: std::ops::RangeInclusive<u64>) {
        for lsn in lsns {
            assert_eq!(log.append(Lsn::new(lsn), entry(lsn)).await.unwrap(), Append::Committed);
        }
    }

    /// Everything from `from` on, read as a follower reads.
    async fn follow(view: &FileLogView, from: u64) -> Vec<(u64, Bytes)> {
        let mut found = Vec::new();
        let mut next = Lsn::new(from);
        loop {
            let read = view.read(next, LIMIT, Freshness::Latest).await.unwrap();
            let LogRead::Entries { slots, at_tail } = read else { panic!("{next} is trimmed") };
            assert!(at_tail || !slots.is_empty(), "nothing, and not at the tail");
            for slot in slots {
                assert_eq!(slot.lsn, next);
                next = next.next();
                found.push((slot.lsn.get(), slot.bytes));
            }
            if at_tail {
                return found;
            }
        }
    }

    fn entries(lsns: std::ops::RangeInclusive<u64>) -> Vec<(u64, Bytes)> {
        lsns.map(|lsn| (lsn, entry(lsn))).collect()
    }

    fn files(folder: &Path) -> Vec<(PathBuf, Vec<u8>)> {
        let mut paths: Vec<_> =
            fs::read_dir(folder).unwrap().map(|item| item.unwrap().path()).collect();
        paths.sort();
        paths.into_iter().map(|path| (path.clone(), fs::read(&path).unwrap())).collect()
    }

    #[tokio::test]
    async fn a_view_follows_a_log_that_is_written_to_over_many_chunks() {
        let folder = tempfile::tempdir().unwrap();
        let log = FileLog::open_with_chunks(folder.path(), 1024).unwrap();
        append(&log, 1..=40).await;
        let view = FileLogView::open(folder.path()).unwrap();
        assert_eq!(follow(&view, 1).await, entries(1..=40));
        assert_eq!(view.tail().await.unwrap(), Lsn::new(41));
        append(&log, 41..=50).await;
        assert_eq!(follow(&view, 30).await, entries(30..=50));
        assert_eq!(follow(&view, 51).await, []);
        log.trim(Lsn::new(20)).await.unwrap();
        let read = view.read(Lsn::new(7), LIMIT, Freshness::Latest).await.unwrap();
        assert_eq!(read, LogRead::Trimmed(Lsn::new(20)));
        assert_eq!(follow(&view, 20).await, entries(20..=50));
    }

    #[tokio::test]
    async fn a_view_changes_nothing_and_shows_no_append_that_was_cut_off() {
        let folder = tempfile::tempdir().unwrap();
        let log = FileLog::open_with_chunks(folder.path(), 4096).unwrap();
        append(&log, 1..=3).await;
        drop(log);
        let chunk = chunk::path(folder.path(), Lsn::FIRST);
        let mut contents = fs::read(&chunk).unwrap();
        let end = contents.iter().rposition(|byte| *byte != 0).unwrap().next_multiple_of(8);
        let torn = record::encode(Kind::Entry, Lsn::new(4), &[7; 1500]);
        contents[end..end + 200].copy_from_slice(&torn[..200]);
        fs::write(&chunk, contents).unwrap();
        let before = files(folder.path());
        let view = FileLogView::open(folder.path()).unwrap();
        assert_eq!(follow(&view, 1).await, entries(1..=3));
        assert!(view.append(Lsn::new(4), entry(4)).await.is_err());
        assert!(view.trim(Lsn::new(2)).await.is_err());
        assert_eq!(files(folder.path()), before);
    }

    #[tokio::test]
    async fn a_view_tells_damage_and_missing_chunks_from_an_end() {
        let folder = tempfile::tempdir().unwrap();
        let log = FileLog::open_with_chunks(folder.path(), 1024).unwrap();
        append(&log, 1..=20).await;
        let names = chunk::names(folder.path()).unwrap();
        let second = chunk::path(folder.path(), names[1]);
        let good = fs::read(&second).unwrap();
        let mut bad = good.clone();
        bad[60] ^= 1;
        fs::write(&second, bad).unwrap();
        let view = FileLogView::open(folder.path()).unwrap();
        let error = view.read(names[1], LIMIT, Freshness::Latest).await.unwrap_err();
        assert!(error.to_string().contains("is damaged"), "{error}");
        fs::remove_file(&second).unwrap();
        let error = view.read(names[1], LIMIT, Freshness::Latest).await.unwrap_err();
        assert!(error.to_string().contains("is missing"), "{error}");
        fs::write(&second, good).unwrap();
        assert_eq!(follow(&view, 1).await, entries(1..=20));
        assert!(FileLogView::open(&folder.path().join("nowhere")).is_err());
    }
}
