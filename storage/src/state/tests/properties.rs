//! Promises for every log there could be.

use std::collections::BTreeMap;
use std::slice;

use bytes::Bytes;
use odradek_protocol::id::{Offset, ProducerId, TopicId, TopicPartition};
use proptest::prelude::*;
use proptest::sample::Index;
use uuid::Uuid;

use super::chain::{self, Chain, begun, create_topic, propose};
use super::model::{Model, without_texts};
use super::strategies::{self, Numbers, Step};
use crate::command::{
    BatchOutcome, BatchProducer, BatchSummary, BatchTransaction, Command, Entry, EntryHash,
    Incarnation, Outcome, Proposal, Rejection, Replacement, RunOutcome,
};
use crate::lsn::Lsn;
use crate::segment::builder::{PendingBatch, SegmentBuilder};
use crate::segment::{SegmentId, open_block};
use crate::state::recount::recount;
use crate::state::{Applied, Halt, State};

/// The entries that the steps become, from the first of the log on.
pub(super) fn entries(steps: &[Step]) -> Vec<(Entry, EntryHash)> {
    let (mut chain, mut state, first) = begun();
    let mut numbers = Numbers::default();
    let mut time_ms = chain::START_MS;
    let mut entries = vec![(first, chain.previous)];
    let mut states = Vec::new();
    for step in steps {
        time_ms = time_ms.saturating_add(step.passed_ms);
        states.push(state.clone());
        let proposals = numbers.number(&step.clone().informed_by(&states));
        let (entry, hash) = chain.write(step.by, time_ms, proposals);
        state.apply(&entry, hash).unwrap();
        entries.push((entry, hash));
    }
    entries
}

/// All that anybody wants to have replaced.
fn replacements(entries: &[(Entry, EntryHash)]) -> impl Iterator<Item = &Replacement> {
    let proposals = entries.iter().flat_map(|(entry, _)| &entry.proposals);
    proposals.flat_map(|proposal| match &proposal.command {
        Command::ReplaceExtents { replacements, .. }
        | Command::ReplaceByFooter { replacements: Some(replacements), .. } => {
            replacements.as_slice()
        }
        _ => &[],
    })
}

fn replay(state: &mut State, entries: &[(Entry, EntryHash)]) -> Vec<Applied> {
    entries.iter().map(|(entry, hash)| state.apply(entry, *hash).unwrap()).collect()
}

