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
        // Certainly not applied, and a later try may be: the broker registers again by itself.
        Rejection::BrokerFenced(_) => ResponseError::KafkaStorageError,
        // Too old to tell whether it was applied.
        Rejection::StaleCommand(_) => ResponseError::RequestTimedOut,
        // Nothing that a client can bring about.
        Rejection::BrokerAlive(_) | Rejection::LevelNotRising { .. } | Rejection::Malformed(_) => {
            ResponseError::UnknownServerError
        }
    }
}

/// The code for a batch that has no offset.
pub(crate) fn of_append(error: &AppendError) -> ResponseError {
    match error {
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

/// The code for positions of consumers that could not be committed: all of them make a client look
/// for its coordinator again, and try again.
pub(crate) fn of_commit(error: &ProposeError) -> ResponseError {
    match error {
        ProposeError::NotAppended(_) => ResponseError::CoordinatorNotAvailable,
        ProposeError::Unknown => ResponseError::RequestTimedOut,
        ProposeError::Stopped => ResponseError::NotCoordinator,
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
        | BatchError::Producer { .. } => ResponseError::InvalidRecord,
    }
}
