//! Looking at a cluster without being a part of it.
//!
//! A [`Look`] reads both ports and can't write to either: it registers nowhere, claims nothing, and
//! disturbs no broker. Owns how the state is had that way, and how often a call is repeated that
//! was not answered. What is made of it is for `fsck` and `inspect`.

use std::num::NonZeroUsize;
use std::ops::Range;
use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;

use crate::command::codec::CodecError;
use crate::command::{Digest, Entry, EntryHash};
use crate::footers;
use crate::key::ObjectKey;
use crate::log::{Freshness, LogRead, MetadataLog};
use crate::lsn::Lsn;
use crate::machine::{claim, snapshots};
use crate::object::{ObjectMeta, ObjectStore};
use crate::port::PortError;
use crate::replica::{self, FollowError};
use crate::segment::SegmentId;
use crate::snapshot::{SNAPSHOT_PREFIX, snapshot_lsn};
use crate::state::{Halt, State};

/// How often a call is made that is not answered.
const ATTEMPTS_MAX: u32 = 10;

/// Time between two attempts.
const RETRY_INTERVAL: Duration = Duration::from_millis(500);

/// How often a look begins anew because a broker trimmed the log or deleted snapshots meanwhile.
const LOOKS_MAX: u32 = 5;

/// Entries read at once.
const ENTRIES_MAX: NonZeroUsize = NonZeroUsize::new(256).unwrap();

/// Objects listed at once.
const LIST_MAX: NonZeroUsize = NonZeroUsize::new(10_000).unwrap();

/// Why there is nothing to be seen.
#[derive(Debug, thiserror::Error)]
pub enum LookError {
    /// The object store does not give what it has.
    #[error("the object store can't be read: {0}")]
    Objects(PortError),
    /// The log does not give what it has.
    #[error("the log can't be read: {0}")]
    Log(PortError),
    /// There never was a cluster.
    #[error("the log is empty: no broker has ever used it")]
    Empty,
    /// The objects belong to another log.
    #[error("the store and the log are not of one cluster: the store says {found:?}")]
    Foreign {
        /// What the store says whose it is.
        found: String,
    },
    /// The log begins behind what any good snapshot covers.
    #[error("the log begins at {floor}, but the newest good snapshot ends at {snapshot}")]
    NoSnapshot {
        /// The oldest entry there is.
        floor: Lsn,
        /// What the newest good snapshot covers; zero if there is none.
        snapshot: Lsn,
    },
    /// The log ends before a snapshot of it does.
    #[error("the log ends at {tail}, but a snapshot of it ends at {snapshot}")]
    LogBehindSnapshot {
        /// The first free slot.
        tail: Lsn,
        /// What the snapshot covers.
        snapshot: Lsn,
    },
    /// An entry can't be read.
    #[error("entry {lsn} of the log can't be read: {cause}")]
    Entry {
        /// Which.
        lsn: Lsn,
        /// Why.
        cause: CodecError,
    },
    /// An entry needs the footer of a segment that is not in the store.
    #[error("entry {lsn} needs the footer of segment {segment}, which is gone or damaged")]
    NoFooter {
        /// Which.
        lsn: Lsn,
        /// The segment.
        segment: SegmentId,
    },
    /// An entry can't be applied.
    #[error("the log can't be applied: {0}")]
    Halt(#[from] Halt),
}

impl LookError {
    /// Whether it may be that there is a newer snapshot by now.
    fn is_behind(&self) -> bool {
        matches!(self, Self::NoSnapshot { .. } | Self::NoFooter { .. })
    }

