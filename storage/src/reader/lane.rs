//! Lanes: those who read at the tail and those who catch up do not get into each other's way.
//!
//! What is read at the tail is read again by the next group, what is read far behind it mostly only
//! once. So each lane has its own memory and its own requests to the store: however much somebody
//! reads from long ago, what everybody reads now stays in memory, and waits for nobody.

use std::collections::{BTreeMap, VecDeque};
use std::sync::{Mutex, PoisonError};

use bytes::Bytes;

use super::blocks::BlockKey;

/// Who wants a block.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Lane {
    /// One who reads up to the end.
    Tail,
    /// One to whom there is more to give than it asks for at once.
    CatchUp,
}

/// Blocks in memory, of which those that came first go first.
#[derive(Debug)]
pub(super) struct Queue {
    bytes_max: u64,
    held: Mutex<Held>,
}

#[derive(Debug, Default)]
struct Held {
    bytes: u64,
    blocks: BTreeMap<BlockKey, Bytes>,
    /// Their keys, oldest first.
    order: VecDeque<BlockKey>,
}

impl Queue {
    pub(super) fn new(bytes_max: u64) -> Self {
        Self { bytes_max, held: Mutex::default() }
    }

    pub(super) fn get(&self, key: &BlockKey) -> Option<Bytes> {
        self.held.lock().unwrap_or_else(PoisonError::into_inner).blocks.get(key).cloned()
    }

    pub(super) fn insert(&self, key: BlockKey, content: Bytes) {
        let mut held = self.held.lock().unwrap_or_else(PoisonError::into_inner);
        let held = &mut *held;
        held.bytes += length(&content);
        match held.blocks.insert(key, content) {
            Some(before) => held.bytes -= length(&before),
            None => held.order.push_back(key),
        }
        while held.bytes > self.bytes_max {
            let Some(oldest) = held.order.pop_front() else { return };
            let content = held.blocks.remove(&oldest);
            held.bytes -= content.map_or(0, |it| length(&it));
        }
    }
}

fn length(content: &Bytes) -> u64 {
    u64::try_from(content.len()).unwrap_or(u64::MAX)
}
