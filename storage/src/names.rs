//! Names for new segments: the writer, merging and compaction each give their own.

use sha2::{Digest, Sha256};

use crate::command::Incarnation;
use crate::machine::Machine;
use crate::segment::SegmentId;

/// Who of a broker gives names.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Task([u8; 8]);

impl Task {
    /// The writer: what it names it has in memory when it is committed.
    pub(crate) const WRITING: Self = Self(*b"segments");
    /// Merging.
    pub(crate) const MERGING: Self = Self(*b"merging.");
    /// Compaction.
    pub(crate) const COMPACTION: Self = Self(*b"compact.");

    /// What stands in the names that this task of a broker gives: something of its own, from which
    /// nobody who lists a store can tell the incarnation, which only brokers know.
    fn of(self, broker: Incarnation) -> Incarnation {
        let digest = Sha256::new().chain_update(self.0).chain_update(broker.0.to_be_bytes());
        let [a, b, c, d, e, f, g, h, ..]: [u8; 32] = digest.finalize().into();
        Incarnation(u64::from_be_bytes([a, b, c, d, e, f, g, h]))
    }
}

/// Whether a segment was written by the writer of this broker.
pub(crate) fn is_writer(broker: Incarnation, segment: SegmentId) -> bool {
    Task::WRITING.of(broker) == segment.incarnation
}

/// Gives new segments their names.
pub(crate) struct Names {
    machine: Machine,
    task: Task,
    counter: u64,
}

impl Names {
    /// Names that no other task and no other broker gives.
    pub(crate) fn new(machine: Machine, task: Task) -> Self {
        Self { machine, task, counter: 0 }
    }

    /// The next one, for a segment that is begun now.
    pub(crate) fn next(&mut self) -> SegmentId {
        self.counter += 1;
        let began = self.machine.read(|state| state.applied());
        let incarnation = self.task.of(self.machine.incarnation());
        SegmentId { began, incarnation, counter: self.counter }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::lsn::Lsn;

    #[test]
    fn a_segment_tells_whose_writer_it_is_from() {
        let (one, other) = (Incarnation(7), Incarnation(8));
        let named =
            |task: Task, by| SegmentId { began: Lsn::FIRST, incarnation: task.of(by), counter: 1 };
        assert!(is_writer(one, named(Task::WRITING, one)));
        assert!(!is_writer(one, named(Task::WRITING, other)));
        for task in [Task::MERGING, Task::COMPACTION] {
            assert!(!is_writer(one, named(task, one)));
        }
    }
}
