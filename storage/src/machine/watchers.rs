//! Who waits for which partition: fetches that found nothing to read.

use std::collections::BTreeMap;
use std::sync::{Arc, Mutex, PoisonError};

use odradek_protocol::id::TopicPartition;
use tokio::sync::Notify;

/// The parked, by partition.
#[derive(Clone, Default)]
pub(super) struct Watchers {
    registry: Arc<Mutex<Registry>>,
}

#[derive(Default)]
struct Registry {
    next: u64,
    parked: BTreeMap<(TopicPartition, u64), Arc<Notify>>,
}

/// Interest in partitions, from its making until it is dropped.
#[must_use]
pub struct Watch {
    registry: Arc<Mutex<Registry>>,
    partitions: Vec<TopicPartition>,
    number: u64,
    notify: Arc<Notify>,
}

impl Watchers {
    pub(super) fn watch(&self, partitions: impl IntoIterator<Item = TopicPartition>) -> Watch {
        let partitions: Vec<TopicPartition> = partitions.into_iter().collect();
        let notify = Arc::new(Notify::new());
        let mut registry = self.registry.lock().unwrap_or_else(PoisonError::into_inner);
        registry.next += 1;
        let number = registry.next;
        for partition in &partitions {
            registry.parked.insert((*partition, number), Arc::clone(&notify));
        }
        drop(registry);
        Watch { registry: Arc::clone(&self.registry), partitions, number, notify }
    }

    pub(super) fn wake(&self, touched: &[TopicPartition]) {
        let registry = self.registry.lock().unwrap_or_else(PoisonError::into_inner);
        for partition in touched {
            let parked = registry.parked.range((*partition, 0)..=(*partition, u64::MAX));
            parked.for_each(|(_, notify)| notify.notify_one());
        }
    }
}

impl Watch {
    /// Returns once something was applied for one of the partitions since the watch was made, or
    /// since the last call returned.
    pub async fn changed(&mut self) {
        self.notify.notified().await;
    }
}

impl std::fmt::Debug for Watch {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Watch").field("partitions", &self.partitions).finish_non_exhaustive()
    }
}

impl Drop for Watch {
    fn drop(&mut self) {
        let mut registry = self.registry.lock().unwrap_or_else(PoisonError::into_inner);
        for partition in &self.partitions {
            registry.parked.remove(&(*partition, self.number));
        }
    }
}
