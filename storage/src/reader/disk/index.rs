//! Which blocks lie where on disk, and which of them go first.
//!
//! Slabs go as a whole, the oldest first: what is read often is in memory, and a disk writes best
//! what it deletes together. A block that is shorter than [`WEIGHT_MIN`] counts as much as that,
//! which bounds the memory that the index takes.

use std::collections::{BTreeMap, VecDeque};

use super::super::blocks::BlockKey;
use super::slab::{RECORD_HEADER_BYTES, SLAB_HEADER_BYTES};

/// What a record weighs at least, in bytes.
const WEIGHT_MIN: u64 = 16 * 1024;

/// Where a block lies.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Place {
    /// In which slab.
    pub(super) slab: u64,
    /// Its first byte.
    pub(super) at: u32,
    /// Its length.
    pub(super) bytes: u32,
}

impl Place {
    /// What its record takes of the room there is.
    pub(super) fn weight(self) -> u64 {
        weight(self.bytes)
    }
}

/// What the record of a block of so many bytes takes of the room there is.
pub(super) fn weight(bytes: u32) -> u64 {
    (u64::from(bytes) + RECORD_HEADER_BYTES).max(WEIGHT_MIN)
}

/// The blocks on disk.
#[derive(Debug, Default)]
pub(super) struct Index {
    places: BTreeMap<BlockKey, Place>,
    /// Oldest first.
    slabs: VecDeque<Slab>,
    /// That of all slabs.
    weight: u64,
}

#[derive(Debug)]
struct Slab {
    number: u64,
    weight: u64,
    /// Blocks that were put into it.
    keys: Vec<BlockKey>,
}

impl Index {
    pub(super) fn get(&self, key: &BlockKey) -> Option<Place> {
        self.places.get(key).copied()
    }

    /// What all slabs weigh. Their files are no longer than that.
    pub(super) fn weight(&self) -> u64 {
        self.weight
    }

    /// Notes a new slab, the youngest.
    pub(super) fn begin(&mut self, number: u64) {
        self.weight += SLAB_HEADER_BYTES;
        self.slabs.push_back(Slab { number, weight: SLAB_HEADER_BYTES, keys: Vec::new() });
    }

    /// Notes a block that was put into the youngest slab.
    pub(super) fn add(&mut self, key: BlockKey, place: Place) {
        let Some(slab) = self.slabs.back_mut() else { return };
        slab.weight += place.weight();
        self.weight += place.weight();
        slab.keys.push(key);
        self.places.insert(key, place);
    }

    /// Notes a slab of a former process, older than all others, whose file has so many bytes.
    pub(super) fn add_old(&mut self, number: u64, bytes: u64, records: Vec<(BlockKey, Place)>) {
        let needs: u64 = records.iter().map(|(_, place)| place.weight()).sum();
        let weight = bytes.max(needs + SLAB_HEADER_BYTES);
        self.weight += weight;
        let keys = records.iter().map(|(key, _)| *key).collect();
        self.slabs.push_front(Slab { number, weight, keys });
        for (key, place) in records {
            self.places.entry(key).or_insert(place);
        }
    }

    /// Forgets a block, if it lies there.
    pub(super) fn forget(&mut self, key: &BlockKey, place: Place) -> bool {
        let is_there = self.get(key) == Some(place);
        if is_there {
            self.places.remove(key);
        }
        is_there
    }

    /// Forgets the blocks of the oldest slab, which is to be deleted, and says which it is. It
    /// weighs what it did until [`Self::end`].
    pub(super) fn empty_oldest(&mut self) -> Option<u64> {
        let slab = self.slabs.front_mut()?;
        let number = slab.number;
        for key in std::mem::take(&mut slab.keys) {
            if self.places.get(&key).is_some_and(|place| place.slab == number) {
                self.places.remove(&key);
            }
        }
        Some(number)
    }

    /// Notes that the oldest slab is deleted.
    pub(super) fn end_oldest(&mut self) {
        if let Some(slab) = self.slabs.pop_front() {
            self.weight -= slab.weight;
        }
    }
}
