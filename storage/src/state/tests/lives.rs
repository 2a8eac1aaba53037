//! Places in the life of data that no drawn log leads to, or only by chance.

use std::collections::BTreeMap;

use odradek_protocol::id::{NodeId, Offset, TopicId, TopicPartition};
use uuid::Uuid;

use super::chain::{begun, create_topic, propose};
use crate::command::{
    BatchSummary, Command, ConfigChange, ConfigOperation, ConfigResource, Incarnation, NewBlock,
    NewExtent, Outcome, Rejection, Replacement, Run,
};
use crate::lsn::Lsn;
use crate::segment::SegmentId;
use crate::state::State;
use crate::state::recount::recount;
use crate::state::retention::{RETENTION_MS, Retention};

const ORDERS: TopicPartition = TopicPartition { topic: TopicId(Uuid::from_u128(1)), partition: 0 };

fn segment(counter: u64) -> SegmentId {
    SegmentId { began: Lsn::FIRST, incarnation: Incarnation(1), counter }
}

fn commit(counter: u64, records: u32) -> Command {
    let batch = BatchSummary { bytes: 100, records, max_timestamp: 0, producer: None };
    let runs =
        vec![Run { partition: ORDERS, position: 32, stored_bytes: 136, batches: vec![batch] }];
    Command::CommitSegment { segment: segment(counter), bytes: 2000, runs }
}

fn replacement(
    state: &State,
    (from, to): (i64, i64),
    extents: &[(u32, Option<u64>)],
) -> Replacement {
    let (from, to) = (Offset(from), Offset(to));
    let extent = |(records, position): &(u32, Option<u64>)| {
        let block = position.map(|position| NewBlock { position, stored_bytes: 136, bytes: 100 });
        NewExtent { records: *records, max_timestamp: 0, block }
    };
    let inputs = state.partition(ORDERS).unwrap().hash_between(from, to).unwrap_or(0);
    let extents = extents.iter().map(extent).collect();
    Replacement { partition: ORDERS, from, to, inputs, extents, cleaned: None }
}

fn replace(counter: u64, bytes: u64, replacements: Vec<Replacement>) -> Command {
    Command::ReplaceExtents { segment: segment(counter), bytes, level: 1, replacements }
}

/// Nobody means it so; the references must add up all the same.
#[test]
fn a_replacement_may_replace_what_the_one_before_it_in_the_same_command_put_there() {
    let (mut chain, mut state, _) = begun();
    chain.apply(&mut state, propose(1, 2, create_topic(ORDERS, 1))).unwrap();
    chain.apply(&mut state, propose(1, 3, commit(1, 5))).unwrap();
    let first = replacement(&state, (0, 5), &[(5, Some(32))]);
    // The hash of what the first one will put there.
    let mut ahead = (chain.clone(), state.clone());
    let alone = propose(1, 4, replace(2, 2000, vec![first.clone()]));
    ahead.0.apply(&mut ahead.1, alone).unwrap();
    for second in [&[(2, Some(168)), (3, Some(304))][..], &[(5, None)]] {
        let (mut chain, mut state) = (chain.clone(), state.clone());
        let second = replacement(&ahead.1, (0, 5), second);
        let both = propose(1, 4, replace(2, 2000, vec![first.clone(), second.clone()]));
        let (entry, hash) = chain.write(Incarnation(1), 0, vec![both]);
        let before = state.clone();
        let applied = state.apply(&entry, hash).unwrap();
        assert_eq!(applied.outcomes, [Outcome::ExtentsReplaced(vec![Ok(()), Ok(())])]);
        recount(&before, &entry, &state);
        let extents = state.partition(ORDERS).unwrap().extents().count();
        assert_eq!(extents, second.extents.len());
    }
}

#[test]
fn a_block_of_nothing_in_no_segment_is_nonsense() {
    let (mut chain, mut state, _) = begun();
    chain.apply(&mut state, propose(1, 2, create_topic(ORDERS, 1))).unwrap();
    chain.apply(&mut state, propose(1, 3, commit(1, 5))).unwrap();
    let before = state.clone();
    let mut nothing = replacement(&state, (0, 5), &[(5, Some(0))]);
    nothing.extents[0].block = Some(NewBlock { position: 0, stored_bytes: 0, bytes: 1 });
    let (entry, hash) =
        chain.write(Incarnation(1), 0, vec![propose(1, 4, replace(2, 0, vec![nothing]))]);
    let applied = state.apply(&entry, hash).unwrap();
    let [Outcome::ExtentsReplaced(outcomes)] = applied.outcomes.as_slice() else {
        panic!("{applied:?}");
    };
    assert!(matches!(outcomes[..], [Err(Rejection::Malformed(_))]), "{outcomes:?}");
    recount(&before, &entry, &state);
    assert_eq!(state.topics, before.topics);
    assert_eq!(state.segments, before.segments);
}

type Configs<'a> = &'a [(&'a str, &'a str)];

