//! CreateTopics.
//!
//! Replica assignments are taken for what they say about the number of partitions and replicas;
//! which brokers they name means nothing, because any broker serves any partition.

use std::collections::{BTreeMap, BTreeSet};

use futures::stream::{self, StreamExt};
use odradek_protocol::ResponseError;
use odradek_protocol::id::TopicId;
use odradek_protocol::messages::create_topics_request::CreatableTopic;
use odradek_protocol::messages::create_topics_response::{
    CreatableTopicConfigs, CreatableTopicResult,
};
use odradek_protocol::messages::{CreateTopicsRequest, CreateTopicsResponse, TopicName};

use crate::broker_configs::BrokerConfigs;
use crate::configs::Source;
use crate::context::Context;
use crate::session::Session;
use crate::topic_configs::TOPIC_CONFIGS;
use crate::topics::{self, NewTopic, Refusal};

/// Topics of one request that wait for the log together.
const TOPICS_AT_ONCE: usize = 64;

pub(crate) async fn handle(
    context: &Context,
    _: &Session,
    version: i16,
    request: CreateTopicsRequest,
) -> CreateTopicsResponse {
    let configs = context.broker_configs();
    let mut names = BTreeSet::new();
    let repeated: BTreeSet<String> = request
        .topics
        .iter()
        .map(|topic| topic.name.as_str().to_owned())
        .filter(|name| !names.insert(name.clone()))
        .collect();
    let of_metric =
        |topic: &CreatableTopic| topics::metric_name(topic.name.as_str()).collect::<String>();
    let mut metrics: BTreeMap<String, usize> = BTreeMap::new();
    for topic in &request.topics {
        *metrics.entry(of_metric(topic)).or_default() += 1;
    }
    // Each waits for the log, most of them for nothing else: those go together. A branch may be one
    // of a topic of the same request, and of two that collide the second is to hear so.
    let is_alone = |topic: &CreatableTopic| {
        let is_branch = topic.configs.iter().any(|it| topics::is_branch_config(it.name.as_str()));
        !is_branch && metrics.get(&of_metric(topic)) == Some(&1)
    };
    let answer = |(place, topic): (usize, CreatableTopic)| {
        let (configs, is_repeated) = (&configs, repeated.contains(topic.name.as_str()));
        async move {
            let name = topic.name.clone();
            let created = if is_repeated {
                let message = format!("topic {} stands in the request twice", name.as_str());
                Err(Refusal::new(ResponseError::InvalidRequest, message))
            } else {
                create(context, configs, topic, request.validate_only).await
            };
            (place, result(name, created, version))
        }
    };
    let (alone, others): (Vec<_>, Vec<_>) =
        request.topics.into_iter().enumerate().partition(|(_, topic)| is_alone(topic));
    let mut results: Vec<_> =
        stream::iter(alone).map(&answer).buffered(TOPICS_AT_ONCE).collect().await;
    for other in others {
        results.push(answer(other).await);
    }
    results.sort_by_key(|(place, _)| *place);
    CreateTopicsResponse::default()
        .with_topics(results.into_iter().map(|(_, result)| result).collect())
}

fn result(
    name: TopicName,
    created: Result<(NewTopic, TopicId), Refusal>,
    version: i16,
) -> CreatableTopicResult {
    let result = CreatableTopicResult::default().with_name(name);
    match created {
        Ok((topic, id)) => describe(result, &topic, id, version),
        Err(Refusal { code, message }) => {
            let result = result.with_error_code(code.code());
            let result = result.with_error_message(Some(message.into()));
            if version >= 5 { result.with_configs(None) } else { result }
        }
    }
}

async fn create(
    context: &Context,
    configs: &BrokerConfigs,
    topic: CreatableTopic,
    validate_only: bool,
) -> Result<(NewTopic, TopicId), Refusal> {
    let mut new = understand(configs, topic)?;
    let id = topics::create(context, &mut new, validate_only).await?;
    Ok((new, id))
}

fn understand(configs: &BrokerConfigs, topic: CreatableTopic) -> Result<NewTopic, Refusal> {
    let is_counted = topic.num_partitions != -1 || !topic.assignments.is_empty();
    let (partitions, replication_factor) = if topic.assignments.is_empty() {
        (
            match topic.num_partitions {
                -1 => configs.num_partitions,
                partitions => u32::try_from(partitions).unwrap_or(0),
            },
            match topic.replication_factor {
                -1 => configs.default_replication_factor,
                factor => u16::try_from(factor).unwrap_or(0),
            },
        )
    } else {
        assigned(&topic)?
    };
    let mut values = BTreeMap::new();
    for config in topic.configs {
        let name = config.name.as_str().to_owned();
        let Some(value) = config.value else {
            let message = format!("{name} needs a value");
            return Err(Refusal::new(ResponseError::InvalidConfig, message));
        };
        values.insert(name, value.as_str().to_owned());
    }
    let name = topic.name.as_str().to_owned();
    Ok(NewTopic { name, partitions, is_counted, replication_factor, configs: values })
}

/// Partitions and replication factor of an assignment, which must number its partitions from 0.
fn assigned(topic: &CreatableTopic) -> Result<(u32, u16), Refusal> {
    let refuse =
        |message: &str| Err(Refusal::new(ResponseError::InvalidReplicaAssignment, message));
    if topic.num_partitions != -1 || topic.replication_factor != -1 {
        let message = "an assignment says how many partitions and replicas there are";
        return Err(Refusal::new(ResponseError::InvalidRequest, message));
    }
    let mut indexes: Vec<i32> = topic.assignments.iter().map(|it| it.partition_index).collect();
    indexes.sort_unstable();
    if !(0..).zip(&indexes).all(|(expected, index)| expected == *index) {
        return refuse("partitions are numbered from 0 without gaps");
    }
    let factor = topic.assignments.first().map_or(0, |it| it.broker_ids.len());
    if factor == 0 || topic.assignments.iter().any(|it| it.broker_ids.len() != factor) {
        return refuse("every partition has as many replicas, and at least one");
    }
    let partitions = u32::try_from(indexes.len()).unwrap_or(u32::MAX);
    Ok((partitions, u16::try_from(factor).unwrap_or(u16::MAX)))
}

fn describe(
    result: CreatableTopicResult,
    topic: &NewTopic,
    id: TopicId,
    version: i16,
) -> CreatableTopicResult {
    let result = if version >= 7 { result.with_topic_id(id.0) } else { result };
    if version < 5 {
        return result;
    }
    let configs = TOPIC_CONFIGS.iter().map(|definition| {
        let set = topic.configs.get(definition.name);
        let source = if set.is_some() { Source::Topic } else { Source::Default };
        let value = set.map_or(definition.default, String::as_str);
        CreatableTopicConfigs::default()
            .with_name(definition.name.into())
            .with_value(Some(value.to_owned().into()))
            .with_config_source(source.code())
    });
    result
        .with_num_partitions(i32::try_from(topic.partitions).unwrap_or(i32::MAX))
        .with_replication_factor(i16::try_from(topic.replication_factor).unwrap_or(i16::MAX))
        .with_configs(Some(configs.collect()))
}
