//! Committed offsets of consumer groups.

use std::collections::BTreeMap;

use odradek_protocol::id::{Offset, TopicId, TopicPartition};

use crate::command::CommittedOffset;

/// A committed position.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Position {
    /// The next record to read.
    pub offset: Offset,
    /// Leader epoch of the last record read, -1 if unknown.
    pub leader_epoch: i32,
    /// What the client wanted kept with it.
    pub metadata: String,
    /// Log time of the commit, in milliseconds since the Unix epoch.
    pub committed_ms: i64,
}

/// The groups that have committed something.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Groups {
    pub(crate) positions: BTreeMap<String, BTreeMap<TopicPartition, Position>>,
}

impl Groups {
    /// Positions of a group; `None` if it never committed any.
    pub fn positions(&self, group: &str) -> Option<&BTreeMap<TopicPartition, Position>> {
        self.positions.get(group)
    }

    pub(crate) fn commit(&mut self, group: &str, offset: &CommittedOffset, now_ms: i64) {
        let position = Position {
            offset: offset.offset,
            leader_epoch: offset.leader_epoch,
            metadata: offset.metadata.clone(),
            committed_ms: now_ms,
        };
        self.positions.entry(group.to_owned()).or_default().insert(offset.partition, position);
    }

    pub(crate) fn forget_topic(&mut self, topic: TopicId) {
        for positions in self.positions.values_mut() {
            positions.retain(|partition, _| partition.topic != topic);
        }
        self.positions.retain(|_, positions| !positions.is_empty());
    }
}
