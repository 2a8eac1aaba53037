//! How much there is of everything: numbers for whoever watches a cluster.

use std::collections::BTreeMap;
use std::time::Duration;

use super::State;
use super::partition::Partition;
use super::segments::LEVEL_LAST;

/// How many there are, and how long they are together.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Sum {
    /// How many.
    pub count: u64,
    /// Their bytes.
    pub bytes: u64,
}

impl Sum {
    fn add(&mut self, bytes: u64) {
        self.count += 1;
        self.bytes += bytes;
    }
}

/// How much a state holds. The same on every broker that has applied the same entries.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Gauges {
    /// Brokers that are registered.
    pub brokers: u64,
    /// Topics that live.
    pub topics: u64,
    /// Their partitions.
    pub partitions: u64,
    /// Extents of those, the unit in which the place of records is known.
    pub extents: u64,
    /// Objects that extents lie in, by how often what is in them was merged.
    pub segments: BTreeMap<u8, Sum>,
    /// Segments that came with their commits: there are no objects of them.
    pub inline: Sum,
    /// Objects that nothing refers to and that wait to be swept.
    pub waiting: Sum,
    /// Topics that were deleted and can still be brought back.
    pub deleted_topics: u64,
    /// How long ago the first of those was deleted, by log time.
    pub deleted_topics_age: Duration,
    /// Consumer groups.
    pub groups: u64,
    /// Transactional ids.
    pub transactional_ids: u64,
    /// Transactions that are open.
    pub transactions: u64,
}

impl State {
    /// Counts what there is. Looks at every partition and segment once.
    pub fn gauges(&self) -> Gauges {
        let count = |length: usize| u64::try_from(length).unwrap_or(u64::MAX);
        let mut gauges = Gauges {
            brokers: count(self.brokers.by_node().len()),
            topics: count(self.topics.by_id.len()),
            partitions: self.topics.partitions_total(),
            deleted_topics: count(self.topics.deleted.len()),
            groups: count(self.groups.iter().count()),
            transactional_ids: count(self.transactions.iter().count()),
            transactions: count(self.transactions.ongoing().count()),
            segments: (0..=LEVEL_LAST).map(|level| (level, Sum::default())).collect(),
            ..Gauges::default()
        };
        let partitions = self.topics.by_id.values().flat_map(|topic| &topic.partitions);
        gauges.extents = partitions.map(|it: &Partition| count(it.extents.len())).sum();
        for refs in self.segments.referenced.values() {
            match refs.inline {
                Some(_) => gauges.inline.add(refs.bytes),
                None => gauges.segments.entry(refs.level).or_default().add(refs.bytes),
            }
        }
        self.segments.unreferenced.values().for_each(|it| gauges.waiting.add(it.bytes));
        let oldest = self.topics.deleted.values().map(|it| it.since_ms).min();
        let age_ms = oldest.map_or(0, |since_ms| self.log_time_ms.saturating_sub(since_ms));
        gauges.deleted_topics_age = Duration::from_millis(u64::try_from(age_ms).unwrap_or(0));
        gauges
    }
}
