//! Commits that leave their runs to the footer of their segment.
//!
//! What an entry says of batches grows with their number and is paid for by the kilobyte. The
//! footer of the segment says the same for nothing, so a commit of many batches names it by its
//! length and hash, and whoever applies the commit has it beforehand: from the broker that wrote
//! it, or from the store (`crate::footers`). Nothing is decided by that: the segment was whole
//! before its commit was appended, never changes, and is kept as long as the commit may have to be
//! applied once more (`life::sweeper`).

use std::ops::Range;

use bytes::Bytes;
use xxhash_rust::xxh3::xxh3_64;

use super::codec::decode_footer;
use super::{Command, Entry, Proposal, Run};
use crate::segment::{self, SegmentId};

/// Names the footer of a segment, and what stands in it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct FooterRef {
    /// The segment.
    pub segment: SegmentId,
    /// Its length in bytes.
    pub segment_bytes: u64,
    /// Length of the footer in bytes, without the trailer behind it.
    pub bytes: u32,
    /// Hash over its bytes (XXH3-64).
    pub hash: u64,
}

impl FooterRef {
    /// Longest footer that a commit leaves its runs to, in bytes: what a broker takes into memory
    /// to apply one command.
    pub const BYTES_MAX: u32 = 1024 * 1024;

    /// Names the footer that ends a segment of so many bytes.
    pub(crate) fn of(segment: SegmentId, segment_bytes: u64, footer: &[u8]) -> Self {
        let bytes = u32::try_from(footer.len()).unwrap_or(u32::MAX);
        Self { segment, segment_bytes, bytes, hash: xxh3_64(footer) }
    }

    /// Where it lies in the segment; `None` if there is no room for it.
    pub(crate) fn range(&self) -> Option<Range<u64>> {
        segment::footer_range(self.segment_bytes, self.bytes)
    }

    /// The runs that stand in these bytes, if they are the footer.
    pub(crate) fn open(&self, footer: Bytes) -> Option<Vec<Run>> {
        if Self::of(self.segment, self.segment_bytes, &footer) != *self {
            return None;
        }
        let (segment, blocks_end, runs) = decode_footer(footer).ok()?;
        (segment == self.segment && blocks_end == self.range()?.start).then_some(runs)
    }
}

impl Command {
    /// The footer that has to be read before this can be applied.
    fn lacks(&self) -> Option<&FooterRef> {
        match self {
            Self::CommitByFooter { footer, runs: None } => Some(footer),
            _ => None,
        }
    }
}

impl Entry {
    /// Whether no footer has to be read before it can be applied.
    pub fn is_whole(&self) -> bool {
        lacking(&self.proposals).next().is_none()
    }
}

/// The footers that have to be read before these can be applied.
pub(crate) fn lacking(proposals: &[Proposal]) -> impl Iterator<Item = &FooterRef> {
    proposals.iter().filter_map(|proposal| proposal.command.lacks())
}

/// Fills in what stands in the footers that were not read, in order, as far as that is known.
pub(crate) fn fill(
    proposals: &mut [Proposal],
    mut known: impl FnMut(&FooterRef) -> Option<Vec<Run>>,
) {
    for proposal in proposals {
        if let Command::CommitByFooter { footer, runs: runs @ None } = &mut proposal.command {
            *runs = known(footer);
        }
    }
}
