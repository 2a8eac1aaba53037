//! InitProducerId: an identity for an idempotent producer (KIP-98).
//!
//! A broker takes producer ids from the log in blocks and gives them out from memory; what is left
//! of a block when it stops is never used, and ids are never used twice.

use std::collections::VecDeque;

use odradek_protocol::ResponseError;
use odradek_protocol::id::ProducerId;
use odradek_protocol::messages::{self, InitProducerIdRequest, InitProducerIdResponse};
use odradek_storage::command::{Command, Outcome};
use tokio::sync::Mutex;

use crate::context::Context;
use crate::error;
use crate::session::Session;

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
    _: i16,
    request: InitProducerIdRequest,
) -> InitProducerIdResponse {
    let failed = |code: ResponseError| {
        InitProducerIdResponse::default()
            .with_error_code(code.code())
            .with_producer_id(messages::ProducerId(-1))
            .with_producer_epoch(-1)
    };
    if request.transactional_id.is_some() {
        // Not retriable, so that a transactional producer fails at once and with a reason.
        return failed(ResponseError::InvalidRequest);
    }
    match next(context).await {
        Ok(id) => InitProducerIdResponse::default()
            .with_producer_id(messages::ProducerId(id.0))
            .with_producer_epoch(0),
        Err(code) => failed(code),
    }
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
