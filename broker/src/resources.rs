//! Resources that have configs: what a client's type and name mean, and changing them.

use std::collections::BTreeSet;

use odradek_protocol::ResponseError;
use odradek_protocol::id::{NodeId, TopicId};
use odradek_storage::command::{Command, ConfigChange, ConfigOperation, ConfigResource};
use odradek_storage::state::State;

use crate::broker_configs::{BROKER_CONFIGS, CLUSTER_ONLY};
use crate::configs::{Check, Definition, find, validate};
use crate::context::Context;
use crate::group_configs::GROUP_CONFIGS;
use crate::topic_configs::{TOPIC_CONFIGS, go_together};
use crate::topics::{Refusal, look_twice, propose};

/// Resource type of topics (KIP-133).
pub(crate) const TOPIC: i8 = 2;

/// Resource type of brokers; an empty name means all of them.
pub(crate) const BROKER: i8 = 4;

/// Resource type of the loggers of a broker (KIP-412).
pub(crate) const BROKER_LOGGER: i8 = 8;

/// Resource type of subscriptions to the metrics of clients (KIP-714).
pub(crate) const CLIENT_METRICS: i8 = 16;

/// Resource type of groups (KIP-848).
pub(crate) const GROUP: i8 = 32;

/// A resource that exists, or needs not to.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum Resource {
    /// A topic.
    Topic(TopicId),
    /// A broker.
    Broker(NodeId),
    /// All brokers.
    Cluster,
    /// A group, whether there is one of that name or not.
    Group(String),
    /// A subscription to the metrics of clients. There can be none yet.
    ClientMetrics(String),
}

/// All that can have configs.
#[cfg(feature = "test-util")]
pub(crate) fn tables() -> [&'static [Definition]; 3] {
    [TOPIC_CONFIGS, BROKER_CONFIGS, GROUP_CONFIGS]
}

impl Resource {
    /// The configs it can have.
    pub(crate) fn table(&self) -> &'static [Definition] {
        match self {
            Self::Topic(_) => TOPIC_CONFIGS,
            Self::Broker(_) | Self::Cluster => BROKER_CONFIGS,
            Self::Group(_) => GROUP_CONFIGS,
            Self::ClientMetrics(_) => &[],
        }
    }

    fn in_command(self) -> ConfigResource {
        match self {
            Self::Topic(topic) => ConfigResource::Topic(topic),
            Self::Broker(node) => ConfigResource::Broker(node),
            Self::Cluster => ConfigResource::Cluster,
            Self::Group(name) => ConfigResource::Group(name),
            Self::ClientMetrics(name) => ConfigResource::ClientMetrics(name),
        }
    }
}

/// How a resource is looked for in the state.
type Look = Box<dyn Fn(&State) -> Option<Resource> + Send + Sync>;

/// Finds the resource that a client means.
pub(crate) async fn resolve(context: &Context, kind: i8, name: &str) -> Result<Resource, Refusal> {
    let look: Look = match kind {
        TOPIC => {
            let name = name.to_owned();
            Box::new(move |state| Some(Resource::Topic(state.topic_by_name(&name)?.id)))
        }
        BROKER if name.is_empty() => return Ok(Resource::Cluster),
        BROKER => {
            let node = name.parse().map(NodeId).map_err(|_| {
                let message = format!("{name:?} is no broker's number");
                Refusal::new(ResponseError::InvalidRequest, message)
            })?;
            Box::new(move |state| {
                state.brokers().contains_key(&node).then_some(Resource::Broker(node))
            })
        }
        GROUP | CLIENT_METRICS if name.is_empty() => {
            let message = "a group, or a subscription to metrics of clients, needs a name";
            return Err(Refusal::new(ResponseError::InvalidRequest, message));
        }
        GROUP => return Ok(Resource::Group(name.to_owned())),
        CLIENT_METRICS => return Ok(Resource::ClientMetrics(name.to_owned())),
        BROKER_LOGGER => {
            let message = "what a broker logs is said when it is started, and can't be altered";
            return Err(Refusal::new(ResponseError::InvalidRequest, message));
        }
        _ => {
            let message = format!("resources of type {kind} have no configs here");
            return Err(Refusal::new(ResponseError::InvalidRequest, message));
        }
    };
    match look_twice(context.machine(), look).await {
        Ok(Some(resource)) => Ok(resource),
        Ok(None) if kind == TOPIC => {
            let message = format!("there is no topic {name}");
            Err(Refusal::new(ResponseError::UnknownTopicOrPartition, message))
        }
        Ok(None) => {
            let message = format!("there is no broker {name}");
            Err(Refusal::new(ResponseError::InvalidRequest, message))
        }
        Err(error) => Err(Refusal::new(ResponseError::RequestTimedOut, error.to_string())),
    }
}

