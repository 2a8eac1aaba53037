//! What is read back is what was written, or it is refused.

use std::collections::BTreeSet;

use bytes::Bytes;
use proptest::prelude::*;
use proptest::sample::Index;
use prost::Message;

use super::{SNAPSHOT_FORMAT, snapshot_key, snapshot_lsn, wire};
use crate::command::Digest;
use crate::command::codec::CodecError;
use crate::envelope::EnvelopeError;
use crate::golden;
use crate::lsn::Lsn;
use crate::state::State;
use crate::state::partition::{Content, Partition};

/// The snapshot of a state with everything in it, changed.
fn changed(change: impl FnOnce(&mut wire::Snapshot)) -> Bytes {
    let (_, payload) = SNAPSHOT_FORMAT.open(&golden::full_state().to_snapshot().0).unwrap();
    let mut snapshot = wire::Snapshot::decode(payload).unwrap();
    change(&mut snapshot);
    SNAPSHOT_FORMAT.seal(&snapshot.encode_to_vec())
}

fn refusal(change: impl FnOnce(&mut wire::Snapshot)) -> CodecError {
    State::from_snapshot(&changed(change)).unwrap_err()
}

#[test]
fn an_empty_state_has_a_snapshot() {
    let (bytes, digest) = State::new().to_snapshot();
    let state = State::from_snapshot(&bytes).unwrap();
    assert_eq!(state, State::new());
    assert_eq!(state.digest(), digest);
}

fn partitions(state: &mut State) -> impl Iterator<Item = &mut Partition> {
    state.topics.by_id.values_mut().flat_map(|topic| &mut topic.partitions)
}

/// Which the samples of this release must have, or nothing is said of how they are stored.
#[test]
fn the_state_of_the_samples_has_lived() {
    let state = golden::full_state();
    let of = |content: fn(&Content) -> bool| {
        let partitions = state.topics().flat_map(|topic| &topic.partitions);
        partitions.flat_map(Partition::extents).filter(|it| content(&it.content)).count()
    };
    assert!(of(|it| matches!(it, Content::Merged(_))) >= 2);
    assert!(of(|it| matches!(it, Content::Gap)) >= 1);
    let kept = state.deleted_topics().values().next().unwrap();
    assert_eq!(state.deleted_topics().len(), 1);
    assert!(kept.topic.partitions[0].extents().any(|it| it.location().is_some()));
    let origins = state.topics().flat_map(|topic| &topic.partitions).map(|it| it.origins.len());
    assert_eq!(origins.max(), Some(2), "one is the branch of a branch");
    let segments = state.segments();
    let levels: BTreeSet<u8> = segments.referenced().values().map(|it| it.level).collect();
    assert_eq!(levels, [0, 1, 2].into());
    assert_eq!(segments.referenced().values().filter(|it| it.inline.is_some()).count(), 1);
    assert_eq!(segments.unreferenced().len(), 1);
    assert!(segments.horizon() > Lsn::ZERO && segments.inline_bytes() > 0);
}

#[test]
fn a_snapshot_whose_topics_have_not_lived_so_is_refused() {
    let nameless = |it: &mut wire::Snapshot| it.deleted[0].topic = None;
    assert_eq!(refusal(nameless), CodecError::Field("deleted"));
    let twice = |it: &mut wire::Snapshot| it.deleted.push(it.deleted[0].clone());
    assert_eq!(refusal(twice), CodecError::NotCanonical);
    assert_eq!(refusal(|it| it.segments[0].level = 256), CodecError::Field("level"));
    let origin = |it: &mut wire::Snapshot| {
        let partitions = it.topics.iter_mut().flat_map(|topic| &mut topic.partitions);
        let mut origins = partitions.flat_map(|it| &mut it.origins);
        origins.next().expect("the state has a branch").topic.truncate(15);
    };
    assert_eq!(refusal(origin), CodecError::Field("topic"));
    // What a kept topic shares with nobody else is referred to by nobody else.
    assert_eq!(refusal(|it| it.deleted.clear()), CodecError::Field("references"));
    let both = |it: &mut wire::Snapshot| {
        let extents = it.topics.iter_mut().flat_map(|topic| &mut topic.partitions);
        let mut gaps = extents.flat_map(|it| &mut it.extents).filter(|it| it.is_gap);
        gaps.next().expect("the state has a gap").is_merged = true;
    };
    assert_eq!(refusal(both), CodecError::NotCanonical);
}

