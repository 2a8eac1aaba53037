//! Places that no log of bearable length leads to.

use std::iter;

use odradek_protocol::id::{Offset, ProducerId, TopicId, TopicPartition};
use uuid::Uuid;

use super::chain::{begun, create_topic, propose, register};
use super::invariants::recount;
use crate::command::groups::{ClassicMember, MemberChange};
use crate::command::{
    BatchOutcome, BatchProducer, BatchSummary, Command, GroupChange, Incarnation, Outcome,
    Rejection, Run, RunOutcome,
};
use crate::lsn::Lsn;
use crate::segment::SegmentId;
use crate::state::State;
use crate::state::brokers::INCARNATIONS_REMEMBERED;
use crate::state::groups::Membership;

const ORDERS: TopicPartition = TopicPartition { topic: TopicId(Uuid::from_u128(1)), partition: 0 };

fn batch(records: u32, base_sequence: i32) -> BatchSummary {
    let producer = BatchProducer { id: ProducerId(1), epoch: 0, base_sequence };
    BatchSummary { bytes: 100, records, max_timestamp: 0, producer: Some(producer) }
}

fn commit(batches: Vec<BatchSummary>) -> Command {
    let segment = SegmentId { began: Lsn::FIRST, incarnation: Incarnation(1), counter: 1 };
    let runs = vec![Run { partition: ORDERS, position: 32, stored_bytes: 1000, batches }];
    Command::CommitSegment { segment, bytes: 2000, runs }
}

#[test]
fn a_batch_beyond_the_last_offset_leaves_a_hole_in_the_block_and_not_in_the_log() {
    let (mut chain, mut state, _) = begun();
    chain.apply(&mut state, propose(1, 2, create_topic(ORDERS, 1))).unwrap();
    let end = Offset(i64::MAX - 10);
    let partition = state.topics.partition_mut(ORDERS).unwrap();
    (partition.log_start, partition.high_watermark) = (end, end);
    let before = state.clone();
    let batches = vec![batch(4, 0), batch(9, 4), batch(3, 4)];
    let (entry, hash) = chain.write(Incarnation(1), 0, vec![propose(1, 3, commit(batches))]);
    let applied = state.apply(&entry, hash).unwrap();
    let used_up = BatchOutcome::Rejected(Rejection::Malformed("offsets are used up"));
    assert_eq!(
        applied.outcomes,
        [Outcome::SegmentCommitted(vec![RunOutcome::Judged {
            batches: vec![
                BatchOutcome::Appended(end),
                used_up,
                BatchOutcome::Appended(Offset(end.0 + 4)),
            ],
            log_start: end,
        }])]
    );
    recount(&before, &entry, &state);
    let parts: Vec<(i64, u32, u32)> = state
        .partition(ORDERS)
        .unwrap()
        .extents()
        .map(|extent| (extent.base.0, extent.location.skip, extent.location.bytes))
        .collect();
    assert_eq!(parts, [(end.0, 0, 100), (end.0 + 4, 200, 100)]);
}

#[test]
fn an_extent_takes_no_more_records_than_it_can_count() {
    let (mut chain, mut state, _) = begun();
    chain.apply(&mut state, propose(1, 2, create_topic(ORDERS, 1))).unwrap();
    let before = state.clone();
    let most = u32::try_from(i32::MAX).unwrap();
    let plain = BatchSummary { producer: None, ..batch(most, 0) };
    let batches = iter::repeat_n(plain, 5).collect();
    let (entry, hash) = chain.write(Incarnation(1), 0, vec![propose(1, 3, commit(batches))]);
    state.apply(&entry, hash).unwrap();
    recount(&before, &entry, &state);
    let records: Vec<u32> =
        state.partition(ORDERS).unwrap().extents().map(|extent| extent.records).collect();
    assert_eq!(records, [2 * most, 2 * most, most]);
    assert_eq!(state.high_watermark(ORDERS), Some(Offset(5 * i64::from(most))));
}

#[test]
fn numbers_that_are_used_up_are_a_rejection() {
    let (mut chain, mut state, _) = begun();
    state.brokers.last_node_id = i32::MAX;
    let applied = chain.apply(&mut state, register(3, 1, "h3")).unwrap();
    let used_up = Rejection::Malformed("node ids are used up");
    assert_eq!(applied.outcomes, [Outcome::Rejected(used_up)]);
    state.next_producer_id = i64::MAX - 4;
    let allocate = |counter, count| propose(1, counter, Command::AllocateProducerIds { count });
    let applied = chain.apply(&mut state, allocate(2, 5)).unwrap();
    assert!(matches!(applied.outcomes[0], Outcome::Rejected(_)));
    let applied = chain.apply(&mut state, allocate(3, 4)).unwrap();
    let first = ProducerId(i64::MAX - 4);
    assert_eq!(applied.outcomes, [Outcome::ProducerIds { first, count: 4 }]);
}

#[test]
fn the_last_generation_is_followed_by_the_first() {
    let (mut chain, mut state, _) = begun();
    let begin = |counter, revision, office| {
        let member = MemberChange::Put { id: "m".to_owned(), member: ClassicMember::default() };
        let change = GroupChange::BeginGeneration {
            protocol_type: "consumer".to_owned(),
            protocol: Some("range".to_owned()),
            leader: Some("m".to_owned()),
            with_staged: false,
            members: vec![member],
        };
        let group = "g".to_owned();
        propose(1, counter, Command::ChangeGroup { group, office, revision, change })
    };
    // Broker 2 leaves, so that broker 1 coordinates.
    chain.apply(&mut state, propose(2, 2, Command::DrainBroker)).unwrap();
    let office = state.offices_changed();
    chain.apply(&mut state, begin(2, 0, office)).unwrap();
    let group = state.groups.by_name.get_mut("g").unwrap();
    let Membership::Classic(classic) = &mut group.membership else { panic!("{group:?}") };
    classic.generation = i32::MAX;
    let applied = chain.apply(&mut state, begin(3, 1, office)).unwrap();
    assert_eq!(applied.outcomes, [Outcome::GroupChanged(2)]);
    let generation = state.groups().get("g").and_then(|it| it.classic()).map(|it| it.generation);
    assert_eq!(generation, Some(1));
}

#[test]
fn as_many_incarnations_that_left_are_remembered_as_the_limit_says() {
    let (mut chain, mut state, _) = begun();
    let limit = u64::try_from(INCARNATIONS_REMEMBERED).unwrap();
    // Broker 2 left first; the others take over from each other.
    for incarnation in 100..=100 + limit {
        chain.apply(&mut state, register(incarnation, 1, "h2")).unwrap();
    }
    assert_eq!(state.brokers.left.len(), INCARNATIONS_REMEMBERED);
    let read_back = State::from_snapshot(&state.to_snapshot().0).unwrap();
    assert_eq!(read_back, state);
    let applied = chain.apply(&mut state, register(100, 1, "h2")).unwrap();
    let fenced = Rejection::BrokerFenced(Incarnation(100));
    assert_eq!(applied.outcomes, [Outcome::Rejected(fenced)]);
    assert!(!state.brokers.left.contains(&Incarnation(2)), "the oldest is forgotten");
}
