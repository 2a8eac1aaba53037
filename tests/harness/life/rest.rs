//! When nobody works any more: what has to be true of the store, the log and what is in them.

use std::collections::BTreeSet;
use std::num::NonZeroUsize;
use std::sync::Arc;
use std::time::Duration;

use odradek_protocol::id::TopicId;
use odradek_storage::clock::Clock;
use odradek_storage::engine::Engine;
use odradek_storage::fsck::{self, Damage};
use odradek_storage::key::ObjectKey;
use odradek_storage::log::{Freshness, LogRead, MetadataLog};
use odradek_storage::look::Look;
use odradek_storage::lsn::Lsn;
use odradek_storage::object::ObjectStore;
use odradek_storage::segment::SegmentId;
use odradek_storage::snapshot::SNAPSHOT_PREFIX;
use odradek_storage::state::partition::Content;
use tokio::time::{Instant, sleep};

use super::model::{Kind, TIMED_MS};
use super::{ALL, Report, SNAPSHOT_ENTRIES, UNIT_BYTES, World};
use crate::hasty::DELETED_KEPT;
use crate::world::kept_for_starts;

impl World {
    /// Waits for quiet, and checks everything.
    pub(super) async fn rest(self) -> Report {
        // What is deleted is given up, timed records go, and the rest is merged and swept.
        let timed = Duration::from_millis(TIMED_MS.unsigned_abs());
        sleep(timed.max(DELETED_KEPT) + Duration::from_secs(30)).await;
        self.start_broker(self.plan.brokers - 1).await;
        let engine = self.lock().brokers.last().unwrap().engine.clone();
        self.settle(&engine).await;
        let living = self.lock().model.living(None);
        let listed: BTreeSet<TopicId> =
            engine.machine.read(|state| state.topics().map(|it| it.id).collect());
        assert_eq!(listed, living.iter().copied().collect());
        for topic in living {
            assert_eq!(self.check(&engine, topic).await, Some(()), "{topic:?} can't be read");
        }
        self.examine().await;
        let trimmed = self.check_bounds(&engine).await;
        self.summarise(&engine, trimmed)
    }

    /// Waits until the store holds what the state refers to, and nothing else (C1), nothing is kept
    /// of what is deleted, and the log is trimmed.
    async fn settle(&self, engine: &Engine) {
        let deadline = Instant::now() + Duration::from_secs(120);
        loop {
            assert_eq!(engine.machine.barrier().await, Ok(()));
            let stored = self.stored().await;
            let (referenced, deleted): (BTreeSet<ObjectKey>, usize) =
                engine.machine.read(|state| {
                    let segments = state.segments().referenced().iter();
                    let put = segments.filter(|(_, it)| it.inline.is_none());
                    (put.map(|(id, _)| id.key()).collect(), state.deleted_topics().len())
                });
            let missing: Vec<_> = referenced.difference(&stored).collect();
            assert!(missing.is_empty(), "the store has lost {missing:?}");
            let kept = kept_for_starts(&self.objects, engine).await;
            let left: Vec<_> =
                stored.difference(&referenced).filter(|it| !kept.contains(it)).collect();
            let (_, entries) = self.entries().await;
            if left.is_empty() && deleted == 0 && entries <= SNAPSHOT_ENTRIES * 4 {
                return;
            }
            assert!(
                Instant::now() < deadline,
                "nobody sweeps {left:?}, purges {deleted} deleted topics, or trims {entries} \
                 entries"
            );
            sleep(Duration::from_millis(300)).await;
        }
    }

    /// Where the log begins, and how long it is.
    async fn entries(&self) -> (Lsn, u64) {
        let floor = match self.log.read(Lsn::ZERO, NonZeroUsize::MIN, Freshness::Latest).await {
            Ok(LogRead::Trimmed(floor)) => floor,
            other => panic!("there is an entry 0: {other:?}"),
        };
        (floor, self.log.tail().await.unwrap().get() - floor.get())
    }

    async fn stored(&self) -> BTreeSet<ObjectKey> {
        let listed = self.objects.list(SegmentId::PREFIX, None, ALL).await.unwrap();
        listed.into_iter().map(|it| it.key).collect()
    }

