//! Each kind of damage is found and named; what brokers do meanwhile is none.

use std::collections::BTreeSet;
use std::num::NonZeroUsize;
use std::ops::Range;
use std::sync::{Arc, Mutex};

use async_trait::async_trait;
use bytes::Bytes;
use futures::future::BoxFuture;
use odradek_protocol::id::{Offset, TopicId, TopicPartition};
use odradek_protocol::record::RecordBatch;
use uuid::Uuid;

use super::{Affected, Damage, Finding, Options, Report, Tally, invariants, run};
use crate::clock::ManualClock;
use crate::command::{
    BatchSummary, Branch, BrokerAddress, Command, Incarnation, NewBlock, NewExtent, Outcome,
    Replacement, Run,
};
use crate::engine::Ports;
use crate::key::ObjectKey;
use crate::log::MetadataLog;
use crate::log::memory::MemoryLog;
use crate::look::{Look, LookError};
use crate::lsn::Lsn;
use crate::machine::{Machine, MachineConfig};
use crate::object::memory::MemoryObjectStore;
use crate::object::{ObjectMeta, ObjectStore, Put};
use crate::peer::NoPeers;
use crate::port::PortError;
use crate::segment::SegmentId;
use crate::segment::builder::{PendingBatch, SealedSegment, SegmentBuilder};
use crate::snapshot::snapshot_key;
use crate::state::State;
use crate::state::partition::Partition;
use crate::state::tests::chain::create_topic;

const ORDERS: TopicId = TopicId(Uuid::from_u128(1));
const BRANCH: TopicId = TopicId(Uuid::from_u128(2));
const LATEST_MS: i64 = 1_700_000_000_007;

const DEEP: Options = Options { deep: true, segments_inflight_max: 3, range_bytes_max: 200 };

fn orders(partition: i32) -> TopicPartition {
    TopicPartition { topic: ORDERS, partition }
}

/// A batch of this many records, with `base` in its header.
fn batch(base: i64, records: u32) -> Bytes {
    let mut bytes = vec![0; 61];
    bytes.extend(std::iter::repeat_n(7, 20 * usize::try_from(records).unwrap()));
    let length = u32::try_from(bytes.len() - 12).unwrap();
    bytes[..8].copy_from_slice(&base.to_be_bytes());
    bytes[8..12].copy_from_slice(&length.to_be_bytes());
    bytes[16] = 2;
    bytes[23..27].copy_from_slice(&(records - 1).to_be_bytes());
    bytes[35..43].copy_from_slice(&LATEST_MS.to_be_bytes());
    bytes[57..61].copy_from_slice(&records.to_be_bytes());
    let crc = crc32c::crc32c(&bytes[21..]);
    bytes[17..21].copy_from_slice(&crc.to_be_bytes());
    bytes.into()
}

fn pending(bytes: Bytes) -> PendingBatch {
    let (batch, _) = RecordBatch::split_first(&bytes).unwrap();
    let summary = BatchSummary {
        bytes: u32::try_from(bytes.len()).unwrap(),
        records: batch.offsets(),
        max_timestamp: batch.max_timestamp(),
        producer: None,
    };
    PendingBatch { bytes, summary, compressed: false }
}

/// A cluster of one broker, whose objects can be tampered with.
#[derive(Clone)]
struct Bench {
    machine: Machine,
    objects: MemoryObjectStore,
    log: MemoryLog,
    began: Lsn,
    segments: u64,
}

impl Bench {
    async fn new() -> Self {
        let (objects, log) = (MemoryObjectStore::default(), MemoryLog::default());
        let ports = Ports {
            objects: Arc::new(objects.clone()),
            log: Arc::new(log.clone()),
            clock: Arc::new(ManualClock::new(LATEST_MS)),
            peers: Arc::new(NoPeers),
        };
        let config = MachineConfig { exclusive: true, ..MachineConfig::default() };
        let machine = Machine::start(config, BrokerAddress::default(), ports, 1).await.unwrap();
        assert_eq!(machine.propose(create_topic(orders(0), 2)).await, Ok(Outcome::Done));
        Self { machine, objects, log, began: Lsn::FIRST, segments: 0 }
    }

