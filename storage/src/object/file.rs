//! Objects as files of a folder.
//!
//! An object is written under a temporary name, synced, and then linked to its own name: the link
//! fails if the name is taken, and shows the object whole or not at all. The folder is synced before
//! the put is acknowledged, or a crash could take the name away again. What a crash leaves under a
//! temporary name is removed when the folder is opened.

use std::fs::{self, File, OpenOptions};
use std::io::{self, ErrorKind, Write};
use std::num::NonZeroUsize;
use std::ops::Range;
use std::os::unix::fs::FileExt;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use async_trait::async_trait;
use bytes::Bytes;

use super::{ObjectKey, ObjectMeta, ObjectStore, Put};
use crate::port::PortError;

/// Where objects are written before they have their name. It is never listed, and no key of ours
/// begins with it.
const TEMPORARY: &str = ".tmp";

/// A folder of objects. Clones share it.
#[derive(Clone, Debug)]
pub struct FileObjectStore {
    folder: Arc<Path>,
    temporary: Arc<AtomicU64>,
}

impl FileObjectStore {
    /// Opens the folder, making it if there is none.
    pub fn open(folder: &Path) -> io::Result<Self> {
        let temporary = folder.join(TEMPORARY);
        fs::create_dir_all(&temporary)?;
        for left_over in fs::read_dir(&temporary)? {
            fs::remove_file(left_over?.path())?;
        }
        sync_folder(folder)?;
        Ok(Self { folder: folder.into(), temporary: Arc::default() })
    }

    fn path(&self, key: &ObjectKey) -> PathBuf {
        self.folder.join(key.as_str())
    }

    fn put(&self, key: &ObjectKey, bytes: &[u8]) -> Result<Put, PortError> {
        let path = self.path(key);
        if path.exists() {
            return Ok(Put::Exists);
        }
        let number = self.temporary.fetch_add(1, Ordering::Relaxed);
        let temporary = self.folder.join(TEMPORARY).join(number.to_string());
        let linked = self.write(&temporary, bytes).and_then(|()| self.link(&temporary, &path));
        // Whatever happened, the temporary name is of no more use; should it stay, it goes when the
        // folder is opened.
        let removed = fs::remove_file(&temporary);
        let parent = match linked {
            Ok(parent) => parent,
            Err(error) if error.kind() == ErrorKind::AlreadyExists => return Ok(Put::Exists),
            Err(error) => return Err(PortError::determinate(error)),
        };
        removed.and_then(|()| sync_folder(&parent)).map_err(PortError::indeterminate)?;
        Ok(Put::Created)
    }

    fn write(&self, temporary: &Path, bytes: &[u8]) -> io::Result<()> {
        let mut file = OpenOptions::new().write(true).create_new(true).open(temporary)?;
        file.write_all(bytes)?;
        file.sync_all()
    }

    fn link(&self, temporary: &Path, path: &Path) -> io::Result<PathBuf> {
        let parent = path.parent().unwrap_or(&self.folder);
        if !parent.is_dir() {
            fs::create_dir_all(parent)?;
            let above = parent.ancestors().skip(1).take_while(|it| it.starts_with(&*self.folder));
            above.into_iter().try_for_each(sync_folder)?;
        }
        fs::hard_link(temporary, path)?;
        Ok(parent.to_owned())
    }

    fn get(&self, key: &ObjectKey, range: Range<u64>) -> io::Result<Option<Bytes>> {
        let file = match File::open(self.path(key)) {
            Ok(file) => file,
            Err(error) if error.kind() == ErrorKind::NotFound => return Ok(None),
            Err(error) => return Err(error),
        };
        let end = range.end.min(file.metadata()?.len());
        let length = usize::try_from(end.saturating_sub(range.start)).unwrap_or(usize::MAX);
        let mut bytes = vec![0; length];
        file.read_exact_at(&mut bytes, range.start)?;
        Ok(Some(bytes.into()))
    }

    /// Collects the objects below `folder`, whose key is `key`, that can be in the listing.
    fn collect(
        &self,
        folder: &Path,
        key: &str,
        prefix: &str,
        found: &mut Vec<ObjectMeta>,
    ) -> io::Result<()> {
        for item in fs::read_dir(folder)? {
            let item = item?;
            let Ok(name) = item.file_name().into_string() else { continue };
            let key = if key.is_empty() { name } else { format!("{key}/{name}") };
            if key == TEMPORARY {
                continue;
            }
            let within = key.starts_with(prefix) || prefix.starts_with(&key);
            if !within {
                continue;
            }
            let meta = item.metadata()?;
            if meta.is_dir() {
                self.collect(&item.path(), &key, prefix, found)?;
            } else if key.starts_with(prefix)
                && let Ok(key) = ObjectKey::new(key)
            {
                found.push(ObjectMeta { key, size: meta.len() });
            }
        }
        Ok(())
    }

    fn remove(&self, keys: &[ObjectKey]) -> io::Result<()> {
        let mut parents: Vec<PathBuf> = Vec::new();
        for key in keys {
            let path = self.path(key);
            match fs::remove_file(&path) {
                Ok(()) => parents.extend(path.parent().map(Path::to_owned)),
                Err(error) if error.kind() == ErrorKind::NotFound => {}
                Err(error) => return Err(error),
            }
        }
        parents.sort();
        parents.dedup();
        parents.iter().try_for_each(|parent| sync_folder(parent))
    }

    async fn blocking<T: Send + 'static>(
        &self,
        work: impl FnOnce(&Self) -> T + Send + 'static,
    ) -> Result<T, PortError> {
        let store = self.clone();
        tokio::task::spawn_blocking(move || work(&store)).await.map_err(PortError::indeterminate)
    }
}

fn sync_folder(folder: &Path) -> io::Result<()> {
    File::open(folder)?.sync_all()
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
        let read = self.blocking(move |store| store.get(&key, range)).await?;
        read.map_err(PortError::determinate)
    }

    async fn list(
        &self,
        prefix: &str,
        after: Option<&ObjectKey>,
        limit: NonZeroUsize,
    ) -> Result<Vec<ObjectMeta>, PortError> {
        let prefix = prefix.to_owned();
        let mut found = Vec::new();
        let found = self
            .blocking(move |store| {
                store.collect(&store.folder, "", &prefix, &mut found).map(|()| found)
            })
            .await?;
        let mut found = found.map_err(PortError::determinate)?;
        found.sort_by(|a, b| a.key.cmp(&b.key));
        let start = after.map_or(0, |after| found.partition_point(|object| object.key <= *after));
        Ok(found.into_iter().skip(start).take(limit.get()).collect())
    }

    async fn delete(&self, keys: &[ObjectKey]) -> Result<(), PortError> {
        let keys = keys.to_vec();
        self.blocking(move |store| store.remove(&keys)).await?.map_err(PortError::indeterminate)
    }
}
