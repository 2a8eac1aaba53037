//! Any log, any passes over it, some of them broken off: held against what was written.

use std::collections::BTreeMap;

use odradek_protocol::id::{Offset, ProducerId};
use odradek_protocol::record::{Codec, RecordBatch};
use proptest::prelude::*;

use self::log::{Draft, Fact};
use super::filter::{Filter, Left, Rules};
use super::keys::{Aborted, LatestOffsets};
use super::plan;
use crate::state::partition::AbortedTransaction;

mod log;
mod passes;

const RETENTION_MS: i64 = 1_000;

/// What happens to the log.
#[derive(Clone, Debug)]
enum Happening {
    /// Records outside of transactions.
    Write(Draft),
    /// Records in one: of one of three producers.
    WriteIn(i64, Draft),
    /// The end of a transaction, if one is open.
    End(i64, bool),
    /// Time goes by.
    Wait(i64),
    /// A pass over what is there: at most so many keys, not beyond this share of what could be
    /// looked at, and with these of its replacements accepted, in turn.
    Pass { keys_max: usize, percent: i64, accepted: Vec<bool> },
}

#[derive(Default)]
struct World {
    /// The partition, in extents.
    extents: Vec<Vec<RecordBatch>>,
    high_watermark: i64,
    open: BTreeMap<i64, i64>,
    aborted: Vec<AbortedTransaction>,
    cleaned: Offset,
    now_ms: i64,
    /// All that was ever written, and whose transaction it was part of.
    written: Vec<(Fact, Option<i64>)>,
    /// All that counts by now, and when a pass first saw it.
    visible: BTreeMap<i64, Fact>,
    passed: BTreeMap<i64, i64>,
}

impl World {
    fn happen(&mut self, happening: &Happening) {
        match happening {
            Happening::Write(draft) => self.write(draft, None),
            Happening::WriteIn(producer, draft) => {
                self.open.entry(*producer).or_insert(self.high_watermark);
                self.write(draft, Some(*producer));
            }
            Happening::End(producer, commits) => self.end(*producer, *commits),
            Happening::Wait(ms) => self.now_ms += ms,
            Happening::Pass { keys_max, percent, accepted } => {
                self.pass(*keys_max, *percent, accepted);
            }
        }
    }

    fn write(&mut self, draft: &Draft, producer: Option<i64>) {
        let draft = Draft { producer, time_ms: self.now_ms, ..draft.clone() };
        let batch = draft.at(self.high_watermark);
        for fact in log::facts(&batch) {
            if producer.is_none() {
                self.visible.insert(fact.offset, fact.clone());
            }
            self.written.push((fact, producer));
        }
        self.push(batch);
    }

    fn end(&mut self, producer: i64, commits: bool) {
        let Some(first) = self.open.remove(&producer) else { return };
        let last = self.high_watermark;
        self.push(log::marker(last, self.now_ms, producer, commits));
        if commits {
            let mine = self
                .written
                .iter()
                .filter(|(fact, by)| *by == Some(producer) && fact.offset >= first);
            self.visible.extend(mine.map(|(fact, _)| (fact.offset, fact.clone())));
        } else {
            let stable = Offset(self.stable());
            let producer = ProducerId(producer);
            let (first, last) = (Offset(first), Offset(last));
            self.aborted.push(AbortedTransaction { producer, first, last, stable });
        }
    }

    /// Two batches to an extent, where it goes.
    fn push(&mut self, batch: RecordBatch) {
        self.high_watermark += i64::from(batch.offsets());
        match self.extents.last_mut() {
            Some(extent) if extent.len() < 2 && self.cleaned.0 < extent[0].base_offset() => {
                extent.push(batch);
            }
            _ => self.extents.push(vec![batch]),
        }
    }

    fn stable(&self) -> i64 {
        self.open.values().min().copied().unwrap_or(self.high_watermark)
    }

    fn batches(&self) -> impl Iterator<Item = &RecordBatch> {
        self.extents.iter().flatten()
    }