#[test]
fn any_change_to_the_state_changes_its_digest() {
    let state = golden::full_state();
    let changes: [fn(&mut State); 23] = [
        |it| it.level += 1,
        |it| it.last_hash.0 += 1,
        |it| it.log_time_ms += 1,
        |it| it.next_producer_id += 1,
        |it| it.brokers.last_node_id += 1,
        |it| it.brokers.left.clear(),
        |it| it.groups.by_name.clear(),
        |it| it.groups.last_revision += 1,
        |it| it.configs.groups.clear(),
        |it| it.topics.changed = it.topics.changed.next(),
        |it| it.configs.cluster.clear(),
        |it| it.transactions.last_number += 1,
        |it| it.transactions.purge_at += 1,
        |it| it.topics.purge_producers_at += 1,
        |it| it.segments.horizon = it.segments.horizon.next(),
        |it| it.segments.unreferenced.clear(),
        |it| it.topics.deleted.clear(),
        |it| it.topics.deleted.values_mut().for_each(|it| it.since = it.since.next()),
        |it| it.topics.deleted.values_mut().for_each(|it| it.since_ms += 1),
        |it| partitions(it).for_each(|it| it.cleaned.0 += 1),
        |it| partitions(it).for_each(|it| it.origins.clear()),
        |it| it.segments.referenced.values_mut().for_each(|it| it.level += 1),
        |it| it.transactions.by_id.get_mut("fresh").unwrap().timeout_ms = 1,
    ];
    for (number, change) in changes.into_iter().enumerate() {
        let mut other = state.clone();
        change(&mut other);
        assert_ne!(other.digest(), state.digest(), "change {number}");
    }
}

#[test]
fn what_a_later_release_added_is_refused_rather_than_lost() {
    let mut payload = SNAPSHOT_FORMAT.open(&changed(|_| ())).unwrap().1.to_vec();
    // Tag 100, the number 1.
    payload.extend_from_slice(&[0xa0, 0x06, 0x01]);
    let refused = State::from_snapshot(&SNAPSHOT_FORMAT.seal(&payload));
    assert_eq!(refused, Err(CodecError::NotCanonical));
}

#[test]
fn a_snapshot_that_contradicts_itself_is_refused() {
    assert_eq!(State::from_snapshot(&changed(|_| ())), Ok(golden::full_state()));
    assert_eq!(refusal(|it| it.topics.reverse()), CodecError::NotCanonical);
    assert_eq!(refusal(|it| it.brokers.reverse()), CodecError::NotCanonical);
    assert_eq!(refusal(|it| it.segments[0].references += 1), CodecError::Field("references"));
    assert_eq!(refusal(|it| it.segments.clear()), CodecError::Field("segment"));
    let end = |it: &mut wire::Snapshot| it.topics[0].partitions[0].high_watermark += 1;
    assert_eq!(refusal(end), CodecError::Field("high_watermark"));
    let empty = |it: &mut wire::Snapshot| it.topics[0].partitions[0].extents[0].records = 0;
    assert_eq!(refusal(empty), CodecError::Field("records"));
    // Of partition 0 an extent is left that begins below the log start offset, of the other topic's
    // partition 0 nothing.
    for log_start in [-1, 6, 7] {
        let moved = |it: &mut wire::Snapshot| it.topics[0].partitions[0].log_start = log_start;
        assert_eq!(refusal(moved), CodecError::Field("log_start"));
    }
    let unfounded = |it: &mut wire::Snapshot| it.topics[1].partitions[0].log_start = 0;
    assert_eq!(refusal(unfounded), CodecError::Field("log_start"));
    assert_eq!(refusal(give_away_twice), CodecError::Field("assigned"));
    assert_eq!(refusal(|it| it.groups.reverse()), CodecError::NotCanonical);
    assert_eq!(refusal(|it| it.log_id.truncate(3)), CodecError::Field("log_id"));
    assert_eq!(
        refusal(|it| it.brokers[0].address.as_mut().unwrap().port = 70_000),
        CodecError::Field("port")
    );
}

