//! What the state claims about itself, counted again from nothing: for tests of every kind.

#![expect(clippy::unwrap_used, reason = "a test fails by panicking")]

use std::collections::{BTreeMap, BTreeSet};

use odradek_protocol::id::{Offset, PartitionIndex, TopicId, TopicPartition};

use crate::command::{Command, Entry, GroupChange};
use crate::segment::SegmentId;
use crate::state::State;
use crate::state::brokers::COMMANDS_REMEMBERED;
use crate::state::groups::classic::ClassicGroup;
use crate::state::groups::consumer::ConsumerGroup;
use crate::state::groups::{Group, Membership};
use crate::state::partition::{AbortedTransaction, Content, Extent, Partition};
use crate::state::producers::BATCHES_REMEMBERED;
use crate::state::transactions::{EPOCH_MAX, Transactional, Transactions};

/// PART-1, PART-2 against the state before the entry, SEG-1, TXN-1, and the indexes that must agree
/// with what they index.
///
/// # Panics
///
/// If `state` is not what applying `entry` to `before` may lead to.
pub fn recount(before: &State, entry: &Entry, state: &State) {
    let deleted = |topic: TopicId| {
        entry.proposals.iter().any(|it| it.command == Command::DeleteTopic { topic })
    };
    let mut references: BTreeMap<SegmentId, u64> = BTreeMap::new();
    let mut partitions = 0;
    for topic in state.topics() {
        assert_eq!(state.topic(topic.id), Some(topic), "the name and the id mean one topic");
        for (index, partition) in topic.partitions.iter().enumerate() {
            partitions += 1;
            recount_extents(partition, &mut references);
            let earlier = before.topic(topic.id).and_then(|it| it.partitions.get(index));
            if let Some(earlier) = earlier.filter(|_| !deleted(topic.id)) {
                assert!(earlier.high_watermark <= partition.high_watermark, "PART-2");
                assert!(earlier.log_start <= partition.log_start, "what is gone stays gone");
                let stable = earlier.last_stable_offset();
                assert!(stable <= partition.last_stable_offset(), "what was stable stays so");
                assert!(earlier.cleaned() <= partition.cleaned(), "what is cleaned stays so");
            }
            let at = i32::try_from(index).unwrap();
            recount_aborted(partition);
            recount_open(state, TopicPartition { topic: topic.id, partition: at }, partition);
            for producer in partition.producers.by_id().values() {
                assert!((1..=BATCHES_REMEMBERED).contains(&producer.batches.len()));
            }
        }
    }
    for (id, deleted) in state.deleted_topics() {
        assert_eq!(deleted.topic.id, *id);
        assert!(state.topic(*id).is_none(), "{id} lives and is deleted");
        assert!(deleted.since_ms <= state.log_time_ms() && deleted.since <= state.applied());
        let mut holds_something = false;
        for partition in &deleted.topic.partitions {
            recount_extents(partition, &mut references);
            recount_aborted(partition);
            assert_eq!(partition.last_stable_offset(), partition.high_watermark);
            assert_eq!(partition.producers.count(), 0);
            holds_something |= partition.extents().next().is_some();
        }
        assert!(holds_something, "nothing is kept of {id}");
    }
    assert_eq!(state.topics().count(), state.topics.by_id.len(), "every topic has a name");
    assert_eq!(state.partitions_total(), partitions);
    let counted = state.segments().referenced().iter().map(|(id, it)| (*id, it.references));
    assert_eq!(counted.collect::<BTreeMap<_, _>>(), references, "SEG-1");
    for id in state.segments().unreferenced().keys() {
        assert!(!references.contains_key(id), "{id} is referenced and waits to be swept");
    }
    recount_segments(before, state);
    recount_groups(before, entry, state);
    recount_transactions(before, state);
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

/// SEG-2, and what follows from the horizon: what was forgotten does not come back.
fn recount_segments(before: &State, state: &State) {
    let (earlier, now) = (before.segments(), state.segments());
    assert!(earlier.horizon() <= now.horizon(), "the horizon never moves back");
    assert!(now.horizon() <= state.applied());
    let gone = earlier.unreferenced().keys().filter(|id| !now.is_known(**id));
    assert!(gone.into_iter().all(|id| id.began < now.horizon()), "SEG-2");
    let gone = earlier.referenced().iter().filter(|(id, _)| !now.is_known(**id));
    let may_go = |id: &SegmentId, is_inline| is_inline || id.began < now.horizon();
    assert!(gone.into_iter().all(|(id, refs)| may_go(id, refs.inline.is_some())), "SEG-2");
    for (id, refs) in now.referenced() {
        let is_new = !earlier.is_known(*id) && refs.inline.is_none();
        assert!(!is_new || id.began >= earlier.horizon(), "{id} is too old");
    }
    let inline = now.referenced().values().filter(|refs| refs.inline.is_some());
    assert_eq!(now.inline_bytes(), inline.map(|refs| refs.bytes).sum::<u64>());
}

/// PART-1, and what refers to segments.
fn recount_extents(partition: &Partition, references: &mut BTreeMap<SegmentId, u64>) {
    let mut end = partition.extents().next().map_or(partition.high_watermark, |it| it.base);
    assert!((end..=partition.high_watermark).contains(&partition.log_start), "PART-1");
    let holds_nothing = partition.extents().next().is_none();
    assert!(!holds_nothing || partition.log_start == partition.high_watermark, "PART-1");
    for extent in partition.extents() {
        assert_eq!(extent.base, end, "PART-1");
        assert!(extent.end() > extent.base && extent.end() > partition.log_start, "PART-1");
        assert_eq!(extent.bytes() == 0, extent.content == Content::Gap, "an extent has bytes");
        end = extent.end();
        if let Some(segment) = extent.segment() {
            *references.entry(segment).or_default() += 1;
        }
    }
    assert_eq!(end, partition.high_watermark, "PART-1");
    assert!(partition.cleaned() <= partition.last_stable_offset());
}

/// TXN-1, and that the last stable offset follows from it.
fn recount_open(state: &State, at: TopicPartition, partition: &Partition) {
    let first = |it: &Transactional| {
        let first = it.ongoing()?.partitions.get(&at).copied().flatten()?;
        Some((first, it.producer.id))
    };
    let open = state.transactions().iter().filter_map(|(_, it)| first(it));
    assert_eq!(&open.collect::<BTreeMap<_, _>>(), partition.open_transactions(), "TXN-1");
    let (start, end) = (partition.log_start, partition.high_watermark);
    let firsts = || partition.open_transactions().keys().copied();
    assert!(firsts().all(|first| first < end), "an open transaction has records");
    let first = firsts().min().unwrap_or(end);
    assert_eq!(partition.last_stable_offset(), first.max(start));
    for producer in partition.open_transactions().values() {
        assert!(partition.producers().by_id().contains_key(producer), "{producer} is forgotten");
    }
}

/// Aborted transactions are those whose markers are in the log, in their order; but nothing is left
/// of those that compaction is done with.
fn recount_aborted(partition: &Partition) {
    let marker = |extent: &Extent| match extent.content {
        Content::Marker(marker) if !marker.commits => Some((extent.base, marker.producer.id)),
        _ => None,
    };
    let markers = partition.extents().filter_map(marker);
    let markers: Vec<_> = markers.filter(|(last, _)| *last >= partition.cleaned()).collect();
    let listed = partition.aborted.iter().map(|it| (it.last, it.producer));
    let is_rewritten = |last: Offset| {
        let extent = partition.extents_from(last).next();
        extent.is_some_and(|it| matches!(it.content, Content::Merged(_) | Content::Gap))
    };
    let listed: Vec<_> = listed.filter(|(last, _)| !is_rewritten(*last)).collect();
    assert_eq!(listed, markers, "aborted transactions are those with a marker");
    assert!(partition.aborted.iter().is_sorted_by(|one, other| one.last < other.last));
    let first = partition.log_start.max(partition.cleaned());
    assert!(partition.aborted.iter().all(|it| it.last >= first));
    for aborted in &partition.aborted {
        let AbortedTransaction { first, last, stable, .. } = *aborted;
        assert!(first < last, "{aborted:?}");
        assert!(stable <= partition.last_stable_offset(), "{aborted:?}");
    }
}

/// Transactions: numbers, and the indexes that must agree with what they index.
fn recount_transactions(before: &State, state: &State) {
    let transactions = state.transactions();
    let mut numbers = BTreeSet::new();
    let mut producers = BTreeSet::new();
    for (id, it) in transactions.iter() {
        assert!((0..=EPOCH_MAX).contains(&it.producer.epoch), "{id}");
        assert!(it.producer.id.0 < state.next_producer_id, "{id}");
        assert!(producers.insert(it.producer.id), "a producer id is one transactional id's");
        assert!(numbers.insert(it.transaction), "a number is one transaction's");
        assert!((1..=transactions.last_number).contains(&it.transaction));
        assert!(it.timeout_ms > 0 && it.last_ms <= state.log_time_ms(), "{id}");
        for partition in it.ongoing().into_iter().flat_map(|it| it.partitions.keys()) {
            assert!(state.partition(*partition).is_some(), "{partition} is gone");
        }
        for (group, staged) in it.ongoing().into_iter().flat_map(|it| &it.groups) {
            for (partition, offset) in staged {
                assert_eq!(offset.partition, *partition);
                assert!(state.partition(*partition).is_some(), "{partition} is gone");
                assert!(transactions.is_staged(group, *partition));
            }
        }
        if let Some(earlier) = before.transactions().get(id) {
            assert!(earlier.transaction <= it.transaction, "numbers of {id} rise");
            assert!(earlier.producer <= it.producer, "epochs of {id} rise");
        }
    }
    assert!(before.transactions().last_number <= transactions.last_number);
    let mut rebuilt = Transactions::default();
    (rebuilt.last_number, rebuilt.purge_at) = (transactions.last_number, transactions.purge_at);
    for (id, it) in transactions.iter() {
        rebuilt.insert(id.clone(), it.clone());
    }
    assert_eq!(&rebuilt, transactions, "who is who, who is open and who has staged");
    let mut topics = state.topics.clone();
    topics.count_partitions();
    assert_eq!(topics, state.topics, "how many partitions and producers there are");
}

/// Groups: which there are, whose partitions are whose, and that their numbers rise.
fn recount_groups(before: &State, entry: &Entry, state: &State) {
    let may_begin_anew = |name: &str| {
        entry.proposals.iter().any(|it| match &it.command {
            Command::ChangeGroup { group, change, .. } if group == name => {
                matches!(change, GroupChange::DeleteGroup | GroupChange::DeleteOffsets { .. })
            }
            _ => false,
        })
    };
    let mut revisions = BTreeSet::new();
    for (name, group) in state.groups().iter() {
        let is_heard_of = group.membership != Membership::None;
        assert!(is_heard_of || !group.positions.is_empty(), "{name} is nothing");
        assert_eq!(is_heard_of, group.revision > 0);
        assert!(group.revision <= state.groups.last_revision);
        assert!(
            group.revision == 0 || revisions.insert(group.revision),
            "a revision is one group's"
        );
        assert!(group.empty_since_ms <= state.log_time_ms());
        for (partition, position) in &group.positions {
            assert!(state.partition(*partition).is_some(), "{partition} is gone");
            assert!(position.committed_ms <= state.log_time_ms());
        }
        match &group.membership {
            Membership::None => {}
            Membership::Classic(classic) => recount_classic(classic),
            Membership::Consumer(consumer) => recount_consumer(consumer),
        }
        let earlier = before.groups().get(name).filter(|_| !may_begin_anew(name));
        if let Some(earlier) = earlier {
            assert!(number(earlier) <= number(group), "generations and epochs of {name} rise");
            assert!(earlier.revision <= group.revision);
        }
    }
    assert!(before.groups.last_revision <= state.groups.last_revision);
}

fn number(group: &Group) -> i32 {
    match &group.membership {
        Membership::None => 0,
        Membership::Classic(classic) => classic.generation,
        Membership::Consumer(consumer) => consumer.epoch,
    }
}

fn recount_classic(classic: &ClassicGroup) {
    let is_empty = classic.members.is_empty();
    assert_eq!(classic.leader.is_none(), is_empty);
    assert_eq!(classic.protocol.is_none(), is_empty);
    assert!(!(is_empty && classic.is_assigned));
    assert!(classic.leader.iter().all(|leader| classic.members.contains_key(leader)));
}

fn recount_consumer(consumer: &ConsumerGroup) {
    let mut owners: BTreeMap<(TopicId, PartitionIndex), String> = BTreeMap::new();
    for (id, member) in consumer.members() {
        for (topic, indexes) in member.current.assigned.iter().chain(&member.current.revoking) {
            for index in indexes {
                let other = owners.insert((*topic, *index), id.clone());
                assert!(other.is_none_or(|other| other == *id), "a partition has one owner");
            }
        }
    }
    assert_eq!(consumer.owners, owners);
}
