//! The position of an entry in the metadata log: the one word that ports, core and engine share.

use std::fmt;

/// Position of one entry in the metadata log.
///
/// Positions are dense and start at 1: a follower that holds `n` knows that the next entry is
/// `n + 1`, and that a hole is corruption rather than delay.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Lsn(u64);

impl Lsn {
    /// Before the first entry: what a replica has applied when it has applied nothing.
    pub const ZERO: Self = Self(0);
    /// The first entry of every log.
    pub const FIRST: Self = Self(1);

    /// The position with this number.
    pub const fn new(number: u64) -> Self {
        Self(number)
    }

    /// The number of the position.
    pub const fn get(self) -> u64 {
        self.0
    }

    /// The position after this one.
    #[must_use]
    pub const fn next(self) -> Self {
        Self(self.0 + 1)
    }

    /// The position before this one; zero stays zero.
    #[must_use]
    pub const fn prev(self) -> Self {
        Self(self.0.saturating_sub(1))
    }
}

impl fmt::Display for Lsn {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.fmt(f)
    }
}
