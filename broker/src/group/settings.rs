//! What is configured for groups.

use std::time::Duration;

/// What is configured for a group.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct GroupSettings {
    /// How long the first members of a group wait for others
    /// (`group.initial.rebalance.delay.ms`).
    pub initial_rebalance_delay: Duration,
    /// Most members of a classic group (`group.max.size`).
    pub max_size: usize,
    /// Least session timeout a member may ask for (`group.min.session.timeout.ms`).
    pub min_session_timeout: Duration,
    /// Most it may ask for (`group.max.session.timeout.ms`).
    pub max_session_timeout: Duration,
    /// Most members of a group of the consumer protocol (`group.consumer.max.size`).
    pub consumer_max_size: usize,
    /// Session timeout of the consumer protocol (`group.consumer.session.timeout.ms`, or the
    /// group's own).
    pub consumer_session_timeout: Duration,
    /// How often its members are to speak (`group.consumer.heartbeat.interval.ms`, or the group's
    /// own).
    pub consumer_heartbeat_interval: Duration,
}

impl Default for GroupSettings {
    fn default() -> Self {
        Self {
            initial_rebalance_delay: Duration::from_secs(3),
            max_size: usize::MAX,
            min_session_timeout: Duration::from_secs(6),
            max_session_timeout: Duration::from_secs(1800),
            consumer_max_size: usize::MAX,
            consumer_session_timeout: Duration::from_secs(45),
            consumer_heartbeat_interval: Duration::from_secs(5),
        }
    }
}