    /// Whether it says that something is damaged, and not only that it could not be reached.
    pub fn is_damage(&self) -> bool {
        match self {
            Self::Log(PortError::Broken(_))
            | Self::NoSnapshot { .. }
            | Self::LogBehindSnapshot { .. }
            | Self::NoFooter { .. }
            | Self::Entry { .. } => true,
            // An entry of a later release is whole.
            Self::Halt(halt) => !matches!(halt, Halt::Level { .. }),
            Self::Objects(_) | Self::Log(_) | Self::Empty | Self::Foreign { .. } => false,
        }
    }
}

/// A snapshot that was looked at.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct SnapshotSeen {
    /// The object.
    pub key: ObjectKey,
    /// Its length in bytes.
    pub bytes: u64,
    /// What it holds, or what is wrong with it.
    pub judged: Result<SnapshotHead, String>,
}

/// What a snapshot says of itself.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct SnapshotHead {
    /// The last entry in it.
    pub lsn: Lsn,
    /// Digest of its state.
    pub digest: Digest,
}

/// An entry that was looked at.
#[derive(Debug)]
pub struct EntrySeen {
    /// Its slot.
    pub lsn: Lsn,
    /// Its length as it is stored, in bytes.
    pub bytes: usize,
    /// Its hash, by which the next one is chained to it.
    pub hash: EntryHash,
    /// What it says, or why that can't be told.
    pub entry: Result<Entry, CodecError>,
}

/// Some entries, in order.
#[derive(Debug)]
pub enum Entries {
    /// These.
    Page {
        /// Consecutive entries from the one asked for; none at the tail.
        entries: Vec<EntrySeen>,
        /// Whether there is nothing behind them.
        at_tail: bool,
    },
    /// The log begins here, behind what was asked for.
    Trimmed(Lsn),
}

/// A look at a cluster from outside. Cheap to clone.
#[derive(Clone, Debug)]
pub struct Look {
    objects: Arc<dyn ObjectStore>,
    log: Arc<dyn MetadataLog>,
}

impl Look {
    /// A look at what is in these.
    pub fn new(objects: Arc<dyn ObjectStore>, log: Arc<dyn MetadataLog>) -> Self {
        Self { objects, log }
    }

    /// The state at the tail of the log, as it was at some moment during the call.
    pub async fn state(&self) -> Result<State, LookError> {
        let mut looks = 1;
        loop {
            match self.recover().await {
                // A broker may have trimmed the log behind a snapshot that was not there yet, or
                // deleted a segment that only entries behind it name.
                Err(error) if error.is_behind() && looks < LOOKS_MAX => looks += 1,
                Ok(state) if state.applied() == Lsn::ZERO => return Err(LookError::Empty),
                state => return state,
            }
        }
    }

    /// Brings a state to the tail of the log.
    pub async fn advance(&self, state: &mut State) -> Result<(), LookError> {
        match self.follow(state).await {
            Err(error) if error.is_behind() => {
                *state = self.state().await?;
                Ok(())
            }
            followed => followed,
        }
    }

    /// Every snapshot there is, looked at, oldest first.
    pub async fn snapshots(&self) -> Result<Vec<SnapshotSeen>, LookError> {
        let mut seen = Vec::new();
        for object in self.list_snapshots().await? {
            if let Some(judged) = self.snapshot(&object.key).await? {
                let head =
                    |state: State| SnapshotHead { lsn: state.applied(), digest: state.digest() };
                let ObjectMeta { key, size: bytes } = object;
                seen.push(SnapshotSeen { key, bytes, judged: judged.map(head) });
            }
        }
        Ok(seen)
    }

    /// The state in one snapshot, or what is wrong with it; `None` if it is not there (any more).
    pub async fn snapshot(
        &self,
        key: &ObjectKey,
    ) -> Result<Option<Result<State, String>>, LookError> {
        let bytes = self.object(key, 0..u64::MAX).await?;
        Ok(bytes.map(|bytes| snapshots::open(key, &bytes)))
    }

    /// Who claims the objects, if somebody does.
    pub async fn claimant(&self) -> Result<Option<String>, LookError> {
        let found = self.object(&claim::key(), 0..u64::MAX).await?;
        Ok(found.map(|found| claim::sentence(&found)))
    }

