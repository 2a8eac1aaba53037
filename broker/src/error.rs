//! The one table from facts to Kafka's error codes.
//!
//! What may have happened is never answered by a code that says it did not: after an append of
//! unknown outcome a client hears REQUEST_TIMED_OUT, which it takes for "perhaps", and retries.

use odradek_protocol::ResponseError;
use odradek_protocol::record::BatchError;
use odradek_storage::command::Rejection;
use odradek_storage::machine::ProposeError;
use odradek_storage::reader::FetchError;
use odradek_storage::writer::AppendError;

use crate::group::GroupError;
use crate::transactions::TransactionError;

/// The code for a command that the state turned away.
pub(crate) fn of_rejection(rejection: &Rejection) -> ResponseError {
    match rejection {
        Rejection::UnknownTopic(_) | Rejection::UnknownPartition { .. } => {
            ResponseError::UnknownTopicOrPartition
        }
        Rejection::TopicExists { .. } | Rejection::TopicIdInUse(_) => {
            ResponseError::TopicAlreadyExists
        }
        Rejection::PartitionsNotGrowing { .. } | Rejection::TooManyPartitions { .. } => {
            ResponseError::InvalidPartitions
        }
        Rejection::ProducerFenced { .. } => ResponseError::InvalidProducerEpoch,
        Rejection::OutOfOrderSequence { .. } => ResponseError::OutOfOrderSequenceNumber,
        Rejection::UnknownProducer => ResponseError::InvalidProducerIdMapping,
        Rejection::TransactionMoved { .. } => ResponseError::ConcurrentTransactions,
        Rejection::NotInTransaction | Rejection::InvalidTransactionState => {
            ResponseError::InvalidTxnState
        }
        // Certainly not applied, and a later try may be: the broker registers again by itself.
        Rejection::BrokerFenced(_) => ResponseError::KafkaStorageError,
        // Too old to tell whether it was applied.
        Rejection::StaleCommand(_) => ResponseError::RequestTimedOut,
        Rejection::NotCoordinator(_) | Rejection::GroupMoved { .. } => {
            ResponseError::NotCoordinator
        }
        Rejection::UnknownGroup => ResponseError::GroupIdNotFound,
        Rejection::UnknownMember => ResponseError::UnknownMemberId,
        Rejection::IllegalGeneration { .. } => ResponseError::IllegalGeneration,
        Rejection::StaleMemberEpoch { .. } => ResponseError::StaleMemberEpoch,
        Rejection::FencedInstance => ResponseError::FencedInstanceId,
        Rejection::RebalanceInProgress => ResponseError::RebalanceInProgress,
        Rejection::GroupNotEmpty => ResponseError::NonEmptyGroup,
        Rejection::OffsetOutOfRange { .. } => ResponseError::OffsetOutOfRange,
        // Nothing that a client can bring about.
        Rejection::BrokerAlive(_)
        | Rejection::LevelNotRising { .. }
        | Rejection::ExtentsChanged { .. }
        | Rejection::Malformed(_) => ResponseError::UnknownServerError,
        // Certainly not applied either: its broker was slow, and the next segment may be taken.
        Rejection::SegmentTooOld { .. } => ResponseError::KafkaStorageError,
    }
}

/// The code for a batch that has no offset. `knows_abortable` says that the client understands
/// that its transaction must be aborted (KIP-890).
pub(crate) fn of_append(error: &AppendError, knows_abortable: bool) -> ResponseError {
    match error {
        AppendError::Rejected(Rejection::NotInTransaction) if knows_abortable => {
            ResponseError::TransactionAbortable
        }
        AppendError::Rejected(rejection) => of_rejection(rejection),
        AppendError::NotStored(_) => ResponseError::KafkaStorageError,
        AppendError::Unknown => ResponseError::RequestTimedOut,
        // Retriable, and sends the client to look for another broker.
        AppendError::Stopped => ResponseError::NotLeaderOrFollower,
    }
}

