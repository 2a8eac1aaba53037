//! Transactions to draw: three transactional ids, and what their clients do with them.
//!
//! What is drawn of a producer, of the number of a transaction and of a sequence is how far it lies
//! from what would be right, nothing most of the time; [`inform`] makes of it what is proposed.

use std::collections::BTreeMap;

use odradek_protocol::id::{ProducerId, TopicPartition};
use proptest::collection::vec;
use proptest::option;
use proptest::prelude::*;

use super::groups::{committed_offset, committer, group, office};
use super::{partition, segment_id};
use crate::command::groups::Assignment;
use crate::command::{
    BatchProducer, BatchSummary, BatchTransaction, Command, ProducerIdAndEpoch, Run, StagedOffsets,
    TransactionChange,
};
use crate::state::State;

/// The transactional id of that number.
pub(super) fn name(number: i64) -> String {
    format!("x{number}")
}

fn transactional_id() -> impl Strategy<Value = String> {
    prop_oneof![40 => (0..3_i64).prop_map(name), 1 => Just(String::new()), 1 => Just(name(9))]
}

fn producer() -> impl Strategy<Value = ProducerIdAndEpoch> {
    let id = prop_oneof![40 => Just(0_i64), 1 => Just(1), 1 => any::<i64>()];
    (id, epoch()).prop_map(|(id, epoch)| ProducerIdAndEpoch { id: ProducerId(id), epoch })
}

/// Who has no answer yet, and asks again.
fn late_producer() -> impl Strategy<Value = ProducerIdAndEpoch> {
    producer().prop_map(|it| ProducerIdAndEpoch { epoch: -1, ..it })
}

fn epoch() -> impl Strategy<Value = i16> {
    prop_oneof![40 => Just(0_i16), 3 => Just(-1), 1 => Just(1), 1 => any::<i16>()]
}

fn number() -> impl Strategy<Value = u64> {
    prop_oneof![24 => Just(0_u64), 2 => 1..4_u64, 1 => any::<u64>()]
}

pub(super) fn init() -> impl Strategy<Value = TransactionChange> {
    let timeout_ms = prop_oneof![24 => 1..100_000_u32, 1 => Just(0)];
    (timeout_ms, option::weighted(0.6, prop_oneof![producer(), late_producer()]))
        .prop_map(|(timeout_ms, expected)| TransactionChange::InitProducer { timeout_ms, expected })
}

fn add() -> impl Strategy<Value = TransactionChange> {
    let head = (producer(), number());
    (head, vec(partition(), 0..3), vec(group(), 0..3)).prop_map(|(head, added, groups)| {
        let mut partitions = Assignment::new();
        for TopicPartition { topic, partition } in added {
            partitions.entry(topic).or_default().insert(partition);
        }
        let (producer, transaction) = head;
        TransactionChange::Add { producer, transaction, partitions, groups }
    })
}

fn stage() -> impl Strategy<Value = TransactionChange> {
    let head = (producer(), number(), prop::bool::weighted(0.4));
    let rest = (group(), office(), option::weighted(0.2, committer()));
    (head, rest, vec(committed_offset(), 0..3)).prop_map(|(head, rest, offsets)| {
        let (producer, transaction, is_implicit) = head;
        let (group, office, committer) = rest;
        TransactionChange::StageOffsets(StagedOffsets {
            producer,
            transaction,
            is_implicit,
            group,
            office,
            committer,
            offsets,
        })
    })
}

fn end() -> impl Strategy<Value = TransactionChange> {
    let producer = prop_oneof![4 => producer(), 1 => late_producer()];
    (producer, number(), prop::bool::weighted(0.6), any::<bool>()).prop_map(
        |(producer, transaction, commits, bumps_epoch)| TransactionChange::End {
            producer,
            transaction,
            commits,
            bumps_epoch,
        },
    )
}

pub(super) fn change_transaction() -> impl Strategy<Value = Command> {
    let abort = number().prop_map(|transaction| TransactionChange::Abort { transaction });
    let change = prop_oneof![2 => init(), 4 => add(), 6 => stage(), 6 => end(), 1 => abort];
    (transactional_id(), change).prop_map(|(transactional_id, change)| Command::ChangeTransaction {
        transactional_id,
        change,
    })
}

/// A segment with nothing wrong with it but what its producers do.
pub(super) fn commit() -> impl Strategy<Value = Command> {
    let run = (partition(), 0..4000_u64, 37..1000_u32, vec(batch(), 1..4));
    let run = run.prop_map(|(partition, position, stored_bytes, batches)| Run {
        partition,
        position,
        stored_bytes,
        batches,
    });
    (segment_id(), vec(run, 1..3)).prop_map(|(segment, runs)| Command::CommitSegment {
        segment,
        bytes: 5000,
        runs,
    })
}

