//! What every metadata log must keep, whatever it is made of.
//!
//! Owns the promises LOG-1 to LOG-5 as tests; each panics at the first one broken. `check` asks for
//! a log that answers every call; `check_despite_faults` asserts only what no fault excuses.

#![expect(clippy::unwrap_used, reason = "a suite panics at the first broken promise")]

use std::collections::BTreeMap;
use std::num::NonZeroUsize;

use bytes::Bytes;
use tokio::task::JoinSet;

use super::{Append, ENTRY_BYTES_MAX, Freshness, LogRead, Lsn, MetadataLog, Slot};
use crate::port::PortError;

const RACERS: u64 = 16;
const ROUNDS: u64 = 20;

/// Calls that are repeated before a faulty log is given up.
const ATTEMPTS: usize = 10_000;

/// Checks logs that answer every call.
///
/// `fresh` makes an empty log; clones of a log are handles on the same entries.
pub async fn check<L: MetadataLog + Clone + 'static>(mut fresh: impl FnMut() -> L) {
    entries_come_back_in_order(&fresh()).await;
    a_slot_is_won_once(&fresh()).await;
    a_hole_is_refused(&fresh()).await;
    the_longest_entry_is_taken_and_a_longer_one_refused(&fresh()).await;
    the_trimmed_stays_trimmed(&fresh()).await;
    an_empty_log_can_be_trimmed_to_its_tail(&fresh()).await;
    a_log_trimmed_to_its_tail_goes_on_there(&fresh()).await;
    one_racer_wins_a_slot(&fresh()).await;
}

/// Checks a log whose calls may fail, late and ambiguously: writers that repeat an unanswered
/// append until it is answered lose nothing and write nothing twice.
pub async fn check_despite_faults<L: MetadataLog + Clone + 'static>(log: L) {
    let mut writers = JoinSet::new();
    for writer in 0..4 {
        writers.spawn(write_despite_faults(log.clone(), writer));
    }
    let mut committed: BTreeMap<Lsn, Bytes> = BTreeMap::new();
    for (lsn, entry) in writers.join_all().await.into_iter().flatten() {
        let other = committed.insert(lsn, entry);
        assert_eq!(other, None, "LOG-1: {lsn} was won twice");
    }
    let found = read_all(&log, Lsn::FIRST).await;
    let expected: Vec<Slot> =
        committed.into_iter().map(|(lsn, bytes)| Slot { lsn, bytes }).collect();
    assert_eq!(found, expected, "LOG-3, LOG-4: what was won is what is read");
}

/// Writes [`ROUNDS`] entries the way the trait tells callers to; gives the slots they are in.
async fn write_despite_faults<L: MetadataLog>(log: L, writer: u64) -> Vec<(Lsn, Bytes)> {
    let mut at = Lsn::FIRST;
    let mut won = Vec::new();
    for number in 0..ROUNDS {
        let entry = Bytes::from(format!("entry {number} of writer {writer}"));
        loop {
            let found = answered(&log, at, &entry).await;
            let slot = at;
            at = at.next();
            if found == entry {
                won.push((slot, entry));
                break;
            }
        }
    }
    won
}

/// What slot `at` holds, once the log has said so.
async fn answered<L: MetadataLog>(log: &L, at: Lsn, entry: &Bytes) -> Bytes {
    for _ in 0..ATTEMPTS {
        match log.append(at, entry.clone()).await {
            Ok(Append::Committed) => return entry.clone(),
            Ok(Append::Taken(found)) => return found,
            Ok(Append::Trimmed) => panic!("LOG-5: {at} is trimmed, and nobody trimmed"),
            Err(PortError::Determinate(_) | PortError::Indeterminate(_)) => {}
            Err(error @ PortError::Broken(_)) => panic!("{error}"),
        }
    }
    panic!("{at} got no answer");
}