    fn look(&self) -> Look {
        Look::new(Arc::new(self.objects.clone()), Arc::new(self.log.clone()))
    }

    async fn fsck(&self) -> Report {
        run(&self.look(), &Options::default()).await.unwrap()
    }

    async fn fsck_deep(&self) -> Report {
        run(&self.look(), &DEEP).await.unwrap()
    }

    async fn propose(&self, command: Command) {
        let outcome = self.machine.propose(command).await.unwrap();
        assert!(!matches!(outcome, Outcome::Rejected(_)), "{outcome:?}");
    }

    /// A segment with batches of these many records in these partitions.
    fn seal(&mut self, batches: &[(i32, Bytes)]) -> SealedSegment {
        self.segments += 1;
        let (began, counter) = (self.began, self.segments);
        let id = SegmentId { began, incarnation: Incarnation(1), counter };
        let mut builder = SegmentBuilder::default();
        for (partition, bytes) in batches {
            builder.push(orders(*partition), pending(bytes.clone()));
        }
        builder.seal(id, Some(1))
    }

    async fn put(&self, sealed: &SealedSegment) {
        let put = self.objects.put_if_absent(&sealed.id.key(), sealed.bytes.clone()).await;
        assert_eq!(put.unwrap(), Put::Created);
    }

    async fn commit(&self, sealed: SealedSegment) -> SegmentId {
        let (segment, bytes) = (sealed.id, u64::try_from(sealed.bytes.len()).unwrap());
        let runs = sealed.blocks.into_iter().map(|block| block.run).collect();
        self.propose(Command::CommitSegment { segment, bytes, runs }).await;
        segment
    }

    /// Puts and commits a segment with batches of these many records in these partitions.
    async fn add(&mut self, batches: &[(i32, u32)]) -> SegmentId {
        let batches: Vec<_> = batches.iter().map(|(at, count)| (*at, batch(0, *count))).collect();
        let sealed = self.seal(&batches);
        self.put(&sealed).await;
        self.commit(sealed).await
    }

    /// Commits batches of these many records with the log.
    async fn add_inline(&mut self, batches: &[(i32, u32)]) -> SegmentId {
        let batches: Vec<_> = batches.iter().map(|(at, count)| (*at, batch(0, *count))).collect();
        let sealed = self.seal(&batches);
        let segment = sealed.id;
        let runs: Vec<Run> = sealed.blocks.into_iter().map(|block| block.run).collect();
        let end = runs.last().map(|it| it.position + u64::from(it.stored_bytes)).unwrap();
        let content = sealed.bytes.slice(..usize::try_from(end).unwrap());
        self.propose(Command::CommitInline { segment, content, runs }).await;
        segment
    }

    /// Puts merged batches, which say their offsets, in the place of those of a partition.
    async fn merge(&mut self, at: i32, offsets: Range<i64>, batches: &[Bytes]) -> SegmentId {
        let batches: Vec<_> = batches.iter().map(|bytes| (at, bytes.clone())).collect();
        let sealed = self.seal(&batches);
        self.put(&sealed).await;
        let [block] = &sealed.blocks[..] else { panic!("more than one block") };
        let (position, stored_bytes) = (block.run.position, block.run.stored_bytes);
        let bytes = u32::try_from(block.content.len()).unwrap();
        let records = u32::try_from(offsets.end - offsets.start).unwrap();
        let block = Some(NewBlock { position, stored_bytes, bytes });
        let (from, to) = (Offset(offsets.start), Offset(offsets.end));
        let hash = |state: &State| state.partition(orders(at)).unwrap().hash_between(from, to);
        let replacement = Replacement {
            partition: orders(at),
            from,
            to,
            inputs: self.machine.read(hash).unwrap(),
            extents: vec![NewExtent { records, max_timestamp: LATEST_MS, block }],
            cleaned: None,
        };
        let (segment, level) = (sealed.id, 1);
        let bytes = u64::try_from(sealed.bytes.len()).unwrap();
        let replacements = vec![replacement];
        let replace = Command::ReplaceExtents { segment, bytes, level, replacements };
        let outcome = self.machine.propose(replace).await.unwrap();
        assert_eq!(outcome, Outcome::ExtentsReplaced(vec![Ok(())]));
        segment
    }