    fn pass(&mut self, keys_max: usize, percent: i64, accepted: &[bool]) {
        let limit = self.cleaned.0 + (self.stable() - self.cleaned.0) * percent / 100;
        let aborted = Aborted::of(self.aborted.iter());
        let mut latest = LatestOffsets::new(self.cleaned, keys_max, 7);
        for extent in &self.extents {
            let end = extent.last().map_or(0, end_of);
            if latest.is_full() || end > limit {
                break;
            }
            if end > self.cleaned.0 {
                extent.iter().for_each(|batch| latest.add(batch, &aborted));
                latest.advance(Offset(end));
            }
        }
        if latest.end() == self.cleaned {
            return;
        }
        let end = latest.end().0;
        for (offset, _) in self.visible.range(..end) {
            self.passed.entry(*offset).or_insert(self.now_ms);
        }
        let is_whole = self.filter(latest, aborted, accepted);
        if is_whole {
            let cleaned = Offset(end);
            self.cleaned = cleaned;
            self.aborted.retain(|it| it.last >= cleaned);
            self.has_each_key_once();
        }
    }

    /// Whether all replacements were accepted.
    fn filter(&mut self, latest: LatestOffsets, aborted: Aborted, accepted: &[bool]) -> bool {
        let end = latest.end();
        let (cleaned, now_ms) = (self.cleaned, self.now_ms);
        let delete_retention_ms = RETENTION_MS;
        let mut filter =
            Filter::new(Rules { latest, aborted, cleaned, now_ms, delete_retention_ms });
        let mut accepted = accepted.iter().copied().cycle();
        let mut is_whole = true;
        let mut extents = Vec::new();
        for extent in std::mem::take(&mut self.extents) {
            let left: Vec<_> = extent.iter().map(|batch| (batch, filter.pass(batch))).collect();
            let is_behind = end_of(extent.last().unwrap()) > end.0;
            let is_same = left.iter().all(|(_, left)| *left == Left::Same);
            assert!(is_same || !is_behind, "behind the end of the pass nothing changes");
            if is_same || !accepted.next().unwrap_or(true) {
                is_whole &= is_same;
                extents.push(extent);
                continue;
            }
            let left = left.into_iter().filter_map(|(batch, left)| match left {
                Left::Same => Some(batch.clone()),
                Left::Changed(batch) => Some(batch),
                Left::Nothing => None,
            });
            let left: Vec<_> = left.collect();
            if !left.is_empty() {
                extents.push(left);
            }
        }
        self.extents = extents;
        is_whole
    }

    /// What a finished pass is for.
    fn has_each_key_once(&self) {
        let seen = log::committed(self.batches(), &self.aborted);
        let below = seen.iter().filter(|fact| fact.offset < self.cleaned.0);
        let mut keys: Vec<u8> = below.map(|fact| fact.key).collect();
        let records = keys.len();
        keys.sort_unstable();
        keys.dedup();
        assert_eq!(keys.len(), records, "one record a key in {seen:?}");
    }

    fn holds(&self) {
        let originals: BTreeMap<_, _> =
            self.written.iter().map(|(fact, _)| (fact.offset, fact)).collect();
        let all: Vec<Fact> =
            self.batches().filter(|it| !it.is_control()).flat_map(log::facts).collect();
        assert!(all.is_sorted_by(|one, other| one.offset < other.offset));
        for fact in &all {
            assert_eq!(Some(&fact), originals.get(&fact.offset), "nothing changes, nothing new");
        }
        let stable = self.stable();
        let seen =
            log::committed(self.batches().filter(|it| it.base_offset() < stable), &self.aborted);
        for fact in &seen {
            assert_eq!(self.visible.get(&fact.offset), Some(fact), "what does not count is unseen");
        }
        self.has_the_latest_of_each_key(&seen, stable);
        let end = self.batches().last().map_or(0, end_of);
        assert_eq!(end, self.high_watermark, "COMPACT-3");
        let kept: Vec<&Fact> = all.iter().filter(|it| it.offset >= stable).collect();
        let later = self.written.iter().filter(|(fact, _)| fact.offset >= stable);
        assert_eq!(kept, later.map(|(fact, _)| fact).collect::<Vec<_>>(), "what is open stays");
        for it in &self.aborted {
            let mut batches = self.batches();
            assert!(batches.any(|batch| batch.base_offset() == it.last.0), "COMPACT-4");
        }
    }

