//! Objects as files of a folder.
//!
//! An object is written under a temporary name, synced, and then linked to its own name: the link
//! fails if the name is taken, and shows the object whole or not at all. The folder is synced
//! before the put is acknowledged, or a crash could take the name away again; so it is before a put
//! answers that the name is taken, because whoever repeats a put takes that for success. What a
//! crash leaves under a temporary name is removed when the folder is opened.
//!
//! A folder that could not be synced leaves the store *broken* for puts until it is opened again:
//! asking the kernel once more would be answered with success. A file that could not be synced is
//! thrown away, and the next attempt writes another.
//!
//! One difference from a flat space: where `a` is an object, `a/b` can't be one.

use std::collections::BTreeSet;
use std::fs::{self, File, OpenOptions};
use std::io::{self, ErrorKind};
use std::num::NonZeroUsize;
use std::ops::Range;
use std::os::unix::fs::FileExt;
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, OnceLock, PoisonError};

use async_trait::async_trait;
use bytes::Bytes;

use super::{ObjectKey, ObjectMeta, ObjectStore, Put};
use crate::disk::{Disk, RealDisk, make_folder};
use crate::port::PortError;

/// Where objects are written before they have their name. No key has a part like it.
const TEMPORARY: &str = "~temporary";

/// A folder of objects. Clones share it.
#[derive(Clone, Debug)]
pub struct FileObjectStore {
    inner: Arc<Inner>,
}

#[derive(Debug)]
struct Inner {
    folder: PathBuf,
    disk: Box<dyn Disk>,
    /// The folders whose own names are known to be on the disk.
    durable: Mutex<BTreeSet<PathBuf>>,
    broken: OnceLock<String>,
}

impl FileObjectStore {
    /// Opens the folder, making it if there is none.
    pub fn open(folder: &Path) -> io::Result<Self> {
        Self::open_with(folder, Box::new(RealDisk))
    }

    pub(crate) fn open_with(folder: &Path, disk: Box<dyn Disk>) -> io::Result<Self> {
        let temporary = folder.join(TEMPORARY);
        make_folder(&*disk, &temporary)?;
        for left_over in fs::read_dir(&temporary)? {
            unless_missing(fs::remove_file(left_over?.path()))?;
        }
        Ok(Self {
            inner: Arc::new(Inner {
                folder: folder.to_owned(),
                disk,
                durable: Mutex::default(),
                broken: OnceLock::new(),
            }),
        })
    }

    /// Opens a folder that has to be there, to look at what is in it: it takes no puts, and what a
    /// broker has under a temporary name is left alone.
    pub fn open_to_look(folder: &Path) -> io::Result<Self> {
        fs::read_dir(folder)?;
        let broken = OnceLock::from("the store was opened to be looked at".to_owned());
        Ok(Self {
            inner: Arc::new(Inner {
                folder: folder.to_owned(),
                disk: Box::new(RealDisk),
                durable: Mutex::default(),
                broken,
            }),
        })
    }

    async fn blocking<T: Send + 'static>(
        &self,
        work: impl FnOnce(&Inner) -> T + Send + 'static,
    ) -> Result<T, PortError> {
        let inner = Arc::clone(&self.inner);
        tokio::task::spawn_blocking(move || work(&inner)).await.map_err(PortError::indeterminate)
    }
}

impl Inner {
    fn path(&self, key: &ObjectKey) -> PathBuf {
        self.folder.join(key.as_str())
    }

    fn put(&self, key: &ObjectKey, bytes: &[u8]) -> Result<Put, PortError> {
        if let Some(cause) = self.broken.get() {
            return Err(PortError::broken(cause.clone()));
        }
        let path = self.path(key);
        let parent = path.parent().unwrap_or(&self.folder);
        if path.is_file() {
            self.settle(parent)
                .and_then(|()| self.disk.sync_folder(parent))
                .map_err(|error| PortError::broken(self.fence(parent, &error)))?;
            return Ok(Put::Exists);
        }
        let temporary = self.folder.join(TEMPORARY).join(temporary_name());
        let answer = self.write(&temporary, bytes).map_err(PortError::determinate).and_then(|()| {
            self.settle(parent).map_err(PortError::determinate)?;
            self.link(&temporary, &path, parent)
        });
        // Of no more use, whatever happened. Should it stay, it goes when the folder is opened.
        drop(fs::remove_file(&temporary));
        answer
    }

    fn write(&self, temporary: &Path, bytes: &[u8]) -> io::Result<()> {
        let file = OpenOptions::new().write(true).create_new(true).open(temporary)?;
        self.disk.write(&file, bytes, 0)?;
        self.disk.sync(&file)
    }

    fn link(&self, temporary: &Path, path: &Path, parent: &Path) -> Result<Put, PortError> {
        let put = match fs::hard_link(temporary, path) {
            Ok(()) => Put::Created,
            Err(error) if error.kind() == ErrorKind::AlreadyExists && path.is_file() => Put::Exists,
            Err(error) => return Err(PortError::determinate(error)),
        };
        match self.disk.sync_folder(parent) {
            Ok(()) => Ok(put),
            Err(error) => Err(PortError::indeterminate(self.fence(parent, &error))),
        }
    }

