//! The table of broker configs, and those in force.
//!
//! Dynamic ones live in the state, for one broker or for all, and hold on every broker as soon as
//! it has applied the change. The others show how the broker was started and can't be altered.

use odradek_protocol::id::NodeId;
use odradek_storage::state::configs::Configs;

use crate::configs::{Check, ConfigType, Definition, Source};
use crate::context::Context;

/// Every dynamic broker config.
pub(crate) static BROKER_CONFIGS: &[Definition] = &[
    Definition {
        name: "auto.create.topics.enable",
        kind: ConfigType::Boolean,
        default: "true",
        check: Check::Boolean,
        documentation: "Whether a topic that a client asks for and nobody has created is created.",
    },
    Definition {
        name: "default.replication.factor",
        kind: ConfigType::Int,
        default: "1",
        check: Check::Integer(1, 32_767),
        documentation: "Replication factor shown for topics created without one.",
    },
    Definition {
        name: "message.max.bytes",
        kind: ConfigType::Int,
        default: "1048588",
        check: Check::Integer(0, 64 * 1024 * 1024),
        documentation: "Longest record batch for topics without max.message.bytes, in bytes.",
    },
    Definition {
        name: "num.partitions",
        kind: ConfigType::Int,
        default: "1",
        check: Check::Integer(1, 100_000),
        documentation: "Partitions of topics created without saying how many.",
    },
];

/// The dynamic configs in force on a broker.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct BrokerConfigs {
    /// `auto.create.topics.enable`.
    pub(crate) auto_create_topics: bool,
    /// `default.replication.factor`.
    pub(crate) default_replication_factor: u16,
    /// `message.max.bytes`.
    pub(crate) message_max_bytes: usize,
    /// `num.partitions`.
    pub(crate) num_partitions: u32,
}

impl BrokerConfigs {
    /// What is in force on `node`.
    pub(crate) fn in_force(configs: &Configs, node: NodeId) -> Self {
        let value = |name: &str| dynamic_value(configs, Some(node), name).map(|(value, _)| value);
        let number = |name: &str, default| {
            value(name).and_then(|value| value.trim().parse().ok()).unwrap_or(default)
        };
        Self {
            auto_create_topics: value("auto.create.topics.enable").is_none_or(|it| it == "true"),
            default_replication_factor: u16::try_from(number("default.replication.factor", 1_u64))
                .unwrap_or(1),
            message_max_bytes: usize::try_from(number("message.max.bytes", 1_048_588))
                .unwrap_or(usize::MAX),
            num_partitions: u32::try_from(number("num.partitions", 1)).unwrap_or(1),
        }
    }
}

/// A dynamic value and where it was set: on the broker, or on all.
pub(crate) fn dynamic_value<'a>(
    configs: &'a Configs,
    node: Option<NodeId>,
    name: &str,
) -> Option<(&'a str, Source)> {
    let own = node.and_then(|node| configs.broker(node)).and_then(|own| own.get(name));
    match own {
        Some(value) => Some((value, Source::Broker)),
        None => configs.cluster().get(name).map(|value| (value.as_str(), Source::Cluster)),
    }
}

/// Configs that show how this broker was started: name, value, type.
pub(crate) fn static_configs(context: &Context) -> Vec<(&'static str, String, ConfigType)> {
    let config = &context.config;
    let node = context.node_id().to_string();
    let advertised = format!("PLAINTEXT://{}:{}", context.address.host, context.address.port);
    vec![
        ("advertised.listeners", advertised, ConfigType::List),
        ("broker.id", node.clone(), ConfigType::Int),
        ("broker.rack", config.zone.clone().unwrap_or_default(), ConfigType::Text),
        // Asked for by consoles that want to know which Kafka this behaves like.
        ("inter.broker.protocol.version", "4.1-IV1".to_owned(), ConfigType::Text),
        ("listeners", format!("PLAINTEXT://{}", config.listen), ConfigType::List),
        ("log.dirs", config.store.clone(), ConfigType::List),
        ("node.id", node, ConfigType::Int),
        ("socket.request.max.bytes", config.request_bytes_max.to_string(), ConfigType::Int),
    ]
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_default_is_accepted_and_in_force() {
        for definition in BROKER_CONFIGS {
            assert_eq!(definition.accepts(definition.default), Ok(()), "{}", definition.name);
        }
        let in_force = BrokerConfigs::in_force(&Configs::default(), NodeId(1));
        assert_eq!(
            in_force,
            BrokerConfigs {
                auto_create_topics: true,
                default_replication_factor: 1,
                message_max_bytes: 1_048_588,
                num_partitions: 1,
            }
        );
    }
}