fn reloaded(state: &State) -> State {
    let (bytes, digest) = state.to_snapshot();
    let read_back = State::from_snapshot(&bytes).unwrap();
    assert_eq!(read_back, *state);
    assert_eq!(read_back.to_snapshot(), (bytes, digest));
    assert_eq!(read_back.digest(), digest);
    read_back
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(400))]

    #[test]
    fn the_state_says_what_a_naive_model_says(steps in strategies::steps(40)) {
        let (_, mut state, _) = begun();
        let mut model = Model::begun();
        for (entry, hash) in &entries(&steps)[1..] {
            let before = state.clone();
            let applied = state.apply(entry, *hash).unwrap();
            prop_assert_eq!(without_texts(applied.outcomes), model.apply(entry));
            recount(&before, entry, &state);
            model.compare(&state);
        }
    }

    #[test]
    fn a_footer_is_needed_where_its_segment_is_taken_and_nowhere_else(
        steps in prop_oneof![
            strategies::steps(40),
            strategies::transaction_steps(30),
            strategies::life_steps(30),
        ],
    ) {
        let (_, mut state, _) = begun();
        for (entry, hash) in &entries(&steps)[1..] {
            let mut other = state.clone();
            let tried = other.apply(&strategies::without_footers(entry.clone()), *hash);
            let is_needed = matches!(tried, Err(Halt::NoFooter { .. }));
            if is_needed {
                prop_assert_eq!(&other, &state);
            }
            let applied = state.apply(entry, *hash).unwrap();
            let is_taken = |(proposal, outcome): (&Proposal, &Outcome)| {
                let is_taken =
                    matches!(outcome, Outcome::SegmentCommitted(_) | Outcome::ExtentsReplaced(_));
                is_taken && proposal.command.footer().is_some()
            };
            let taken = entry.proposals.iter().zip(&applied.outcomes).any(is_taken);
            prop_assert_eq!(is_needed, taken);
            if !is_needed {
                prop_assert_eq!(tried, Ok(applied));
                prop_assert_eq!(&other, &state);
            }
        }
    }

    #[test]
    fn a_snapshot_anywhere_and_the_tail_are_the_whole_log(
        steps in prop_oneof![
            strategies::steps(30),
            strategies::transaction_steps(30),
            strategies::life_steps(30),
        ],
        cuts in prop::collection::vec(any::<Index>(), 0..4),
    ) {
        let entries = entries(&steps);
        let mut whole = State::new();
        let outcomes = replay(&mut whole, &entries);
        let mut pieces = State::new();
        let mut cut_outcomes = Vec::new();
        let mut cuts: Vec<usize> = cuts.iter().map(|cut| cut.index(entries.len())).collect();
        cuts.extend([0, entries.len()]);
        cuts.sort_unstable();
        for range in cuts.windows(2) {
            pieces = reloaded(&pieces);
            cut_outcomes.extend(replay(&mut pieces, &entries[range[0]..range[1]]));
        }
        prop_assert_eq!(cut_outcomes, outcomes);
        prop_assert_eq!(&pieces, &whole);
        prop_assert_eq!(reloaded(&pieces).to_snapshot(), whole.to_snapshot());
    }

    #[test]
    fn groups_are_what_a_naive_model_says(steps in strategies::group_steps(40)) {
        let (_, mut state, _) = begun();
        let mut model = Model::begun();
        for (entry, hash) in &entries(&steps)[1..] {
            let before = state.clone();
            let applied = state.apply(entry, *hash).unwrap();
            prop_assert_eq!(without_texts(applied.outcomes), model.apply(entry));
            recount(&before, entry, &state);
            model.compare(&state);
        }
        prop_assert_eq!(&reloaded(&state), &state);
    }

    #[test]
    fn transactions_are_what_a_naive_model_says(steps in strategies::transaction_steps(40)) {
        let (_, mut state, _) = begun();
        let mut model = Model::begun();
        for (entry, hash) in &entries(&steps)[1..] {
            let before = state.clone();
            let applied = state.apply(entry, *hash).unwrap();
            prop_assert_eq!(without_texts(applied.outcomes), model.apply(entry));
            recount(&before, entry, &state);
            model.compare(&state);
        }
        model.compare_reads(&state);
        prop_assert_eq!(&reloaded(&state), &state);
    }

    #[test]
    fn the_life_of_data_is_what_a_naive_model_says(steps in strategies::life_steps(50)) {
        let (_, mut state, _) = begun();
        let mut model = Model::begun();
        let entries = entries(&steps);
        let replacements: Vec<&Replacement> = replacements(&entries).collect();
        for (entry, hash) in &entries[1..] {
            let before = state.clone();
            model.look(&state, replacements.iter().copied());
            let applied = state.apply(entry, *hash).unwrap();
            prop_assert_eq!(without_texts(applied.outcomes), model.apply(entry));
            recount(&before, entry, &state);
            model.compare(&state);
        }
        model.compare_reads(&state);
        prop_assert_eq!(&reloaded(&state), &state);
    }

    #[test]
    fn what_is_rejected_changes_nothing(
        steps in prop_oneof![
            strategies::steps(40),
            strategies::group_steps(40),
            strategies::transaction_steps(40),
            strategies::life_steps(40),
        ],
    ) {
        let (mut chain, mut state, _) = begun();
        let mut numbers = Numbers::default();
        for step in &steps {
            for proposal in numbers.number(&step.clone().informed_by(slice::from_ref(&state))) {
                let mut before = state.clone();
                let applied = chain.apply(&mut state, proposal).unwrap();
                if let Outcome::Rejected(_) | Outcome::Repeated = applied.outcomes[0] {
                    // But that it was heard of, and from whom.
                    before.applied = state.applied;
                    before.last_hash = state.last_hash;
                    before.brokers.clone_from(&state.brokers);
                    prop_assert_eq!(&state, &before);
                    prop_assert!(applied.touched.is_empty());
                }
            }
        }
    }

    #[test]
    fn stored_entries_do_what_the_entries_did(
        steps in prop_oneof![strategies::steps(20), strategies::life_steps(20)],
    ) {
        let entries = entries(&steps);
        let mut read_back = Vec::new();
        for (entry, hash) in &entries {
            let bytes = entry.encode();
            prop_assert_eq!(EntryHash::of(&bytes), *hash);
            let mut stored = Entry::decode(&bytes).unwrap();
            for (stored, whole) in stored.proposals.iter_mut().zip(&entry.proposals) {
                stored.command.fill_from(&whole.command);
            }
            read_back.push((stored, *hash));
        }
        let (mut one, mut other) = (State::new(), State::new());
        prop_assert_eq!(replay(&mut one, &entries), replay(&mut other, &read_back));
        prop_assert_eq!(one.digest(), other.digest());
    }

    #[test]
    fn any_entry_is_applied_whole_or_not_at_all(
        steps in strategies::steps(10),
        strays in prop::collection::vec(strategies::entry(), 1..8),
    ) {
        let mut state = State::new();
        replay(&mut state, &entries(&steps));
        for stray in strays {
            let before = state.clone();
            prop_assert!(state.apply(&stray, EntryHash(1)).is_err());
            prop_assert_eq!(&state, &before);
            // The same nonsense where it would follow.
            let follows = Entry {
                log_id: state.log_id(),
                lsn: state.applied().next(),
                previous: state.last_hash(),
                level: 1,
                digest: None,
                ..stray
            };
            let count = follows.proposals.len();
            let applied = state.apply(&follows, EntryHash::of(&follows.encode())).unwrap();
            prop_assert_eq!(applied.outcomes.len(), count);
            recount(&before, &follows, &state);
            reloaded(&state);
        }
    }

    #[test]
    fn nonsense_can_begin_a_log(stray in strategies::entry()) {
        let first = Entry {
            log_id: Uuid::nil(),
            lsn: Lsn::FIRST,
            previous: EntryHash(0),
            level: 1,
            digest: None,
            ..stray
        };
        let mut state = State::new();
        state.apply(&first, EntryHash(1)).unwrap();
        recount(&State::new(), &first, &state);
        reloaded(&state);
    }

    #[test]
    fn what_was_applied_changes_nothing_a_second_time(
        steps in strategies::steps(12),
        picks in prop::collection::vec(any::<Index>(), 1..40),
    ) {
        let entries = entries(&steps);
        let mut state = State::new();
        let applied = replay(&mut state, &entries);
        let mut chain = Chain {
            log_id: state.log_id(),
            lsn: state.applied(),
            previous: state.last_hash(),
            ..Chain::default()
        };
        let took_effect = |outcome: &Outcome| {
            !matches!(outcome, Outcome::Rejected(Rejection::BrokerFenced(_)))
        };
        let mut again: Vec<Proposal> = Vec::new();
        for ((entry, _), applied) in entries.iter().zip(&applied) {
            let outcomes = entry.proposals.iter().zip(&applied.outcomes);
            again.extend(
                outcomes.filter(|(_, it)| took_effect(it)).map(|(proposal, _)| proposal.clone()),
            );
        }
        for pick in picks {
            let proposal = again[pick.index(again.len())].clone();
            let mut before = state.clone();
            let (entry, hash) = chain.write(Incarnation(77), state.log_time_ms(), vec![proposal]);
            state.apply(&entry, hash).unwrap();
            before.applied = state.applied;
            before.last_hash = state.last_hash;
            prop_assert_eq!(&state, &before);
        }
    }
}