    async fn branch(&self, ends: [i64; 2]) {
        let ends = ends.into_iter().map(|end| Some(Offset(end))).collect();
        let branch = Branch { of: ORDERS, ends };
        self.propose(Command::BranchTopic {
            topic: BRANCH,
            name: "branch".to_owned(),
            replication_factor: 1,
            configs: std::collections::BTreeMap::new(),
            branch,
        })
        .await;
    }

    async fn delete_records(&self, at: i32, before: i64) {
        let before = Some(Offset(before));
        self.propose(Command::DeleteRecords { partition: orders(at), before }).await;
    }

    async fn raise_horizon(&self) -> Lsn {
        let to = self.machine.read(State::applied);
        self.propose(Command::RaiseHorizon { to }).await;
        to
    }

    async fn bytes_of(&self, segment: SegmentId) -> Bytes {
        self.objects.get_range(&segment.key(), 0..u64::MAX).await.unwrap().unwrap()
    }

    /// Puts other bytes in the place of an object, as nobody may.
    async fn replace(&self, key: &ObjectKey, bytes: Bytes) {
        self.objects.delete(std::slice::from_ref(key)).await.unwrap();
        assert_eq!(self.objects.put_if_absent(key, bytes).await.unwrap(), Put::Created);
    }

    /// Writes a snapshot of what there is now.
    async fn snapshot(&self) -> ObjectKey {
        let (lsn, (bytes, digest)) = self.machine.read(|it| (it.applied(), it.to_snapshot()));
        let key = snapshot_key(lsn, digest);
        assert_eq!(self.objects.put_if_absent(&key, bytes).await.unwrap(), Put::Created);
        key
    }
}

fn affected(name: &str, partition: i32, offsets: Range<i64>) -> Affected {
    let topic = if name == "branch" { BRANCH } else { ORDERS };
    let (from, to) = (Offset(offsets.start), Offset(offsets.end));
    Affected { name: name.to_owned(), is_deleted: false, topic, partition, from, to }
}

fn topic_name() -> String {
    format!("topic-{ORDERS}")
}

fn tally(objects: u64, bytes: usize) -> Tally {
    Tally { objects, bytes: u64::try_from(bytes).unwrap() }
}

fn one(report: &Report) -> &Finding {
    assert_eq!(report.findings.len(), 1, "{:?}", report.findings);
    &report.findings[0]
}

/// A cluster with everything that a state can refer to.
async fn everything() -> Bench {
    let mut bench = Bench::new().await;
    bench.add(&[(0, 3), (0, 2), (1, 4)]).await;
    bench.add(&[(0, 5), (1, 1)]).await;
    bench.add_inline(&[(0, 2), (1, 2)]).await;
    bench.branch([3, 5]).await;
    bench.delete_records(1, 1).await;
    bench.merge(0, 0..10, &[batch(0, 3), batch(5, 2), batch(8, 1)]).await;
    bench.snapshot().await;
    bench.add(&[(1, 9)]).await;
    bench.add_inline(&[(0, 600)]).await;
    bench
}

