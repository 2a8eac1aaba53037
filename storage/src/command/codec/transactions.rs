//! The stored form of what changes transactions, shared with snapshots.

use odradek_protocol::id::ProducerId;

use super::groups::{assignment_from_wire, assignment_to_wire};
use super::{CodecError, wire};
use crate::command::transactions::{ProducerIdAndEpoch, StagedOffsets, TransactionChange};
use crate::lsn::Lsn;

impl From<ProducerIdAndEpoch> for wire::ProducerIdAndEpoch {
    fn from(producer: ProducerIdAndEpoch) -> Self {
        Self { id: producer.id.0, epoch: i32::from(producer.epoch) }
    }
}

impl TryFrom<wire::ProducerIdAndEpoch> for ProducerIdAndEpoch {
    type Error = CodecError;

    fn try_from(stored: wire::ProducerIdAndEpoch) -> Result<Self, CodecError> {
        let epoch = i16::try_from(stored.epoch).map_err(|_| CodecError::Field("epoch"))?;
        Ok(Self { id: ProducerId(stored.id), epoch })
    }
}

pub(super) fn to_wire(
    transactional_id: &str,
    change: &TransactionChange,
) -> wire::ChangeTransaction {
    let (transactional_id, change) = (transactional_id.to_owned(), Some(change.into()));
    wire::ChangeTransaction { transactional_id, change }
}

pub(crate) fn producer_from_wire(
    stored: Option<wire::ProducerIdAndEpoch>,
) -> Result<ProducerIdAndEpoch, CodecError> {
    stored.ok_or(CodecError::Field("producer"))?.try_into()
}

impl From<&TransactionChange> for wire::TransactionChange {
    fn from(change: &TransactionChange) -> Self {
        match change {
            TransactionChange::InitProducer { timeout_ms, expected } => {
                let expected = expected.map(Into::into);
                Self::InitProducer(wire::InitProducer { timeout_ms: *timeout_ms, expected })
            }
            TransactionChange::Add { producer, transaction, partitions, groups } => {
                Self::Add(wire::AddToTransaction {
                    producer: Some((*producer).into()),
                    transaction: *transaction,
                    partitions: assignment_to_wire(partitions),
                    groups: groups.clone(),
                })
            }
            TransactionChange::StageOffsets(staged) => Self::StageOffsets(staged.into()),
            TransactionChange::End { producer, transaction, commits, bumps_epoch } => {
                Self::End(wire::EndTransaction {
                    producer: Some((*producer).into()),
                    transaction: *transaction,
                    commits: *commits,
                    bumps_epoch: *bumps_epoch,
                })
            }
            TransactionChange::Abort { transaction } => {
                Self::Abort(wire::AbortTransaction { transaction: *transaction })
            }
        }
    }
}

impl TryFrom<wire::TransactionChange> for TransactionChange {
    type Error = CodecError;

    fn try_from(stored: wire::TransactionChange) -> Result<Self, CodecError> {
        Ok(match stored {
            wire::TransactionChange::InitProducer(init) => Self::InitProducer {
                timeout_ms: init.timeout_ms,
                expected: init.expected.map(TryInto::try_into).transpose()?,
            },
            wire::TransactionChange::Add(add) => Self::Add {
                producer: producer_from_wire(add.producer)?,
                transaction: add.transaction,
                partitions: assignment_from_wire(add.partitions)?,
                groups: add.groups,
            },
            wire::TransactionChange::StageOffsets(stage) => Self::StageOffsets(stage.try_into()?),
            wire::TransactionChange::End(end) => Self::End {
                producer: producer_from_wire(end.producer)?,
                transaction: end.transaction,
                commits: end.commits,
                bumps_epoch: end.bumps_epoch,
            },
            wire::TransactionChange::Abort(abort) => Self::Abort { transaction: abort.transaction },
        })
    }
}

impl From<&StagedOffsets> for wire::StageOffsets {
    fn from(staged: &StagedOffsets) -> Self {
        Self {
            producer: Some(staged.producer.into()),
            transaction: staged.transaction,
            is_implicit: staged.is_implicit,
            group: staged.group.clone(),
            office: staged.office.get(),
            committer: staged.committer.as_ref().map(Into::into),
            offsets: staged.offsets.iter().map(Into::into).collect(),
        }
    }
}

impl TryFrom<wire::StageOffsets> for StagedOffsets {
    type Error = CodecError;

    fn try_from(stored: wire::StageOffsets) -> Result<Self, CodecError> {
        Ok(Self {
            producer: producer_from_wire(stored.producer)?,
            transaction: stored.transaction,
            is_implicit: stored.is_implicit,
            group: stored.group,
            office: Lsn::new(stored.office),
            committer: stored.committer.map(Into::into),
            offsets: stored.offsets.into_iter().map(TryInto::try_into).collect::<Result<_, _>>()?,
        })
    }
}
