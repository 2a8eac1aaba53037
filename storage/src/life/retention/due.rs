//! What of a topic is due.

use odradek_protocol::id::{Offset, TopicId, TopicPartition};

use crate::state::State;
use crate::state::partition::Partition;
use crate::state::retention::Retention;

/// Most pieces of a partition that are due in one round; the next round goes on.
const PIECES_MAX: usize = 10_000;

/// What of a topic is due.
#[derive(Debug)]
pub(super) struct Due {
    pub(super) name: String,
    /// Bytes of the topic.
    pub(super) total: u64,
    /// How long records are kept, if time counts.
    pub(super) retention_ms: Option<i64>,
    now_ms: i64,
    /// By partition: the log start offset now, and the one to come.
    starts: Vec<(Offset, Offset)>,
    /// What is due by time, oldest first.
    pieces: Vec<Piece>,
}

/// An extent that is due by time, with those before it that have none.
#[derive(Debug)]
struct Piece {
    partition: usize,
    end: Offset,
    bytes: u64,
    /// The largest timestamp up to its end.
    max_timestamp: i64,
}

/// What may not go yet.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Held {
    pub(super) bytes: u64,
    /// How long it has been too old.
    pub(super) overdue_ms: i64,
}

impl Due {
    /// What is due at `now_ms`; `None` if there is no such topic, or nothing in it ever is.
    pub(super) fn of(state: &State, topic: TopicId, now_ms: i64) -> Option<Self> {
        let topic = state.topic(topic)?;
        let retention = state.retention(topic);
        if retention == Retention::default() {
            return None;
        }
        let mut due = Self {
            name: topic.name.clone(),
            total: topic.partitions.iter().map(Partition::bytes).sum(),
            retention_ms: retention.ms,
            now_ms,
            starts: Vec::with_capacity(topic.partitions.len()),
            pieces: Vec::new(),
        };
        for (index, partition) in topic.partitions.iter().enumerate() {
            due.add(index, partition, &retention);
        }
        // What is of one age stays in the order of offsets.
        due.pieces.sort_by_key(|piece| piece.max_timestamp);
        Some(due)
    }

    fn add(&mut self, index: usize, partition: &Partition, retention: &Retention) {
        // The size of a partition is no matter of clocks.
        let by_bytes = Retention { ms: None, ..*retention };
        let free = match retention.bytes {
            Some(_) => partition.due_before(&by_bytes, self.now_ms),
            None => partition.log_start,
        };
        self.starts.push((partition.log_start, free));
        let end = partition.due_before(retention, self.now_ms);
        let mut max_timestamp = 0;
        let mut bytes = 0;
        let due = partition.extents_from(free).take_while(|extent| extent.end() <= end);
        for extent in due.take(PIECES_MAX) {
            bytes += u64::from(extent.bytes());
            // What has no time goes with the next that has one.
            if extent.max_timestamp >= 0 {
                max_timestamp = max_timestamp.max(extent.max_timestamp);
                let piece = Piece { partition: index, end: extent.end(), bytes, max_timestamp };
                self.pieces.push(piece);
                bytes = 0;
            }
        }
    }

    /// Bytes that are due by time.
    pub(super) fn bytes(&self) -> u64 {
        self.pieces.iter().map(|piece| piece.bytes).sum()
    }

    /// Keeps what is due by time from the first piece on that may not go. Says what that is.
    pub(super) fn hold_back(&mut self, mut may_go: impl FnMut(u64) -> bool) -> Option<Held> {
        let going = self.pieces.iter().take_while(|piece| may_go(piece.bytes)).count();
        let held = self.pieces.split_off(going);
        let oldest = held.first()?;
        let too_old_at = oldest.max_timestamp.saturating_add(self.retention_ms.unwrap_or(0));
        Some(Held {
            bytes: held.iter().map(|piece| piece.bytes).sum(),
            overdue_ms: self.now_ms.saturating_sub(too_old_at),
        })
    }

    /// What goes: partitions with their log start offsets now, and those to come.
    pub(super) fn going(&self, topic: TopicId) -> Vec<(TopicPartition, Offset, Offset)> {
        let mut starts = self.starts.clone();
        for piece in &self.pieces {
            if let Some((_, start)) = starts.get_mut(piece.partition) {
                *start = piece.end.max(*start);
            }
        }
        let moved = (0..).zip(starts).filter(|(_, (now, to_come))| to_come > now);
        let place =
            |(partition, (now, to_come))| (TopicPartition { topic, partition }, now, to_come);
        moved.map(place).collect()
    }
}