#[tokio::test(start_paused = true)]
async fn a_store_that_holds_what_the_state_says_is_clean() {
    let bench = everything().await;
    for report in [bench.fsck().await, bench.fsck_deep().await] {
        assert_eq!(report.findings, []);
        let cluster = report.cluster.unwrap();
        assert_eq!((cluster.topics, cluster.partitions), (2, 4));
        assert_eq!(cluster.applied, bench.machine.read(State::applied));
        assert_eq!((report.referenced.objects, report.inline.objects), (4, 2));
        assert_eq!((report.waiting, report.orphans), (Tally::default(), Default::default()));
        assert_eq!((report.unknown.len(), report.snapshots.len()), (0, 1));
        if let Some(read) = report.read {
            assert_eq!((read.segments, read.blocks, read.batches), (6, 9, 12));
        }
    }
    bench.propose(Command::DeleteTopic { topic: ORDERS }).await;
    let report = bench.fsck_deep().await;
    assert_eq!(report.findings, []);
    assert_eq!(report.cluster.unwrap().deleted_topics, 1);
    assert_eq!(report.read.unwrap().segments, 6);
}

#[tokio::test(start_paused = true)]
async fn a_missing_segment_is_named_with_the_records_that_are_lost() {
    let mut bench = Bench::new().await;
    bench.add(&[(0, 3)]).await;
    let segment = bench.add(&[(0, 5), (0, 2), (1, 4)]).await;
    bench.branch([8, 0]).await;
    bench.objects.delete(&[segment.key()]).await.unwrap();
    for report in [bench.fsck().await, bench.fsck_deep().await] {
        let Finding { damage, affected: lost } = one(&report);
        assert_eq!(*damage, Damage::Missing(segment));
        assert!(damage.to_string().contains(segment.key().as_str()));
        let name = topic_name();
        let expected =
            [affected("branch", 0, 3..8), affected(&name, 0, 3..10), affected(&name, 1, 0..4)];
        assert_eq!(*lost, expected);
    }
    bench.propose(Command::DeleteTopic { topic: ORDERS }).await;
    let report = bench.fsck().await;
    let lost = &one(&report).affected;
    assert_eq!(lost.iter().map(|it| it.is_deleted).collect::<Vec<_>>(), [false, true, true]);
    assert_eq!(lost[1].to_string(), format!("deleted topic {}-0 offsets 3 to 9", topic_name()));
}

#[tokio::test(start_paused = true)]
async fn a_segment_of_another_length_is_found_without_reading_it() {
    let mut bench = Bench::new().await;
    let segment = bench.add(&[(0, 3)]).await;
    let whole = bench.bytes_of(segment).await;
    bench.replace(&segment.key(), whole.slice(..whole.len() - 1)).await;
    for report in [bench.fsck().await, bench.fsck_deep().await] {
        let expected = u64::try_from(whole.len()).unwrap();
        let damage = Damage::Length { segment, found: expected - 1, expected };
        assert_eq!(
            *one(&report),
            Finding { damage, affected: vec![affected(&topic_name(), 0, 0..3)] }
        );
    }
}

#[tokio::test(start_paused = true)]
async fn every_flipped_bit_of_a_segment_is_found_by_reading_it() {
    let mut bench = Bench::new().await;
    let segment = bench.add(&[(0, 3), (0, 40), (1, 4)]).await;
    let whole = bench.bytes_of(segment).await;
    let runs = crate::segment::read_footer(segment, &whole).unwrap();
    for at in 0..whole.len() {
        let mut bytes = whole.to_vec();
        bytes[at] ^= 1 << (at % 8);
        bench.replace(&segment.key(), bytes.into()).await;
        assert_eq!(bench.fsck().await.findings, [], "byte {at}");
        let report = bench.fsck_deep().await;
        let Finding { damage, affected: lost } = one(&report);
        assert_eq!(damage.segment(), Some(segment), "byte {at}");
        let position = u64::try_from(at).unwrap();
        let holds = |run: &&Run| {
            (run.position..run.position + u64::from(run.stored_bytes)).contains(&position)
        };
        match runs.iter().find(holds) {
            Some(run) => {
                let Damage::Block { position, .. } = damage else { panic!("byte {at}: {damage}") };
                let records = if run.partition == orders(0) { 43 } else { 4 };
                let lost_here = affected(&topic_name(), run.partition.partition, 0..records);
                assert_eq!((*position, lost), (run.position, &vec![lost_here]), "byte {at}");
            }
            None => {
                assert!(matches!(damage, Damage::Footer { .. }), "byte {at}: {damage}");
                assert_eq!(*lost, [], "byte {at}");
            }
        }
    }
}

