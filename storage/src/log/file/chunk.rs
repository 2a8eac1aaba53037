//! A chunk: a file of fixed size, full of zeros until records are written into it.

use std::fs::{self, File, OpenOptions};
use std::io;
use std::os::unix::fs::FileExt;
use std::path::{Path, PathBuf};

use super::record::{self, HEADER_BYTES, Header};
use super::{Disk, Lsn};

/// An open chunk.
#[derive(Debug)]
pub(super) struct Chunk {
    pub(super) file: File,
    pub(super) path: PathBuf,
    /// Its size.
    pub(super) bytes: u64,
}

impl Chunk {
    /// Makes the chunk that begins with `first`. It takes its name when its blocks are allocated
    /// and on the disk: the inner error means that nothing happened, the outer that nobody knows.
    pub(super) fn create(
        disk: &dyn Disk,
        folder: &Path,
        first: Lsn,
        bytes: u64,
    ) -> Result<io::Result<Self>, io::Error> {
        let temporary = folder.join("chunk.tmp");
        let file = match allocate(disk, &temporary, bytes) {
            Ok(file) => file,
            Err(error) => {
                // Gives its blocks back to the full disk; should it stay, the next one replaces it.
                drop(fs::remove_file(&temporary));
                return Ok(Err(error));
            }
        };
        let path = path(folder, first);
        fs::rename(&temporary, &path)?;
        disk.sync_folder(folder)?;
        Ok(Ok(Self { file, path, bytes }))
    }

    /// Reads the entry whose record has this header at `at`; `None` if its bytes have changed.
    pub(super) fn entry(&self, at: u64, header: &Header) -> io::Result<Option<Vec<u8>>> {
        let mut body = vec![0; header.record_bytes() - HEADER_BYTES];
        self.file.read_exact_at(&mut body, at + offset(HEADER_BYTES))?;
        Ok(header.open(body))
    }
}

/// Where the chunk that begins with `first` is.
pub(super) fn path(folder: &Path, first: Lsn) -> PathBuf {
    folder.join(format!("{:020}.log", first.get()))
}

/// The chunks of a folder, in order.
pub(super) fn names(folder: &Path) -> io::Result<Vec<Lsn>> {
    let mut names = Vec::new();
    for item in fs::read_dir(folder)? {
        let name = item?.file_name();
        let number = name.to_str().and_then(|name| name.strip_suffix(".log")?.parse().ok());
        names.extend(number.map(Lsn::new));
    }
    names.sort();
    Ok(names)
}

/// A number of bytes in memory as one in a file.
pub(super) fn offset(bytes: usize) -> u64 {
    u64::try_from(bytes).expect("memory is smaller than a file can be")
}

/// Smallest chunk that holds an entry of `length` bytes and the seal behind it.
pub(super) fn bytes_min(length: usize) -> u64 {
    offset(record::record_bytes(length) + record::record_bytes(0))
}

fn allocate(disk: &dyn Disk, path: &Path, bytes: u64) -> io::Result<File> {
    static PIECE: [u8; 64 * 1024] = [0; 64 * 1024];
    let file = OpenOptions::new().read(true).write(true).create(true).truncate(true).open(path)?;
    let mut at = 0;
    while at < bytes {
        let piece = usize::try_from(bytes - at).map_or(PIECE.len(), |left| left.min(PIECE.len()));
        disk.write(&file, &PIECE[..piece], at)?;
        at += offset(piece);
    }
    disk.sync(&file)?;
    Ok(file)
}
