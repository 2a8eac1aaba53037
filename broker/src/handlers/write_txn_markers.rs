//! WriteTxnMarkers: aborts transactions that hang, for operators (KIP-664).
//!
//! A transaction ends in all of its partitions at once, so to end it in one is to abort the whole.
//! That a transaction was committed only its producer can say.

use std::collections::{BTreeMap, BTreeSet};

use odradek_protocol::ResponseError;
use odradek_protocol::id::{ProducerId, TopicPartition};
use odradek_protocol::messages::write_txn_markers_request::WritableTxnMarker;
use odradek_protocol::messages::write_txn_markers_response::{
    WritableTxnMarkerPartitionResult, WritableTxnMarkerResult, WritableTxnMarkerTopicResult,
};
use odradek_protocol::messages::{WriteTxnMarkersRequest, WriteTxnMarkersResponse};
use odradek_storage::state::State;
use odradek_storage::state::transactions::Transactional;

use crate::context::Context;
use crate::error;
use crate::session::Session;

/// What is to become of a partition of a marker.
enum Fate {
    /// It is refused, or there is nothing to do.
    Answered(i16),
    /// Its answer is that of aborting this transaction.
    Aborted(String, u64),
}

pub(crate) async fn handle(
    context: &Context,
    _: &Session,
    _: i16,
    request: WriteTxnMarkersRequest,
) -> WriteTxnMarkersResponse {
    let is_at_tail = context.machine().barrier().await.is_ok();
    let mut results = Vec::with_capacity(request.markers.len());
    for marker in request.markers {
        let fates: Vec<Vec<Fate>> = context.machine().read(|state| {
            let topics = marker.topics.iter().map(|topic| {
                let name = topic.name.as_str();
                let indexes = topic.partition_indexes.iter();
                indexes.map(|index| fate(state, &marker, name, *index, is_at_tail)).collect()
            });
            topics.collect()
        });
        let aborted = abort(context, &fates).await;
        let topics = marker.topics.into_iter().zip(fates).map(|(topic, fates)| {
            let partitions = topic.partition_indexes.into_iter().zip(fates).map(|(index, fate)| {
                let code = match fate {
                    Fate::Answered(code) => code,
                    Fate::Aborted(id, number) => {
                        aborted.get(&(id, number)).copied().unwrap_or_default()
                    }
                };
                WritableTxnMarkerPartitionResult::default()
                    .with_partition_index(index)
                    .with_error_code(code)
            });
            WritableTxnMarkerTopicResult::default()
                .with_name(topic.name)
                .with_partitions(partitions.collect())
        });
        let result = WritableTxnMarkerResult::default().with_producer_id(marker.producer_id);
        results.push(result.with_topics(topics.collect()));
    }
    WriteTxnMarkersResponse::default().with_markers(results)
}

fn fate(
    state: &State,
    marker: &WritableTxnMarker,
    topic: &str,
    index: i32,
    is_at_tail: bool,
) -> Fate {
    let answered = |code: ResponseError| Fate::Answered(code.code());
    if !is_at_tail {
        return answered(ResponseError::NotLeaderOrFollower);
    }
    if marker.transaction_result {
        return answered(ResponseError::InvalidTxnState);
    }
    let at = state.topic_by_name(topic).map(|it| TopicPartition { topic: it.id, partition: index });
    let Some(at) = at.filter(|at| state.partition(*at).is_some()) else {
        return answered(ResponseError::UnknownTopicOrPartition);
    };
    let Some((id, found)) = state.transactions().of_producer(ProducerId(marker.producer_id.0))
    else {
        return Fate::Answered(0);
    };
    if marker.producer_epoch < found.producer.epoch {
        return answered(ResponseError::InvalidProducerEpoch);
    }
    let has_records = |it: &Transactional| {
        it.ongoing().is_some_and(|it| it.partitions.get(&at).is_some_and(Option::is_some))
    };
    if has_records(found) {
        Fate::Aborted(id.clone(), found.transaction)
    } else {
        Fate::Answered(0)
    }
}

/// Aborts each transaction once; the codes of what became of it.
async fn abort(context: &Context, fates: &[Vec<Fate>]) -> BTreeMap<(String, u64), i16> {
    let wanted = fates.iter().flatten().filter_map(|fate| match fate {
        Fate::Aborted(id, number) => Some((id.clone(), *number)),
        Fate::Answered(_) => None,
    });
    let mut codes = BTreeMap::new();
    for (id, number) in wanted.collect::<BTreeSet<_>>() {
        let code = match context.transactions.abort(&id, number).await {
            Ok(()) => {
                tracing::info!(transactional_id = id, "transaction is aborted by an operator");
                0
            }
            Err(refused) => error::of_marker(&refused).code(),
        };
        codes.insert((id, number), code);
    }
    codes
}
