//! DescribeConfigs: every config, its value, and where the value comes from (KIP-133, KIP-226).

use odradek_protocol::id::NodeId;
use odradek_protocol::messages::describe_configs_request::DescribeConfigsResource;
use odradek_protocol::messages::describe_configs_response::{
    DescribeConfigsResourceResult, DescribeConfigsResult, DescribeConfigsSynonym,
};
use odradek_protocol::messages::{DescribeConfigsRequest, DescribeConfigsResponse};
use odradek_storage::state::State;

use crate::broker_configs::{BROKER_CONFIGS, dynamic_value, static_configs};
use crate::configs::{ConfigType, Definition, Source};
use crate::context::Context;
use crate::resources::{Resource, resolve};
use crate::session::Session;
use crate::topic_configs::TOPIC_CONFIGS;
use crate::topics::Refusal;

/// One config as it is.
struct Value {
    name: &'static str,
    value: String,
    source: Source,
    kind: ConfigType,
    read_only: bool,
    documentation: &'static str,
    synonyms: Vec<(&'static str, String, Source)>,
}

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
        Resource::Topic(topic) => Ok(context.machine().read(|state| {
            let set = state.topic(topic).map(|topic| &topic.configs);
            let value = |definition: &'static Definition| {
                let own = set.and_then(|set| set.get(definition.name));
                topic_value(context, state, definition, own)
            };
            TOPIC_CONFIGS.iter().map(value).collect()
        })),
        Resource::Broker(node) => Ok(broker_values(context, Some(node))),
        Resource::Cluster => Ok(broker_values(context, None)),
    }
}

fn topic_value(
    context: &Context,
    state: &State,
    definition: &'static Definition,
    own: Option<&String>,
) -> Value {
    let mut synonyms = Vec::new();
    if let Some(own) = own {
        synonyms.push((definition.name, own.clone(), Source::Topic));
    }
    if definition.name == "max.message.bytes" {
        let name = "message.max.bytes";
        let inherited = dynamic_value(state.configs(), Some(context.node_id()), name);
        synonyms.extend(inherited.map(|(value, source)| (name, value.to_owned(), source)));
    }
    synonyms.push((definition.name, definition.default.to_owned(), Source::Default));
    value_of(definition, synonyms)
}

/// The first synonym is the one that counts.
fn value_of(
    definition: &'static Definition,
    synonyms: Vec<(&'static str, String, Source)>,
) -> Value {
    let (value, source) = synonyms.first().map_or_else(
        || (definition.default.to_owned(), Source::Default),
        |(_, value, source)| (value.clone(), *source),
    );
    Value {
        name: definition.name,
        value,
        source,
        kind: definition.kind,
        read_only: false,
        documentation: definition.documentation,
        synonyms,
    }
}

/// The configs of a broker; of all brokers, only what was set for all.
fn broker_values(context: &Context, node: Option<NodeId>) -> Vec<Value> {
    let mut values: Vec<Value> = context.machine().read(|state| {
        let value = |definition: &'static Definition| {
            let name = definition.name;
            let set = dynamic_value(state.configs(), node, name);
            let mut synonyms = Vec::new();
            synonyms.extend(set.map(|(value, source)| (name, value.to_owned(), source)));
            if node.is_none() && synonyms.is_empty() {
                return None;
            }
            synonyms.push((name, definition.default.to_owned(), Source::Default));
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
    let synonym = |(name, value, source): (&'static str, String, Source)| {
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
