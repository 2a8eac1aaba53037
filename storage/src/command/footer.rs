//! Commands that leave most of what they say to a footer of their segment.
//!
//! What an entry says of batches grows with their number and is paid for by the kilobyte. The
//! footer of the segment says the same for nothing, so a commit of many batches names it by its
//! place, length and hash, and whoever applies the commit has it beforehand: from the broker that
//! wrote it, or from the store (`crate::footers`). Nothing is decided by that: the segment was
//! whole before its commit was appended, never changes, and is kept as long as the commit may have
//! to be applied once more (`life::sweeper`). A segment that others are rewritten to has further
//! footers before its last, which say what is replaced by what is in it.

use std::ops::Range;

use bytes::Bytes;
use xxhash_rust::xxh3::xxh3_64;

use super::codec::{decode_footer, decode_replacements, encode_footer, encode_replacements};
use super::{Command, Entry, Proposal};
use crate::segment::SegmentId;

/// Names a footer of a segment, and what stands in it.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct FooterRef {
    /// The segment.
    pub segment: SegmentId,
    /// Its length in bytes.
    pub segment_bytes: u64,
    /// First byte of the footer in the segment.
    pub position: u64,
    /// Length of the footer in bytes.
    pub bytes: u32,
    /// Hash over its bytes (XXH3-64).
    pub hash: u64,
}

impl FooterRef {
    /// What takes more bytes than this is left to a footer where entries are paid for by the
    /// kilobyte: whoever was not told of it has to read it, which costs as much as one of them.
    pub const LEFT_BYTES_MIN: u32 = 2 * 1024;

    /// Longest footer that a command is left to, in bytes: what a broker takes into memory to apply
    /// one command.
    pub const BYTES_MAX: u32 = 1024 * 1024;

    /// Names a footer of a segment of so many bytes.
    pub(crate) fn of(segment: SegmentId, segment_bytes: u64, position: u64, footer: &[u8]) -> Self {
        let bytes = u32::try_from(footer.len()).unwrap_or(u32::MAX);
        Self { segment, segment_bytes, position, bytes, hash: xxh3_64(footer) }
    }

    /// Where it lies in the segment; `None` if there is no room for it.
    pub(crate) fn range(&self) -> Option<Range<u64>> {
        let end = self.position.checked_add(u64::from(self.bytes))?;
        (end <= self.segment_bytes).then_some(self.position..end)
    }

    /// Whether these bytes are the footer.
    pub(crate) fn names(&self, footer: &[u8]) -> bool {
        Self::of(self.segment, self.segment_bytes, self.position, footer) == *self
    }
}

impl Command {
    /// The footer that it leaves something to.
    pub(crate) fn footer(&self) -> Option<&FooterRef> {
        match self {
            Self::CommitByFooter { footer, .. } | Self::ReplaceByFooter { footer, .. } => {
                Some(footer)
            }
            _ => None,
        }
    }

    /// The footer that has to be read before this can be applied.
    fn lacks(&self) -> Option<&FooterRef> {
        match self {
            Self::CommitByFooter { footer, runs: None }
            | Self::ReplaceByFooter { footer, replacements: None, .. } => Some(footer),
            _ => None,
        }
    }

    /// Fills in what stands in its footer, if these bytes are that.
    pub(crate) fn read_footer(&mut self, bytes: Bytes) {
        match self {
            Self::CommitByFooter { footer, runs } if footer.names(&bytes) => {
                if let Ok((segment, blocks_end, read)) = decode_footer(bytes)
                    && (segment, blocks_end) == (footer.segment, footer.position)
                {
                    *runs = Some(read);
                }
            }
            Self::ReplaceByFooter { footer, replacements, .. } if footer.names(&bytes) => {
                *replacements = decode_replacements(bytes).ok();
            }
            _ => {}
        }
    }

    /// Fills in what another command says that leaves the same to the same footer.
    pub(crate) fn fill_from(&mut self, other: &Self) {
        match (self, other) {
            (
                Self::CommitByFooter { footer, runs },
                Self::CommitByFooter { footer: same, runs: known },
            ) if footer == same => runs.clone_from(known),
            (
                Self::ReplaceByFooter { footer, replacements, .. },
                Self::ReplaceByFooter { footer: same, replacements: known, .. },
            ) if footer == same => replacements.clone_from(known),
            _ => {}
        }
    }

    /// The bytes of its footer, if what stands in it is known.
    pub(crate) fn write_footer(&self) -> Option<Vec<u8>> {
        match self {
            Self::CommitByFooter { footer, runs } => {
                Some(encode_footer(footer.segment, footer.position, runs.as_ref()?.iter()))
            }
            Self::ReplaceByFooter { replacements, .. } => {
                Some(encode_replacements(replacements.as_ref()?))
            }
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

/// Fills in what stands in the footers that were not read, in order, as far as their bytes are
/// known.
pub(crate) fn fill(proposals: &mut [Proposal], mut known: impl FnMut(&FooterRef) -> Option<Bytes>) {
    for Proposal { command, .. } in proposals {
        if let Some(bytes) = command.lacks().and_then(&mut known) {
            command.read_footer(bytes);
        }
    }
}
