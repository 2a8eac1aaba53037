//! DescribeTransactions: where transactional ids stand (KIP-664).

use std::collections::BTreeMap;

use odradek_protocol::messages::describe_transactions_response::{TopicData, TransactionState};
use odradek_protocol::messages::{
    self, DescribeTransactionsRequest, DescribeTransactionsResponse, TransactionalId,
};
use odradek_protocol::{ResponseError, StrBytes};
use odradek_storage::state::State;

use crate::context::Context;
use crate::session::Session;
use crate::transactions;

pub(crate) async fn handle(
    context: &Context,
    _: &Session,
    _: i16,
    request: DescribeTransactionsRequest,
) -> DescribeTransactionsResponse {
    let is_at_tail = context.machine().barrier().await.is_ok();
    let ids = request.transactional_ids.into_iter();
    let states = ids.map(|id| {
        let state = TransactionState::default().with_transactional_id(id.clone());
        if id.is_empty() {
            return state.with_error_code(ResponseError::InvalidRequest.code());
        }
        if !is_at_tail {
            return state.with_error_code(ResponseError::CoordinatorNotAvailable.code());
        }
        context
            .machine()
            .read(|known| show(known, &id))
            .unwrap_or_else(|| state.with_error_code(ResponseError::TransactionalIdNotFound.code()))
    });
    DescribeTransactionsResponse::default().with_transaction_states(states.collect())
}

fn show(state: &State, id: &TransactionalId) -> Option<TransactionState> {
    let found = state.transactions().get(id.as_str())?;
    let mut topics: BTreeMap<&str, Vec<i32>> = BTreeMap::new();
    for at in found.ongoing().into_iter().flat_map(|it| it.partitions.keys()) {
        if let Some(topic) = state.topic(at.topic) {
            topics.entry(&topic.name).or_default().push(at.partition);
        }
    }
    let topic = |(name, partitions): (&str, Vec<i32>)| {
        let name = StrBytes::from_string(name.to_owned());
        TopicData::default().with_topic(name.into()).with_partitions(partitions)
    };
    Some(
        TransactionState::default()
            .with_transactional_id(id.clone())
            .with_transaction_state(transactions::state_name(&found.phase).into())
            .with_transaction_timeout_ms(i32::try_from(found.timeout_ms).unwrap_or(i32::MAX))
            .with_transaction_start_time_ms(found.ongoing().map_or(-1, |it| it.started_ms))
            .with_producer_id(messages::ProducerId(found.producer.id.0))
            .with_producer_epoch(found.producer.epoch)
            .with_topics(topics.into_iter().map(topic).collect()),
    )
}
