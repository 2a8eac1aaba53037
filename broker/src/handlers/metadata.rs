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
    let mut topics = match request.topics {
        // Version 0 has no null: there, an empty list means all.
        None => all(context, session, version),
        Some(topics) if topics.is_empty() && version == 0 => all(context, session, version),
        Some(topics) => {
            let mut found = Vec::with_capacity(topics.len());
            for topic in topics {
                found.push(
                    one(context, session, version, topic, request.allow_auto_topic_creation).await,
                );
            }
            found
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

fn all(context: &Context, session: &Session, version: i16) -> Vec<MetadataResponseTopic> {
    context.machine().read(|state| {
        let brokers = directory::listed(state, session);
        let zone = session.zone.as_deref();
        state.topics().map(|topic| describe(&brokers, topic, zone, version)).collect()
    })
}

async fn one(
    context: &Context,
    session: &Session,
    version: i16,
    asked: MetadataRequestTopic,
    may_create: bool,
) -> MetadataResponseTopic {
    let MetadataRequestTopic { name, topic_id, .. } = asked;
    // Java's admin client sends an empty name along with an id.
    let name = name.filter(|_| topic_id.is_nil());
    let Some(name) = name else { return by_id(context, session, version, topic_id).await };
    let failed = |code: ResponseError| {
        MetadataResponseTopic::default().with_error_code(code.code()).with_name(Some(name.clone()))
    };
    if !topics::is_legal_name(name.as_str()) {
        return failed(ResponseError::InvalidTopicException);
    }
    let look = |state: &State| {
        let topic = state.topic_by_name(name.as_str())?;
        let brokers = directory::listed(state, session);
        Some(describe(&brokers, topic, session.zone.as_deref(), version))
    };
    match look_twice(context.machine(), look).await {
        Ok(Some(topic)) => return topic,
        Ok(None) => {}
        Err(_) => return failed(ResponseError::LeaderNotAvailable),
    }
    let configs = context.broker_configs();
    // Before version 4 a client could not say that it did not want this.
    if !configs.auto_create_topics || (version >= 4 && !may_create) {
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
    context.machine().read(look).unwrap_or_else(|| failed(ResponseError::LeaderNotAvailable))
}

async fn by_id(
    context: &Context,
    session: &Session,
    version: i16,
    id: Uuid,
) -> MetadataResponseTopic {
    let look = |state: &State| {
        let topic = state.topic(TopicId(id))?;
        let brokers = directory::listed(state, session);
        Some(describe(&brokers, topic, session.zone.as_deref(), version))
    };
    let code = match look_twice(context.machine(), look).await {
        Ok(Some(topic)) => return topic,
        Ok(None) => ResponseError::UnknownTopicId,
        Err(_) => ResponseError::LeaderNotAvailable,
    };
    let failed = MetadataResponseTopic::default().with_error_code(code.code()).with_topic_id(id);
    // Null names came with version 12.
    failed.with_name((version < 12).then(TopicName::default))
}

fn describe(
    brokers: &[Listed],
    topic: &Topic,
    zone: Option<&str>,
    version: i16,
) -> MetadataResponseTopic {
    let partition = |index: usize| {
        let index = i32::try_from(index).unwrap_or(i32::MAX);
        let nodes = leadership::named(brokers, topic, index, zone);
        let described = MetadataResponsePartition::default()
            .with_partition_index(index)
            .with_leader_id(nodes.first().copied().unwrap_or(BrokerId(-1)))
            .with_replica_nodes(nodes.clone())
            .with_isr_nodes(nodes);
        if version >= 7 { described.with_leader_epoch(0) } else { described }
    };
    let described = MetadataResponseTopic::default()
        .with_name(Some(TopicName(topic.name.clone().into())))
        .with_partitions((0..topic.partitions.len()).map(partition).collect());
    if version >= 10 { described.with_topic_id(topic.id.0) } else { described }
}
