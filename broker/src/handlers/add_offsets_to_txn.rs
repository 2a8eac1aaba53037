//! AddOffsetsToTxn: a group in which a transaction will commit positions, for clients that say so
//! before they do (KIP-98).

use odradek_protocol::ResponseError;
use odradek_protocol::id::ProducerId;
use odradek_protocol::messages::{AddOffsetsToTxnRequest, AddOffsetsToTxnResponse};
use odradek_storage::command::ProducerIdAndEpoch;

use crate::context::Context;
use crate::error;
use crate::session::Session;

/// From this version on a client knows PRODUCER_FENCED.
const FENCED: i16 = 2;

pub(crate) async fn handle(
    context: &Context,
    _: &Session,
    version: i16,
    request: AddOffsetsToTxnRequest,
) -> AddOffsetsToTxnResponse {
    let id = request.transactional_id.as_str();
    let group = request.group_id.as_str();
    let producer =
        ProducerIdAndEpoch { id: ProducerId(request.producer_id.0), epoch: request.producer_epoch };
    let code = if id.is_empty() {
        Some(ResponseError::InvalidRequest)
    } else if group.is_empty() {
        Some(ResponseError::InvalidGroupId)
    } else {
        let groups = vec![group.to_owned()];
        let added = context.transactions.add(id, producer, Vec::new(), groups).await;
        added.err().map(|refused| error::of_transaction(&refused, version >= FENCED))
    };
    AddOffsetsToTxnResponse::default().with_error_code(code.map_or(0, |code| code.code()))
}
