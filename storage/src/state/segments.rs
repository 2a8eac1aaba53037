//! Segments: which objects are referred to, and how often.
//!
//! References are counted from the first day on, because a topic can be branched: an extent that
//! two topics share keeps its segment alive until both have let go. A segment that nothing refers
//! to any more waits here until it is swept.

use std::collections::BTreeMap;

use crate::check;
use crate::invariant::InvariantId;
use crate::lsn::Lsn;
use crate::segment::SegmentId;

/// What is known of a segment.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct SegmentRefs {
    /// Its length in bytes.
    pub bytes: u64,
    /// Extents that lie in it (SEG-1).
    pub references: u64,
}

/// A segment that nothing refers to.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Unreferenced {
    /// Its length in bytes.
    pub bytes: u64,
    /// The entry that took the last reference, or committed it without any.
    pub since: Lsn,
}

/// The segments of the cluster.
///
/// - **SEG-1** `references` is the number of extents that lie in the segment.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Segments {
    pub(crate) referenced: BTreeMap<SegmentId, SegmentRefs>,
    pub(crate) unreferenced: BTreeMap<SegmentId, Unreferenced>,
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

    /// Length of a segment, if it is known.
    pub(crate) fn bytes_of(&self, id: SegmentId) -> Option<u64> {
        let referenced = self.referenced.get(&id).map(|refs| refs.bytes);
        referenced.or_else(|| self.unreferenced.get(&id).map(|waits| waits.bytes))
    }

    /// Adds `references` to a segment that is committed in whole or in part.
    pub(crate) fn commit(&mut self, id: SegmentId, bytes: u64, references: u64, now: Lsn) {
        if references == 0 {
            if !self.referenced.contains_key(&id) {
                self.unreferenced.entry(id).or_insert(Unreferenced { bytes, since: now });
            }
            return;
        }
        self.unreferenced.remove(&id);
        let refs = self.referenced.entry(id).or_insert(SegmentRefs { bytes, references: 0 });
        refs.references += references;
    }

    /// Takes one reference away.
    pub(crate) fn release(&mut self, id: SegmentId, now: Lsn) {
        let refs = self.referenced.get_mut(&id);
        check!(InvariantId::Seg1, refs.is_some(), "an extent lies in {id}, which is not known");
        let Some(refs) = refs else { return };
        refs.references -= 1;
        if refs.references == 0 {
            let bytes = refs.bytes;
            self.referenced.remove(&id);
            self.unreferenced.insert(id, Unreferenced { bytes, since: now });
        }
    }
}
