//! InitProducerId: an identity for an idempotent or transactional producer (KIP-98, KIP-360).
//!
//! A broker takes producer ids from the log in blocks and gives them out from memory; what is left
//! of a block when it stops is never used, and ids are never used twice.

use std::collections::VecDeque;

use odradek_protocol::ResponseError;
use odradek_protocol::id::ProducerId;
use odradek_protocol::messages::{self, InitProducerIdRequest, InitProducerIdResponse};
use odradek_storage::command::{Command, Outcome, ProducerIdAndEpoch};
use tokio::sync::Mutex;

use crate::context::Context;
use crate::error;
use crate::session::Session;

/// From this version on a client knows PRODUCER_FENCED.
const FENCED: i16 = 4;

/// How many ids are taken at once.
const BLOCK: u32 = 1000;

/// Ids that are this broker's to give out.
#[derive(Debug, Default)]
pub(crate) struct ProducerIdBlock {
    ids: Mutex<VecDeque<i64>>,
}

pub(crate) async fn handle(
    context: &Context,
    _: &Session,
    version: i16,
    request: InitProducerIdRequest,
) -> InitProducerIdResponse {
    let producer = match &request.transactional_id {
        Some(id) => init_transactional(context, version, id.as_str(), &request).await,
        None => next(context).await.map(|id| ProducerIdAndEpoch { id, epoch: 0 }),
    };
    match producer {
        Ok(producer) => InitProducerIdResponse::default()
            .with_producer_id(messages::ProducerId(producer.id.0))
            .with_producer_epoch(producer.epoch),
        Err(code) => InitProducerIdResponse::default()
            .with_error_code(code.code())
            .with_producer_id(messages::ProducerId(-1))
            .with_producer_epoch(-1),
    }
}

async fn init_transactional(
    context: &Context,
    version: i16,
    id: &str,
    request: &InitProducerIdRequest,
) -> Result<ProducerIdAndEpoch, ResponseError> {
    let (producer, epoch) = (ProducerId(request.producer_id.0), request.producer_epoch);
    if id.is_empty() || (producer.0 >= 0) != (epoch >= 0) {
        return Err(ResponseError::InvalidRequest);
    }
    let timeout_ms_max = context.broker_configs().transaction_timeout_ms_max;
    let timeout_ms = u32::try_from(request.transaction_timeout_ms).unwrap_or(0);
    if timeout_ms == 0 || request.transaction_timeout_ms > timeout_ms_max {
        return Err(ResponseError::InvalidTransactionTimeout);
    }
    let expected = (epoch >= 0).then_some(ProducerIdAndEpoch { id: producer, epoch });
    let producer = context.transactions.init_producer(id, timeout_ms, expected).await;
    producer.map_err(|refused| error::of_transaction(&refused, version >= FENCED))
}

/// The lock is held while a block is taken, so that one serves all who wait.
async fn next(context: &Context) -> Result<ProducerId, ResponseError> {
    let mut ids = context.producer_ids.ids.lock().await;
    if ids.is_empty() {
        let outcome =
            context.machine().propose(Command::AllocateProducerIds { count: BLOCK }).await;
        match outcome {
            Ok(Outcome::ProducerIds { first, count }) => {
                ids.extend((0..i64::from(count)).map(|n| first.0 + n));
            }
            Ok(Outcome::Rejected(rejection)) => return Err(error::of_rejection(&rejection)),
            Ok(_) => return Err(ResponseError::UnknownServerError),
            // An unknown outcome costs a block of numbers and nothing else.
            Err(_) => return Err(ResponseError::CoordinatorNotAvailable),
        }
    }
    ids.pop_front().map(ProducerId).ok_or(ResponseError::CoordinatorNotAvailable)
}
