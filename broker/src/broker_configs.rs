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
        name: "group.consumer.heartbeat.interval.ms",
        kind: ConfigType::Int,
        default: "5000",
        check: Check::Integer(5000, 15_000),
        documentation: "How often members of the consumer protocol are told to send a heartbeat.",
    },
    Definition {
        name: "group.consumer.max.size",
        kind: ConfigType::Int,
        default: "2147483647",
        check: Check::Integer(1, 2_147_483_647),
        documentation: "Most members of a group of the consumer protocol.",
    },
    Definition {
        name: "group.consumer.session.timeout.ms",
        kind: ConfigType::Int,
        default: "45000",
        check: Check::Integer(45_000, 60_000),
        documentation: "How long a member of the consumer protocol may send no heartbeat.",
    },
    Definition {
        name: "group.initial.rebalance.delay.ms",
        kind: ConfigType::Int,
        default: "3000",
        check: Check::Integer(0, 2_147_483_647),
        documentation: "How long the first members of an empty group wait for others to join.",
    },
    Definition {
        name: "group.max.session.timeout.ms",
        kind: ConfigType::Int,
        default: "1800000",
        check: Check::Integer(1, 2_147_483_647),
        documentation: "Longest session timeout that members of the classic protocol may have.",
    },
    Definition {
        name: "group.max.size",
        kind: ConfigType::Int,
        default: "2147483647",
        check: Check::Integer(1, 2_147_483_647),
        documentation: "Most members of a group of the classic protocol.",
    },
    Definition {
        name: "group.min.session.timeout.ms",
        kind: ConfigType::Int,
        default: "6000",
        check: Check::Integer(1, 2_147_483_647),
        documentation: "Shortest session timeout that members of the classic protocol may have.",
    },
    Definition {
        name: "log.cleaner.delete.retention.ms",
        kind: ConfigType::Long,
        default: "86400000",
        check: Check::Integer(0, i64::MAX),
        documentation: "For topics without delete.retention.ms. Only for all brokers.",
    },
    Definition {
        name: "log.cleaner.max.compaction.lag.ms",
        kind: ConfigType::Long,
        default: "9223372036854775807",
        check: Check::Integer(1, i64::MAX),
        documentation: "For topics without max.compaction.lag.ms. Only for all brokers.",
    },
    Definition {
        name: "log.cleaner.min.cleanable.ratio",
        kind: ConfigType::Double,
        default: "0.5",
        check: Check::Fraction,
        documentation: "For topics without min.cleanable.dirty.ratio. Only for all brokers.",
    },
    Definition {
        name: "log.cleaner.min.compaction.lag.ms",
        kind: ConfigType::Long,
        default: "0",
        check: Check::Integer(0, i64::MAX),
        documentation: "For topics without min.compaction.lag.ms. Only for all brokers.",
    },
    Definition {
        name: "log.cleanup.policy",
        kind: ConfigType::List,
        default: "delete",
        check: Check::AnyOf(&["compact", "delete"]),
        documentation: "For topics without cleanup.policy. Only for all brokers.",
    },
    Definition {
        name: "log.retention.bytes",
        kind: ConfigType::Long,
        default: "-1",
        check: Check::Integer(-1, i64::MAX),
        documentation: "For topics without retention.bytes. Only for all brokers.",
    },
    Definition {
        name: "log.retention.ms",
        kind: ConfigType::Long,
        default: "604800000",
        check: Check::Limit,
        documentation: "For topics without retention.ms. Only for all brokers.",
    },
    Definition {
        name: "max.connections.per.ip",
        kind: ConfigType::Int,
        default: "2147483647",
        check: Check::Integer(1, 2_147_483_647),
        documentation: "Most connections from one address; further ones are closed at once.",
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
    Definition {
        name: "offset.metadata.max.bytes",
        kind: ConfigType::Int,
        default: "4096",
        check: Check::Integer(0, 2_147_483_647),
        documentation: "Longest metadata that a consumer may add to an offset, in bytes.",
    },
    Definition {
        name: "offsets.retention.minutes",
        kind: ConfigType::Int,
        default: "10080",
        check: Check::Integer(1, 2_147_483_647),
        documentation: "How long the offsets of a group are kept after its last member has left.",
    },
    Definition {
        name: "producer.id.expiration.ms",
        kind: ConfigType::Int,
        default: "86400000",
        check: Check::Integer(1, 2_147_483_647),
        documentation: "How long a partition remembers a producer that writes nothing. Only for \
            all brokers; not less than 15 minutes, and less than this if there are very many.",
    },
    Definition {
        name: "transaction.max.timeout.ms",
        kind: ConfigType::Int,
        default: "900000",
        check: Check::Integer(1, 2_147_483_647),
        documentation: "Longest timeout that a transactional producer may ask for.",
    },
    Definition {
        name: "transactional.id.expiration.ms",
        kind: ConfigType::Int,
        default: "604800000",
        check: Check::Integer(1, 2_147_483_647),
        documentation: "How long a transactional id without transactions is remembered. Only for \
            all brokers.",
    },
];

