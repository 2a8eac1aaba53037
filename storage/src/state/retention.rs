//! Retention: how long records are kept, and what is due.

use odradek_protocol::id::{NodeId, Offset};

use super::State;
use super::partition::{Extent, Partition};
use super::topics::Topic;

/// `retention.ms` of topics that have none of their own: a week, as Kafka's.
pub const RETENTION_MS: i64 = 7 * 24 * 60 * 60 * 1000;

/// How long the records of a topic are kept.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Retention {
    /// Records older than this, in milliseconds, are due; none if they don't grow too old.
    pub ms: Option<i64>,
    /// The oldest records are due while a partition has this many bytes without them; none if it
    /// may be of any size.
    pub bytes: Option<u64>,
}

impl State {
    /// How long the records of a topic are kept: as its configs say, or else the cluster's.
    pub fn retention(&self, topic: &Topic) -> Retention {
        let config = |name: &str, cluster: &str| {
            let own = topic.configs.get(name);
            own.or_else(|| self.configs.cluster.get(cluster)).map(String::as_str)
        };
        if !self.has_policy(topic, "delete") {
            return Retention::default();
        }
        let ms = config("retention.ms", "log.retention.ms").and_then(|it| it.parse().ok());
        let bytes = config("retention.bytes", "log.retention.bytes").and_then(|it| it.parse().ok());
        Retention { ms: Some(ms.unwrap_or(RETENTION_MS)).filter(|ms| *ms >= 0), bytes }
    }

    /// Whether a topic is compacted by key.
    pub fn is_compacted(&self, topic: &Topic) -> bool {
        self.has_policy(topic, "compact")
    }

    /// Whether records of a topic go only when there is a later one with the same key.
    pub fn is_only_compacted(&self, topic: &Topic) -> bool {
        self.is_compacted(topic) && !self.has_policy(topic, "delete")
    }

    fn has_policy(&self, topic: &Topic, policy: &str) -> bool {
        let own = topic.configs.get("cleanup.policy");
        let set = own.or_else(|| self.configs.cluster.get("log.cleanup.policy"));
        let set = set.map_or("delete", String::as_str);
        set.split(',').any(|it| it.trim() == policy)
    }

    /// The broker that looks after what is due: expiring, purging, sweeping. `None` if there are no
    /// brokers.
    pub fn housekeeper(&self) -> Option<NodeId> {
        // A group has a name; this one has none.
        self.brokers.coordinator_of("")
    }
}

impl Partition {
    /// The offset of the oldest record that is not due at `now_ms`. Only what is stable is due.
    pub fn due_before(&self, retention: &Retention, now_ms: i64) -> Offset {
        let mut due = self.log_start;
        // Where a branch has left its parent most of an extent's bytes may be the parent's alone.
        let own_bytes = |extent: &Extent| {
            let is_shared = retention.bytes.is_some() && self.is_cut_at(extent.end());
            if is_shared { 0 } else { u64::from(extent.bytes()) }
        };
        let mut bytes_left: u64 = self.extents().map(own_bytes).sum();
        let stable = self.last_stable_offset();
        for extent in self.extents() {
            if extent.end() > stable {
                break;
            }
            bytes_left -= own_bytes(extent);
            let is_old = |ms: i64| extent.max_timestamp < now_ms.saturating_sub(ms);
            if retention.bytes.is_some_and(|most| bytes_left >= most) {
                due = extent.end();
            } else if extent.max_timestamp < 0 {
                // Nothing says how old it is: it goes with the next one that is due.
            } else if retention.ms.is_some_and(is_old) {
                due = extent.end();
            } else {
                break;
            }
        }
        due
    }
}
