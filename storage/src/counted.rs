//! Ports between the engine and the ports it was given, which count what is asked of them and how
//! long the answers take; likewise the way to other brokers. They change nothing.

use std::num::NonZeroUsize;
use std::ops::Range;
use std::sync::Arc;

use async_trait::async_trait;
use bytes::Bytes;
use tokio::time::Instant;

use crate::command::Endpoint;
use crate::counts::{Calls, PortCounts};
use crate::engine::Ports;
use crate::key::ObjectKey;
use crate::log::{Append, Freshness, LogRead, MetadataLog};
use crate::lsn::Lsn;
use crate::object::{ObjectMeta, ObjectStore, Put};
use crate::peer::blocks::BlockAnswer;
use crate::peer::{PeerLink, PeerMessage};
use crate::port::PortError;

/// The same ports, counted.
pub(crate) fn counted(ports: Ports) -> (Ports, Arc<PortCounts>) {
    let counts = Arc::new(PortCounts::default());
    let objects = CountedStore { inner: ports.objects, counts: Arc::clone(&counts) };
    let log = CountedLog { inner: ports.log, counts: Arc::clone(&counts) };
    let peers = Arc::new(CountedPeers { inner: ports.peers, counts: Arc::clone(&counts) });
    let ports = Ports { objects: Arc::new(objects), log: Arc::new(log), peers, ..ports };
    (ports, counts)
}

#[derive(Clone, Debug)]
struct CountedStore {
    inner: Arc<dyn ObjectStore>,
    counts: Arc<PortCounts>,
}

#[derive(Clone, Debug)]
struct CountedLog {
    inner: Arc<dyn MetadataLog>,
    counts: Arc<PortCounts>,
}

#[derive(Clone, Debug)]
struct CountedPeers {
    inner: Arc<dyn PeerLink>,
    counts: Arc<PortCounts>,
}

/// A call under way. Dropped before it is answered, it has an unknown outcome.
struct Call<'a> {
    calls: &'a Calls,
    began: Instant,
    is_answered: bool,
}

impl<'a> Call<'a> {
    fn begin(calls: &'a Calls) -> Self {
        Self { calls, began: Instant::now(), is_answered: false }
    }

    fn end<T>(mut self, answer: Result<T, PortError>) -> Result<T, PortError> {
        self.is_answered = true;
        match &answer {
            Ok(_) => self.calls.answered.add(self.began.elapsed()),
            Err(error) => self.calls.fail(error),
        }
        answer
    }
}

impl Drop for Call<'_> {
    fn drop(&mut self) {
        if !self.is_answered {
            self.calls.unknown.add(1);
        }
    }
}

#[async_trait]
impl ObjectStore for CountedStore {
    async fn put_if_absent(&self, key: &ObjectKey, bytes: Bytes) -> Result<Put, PortError> {
        let call = Call::begin(&self.counts.put);
        self.counts.put.bytes.add_len(bytes.len());
        call.end(self.inner.put_if_absent(key, bytes).await)
    }

    async fn get_range(
        &self,
        key: &ObjectKey,
        range: Range<u64>,
    ) -> Result<Option<Bytes>, PortError> {
        let call = Call::begin(&self.counts.get);
        let got = call.end(self.inner.get_range(key, range).await)?;
        self.counts.get.bytes.add_len(got.as_ref().map_or(0, Bytes::len));
        Ok(got)
    }

    async fn list(
        &self,
        prefix: &str,
        after: Option<&ObjectKey>,
        limit: NonZeroUsize,
    ) -> Result<Vec<ObjectMeta>, PortError> {
        Call::begin(&self.counts.list).end(self.inner.list(prefix, after, limit).await)
    }

    async fn delete(&self, keys: &[ObjectKey]) -> Result<(), PortError> {
        Call::begin(&self.counts.delete).end(self.inner.delete(keys).await)
    }
}

#[async_trait]
impl PeerLink for CountedPeers {
    fn send(&self, endpoint: &Endpoint, message: PeerMessage) {
        self.inner.send(endpoint, message);
    }

    async fn ask(
        &self,
        endpoint: &Endpoint,
        question: PeerMessage,
    ) -> Result<BlockAnswer, PortError> {
        let call = Call::begin(&self.counts.ask);
        let answer = call.end(self.inner.ask(endpoint, question).await)?;
        self.counts.ask.bytes.add_len(answer.content_bytes());
        Ok(answer)
    }
}

#[async_trait]
impl MetadataLog for CountedLog {
    async fn append(&self, at: Lsn, bytes: Bytes) -> Result<Append, PortError> {
        let call = Call::begin(&self.counts.append);
        self.counts.append.bytes.add_len(bytes.len());
        call.end(self.inner.append(at, bytes).await)
    }

    async fn read(
        &self,
        from: Lsn,
        limit: NonZeroUsize,
        freshness: Freshness,
    ) -> Result<LogRead, PortError> {
        let call = Call::begin(&self.counts.read);
        let read = call.end(self.inner.read(from, limit, freshness).await)?;
        if let LogRead::Entries { slots, .. } = &read {
            slots.iter().for_each(|slot| self.counts.read.bytes.add_len(slot.bytes.len()));
        }
        Ok(read)
    }

    async fn tail(&self) -> Result<Lsn, PortError> {
        Call::begin(&self.counts.tail).end(self.inner.tail().await)
    }

    async fn trim(&self, before: Lsn) -> Result<(), PortError> {
        Call::begin(&self.counts.trim).end(self.inner.trim(before).await)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::log::memory::MemoryLog;
    use crate::object::memory::MemoryObjectStore;
    use crate::{log, object};

    fn store() -> CountedStore {
        let inner = Arc::new(MemoryObjectStore::default());
        CountedStore { inner, counts: Arc::default() }
    }

    fn log() -> CountedLog {
        CountedLog { inner: Arc::new(MemoryLog::default()), counts: Arc::default() }
    }

    #[tokio::test(flavor = "multi_thread", worker_threads = 4)]
    async fn what_is_counted_is_a_store_and_a_log_all_the_same() {
        object::conformance::check(store).await;
        log::conformance::check(log).await;
    }

    #[tokio::test]
    async fn calls_are_counted_with_their_bytes_and_what_became_of_them() {
        let log = log();
        for at in [1, 1, 2] {
            let appended = log.append(Lsn::new(at), Bytes::from_static(b"entry")).await;
            assert!(appended.is_ok());
        }
        assert!(log.append(Lsn::new(9), Bytes::new()).await.is_err());
        let limit = NonZeroUsize::MIN;
        assert!(log.read(Lsn::new(1), limit, Freshness::Latest).await.is_ok());
        drop(Call::begin(&log.counts.tail));
        let PortCounts { append, read, tail, .. } = &*log.counts;
        assert_eq!((append.answered.read().count, append.bytes.get()), (3, 15));
        assert_eq!((append.refused.get(), append.unknown.get()), (1, 0));
        assert_eq!((read.answered.read().count, read.bytes.get()), (1, 5));
        assert_eq!((tail.answered.read().count, tail.unknown.get()), (0, 1));
    }
}