    /// Entries from `from` on; a page of them.
    pub async fn entries(&self, from: Lsn) -> Result<Entries, LookError> {
        Ok(match self.read(from).await.map_err(LookError::Log)? {
            LogRead::Trimmed(floor) => Entries::Trimmed(floor),
            LogRead::Entries { slots, at_tail } => {
                let seen = slots.iter().map(|slot| EntrySeen {
                    lsn: slot.lsn,
                    bytes: slot.bytes.len(),
                    hash: EntryHash::of(&slot.bytes),
                    entry: Entry::decode(&slot.bytes),
                });
                Entries::Page { entries: seen.collect(), at_tail }
            }
        })
    }

    /// All objects whose keys begin with `prefix`, in order.
    pub async fn list(&self, prefix: &str) -> Result<Vec<ObjectMeta>, LookError> {
        let mut found: Vec<ObjectMeta> = Vec::new();
        loop {
            let after = found.last().map(|object| object.key.clone());
            let list = || self.objects.list(prefix, after.as_ref(), LIST_MAX);
            let page = answered(list).await.map_err(LookError::Objects)?;
            let is_last = page.len() < LIST_MAX.get();
            found.extend(page);
            if is_last {
                return Ok(found);
            }
        }
    }

    /// A part of an object; `None` if there is no such object.
    pub async fn object(
        &self,
        key: &ObjectKey,
        range: Range<u64>,
    ) -> Result<Option<Bytes>, LookError> {
        let get = || self.objects.get_range(key, range.clone());
        answered(get).await.map_err(LookError::Objects)
    }

    async fn list_snapshots(&self) -> Result<Vec<ObjectMeta>, LookError> {
        let mut found = self.list(SNAPSHOT_PREFIX).await?;
        found.retain(|object| snapshot_lsn(&object.key).is_some());
        Ok(found)
    }

    async fn recover(&self) -> Result<State, LookError> {
        let mut state = State::new();
        for object in self.list_snapshots().await?.iter().rev() {
            if let Some(Ok(good)) = self.snapshot(&object.key).await? {
                state = good;
                break;
            }
        }
        let snapshot = state.applied();
        let tail = answered(|| self.log.tail()).await.map_err(LookError::Log)?;
        if tail <= snapshot {
            return Err(LookError::LogBehindSnapshot { tail, snapshot });
        }
        self.follow(&mut state).await?;
        Ok(state)
    }

    async fn follow(&self, state: &mut State) -> Result<(), LookError> {
        let snapshot = state.applied();
        let get = |key: ObjectKey, range: Range<u64>| async move {
            let get = || self.objects.get_range(&key, range.clone());
            footers::insist(|| answered(get)).await
        };
        let followed = replica::follow(state, |from| self.read(from), get).await;
        followed.map(drop).map_err(|error| match error {
            FollowError::Trimmed(floor) => LookError::NoSnapshot { floor, snapshot },
            FollowError::Entry { lsn, cause } => LookError::Entry { lsn, cause },
            FollowError::NoFooter { lsn, segment } => LookError::NoFooter { lsn, segment },
            FollowError::Halt(halt) => LookError::Halt(halt),
            FollowError::Log(error) => LookError::Log(error),
            FollowError::Objects(error) => LookError::Objects(error),
        })
    }

    async fn read(&self, from: Lsn) -> Result<LogRead, PortError> {
        answered(|| self.log.read(from, ENTRIES_MAX, Freshness::Latest)).await
    }
}

/// Repeats a call that only looks until the backend answers, or it is clear that it will not.
async fn answered<T, F>(mut call: impl FnMut() -> F) -> Result<T, PortError>
where
    F: Future<Output = Result<T, PortError>>,
{
    let mut attempts = 1;
    loop {
        match call().await {
            Err(PortError::Indeterminate(_)) if attempts < ATTEMPTS_MAX => {
                attempts += 1;
                tokio::time::sleep(RETRY_INTERVAL).await;
            }
            answer => return answer,
        }
    }
}