/// The code for a command that has no outcome.
pub(crate) fn of_proposal(error: &ProposeError) -> ResponseError {
    match error {
        ProposeError::NotAppended(_) => ResponseError::KafkaStorageError,
        ProposeError::Unknown => ResponseError::RequestTimedOut,
        // Retriable, and sends the admin client to look for another broker.
        ProposeError::Stopped => ResponseError::NotController,
    }
}

/// The code for records that could not be deleted: all of them make an admin client look where the
/// partition is now, and try again.
pub(crate) fn of_deletion(error: &ProposeError) -> ResponseError {
    match error {
        ProposeError::NotAppended(_) => ResponseError::KafkaStorageError,
        ProposeError::Unknown => ResponseError::RequestTimedOut,
        ProposeError::Stopped => ResponseError::NotLeaderOrFollower,
    }
}

/// The code for what a group does not do. Where the outcome is not known, or nobody can act now, it
/// makes a client look for the coordinator again, and try again.
pub(crate) fn of_group(error: &GroupError) -> ResponseError {
    match error {
        GroupError::InvalidGroupId => ResponseError::InvalidGroupId,
        GroupError::NotCoordinator => ResponseError::NotCoordinator,
        GroupError::NotAvailable | GroupError::Unknown => ResponseError::CoordinatorNotAvailable,
        GroupError::UnknownGroup(_) => ResponseError::GroupIdNotFound,
        GroupError::UnknownMember => ResponseError::UnknownMemberId,
        GroupError::IllegalGeneration => ResponseError::IllegalGeneration,
        GroupError::RebalanceInProgress => ResponseError::RebalanceInProgress,
        GroupError::InconsistentProtocol => ResponseError::InconsistentGroupProtocol,
        GroupError::InvalidSessionTimeout => ResponseError::InvalidSessionTimeout,
        GroupError::FencedInstance => ResponseError::FencedInstanceId,
        GroupError::MemberIdRequired(_) => ResponseError::MemberIdRequired,
        GroupError::GroupFull => ResponseError::GroupMaxSizeReached,
        GroupError::GroupNotEmpty => ResponseError::NonEmptyGroup,
        GroupError::SubscribedToTopic => ResponseError::GroupSubscribedToTopic,
        GroupError::FencedMemberEpoch(_) => ResponseError::FencedMemberEpoch,
        GroupError::StaleMemberEpoch => ResponseError::StaleMemberEpoch,
        GroupError::UnreleasedInstance(_) => ResponseError::UnreleasedInstanceId,
        GroupError::UnsupportedAssignor(_) => ResponseError::UnsupportedAssignor,
        GroupError::InvalidRegex(_) => ResponseError::InvalidRegularExpression,
        GroupError::InvalidRequest(_) => ResponseError::InvalidRequest,
        // As Kafka, where a group is larger than a record may be; not retriable.
        GroupError::TooLarge(_) => ResponseError::UnknownServerError,
        GroupError::Rejected(rejection) => of_rejection(rejection),
    }
}

/// The code for positions that are not staged, for a client of TxnOffsetCommit: it does not know
/// all that others do.
pub(crate) fn of_staging(error: &GroupError, knows_abortable: bool) -> ResponseError {
    match error {
        GroupError::Rejected(Rejection::NotInTransaction) if knows_abortable => {
            ResponseError::TransactionAbortable
        }
        GroupError::UnknownGroup(_) | GroupError::StaleMemberEpoch => {
            ResponseError::IllegalGeneration
        }
        error => of_group(error),
    }
}

/// The code for what a transaction does not do. Where the outcome is not known, or nobody can act
/// now, it makes a client look for the coordinator again, and try again. `knows_fenced` says that
/// the client's version has a code of its own for zombies.
pub(crate) fn of_transaction(error: &TransactionError, knows_fenced: bool) -> ResponseError {
    match error {
        TransactionError::NotAvailable => ResponseError::CoordinatorNotAvailable,
        TransactionError::Unproposed(ProposeError::NotAppended(_) | ProposeError::Unknown) => {
            ResponseError::CoordinatorNotAvailable
        }
        TransactionError::Unproposed(ProposeError::Stopped) => ResponseError::NotCoordinator,
        TransactionError::Rejected(Rejection::ProducerFenced { .. }) if knows_fenced => {
            ResponseError::ProducerFenced
        }
        TransactionError::Rejected(
            Rejection::BrokerFenced(_) | Rejection::StaleCommand(_) | Rejection::NotCoordinator(_),
        ) => ResponseError::CoordinatorNotAvailable,
        TransactionError::Rejected(rejection) => of_rejection(rejection),
    }
}

