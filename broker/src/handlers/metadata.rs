//! Metadata: which topics there are, and which broker to ask for each partition.
//!
//! Any broker serves any partition, so the leader is a hint (see `leadership`), the leader epoch is
//! 0 for ever, and a topic that is created because it was asked for is there at once.

use std::collections::BTreeMap;

use odradek_protocol::ResponseError;
use odradek_protocol::id::TopicId;
use odradek_protocol::messages::metadata_request::MetadataRequestTopic;
use odradek_protocol::messages::metadata_response::{
    MetadataResponseBroker, MetadataResponsePartition, MetadataResponseTopic,
};
use odradek_protocol::messages::{BrokerId, MetadataRequest, MetadataResponse, TopicName};
use odradek_storage::state::State;
use odradek_storage::state::topics::Topic;
use tokio::task::yield_now;
use uuid::Uuid;

use crate::cluster::cluster_id;
use crate::context::Context;
use crate::directory::{self, Listed};
use crate::leadership;
use crate::operations;
use crate::session::Session;
use crate::topics::{self, NewTopic, look_twice};

pub(crate) async fn handle(
    context: &Context,
    session: &Session,
    version: i16,
    request: MetadataRequest,
) -> MetadataResponse {
    let look = Look { zone: session.zone.as_deref(), version };
    let mut topics = match request.topics {
        // Version 0 has no null: there, an empty list means all.
        None => all(context, session, look).await,
        Some(topics) if topics.is_empty() && version == 0 => all(context, session, look).await,
        Some(topics) => {
            let may_create = request.allow_auto_topic_creation;
            named(context, session, look, topics, may_create).await
        }
    };
    let (brokers, cluster_id) =
        context.machine().read(|state| (directory::listed(state, session), cluster_id(state)));
    let controller = leadership::controller(&brokers, context.node_id());
    for topic in topics.iter_mut().filter(|topic| topic.error_code == 0) {
        topic.topic_authorized_operations =
            operations::of_topic(request.include_topic_authorized_operations);
    }
    let operations = operations::of_cluster(request.include_cluster_authorized_operations);
    MetadataResponse::default()
        .with_controller_id(BrokerId(controller.0))
        .with_brokers(brokers.into_iter().map(broker).collect())
        .with_cluster_id(Some(cluster_id.into()))
        .with_cluster_authorized_operations(operations)
        .with_topics(topics)
}

fn broker(Listed { node, endpoint, zone }: Listed) -> MetadataResponseBroker {
    MetadataResponseBroker::default()
        .with_node_id(BrokerId(node.0))
        .with_host(endpoint.host.into())
        .with_port(i32::from(endpoint.port))
        .with_rack(zone.map(Into::into))
}

/// How a client sees topics.
#[derive(Clone, Copy)]
struct Look<'a> {
    zone: Option<&'a str>,
    version: i16,
}

/// Topics that are described at once. Everybody else's turn comes after so many.
const TOPICS_AT_ONCE: usize = 500;

/// Partitions after which it comes too, at the end of a topic.
const PARTITIONS_AT_ONCE: usize = 5000;

async fn all(context: &Context, session: &Session, look: Look<'_>) -> Vec<MetadataResponseTopic> {
    let ids: Vec<TopicId> =
        context.machine().read(|state| state.topics().map(|topic| topic.id).collect());
    let mut all = Vec::with_capacity(ids.len());
    let mut rest = ids.as_slice();
    while !rest.is_empty() {
        let described = context.machine().read(|state| {
            let brokers = directory::listed(state, session);
            at_once(rest, |id| state.topic(*id).map(|topic| look.describe(&brokers, topic)))
        });
        rest = &rest[described.len()..];
        all.extend(described.into_iter().flatten());
        yield_now().await;
    }
    all
}

/// What is found for the first of these, as many as may be described at once.
fn at_once<T>(
    asked: &[T],
    find: impl Fn(&T) -> Option<MetadataResponseTopic>,
) -> Vec<Option<MetadataResponseTopic>> {
    let mut partitions = 0;
    let mut found = Vec::new();
    for asked in asked.iter().take(TOPICS_AT_ONCE) {
        let topic = find(asked);
        partitions += topic.as_ref().map_or(0, |topic| topic.partitions.len());
        found.push(topic);
        if partitions >= PARTITIONS_AT_ONCE {
            break;
        }
    }
    found
}

/// The topics that a client asks for, in its order.
async fn named(
    context: &Context,
    session: &Session,
    look: Look<'_>,
    asked: Vec<MetadataRequestTopic>,
    may_create: bool,
) -> Vec<MetadataResponseTopic> {
    let mut found = Vec::with_capacity(asked.len());
    let mut rest = asked.as_slice();
    while !rest.is_empty() {
        let known = context.machine().read(|state| {
            let brokers = directory::listed(state, session);
            at_once(rest, |asked| look.find(state, &brokers, asked))
        });
        let (turn, later) = rest.split_at(known.len());
        rest = later;
        for (asked, known) in turn.iter().zip(known) {
            found.push(match known {
                Some(topic) => topic,
                None => one(context, session, look, asked, may_create).await,
            });
        }
        yield_now().await;
    }
    found
}