/// Configs that no broker can have for itself: what they mean is the same wherever the log is
/// applied.
pub(crate) const CLUSTER_ONLY: &[&str] = &[
    "log.cleaner.delete.retention.ms",
    "log.cleaner.max.compaction.lag.ms",
    "log.cleaner.min.cleanable.ratio",
    "log.cleaner.min.compaction.lag.ms",
    "log.cleanup.policy",
    "log.retention.bytes",
    "log.retention.ms",
    "producer.id.expiration.ms",
    "transactional.id.expiration.ms",
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
    /// `group.initial.rebalance.delay.ms`.
    pub(crate) group_initial_rebalance_delay_ms: i32,
    /// `group.max.size`, of the classic protocol.
    pub(crate) group_max_size: usize,
    /// `group.min.session.timeout.ms`, of the classic protocol.
    pub(crate) group_min_session_timeout_ms: i32,
    /// `group.max.session.timeout.ms`, of the classic protocol.
    pub(crate) group_max_session_timeout_ms: i32,
    /// `group.consumer.heartbeat.interval.ms`, for groups that have none of their own.
    pub(crate) consumer_heartbeat_interval_ms: i32,
    /// `group.consumer.max.size`, of the consumer protocol.
    pub(crate) consumer_group_max_size: usize,
    /// `group.consumer.session.timeout.ms`, for groups that have none of their own.
    pub(crate) consumer_session_timeout_ms: i32,
    /// `max.connections.per.ip`.
    pub(crate) max_connections_per_ip: usize,
    /// `offset.metadata.max.bytes`.
    pub(crate) offset_metadata_max_bytes: usize,
    /// `offsets.retention.minutes`, in milliseconds.
    pub(crate) offsets_retention_ms: i64,
    /// `transaction.max.timeout.ms`.
    pub(crate) transaction_timeout_ms_max: i32,
}

impl BrokerConfigs {
    /// What is in force on `node`.
    pub(crate) fn in_force(configs: &Configs, node: NodeId) -> Self {
        let value =
            |name: &str| dynamic_values(configs, Some(node), name).next().map(|(value, _)| value);
        let number = |name: &str, default| {
            value(name).and_then(|value| value.trim().parse().ok()).unwrap_or(default)
        };
        let int = |name: &str, default| {
            value(name).and_then(|value| value.trim().parse::<i32>().ok()).unwrap_or(default)
        };
        let size = |name: &str| usize::try_from(int(name, i32::MAX)).unwrap_or(usize::MAX);
        Self {
            auto_create_topics: value("auto.create.topics.enable").is_none_or(|it| it == "true"),
            default_replication_factor: u16::try_from(number("default.replication.factor", 1_u64))
                .unwrap_or(1),
            message_max_bytes: usize::try_from(number("message.max.bytes", 1_048_588))
                .unwrap_or(usize::MAX),
            num_partitions: u32::try_from(number("num.partitions", 1)).unwrap_or(1),
            group_initial_rebalance_delay_ms: int("group.initial.rebalance.delay.ms", 3000),
            group_max_size: size("group.max.size"),
            group_min_session_timeout_ms: int("group.min.session.timeout.ms", 6000),
            group_max_session_timeout_ms: int("group.max.session.timeout.ms", 1_800_000),
            consumer_heartbeat_interval_ms: int("group.consumer.heartbeat.interval.ms", 5000),
            consumer_group_max_size: size("group.consumer.max.size"),
            consumer_session_timeout_ms: int("group.consumer.session.timeout.ms", 45_000),
            max_connections_per_ip: size("max.connections.per.ip"),
            offset_metadata_max_bytes: usize::try_from(number("offset.metadata.max.bytes", 4096))
                .unwrap_or(usize::MAX),
            offsets_retention_ms: i64::from(int("offsets.retention.minutes", 10_080)) * 60_000,
            transaction_timeout_ms_max: int("transaction.max.timeout.ms", 900_000),
        }
    }
}

/// The dynamic values of a config and where each was set: on the broker, on all. The first counts.
pub(crate) fn dynamic_values<'a>(
    configs: &'a Configs,
    node: Option<NodeId>,
    name: &str,
) -> impl Iterator<Item = (&'a str, Source)> {
    let own = node.and_then(|node| configs.broker(node)).and_then(|own| own.get(name));
    let own = own.map(|value| (value.as_str(), Source::Broker));
    let all = configs.cluster().get(name).map(|value| (value.as_str(), Source::Cluster));
    own.into_iter().chain(all)
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
            assert_eq!(
                definition.understand(definition.default).as_deref(),
                Ok(definition.default),
                "{}",
                definition.name
            );
        }
        let in_force = BrokerConfigs::in_force(&Configs::default(), NodeId(1));
        assert_eq!(
            in_force,
            BrokerConfigs {
                auto_create_topics: true,
                default_replication_factor: 1,
                message_max_bytes: 1_048_588,
                num_partitions: 1,
                group_initial_rebalance_delay_ms: 3000,
                group_max_size: 2_147_483_647,
                group_min_session_timeout_ms: 6000,
                group_max_session_timeout_ms: 1_800_000,
                consumer_heartbeat_interval_ms: 5000,
                consumer_group_max_size: 2_147_483_647,
                consumer_session_timeout_ms: 45_000,
                max_connections_per_ip: 2_147_483_647,
                offset_metadata_max_bytes: 4096,
                offsets_retention_ms: 7 * 24 * 60 * 60 * 1000,
                transaction_timeout_ms_max: 900_000,
            }
        );
    }
}
