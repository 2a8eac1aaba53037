//! Where a machine begins: the newest good snapshot and the log behind it.

use std::time::Duration;

use crate::command::codec::CodecError;
use crate::command::{Entry, EntryHash};
use crate::engine::Ports;
use crate::log::LogRead;
use crate::lsn::Lsn;
use crate::machine::HaltReason;
use crate::machine::snapshots;
use crate::port::PortError;
use crate::state::{Halt, State};

/// Entries read at once while following.
pub(super) const READ_ENTRIES_MAX: std::num::NonZeroUsize =
    std::num::NonZeroUsize::new(256).unwrap();

/// Time between two attempts to reach the log or the store.
const RETRY_INTERVAL: Duration = Duration::from_millis(500);

/// Why a machine can't start.
#[derive(Debug, thiserror::Error)]
pub enum StartError {
    /// The log was trimmed further than any good snapshot reaches.
    #[error("the log begins at {floor}, but the newest good snapshot ends at {snapshot}")]
    NoSnapshot {
        /// The oldest entry there is.
        floor: Lsn,
        /// What the snapshot covers; zero if there is none.
        snapshot: Lsn,
    },
    /// The log ends before a snapshot of it does: it was swapped, or some of it was lost.
    #[error(
        "the log ends at {tail}, but a snapshot of it ends at {snapshot}: log and objects are \
             not of one cluster, or the log has lost entries"
    )]
    LogBehindSnapshot {
        /// The first free slot.
        tail: Lsn,
        /// What the snapshot covers.
        snapshot: Lsn,
    },
    /// An entry can't be read.
    #[error("entry {lsn} can't be read: {cause}")]
    Entry {
        /// Which.
        lsn: Lsn,
        /// Why.
        cause: CodecError,
    },
    /// An entry can't be applied.
    #[error("entry can't be applied: {0}")]
    Halt(#[from] Halt),
    /// The machine stopped while it registered.
    #[error("{0}")]
    Halted(HaltReason),
    /// The backend says that there is nothing to be had from it.
    #[error("the log can't be read: {0}")]
    Log(PortError),
    /// The backend says that there is nothing to be had from it.
    #[error("the object store can't be read: {0}")]
    Objects(PortError),
}

/// The state at the tail of the log, as it was at some moment during the call.
pub(super) async fn recover(ports: &Ports) -> Result<State, StartError> {
    let mut state =
        patiently("objects", || snapshots::newest(ports)).await.map_err(StartError::Objects)?;
    let snapshot = state.applied();
    let tail = patiently("log", || ports.log.tail()).await.map_err(StartError::Log)?;
    if tail <= snapshot {
        return Err(StartError::LogBehindSnapshot { tail, snapshot });
    }
    loop {
        let from = state.applied().next();
        let read = patiently("log", || ports.log.read(from, READ_ENTRIES_MAX)).await;
        let entries = match read.map_err(StartError::Log)? {
            LogRead::Entries(entries) => entries,
            LogRead::Trimmed(floor) => return Err(StartError::NoSnapshot { floor, snapshot }),
        };
        if entries.is_empty() {
            return Ok(state);
        }
        for slot in entries {
            let entry = Entry::decode(&slot.bytes)
                .map_err(|cause| StartError::Entry { lsn: slot.lsn, cause })?;
            state.apply(&entry, EntryHash::of(&slot.bytes))?;
        }
    }
}

/// Repeats a call until the backend answers. An outage at start is waited for, and said; a definite
/// refusal is not.
async fn patiently<T, F>(what: &str, mut call: impl FnMut() -> F) -> Result<T, PortError>
where
    F: Future<Output = Result<T, PortError>>,
{
    loop {
        match call().await {
            Err(error @ PortError::Indeterminate(_)) => {
                tracing::warn!(%error, "waiting for {what}");
                tokio::time::sleep(RETRY_INTERVAL).await;
            }
            answer => return answer,
        }
    }
}