pub(super) fn batch() -> impl Strategy<Value = BatchSummary> {
    let producer = (0..3_i64, epoch(), 0..10_i32, in_transaction(6)).prop_map(
        |(id, epoch, base_sequence, transaction)| {
            let id = ProducerId(id);
            BatchProducer { id, epoch, base_sequence, transaction }
        },
    );
    (61..200_u32, 1..4_u32, 0..100_i64, option::weighted(0.8, producer)).prop_map(
        |(bytes, records, max_timestamp, producer)| BatchSummary {
            bytes,
            records,
            max_timestamp,
            producer,
        },
    )
}

pub(super) fn in_transaction(weight: u32) -> impl Strategy<Value = BatchTransaction> {
    prop_oneof![
        2 => Just(BatchTransaction::None),
        weight => Just(BatchTransaction::Implicit),
        weight => Just(BatchTransaction::Added),
    ]
}

/// Makes of what was drawn what somebody proposes who sees `state`.
pub(super) fn inform(command: &mut Command, state: &State) {
    match command {
        Command::ChangeTransaction { transactional_id, change } => {
            inform_change(transactional_id, change, state);
        }
        Command::CommitSegment { runs, .. } => {
            let mut next = BTreeMap::new();
            for run in runs {
                let partition = run.partition;
                run.batches.iter_mut().for_each(|it| inform_batch(partition, it, &mut next, state));
            }
        }
        _ => {}
    }
}

fn shifted(producer: ProducerIdAndEpoch, by: ProducerIdAndEpoch) -> ProducerIdAndEpoch {
    let id = ProducerId(producer.id.0.wrapping_add(by.id.0));
    ProducerIdAndEpoch { id, epoch: producer.epoch.wrapping_add(by.epoch) }
}

fn inform_change(id: &str, change: &mut TransactionChange, state: &State) {
    if let TransactionChange::StageOffsets(staged) = change {
        staged.office = state.offices_changed();
    }
    let Some(found) = state.transactions().get(id) else { return };
    if let TransactionChange::StageOffsets(staged) = change
        && !staged.is_implicit
        && let Some((group, _)) = found.ongoing().and_then(|it| it.groups.last_key_value())
    {
        staged.group.clone_from(group);
    }
    match change {
        TransactionChange::InitProducer { expected, .. } => {
            *expected = expected.map(|it| shifted(found.producer, it));
        }
        TransactionChange::Add { producer, transaction, .. }
        | TransactionChange::End { producer, transaction, .. }
        | TransactionChange::StageOffsets(StagedOffsets { producer, transaction, .. }) => {
            *producer = shifted(found.producer, *producer);
            *transaction = found.transaction.wrapping_sub(*transaction);
        }
        TransactionChange::Abort { transaction } => {
            *transaction = found.transaction.wrapping_sub(*transaction);
        }
    }
}

/// `next` has the sequences behind those of the batches before.
fn inform_batch(
    at: TopicPartition,
    batch: &mut BatchSummary,
    next: &mut BTreeMap<(TopicPartition, ProducerIdAndEpoch), i32>,
    state: &State,
) {
    let Some(producer) = &mut batch.producer else { return };
    let Some(found) = state.transactions().get(&name(producer.id.0)) else { return };
    if producer.transaction == BatchTransaction::None {
        return;
    }
    // Half of those who would forget to add the partition do not.
    let is_in = found.ongoing().is_some_and(|it| it.partitions.contains_key(&at));
    if !is_in && producer.base_sequence % 2 == 0 {
        producer.transaction = BatchTransaction::Implicit;
    }
    producer.id = found.producer.id;
    producer.epoch = found.producer.epoch.wrapping_add(producer.epoch);
    let seen = state.partition(at).and_then(|it| it.producers().by_id().get(&producer.id));
    let seen = seen.filter(|it| it.epoch == producer.epoch).and_then(|it| it.batches.back());
    let next = next.entry((at, producer.id_and_epoch()));
    let next = next.or_insert_with(|| seen.map_or(0, |it| it.last.wrapping_add(1)));
    match (producer.base_sequence, seen) {
        (8, Some(seen)) => {
            producer.base_sequence = seen.first;
            batch.records = u32::try_from(seen.last - seen.first + 1).unwrap_or(1);
        }
        (9, _) => producer.base_sequence = *next + 1,
        _ => {
            producer.base_sequence = *next;
            *next += i32::try_from(batch.records).unwrap_or(0);
        }
    }
}
