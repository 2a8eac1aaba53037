//! The life of data, in the most naive way: what is shared is copied.

use odradek_protocol::id::TopicId;

use super::{Model, ModelPartition, ModelTopic, compare_partition};
use crate::command::{Outcome, Rejection};
use crate::lsn::Lsn;
use crate::state::State;

/// A topic that was deleted, with what was stable in it.
#[derive(Clone, Debug)]
pub(super) struct ModelDeleted {
    pub(super) topic: ModelTopic,
    since: Lsn,
    since_ms: i64,
}

impl ModelPartition {
    fn is_empty(&self) -> bool {
        self.end() <= self.log_start
    }
}

impl Model {
    pub(super) fn delete(&mut self, id: TopicId) -> Outcome {
        let Some(mut topic) = self.topics.remove(&id) else {
            return Outcome::Rejected(Rejection::UnknownTopic(id));
        };
        for partition in &mut topic.partitions {
            let stable = self.transactions.stable(partition);
            *partition = self.transactions.branch(partition, stable);
        }
        if !topic.partitions.iter().all(ModelPartition::is_empty) {
            let deleted = ModelDeleted { topic, since: self.lsn, since_ms: self.now_ms };
            self.deleted.insert(id, deleted);
        }
        self.groups.forget_topic(id);
        self.transactions.forget_topic(id);
        Outcome::Done
    }

    pub(super) fn compare_deleted(&self, state: &State) {
        assert_eq!(state.deleted_topics().len(), self.deleted.len());
        for (found, expected) in state.deleted_topics().values().zip(self.deleted.values()) {
            assert_eq!((found.since, found.since_ms), (expected.since, expected.since_ms));
            assert_eq!(found.topic.name, expected.topic.name);
            assert_eq!(found.topic.configs, expected.topic.configs);
            assert_eq!(found.topic.replication_factor, expected.topic.replication_factor);
            assert_eq!(found.topic.partitions.len(), expected.topic.partitions.len());
            for (found, expected) in found.topic.partitions.iter().zip(&expected.topic.partitions) {
                compare_partition(found, expected);
                self.transactions.compare_partition(found, expected);
            }
        }
    }
}
