//! What the configs of brokers and groups mean for the coordinator of a group; and its
//! housekeeping.

use std::sync::Weak;
use std::time::Duration;

use odradek_protocol::id::NodeId;
use odradek_storage::command::Command;
use odradek_storage::state::State;
use tokio::time::sleep;

use crate::broker_configs::BrokerConfigs;
use crate::context::Context;
use crate::group::GroupSettings;
use crate::group_configs::GroupConfigs;

/// How often positions are looked through for those that have expired
/// (`offsets.retention.check.interval.ms` of Kafka).
const EXPIRY_INTERVAL: Duration = Duration::from_secs(600);

/// Log time that is this much older than the clock is moved on before anything expires by it.
const LOG_TIME_LAG_MS: i64 = 60_000;

/// The settings of a group, as this broker has them.
pub(crate) fn of(state: &State, node: NodeId, group: &str) -> GroupSettings {
    let brokers = BrokerConfigs::in_force(state.configs(), node);
    let own = GroupConfigs::in_force(state.configs(), node, group);
    let milliseconds = |ms: i32| Duration::from_millis(u64::try_from(ms).unwrap_or(0));
    GroupSettings {
        initial_rebalance_delay: milliseconds(brokers.group_initial_rebalance_delay_ms),
        max_size: brokers.group_max_size,
        min_session_timeout: milliseconds(brokers.group_min_session_timeout_ms),
        max_session_timeout: milliseconds(brokers.group_max_session_timeout_ms),
        consumer_max_size: brokers.consumer_group_max_size,
        consumer_session_timeout: milliseconds(own.session_timeout_ms),
        consumer_heartbeat_interval: milliseconds(own.heartbeat_interval_ms),
    }
}

/// Drops what has expired, as long as the broker lives.
pub(crate) async fn expire_offsets(context: Weak<Context>) {
    loop {
        sleep(EXPIRY_INTERVAL).await;
        let Some(context) = context.upgrade() else { return };
        let log_time_ms = context.machine().read(State::log_time_ms);
        if context.clock.now_ms().saturating_sub(log_time_ms) > LOG_TIME_LAG_MS {
            // Nobody has written for a while. If nobody can, nothing expires either.
            drop(context.machine().propose(Command::Heartbeat).await);
        }
        let retention_ms = context.broker_configs().offsets_retention_ms;
        context.groups.expire_offsets(retention_ms).await;
    }
}
