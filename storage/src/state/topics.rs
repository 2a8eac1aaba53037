//! Topics: names, ids, partitions, configs; and those that were deleted lately.
//!
//! A name means at most one living topic; an id means one topic for ever. Which names and configs
//! are legal is decided before a command is proposed; here only what needs the order of the log is.

use std::collections::{BTreeMap, BTreeSet};

use odradek_protocol::id::{TopicId, TopicPartition};

use super::configs::apply_changes;
use super::life::Deleted;
use super::partition::Partition;
use crate::command::{ConfigChange, Rejection};
use crate::lsn::Lsn;

/// Most partitions a cluster takes.
pub const PARTITIONS_MAX: u64 = 1_000_000;

/// Fewer producers than this are never looked through for old ones.
const PURGE_AT_MIN: u64 = 64;

/// More producers than this are not kept for as long as `producer.id.expiration.ms` says.
const PRODUCERS_MAX: u64 = 200_000;

/// How long a producer is kept in any case, in milliseconds of log time: longer than clients repeat
/// what they have no answer to.
const PRODUCER_KEPT_MS_MIN: i64 = 15 * 60 * 1000;

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

impl Topic {
    /// Producers that its partitions remember.
    fn producers(&self) -> u64 {
        self.partitions.iter().map(|partition| partition.producers.count()).sum()
    }
}

/// The living topics.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Topics {
    pub(crate) by_id: BTreeMap<TopicId, Topic>,
    pub(crate) ids: BTreeMap<String, TopicId>,
    pub(crate) deleted: BTreeMap<TopicId, Deleted>,
    partitions_total: u64,
    /// Producers that partitions remember, one in each partition that it wrote to.
    producers_total: u64,
    /// How many there may be before old ones are looked for: more than were left the last time by
    /// a part, so that looking costs little per producer.
    pub(crate) purge_producers_at: u64,
    /// The entry that last created or deleted a topic, or added partitions to one.
    pub(crate) changed: Lsn,
}

impl Default for Topics {
    fn default() -> Self {
        Self {
            by_id: BTreeMap::new(),
            ids: BTreeMap::new(),
            deleted: BTreeMap::new(),
            partitions_total: 0,
            producers_total: 0,
            purge_producers_at: PURGE_AT_MIN,
            changed: Lsn::ZERO,
        }
    }
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

    /// Whether there is such a partition; else what is missing.
    pub(crate) fn check(&self, partition: TopicPartition) -> Result<(), Rejection> {
        let TopicPartition { topic, partition: index } = partition;
        match (self.partition(partition), self.get(topic)) {
            (Some(_), _) => Ok(()),
            (None, None) => Err(Rejection::UnknownTopic(topic)),
            (None, Some(_)) => Err(Rejection::UnknownPartition { topic, partition: index }),
        }
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
        let is_used = self.by_id.contains_key(&id) || self.deleted.contains_key(&id);
        if is_used || id == TopicId::NIL {
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
        self.producers_total = self.by_id.values().map(Topic::producers).sum();
    }

    /// Says that partitions have come to know so many producers more, and forgets old ones if they
    /// are many: those that have written nothing for `kept_ms`, or less long if that are too many.
    pub(crate) fn add_producers(&mut self, count: u64, now_ms: i64, kept_ms: i64) {
        self.producers_total += count;
        if count == 0 || self.producers_total < self.purge_producers_at {
            return;
        }
        let mut kept_ms = kept_ms.max(PRODUCER_KEPT_MS_MIN);
        loop {
            self.forget_producers(now_ms.saturating_sub(kept_ms));
            if self.producers_total <= PRODUCERS_MAX / 2 || kept_ms == PRODUCER_KEPT_MS_MIN {
                break;
            }
            kept_ms = (kept_ms / 2).max(PRODUCER_KEPT_MS_MIN);
        }
        let room = self.producers_total.min(PRODUCERS_MAX / 2);
        self.purge_producers_at = (self.producers_total + room).max(PURGE_AT_MIN);
    }

    fn forget_producers(&mut self, oldest_ms: i64) {
        let partitions = self.by_id.values_mut().flat_map(|topic| &mut topic.partitions);
        self.producers_total = partitions
            .map(|partition| {
                let open: BTreeSet<_> = partition.open.values().copied().collect();
                partition.producers.forget(oldest_ms, |id| open.contains(&id))
            })
            .sum();
    }

    pub(crate) fn delete(&mut self, id: TopicId) -> Result<Topic, Rejection> {
        let topic = self.by_id.remove(&id).ok_or(Rejection::UnknownTopic(id))?;
        self.ids.remove(&topic.name);
        self.partitions_total -= u64::try_from(topic.partitions.len()).unwrap_or(u64::MAX);
        self.producers_total -= topic.producers();
        Ok(topic)
    }

    /// Keeps a topic that was deleted until it is purged.
    pub(crate) fn keep(&mut self, topic: Topic, since: Lsn, since_ms: i64) {
        self.deleted.insert(topic.id, Deleted { topic, since, since_ms });
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