#[tokio::test(start_paused = true)]
async fn a_block_that_was_damaged_on_the_way_is_no_finding() {
    let mut bench = Bench::new().await;
    bench.add(&[(0, 3)]).await;
    let hooked = Arc::new(Hooked::new(&bench));
    hooked.flips.store(1, std::sync::atomic::Ordering::Relaxed);
    let look = Look::new(hooked, Arc::new(bench.log.clone()));
    assert_eq!(run(&look, &DEEP).await.unwrap().findings, []);
}

#[tokio::test(start_paused = true)]
async fn batches_that_are_not_what_the_state_says_are_found() {
    let mut bench = Bench::new().await;
    // A checksum that was wrong before the block was made.
    let mut bad = batch(0, 2).to_vec();
    bad[65] ^= 1;
    let sealed = bench.seal(&[(0, batch(0, 3)), (0, bad.into()), (0, batch(0, 4))]);
    bench.put(&sealed).await;
    bench.commit(sealed).await;
    let report = bench.fsck_deep().await;
    let Finding { damage, affected: lost } = one(&report);
    assert!(damage.to_string().contains("checksum is"), "{damage}");
    assert_eq!(*lost, [affected(&topic_name(), 0, 3..5)]);
    bench.delete_records(0, 9).await;

    let lies: [fn(&mut BatchSummary); 2] = [|it| it.records += 1, |it| it.max_timestamp += 1];
    for lie in lies {
        let mut sealed = bench.seal(&[(1, batch(0, 3)), (1, batch(0, 2))]);
        bench.put(&sealed).await;
        lie(&mut sealed.blocks[0].run.batches[1]);
        let segment = bench.commit(sealed).await;
        let report = bench.fsck_deep().await;
        let Finding { damage, affected: lost } = one(&report);
        assert!(matches!(damage, Damage::Content { .. }), "{damage}");
        assert_eq!((damage.segment(), lost.len()), (Some(segment), 1));
        let end = bench.machine.read(|it| it.partition(orders(1)).unwrap().high_watermark);
        bench.delete_records(1, end.0).await;
    }
}

#[tokio::test(start_paused = true)]
async fn merged_batches_have_to_lie_within_their_extent() {
    let name = topic_name();
    for (batches, is_good) in [
        (vec![batch(0, 3), batch(6, 2)], true),
        (vec![batch(0, 3), batch(7, 2)], false),
        (vec![batch(3, 3), batch(5, 2)], false),
    ] {
        let mut bench = Bench::new().await;
        bench.add(&[(0, 8)]).await;
        bench.merge(0, 0..8, &batches).await;
        let report = bench.fsck_deep().await;
        if is_good {
            assert_eq!(report.findings, []);
        } else {
            let Finding { damage, affected: lost } = one(&report);
            assert!(damage.to_string().contains("a batch has offsets"), "{damage}");
            assert_eq!(*lost, [affected(&name, 0, 0..8)]);
        }
    }
}

