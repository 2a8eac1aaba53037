//! Which objects there are, and which there should be.

use std::collections::{BTreeMap, BTreeSet};

use super::{Damage, Orphans, tally};
use crate::look::{Look, LookError};
use crate::lsn::Lsn;
use crate::machine::claim;
use crate::object::ObjectMeta;
use crate::segment::SegmentId;
use crate::snapshot::snapshot_lsn;
use crate::state::State;

/// What a listing showed.
#[derive(Debug, Default)]
pub(super) struct Bucket {
    /// Segments, and how long they are.
    segments: BTreeMap<SegmentId, u64>,
    /// Objects that have no name of ours.
    pub(super) unknown: Vec<ObjectMeta>,
}

/// What a comparison showed.
#[derive(Debug, Default, PartialEq, Eq)]
pub(super) struct Wrong {
    missing: BTreeSet<SegmentId>,
    /// Segments of another length: what it is and what it should be.
    lengths: BTreeMap<SegmentId, (u64, u64)>,
    /// Segments that the state does not know, and how long they are.
    orphans: BTreeMap<SegmentId, u64>,
}

impl Bucket {
    /// Lists all that lies under the prefix of the store.
    pub(super) async fn list(look: &Look) -> Result<Self, LookError> {
        let mut bucket = Self::default();
        let claim = claim::key();
        for object in look.list("").await? {
            if let Some(segment) = SegmentId::from_key(&object.key) {
                bucket.segments.insert(segment, object.size);
            } else if snapshot_lsn(&object.key).is_none() && object.key != claim {
                bucket.unknown.push(object);
            }
        }
        Ok(bucket)
    }

    /// Compares both ways. The listing has to be younger than the state: what is referred to was
    /// put before.
    pub(super) fn compare(&self, state: &State) -> Wrong {
        let mut wrong = Wrong::default();
        let segments = state.segments();
        for (segment, refs) in segments.referenced().iter().filter(|(_, it)| it.inline.is_none()) {
            match self.segments.get(segment) {
                None => drop(wrong.missing.insert(*segment)),
                Some(found) if *found != refs.bytes => {
                    wrong.lengths.insert(*segment, (*found, refs.bytes));
                }
                Some(_) => {}
            }
        }
        let unknown = self.segments.iter().filter(|(segment, _)| !segments.is_known(**segment));
        wrong.orphans = unknown.map(|(segment, bytes)| (*segment, *bytes)).collect();
        wrong
    }
}

impl Wrong {
    /// Whether there is nothing to look at again.
    pub(super) fn is_empty(&self) -> bool {
        *self == Self::default()
    }

    /// What is wrong by this comparison and by a later one.
    pub(super) fn and(mut self, later: Self) -> Self {
        self.missing.retain(|segment| later.missing.contains(segment));
        self.lengths.retain(|segment, _| later.lengths.contains_key(segment));
        self.orphans.retain(|segment, _| later.orphans.contains_key(segment));
        self
    }

    /// Whether a segment is missing or has another length.
    pub(super) fn concerns(&self, segment: SegmentId) -> bool {
        self.missing.contains(&segment) || self.lengths.contains_key(&segment)
    }

    /// The segments that are missing or have another length.
    pub(super) fn segments(&self) -> BTreeSet<SegmentId> {
        self.missing.iter().chain(self.lengths.keys()).copied().collect()
    }

    pub(super) fn damages(&self) -> impl Iterator<Item = Damage> {
        let missing = self.missing.iter().map(|segment| Damage::Missing(*segment));
        let lengths = self.lengths.iter().map(|(segment, (found, expected))| {
            let (segment, found, expected) = (*segment, *found, *expected);
            Damage::Length { segment, found, expected }
        });
        missing.chain(lengths)
    }

    /// The segments that the state does not know. Those begun below `horizon` never get known.
    pub(super) fn orphans(&self, horizon: Lsn) -> Orphans {
        let of = |is_below| {
            let of = self.orphans.iter().filter(|(it, _)| (it.began < horizon) == is_below);
            tally(of.map(|(_, bytes)| *bytes))
        };
        let oldest = self.orphans.keys().next().copied();
        Orphans { decided: of(true), undecided: of(false), oldest }
    }
}
