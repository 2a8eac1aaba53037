//! Opening a log: reading all that is there, and telling torn writes from damage.

use std::collections::BTreeMap;
use std::fs::{self, OpenOptions};
use std::io;
use std::path::Path;
use std::sync::{Arc, Mutex};

use super::chunk::{self, Chunk, offset};
use super::record::{self, ALIGNMENT, HEADER_BYTES, Header, Kind};
use super::{Disk, Inner, Lsn, OpenError, Place, State, floor};
use crate::disk::{LockError, lock_folder, make_folder};

/// What a chunk holds.
#[derive(Debug)]
pub(super) struct Scanned {
    /// The records, and where they are.
    pub(super) entries: Vec<(Header, usize)>,
    /// Where the next record goes.
    end: usize,
    /// Whether it says that there is another chunk behind it.
    pub(super) sealed: bool,
    /// How many bytes of a torn record begin at the end.
    torn: usize,
}

impl Inner {
    pub(super) fn open(
        folder: &Path,
        chunk_bytes: u64,
        disk: Box<dyn Disk>,
    ) -> Result<Self, OpenError> {
        let io_error = |cause| OpenError::Io { path: folder.to_owned(), cause };
        make_folder(&*disk, folder).map_err(io_error)?;
        let lock = lock_folder(folder)?;
        // A process that was killed may have left a chunk or a floor whose name is not on the disk
        // yet: nothing may be built on it, and nothing deleted because of it, before it is.
        disk.sync_folder(folder).map_err(io_error)?;
        let names = chunk::names(folder).map_err(io_error)?;
        let floor = match floor::read(folder)? {
            Some(floor) => floor,
            None => begin(&*disk, folder, &names, chunk_bytes)?,
        };
        let names = chunk::names(folder).map_err(io_error)?;
        let names = forget_trimmed(&*disk, folder, names, floor).map_err(io_error)?;
        if names.first().is_none_or(|first| *first > floor) {
            return Err(damaged(folder, 0, format!("the chunk with entry {floor} is missing")));
        }
        let mut state = State {
            chunks: BTreeMap::new(),
            index: BTreeMap::new(),
            floor,
            tail: floor,
            end: 0,
            broken: None,
        };
        for (at, name) in names.iter().enumerate() {
            open_chunk(&mut state, &*disk, folder, *name, names.get(at + 1).copied())?;
        }
        if state.tail < floor {
            let what = format!("entries {} to {} are missing", state.tail, floor.prev());
            return Err(damaged(folder, 0, what));
        }
        state.index = state.index.split_off(&floor);
        Ok(Self {
            folder: folder.to_owned(),
            chunk_bytes,
            disk,
            _lock: lock,
            turn: Mutex::default(),
            state: Mutex::new(state),
        })
    }
}

/// Makes the first chunk, and then the floor: a folder with a floor had chunks, too.
fn begin(
    disk: &dyn Disk,
    folder: &Path,
    names: &[Lsn],
    chunk_bytes: u64,
) -> Result<Lsn, OpenError> {
    let io_error = |cause| OpenError::Io { path: folder.to_owned(), cause };
    if names.is_empty() {
        let bytes = chunk_bytes.max(chunk::bytes_min(0));
        Chunk::create(disk, folder, Lsn::FIRST, bytes).and_then(|made| made).map_err(io_error)?;
    }
    floor::write(disk, folder, Lsn::FIRST).and_then(|written| written).map_err(io_error)?;
    Ok(Lsn::FIRST)
}

/// Finishes a trim that was interrupted: the files may have gone in any order.
fn forget_trimmed(
    disk: &dyn Disk,
    folder: &Path,
    names: Vec<Lsn>,
    floor: Lsn,
) -> io::Result<Vec<Lsn>> {
    let live = names.partition_point(|name| *name <= floor).saturating_sub(1);
    for name in &names[..live] {
        fs::remove_file(chunk::path(folder, *name))?;
    }
    if live > 0 {
        disk.sync_folder(folder)?;
    }
    Ok(names[live..].to_vec())
}

