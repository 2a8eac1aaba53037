//! A log in memory: for tests, and for a broker whose data may go with it.

use std::collections::BTreeMap;
use std::fmt;
use std::num::NonZeroUsize;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use async_trait::async_trait;
use bytes::Bytes;

use super::{Append, ENTRY_BYTES_MAX, Freshness, LogRead, Lsn, MetadataLog, Slot};
use crate::port::PortError;

/// A log whose clones share one sequence of entries.
#[derive(Clone, Default)]
pub struct MemoryLog {
    contents: Arc<Mutex<Contents>>,
}

struct Contents {
    entries: BTreeMap<Lsn, Bytes>,
    floor: Lsn,
    tail: Lsn,
}

impl Default for Contents {
    fn default() -> Self {
        Self { entries: BTreeMap::new(), floor: Lsn::FIRST, tail: Lsn::FIRST }
    }
}

impl MemoryLog {
    fn lock(&self) -> MutexGuard<'_, Contents> {
        self.contents.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

#[async_trait]
impl MetadataLog for MemoryLog {
    async fn append(&self, at: Lsn, bytes: Bytes) -> Result<Append, PortError> {
        let mut log = self.lock();
        if bytes.len() > ENTRY_BYTES_MAX {
            return Err(PortError::determinate(format!("entry of {} bytes", bytes.len())));
        }
        if at < log.floor {
            return Ok(Append::Trimmed);
        }
        if let Some(found) = log.entries.get(&at) {
            return Ok(Append::Taken(found.clone()));
        }
        if at != log.tail {
            return Err(PortError::determinate(format!("{at} would leave a hole at {}", log.tail)));
        }
        log.entries.insert(at, bytes);
        log.tail = at.next();
        Ok(Append::Committed)
    }

    async fn read(
        &self,
        from: Lsn,
        limit: NonZeroUsize,
        _: Freshness,
    ) -> Result<LogRead, PortError> {
        let log = self.lock();
        if from < log.floor {
            return Ok(LogRead::Trimmed(log.floor));
        }
        let slot = |(lsn, bytes): (&Lsn, &Bytes)| Slot { lsn: *lsn, bytes: bytes.clone() };
        let slots: Vec<Slot> = log.entries.range(from..).take(limit.get()).map(slot).collect();
        let at_tail = slots.len() < limit.get();
        Ok(LogRead::Entries { slots, at_tail })
    }

    async fn tail(&self) -> Result<Lsn, PortError> {
        Ok(self.lock().tail)
    }

    async fn trim(&self, before: Lsn) -> Result<(), PortError> {
        let mut log = self.lock();
        if before > log.tail {
            return Err(PortError::determinate(format!("{before} is past the tail {}", log.tail)));
        }
        let floor = log.floor.max(before);
        log.floor = floor;
        log.entries = log.entries.split_off(&floor);
        Ok(())
    }
}

impl fmt::Debug for MemoryLog {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("MemoryLog").field("tail", &self.lock().tail).finish_non_exhaustive()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::log::conformance;

    #[tokio::test(flavor = "multi_thread", worker_threads = 4)]
    async fn memory_is_a_metadata_log() {
        conformance::check(MemoryLog::default).await;
        conformance::check_despite_faults(MemoryLog::default()).await;
    }
}
