//! DescribeConfigs: every config, its value, and where the value comes from (KIP-133, KIP-226).

use odradek_protocol::id::{NodeId, TopicId};
use odradek_protocol::messages::describe_configs_request::DescribeConfigsResource;
use odradek_protocol::messages::describe_configs_response::{
    DescribeConfigsResourceResult, DescribeConfigsResult, DescribeConfigsSynonym,
};
use odradek_protocol::messages::{DescribeConfigsRequest, DescribeConfigsResponse};
use odradek_storage::state::State;

use crate::broker_configs::{BROKER_CONFIGS, dynamic_values, static_configs};
use crate::configs::{Check, ConfigType, Definition, Source};
use crate::context::Context;
use crate::group_configs::{GROUP_CONFIGS, inherited_from};
use crate::resources::{Resource, resolve};
use crate::session::Session;
use crate::topic_configs::{self, TOPIC_CONFIGS};
use crate::topics::Refusal;

/// One config as it is.
struct Value {
    name: &'static str,
    value: String,
    source: Source,
    kind: ConfigType,
    read_only: bool,
    documentation: &'static str,
    synonyms: Vec<Synonym>,
}

/// A value that a config has or would have: under which name, which, and where it comes from.
type Synonym = (&'static str, String, Source);

pub(crate) async fn handle(
    context: &Context,
    _: &Session,
    version: i16,
    request: DescribeConfigsRequest,
) -> DescribeConfigsResponse {
    let mut results = Vec::with_capacity(request.resources.len());
    for resource in &request.resources {
        let result = DescribeConfigsResult::default()
            .with_resource_type(resource.resource_type)
            .with_resource_name(resource.resource_name.clone());
        results.push(match describe(context, resource).await {
            Ok(values) => {
                let asked = resource.configuration_keys.as_ref();
                let wanted = |value: &Value| {
                    asked.is_none_or(|keys| keys.iter().any(|key| key.as_str() == value.name))
                };
                let configs = values.into_iter().filter(wanted);
                result.with_configs(configs.map(|it| show(it, version, &request)).collect())
            }
            Err(Refusal { code, message }) => {
                result.with_error_code(code.code()).with_error_message(Some(message.into()))
            }
        });
    }
    DescribeConfigsResponse::default().with_results(results)
}

async fn describe(
    context: &Context,
    asked: &DescribeConfigsResource,
) -> Result<Vec<Value>, Refusal> {
    let name = asked.resource_name.as_str();
    match resolve(context, asked.resource_type, name).await? {
        Resource::Topic(topic) => Ok(topic_values(context, topic)),
        Resource::Broker(node) => Ok(broker_values(context, Some(node))),
        Resource::Cluster => Ok(broker_values(context, None)),
        Resource::Group(group) => Ok(group_values(context, &group)),
        // There is nothing that could be set, as long as nothing can be subscribed to.
        Resource::ClientMetrics(_) => Ok(Vec::new()),
    }
}

fn topic_values(context: &Context, topic: TopicId) -> Vec<Value> {
    context.machine().read(|state| {
        let set = state.topic(topic).map(|topic| &topic.configs);
        let value = |definition: &'static Definition| {
            let own = set.and_then(|set| set.get(definition.name));
            let own = own.map(|own| (definition.name, own.clone(), Source::Topic));
            let inherited = topic_configs::inherited_from(definition.name);
            inheriting(context, state, definition, own, inherited)
        };
        TOPIC_CONFIGS.iter().map(value).collect()
    })
}

fn group_values(context: &Context, group: &str) -> Vec<Value> {
    context.machine().read(|state| {
        let set = state.configs().groups().get(group);
        let value = |definition: &'static Definition| {
            let own = set.and_then(|set| set.get(definition.name));
            let own = own.map(|own| (definition.name, own.clone(), Source::Group));
            inheriting(context, state, definition, own, inherited_from(definition.name))
        };
        GROUP_CONFIGS.iter().map(value).collect()
    })
}

/// A config that is set here, or else on this broker or on all, where it has the name `inherited`.
fn inheriting(
    context: &Context,
    state: &State,
    definition: &'static Definition,
    own: Option<Synonym>,
    inherited: Option<&'static str>,
) -> Value {
    let mut synonyms = Vec::from_iter(own);
    if let Some(name) = inherited {
        synonyms.extend(set_on_brokers(state, Some(context.node_id()), name));
    }
    let name = inherited.unwrap_or(definition.name);
    synonyms.push((name, definition.default.to_owned(), Source::Default));
    value_of(definition, synonyms)
}

fn set_on_brokers(
    state: &State,
    node: Option<NodeId>,
    name: &'static str,
) -> impl Iterator<Item = Synonym> {
    let set = dynamic_values(state.configs(), node, name);
    set.map(move |(value, source)| (name, value.to_owned(), source))
}

/// The first synonym is the one that counts.
fn value_of(definition: &'static Definition, synonyms: Vec<Synonym>) -> Value {
    let (value, source) = synonyms.first().map_or_else(
        || (definition.default.to_owned(), Source::Default),
        |(_, value, source)| (value.clone(), *source),
    );
    Value {
        name: definition.name,
        value,
        source,
        kind: definition.kind,
        read_only: matches!(definition.check, Check::AtCreation),
        documentation: definition.documentation,
        synonyms,
    }
}

/// The configs of a broker; of all brokers, only what was set for all.
fn broker_values(context: &Context, node: Option<NodeId>) -> Vec<Value> {
    let mut values: Vec<Value> = context.machine().read(|state| {
        let value = |definition: &'static Definition| {
            let name = definition.name;
            let mut synonyms = Vec::from_iter(set_on_brokers(state, node, name));
            if node.is_some() {
                synonyms.push((name, definition.default.to_owned(), Source::Default));
            } else if synonyms.is_empty() {
                return None;
            }
            Some(value_of(definition, synonyms))
        };
        BROKER_CONFIGS.iter().filter_map(value).collect()
    });
    // How another broker was started only it can tell; clients ask it themselves.
    if node == Some(context.node_id()) {
        values.extend(static_configs(context).into_iter().map(|(name, value, kind)| Value {
            name,
            value,
            source: Source::Static,
            kind,
            read_only: true,
            documentation: "Given when the broker was started.",
            synonyms: Vec::new(),
        }));
    }
    values
}

fn show(
    value: Value,
    version: i16,
    request: &DescribeConfigsRequest,
) -> DescribeConfigsResourceResult {
    let synonym = |(name, value, source): Synonym| {
        DescribeConfigsSynonym::default()
            .with_name(name.into())
            .with_value(Some(value.into()))
            .with_source(source.code())
    };
    let synonyms = if request.include_synonyms { value.synonyms } else { Vec::new() };
    let shown = DescribeConfigsResourceResult::default()
        .with_name(value.name.into())
        .with_value(Some(value.value.into()))
        .with_read_only(value.read_only)
        .with_config_source(value.source.code())
        .with_synonyms(synonyms.into_iter().map(synonym).collect());
    if version < 3 {
        return shown;
    }
    let documentation = request.include_documentation.then(|| value.documentation.into());
    shown.with_config_type(value.kind.code()).with_documentation(documentation)
}