async fn entries_come_back_in_order<L: MetadataLog + Clone>(log: &L) {
    let other = log.clone();
    assert_eq!(log.tail().await.unwrap(), Lsn::FIRST);
    assert_eq!(read(log, Lsn::FIRST, 9).await, empty());
    let entries: Vec<Slot> = (1..=9).map(|number| slot(number, number * 100 - 100)).collect();
    for (count, Slot { lsn, bytes }) in (1..).zip(&entries) {
        assert_eq!(log.append(*lsn, bytes.clone()).await.unwrap(), Append::Committed);
        assert_eq!(other.tail().await.unwrap(), lsn.next(), "LOG-4");
        assert_eq!(read_all(&other, Lsn::FIRST).await, entries[..count], "LOG-4");
    }
    for from in 1..=9 {
        assert_eq!(read_all(log, Lsn::new(from)).await, entries[index(from) - 1..]);
        for limit in 1..=10 {
            let LogRead::Entries { slots: found, at_tail } = read(log, Lsn::new(from), limit).await
            else {
                panic!("{from} is not trimmed")
            };
            let expected = &entries[index(from) - 1..];
            assert!(!found.is_empty() && found.len() <= limit, "{limit} from {from}: {found:?}");
            assert_eq!(found, expected[..found.len()], "{limit} from {from}");
            assert!(!at_tail || found == expected, "{limit} from {from} is not all");
        }
    }
    for past in [10, 11, u64::MAX] {
        assert_eq!(read(log, Lsn::new(past), 9).await, empty());
    }
}

async fn a_slot_is_won_once<L: MetadataLog + Clone>(log: &L) {
    let first = slot(1, 0);
    for entry in [slot(1, 0), slot(2, 70), slot(3, 5000)] {
        let won = log.append(entry.lsn, entry.bytes.clone()).await.unwrap();
        assert_eq!(won, Append::Committed);
        for bytes in [entry.bytes.clone(), Bytes::from_static(b"other")] {
            let taken = log.clone().append(entry.lsn, bytes).await.unwrap();
            assert_eq!(taken, Append::Taken(entry.bytes.clone()), "LOG-1");
        }
    }
    let taken = log.append(first.lsn, Bytes::from_static(b"other")).await.unwrap();
    assert_eq!(taken, Append::Taken(first.bytes));
    assert_eq!(log.tail().await.unwrap(), Lsn::new(4));
}

/// A backend that can't check this cheaply is held to it by its callers, so it may answer
/// `Committed` here; ours all check.
async fn a_hole_is_refused<L: MetadataLog>(log: &L) {
    for at in [2, 3, u64::MAX - 1] {
        let refused = log.append(Lsn::new(at), Bytes::new()).await;
        assert!(matches!(refused, Err(PortError::Determinate(_))), "LOG-2: {refused:?}");
    }
    // Before the first slot there is only what is trimmed.
    assert_eq!(log.append(Lsn::ZERO, Bytes::new()).await.unwrap(), Append::Trimmed);
    assert_eq!(log.tail().await.unwrap(), Lsn::FIRST);
    assert_eq!(read_all(log, Lsn::FIRST).await, []);
}

async fn the_longest_entry_is_taken_and_a_longer_one_refused<L: MetadataLog>(log: &L) {
    let longer = Bytes::from(vec![7; ENTRY_BYTES_MAX + 1]);
    let refused = log.append(Lsn::FIRST, longer).await;
    assert!(matches!(refused, Err(PortError::Determinate(_))), "{refused:?}");
    for number in 1..=12 {
        let Slot { lsn, bytes } = slot(number, index_u64(ENTRY_BYTES_MAX));
        assert_eq!(log.append(lsn, bytes).await.unwrap(), Append::Committed);
    }
    let expected: Vec<Slot> =
        (1..=12).map(|number| slot(number, index_u64(ENTRY_BYTES_MAX))).collect();
    assert!(read_all(log, Lsn::FIRST).await == expected, "long entries come back as they were");
}

async fn the_trimmed_stays_trimmed<L: MetadataLog + Clone>(log: &L) {
    let other = log.clone();
    fill(log, 1..=6).await;
    let past = log.trim(Lsn::new(8)).await;
    assert!(matches!(past, Err(PortError::Determinate(_))), "{past:?}");
    assert_eq!(read_all(log, Lsn::FIRST).await.len(), 6);
    for (before, floor) in [(1, 1), (4, 4), (4, 4), (2, 4), (0, 4), (5, 5)] {
        log.trim(Lsn::new(before)).await.unwrap();
        for below in 0..floor {
            let below = Lsn::new(below);
            assert_eq!(read(&other, below, 9).await, LogRead::Trimmed(Lsn::new(floor)), "LOG-5");
            let late = other.append(below, Bytes::from_static(b"late")).await.unwrap();
            assert_eq!(late, Append::Trimmed, "LOG-5: {below}");
        }
        let left: Vec<Slot> = (floor..=6).map(|number| slot(number, 60)).collect();
        assert_eq!(read_all(&other, Lsn::new(floor)).await, left);
        assert_eq!(other.tail().await.unwrap(), Lsn::new(7));
    }
    fill(&other, 7..=7).await;
    assert_eq!(read_all(log, Lsn::new(5)).await.len(), 3);
}

