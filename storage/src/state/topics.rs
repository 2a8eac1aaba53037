//! Topics: names, ids, partitions, configs.
//!
//! A name means at most one living topic; an id means one topic for ever. Which names and configs
//! are legal is decided before a command is proposed; here only what needs the order of the log is.

use std::collections::BTreeMap;

use odradek_protocol::id::{TopicId, TopicPartition};

use super::configs::apply_changes;
use super::partition::Partition;
use crate::command::{ConfigChange, Rejection};
use crate::lsn::Lsn;

/// Most partitions a cluster takes.
pub const PARTITIONS_MAX: u64 = 1_000_000;

/// A topic.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Topic {
    /// Its id.
    pub id: TopicId,
    /// Its name.
    pub name: String,
    /// What the user asked for and sees.
    pub replication_factor: u16,
    /// Configs that differ from the defaults.
    pub configs: BTreeMap<String, String>,
    /// Its partitions, by index.
    pub partitions: Vec<Partition>,
}

/// The living topics.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Topics {
    pub(crate) by_id: BTreeMap<TopicId, Topic>,
    pub(crate) ids: BTreeMap<String, TopicId>,
    partitions_total: u64,
    /// The entry that last created or deleted a topic, or added partitions to one.
    pub(crate) changed: Lsn,
}

impl Topics {
    /// A topic by id.
    pub fn get(&self, topic: TopicId) -> Option<&Topic> {
        self.by_id.get(&topic)
    }

    /// A topic by name.
    pub fn by_name(&self, name: &str) -> Option<&Topic> {
        self.ids.get(name).and_then(|id| self.by_id.get(id))
    }

    /// All topics, by name.
    pub fn iter(&self) -> impl Iterator<Item = &Topic> {
        self.ids.values().filter_map(|id| self.by_id.get(id))
    }

    /// How many partitions there are in all.
    pub fn partitions_total(&self) -> u64 {
        self.partitions_total
    }

    /// A partition.
    pub fn partition(&self, partition: TopicPartition) -> Option<&Partition> {
        let index = usize::try_from(partition.partition).ok()?;
        self.by_id.get(&partition.topic)?.partitions.get(index)
    }

    pub(crate) fn partition_mut(
        &mut self,
        partition: TopicPartition,
    ) -> Result<&mut Partition, Rejection> {
        let TopicPartition { topic, partition } = partition;
        let found = self.by_id.get_mut(&topic).ok_or(Rejection::UnknownTopic(topic))?;
        usize::try_from(partition)
            .ok()
            .and_then(|index| found.partitions.get_mut(index))
            .ok_or(Rejection::UnknownPartition { topic, partition })
    }

    pub(crate) fn create(
        &mut self,
        id: TopicId,
        name: &str,
        partitions: u32,
        replication_factor: u16,
        configs: &BTreeMap<String, String>,
    ) -> Result<(), Rejection> {
        if let Some(existing) = self.ids.get(name) {
            return Err(Rejection::TopicExists { name: name.to_owned(), existing: *existing });
        }
        if self.by_id.contains_key(&id) || id == TopicId::NIL {
            return Err(Rejection::TopicIdInUse(id));
        }
        if partitions == 0 || name.is_empty() {
            return Err(Rejection::Malformed("a topic has a name and at least one partition"));
        }
        self.grow(partitions)?;
        let topic = Topic {
            id,
            name: name.to_owned(),
            replication_factor,
            configs: configs.clone(),
            partitions: (0..partitions).map(|_| Partition::default()).collect(),
        };
        self.insert(topic);
        Ok(())
    }

    /// Puts a topic in as it is: for `create`, and for a state that is read back.
    pub(crate) fn insert(&mut self, topic: Topic) {
        self.ids.insert(topic.name.clone(), topic.id);
        self.by_id.insert(topic.id, topic);
    }

    /// Counts partitions that were put in by [`Topics::insert`] alone.
    pub(crate) fn count_partitions(&mut self) {
        let count = |topic: &Topic| u64::try_from(topic.partitions.len()).unwrap_or(u64::MAX);
        self.partitions_total = self.by_id.values().map(count).sum();
    }

    pub(crate) fn delete(&mut self, id: TopicId) -> Result<Topic, Rejection> {
        let topic = self.by_id.remove(&id).ok_or(Rejection::UnknownTopic(id))?;
        self.ids.remove(&topic.name);
        self.partitions_total -= u64::try_from(topic.partitions.len()).unwrap_or(u64::MAX);
        Ok(topic)
    }

    pub(crate) fn add_partitions(&mut self, id: TopicId, total: u32) -> Result<(), Rejection> {
        let topic = self.by_id.get(&id).ok_or(Rejection::UnknownTopic(id))?;
        let has = u32::try_from(topic.partitions.len()).unwrap_or(u32::MAX);
        if total <= has {
            return Err(Rejection::PartitionsNotGrowing { has, asked: total });
        }
        self.grow(total - has)?;
        if let Some(topic) = self.by_id.get_mut(&id) {
            topic.partitions.extend((has..total).map(|_| Partition::default()));
        }
        Ok(())
    }

    fn grow(&mut self, by: u32) -> Result<(), Rejection> {
        let asked = self.partitions_total.saturating_add(u64::from(by));
        if asked > PARTITIONS_MAX {
            return Err(Rejection::TooManyPartitions { asked, limit: PARTITIONS_MAX });
        }
        self.partitions_total = asked;
        Ok(())
    }

    pub(crate) fn alter_configs(
        &mut self,
        id: TopicId,
        replace: bool,
        changes: &[ConfigChange],
    ) -> Result<(), Rejection> {
        let topic = self.by_id.get_mut(&id).ok_or(Rejection::UnknownTopic(id))?;
        apply_changes(&mut topic.configs, replace, changes);
        Ok(())
    }
}
