//! Opening a log: reading all that is there, and telling torn writes from damage.

use std::fs::{self, File, OpenOptions};
use std::io::Write;
use std::os::unix::fs::FileExt;
use std::path::Path;

use super::record::{self, HEADER_BYTES, padded};
use super::{
    BTreeMap, Chunk, Disk, ENTRY_BYTES_MAX, Inner, Lsn, OpenError, Place, io, is_missing, lock,
    sync_folder,
};

/// What a disk writes as a whole or not at all.
const SECTOR_BYTES: usize = 512;

/// What a chunk holds.
struct Scanned {
    places: Vec<(Lsn, Place)>,
    /// Where the next record goes.
    end: u64,
    /// Bytes of a torn record, to be cleared.
    torn: u64,
}

impl Inner {
    pub(super) fn open(
        folder: &Path,
        chunk_bytes: u64,
        disk: Box<dyn Disk>,
    ) -> Result<Self, OpenError> {
        let io_error = |cause| OpenError::Io { path: folder.to_owned(), cause };
        fs::create_dir_all(folder).map_err(io_error)?;
        let lock = lock(folder)?;
        let floor = read_floor(folder)?;
        let mut log = Self {
            folder: folder.to_owned(),
            chunk_bytes,
            disk,
            _lock: lock,
            chunks: BTreeMap::new(),
            index: BTreeMap::new(),
            floor,
            tail: floor,
            end: 0,
            broken: None,
        };
        let names = chunk_names(folder).map_err(io_error)?;
        for (at, name) in names.iter().enumerate() {
            log.open_chunk(*name, at + 1 == names.len())?;
        }
        log.index = log.index.split_off(&floor);
        if let Some((first, _)) = log.index.first_key_value()
            && *first != floor
        {
            return Err(damaged(folder, 0, format!("entries from {floor} on are missing")));
        }
        if log.tail < floor {
            return Err(damaged(folder, 0, format!("entries before {floor} are missing")));
        }
        sync_folder(folder).map_err(io_error)?;
        Ok(log)
    }

    fn open_chunk(&mut self, name: Lsn, is_last: bool) -> Result<(), OpenError> {
        let path = self.folder.join(format!("{:020}.log", name.get()));
        let io_error = |cause| OpenError::Io { path: path.clone(), cause };
        let file = OpenOptions::new().read(true).write(true).open(&path).map_err(io_error)?;
        let contents = fs::read(&path).map_err(io_error)?;
        if !self.chunks.is_empty() && name != self.tail {
            return Err(damaged(&path, 0, format!("entry {} is missing before it", self.tail)));
        }
        let scanned = scan(name, &contents).map_err(|(at, what)| damaged(&path, at, what))?;
        if scanned.torn > 0 {
            if !is_last {
                return Err(damaged(&path, scanned.end, "a record is torn before the end".into()));
            }
            tracing::warn!(path = %path.display(), at = scanned.end, "clearing a torn record");
            clear(&file, scanned.end, scanned.torn).map_err(io_error)?;
        }
        self.tail = scanned.places.last().map_or(name, |(lsn, _)| lsn.next());
        self.end = scanned.end;
        self.index.extend(scanned.places);
        let bytes = u64::try_from(contents.len()).unwrap_or(u64::MAX);
        self.chunks.insert(name, Chunk { file, path, bytes });
        Ok(())
    }
}

/// The records of a chunk; or where it is damaged, and how that shows.
fn scan(name: Lsn, contents: &[u8]) -> Result<Scanned, (u64, String)> {
    let mut places = Vec::new();
    let mut next = name;
    let mut at = 0_u64;
    loop {
        let rest = contents.get(usize::try_from(at).unwrap_or(usize::MAX)..).unwrap_or_default();
        let good = record::parse(rest).filter(|header| record::payload(header, rest).is_some());
        let Some(header) = good else {
            let torn = judge(next, rest).map_err(|what| (at, what))?;
            return Ok(Scanned { places, end: at, torn });
        };
        if header.lsn != next {
            return Err((at, format!("entry {} where {next} follows", header.lsn)));
        }
        let place =
            Place { chunk: name, at: at + HEADER_BYTES, length: header.length, crc: header.crc };
        places.push((next, place));
        next = next.next();
        at += padded(HEADER_BYTES + u64::from(header.length));
    }
}

/// Says how many bytes of a torn record begin here (none if nothing was written), or that this is
/// damage. The rules are on the page above.
fn judge(next: Lsn, rest: &[u8]) -> Result<u64, String> {
    if rest.iter().all(|byte| *byte == 0) {
        return Ok(0);
    }
    let step = usize::try_from(padded(1)).unwrap_or(8);
    let later = (0..rest.len()).step_by(step).skip(1).find_map(|at| {
        let header = record::parse(&rest[at..])?;
        record::payload(&header, &rest[at..])?;
        (header.lsn > next).then_some(header.lsn)
    });
    if let Some(later) = later {
        return Err(format!("entry {next} can't be read, but entry {later} behind it can"));
    }
    // How far the record may have reached: what its header says, if that can be believed, or as far
    // as anything was written.
    let written = rest.iter().rposition(|byte| *byte != 0).map_or(0, |last| last + 1);
    let record = record::parse(rest).map_or(written, |header| {
        usize::try_from(padded(HEADER_BYTES + u64::from(header.length))).unwrap_or(usize::MAX)
    });
    if record > rest.len() && written <= ENTRY_BYTES_MAX {
        return Ok(u64::try_from(rest.len()).unwrap_or(u64::MAX));
    }
    let record = &rest[..record.min(rest.len())];
    let has_hole = record.chunks(SECTOR_BYTES).any(|sector| sector.iter().all(|byte| *byte == 0));
    if has_hole {
        return Ok(u64::try_from(record.len().max(written)).unwrap_or(u64::MAX));
    }
    Err(format!("entry {next} was written in full and has changed since"))
}

fn clear(file: &File, at: u64, bytes: u64) -> io::Result<()> {
    let zeros = vec![0; usize::try_from(bytes).unwrap_or(0)];
    file.write_all_at(&zeros, at)?;
    file.sync_all()
}

fn chunk_names(folder: &Path) -> io::Result<Vec<Lsn>> {
    let mut names = Vec::new();
    for item in fs::read_dir(folder)? {
        let name = item?.file_name();
        let number = name.to_str().and_then(|name| name.strip_suffix(".log")?.parse().ok());
        names.extend(number.map(Lsn::new));
    }
    names.sort();
    Ok(names)
}

fn read_floor(folder: &Path) -> Result<Lsn, OpenError> {
    let path = folder.join("floor");
    match fs::read_to_string(&path) {
        Ok(text) => match text.trim().parse() {
            Ok(floor) if floor >= 1 => Ok(Lsn::new(floor)),
            _ => Err(damaged(&path, 0, "it does not hold a number".to_owned())),
        },
        Err(error) if is_missing(&error) => Ok(Lsn::FIRST),
        Err(cause) => Err(OpenError::Io { path, cause }),
    }
}

pub(super) fn write_floor(folder: &Path, floor: Lsn) -> io::Result<()> {
    let temporary = folder.join("floor.tmp");
    let mut file = File::create(&temporary)?;
    writeln!(file, "{floor}")?;
    file.sync_all()?;
    fs::rename(&temporary, folder.join("floor"))?;
    sync_folder(folder)
}

fn damaged(path: &Path, at: u64, what: String) -> OpenError {
    OpenError::Damaged { path: path.to_owned(), at, what }
}