/// A topic that this broker does not know, or not yet.
async fn one(
    context: &Context,
    session: &Session,
    look: Look<'_>,
    asked: &MetadataRequestTopic,
    may_create: bool,
) -> MetadataResponseTopic {
    let find = |state: &State| look.find(state, &directory::listed(state, session), asked);
    let Some(name) = name_of(asked) else {
        return by_id(context, look.version, asked.topic_id, find).await;
    };
    let failed = |code: ResponseError| {
        MetadataResponseTopic::default().with_error_code(code.code()).with_name(Some(name.clone()))
    };
    if !topics::is_legal_name(name.as_str()) {
        return failed(ResponseError::InvalidTopicException);
    }
    match look_twice(context.machine(), find).await {
        Ok(Some(topic)) => return topic,
        Ok(None) => {}
        Err(_) => return failed(ResponseError::LeaderNotAvailable),
    }
    let configs = context.broker_configs();
    // Before version 4 a client could not say that it did not want this.
    if !configs.auto_create_topics || (look.version >= 4 && !may_create) {
        return failed(ResponseError::UnknownTopicOrPartition);
    }
    let mut new = NewTopic {
        name: name.as_str().to_owned(),
        partitions: configs.num_partitions,
        is_counted: false,
        replication_factor: configs.default_replication_factor,
        configs: BTreeMap::new(),
    };
    match topics::create(context, &mut new, false).await {
        // Somebody else was quicker: fine.
        Ok(_) => {}
        Err(refusal) if refusal.code == ResponseError::TopicAlreadyExists => {}
        Err(refusal) => return failed(refusal.code),
    }
    context.machine().read(find).unwrap_or_else(|| failed(ResponseError::LeaderNotAvailable))
}

async fn by_id(
    context: &Context,
    version: i16,
    id: Uuid,
    find: impl Fn(&State) -> Option<MetadataResponseTopic>,
) -> MetadataResponseTopic {
    let code = match look_twice(context.machine(), find).await {
        Ok(Some(topic)) => return topic,
        Ok(None) => ResponseError::UnknownTopicId,
        Err(_) => ResponseError::LeaderNotAvailable,
    };
    let failed = MetadataResponseTopic::default().with_error_code(code.code()).with_topic_id(id);
    // Null names came with version 12.
    failed.with_name((version < 12).then(TopicName::default))
}

/// The name of a topic that is asked for by it. Java's admin client sends an empty one with an id.
fn name_of(asked: &MetadataRequestTopic) -> Option<&TopicName> {
    asked.name.as_ref().filter(|_| asked.topic_id.is_nil())
}

impl Look<'_> {
    fn find(
        self,
        state: &State,
        brokers: &[Listed],
        asked: &MetadataRequestTopic,
    ) -> Option<MetadataResponseTopic> {
        let topic = match name_of(asked) {
            Some(name) => state.topic_by_name(name.as_str()),
            None => state.topic(TopicId(asked.topic_id)),
        };
        topic.map(|topic| self.describe(brokers, topic))
    }

    fn describe(self, brokers: &[Listed], topic: &Topic) -> MetadataResponseTopic {
        let partition = |index: usize| {
            let index = i32::try_from(index).unwrap_or(i32::MAX);
            let nodes = leadership::named(brokers, topic, index, self.zone);
            let described = MetadataResponsePartition::default()
                .with_partition_index(index)
                .with_leader_id(nodes.first().copied().unwrap_or(BrokerId(-1)))
                .with_replica_nodes(nodes.clone())
                .with_isr_nodes(nodes);
            if self.version >= 7 { described.with_leader_epoch(0) } else { described }
        };
        let described = MetadataResponseTopic::default()
            .with_name(Some(TopicName(topic.name.clone().into())))
            .with_partitions((0..topic.partitions.len()).map(partition).collect());
        if self.version >= 10 { described.with_topic_id(topic.id.0) } else { described }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// How many topics of so many partitions are described at once.
    fn turn(partitions: usize) -> usize {
        let topic = MetadataResponseTopic::default()
            .with_partitions(vec![MetadataResponsePartition::default(); partitions]);
        at_once(&[(); 1000], |()| Some(topic.clone())).len()
    }

    #[test]
    fn a_turn_is_over_after_so_many_topics_or_partitions() {
        assert_eq!(turn(1), 500);
        assert_eq!(turn(10), 500);
        assert_eq!(turn(100), 50);
        assert_eq!(turn(1000), 5);
        assert_eq!(turn(3000), 2);
        // A topic is described whole, or nobody would ever hear of it.
        assert_eq!(turn(20_000), 1);
        assert_eq!(at_once(&[(); 1000], |()| None).len(), 500);
    }
}
