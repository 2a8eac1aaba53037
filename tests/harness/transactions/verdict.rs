//! What a producer makes of an answer that it did not hope for.

use odradek::group::GroupError;
use odradek::transactions::TransactionError;
use odradek_storage::command::Rejection;
use odradek_storage::writer::AppendError;

/// Why a producer can't go on as it wanted.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Trouble {
    /// The transaction must be aborted.
    Abort,
    /// Another has the transactional id, or had it.
    Fenced,
    /// No answer came for too long.
    GaveUp,
}

/// What an answer means.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Verdict {
    /// The same is asked again.
    Again,
    /// That would be in vain.
    Trouble(Trouble),
}

/// What the answer to a request about a transaction means.
pub(super) fn judge(error: &TransactionError) -> Verdict {
    match error {
        TransactionError::NotAvailable | TransactionError::Unproposed(_) => Verdict::Again,
        TransactionError::Rejected(rejection) => judge_rejection(rejection),
    }
}

fn judge_rejection(rejection: &Rejection) -> Verdict {
    match rejection {
        Rejection::TransactionMoved { .. }
        | Rejection::BrokerFenced(_)
        | Rejection::StaleCommand(_)
        | Rejection::NotCoordinator(_) => Verdict::Again,
        Rejection::ProducerFenced { .. } | Rejection::UnknownProducer => {
            Verdict::Trouble(Trouble::Fenced)
        }
        Rejection::NotInTransaction
        | Rejection::InvalidTransactionState
        | Rejection::OutOfOrderSequence { .. } => Verdict::Trouble(Trouble::Abort),
        other => panic!("a producer that does nothing wrong is told: {other}"),
    }
}

/// What the answer to a batch means.
pub(super) fn judge_append(error: &AppendError) -> Verdict {
    match error {
        AppendError::Rejected(rejection) => match judge_rejection(rejection) {
            // A batch alone tells nothing about who may go on.
            Verdict::Trouble(_) => Verdict::Trouble(Trouble::Abort),
            again @ Verdict::Again => again,
        },
        AppendError::NotStored(_) | AppendError::Unknown | AppendError::Stopped => Verdict::Again,
    }
}

/// What the answer to staged positions means.
pub(super) fn judge_group(error: &GroupError) -> Verdict {
    match error {
        GroupError::NotCoordinator | GroupError::NotAvailable | GroupError::Unknown => {
            Verdict::Again
        }
        GroupError::Rejected(rejection) => judge_rejection(rejection),
        GroupError::UnknownGroup(_)
        | GroupError::UnknownMember
        | GroupError::IllegalGeneration
        | GroupError::RebalanceInProgress
        | GroupError::FencedInstance
        | GroupError::FencedMemberEpoch(_)
        | GroupError::StaleMemberEpoch => Verdict::Trouble(Trouble::Abort),
        other => panic!("a producer that does nothing wrong is told: {other}"),
    }
}
