//! Objects in memory: for tests, and for a broker whose data may go with it.

use std::collections::BTreeMap;
use std::fmt;
use std::num::NonZeroUsize;
use std::ops::{Bound, Range};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use async_trait::async_trait;
use bytes::Bytes;

use super::{ObjectKey, ObjectMeta, ObjectStore, Put};
use crate::port::PortError;

/// A store whose clones share one set of objects.
#[derive(Clone, Default)]
pub struct MemoryObjectStore {
    objects: Arc<Mutex<BTreeMap<ObjectKey, Bytes>>>,
}

impl MemoryObjectStore {
    fn lock(&self) -> MutexGuard<'_, BTreeMap<ObjectKey, Bytes>> {
        self.objects.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

#[async_trait]
impl ObjectStore for MemoryObjectStore {
    async fn put_if_absent(&self, key: &ObjectKey, bytes: Bytes) -> Result<Put, PortError> {
        let mut objects = self.lock();
        if objects.contains_key(key) {
            return Ok(Put::Exists);
        }
        objects.insert(key.clone(), bytes);
        Ok(Put::Created)
    }

    async fn get_range(
        &self,
        key: &ObjectKey,
        range: Range<u64>,
    ) -> Result<Option<Bytes>, PortError> {
        let objects = self.lock();
        let Some(bytes) = objects.get(key) else { return Ok(None) };
        let cut = |at: u64| usize::try_from(at).unwrap_or(usize::MAX).min(bytes.len());
        let (start, end) = (cut(range.start), cut(range.end));
        Ok(Some(bytes.slice(start..end.max(start))))
    }

    async fn list(
        &self,
        prefix: &str,
        after: Option<&ObjectKey>,
        limit: NonZeroUsize,
    ) -> Result<Vec<ObjectMeta>, PortError> {
        let objects = self.lock();
        let start = after.map_or(Bound::Unbounded, Bound::Excluded);
        let meta = |(key, bytes): (&ObjectKey, &Bytes)| ObjectMeta {
            key: key.clone(),
            size: u64::try_from(bytes.len()).unwrap_or(u64::MAX),
        };
        Ok(objects
            .range::<ObjectKey, _>((start, Bound::Unbounded))
            .filter(|(key, _)| key.as_str().starts_with(prefix))
            .take(limit.get())
            .map(meta)
            .collect())
    }

    async fn delete(&self, keys: &[ObjectKey]) -> Result<(), PortError> {
        let mut objects = self.lock();
        for key in keys {
            objects.remove(key);
        }
        Ok(())
    }
}

impl fmt::Debug for MemoryObjectStore {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("MemoryObjectStore").field("objects", &self.lock().len()).finish()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::object::conformance;

    #[tokio::test(flavor = "multi_thread", worker_threads = 4)]
    async fn memory_is_an_object_store() {
        conformance::check(MemoryObjectStore::default).await;
        conformance::check_despite_faults(MemoryObjectStore::default(), || async {}).await;
    }
}
