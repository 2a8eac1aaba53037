//! A disk that fails when a test says so.

use std::fs::File;
use std::io;
use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::{AtomicU8, Ordering};

use super::{Disk, RealDisk};

/// Which call fails next.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Fault {
    /// None.
    Nothing,
    /// A write, without writing anything: the disk is full.
    Full,
    /// A write, after half of it.
    ShortWrite,
    /// The sync of a file.
    Sync,
    /// The sync of a folder.
    SyncFolder,
}

/// A disk whose next call of a kind fails, once. Clones share the order to fail.
#[derive(Clone, Debug, Default)]
pub(crate) struct FailingDisk {
    next: Arc<AtomicU8>,
}

impl FailingDisk {
    pub(crate) fn fail_next(&self, fault: Fault) {
        self.next.store(number(fault), Ordering::SeqCst);
    }

    /// Whether the order to fail was carried out.
    pub(crate) fn has_failed(&self) -> bool {
        self.next.load(Ordering::SeqCst) == number(Fault::Nothing)
    }

    fn fails(&self, fault: Fault) -> bool {
        let (now, then) = (number(fault), number(Fault::Nothing));
        self.next.compare_exchange(now, then, Ordering::SeqCst, Ordering::SeqCst).is_ok()
    }
}

fn number(fault: Fault) -> u8 {
    match fault {
        Fault::Nothing => 0,
        Fault::Full => 1,
        Fault::ShortWrite => 2,
        Fault::Sync => 3,
        Fault::SyncFolder => 4,
    }
}

fn broken_disk() -> io::Error {
    io::Error::other("input/output error, ordered by a test")
}

impl Disk for FailingDisk {
    fn write(&self, file: &File, bytes: &[u8], at: u64) -> io::Result<()> {
        if self.fails(Fault::Full) {
            return Err(io::ErrorKind::StorageFull.into());
        }
        if self.fails(Fault::ShortWrite) {
            RealDisk.write(file, &bytes[..bytes.len() / 2], at)?;
            return Err(broken_disk());
        }
        RealDisk.write(file, bytes, at)
    }

    fn sync(&self, file: &File) -> io::Result<()> {
        if self.fails(Fault::Sync) { Err(broken_disk()) } else { RealDisk.sync(file) }
    }

    fn sync_folder(&self, folder: &Path) -> io::Result<()> {
        if self.fails(Fault::SyncFolder) {
            return Err(broken_disk());
        }
        RealDisk.sync_folder(folder)
    }
}
