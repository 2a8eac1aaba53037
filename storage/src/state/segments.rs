//! Segments: which objects are referred to, and how often.
//!
//! References are counted from the first day on, because a topic can be branched: an extent that
//! two topics share keeps its segment alive until both have let go. A segment that nothing refers
//! to any more waits here until it is swept.
//!
//! ```text
//!    put -> committed, referred to -> unreferenced -> deleted -> forgotten
//!       \-> never committed: an orphan -> deleted, when it was begun below the horizon
//! ```
//!
//! An object may be deleted when nothing refers to it and nothing ever will: it was begun below the
//! horizon, so that no commit of it is taken any more. No clock decides that, and a broker that was
//! slow loses a commit, never what it acknowledged.

use std::collections::BTreeMap;

use bytes::Bytes;

use crate::check;
use crate::command::Rejection;
use crate::invariant::InvariantId;
use crate::lsn::Lsn;
use crate::segment::SegmentId;

/// What is known of a segment.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct SegmentRefs {
    /// Its length in bytes.
    pub bytes: u64,
    /// Extents that lie in it (SEG-1).
    pub references: u64,
    /// How often what is in it has been merged: 0 as it came, 1 once, [`LEVEL_LAST`] for good.
    pub level: u8,
    /// Its blocks, if they came with their commit: there is no object.
    pub inline: Option<Bytes>,
    /// Whether a commit has left its runs to the footer of the segment.
    pub by_footer: bool,
}

/// The level of what is not merged again.
pub const LEVEL_LAST: u8 = 2;

/// A segment that nothing refers to.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Unreferenced {
    /// Its length in bytes.
    pub bytes: u64,
    /// The entry that took the last reference, or committed it without any.
    pub since: Lsn,
    /// See `SegmentRefs::by_footer`. Then it is kept for those who have yet to apply that commit.
    pub by_footer: bool,
}

/// What a commit adds to a segment.
pub(crate) struct Committed {
    /// See [`SegmentRefs`].
    pub(crate) bytes: u64,
    pub(crate) level: u8,
    /// How many extents lie in it that did not before.
    pub(crate) references: u64,
    pub(crate) by_footer: bool,
}

/// The segments of the cluster.
///
/// - **SEG-1** `references` is the number of extents that lie in the segment, in topics that live
///   or are deleted and not purged.
/// - **SEG-2** what is forgotten was begun below the horizon, and nothing refers to it.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Segments {
    pub(crate) referenced: BTreeMap<SegmentId, SegmentRefs>,
    pub(crate) unreferenced: BTreeMap<SegmentId, Unreferenced>,
    pub(crate) horizon: Lsn,
    inline_bytes: u64,
}

impl Segments {
    /// Segments that extents lie in.
    pub fn referenced(&self) -> &BTreeMap<SegmentId, SegmentRefs> {
        &self.referenced
    }

    /// Segments that wait to be swept.
    pub fn unreferenced(&self) -> &BTreeMap<SegmentId, Unreferenced> {
        &self.unreferenced
    }

    /// Segments that were begun below it are not committed any more.
    pub fn horizon(&self) -> Lsn {
        self.horizon
    }

    /// Bytes of segments that the state holds itself.
    pub fn inline_bytes(&self) -> u64 {
        self.inline_bytes
    }

    /// The blocks of a segment that the state holds itself.
    pub fn inline(&self, id: SegmentId) -> Option<&Bytes> {
        self.referenced.get(&id)?.inline.as_ref()
    }

    /// Whether a segment is referred to, or waits to be swept.
    pub fn is_known(&self, id: SegmentId) -> bool {
        self.bytes_of(id).is_some()
    }

    pub(crate) fn raise_horizon(&mut self, to: Lsn) {
        self.horizon = self.horizon.max(to);
    }

    /// Whether a segment of this length may still be committed.
    pub(crate) fn admit(&self, id: SegmentId, bytes: u64) -> Result<(), Rejection> {
        if id.began < self.horizon {
            return Err(Rejection::SegmentTooOld { began: id.began, horizon: self.horizon });
        }
        if self.bytes_of(id).is_some_and(|known| known != bytes) {
            return Err(Rejection::Malformed("a segment has one length"));
        }
        Ok(())
    }

    pub(crate) fn forget(&mut self, segments: &[SegmentId]) {
        for segment in segments.iter().filter(|it| it.began < self.horizon) {
            self.unreferenced.remove(segment);
        }
    }

    /// Puts a segment in as it was: for a state that is read back.
    pub(crate) fn insert(&mut self, id: SegmentId, refs: SegmentRefs) {
        self.inline_bytes += refs.inline.as_ref().map_or(0, |_| refs.bytes);
        self.referenced.insert(id, refs);
    }

    /// Length of a segment, if it is known.
    pub(crate) fn bytes_of(&self, id: SegmentId) -> Option<u64> {
        let referenced = self.referenced.get(&id).map(|refs| refs.bytes);
        referenced.or_else(|| self.unreferenced.get(&id).map(|waits| waits.bytes))
    }

    /// Whether a segment is as a writer made it: what is merged or compacted may be packed.
    pub(crate) fn is_as_written(&self, id: SegmentId) -> bool {
        self.referenced.get(&id).is_some_and(|refs| refs.level == 0)
    }

    /// Adds `references` to a segment that is committed in whole or in part.
    pub(crate) fn commit(&mut self, id: SegmentId, committed: Committed, now: Lsn) {
        let Committed { bytes, level, references, by_footer } = committed;
        if let Some(refs) = self.referenced.get_mut(&id) {
            refs.references += references;
            refs.by_footer |= by_footer;
            return;
        }
        let waited = self.unreferenced.remove(&id);
        // Whoever has yet to apply this commit needs the segment as well.
        let since = waited.filter(|_| !by_footer).map_or(now, |it| it.since);
        let by_footer = by_footer || waited.is_some_and(|it| it.by_footer);
        if references == 0 {
            self.unreferenced.insert(id, Unreferenced { bytes, since, by_footer });
        } else {
            let refs = SegmentRefs { bytes, references, level, inline: None, by_footer };
            self.referenced.insert(id, refs);
        }
    }

    /// Adds a segment that is committed with its blocks.
    pub(crate) fn commit_inline(&mut self, id: SegmentId, content: Bytes, references: u64) {
        if references > 0 {
            let bytes = u64::try_from(content.len()).unwrap_or(u64::MAX);
            let inline = Some(content);
            self.insert(id, SegmentRefs { bytes, references, level: 0, inline, by_footer: false });
        }
    }

    /// Adds one reference to a segment that has some.
    pub(crate) fn share(&mut self, id: SegmentId) {
        let refs = self.referenced.get_mut(&id);
        check!(InvariantId::Seg1, refs.is_some(), "an extent lies in {id}, which is not known");
        if let Some(refs) = refs {
            refs.references += 1;
        }
    }

    /// Takes one reference away.
    pub(crate) fn release(&mut self, id: SegmentId, now: Lsn) {
        let refs = self.referenced.get_mut(&id);
        check!(InvariantId::Seg1, refs.is_some(), "an extent lies in {id}, which is not known");
        let Some(refs) = refs else { return };
        refs.references -= 1;
        if refs.references == 0 {
            let (bytes, is_inline) = (refs.bytes, refs.inline.is_some());
            let by_footer = refs.by_footer;
            self.referenced.remove(&id);
            if is_inline {
                self.inline_bytes -= bytes;
            } else {
                self.unreferenced.insert(id, Unreferenced { bytes, since: now, by_footer });
            }
        }
    }
}
