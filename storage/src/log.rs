//! The metadata log: the one place where the order of the cluster is decided.
//!
//! Owns slots, positions and the race for the next slot. Does not own what an entry means (see
//! `command`) nor the act of following the log (see `machine`). A log has a name, so that a cluster
//! can be spread over several; a value of this trait is one log.

use std::fmt;
use std::num::NonZeroUsize;

use async_trait::async_trait;
use bytes::Bytes;

pub use crate::lsn::Lsn;
use crate::port::PortError;

#[cfg(any(test, feature = "test-util"))]
pub mod conformance;
pub mod dynamodb;
#[cfg(any(test, feature = "test-util"))]
pub mod faulty;
pub mod file;
pub mod memory;

/// Longest entry that every backend takes, in bytes: below the 400 KB of a DynamoDB item with room
/// for the names of its attributes.
pub const ENTRY_BYTES_MAX: usize = 384 * 1024;

/// The answer of the log to an append. Losing the race is an answer, not an error.
#[must_use]
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Append {
    /// The slot was free. It now holds the entry, durably and for good.
    Committed,
    /// The slot already holds this entry, perhaps the caller's own from an earlier attempt.
    Taken(Bytes),
    /// The slot lies below the trim floor. The caller slept too long and knows less than a
    /// snapshot.
    Trimmed,
}

/// How fresh a read has to be.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Freshness {
    /// Shows everything that anybody was answered before the call began (LOG-4).
    Latest,
    /// May be a moment behind, and never wrong in what it shows. Cheaper, where freshness is
    /// charged for: for looking whether there is something new, not for whoever must know that
    /// there is not.
    Recent,
}

/// One entry as the log gives it back.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Slot {
    /// The slot that was won.
    pub lsn: Lsn,
    /// The bytes that won it.
    pub bytes: Bytes,
}

/// What a read found.
#[must_use]
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum LogRead {
    /// What is there.
    Entries {
        /// Consecutive entries from the position asked for.
        slots: Vec<Slot>,
        /// Whether the slot behind them was free at some moment during the call. Without it a
        /// reader that is slower than the writers would never know that it has read everything.
        at_tail: bool,
    },
    /// The position lies below the trim floor, which is given: the oldest entry there still is, or
    /// the tail.
    Trimmed(Lsn),
}

/// A totally ordered log of small entries, shared by every broker of a cluster.
///
/// A backend is done when it passes `log::conformance`. The contract, by invariant:
///
/// - **LOG-1 single winner.** At most one append per slot ever answers `Committed`.
/// - **LOG-2 no holes.** A caller appends only right after an entry it has read; a backend that can
///   check this cheaply refuses anything else as `Determinate`.
/// - **LOG-3 durable before visible.** `read` never shows an entry that could still be lost.
/// - **LOG-4 answers are facts.** Once any broker got an answer for slot `n`, every later `read`
///   from `n`, on any broker, shows that slot filled (or trimmed). A `Recent` read may fall short
///   of this, never past a hole.
/// - **LOG-5 trimmed stays trimmed.** An append below the trim floor never answers `Committed`: a
///   put-if-absent log forgets what it deleted, so a floor is made durable before anything goes.
///
/// ```text
///    1 ......... floor ............... tail
///    |  trimmed    |  entries, dense    |  first free slot
/// ```
///
/// SUBTLE: an append that failed as `Indeterminate` can still land after the caller saw the error.
/// The caller therefore repeats the same bytes at the same slot until the log answers. On `Taken`
/// it compares, because the entry that beat it may be its own first attempt. It never moves to the
/// next slot with an unanswered append behind it.
#[async_trait]
pub trait MetadataLog: fmt::Debug + Send + Sync {
    /// Writes `bytes` into slot `at` if that slot is free.
    ///
    /// More than [`ENTRY_BYTES_MAX`] bytes are refused as `Determinate`.
    async fn append(&self, at: Lsn, bytes: Bytes) -> Result<Append, PortError>;

    /// Returns up to `limit` consecutive entries from `from` on, oldest first. A backend may return
    /// fewer, but none only at the tail; past the tail there are none.
    async fn read(
        &self,
        from: Lsn,
        limit: NonZeroUsize,
        freshness: Freshness,
    ) -> Result<LogRead, PortError>;

    /// Returns the first free slot at some moment during the call.
    async fn tail(&self) -> Result<Lsn, PortError>;

    /// Forgets every entry before `before`. Idempotent, never lowers the floor; past the tail it is
    /// refused as `Determinate`.
    async fn trim(&self, before: Lsn) -> Result<(), PortError>;
}