/// Opens the chunk called `name`, behind which comes the one called `behind`, if any. A damaged one
/// is left as it is.
fn open_chunk(
    state: &mut State,
    disk: &dyn Disk,
    folder: &Path,
    name: Lsn,
    behind: Option<Lsn>,
) -> Result<(), OpenError> {
    let path = chunk::path(folder, name);
    let io_error = |cause| OpenError::Io { path: path.clone(), cause };
    let file = OpenOptions::new().read(true).write(true).open(&path).map_err(io_error)?;
    let contents = fs::read(&path).map_err(io_error)?;
    let found = scan(name, &contents).map_err(|(at, what)| damaged(&path, at, what))?;
    let tail = found.entries.last().map_or(name, |(header, _)| header.lsn.next());
    if behind.is_none() && found.sealed || behind.is_some_and(|behind| behind != tail) {
        let what = format!("the chunk that begins with entry {tail} is missing behind it");
        return Err(damaged(&path, found.end, what));
    }
    if found.torn > 0 {
        let (path, at) = (path.display(), found.end);
        tracing::warn!(%path, at, bytes = found.torn, "clearing an append that was cut off");
        disk.write(&file, &vec![0; found.torn], offset(at)).map_err(io_error)?;
    }
    if behind.is_none() {
        // The last append may have reached the page cache only, and after a failed sync the kernel
        // takes it for written. Only writing it again makes it durable, and then it may be shown.
        if let Some((header, at)) = found.entries.last() {
            let bytes = &contents[*at..*at + header.record_bytes()];
            disk.write(&file, bytes, offset(*at)).map_err(io_error)?;
        }
        disk.sync(&file).map_err(io_error)?;
    } else if !found.sealed {
        // The next chunk was begun, and then there was no time for the seal. Without it nobody
        // would miss that chunk, should it get lost. A chunk that was cut off may have no room for
        // it.
        let seal = record::encode(Kind::Seal, tail, &[]);
        if contents.len() - found.end >= seal.len() {
            disk.write(&file, &seal, offset(found.end)).map_err(io_error)?;
            disk.sync(&file).map_err(io_error)?;
        }
    }
    state.tail = tail;
    state.end = offset(found.end);
    let place =
        |(header, at): (Header, usize)| (header.lsn, Place { chunk: name, at: offset(at), header });
    state.index.extend(found.entries.into_iter().map(place));
    let chunk = Chunk { file, path, bytes: offset(contents.len()) };
    state.chunks.insert(name, Arc::new(chunk));
    Ok(())
}

/// The records of a chunk; or where it is damaged, and how that shows.
pub(super) fn scan(name: Lsn, contents: &[u8]) -> Result<Scanned, (usize, String)> {
    let mut found = Scanned { entries: Vec::new(), end: 0, sealed: false, torn: 0 };
    let mut next = name;
    loop {
        let at = found.end;
        let rest = &contents[at..];
        let header = record::parse(rest);
        if let Some(Header { version, .. }) = header
            && version != record::VERSION
        {
            let what = format!("form {version} of records, which this release does not know");
            return Err((at, what));
        }
        if let Some(Header { lsn, .. }) = header
            && lsn != next
        {
            return Err((at, format!("entry {lsn} stands where {next} should")));
        }
        match header.filter(|header| header.fits(rest)) {
            Some(header) if header.kind == Kind::Seal => {
                found.sealed = true;
                return Ok(found);
            }
            Some(header) => {
                found.entries.push((header, at));
                found.end += header.record_bytes();
                next = next.next();
            }
            None => {
                found.torn = judge(next, at, rest, header).map_err(|what| (at, what))?;
                return Ok(found);
            }
        }
    }
}

/// Says how many bytes of a torn record stand here (none if nothing was written), or that this is
/// damage. The rules are on the page above.
fn judge(next: Lsn, at: usize, rest: &[u8], header: Option<Header>) -> Result<usize, String> {
    let Some(last) = rest.iter().rposition(|byte| *byte != 0) else { return Ok(0) };
    let later = (ALIGNMENT..rest.len()).step_by(ALIGNMENT).find_map(|at| {
        let later = record::parse(&rest[at..])?;
        (later.lsn > next && later.fits(&rest[at..])).then_some(later.lsn)
    });
    if let Some(later) = later {
        return Err(format!("entry {next} can't be read, but entry {later} behind it can"));
    }
    let record = header.map_or(HEADER_BYTES, |header| header.record_bytes());
    let is_torn = match rest.get(..record) {
        None => true,
        Some(record) => record::has_unwritten_sector(at, record),
    };
    if is_torn {
        return Ok(last + 1);
    }
    Err(format!("entry {next} was written in full and has changed since"))
}

impl From<LockError> for OpenError {
    fn from(error: LockError) -> Self {
        match error {
            LockError::Held(folder) => Self::Locked(folder),
            LockError::Io { path, cause } => Self::Io { path, cause },
        }
    }
}

fn damaged(path: &Path, at: usize, what: String) -> OpenError {
    OpenError::Damaged { path: path.to_owned(), at: offset(at), what }
}
