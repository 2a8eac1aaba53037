//! What commands about the life of data carry: what is swapped in for what, and where branches
//! begin.

use odradek_protocol::id::{Offset, TopicId, TopicPartition};

/// Extents of one partition in place of others: what merging and compaction come to.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Replacement {
    /// The partition.
    pub partition: TopicPartition,
    /// Where the extents to be replaced begin.
    pub from: Offset,
    /// Where they end.
    pub to: Offset,
    /// Their hash, as the proposer saw them (`Partition::hash_between`): if they have changed
    /// meanwhile, nothing is replaced.
    pub inputs: u64,
    /// What comes in their place, in order: as many offsets as they took.
    pub extents: Vec<NewExtent>,
    /// Compaction by key is done below this offset; none if that has not changed.
    pub cleaned: Option<Offset>,
}

/// One extent that is to be.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct NewExtent {
    /// Offsets it takes.
    pub records: u32,
    /// Largest timestamp of its records, in milliseconds since the Unix epoch; -1 if it has none.
    pub max_timestamp: i64,
    /// Where its batches lie; none if none is left.
    pub block: Option<NewBlock>,
}

/// A whole block of the segment that is swapped in.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct NewBlock {
    /// First byte of the block in the segment.
    pub position: u64,
    /// Length of the block in the segment, with its header.
    pub stored_bytes: u32,
    /// Length of its unpacked content.
    pub bytes: u32,
}

/// Where a branch leaves its parent.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Branch {
    /// The parent: a topic that lives, or one that was deleted and is not purged yet.
    pub of: TopicId,
    /// For each of its partitions, the offset behind the last record that the branch shares, which
    /// is where a batch begins; none for the last stable offset.
    pub ends: Vec<Option<Offset>>,
}