#[test]
fn a_snapshot_whose_transactions_contradict_its_partitions_is_refused() {
    let open = |it: &mut wire::Snapshot| {
        let ids = it.transactions.iter().position(|it| it.id == "open");
        ids.expect("the state has an open transaction")
    };
    let refused = |change: fn(&mut wire::Transactional)| {
        refusal(|it| {
            let open = open(it);
            change(&mut it.transactions[open]);
        })
    };
    assert_eq!(refusal(|it| it.transactions.reverse()), CodecError::NotCanonical);
    assert_eq!(refused(|it| it.phase = 4), CodecError::Field("phase"));
    assert_eq!(refused(|it| it.phase = 0), CodecError::Field("phase"));
    assert_eq!(refused(|it| it.phase = 2), CodecError::Field("phase"));
    assert_eq!(refused(|it| it.ongoing = None), CodecError::Field("phase"));
    assert_eq!(refused(|it| it.producer = None), CodecError::Field("producer"));
    let epoch = |it: &mut wire::Transactional| it.producer.as_mut().unwrap().epoch = 70_000;
    assert_eq!(refused(epoch), CodecError::Field("epoch"));
    let gone =
        |it: &mut wire::Transactional| it.ongoing.as_mut().unwrap().partitions[0].partition = 9;
    assert_eq!(refused(gone), CodecError::Field("partition"));
    let twice = |it: &mut wire::Snapshot| {
        let open = open(it);
        let mut other = it.transactions[open].clone();
        other.id = "opened".to_owned();
        other.producer.as_mut().unwrap().id += 500;
        it.transactions.insert(open + 1, other);
    };
    assert_eq!(refusal(twice), CodecError::Field("first"));
    let same = |it: &mut wire::Snapshot| it.transactions[0].producer = it.transactions[1].producer;
    assert_eq!(refusal(same), CodecError::Field("producer"));
    let ahead = |it: &mut wire::Transactional| {
        let partitions = &mut it.ongoing.as_mut().unwrap().partitions;
        partitions.iter_mut().filter_map(|it| it.first.as_mut()).for_each(|first| *first += 100);
    };
    assert_eq!(refused(ahead), CodecError::Field("first"));
    let disordered = |it: &mut wire::Snapshot| {
        let mut partitions = it.topics.iter_mut().flat_map(|topic| &mut topic.partitions);
        let aborted = partitions.find(|it| !it.aborted.is_empty()).map(|it| &mut it.aborted);
        let aborted = aborted.expect("the state has an aborted transaction");
        aborted.push(wire::Aborted { last: aborted[0].last - 1, ..aborted[0] });
    };
    assert_eq!(refusal(disordered), CodecError::Field("aborted"));
    let marker = |it: &mut wire::Snapshot| {
        let extents = it.topics.iter_mut().flat_map(|topic| &mut topic.partitions);
        let mut markers =
            extents.flat_map(|it| &mut it.extents).filter_map(|it| it.marker.as_mut());
        markers.next().expect("the state has a marker").producer = None;
    };
    assert_eq!(refusal(marker), CodecError::Field("producer"));
}

/// To the second member what the first one has.
fn give_away_twice(snapshot: &mut wire::Snapshot) {
    let members = snapshot.groups.iter_mut().find_map(|group| match &mut group.membership {
        Some(wire::Membership::Consumer(consumer)) => Some(&mut consumer.members),
        _ => None,
    });
    let members = members.unwrap();
    let revoking = members[0].current.as_ref().unwrap().revoking.clone();
    assert!(!revoking.is_empty());
    members[1].current.as_mut().unwrap().assigned = revoking;
}

#[test]
fn what_is_gone_and_what_straddles_is_read_back() {
    let state = golden::full_state();
    let first = |index: usize| {
        let topic = state.topics.by_id.values().nth(index).unwrap();
        let partition = &topic.partitions[0];
        let base = partition.extents().next().map(|extent| extent.base.0);
        (partition.log_start.0, partition.high_watermark.0, base)
    };
    assert_eq!([first(0), first(1)], [(4, 12, Some(0)), (7, 7, None)]);
    assert_eq!(State::from_snapshot(&state.to_snapshot().0), Ok(state));
}

#[test]
fn a_damaged_snapshot_is_refused() {
    let (bytes, _) = golden::full_state().to_snapshot();
    for at in 0..bytes.len() {
        let mut damaged = bytes.to_vec();
        damaged[at] ^= 0x10;
        assert!(State::from_snapshot(&damaged.into()).is_err(), "byte {at}");
    }
    let cut = State::from_snapshot(&bytes.slice(..bytes.len() - 1)).unwrap_err();
    assert!(matches!(cut, CodecError::Envelope(EnvelopeError::Truncated { .. })));
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(2000))]

    /// Under a checksum that fits.
    #[test]
    fn no_payload_makes_reading_panic_or_is_read_as_something_else(
        changes in prop::collection::vec((any::<Index>(), any::<u8>()), 1..4),
        noise in prop::collection::vec(any::<u8>(), 0..64),
    ) {
        let (_, payload) = SNAPSHOT_FORMAT.open(&changed(|_| ())).unwrap();
        let mut payload = payload.to_vec();
        for (at, byte) in changes {
            let at = at.index(payload.len());
            payload[at] = byte;
        }
        for payload in [payload, noise] {
            let sealed = SNAPSHOT_FORMAT.seal(&payload);
            if let Ok(state) = State::from_snapshot(&sealed) {
                prop_assert_eq!(state.to_snapshot().0, sealed);
            }
        }
    }
}

#[test]
fn the_newest_snapshot_is_the_last_of_a_listing() {
    let positions = [0, 9, 10, 99_999, u64::MAX].map(Lsn::new);
    let keys = positions.map(|lsn| snapshot_key(lsn, Digest(u64::MAX - lsn.get())));
    assert!(keys.is_sorted());
    assert_eq!(keys.each_ref().map(snapshot_lsn), positions.map(Some));
}
