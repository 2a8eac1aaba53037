//! The table of group configs, and those in force for a group (KIP-848).
//!
//! A group has them whether it exists or not. What is not set on the group is as the broker configs
//! of the same meaning have it. The ranges are Kafka's.

use odradek_protocol::id::NodeId;
use odradek_storage::state::configs::Configs;

use crate::broker_configs::BrokerConfigs;
use crate::configs::{Check, ConfigType, Definition, only};

const SHARE: &str = "share groups come later";
const STREAMS: &str = "streams groups come later";

/// Every group config.
pub(crate) static GROUP_CONFIGS: &[Definition] = &[
    Definition {
        name: "consumer.heartbeat.interval.ms",
        kind: ConfigType::Int,
        default: "5000",
        check: Check::Integer(5000, 15_000),
        documentation: "How often members of the consumer protocol are told to send a heartbeat.",
    },
    Definition {
        name: "consumer.session.timeout.ms",
        kind: ConfigType::Int,
        default: "45000",
        check: Check::Integer(45_000, 60_000),
        documentation: "How long a member of the consumer protocol may send no heartbeat.",
    },
    only("share.auto.offset.reset", ConfigType::Text, "latest", SHARE),
    only("share.heartbeat.interval.ms", ConfigType::Int, "5000", SHARE),
    only("share.isolation.level", ConfigType::Text, "read_uncommitted", SHARE),
    only("share.record.lock.duration.ms", ConfigType::Int, "30000", SHARE),
    only("share.session.timeout.ms", ConfigType::Int, "45000", SHARE),
    only("streams.heartbeat.interval.ms", ConfigType::Int, "5000", STREAMS),
    only("streams.num.standby.replicas", ConfigType::Int, "0", STREAMS),
    only("streams.session.timeout.ms", ConfigType::Int, "45000", STREAMS),
];

/// The broker config that holds for groups on which this one is not set.
pub(crate) fn inherited_from(name: &str) -> Option<&'static str> {
    match name {
        "consumer.heartbeat.interval.ms" => Some("group.consumer.heartbeat.interval.ms"),
        "consumer.session.timeout.ms" => Some("group.consumer.session.timeout.ms"),
        _ => None,
    }
}

/// The configs in force for a group.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct GroupConfigs {
    /// `consumer.heartbeat.interval.ms`.
    pub(crate) heartbeat_interval_ms: i32,
    /// `consumer.session.timeout.ms`.
    pub(crate) session_timeout_ms: i32,
}

impl GroupConfigs {
    /// What is in force for `group`, as `node` has it.
    pub(crate) fn in_force(configs: &Configs, node: NodeId, group: &str) -> Self {
        let broker = BrokerConfigs::in_force(configs, node);
        let own = configs.groups().get(group);
        let number = |name: &str, inherited: i32| {
            own.and_then(|own| own.get(name)?.trim().parse().ok()).unwrap_or(inherited)
        };
        Self {
            heartbeat_interval_ms: number(
                "consumer.heartbeat.interval.ms",
                broker.consumer_heartbeat_interval_ms,
            ),
            session_timeout_ms: number(
                "consumer.session.timeout.ms",
                broker.consumer_session_timeout_ms,
            ),
        }
    }
}

#[cfg(test)]
mod tests {
    use odradek_storage::command::{
        BrokerAddress, Command, ConfigChange, ConfigOperation, ConfigResource,
    };

    use super::*;
    use crate::broker_configs::BROKER_CONFIGS;
    use crate::configs::{find, validate};
    use crate::directory::tests::state_of;

    #[test]
    fn every_default_is_accepted_and_the_brokers_too() {
        for definition in GROUP_CONFIGS {
            assert_eq!(
                definition.understand(definition.default).as_deref(),
                Ok(definition.default),
                "{}",
                definition.name
            );
            if let Some(inherited) = inherited_from(definition.name) {
                let inherited = find(BROKER_CONFIGS, inherited).unwrap();
                assert_eq!(inherited.default, definition.default);
            }
        }
    }

    #[test]
    fn values_beyond_the_ranges_of_kafka_and_of_groups_that_are_to_come_are_refused() {
        let refused = |name, value| validate(GROUP_CONFIGS, name, Some(value)).unwrap_err();
        assert!(refused("consumer.session.timeout.ms", "44999").contains("45000 to 60000"));
        assert!(refused("consumer.heartbeat.interval.ms", "15001").contains("5000 to 15000"));
        assert!(refused("share.session.timeout.ms", "50000").contains("share groups come later"));
        assert!(refused("streams.num.standby.replicas", "1").contains("streams groups"));
    }

    #[test]
    fn what_is_set_on_the_group_comes_before_what_is_set_on_brokers() {
        let alter = |resource, name: &str, value: &str| Command::AlterConfigs {
            resource,
            replace: false,
            changes: vec![ConfigChange {
                name: name.to_owned(),
                operation: ConfigOperation::Set(value.to_owned()),
            }],
        };
        let group = || ConfigResource::Group("readers".to_owned());
        let heartbeat = "group.consumer.heartbeat.interval.ms";
        let session = "group.consumer.session.timeout.ms";
        let state = state_of(vec![
            (2, Command::RegisterBroker(BrokerAddress::default())),
            (2, alter(ConfigResource::Cluster, heartbeat, "6000")),
            (2, alter(ConfigResource::Cluster, session, "46000")),
            (2, alter(group(), "consumer.session.timeout.ms", "50000")),
        ]);
        let in_force = |group| {
            let configs = GroupConfigs::in_force(state.configs(), NodeId(1), group);
            (configs.heartbeat_interval_ms, configs.session_timeout_ms)
        };
        assert_eq!(in_force("readers"), (6000, 50_000));
        assert_eq!(in_force("others"), (6000, 46_000));
    }
}
