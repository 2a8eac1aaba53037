//! What changes transactions (KIP-98, KIP-360, KIP-447, KIP-890).
//!
//! Clients repeat what they have no answer to, and what they gave up on may arrive late. So every
//! change names the producer id and epoch of its client, and those that could be taken for a part
//! of another transaction (of clients that keep their epoch from one to the next) also the number
//! of the transaction that their broker saw when the request came in.

use odradek_protocol::id::ProducerId;

use super::groups::Assignment;
use super::{CommittedOffset, Committer};
use crate::lsn::Lsn;

/// Whom a transactional id stands for. Each epoch fences those before it.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct ProducerIdAndEpoch {
    /// The producer id.
    pub id: ProducerId,
    /// Its epoch, from 0.
    pub epoch: i16,
}

/// One step in the life of a transactional id.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum TransactionChange {
    /// Gives the transactional id a new epoch, or a producer id if it has none. A transaction that
    /// is open is aborted.
    InitProducer {
        /// How long its transactions may last, in milliseconds.
        timeout_ms: u32,
        /// What its client had until now, if it only wants to go on (KIP-360): one that has been
        /// fenced may not.
        expected: Option<ProducerIdAndEpoch>,
    },
    /// Adds partitions and groups to the transaction; with the first one it begins.
    Add {
        /// Who asks.
        producer: ProducerIdAndEpoch,
        /// The number of the transaction.
        transaction: u64,
        /// Partitions that will be written to.
        partitions: Assignment,
        /// Groups in which positions will be committed.
        groups: Vec<String>,
    },
    /// Stages positions, which become the group's when the transaction is committed.
    StageOffsets(StagedOffsets),
    /// Ends the transaction, in all of its partitions and groups at once.
    End {
        /// Who asks.
        producer: ProducerIdAndEpoch,
        /// The number of the transaction.
        transaction: u64,
        /// Whether it is committed; else it is aborted.
        commits: bool,
        /// Whether the client goes on with a new epoch (KIP-890).
        bumps_epoch: bool,
    },
    /// Aborts the transaction without being asked by its client, which is fenced with it.
    Abort {
        /// The number of the transaction.
        transaction: u64,
    },
}

/// Positions of a group that depend on a transaction.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct StagedOffsets {
    /// Who asks.
    pub producer: ProducerIdAndEpoch,
    /// The number of the transaction.
    pub transaction: u64,
    /// Whether the group is added to the transaction by this (KIP-890); else it was before.
    pub is_implicit: bool,
    /// The group.
    pub group: String,
    /// See [`super::Command::CommitOffsets`].
    pub office: Lsn,
    /// The member on whose behalf it is done (KIP-447); none if the client does not say.
    pub committer: Option<Committer>,
    /// The positions.
    pub offsets: Vec<CommittedOffset>,
}

impl TransactionChange {
    /// The office that its proposer held, if it rests on one.
    pub(crate) fn office(&self) -> Option<Lsn> {
        match self {
            Self::StageOffsets(staged) => Some(staged.office),
            _ => None,
        }
    }
}
