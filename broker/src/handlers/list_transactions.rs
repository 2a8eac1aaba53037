//! ListTransactions: the transactional ids that this broker coordinates; clients ask every broker
//! (KIP-664, KIP-994, KIP-1152).

use odradek_protocol::ResponseError;
use odradek_protocol::messages::list_transactions_response::TransactionState;
use odradek_protocol::messages::{self, ListTransactionsRequest, ListTransactionsResponse};
use odradek_storage::state::transactions::Transactional;
use regex::Regex;

use crate::context::Context;
use crate::session::Session;
use crate::transactions;

/// States that Kafka knows. Not all of them exist here: a transaction ends in one step.
const STATES: &[&str] = &[
    "Empty",
    "Ongoing",
    "PrepareCommit",
    "PrepareAbort",
    "CompleteCommit",
    "CompleteAbort",
    "PrepareEpochFence",
    "Dead",
];

pub(crate) async fn handle(
    context: &Context,
    _: &Session,
    version: i16,
    request: ListTransactionsRequest,
) -> ListTransactionsResponse {
    let pattern = request.transactional_id_pattern.as_ref().map(|it| it.as_str());
    let pattern = pattern.filter(|it| !it.is_empty());
    // The whole id has to match, as for Kafka.
    let pattern = pattern.map(|pattern| Regex::new(&format!("^(?:{pattern})$"))).transpose();
    let Ok(pattern) = pattern else {
        let code = ResponseError::InvalidRegularExpression.code();
        return ListTransactionsResponse::default().with_error_code(code);
    };
    if context.machine().barrier().await.is_err() {
        let code = ResponseError::CoordinatorNotAvailable.code();
        return ListTransactionsResponse::default().with_error_code(code);
    }
    let node = Some(context.node_id());
    let now_ms = context.clock.now_ms();
    let duration_ms = if version >= 1 { request.duration_filter } else { -1 };
    let is_wanted = |id: &str, it: &Transactional| {
        let (states, producers) = (&request.state_filters, &request.producer_id_filters);
        let state = transactions::state_name(&it.phase);
        let lasts = || it.ongoing().is_some_and(|it| now_ms - it.started_ms > duration_ms);
        (states.is_empty() || states.iter().any(|wanted| wanted.as_str() == state))
            && (producers.is_empty() || producers.iter().any(|id| id.0 == it.producer.id.0))
            && (duration_ms < 0 || lasts())
            && pattern.as_ref().is_none_or(|pattern| pattern.is_match(id))
    };
    let found = context.machine().read(|state| {
        let ours = state
            .transactions()
            .iter()
            .filter(|(id, it)| is_wanted(id, it) && state.coordinator_of(id) == node);
        let shown = ours.map(|(id, it)| {
            TransactionState::default()
                .with_transactional_id(odradek_protocol::StrBytes::from_string(id.clone()).into())
                .with_producer_id(messages::ProducerId(it.producer.id.0))
                .with_transaction_state(transactions::state_name(&it.phase).into())
        });
        shown.collect()
    });
    let unknown = request.state_filters.iter().filter(|state| !STATES.contains(&state.as_str()));
    ListTransactionsResponse::default()
        .with_unknown_state_filters(unknown.cloned().collect())
        .with_transaction_states(found)
}