#[tokio::test(start_paused = true)]
async fn orphans_and_strange_objects_are_counted_and_are_no_damage() {
    let mut bench = Bench::new().await;
    bench.add(&[(0, 3)]).await;
    let old = bench.seal(&[(0, batch(0, 3))]);
    bench.put(&old).await;
    let horizon = bench.raise_horizon().await;
    bench.began = horizon;
    let new = bench.seal(&[(0, batch(0, 300))]);
    bench.put(&new).await;
    let strange = ["notes.txt", "segment/zz/what", "segment/00/0-0-0", "snapshot/newest"];
    for key in strange {
        let key = ObjectKey::new(key).unwrap();
        assert_eq!(bench.objects.put_if_absent(&key, Bytes::new()).await.unwrap(), Put::Created);
    }
    bench.delete_records(0, 3).await;
    let report = bench.fsck_deep().await;
    assert_eq!(report.findings, []);
    assert_eq!(report.orphans.decided, tally(1, old.bytes.len()));
    assert_eq!(report.orphans.undecided, tally(1, new.bytes.len()));
    assert_eq!(report.orphans.oldest, Some(old.id));
    assert_eq!((report.referenced.objects, report.waiting.objects), (0, 1));
    let unknown: BTreeSet<&str> = report.unknown.iter().map(|it| it.key.as_str()).collect();
    assert_eq!(unknown, strange.into_iter().collect());
}

#[tokio::test(start_paused = true)]
async fn a_damaged_snapshot_is_named_and_the_one_before_it_used() {
    let mut bench = everything().await;
    let key = bench.snapshot().await;
    bench.add(&[(0, 1)]).await;
    let bytes = bench.objects.get_range(&key, 0..u64::MAX).await.unwrap().unwrap();
    let mut bad = bytes.to_vec();
    bad[40] ^= 1;
    bench.replace(&key, bad.into()).await;
    let report = bench.fsck_deep().await;
    let Finding { damage, .. } = one(&report);
    assert!(matches!(damage, Damage::Snapshot { key: named, .. } if *named == key), "{damage}");
    assert_eq!(
        report.snapshots.iter().map(|it| it.judged.is_ok()).collect::<Vec<_>>(),
        [true, false]
    );
    assert_eq!(report.cluster.unwrap().applied, bench.machine.read(State::applied));

    // Whole, and not what its name says.
    let other = report.snapshots[0].key.clone();
    let bytes = bench.objects.get_range(&other, 0..u64::MAX).await.unwrap().unwrap();
    bench.replace(&key, bytes).await;
    assert!(one(&bench.fsck().await).damage.to_string().contains("not the state that its name"));

    // None is left to begin with.
    bench.objects.delete(&[other]).await.unwrap();
    bench.log.trim(Lsn::new(3)).await.unwrap();
    let report = bench.fsck().await;
    assert_eq!(report.findings.len(), 2);
    assert_eq!(report.findings[1].damage.kind(), "log");
    assert!(report.cluster.is_none());
}

#[tokio::test(start_paused = true)]
async fn a_log_that_lost_entries_is_damage() {
    let bench = everything().await;
    let log = MemoryLog::default();
    let read = crate::log::Freshness::Latest;
    let found = bench.log.read(Lsn::FIRST, NonZeroUsize::MIN, read).await.unwrap();
    let crate::log::LogRead::Entries { slots, .. } = found else { panic!("trimmed") };
    let append = log.append(Lsn::FIRST, slots[0].bytes.clone()).await.unwrap();
    assert_eq!(append, crate::log::Append::Committed);
    let look = Look::new(Arc::new(bench.objects.clone()), Arc::new(log));
    let report = run(&look, &DEEP).await.unwrap();
    assert!(one(&report).damage.to_string().contains("but a snapshot of it ends at"));
}

#[tokio::test(start_paused = true)]
async fn what_is_of_another_cluster_is_not_looked_at() {
    let (one, other) = (everything().await, Bench::new().await);
    let claim = ObjectKey::new("cluster").unwrap();
    let snapshots = one.look().list("snapshot/").await.unwrap();
    one.objects.delete(&[snapshots[0].key.clone()]).await.unwrap();
    let look = Look::new(Arc::new(one.objects.clone()), Arc::new(other.log.clone()));
    // Both began with the same seed: the name of the cluster is changed by hand.
    one.replace(&claim, Bytes::from_static(b"odradek log of others\n")).await;
    let error = run(&look, &DEEP).await.unwrap_err();
    assert!(matches!(error, LookError::Foreign { .. }), "{error}");
    let look = Look::new(Arc::new(other.objects.clone()), Arc::new(MemoryLog::default()));
    assert!(matches!(run(&look, &DEEP).await, Err(LookError::Empty)));
    other.objects.delete(std::slice::from_ref(&claim)).await.unwrap();
    let report = other.fsck().await;
    assert_eq!(super::tests::one(&report).damage, Damage::Claim(claim));
}