/// The code for a transaction that an operator could not abort.
pub(crate) fn of_marker(error: &TransactionError) -> ResponseError {
    match error {
        TransactionError::NotAvailable | TransactionError::Unproposed(_) => {
            ResponseError::NotLeaderOrFollower
        }
        TransactionError::Rejected(rejection) => of_rejection(rejection),
    }
}

/// The code for a partition that can't be read.
pub(crate) fn of_fetch(error: &FetchError) -> ResponseError {
    match error {
        FetchError::UnknownPartition(_) => ResponseError::UnknownTopicOrPartition,
        FetchError::OutOfRange { .. } => ResponseError::OffsetOutOfRange,
        FetchError::Storage(_) => ResponseError::KafkaStorageError,
    }
}

/// Of the point at which a branch was to leave its parent.
pub(crate) fn of_branch_point(error: &FetchError) -> ResponseError {
    match error {
        FetchError::Storage(_) => ResponseError::KafkaStorageError,
        FetchError::UnknownPartition(_) | FetchError::OutOfRange { .. } => {
            ResponseError::InvalidConfig
        }
    }
}

/// The code for records that are not one good batch.
pub(crate) fn of_batch(error: &BatchError) -> ResponseError {
    match error {
        // Retriable: the bytes may have suffered on the way.
        BatchError::Checksum { .. } | BatchError::Truncated => ResponseError::CorruptMessage,
        BatchError::TimestampType => ResponseError::InvalidTimestamp,
        BatchError::Codec(_) => ResponseError::UnsupportedCompressionType,
        BatchError::Empty
        | BatchError::Several
        | BatchError::Magic(_)
        | BatchError::BaseOffset(_)
        | BatchError::Count { .. }
        | BatchError::Control
        | BatchError::DeleteHorizon
        | BatchError::Producer { .. } => ResponseError::InvalidRecord,
    }
}

impl From<Rejection> for GroupError {
    fn from(rejection: Rejection) -> Self {
        match rejection {
            // Both: somebody else looks after the group, or did so meanwhile.
            Rejection::NotCoordinator(_) | Rejection::GroupMoved { .. } => Self::NotCoordinator,
            Rejection::BrokerFenced(_) => Self::NotAvailable,
            Rejection::StaleCommand(_) => Self::Unknown,
            Rejection::UnknownGroup => Self::UnknownGroup(String::new()),
            Rejection::UnknownMember => Self::UnknownMember,
            Rejection::IllegalGeneration { .. } => Self::IllegalGeneration,
            Rejection::StaleMemberEpoch { .. } => Self::StaleMemberEpoch,
            Rejection::FencedInstance => Self::FencedInstance,
            Rejection::RebalanceInProgress => Self::RebalanceInProgress,
            Rejection::GroupNotEmpty => Self::GroupNotEmpty,
            other => Self::Rejected(other),
        }
    }
}

impl From<TransactionError> for GroupError {
    fn from(error: TransactionError) -> Self {
        match error {
            TransactionError::NotAvailable => Self::NotAvailable,
            TransactionError::Rejected(rejection) => rejection.into(),
            TransactionError::Unproposed(error) => error.into(),
        }
    }
}

impl From<ProposeError> for GroupError {
    fn from(error: ProposeError) -> Self {
        match error {
            ProposeError::NotAppended(_) => Self::NotAvailable,
            ProposeError::Unknown => Self::Unknown,
            ProposeError::Stopped => Self::NotCoordinator,
        }
    }
}
