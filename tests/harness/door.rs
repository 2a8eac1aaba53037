//! The door of a broker: what its process is to the rest of the world.
//!
//! While it is *stopped*, as a process is by a signal, nothing passes it: no request, no answer, no
//! call to the log or the store; timers inside go on, which is worse than what happens to a process
//! whose timers all fire when it wakes. While it *refuses*, nobody can connect; when it *hangs up*,
//! whoever waits for an answer gets none.

use std::num::NonZeroUsize;
use std::ops::Range;
use std::sync::{Arc, Mutex};

use async_trait::async_trait;
use bytes::Bytes;
use odradek_storage::key::ObjectKey;
use odradek_storage::log::faulty::FaultyLog;
use odradek_storage::log::{Append, Freshness, LogRead, MetadataLog};
use odradek_storage::lsn::Lsn;
use odradek_storage::object::faulty::FaultyObjectStore;
use odradek_storage::object::{ObjectMeta, ObjectStore, Put};
use odradek_storage::port::PortError;
use odradek_storage::snapshot::SNAPSHOT_PREFIX;
use tokio::sync::Notify;

/// Who waits at it goes on in the order in which they came: a `watch` wakes in a random one.
#[derive(Clone, Debug, Default)]
pub(crate) struct Door {
    state: Arc<Mutex<DoorState>>,
    changed: Arc<Notify>,
}

#[derive(Clone, Copy, Debug, Default)]
pub(crate) struct DoorState {
    /// Whether nothing passes.
    pub(crate) is_stopped: bool,
    /// Whether nobody can connect.
    pub(crate) refuses: bool,
    /// Snapshots on their way to the store.
    pub(crate) snapshots: usize,
    /// How often it has hung up.
    pub(crate) hung_up: u64,
}

impl Door {
    /// Waits while the broker is stopped.
    pub(crate) async fn pass(&self) {
        self.until(|state| !state.is_stopped).await;
    }

    pub(crate) async fn until(&self, is_so: impl Fn(DoorState) -> bool) {
        loop {
            let changed = self.changed.notified();
            if is_so(self.state()) {
                return;
            }
            changed.await;
        }
    }

    pub(crate) fn state(&self) -> DoorState {
        *self.state.lock().unwrap()
    }

    pub(crate) fn change(&self, change: impl FnOnce(&mut DoorState)) {
        change(&mut self.state.lock().unwrap());
        self.changed.notify_waiters();
    }

    /// Lets a call out, and its answer in: what is on its way lands while the broker is stopped.
    pub(crate) async fn meet<T>(&self, call: impl Future<Output = T> + Send) -> T {
        self.pass().await;
        let answer = call.await;
        self.pass().await;
        answer
    }
}

/// The log as a process sees it that may be stopped.
#[derive(Debug)]
pub(crate) struct StoppedLog {
    pub(crate) inner: FaultyLog,
    pub(crate) door: Door,
}

#[async_trait]
impl MetadataLog for StoppedLog {
    async fn append(&self, at: Lsn, bytes: Bytes) -> Result<Append, PortError> {
        self.door.meet(self.inner.append(at, bytes)).await
    }

    async fn read(
        &self,
        from: Lsn,
        limit: NonZeroUsize,
        freshness: Freshness,
    ) -> Result<LogRead, PortError> {
        self.door.meet(self.inner.read(from, limit, freshness)).await
    }

    async fn tail(&self) -> Result<Lsn, PortError> {
        self.door.meet(self.inner.tail()).await
    }

    async fn trim(&self, before: Lsn) -> Result<(), PortError> {
        self.door.meet(self.inner.trim(before)).await
    }
}

/// The store as a process sees it that may be stopped.
#[derive(Debug)]
pub(crate) struct StoppedStore {
    pub(crate) inner: FaultyObjectStore,
    pub(crate) door: Door,
}

#[async_trait]
impl ObjectStore for StoppedStore {
    async fn put_if_absent(&self, key: &ObjectKey, bytes: Bytes) -> Result<Put, PortError> {
        if !key.as_str().starts_with(SNAPSHOT_PREFIX) {
            return self.door.meet(self.inner.put_if_absent(key, bytes)).await;
        }
        self.door.change(|door| door.snapshots += 1);
        let put = self.door.meet(self.inner.put_if_absent(key, bytes)).await;
        self.door.change(|door| door.snapshots -= 1);
        put
    }

    async fn get_range(
        &self,
        key: &ObjectKey,
        range: Range<u64>,
    ) -> Result<Option<Bytes>, PortError> {
        self.door.meet(self.inner.get_range(key, range)).await
    }

    async fn list(
        &self,
        prefix: &str,
        after: Option<&ObjectKey>,
        limit: NonZeroUsize,
    ) -> Result<Vec<ObjectMeta>, PortError> {
        self.door.meet(self.inner.list(prefix, after, limit)).await
    }

    async fn delete(&self, keys: &[ObjectKey]) -> Result<(), PortError> {
        self.door.meet(self.inner.delete(keys)).await
    }
}
