//! Configs of all that is no topic: brokers, the cluster as the default for all of them, groups,
//! subscriptions to the metrics of clients.
//!
//! Names and values are text here: which there are and what they mean is the broker's to know.

use std::collections::BTreeMap;

use odradek_protocol::id::NodeId;

use crate::command::{ConfigChange, ConfigOperation, ConfigResource};

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
