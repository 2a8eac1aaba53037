//! Names for new segments: the writer, merging and compaction each give their own.

use rand::rngs::StdRng;
use rand::{RngCore, SeedableRng};

use crate::command::Incarnation;
use crate::machine::Machine;
use crate::segment::SegmentId;

/// Gives new segments their names.
pub(crate) struct Names {
    machine: Machine,
    incarnation: Incarnation,
    counter: u64,
}

impl Names {
    /// Names that no other task and no other broker gives: `task` tells apart those of one broker,
    /// and the numbers that the machine draws from the same seed.
    pub(crate) fn new(machine: Machine, seed: u64, task: [u8; 8]) -> Self {
        let mut random = StdRng::seed_from_u64(seed ^ u64::from_be_bytes(task));
        Self { machine, incarnation: Incarnation(random.next_u64()), counter: 0 }
    }

    /// The next one, for a segment that is begun now.
    pub(crate) fn next(&mut self) -> SegmentId {
        self.counter += 1;
        let began = self.machine.read(|state| state.applied());
        SegmentId { began, incarnation: self.incarnation, counter: self.counter }
    }
}
