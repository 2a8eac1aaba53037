//! Places that no log of bearable length leads to.

use std::collections::BTreeMap;
use std::iter;

use odradek_protocol::id::{Offset, ProducerId, TopicId, TopicPartition};
use uuid::Uuid;

use super::chain::{Chain, begun, create_topic, propose, register};
use crate::command::groups::{ClassicMember, MemberChange};
use crate::command::{
    BatchOutcome, BatchProducer, BatchSummary, BatchTransaction, Command, GroupChange, Incarnation,
    Outcome, ProducerIdAndEpoch, Rejection, Run, RunOutcome, TransactionChange,
};
use crate::lsn::Lsn;
use crate::segment::SegmentId;
use crate::state::State;
use crate::state::brokers::INCARNATIONS_REMEMBERED;
use crate::state::configs::Configs;
use crate::state::groups::Membership;
use crate::state::recount::recount;
use crate::state::topics::Topics;
use crate::state::transactions::EPOCH_MAX;

const ORDERS: TopicPartition = TopicPartition { topic: TopicId(Uuid::from_u128(1)), partition: 0 };

fn batch(records: u32, base_sequence: i32) -> BatchSummary {
    let transaction = BatchTransaction::None;
    let producer = BatchProducer { id: ProducerId(1), epoch: 0, base_sequence, transaction };
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
        .map(|extent| (extent.base.0, extent.location().unwrap()))
        .map(|(base, location)| (base, location.skip, location.bytes))
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

/// A log with a transactional id "t", which has used its last epoch but one.
fn almost_exhausted() -> (Chain, State) {
    let (mut chain, mut state, _) = begun();
    chain.apply(&mut state, propose(1, 2, create_topic(ORDERS, 1))).unwrap();
    chain.apply(&mut state, propose(1, 3, transact(init(None)))).unwrap();
    state.transactions.by_id.get_mut("t").unwrap().producer.epoch = EPOCH_MAX;
    (chain, state)
}

fn transact(change: TransactionChange) -> Command {
    Command::ChangeTransaction { transactional_id: "t".to_owned(), change }
}

fn init(expected: Option<ProducerIdAndEpoch>) -> TransactionChange {
    TransactionChange::InitProducer { timeout_ms: 1, expected }
}

fn producer(id: i64, epoch: i16) -> ProducerIdAndEpoch {
    ProducerIdAndEpoch { id: ProducerId(id), epoch }
}

fn end(producer: ProducerIdAndEpoch, transaction: u64, commits: bool) -> TransactionChange {
    TransactionChange::End { producer, transaction, commits, bumps_epoch: true }
}

fn transactional(producer: ProducerIdAndEpoch, base_sequence: i32) -> BatchSummary {
    let ProducerIdAndEpoch { id, epoch } = producer;
    let transaction = BatchTransaction::Implicit;
    let producer = Some(BatchProducer { id, epoch, base_sequence, transaction });
    BatchSummary { producer, ..batch(1, 0) }
}

#[test]
fn a_client_whose_epochs_are_used_up_goes_on_with_another_producer_id() {
    let (last, next) = (producer(0, EPOCH_MAX), producer(1, 0));
    let changes: [(TransactionChange, Option<ProducerIdAndEpoch>); 4] = [
        (init(None), None),
        (init(Some(last)), Some(last)),
        (end(last, 1, true), Some(last)),
        (TransactionChange::Abort { transaction: 1 }, Some(last)),
    ];
    for (change, previous) in changes {
        let (mut chain, mut state) = almost_exhausted();
        let writes = propose(1, 4, commit(vec![transactional(last, 0)]));
        chain.apply(&mut state, writes).unwrap();
        assert_eq!(state.partition(ORDERS).unwrap().open_transactions().len(), 1);
        let before = state.clone();
        let is_abort = matches!(change, TransactionChange::Abort { .. });
        let change = propose(1, 5, transact(change));
        let (entry, hash) = chain.write(Incarnation(1), 0, vec![change]);
        let applied = state.apply(&entry, hash).unwrap();
        let expected = if is_abort { Outcome::Done } else { Outcome::Producer(next) };
        assert_eq!(applied.outcomes, [expected]);
        recount(&before, &entry, &state);
        let found = state.transactions().get("t").unwrap();
        assert_eq!((found.producer, found.previous), (next, previous));
        assert!(state.partition(ORDERS).unwrap().open_transactions().is_empty());
        // Nobody has the old one any more; whoever has no answer may ask again for the new one.
        let again = propose(1, 6, transact(init(Some(last))));
        let applied = chain.apply(&mut state, again).unwrap();
        let fenced = Rejection::ProducerFenced { epoch: EPOCH_MAX, current: 0 };
        let expected = match previous {
            Some(_) => Outcome::Producer(next),
            None => Outcome::Rejected(fenced),
        };
        assert_eq!(applied.outcomes, [expected]);
        let batches = vec![transactional(last, 1), transactional(next, 0)];
        let applied = chain.apply(&mut state, propose(1, 7, commit(batches))).unwrap();
        let Outcome::SegmentCommitted(runs) = &applied.outcomes[0] else { panic!("{applied:?}") };
        let RunOutcome::Judged { batches, .. } = &runs[0] else { panic!("{runs:?}") };
        let unknown = BatchOutcome::Rejected(Rejection::UnknownProducer);
        assert_eq!(*batches, [unknown, BatchOutcome::Appended(Offset(2))]);
        let read_back = State::from_snapshot(&state.to_snapshot().0).unwrap();
        assert_eq!(read_back, state);
    }
}

#[test]
fn an_end_that_used_up_the_epochs_is_known_when_it_is_repeated() {
    let (mut chain, mut state) = almost_exhausted();
    let last = producer(0, EPOCH_MAX);
    chain.apply(&mut state, propose(1, 4, commit(vec![transactional(last, 0)]))).unwrap();
    for counter in 5..8 {
        let proposal = propose(1, counter, transact(end(last, 1, true)));
        let applied = chain.apply(&mut state, proposal).unwrap();
        assert_eq!(applied.outcomes, [Outcome::Producer(producer(1, 0))]);
    }
    let partition = state.partition(ORDERS).unwrap();
    assert_eq!(partition.high_watermark, Offset(2), "it was committed once");
}

#[test]
fn what_needs_a_producer_id_when_they_are_used_up_is_rejected_and_changes_nothing() {
    let last = producer(0, EPOCH_MAX);
    let other =
        |id: &str, change| Command::ChangeTransaction { transactional_id: id.to_owned(), change };
    let changes = [
        other("new", init(None)),
        transact(init(None)),
        transact(init(Some(last))),
        transact(end(last, 1, true)),
        transact(TransactionChange::Abort { transaction: 1 }),
    ];
    let (mut chain, mut state) = almost_exhausted();
    chain.apply(&mut state, propose(1, 4, commit(vec![transactional(last, 0)]))).unwrap();
    state.next_producer_id = i64::MAX;
    for (counter, change) in (5..).zip(changes) {
        let mut before = state.clone();
        let applied = chain.apply(&mut state, propose(1, counter, change.clone())).unwrap();
        let used_up = Rejection::Malformed("producer ids are used up");
        assert_eq!(applied.outcomes, [Outcome::Rejected(used_up)]);
        (before.applied, before.last_hash) = (state.applied, state.last_hash);
        before.brokers.clone_from(&state.brokers);
        assert_eq!(state, before, "{change:?}");
    }
}

#[test]
fn a_transaction_ends_where_offsets_are_used_up() {
    for commits in [true, false] {
        let (mut chain, mut state, _) = begun();
        chain.apply(&mut state, propose(1, 2, create_topic(ORDERS, 1))).unwrap();
        chain.apply(&mut state, propose(1, 3, transact(init(None)))).unwrap();
        let end_of_log = Offset(i64::MAX);
        let first = Offset(i64::MAX - 1);
        let partition = state.topics.partition_mut(ORDERS).unwrap();
        (partition.log_start, partition.high_watermark) = (first, first);
        let mine = producer(0, 0);
        chain.apply(&mut state, propose(1, 4, commit(vec![transactional(mine, 0)]))).unwrap();
        let partition = state.partition(ORDERS).unwrap();
        assert_eq!((partition.high_watermark, partition.last_stable_offset()), (end_of_log, first));
        let ends = propose(1, 5, transact(end(mine, 1, commits)));
        let applied = chain.apply(&mut state, ends).unwrap();
        assert_eq!(applied.outcomes, [Outcome::Producer(producer(0, 1))]);
        let partition = state.partition(ORDERS).unwrap();
        assert_eq!(partition.last_stable_offset(), end_of_log);
        let aborted = partition.aborted_between(first, end_of_log).count();
        assert_eq!(aborted, usize::from(!commits));
        assert_eq!(State::from_snapshot(&state.to_snapshot().0).as_ref(), Ok(&state));
    }
}

#[test]
fn an_expiration_that_makes_no_sense_is_the_default() {
    const DAY_MS: i64 = 24 * 60 * 60 * 1000;
    let mut configs = Configs::default();
    let mut expirations = |value: &str| {
        let names = ["transactional.id.expiration.ms", "producer.id.expiration.ms"];
        configs.cluster.extend(names.map(|name| (name.to_owned(), value.to_owned())));
        [configs.transactional_expiration_ms(), configs.producer_expiration_ms()]
    };
    for nonsense in ["", "week", "-1", "0", "1.5", "99999999999999999999"] {
        assert_eq!(expirations(nonsense), [7 * DAY_MS, DAY_MS], "{nonsense}");
    }
    assert_eq!(expirations("12"), [12, 12]);
    assert_eq!(Configs::default().transactional_expiration_ms(), 7 * DAY_MS);
    assert_eq!(Configs::default().producer_expiration_ms(), DAY_MS);
}

/// Programs that make a producer for each record: a million of them, in a topic of some partitions.
#[test]
fn of_a_million_short_lived_producers_only_those_are_remembered_that_may_still_repeat_something() {
    const PRODUCERS: i64 = 1_000_000;
    const KEPT_MS_MIN: i64 = 15 * 60 * 1000;
    const DAY_MS: i64 = 24 * KEPT_MS_MIN * 4;
    // As many come in a quarter of an hour as this.
    let step_ms = KEPT_MS_MIN / 40_000;
    let mut topics = Topics::default();
    topics.create(ORDERS.topic, "orders", 4, 1, &BTreeMap::new()).unwrap();
    let at = |id: i64| TopicPartition { partition: i32::try_from(id % 4).unwrap(), ..ORDERS };
    let open = [7, 100, 123_456];
    let mut most = 0;
    for id in 0..PRODUCERS {
        let now_ms = id * step_ms;
        let partition = topics.partition_mut(at(id)).unwrap();
        let batch = batch(1, 0).producer.map(|it| BatchProducer { id: ProducerId(id), ..it });
        let base = partition.high_watermark;
        assert!(partition.producers.remember(&batch.unwrap(), 1, base, now_ms), "it is new");
        partition.high_watermark = base.advanced_by(1);
        if open.contains(&id) {
            partition.open.insert(base, ProducerId(id));
        }
        topics.add_producers(1, now_ms, DAY_MS);
        if id % 10_000 == 0 {
            let count: u64 =
                topics.by_id[&ORDERS.topic].partitions.iter().map(|it| it.producers.count()).sum();
            most = most.max(count);
        }
    }
    assert!((40_000..=200_000).contains(&most), "{most} are remembered");
    let knows = |id: &i64| {
        let partition = topics.partition(at(*id)).unwrap();
        partition.producers().by_id().contains_key(&ProducerId(*id))
    };
    assert!(open.iter().all(knows), "those with an open transaction");
    let active = PRODUCERS - KEPT_MS_MIN / step_ms..PRODUCERS;
    assert!(active.into_iter().all(|id| knows(&id)), "those that lately wrote something");
    let mut counted = topics.clone();
    counted.count_partitions();
    assert_eq!(counted, topics);
}