#[tokio::test(start_paused = true)]
async fn what_brokers_do_meanwhile_is_no_finding() {
    let mut bench = Bench::new().await;
    let segment = bench.add(&[(0, 3)]).await;
    bench.add(&[(1, 2)]).await;
    let sealed = bench.seal(&[(0, batch(0, 9))]);
    bench.put(&sealed).await;
    let meanwhile = {
        let bench = bench.clone();
        async move {
            // One segment is swept, and the upload of another ends in its commit.
            bench.commit(sealed).await;
            bench.delete_records(0, 3).await;
            bench.raise_horizon().await;
            bench.objects.delete(&[segment.key()]).await.unwrap();
            bench.propose(Command::ForgetSegments { segments: vec![segment] }).await;
        }
    };
    let hooked = Hooked::new(&bench);
    *hooked.meanwhile.lock().unwrap() = Some(Box::pin(meanwhile));
    let look = Look::new(Arc::new(hooked), Arc::new(bench.log.clone()));
    let report = run(&look, &DEEP).await.unwrap();
    assert_eq!((report.findings, report.orphans), (vec![], Default::default()));
    assert_eq!(report.referenced.objects, 2);
}

#[tokio::test(start_paused = true)]
async fn what_is_swept_while_segments_are_read_is_no_finding() {
    let mut bench = Bench::new().await;
    let segment = bench.add(&[(0, 3)]).await;
    let meanwhile = {
        let bench = bench.clone();
        async move {
            bench.delete_records(0, 3).await;
            bench.objects.delete(&[segment.key()]).await.unwrap();
        }
    };
    let hooked = Hooked::new(&bench);
    *hooked.before_get.lock().unwrap() = Some((segment.key(), Box::pin(meanwhile)));
    let look = Look::new(Arc::new(hooked), Arc::new(bench.log.clone()));
    assert_eq!(run(&look, &DEEP).await.unwrap().findings, []);
}

#[tokio::test(start_paused = true)]
async fn a_look_that_is_overtaken_by_a_trim_begins_anew() {
    let mut bench = Bench::new().await;
    let look = bench.look();
    let mut state = look.state().await.unwrap();
    bench.add(&[(0, 3)]).await;
    bench.snapshot().await;
    bench.add(&[(1, 2)]).await;
    bench.log.trim(state.applied().next().next()).await.unwrap();
    look.advance(&mut state).await.unwrap();
    assert_eq!(state, bench.machine.read(State::clone));
    assert_eq!(look.state().await.unwrap(), state);
}

