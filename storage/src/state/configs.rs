//! Configs of all that is no topic: brokers, the cluster as the default for all of them, groups,
//! subscriptions to the metrics of clients.
//!
//! Names and values are text here: which there are and what they mean is the broker's to know.

use std::collections::BTreeMap;

use odradek_protocol::id::NodeId;

use crate::command::{ConfigChange, ConfigOperation, ConfigResource};

/// How long a transactional id is remembered at least after its last change, in milliseconds of log
/// time, and a producer after its last batch, unless the cluster has been configured otherwise.
const EXPIRATIONS_MS: [(&str, i64); 2] = [
    ("transactional.id.expiration.ms", 7 * 24 * 60 * 60 * 1000),
    ("producer.id.expiration.ms", 24 * 60 * 60 * 1000),
];

/// Configs that were set while the cluster ran.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Configs {
    pub(crate) cluster: BTreeMap<String, String>,
    pub(crate) brokers: BTreeMap<NodeId, BTreeMap<String, String>>,
    pub(crate) groups: BTreeMap<String, BTreeMap<String, String>>,
    pub(crate) client_metrics: BTreeMap<String, BTreeMap<String, String>>,
}

impl Configs {
    /// What was set for all brokers.
    pub fn cluster(&self) -> &BTreeMap<String, String> {
        &self.cluster
    }

    /// `transactional.id.expiration.ms`.
    pub fn transactional_expiration_ms(&self) -> i64 {
        self.expiration_ms(EXPIRATIONS_MS[0])
    }

    /// `producer.id.expiration.ms`.
    pub fn producer_expiration_ms(&self) -> i64 {
        self.expiration_ms(EXPIRATIONS_MS[1])
    }

    fn expiration_ms(&self, (name, default_ms): (&str, i64)) -> i64 {
        let set = self.cluster.get(name).and_then(|value| value.parse().ok());
        set.filter(|ms| *ms > 0).unwrap_or(default_ms)
    }

    /// What was set for one broker.
    pub fn broker(&self, node: NodeId) -> Option<&BTreeMap<String, String>> {
        self.brokers.get(&node)
    }

    /// What was set for groups, by name: only those for which something was.
    pub fn groups(&self) -> &BTreeMap<String, BTreeMap<String, String>> {
        &self.groups
    }

    /// The subscriptions to the metrics of clients, by name.
    pub fn client_metrics(&self) -> &BTreeMap<String, BTreeMap<String, String>> {
        &self.client_metrics
    }

    /// Alters what is no topic: those keep their configs themselves.
    pub(crate) fn alter(
        &mut self,
        resource: &ConfigResource,
        replace: bool,
        changes: &[ConfigChange],
    ) {
        match resource {
            ConfigResource::Topic(_) => {}
            ConfigResource::Broker(node) => alter_one(&mut self.brokers, node, replace, changes),
            ConfigResource::Cluster => apply_changes(&mut self.cluster, replace, changes),
            ConfigResource::Group(name) => alter_one(&mut self.groups, name, replace, changes),
            ConfigResource::ClientMetrics(name) => {
                alter_one(&mut self.client_metrics, name, replace, changes);
            }
        }
    }

    pub(crate) fn forget_broker(&mut self, node: NodeId) {
        self.brokers.remove(&node);
    }
}

/// Alters one of several; what has no configs left is forgotten.
fn alter_one<K: Ord + Clone>(
    all: &mut BTreeMap<K, BTreeMap<String, String>>,
    key: &K,
    replace: bool,
    changes: &[ConfigChange],
) {
    let configs = all.entry(key.clone()).or_default();
    apply_changes(configs, replace, changes);
    if configs.is_empty() {
        all.remove(key);
    }
}

/// Applies changes in order; with `replace`, whatever is not set by one of them is dropped.
pub(crate) fn apply_changes(
    configs: &mut BTreeMap<String, String>,
    replace: bool,
    changes: &[ConfigChange],
) {
    if replace {
        configs.clear();
    }
    for change in changes {
        match &change.operation {
            ConfigOperation::Set(value) => {
                configs.insert(change.name.clone(), value.clone());
            }
            ConfigOperation::Delete => {
                configs.remove(&change.name);
            }
        }
    }
}
