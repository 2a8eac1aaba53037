//! EndTxn: commits or aborts a transaction (KIP-98, KIP-890).

use odradek_protocol::ResponseError;
use odradek_protocol::id::ProducerId;
use odradek_protocol::messages::{self, EndTxnRequest, EndTxnResponse};
use odradek_storage::command::ProducerIdAndEpoch;

use crate::context::Context;
use crate::error;
use crate::session::Session;

/// From this version on a client knows PRODUCER_FENCED.
const FENCED: i16 = 2;

/// From this version on a client goes on with the epoch that it is told (KIP-890).
const BUMPS_EPOCH: i16 = 5;

pub(crate) async fn handle(
    context: &Context,
    _: &Session,
    version: i16,
    request: EndTxnRequest,
) -> EndTxnResponse {
    let id = request.transactional_id.as_str();
    let producer =
        ProducerIdAndEpoch { id: ProducerId(request.producer_id.0), epoch: request.producer_epoch };
    let bumps_epoch = version >= BUMPS_EPOCH;
    let ended = if id.is_empty() {
        Err(ResponseError::InvalidRequest)
    } else {
        let ended = context.transactions.end(id, producer, request.committed, bumps_epoch).await;
        ended.map_err(|refused| error::of_transaction(&refused, version >= FENCED))
    };
    match ended {
        Ok(next) if bumps_epoch => EndTxnResponse::default()
            .with_producer_id(messages::ProducerId(next.id.0))
            .with_producer_epoch(next.epoch),
        Ok(_) => EndTxnResponse::default(),
        Err(code) => EndTxnResponse::default().with_error_code(code.code()),
    }
}