#[tokio::test(start_paused = true)]
async fn a_state_that_contradicts_itself_is_found_out() {
    let mut bench = Bench::new().await;
    let segment = bench.add(&[(0, 3), (1, 2)]).await;
    bench.add(&[(0, 2)]).await;
    let good = bench.look().state().await.unwrap();
    assert_eq!(invariants::audit(&good), Vec::<String>::new());
    let corrupt = |change: &dyn Fn(&mut State)| {
        let mut state = good.clone();
        change(&mut state);
        let violations = invariants::audit(&state);
        assert_eq!(violations.len(), 1, "{violations:?}");
        violations[0].clone()
    };
    let counted = corrupt(&|state| {
        state.segments.referenced.get_mut(&segment).unwrap().references = 3;
    });
    assert_eq!(counted, format!("SEG-1: 2 extents lie in segment {segment}, not 3"));
    type Change = fn(&mut Partition);
    let changes: [(Change, &str); 4] = [
        (|it| it.extents[1].base = Offset(4), "has an extent at 4 where 3 follows"),
        (|it| it.high_watermark = Offset(9), "ends at 9, and its last extent at 5"),
        (|it| it.log_start = Offset(4), "begins at 4, and its first extent at 0"),
        (|it| it.cleaned = Offset(6), "ends at 5, and is compacted up to 6"),
    ];
    for (change, what) in changes {
        let found = corrupt(&|state| {
            change(&mut state.topics.by_id.get_mut(&ORDERS).unwrap().partitions[0]);
        });
        assert_eq!(found, format!("PART-1: {}-0 {what}", topic_name()));
    }
    let waits = corrupt(&|state| {
        let waits =
            crate::state::segments::Unreferenced { bytes: 1, since: Lsn::FIRST, by_footer: false };
        state.segments.unreferenced.insert(segment, waits);
    });
    assert_eq!(waits, format!("SEG-1: segment {segment} is in use and to be swept"));
    let position = good.partition(orders(1)).unwrap().extents[0].location().unwrap().position;
    let outside = corrupt(&|state| {
        state.segments.referenced.get_mut(&segment).unwrap().bytes = position + 1;
    });
    assert_eq!(outside, format!("{}-1 offset 0 lies outside its segment", topic_name()));
}

/// A store in which something happens while it is looked at.
struct Hooked {
    inner: MemoryObjectStore,
    /// What happens before all objects are listed for the first time.
    meanwhile: Mutex<Option<BoxFuture<'static, ()>>>,
    /// What happens before an object is read for the first time.
    before_get: Mutex<Option<(ObjectKey, BoxFuture<'static, ()>)>>,
    /// How many reads of segments come with a flipped bit.
    flips: std::sync::atomic::AtomicU32,
}

impl Hooked {
    fn new(bench: &Bench) -> Self {
        Self {
            inner: bench.objects.clone(),
            meanwhile: Mutex::default(),
            before_get: Mutex::default(),
            flips: std::sync::atomic::AtomicU32::new(0),
        }
    }
}

impl std::fmt::Debug for Hooked {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        self.inner.fmt(f)
    }
}

#[async_trait]
impl ObjectStore for Hooked {
    async fn put_if_absent(&self, key: &ObjectKey, _: Bytes) -> Result<Put, PortError> {
        panic!("{key} is put by a look");
    }

    async fn get_range(
        &self,
        key: &ObjectKey,
        range: Range<u64>,
    ) -> Result<Option<Bytes>, PortError> {
        let is_it = |hook: &mut (ObjectKey, _)| hook.0 == *key;
        let happens = self.before_get.lock().unwrap().take_if(is_it);
        if let Some((_, happens)) = happens {
            happens.await;
        }
        let read = self.inner.get_range(key, range.clone()).await?;
        let is_block = SegmentId::from_key(key).is_some() && range.start == 32;
        let flip = |left: u32| left.checked_sub(1).filter(|_| is_block);
        let relaxed = std::sync::atomic::Ordering::Relaxed;
        if self.flips.fetch_update(relaxed, relaxed, flip).is_ok() {
            let mut bytes = read.unwrap().to_vec();
            bytes[50] ^= 1;
            return Ok(Some(bytes.into()));
        }
        Ok(read)
    }

    async fn list(
        &self,
        prefix: &str,
        after: Option<&ObjectKey>,
        limit: NonZeroUsize,
    ) -> Result<Vec<ObjectMeta>, PortError> {
        let is_all = |_: &mut _| prefix.is_empty();
        let happens = self.meanwhile.lock().unwrap().take_if(is_all);
        if let Some(happens) = happens {
            happens.await;
        }
        self.inner.list(prefix, after, limit).await
    }

    async fn delete(&self, keys: &[ObjectKey]) -> Result<(), PortError> {
        panic!("{keys:?} are deleted by a look");
    }
}
