//! The catalogue of promises that the code checks about itself, in release builds too.
//!
//! Bad input is an error or a rejection; a broken invariant is a bug, and a broker stops at it
//! rather than acknowledge anything on top. Port invariants (OBJ-n, LOG-n) are listed on their
//! traits, where the conformance suites hold backends to them.

use std::fmt;

/// Names one promise.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum InvariantId {
    /// Extents of a partition are contiguous, from the log start offset to the high watermark.
    Part1,
    /// The high watermark never moves back.
    Part2,
    /// A segment has as many references as there are extents that lie in it.
    Seg1,
    /// A partition's open transactions are those that have records in it.
    Txn1,
    /// A command changes the state at most once, however often it stands in the log.
    Cmd1,
    /// An outcome reaches the proposer of its command, and no one else.
    Mach1,
    /// Segments of one broker are committed in the order in which they were sealed.
    Write1,
}

impl fmt::Display for InvariantId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Part1 => "PART-1",
            Self::Part2 => "PART-2",
            Self::Seg1 => "SEG-1",
            Self::Txn1 => "TXN-1",
            Self::Cmd1 => "CMD-1",
            Self::Mach1 => "MACH-1",
            Self::Write1 => "WRITE-1",
        })
    }
}

/// Stops the broker if a promise is broken.
#[macro_export]
macro_rules! check {
    ($id:expr, $holds:expr, $($fact:tt)+) => {
        assert!($holds, "{} is broken: {}", $id, format_args!($($fact)+));
    };
}