    /// COMPACT-1 and COMPACT-2.
    fn has_the_latest_of_each_key(&self, seen: &[Fact], stable: i64) {
        let mut latest: BTreeMap<u8, &Fact> = BTreeMap::new();
        for fact in self.visible.range(..stable).map(|(_, fact)| fact) {
            latest.insert(fact.key, fact);
        }
        for (key, last) in latest {
            let found = seen.iter().rev().find(|fact| fact.key == key);
            if found == Some(last) {
                continue;
            }
            assert_eq!((last.value, found), (None, None), "only a tombstone goes, and as the last");
            let since = self.passed.get(&last.offset).copied().unwrap_or(i64::MAX);
            assert!(self.now_ms >= since.saturating_add(RETENTION_MS), "and not before its time");
        }
    }
}

fn end_of(batch: &RecordBatch) -> i64 {
    batch.base_offset() + i64::from(batch.offsets())
}

fn draft() -> impl Strategy<Value = Draft> {
    let codec = prop_oneof![
        4 => Just(Codec::None),
        1 => Just(Codec::Gzip),
        1 => Just(Codec::Snappy),
        1 => Just(Codec::Lz4),
        1 => Just(Codec::Zstd),
    ];
    let value = prop_oneof![2 => (0_u16..200).prop_map(Some), 1 => Just(None)];
    let records = prop::collection::vec((0_u8..8, value, 0_u8..3), 1..6);
    (codec, records).prop_map(|(codec, records)| Draft {
        codec,
        producer: None,
        time_ms: 0,
        records,
    })
}

fn happening() -> impl Strategy<Value = Happening> {
    let keys_max = prop_oneof![1 => 0_usize..8, 2 => Just(1_000)];
    let percent = prop_oneof![1 => 0_i64..100, 2 => Just(100)];
    let accepted =
        prop_oneof![2 => Just(vec![true]), 1 => prop::collection::vec(any::<bool>(), 1..6)];
    prop_oneof![
        4 => draft().prop_map(Happening::Write),
        3 => (1_i64..4, draft()).prop_map(|(producer, it)| Happening::WriteIn(producer, it)),
        3 => (1_i64..4, any::<bool>()).prop_map(|(producer, it)| Happening::End(producer, it)),
        2 => (0_i64..RETENTION_MS * 3 / 2).prop_map(Happening::Wait),
        3 => (keys_max, percent, accepted).prop_map(|(keys_max, percent, accepted)| {
            Happening::Pass { keys_max, percent, accepted }
        }),
    ]
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 512, ..ProptestConfig::default() })]

    #[test]
    fn the_latest_of_each_key_survives_whatever_happens(
        happenings in prop::collection::vec(happening(), 1..40),
    ) {
        let mut world = World::default();
        for happening in &happenings {
            world.happen(happening);
            world.holds();
        }
    }
}

/// Passes that see all, each after the tombstones of the one before are due.
fn passes(world: &mut World, count: usize) {
    for _ in 0..count {
        world.happen(&Happening::Wait(RETENTION_MS));
        let record = Draft {
            codec: Codec::None,
            producer: None,
            time_ms: 0,
            records: vec![(99, Some(1), 0)],
        };
        world.happen(&Happening::Write(record));
        world.happen(&Happening::Pass { keys_max: 1_000, percent: 100, accepted: vec![true] });
        world.holds();
    }
}

fn of(records: &[(u8, Option<u16>, u8)]) -> Draft {
    Draft { codec: Codec::Zstd, producer: None, time_ms: 0, records: records.to_vec() }
}