async fn an_empty_log_can_be_trimmed_to_its_tail<L: MetadataLog>(log: &L) {
    log.trim(Lsn::ZERO).await.unwrap();
    log.trim(Lsn::FIRST).await.unwrap();
    assert_eq!(read_all(log, Lsn::FIRST).await, []);
    fill(log, 1..=1).await;
}

async fn a_log_trimmed_to_its_tail_goes_on_there<L: MetadataLog>(log: &L) {
    fill(log, 1..=3).await;
    log.trim(Lsn::new(4)).await.unwrap();
    assert_eq!(log.tail().await.unwrap(), Lsn::new(4));
    assert_eq!(read(log, Lsn::new(3), 9).await, LogRead::Trimmed(Lsn::new(4)));
    assert_eq!(read_all(log, Lsn::new(4)).await, []);
    fill(log, 4..=5).await;
    assert_eq!(read_all(log, Lsn::new(4)).await, [slot(4, 60), slot(5, 60)]);
}

async fn one_racer_wins_a_slot<L: MetadataLog + Clone + 'static>(log: &L) {
    for round in 1..=ROUNDS {
        let at = Lsn::new(round);
        let mut racers = JoinSet::new();
        for racer in 0..RACERS {
            let log = log.clone();
            racers.spawn(async move {
                let bytes = Bytes::from(format!("racer {racer} in round {round}"));
                (log.append(at, bytes.clone()).await.unwrap(), bytes)
            });
        }
        let answers = racers.join_all().await;
        let won: Vec<_> =
            answers.iter().filter(|(answer, _)| *answer == Append::Committed).collect();
        assert_eq!(won.len(), 1, "LOG-1: {answers:?}");
        let winner = won[0].1.clone();
        for (answer, bytes) in answers {
            assert!(bytes == winner || answer == Append::Taken(winner.clone()), "{answer:?}");
        }
        assert_eq!(read_all(log, at).await, [Slot { lsn: at, bytes: winner }]);
    }
}

/// All entries from `from` to the tail, as many reads as it takes.
async fn read_all<L: MetadataLog>(log: &L, from: Lsn) -> Vec<Slot> {
    let mut slots: Vec<Slot> = Vec::new();
    let mut failures = 0;
    loop {
        let next = slots.last().map_or(from, |slot| slot.lsn.next());
        match log.read(next, NonZeroUsize::MAX, Freshness::Latest).await {
            Ok(LogRead::Entries { slots: found, .. }) if found.is_empty() => return slots,
            Ok(LogRead::Entries { slots: found, .. }) => {
                for (slot, expected) in found.iter().zip(next.get()..) {
                    assert_eq!(slot.lsn, Lsn::new(expected), "LOG-2: entries are dense");
                }
                slots.extend(found);
            }
            Ok(LogRead::Trimmed(floor)) => panic!("{next} is below the floor {floor}"),
            Err(error) => {
                failures += 1;
                assert!(failures < ATTEMPTS, "{error}");
            }
        }
    }
}

async fn read<L: MetadataLog>(log: &L, from: Lsn, limit: usize) -> LogRead {
    let limit = NonZeroUsize::new(limit).expect("limits are not zero");
    log.read(from, limit, Freshness::Latest).await.unwrap()
}

async fn fill<L: MetadataLog>(log: &L, numbers: std::ops::RangeInclusive<u64>) {
    for number in numbers {
        let Slot { lsn, bytes } = slot(number, 60);
        assert_eq!(log.append(lsn, bytes).await.unwrap(), Append::Committed);
    }
}

fn empty() -> LogRead {
    LogRead::Entries { slots: Vec::new(), at_tail: true }
}

/// An entry whose bytes differ from those of every other slot.
fn slot(number: u64, length: u64) -> Slot {
    let byte = u8::try_from(number % 251).expect("a remainder of 251 is a byte");
    Slot { lsn: Lsn::new(number), bytes: vec![byte; index(length)].into() }
}

fn index(number: u64) -> usize {
    usize::try_from(number).expect("numbers of the suite are small")
}

fn index_u64(number: usize) -> u64 {
    u64::try_from(number).expect("numbers of the suite are small")
}
