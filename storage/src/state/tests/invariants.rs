//! What the state claims about itself, counted again from nothing.

use std::collections::BTreeMap;

use odradek_protocol::id::TopicId;

use crate::command::{Command, Entry};
use crate::segment::SegmentId;
use crate::state::State;
use crate::state::brokers::COMMANDS_REMEMBERED;
use crate::state::producers::BATCHES_REMEMBERED;

/// PART-1, PART-2 against the state before the entry, SEG-1, and the indexes that must agree with
/// what they index.
pub(super) fn recount(before: &State, entry: &Entry, state: &State) {
    let deleted = |topic: TopicId| {
        entry.proposals.iter().any(|it| it.command == Command::DeleteTopic { topic })
    };
    let mut references: BTreeMap<SegmentId, u64> = BTreeMap::new();
    let mut partitions = 0;
    for topic in state.topics() {
        assert_eq!(state.topic(topic.id), Some(topic), "the name and the id mean one topic");
        for (index, partition) in topic.partitions.iter().enumerate() {
            partitions += 1;
            let mut end = partition.extents().next().map_or(partition.high_watermark, |it| it.base);
            assert!((end..=partition.high_watermark).contains(&partition.log_start), "PART-1");
            for extent in partition.extents() {
                assert_eq!(extent.base, end, "PART-1");
                assert!(extent.end() > extent.base && extent.end() > partition.log_start, "PART-1");
                assert!(extent.location.bytes > 0, "an extent has bytes");
                end = extent.end();
                *references.entry(extent.location.segment).or_default() += 1;
            }
            assert_eq!(end, partition.high_watermark, "PART-1");
            let earlier = before.topic(topic.id).and_then(|it| it.partitions.get(index));
            if let Some(earlier) = earlier.filter(|_| !deleted(topic.id)) {
                assert!(earlier.high_watermark <= partition.high_watermark, "PART-2");
            }
            for producer in partition.producers.by_id().values() {
                assert!((1..=BATCHES_REMEMBERED).contains(&producer.batches.len()));
            }
        }
    }
    assert_eq!(state.topics().count(), state.topics.by_id.len(), "every topic has a name");
    assert_eq!(state.partitions_total(), partitions);
    let counted = state.segments().referenced().iter().map(|(id, it)| (*id, it.references));
    assert_eq!(counted.collect::<BTreeMap<_, _>>(), references, "SEG-1");
    for id in state.segments().unreferenced().keys() {
        assert!(!references.contains_key(id), "{id} is referenced and waits to be swept");
    }
    let groups = &state.groups().positions;
    assert!(groups.values().all(|positions| !positions.is_empty()), "a group has a position");
    assert_eq!(state.brokers().len(), state.brokers.by_incarnation.len());
    for (node, broker) in state.brokers() {
        assert_eq!(state.brokers.node_of(broker.incarnation), Some(*node));
        assert!((1..=state.brokers.last_node_id).contains(&node.0), "node ids rise");
        assert!(broker.commands.above.len() <= COMMANDS_REMEMBERED);
        assert!(broker.commands.above.first().is_none_or(|it| *it > broker.commands.floor));
        assert!(broker.last_heard <= state.applied());
    }
    assert!(state.log_time_ms() >= before.log_time_ms(), "log time never runs backwards");
}
