//! What the file backends ask of the disk.
//!
//! Owns the four calls that make bytes durable, so that a test can make each of them fail. What to
//! do when one fails is up to the backend; asking again is never the answer, because the kernel
//! forgets what it couldn't write. Owns also the lock that makes a folder one process's.

use std::fmt;
use std::fs::{self, File, OpenOptions, TryLockError};
use std::io::{self, ErrorKind};
use std::os::unix::fs::FileExt;
use std::path::{Path, PathBuf};

/// The calls that make bytes durable.
pub(crate) trait Disk: fmt::Debug + Send + Sync {
    /// Writes all of `bytes` at `at`. Some may be written although it fails.
    fn write(&self, file: &File, bytes: &[u8], at: u64) -> io::Result<()>;

    /// Makes the contents of `file` durable, and its length.
    fn sync(&self, file: &File) -> io::Result<()>;

    /// Makes the names in `folder` durable.
    fn sync_folder(&self, folder: &Path) -> io::Result<()>;
}

/// The disk there is.
#[derive(Debug)]
pub(crate) struct RealDisk;

impl Disk for RealDisk {
    fn write(&self, file: &File, bytes: &[u8], at: u64) -> io::Result<()> {
        file.write_all_at(bytes, at)
    }

    fn sync(&self, file: &File) -> io::Result<()> {
        file.sync_data()
    }

    fn sync_folder(&self, folder: &Path) -> io::Result<()> {
        File::open(folder)?.sync_all()
    }
}

/// Why a folder can't be locked.
#[derive(Debug)]
pub(crate) enum LockError {
    /// Another process has it.
    Held(PathBuf),
    /// The lock can't be touched.
    Io { path: PathBuf, cause: io::Error },
}

/// Locks a folder against other processes, for as long as the file is open.
pub(crate) fn lock_folder(folder: &Path) -> Result<File, LockError> {
    let path = folder.join("lock");
    let file = OpenOptions::new().write(true).create(true).truncate(false).open(&path);
    let file = file.map_err(|cause| LockError::Io { path: path.clone(), cause })?;
    match file.try_lock() {
        Ok(()) => Ok(file),
        Err(TryLockError::WouldBlock) => Err(LockError::Held(folder.to_owned())),
        Err(TryLockError::Error(cause)) => Err(LockError::Io { path, cause }),
    }
}

/// Makes `folder` and the folders above it where they are missing, and their names durable. That a
/// folder is there does not say so: whoever made it may have been killed before its name was
/// synced.
pub(crate) fn make_folder(disk: &dyn Disk, folder: &Path) -> io::Result<()> {
    let above = match folder.parent() {
        Some(above) if !above.as_os_str().is_empty() => above,
        _ => Path::new("."),
    };
    if folder.is_dir() {
        return match disk.sync_folder(above) {
            // Where folders can't be synced, we did not make one.
            Err(error) if is_not_ours(error.kind()) => Ok(()),
            synced => synced,
        };
    }
    make_folder(disk, above)?;
    match fs::create_dir(folder) {
        Err(error) if error.kind() == ErrorKind::AlreadyExists && folder.is_dir() => {}
        made => made?,
    }
    disk.sync_folder(above)
}

fn is_not_ours(kind: ErrorKind) -> bool {
    use ErrorKind::{InvalidInput, PermissionDenied, ReadOnlyFilesystem, Unsupported};
    matches!(kind, InvalidInput | PermissionDenied | ReadOnlyFilesystem | Unsupported)
}

#[cfg(test)]
pub(crate) mod failing;