/// A batch to produce: its length, its records, whether it comes compressed, its sequence number.
fn produced() -> impl Strategy<Value = (usize, u32, bool, i32)> {
    (61..3000_usize, 1..5_u32, any::<bool>(), 0..4_i32)
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(64))]

    /// Whatever is rejected around it, a record that was appended is read back as it was sent.
    #[test]
    fn what_was_appended_is_read_back(
        flushes in prop::collection::vec(prop::collection::vec(produced(), 1..8), 1..6),
        zstd_level in prop::option::of(1..4_i32),
    ) {
        let (mut chain, mut state, _) = begun();
        let partition = |index| TopicPartition { topic: topic(), partition: index };
        let create = propose(1, 2, create_topic(partition(0), 2));
        chain.apply(&mut state, create).unwrap();
        let mut expected: [Vec<Bytes>; 2] = Default::default();
        let mut objects = BTreeMap::new();
        for (counter, flush) in (3_u64..).zip(&flushes) {
            let id = SegmentId { began: Lsn::FIRST, incarnation: Incarnation(1), counter };
            let mut builder = SegmentBuilder::default();
            for (number, (length, records, compressed, base_sequence)) in flush.iter().enumerate() {
                let fill = u8::try_from(counter * 16 + u64::try_from(number).unwrap()).unwrap();
                let batch = BatchSummary {
                    bytes: u32::try_from(*length).unwrap(),
                    records: *records,
                    max_timestamp: 0,
                    producer: (*base_sequence < 3).then_some(BatchProducer {
                        id: ProducerId(1),
                        epoch: 0,
                        base_sequence: *base_sequence,
                        transaction: BatchTransaction::None,
                    }),
                };
                let pending = PendingBatch {
                    bytes: vec![fill; *length].into(),
                    summary: batch,
                    compressed: *compressed,
                };
                builder.push(partition(i32::from(fill % 3 == 0)), pending);
            }
            let sealed = builder.seal(id, zstd_level);
            let runs = sealed.blocks.iter().map(|block| block.run.clone()).collect();
            let bytes = u64::try_from(sealed.bytes.len()).unwrap();
            let commit = Command::CommitSegment { segment: id, bytes, runs };
            let applied = chain.apply(&mut state, propose(1, counter, commit)).unwrap();
            let Outcome::SegmentCommitted(outcomes) = &applied.outcomes[0] else {
                panic!("{applied:?}");
            };
            for (block, outcome) in sealed.blocks.iter().zip(outcomes) {
                let RunOutcome::Judged { batches, .. } = outcome else { panic!("{outcome:?}") };
                let mut content = block.content.clone();
                for (batch, outcome) in block.run.batches.iter().zip(batches) {
                    let bytes = content.split_to(usize::try_from(batch.bytes).unwrap());
                    if let BatchOutcome::Appended(_) = outcome {
                        let index = usize::try_from(block.run.partition.partition).unwrap();
                        expected[index].push(bytes);
                    }
                }
            }
            objects.insert(id, sealed.bytes);
        }
        for (index, expected) in (0..).zip(expected) {
            let mut read_back = Vec::new();
            let held = state.partition(partition(index)).unwrap();
            for extent in held.extents_from(Offset::ZERO) {
                let at = extent.location().unwrap();
                let start = usize::try_from(at.position).unwrap();
                let end = start + usize::try_from(at.stored_bytes).unwrap();
                let block = objects[&at.segment].slice(start..end);
                let content = open_block(at.segment, partition(index), at.position, &block);
                let content = content.unwrap();
                let skip = usize::try_from(at.skip).unwrap();
                let bytes = usize::try_from(at.bytes).unwrap();
                read_back.extend_from_slice(&content[skip..skip + bytes]);
            }
            prop_assert_eq!(read_back, expected.concat());
        }
    }
}

fn topic() -> TopicId {
    TopicId(Uuid::from_u128(1))
}
