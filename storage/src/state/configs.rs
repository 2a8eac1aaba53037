//! Configs of brokers, and of the cluster as the default for all of them.
//!
//! Names and values are text here: which there are and what they mean is the broker's to know.

use std::collections::BTreeMap;

use odradek_protocol::id::NodeId;

use crate::command::{ConfigChange, ConfigOperation};

/// Configs that were set while the cluster ran.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Configs {
    pub(crate) cluster: BTreeMap<String, String>,
    pub(crate) brokers: BTreeMap<NodeId, BTreeMap<String, String>>,
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

    pub(crate) fn alter_cluster(&mut self, replace: bool, changes: &[ConfigChange]) {
        apply_changes(&mut self.cluster, replace, changes);
    }

    pub(crate) fn alter_broker(&mut self, node: NodeId, replace: bool, changes: &[ConfigChange]) {
        let configs = self.brokers.entry(node).or_default();
        apply_changes(configs, replace, changes);
        if configs.is_empty() {
            self.brokers.remove(&node);
        }
    }

    pub(crate) fn forget_broker(&mut self, node: NodeId) {
        self.brokers.remove(&node);
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
