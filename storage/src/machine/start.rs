//! Where a machine begins: the newest good snapshot and the log behind it.

use std::ops::Range;
use std::time::Duration;

use crate::command::codec::CodecError;
use crate::engine::Ports;
use crate::footers;
use crate::log::Freshness;
use crate::lsn::Lsn;
use crate::machine::{HaltReason, claim, snapshots};
use crate::object::ObjectKey;
use crate::port::PortError;
use crate::replica::{self, FollowError};
use crate::segment::SegmentId;
use crate::state::{Halt, State};

/// Entries read at once while following.
pub(super) const READ_ENTRIES_MAX: std::num::NonZeroUsize =
    std::num::NonZeroUsize::new(256).unwrap();

/// Time between two attempts to reach the log or the store.
const RETRY_INTERVAL: Duration = Duration::from_millis(500);

/// How often log and store must say that they don't belong together.
const READINGS: u32 = 4;

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
    /// The objects belong to another log.
    #[error(
        "the store belongs to another cluster ({0}): give each cluster a prefix of its own, or \
             name the log and the store that belong together"
    )]
    ForeignObjects(String),
    /// The log has objects, and they are not here.
    #[error(
        "the log has its records in another store: name the store that belongs to it, or another \
             cluster"
    )]
    ObjectsElsewhere,
    /// The store lets a second writer have a name that is taken.
    #[error(
        "the store overwrites objects in spite of If-None-Match: records would be lost on it, use \
             one that honours conditional writes"
    )]
    Overwrites,
    /// An entry can't be read.
    #[error("entry {lsn} can't be read: {cause}")]
    Entry {
        /// Which.
        lsn: Lsn,
        /// Why.
        cause: CodecError,
    },
    /// An entry needs the footer of a segment that is not in the store.
    #[error(
        "entry {lsn} needs the footer of segment {segment}, which is gone or damaged, and no good \
             snapshot ends behind it"
    )]
    NoFooter {
        /// Which.
        lsn: Lsn,
        /// The segment.
        segment: SegmentId,
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

/// Where a machine goes on from.
#[derive(Debug)]
pub(super) struct Recovered {
    /// The state at the tail of the log.
    pub(super) state: State,
    /// The position of the snapshot it was made of; zero if there was none.
    pub(super) snapshot: Lsn,
    /// Its length in bytes.
    pub(super) snapshot_bytes: u64,
    /// Bytes of the entries behind it.
    pub(super) bytes: u64,
}

impl StartError {
    /// Whether it may be that the store gave a wrong answer: that something is not there which is,
    /// or other bytes than it has.
    fn is_hearsay(&self) -> bool {
        use StartError::{ForeignObjects, NoFooter, NoSnapshot, ObjectsElsewhere};
        let is_of_ports = matches!(self, ForeignObjects(_) | ObjectsElsewhere);
        is_of_ports || matches!(self, NoSnapshot { .. } | NoFooter { .. })
    }
}

/// The state at the tail of the log, once it is sure that log and objects belong together. That
/// they don't is believed when it was seen several times: a broker that ends is worse than one that
/// looks twice.
pub(super) async fn recover_own(ports: &Ports) -> Result<Recovered, StartError> {
    for _ in 1..READINGS {
        match recover_claimed(ports).await {
            Err(error) if error.is_hearsay() => {
                tracing::warn!(%error, "looking again");
                tokio::time::sleep(RETRY_INTERVAL).await;
            }
            answer => return answer,
        }
    }
    recover_claimed(ports).await
}

async fn recover_claimed(ports: &Ports) -> Result<Recovered, StartError> {
    let mut recovered = recover(ports).await?;
    let claimant = claim::claimant(&*ports.objects).await?;
    if recovered.state.log_id().is_nil() {
        let Some(claimant) = claimant else { return Ok(recovered) };
        // Another broker may have begun this very log meanwhile.
        recovered = recover(ports).await?;
        if recovered.state.log_id().is_nil() {
            return Err(StartError::ForeignObjects(claimant));
        }
    } else if claimant.is_none() && recovered.state.has_claimed_store() {
        return Err(StartError::ObjectsElsewhere);
    }
    claim::claim(&*ports.objects, recovered.state.log_id()).await?;
    Ok(recovered)
}

/// The state at the tail of the log, as it was at some moment during the call.
///
/// While this reads, others write snapshots, trim the log behind them and delete what is older, and
/// segments that only entries behind them name: whoever meets that looks for a newer snapshot and
/// starts over (RELIABILITY C5). There is one, because it was listed before; if not, it is lost.
async fn recover(ports: &Ports) -> Result<Recovered, StartError> {
    let mut tried = None;
    loop {
        let (state, length) =
            patiently("objects", || snapshots::newest(ports)).await.map_err(StartError::Objects)?;
        let snapshot = state.applied();
        let gone = match follow(ports, state).await {
            Ok(recovered) => return Ok(Recovered { snapshot_bytes: length, ..recovered }),
            Err(error @ (StartError::NoSnapshot { .. } | StartError::NoFooter { .. })) => error,
            Err(error) => return Err(error),
        };
        if tried.is_some_and(|tried| tried >= snapshot) {
            return Err(gone);
        }
        tracing::warn!(%snapshot, %gone, "what was to be read was deleted, starting over");
        tried = Some(snapshot);
    }
}

/// Follows the log to its tail.
async fn follow(ports: &Ports, mut state: State) -> Result<Recovered, StartError> {
    let snapshot = state.applied();
    let tail = patiently("log", || ports.log.tail()).await.map_err(StartError::Log)?;
    if tail <= snapshot {
        return Err(StartError::LogBehindSnapshot { tail, snapshot });
    }
    let read =
        |from| patiently("log", move || ports.log.read(from, READ_ENTRIES_MAX, Freshness::Latest));
    let get = |key: ObjectKey, range: Range<u64>| async move {
        let get = || ports.objects.get_range(&key, range.clone());
        footers::insist(|| patiently("objects", get)).await
    };
    match replica::follow(&mut state, read, get).await {
        Ok(bytes) => Ok(Recovered { state, snapshot, snapshot_bytes: 0, bytes }),
        Err(FollowError::Trimmed(floor)) => Err(StartError::NoSnapshot { floor, snapshot }),
        Err(FollowError::Entry { lsn, cause }) => Err(StartError::Entry { lsn, cause }),
        Err(FollowError::NoFooter { lsn, segment }) => Err(StartError::NoFooter { lsn, segment }),
        Err(FollowError::Halt(halt)) => Err(halt.into()),
        Err(FollowError::Log(error)) => Err(StartError::Log(error)),
        Err(FollowError::Objects(error)) => Err(StartError::Objects(error)),
    }
}

/// Repeats a call until the backend answers. An outage at start is waited for, and said; a definite
/// refusal is not.
pub(super) async fn patiently<T, F>(what: &str, mut call: impl FnMut() -> F) -> Result<T, PortError>
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

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use super::*;
    use crate::clock::ManualClock;
    use crate::command::BrokerAddress;
    use crate::log::memory::MemoryLog;
    use crate::machine::{Machine, MachineConfig};
    use crate::object::ObjectStore;
    use crate::object::faulty::{Faults, FaultyObjectStore};
    use crate::object::memory::MemoryObjectStore;
    use crate::peer::NoPeers;

    fn ports(objects: impl ObjectStore + 'static, log: &MemoryLog) -> Ports {
        Ports {
            objects: Arc::new(objects),
            log: Arc::new(log.clone()),
            clock: Arc::new(ManualClock::new(0)),
            peers: Arc::new(NoPeers),
        }
    }

    async fn start(ports: Ports, seed: u64) -> Result<Machine, StartError> {
        Machine::start(MachineConfig::default(), BrokerAddress::default(), ports, seed).await
    }

    #[tokio::test(start_paused = true)]
    async fn a_store_that_for_a_moment_denies_its_claim_ends_no_broker() {
        let (log, objects) = (MemoryLog::default(), MemoryObjectStore::default());
        start(ports(objects.clone(), &log), 1).await.unwrap().kill();
        let denies = Faults { not_found: 1.0, ..Faults::default() };
        let faulty = FaultyObjectStore::new(Arc::new(objects), 2, denies);
        let control = faulty.control().clone();
        let starting = tokio::spawn(start(ports(faulty, &log), 2));
        tokio::time::sleep(RETRY_INTERVAL + RETRY_INTERVAL / 2).await;
        assert!(!starting.is_finished());
        control.set(Faults::default());
        starting.await.unwrap().unwrap().kill();
    }

    #[tokio::test(start_paused = true)]
    async fn a_store_that_keeps_denying_it_is_another_one() {
        let log = MemoryLog::default();
        start(ports(MemoryObjectStore::default(), &log), 1).await.unwrap().kill();
        let error = start(ports(MemoryObjectStore::default(), &log), 2).await.err();
        assert!(matches!(error, Some(StartError::ObjectsElsewhere)), "{error:?}");
    }
}