#[test]
fn configs_say_how_long_records_are_kept_and_whether_they_are_compacted() {
    let (mut chain, mut state, _) = begun();
    chain.apply(&mut state, propose(1, 2, create_topic(ORDERS, 1))).unwrap();
    let week = Retention { ms: Some(RETENTION_MS), bytes: None };
    let nothing = Retention::default();
    let kept = |ms, bytes| Retention { ms, bytes };
    // What the topic says, what the cluster says, what it comes to.
    let cases: &[(Configs<'_>, Configs<'_>, Retention, bool)] = &[
        (&[], &[], week, false),
        (&[("retention.ms", "5")], &[], kept(Some(5), None), false),
        (&[("retention.ms", "0")], &[], kept(Some(0), None), false),
        (&[("retention.ms", "-1")], &[], nothing, false),
        (&[("retention.ms", "-1"), ("retention.bytes", "7")], &[], kept(None, Some(7)), false),
        (&[("retention.bytes", "0")], &[], kept(Some(RETENTION_MS), Some(0)), false),
        (&[("retention.bytes", "-1")], &[("log.retention.bytes", "9")], week, false),
        (&[], &[("log.retention.bytes", "9")], kept(Some(RETENTION_MS), Some(9)), false),
        (&[], &[("log.retention.ms", "8")], kept(Some(8), None), false),
        (&[("retention.ms", "5")], &[("log.retention.ms", "8")], kept(Some(5), None), false),
        (&[("retention.ms", "soon")], &[], week, false),
        (&[("cleanup.policy", "compact"), ("retention.ms", "5")], &[], nothing, true),
        (&[("cleanup.policy", "compact,delete")], &[], week, true),
        (&[("cleanup.policy", "delete, compact")], &[], week, true),
        (&[], &[("log.cleanup.policy", "compact")], nothing, true),
        (&[("cleanup.policy", "delete")], &[("log.cleanup.policy", "compact")], week, false),
    ];
    let alter = |resource, configs: Configs<'_>| {
        let set = |(name, value): &(&str, &str)| ConfigChange {
            name: (*name).to_owned(),
            operation: ConfigOperation::Set((*value).to_owned()),
        };
        let changes = configs.iter().map(set).collect();
        Command::AlterConfigs { resource, replace: true, changes }
    };
    for (counter, (topic, cluster, expected, is_compacted)) in (3..).step_by(2).zip(cases) {
        let of_topic = alter(ConfigResource::Topic(ORDERS.topic), topic);
        chain.apply(&mut state, propose(1, counter, of_topic)).unwrap();
        let of_cluster = alter(ConfigResource::Cluster, cluster);
        chain.apply(&mut state, propose(1, counter + 1, of_cluster)).unwrap();
        let found = state.topic(ORDERS.topic).unwrap();
        assert_eq!(state.retention(found), *expected, "{topic:?} {cluster:?}");
        assert_eq!(state.is_compacted(found), *is_compacted, "{topic:?} {cluster:?}");
    }
}

#[test]
fn one_of_the_brokers_that_serve_is_the_housekeeper() {
    assert_eq!(State::new().housekeeper(), None);
    let (mut chain, mut state, _) = begun();
    let first = state.housekeeper().unwrap();
    let other = if first == NodeId(1) { NodeId(2) } else { NodeId(1) };
    let incarnation = |node: NodeId| u64::try_from(node.0).unwrap();
    chain.apply(&mut state, propose(incarnation(first), 2, Command::DrainBroker)).unwrap();
    assert_eq!(state.housekeeper(), Some(other));
    for node in [first, other] {
        let (incarnation, seen) = (Incarnation(incarnation(node)), Lsn::ZERO);
        let leave = Command::ExpireBroker { incarnation, seen };
        chain.apply(&mut state, propose(incarnation.0, 3, leave)).unwrap();
    }
    assert_eq!(state.housekeeper(), None);
}

#[test]
fn a_partition_is_tiled_by_the_extents_that_begin_and_end_where_it_is_asked() {
    let (mut chain, mut state, _) = begun();
    chain.apply(&mut state, propose(1, 2, create_topic(ORDERS, 1))).unwrap();
    for (counter, records) in (3..).zip([2, 3, 1]) {
        chain.apply(&mut state, propose(1, counter, commit(counter, records))).unwrap();
    }
    let partition = state.partition(ORDERS).unwrap();
    let mut hashes = BTreeMap::new();
    for from in -1..=7 {
        for to in -1..=7 {
            let hash = partition.hash_between(Offset(from), Offset(to));
            let ends = [0, 2, 5, 6];
            let fits = from < to && ends.contains(&from) && ends.contains(&to);
            assert_eq!(hash.is_some(), fits, "from {from} to {to}");
            hash.map(|hash| hashes.insert(hash, (from, to)));
        }
    }
    assert_eq!(hashes.len(), 6, "no two are the same");
}