    /// Makes `folder` if there is none, and its name and those above it durable. That it is there
    /// does not say so: it may have been made a moment ago, by a put that is not done yet.
    fn settle(&self, folder: &Path) -> io::Result<()> {
        let known = || self.durable.lock().unwrap_or_else(PoisonError::into_inner);
        if folder == self.folder || known().contains(folder) {
            return Ok(());
        }
        let above = folder.parent().unwrap_or(&self.folder);
        self.settle(above)?;
        match fs::create_dir(folder) {
            Err(error) if error.kind() == ErrorKind::AlreadyExists && folder.is_dir() => {}
            made => made?,
        }
        self.disk.sync_folder(above).inspect_err(|error| drop(self.fence(above, error)))?;
        known().insert(folder.to_owned());
        Ok(())
    }

    fn fence(&self, folder: &Path, error: &io::Error) -> String {
        let cause = format!("{}: {error}; restart to find out what is on disk", folder.display());
        self.broken.get_or_init(|| cause).clone()
    }

    fn get(&self, key: &ObjectKey, range: &Range<u64>) -> io::Result<Option<Bytes>> {
        let Some(file) = unless_missing(File::open(self.path(key)))? else { return Ok(None) };
        let meta = file.metadata()?;
        if !meta.is_file() {
            return Ok(None);
        }
        let length = range.end.min(meta.len()).saturating_sub(range.start);
        let mut bytes = vec![0; usize::try_from(length).map_err(io::Error::other)?];
        file.read_exact_at(&mut bytes, range.start)?;
        Ok(Some(bytes.into()))
    }

    fn list(
        &self,
        prefix: &str,
        after: Option<&ObjectKey>,
        limit: NonZeroUsize,
    ) -> io::Result<Vec<ObjectMeta>> {
        let after = after.map_or("", ObjectKey::as_str);
        let mut keys = Vec::new();
        self.collect("", prefix, after, &mut keys)?;
        keys.sort();
        let mut page = Vec::new();
        for key in keys {
            // What was deleted since it was found does not count, or the page would look like the
            // last one.
            if let Some(meta) = unless_missing(fs::metadata(self.path(&key)))? {
                page.push(ObjectMeta { key, size: meta.len() });
            }
            if page.len() == limit.get() {
                break;
            }
        }
        Ok(page)
    }

    /// Collects the keys below the folder called `above` that begin with `prefix` and come after
    /// `after`. What could not be a key is not ours.
    fn collect(
        &self,
        above: &str,
        prefix: &str,
        after: &str,
        keys: &mut Vec<ObjectKey>,
    ) -> io::Result<()> {
        for item in fs::read_dir(self.folder.join(above))? {
            let item = item?;
            let name = item.file_name();
            let Some(name) = name.to_str() else { continue };
            let path = if above.is_empty() { name.to_owned() } else { format!("{above}/{name}") };
            let Ok(key) = ObjectKey::new(path) else { continue };
            let Some(kind) = unless_missing(item.file_type())? else { continue };
            if kind.is_dir() {
                let below = format!("{key}/");
                let has_prefix = below.starts_with(prefix) || prefix.starts_with(&below);
                if has_prefix && (below.as_str() > after || after.starts_with(&below)) {
                    self.collect(key.as_str(), prefix, after, keys)?;
                }
            } else if key.as_str().starts_with(prefix) && key.as_str() > after {
                keys.push(key);
            }
        }
        Ok(())
    }

    fn delete(&self, keys: &[ObjectKey]) -> io::Result<()> {
        let mut parents = BTreeSet::new();
        for key in keys {
            let path = self.path(key);
            if path.is_file() && unless_missing(fs::remove_file(&path))?.is_some() {
                parents.extend(path.parent().map(Path::to_owned));
            }
        }
        parents.iter().try_for_each(|parent| self.disk.sync_folder(parent))
    }
}

/// A name that no other put uses, in this process or another.
fn temporary_name() -> String {
    static NEXT: AtomicU64 = AtomicU64::new(0);
    format!("{}-{}", std::process::id(), NEXT.fetch_add(1, Ordering::Relaxed))
}

/// What was found, or that there is nothing of that name.
fn unless_missing<T>(found: io::Result<T>) -> io::Result<Option<T>> {
    match found {
        Ok(found) => Ok(Some(found)),
        Err(error) if matches!(error.kind(), ErrorKind::NotFound | ErrorKind::NotADirectory) => {
            Ok(None)
        }
        Err(error) => Err(error),
    }
}

#[async_trait]
impl ObjectStore for FileObjectStore {
    async fn put_if_absent(&self, key: &ObjectKey, bytes: Bytes) -> Result<Put, PortError> {
        let key = key.clone();
        self.blocking(move |store| store.put(&key, &bytes)).await?
    }

    async fn get_range(
        &self,
        key: &ObjectKey,
        range: Range<u64>,
    ) -> Result<Option<Bytes>, PortError> {
        let key = key.clone();
        self.blocking(move |store| store.get(&key, &range)).await?.map_err(PortError::determinate)
    }

    async fn list(
        &self,
        prefix: &str,
        after: Option<&ObjectKey>,
        limit: NonZeroUsize,
    ) -> Result<Vec<ObjectMeta>, PortError> {
        let (prefix, after) = (prefix.to_owned(), after.cloned());
        let listed = self.blocking(move |store| store.list(&prefix, after.as_ref(), limit)).await?;
        listed.map_err(PortError::determinate)
    }

    async fn delete(&self, keys: &[ObjectKey]) -> Result<(), PortError> {
        let keys = keys.to_vec();
        self.blocking(move |store| store.delete(&keys)).await?.map_err(PortError::indeterminate)
    }
}

#[cfg(test)]
mod tests;