/// Checks changes to a resource, and makes them unless they are only to be checked.
pub(crate) async fn alter(
    context: &Context,
    resource: Resource,
    replace: bool,
    mut changes: Vec<ConfigChange>,
    validate_only: bool,
) -> Result<(), Refusal> {
    if let Resource::ClientMetrics(_) = resource {
        let message = "metrics of clients (KIP-714) are not collected by this release yet";
        return Err(Refusal::new(ResponseError::InvalidConfig, message));
    }
    let mut names = BTreeSet::new();
    for change in &mut changes {
        if !names.insert(change.name.clone()) {
            let message = format!("{} stands in the request twice", change.name);
            return Err(Refusal::new(ResponseError::InvalidRequest, message));
        }
        let is_set = matches!(change.operation, ConfigOperation::Set(_));
        let is_for_all = CLUSTER_ONLY.contains(&change.name.as_str());
        if matches!(resource, Resource::Broker(_)) && is_set && is_for_all {
            let message = format!("{} can only be set for all brokers", change.name);
            return Err(Refusal::new(ResponseError::InvalidConfig, message));
        }
        // What is not known can't have been set; tools that clean up delete it all the same.
        let definition = find(resource.table(), &change.name);
        if definition.is_some_and(|it| matches!(it.check, Check::AtCreation)) {
            let message = format!("{} is given when the topic is created", change.name);
            return Err(Refusal::new(ResponseError::InvalidConfig, message));
        }
        if let ConfigOperation::Set(value) = &mut change.operation {
            *value = validate(resource.table(), &change.name, Some(value))
                .map_err(|message| Refusal::new(ResponseError::InvalidConfig, message))?;
        }
    }
    check_together(context, &resource, replace, &changes)?;
    if validate_only {
        return Ok(());
    }
    let command = Command::AlterConfigs { resource: resource.in_command(), replace, changes };
    propose(context.machine(), command).await
}

/// Whether the configs of a topic would go together after these changes.
fn check_together(
    context: &Context,
    resource: &Resource,
    replace: bool,
    changes: &[ConfigChange],
) -> Result<(), Refusal> {
    let Resource::Topic(topic) = resource else { return Ok(()) };
    let configs = context.machine().read(|state| Some(state.topic(*topic)?.configs.clone()));
    let mut configs = configs.filter(|_| !replace).unwrap_or_default();
    for change in changes {
        match &change.operation {
            ConfigOperation::Set(value) => configs.insert(change.name.clone(), value.clone()),
            ConfigOperation::Delete => configs.remove(&change.name),
        };
    }
    go_together(&configs).map_err(|message| Refusal::new(ResponseError::InvalidConfig, message))
}

/// The value that a config of a resource has now.
pub(crate) fn current(context: &Context, resource: &Resource, name: &str) -> Option<String> {
    let set = context.machine().read(|state| match resource {
        Resource::Topic(topic) => state.topic(*topic)?.configs.get(name).cloned(),
        Resource::Broker(node) => state.configs().broker(*node)?.get(name).cloned(),
        Resource::Cluster => state.configs().cluster().get(name).cloned(),
        Resource::Group(group) => state.configs().groups().get(group)?.get(name).cloned(),
        Resource::ClientMetrics(_) => None,
    });
    let default = || Some(find(resource.table(), name)?.default.to_owned());
    set.or_else(default)
}
