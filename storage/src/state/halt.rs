//! Why a broker stops following the log.

use uuid::Uuid;

use super::FEATURE_LEVEL;
use crate::command::Digest;
use crate::lsn::Lsn;
use crate::segment::SegmentId;

/// Why an entry can't be applied at all. The broker that meets one stops: what it holds and what
/// the log says have parted.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum Halt {
    /// Entries are applied in order, without holes.
    #[error("entry {found} where {expected} follows")]
    Gap {
        /// The entry's own position.
        found: Lsn,
        /// The position after the last applied.
        expected: Lsn,
    },
    /// The entry was written by somebody who had read another history.
    #[error("entry {lsn} follows another entry than the one that was applied")]
    Chain {
        /// The entry's position.
        lsn: Lsn,
    },
    /// The log was swapped, or restored from a backup.
    #[error("entry {lsn} belongs to log {found}, not {expected}")]
    OtherLog {
        /// The entry's position.
        lsn: Lsn,
        /// The id in the entry.
        found: Uuid,
        /// The id this state began with.
        expected: Uuid,
    },
    /// Written by a later release.
    #[error("entry {lsn} needs feature level {needed}; this release knows {FEATURE_LEVEL}")]
    Level {
        /// The entry's position.
        lsn: Lsn,
        /// The level it names.
        needed: u32,
    },
    /// Its commit leaves the runs to the footer of a segment, which was not read. Nothing is wrong
    /// with the entry: it can be applied once the footer was.
    #[error("entry {lsn} needs the footer of segment {segment}")]
    NoFooter {
        /// The entry's position.
        lsn: Lsn,
        /// The segment.
        segment: SegmentId,
    },
    /// Another broker, having applied the same entries, holds another state.
    #[error("state before entry {lsn} has digest {found}, its author had {expected}")]
    Diverged {
        /// The entry's position.
        lsn: Lsn,
        /// Digest of this state.
        found: Digest,
        /// Digest in the entry.
        expected: Digest,
    },
}