    /// As an operator does, who is told of what was damaged late and stands there yet.
    async fn examine(&self) {
        let look = Look::new(Arc::new(self.objects.clone()), Arc::new(self.log.clone()));
        let options = fsck::Options { deep: true, ..fsck::Options::default() };
        let report = fsck::run(&look, &options).await.unwrap();
        let damaged = self.lock().model.damaged.clone();
        let is_known =
            |it: &Damage| matches!(it, Damage::Snapshot { key, .. } if damaged.contains(key));
        let found: Vec<_> = report.findings.iter().filter(|it| !is_known(&it.damage)).collect();
        assert!(found.is_empty(), "an examination finds something: {found:?}");
        assert_eq!(report.unknown, [], "there are strange objects");
    }

    /// What is stored is a matter of what lives, not of what happened.
    async fn check_bounds(&self, engine: &Engine) -> u64 {
        let (topics, bytes, extents, segments, inline) = engine.machine.read(|state| {
            let partitions = || state.topics().flat_map(|topic| &topic.partitions);
            let bytes: u64 = partitions().map(|it| it.bytes()).sum();
            let extents = partitions().map(|it| it.extents().count()).sum::<usize>();
            let segments = state.segments().referenced().len();
            (
                state.topics().count(),
                bytes,
                u64::try_from(extents).unwrap(),
                segments,
                state.segments().inline_bytes(),
            )
        });
        let (topics, segments) = (u64::try_from(topics).unwrap(), u64::try_from(segments).unwrap());
        let (floor, entries) = self.entries().await;
        let snapshots = self.objects.list(SNAPSHOT_PREFIX, None, ALL).await.unwrap();
        let snapshot_bytes = engine.machine.read(|state| state.to_snapshot().0.len());
        let snapshot_bytes = u64::try_from(snapshot_bytes).unwrap();
        let positions: Vec<&str> = snapshots.iter().map(|it| it.key.as_str()).collect();
        self.say(&format!(
            "{topics} topics, {bytes} bytes, {extents} extents, {segments} segments, \
             {entries} entries from {floor}, {positions:?}, of {snapshot_bytes} bytes, {inline} \
             inline",
        ));
        assert!(snapshots.len() <= 4, "{} snapshots", snapshots.len());
        let most = 20 + topics * 4 + bytes / UNIT_BYTES * 8;
        assert!(segments <= most, "{segments} segments of {bytes} bytes of {topics} topics");
        let most = 40 + topics * 20 + bytes / UNIT_BYTES * 30;
        assert!(extents <= most, "{extents} extents of {bytes} bytes of {topics} topics");
        let most = 30_000 + inline + (extents + segments) * 150 + topics * 1000;
        assert!(snapshot_bytes < most, "{snapshot_bytes} bytes of snapshot instead of {most}");
        self.check_timed(engine);
        floor.prev().get()
    }

    /// What is too old is gone, but for what lies in an extent with something younger.
    fn check_timed(&self, engine: &Engine) {
        let is_timed = |topic| self.lock().model.topics[&topic].kind == Kind::Timed;
        let now_ms = self.clock.now_ms();
        engine.machine.read(|state| {
            for topic in state.topics().filter(|topic| is_timed(topic.id)) {
                let oldest = topic.partitions[0].extents().next();
                let age = oldest.map_or(0, |extent| now_ms - extent.max_timestamp);
                assert!(age < TIMED_MS + 20_000, "{} holds what is {age} ms old", topic.name);
            }
        });
    }

    fn summarise(&self, engine: &Engine, trimmed: u64) -> Report {
        let mut shared = self.lock();
        let mut report = shared.report.clone();
        report.trimmed = trimmed;
        let topics = &shared.model.topics;
        report.acknowledged = topics.values().map(|it| it.acknowledged.len()).sum();
        report.unknown = topics.values().map(|it| it.unknown.len()).sum();
        let dead = topics.values().filter(|it| !it.lives).count();
        report.purged = dead;
        engine.machine.read(|state| {
            let segments = state.segments().referenced();
            report.merged = segments.values().filter(|it| it.level > 0).count();
            let inline: BTreeSet<ObjectKey> = segments.keys().map(SegmentId::key).collect();
            report.swept = shared.segments.difference(&inline).count();
            for topic in state.topics() {
                let known = &shared.model.topics[&topic.id];
                let partition = &topic.partitions[0];
                let is_gap = |content: &Content| matches!(content, Content::Gap);
                let has_gaps = partition.extents().any(|it| is_gap(&it.content));
                report.compacted += usize::from(has_gaps || partition.cleaned().0 > 0);
                let asked = known.floor.max(known.deleted_below);
                report.expired += usize::from(partition.log_start.0 > asked);
            }
        });
        shared.segments.clear();
        report
    }
}