#[test]
fn tombstones_and_markers_are_gone_in_the_end() {
    let mut world = World::default();
    world.happen(&Happening::Write(of(&[(1, Some(5), 1), (2, Some(6), 0), (1, None, 0)])));
    for commits in [true, false] {
        world.happen(&Happening::WriteIn(1, of(&[(3, Some(7), 0)])));
        world.happen(&Happening::End(1, commits));
    }
    world.happen(&Happening::Write(of(&[(3, None, 0)])));
    passes(&mut world, 4);
    let left: Vec<_> = world.batches().flat_map(log::facts).map(|it| (it.offset, it.key)).collect();
    assert_eq!(left, [(1, 2), (world.high_watermark - 1, 99)]);
    assert_eq!(world.batches().count(), 2, "and no marker");
}

#[test]
fn a_marker_stays_as_long_as_a_record_of_its_transaction() {
    let mut world = World::default();
    world.happen(&Happening::WriteIn(1, of(&[(3, Some(7), 0)])));
    world.happen(&Happening::End(1, true));
    passes(&mut world, 4);
    assert_eq!(world.batches().filter(|it| it.is_control()).count(), 1);
}

#[test]
fn what_a_pass_does_not_change_keeps_its_bytes() {
    let mut world = World::default();
    world.happen(&Happening::Write(of(&[(1, Some(5), 2), (2, Some(6), 0)])));
    let before = world.extents.clone();
    passes(&mut world, 3);
    assert_eq!(world.extents[0], before[0]);
}

#[test]
fn a_batch_that_nobody_can_open_stays() {
    let whole = of(&[(1, Some(5), 0)]).at(0);
    let mut bytes = whole.bytes().to_vec();
    let end = bytes.len();
    bytes[end - 20..].fill(0xff);
    let broken = RecordBatch::split_first(&bytes.into()).unwrap().0;
    let mut latest = LatestOffsets::new(Offset(0), 10, 7);
    let aborted = Aborted::default();
    latest.add(&broken, &aborted);
    latest.add(&of(&[(1, Some(9), 0)]).at(1), &aborted);
    latest.advance(Offset(2));
    let (cleaned, now_ms, delete_retention_ms) = (Offset(0), 0, 0);
    let rules = Rules { latest, aborted, cleaned, now_ms, delete_retention_ms };
    let mut filter = Filter::new(rules);
    assert_eq!(filter.pass(&broken), Left::Same);
    assert_eq!(filter.unreadable(), 1);
}

/// Passes of which the first replacement is turned away every time.
fn broken_passes(world: &mut World, count: usize) {
    for _ in 0..count {
        world.happen(&Happening::Wait(2 * RETENTION_MS));
        let accepted = vec![false, true, true, true];
        world.happen(&Happening::Pass { keys_max: 1_000, percent: 100, accepted });
        world.holds();
    }
}

#[test]
fn a_marker_stays_as_long_as_consumers_are_told_of_its_transaction() {
    let mut world = World::default();
    world.happen(&Happening::Write(of(&[(1, Some(5), 0)])));
    world.happen(&Happening::Write(of(&[(1, Some(6), 0)])));
    world.happen(&Happening::WriteIn(1, of(&[(2, Some(7), 0)])));
    world.happen(&Happening::End(1, false));
    world.happen(&Happening::WriteIn(1, of(&[(3, Some(8), 0)])));
    world.happen(&Happening::End(1, true));
    broken_passes(&mut world, 4);
    assert!(world.batches().any(|it| it.base_offset() == 3), "it is there");
    passes(&mut world, 3);
    assert!(!world.batches().any(|it| it.base_offset() == 3), "and in the end it is not");
}

#[test]
fn a_tombstone_stays_as_long_as_what_it_deletes() {
    let mut world = World::default();
    world.happen(&Happening::Write(of(&[(1, Some(5), 0)])));
    world.happen(&Happening::Write(of(&[(2, Some(5), 0)])));
    world.happen(&Happening::Write(of(&[(1, None, 0)])));
    world.happen(&Happening::Write(of(&[(2, Some(6), 0)])));
    broken_passes(&mut world, 4);
    assert_eq!(world.batches().flat_map(log::facts).filter(|it| it.key == 1).count(), 2);
    passes(&mut world, 3);
    assert_eq!(world.batches().flat_map(log::facts).filter(|it| it.key == 1).count(), 0);
}
