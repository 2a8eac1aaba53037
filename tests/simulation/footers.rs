//! Commands that leave what they say to a footer of their segment: how it is had, what happens
//! while it is not to be had, and for how long it is kept.

use std::num::NonZeroUsize;
use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use odradek_protocol::id::TopicPartition;
use odradek_storage::clock::ManualClock;
use odradek_storage::command::{
    Command, CommandId, Entry, FooterRef, Incarnation, Outcome, Proposal, Rejection,
};
use odradek_storage::engine::{Engine, EngineConfig, Ports};
use odradek_storage::life::merger::MergerConfig;
use odradek_storage::life::sweeper::SweeperConfig;
use odradek_storage::log::memory::MemoryLog;
use odradek_storage::log::{Freshness, LogRead, MetadataLog};
use odradek_storage::lsn::Lsn;
use odradek_storage::machine::{MachineConfig, StartError};
use odradek_storage::object::faulty::{Faults, FaultyObjectStore};
use odradek_storage::object::memory::MemoryObjectStore;
use odradek_storage::object::{ObjectKey, ObjectStore};
use odradek_storage::peer::memory::MemoryPeers;
use odradek_storage::peer::{News, PeerMessage};
use odradek_storage::port::fate::Control;
use odradek_storage::segment::SegmentId;
use odradek_storage::state::State;
use odradek_storage::writer::WriterConfig;
use odradek_tests::alone;
use odradek_tests::world::{TOPIC, batch};
use tokio::time::{sleep, timeout};

const PARTITION: TopicPartition = TopicPartition { topic: TOPIC, partition: 0 };

/// Longest way from one broker to another.
const WAY: Duration = Duration::from_millis(2);

/// A log and a store, and the way between brokers.
struct Place {
    log: MemoryLog,
    objects: MemoryObjectStore,
    room: MemoryPeers,
}

/// A broker, and what goes wrong between it and the store.
struct Site {
    engine: Engine,
    faults: Control<Faults>,
}

/// Leaves everything to footers.
fn config(number: u64) -> EngineConfig {
    let writer = WriterConfig {
        footer_bytes_min: Some(0),
        linger_max: Duration::from_millis(5),
        ..WriterConfig::default()
    };
    let machine =
        MachineConfig { append_attempt_max: Duration::from_secs(1), ..Default::default() };
    EngineConfig { writer, machine, ..alone::config(number) }
}

/// A footer that nobody has seen.
fn some_footer(segment: SegmentId) -> FooterRef {
    FooterRef { segment, segment_bytes: 1000, position: 800, bytes: 100, hash: 1 }
}

/// Merges as soon as there is a kilobyte.
fn merging(footer_bytes_min: Option<u32>) -> MergerConfig {
    MergerConfig {
        interval: Duration::from_secs(1),
        unit_bytes: 1000,
        footer_bytes_min,
        ..MergerConfig::default()
    }
}

fn create() -> Command {
    Command::CreateTopic {
        topic: TOPIC,
        name: "t".to_owned(),
        partitions: 1,
        replication_factor: 1,
        configs: Default::default(),
    }
}

impl Place {
    fn new() -> Self {
        Self {
            log: MemoryLog::default(),
            objects: MemoryObjectStore::default(),
            room: MemoryPeers::new(1, 0.0, WAY),
        }
    }

    async fn start(&self, number: u64, config: EngineConfig) -> Result<Site, StartError> {
        self.start_amid(number, config, Faults::default()).await
    }

    async fn start_amid(
        &self,
        number: u64,
        config: EngineConfig,
        faults: Faults,
    ) -> Result<Site, StartError> {
        let objects = FaultyObjectStore::new(Arc::new(self.objects.clone()), number, faults);
        let faults = objects.control();
        let ports = Ports {
            objects: Arc::new(objects),
            log: Arc::new(self.log.clone()),
            clock: Arc::new(ManualClock::new(1_700_000_000_000)),
            peers: Arc::new(self.room.way_of(&alone::host(number))),
        };
        let engine = Engine::start(config, ports).await?;
        self.room.enter(&alone::host(number), 1, engine.clone());
        Ok(Site { engine, faults })
    }

    /// Two brokers that know of each other, and a topic.
    async fn pair(&self) -> [Site; 2] {
        let [first, second] =
            [self.start(1, config(1)).await.unwrap(), self.start(2, config(2)).await.unwrap()];
        assert_eq!(first.engine.machine.propose(create()).await, Ok(Outcome::Done));
        assert!(second.engine.machine.barrier().await.is_ok());
        [first, second]
    }

    /// The first commits something, of which the second is not told and can't read the footer.
    async fn commit_behind(&self, first: &Site, second: &Site) {
        self.room.lose(1.0);
        second.faults.outage(true);
        first.append().await;
    }

    /// What the log says of the newest commit.
    async fn last_footer(&self) -> (Lsn, FooterRef) {
        let commit = |entry: &Entry| {
            entry.proposals.iter().find_map(|it| match it.command {
                Command::CommitByFooter { footer, runs: None } => Some((entry.lsn, footer)),
                _ => None,
            })
        };
        self.entries().await.iter().rev().find_map(commit).unwrap()
    }

    /// All that the log has, without what stands in footers.
    async fn entries(&self) -> Vec<Entry> {
        let all = NonZeroUsize::new(10_000).unwrap();
        let LogRead::Entries { slots, .. } =
            self.log.read(Lsn::FIRST, all, Freshness::Latest).await.unwrap()
        else {
            panic!("trimmed")
        };
        slots.iter().map(|slot| Entry::decode(&slot.bytes).unwrap()).collect()
    }

    async fn take_away(&self, key: &ObjectKey) -> Bytes {
        let bytes = self.objects.get_range(key, 0..u64::MAX).await.unwrap().unwrap();
        self.objects.delete(std::slice::from_ref(key)).await.unwrap();
        bytes
    }

    async fn put(&self, key: &ObjectKey, bytes: Bytes) {
        assert!(self.objects.put_if_absent(key, bytes).await.is_ok());
    }

    async fn has(&self, segment: SegmentId) -> bool {
        self.objects.get_range(&segment.key(), 0..1).await.unwrap().is_some()
    }
}

impl Site {
    async fn append(&self) {
        let batches = vec![(PARTITION, batch(&Bytes::from_static(b"value"), (-1, -1, -1)))];
        let mut answers = self.engine.writer.append(batches).await.unwrap().await;
        assert!(answers.remove(0).is_ok());
    }

    /// Fills the log by one entry at least.
    async fn write(&self) {
        let outcome = self.engine.machine.propose(Command::AllocateProducerIds { count: 1 }).await;
        assert!(matches!(outcome, Ok(Outcome::ProducerIds { .. })), "{outcome:?}");
    }

    fn incarnation(&self) -> Incarnation {
        let node = self.engine.machine.node_id();
        self.engine.machine.read(|state| state.brokers()[&node].incarnation)
    }

    fn applied(&self) -> Lsn {
        self.engine.machine.read(|state| state.applied())
    }

    /// Appends until some of it is merged, and returns the segment where it is then.
    async fn append_until_merged(&self) -> SegmentId {
        let merged = |state: &State| {
            let mut all = state.segments().referenced().iter();
            all.find(|(_, refs)| refs.level > 0).map(|(id, _)| *id)
        };
        loop {
            if let Some(segment) = self.engine.machine.read(merged) {
                return segment;
            }
            self.append().await;
            sleep(Duration::from_millis(100)).await;
        }
    }

    fn footers_read(&self) -> u64 {
        self.engine.machine.counts().footers_read.get()
    }

    fn assert_equal(&self, other: &Self) {
        let at = |site: &Self| {
            site.engine.machine.read(|state| {
                let end = state.partition(PARTITION).unwrap().high_watermark;
                (state.applied(), state.digest(), end)
            })
        };
        assert_eq!(at(self), at(other));
    }
}

#[tokio::test(start_paused = true)]
async fn whoever_is_told_has_the_footers_with_it() {
    let place = Place::new();
    let [first, second] = place.pair().await;
    for _ in 0..50 {
        first.append().await;
        sleep(2 * WAY).await;
        first.assert_equal(&second);
    }
    // Now and then it looks just before it is told.
    assert_eq!(first.footers_read(), 0);
    assert!(second.footers_read() < 5, "{}", second.footers_read());
    // What the log has is a few dozen bytes, however much stands in the footer.
    let (_, footer) = place.last_footer().await;
    assert!(footer.bytes > 0);
}

#[tokio::test(start_paused = true)]
async fn whoever_is_not_told_reads_them() {
    let place = Place::new();
    let [first, second] = place.pair().await;
    place.room.lose(1.0);
    for _ in 0..50 {
        first.append().await;
    }
    assert!(second.engine.machine.barrier().await.is_ok());
    first.assert_equal(&second);
    assert_eq!((first.footers_read(), second.footers_read()), (0, 50));
    // As does who comes later.
    let third = place.start(3, config(3)).await.unwrap();
    assert!(first.engine.machine.barrier().await.is_ok());
    third.assert_equal(&first);
    third.append().await;
    assert!(first.engine.machine.barrier().await.is_ok());
    third.assert_equal(&first);
}

#[tokio::test(start_paused = true)]
async fn what_is_merged_is_told_with_its_footers_and_read_by_who_is_not_told() {
    for is_told in [true, false] {
        let place = Place::new();
        let [_, second] = place.pair().await;
        let mut config = config(3);
        config.life.merger = merging(Some(0));
        let merger = place.start(3, config).await.unwrap();
        assert!(second.engine.machine.barrier().await.is_ok());
        place.room.lose(if is_told { 0.0 } else { 1.0 });
        let before = second.footers_read();
        for _ in 0..5 {
            merger.append_until_merged().await;
            let delete = Command::DeleteRecords { partition: PARTITION, before: None };
            assert!(merger.engine.machine.propose(delete).await.is_ok());
            sleep(2 * WAY).await;
        }
        assert!(second.engine.machine.barrier().await.is_ok());
        second.assert_equal(&merger);
        let entries = place.entries().await;
        let commands = || entries.iter().flat_map(|it| &it.proposals).map(|it| &it.command);
        let is_swap = |it: &&Command| matches!(it, Command::ReplaceByFooter { .. });
        assert!(commands().filter(is_swap).count() >= 5);
        let named = commands().filter(|it| is_swap(it) || is_commit(it)).count();
        let read = usize::try_from(second.footers_read() - before).unwrap();
        // Now and then it looks just before it is told.
        assert!(if is_told { read < named / 4 } else { read == named }, "{read} of {named}");
    }
}

fn is_commit(command: &Command) -> bool {
    matches!(command, Command::CommitByFooter { .. })
}

#[tokio::test(start_paused = true)]
async fn without_the_store_nothing_behind_a_footer_is_applied_and_nothing_is_lost() {
    let place = Place::new();
    let [first, second] = place.pair().await;
    place.room.lose(1.0);
    first.append().await;
    let (lsn, _) = place.last_footer().await;
    second.faults.outage(true);
    assert!(second.engine.machine.barrier().await.is_err());
    assert!(second.applied() < lsn);
    // What it proposes meanwhile waits, however often it finds the slot taken.
    let machine = second.engine.machine.clone();
    let proposed = tokio::spawn(async move { machine.propose(Command::Heartbeat).await });
    sleep(Duration::from_secs(60 * 60)).await;
    assert!(!proposed.is_finished());
    assert!(second.applied() < lsn);
    // The other serves on: it has what it wrote.
    first.append().await;
    second.faults.outage(false);
    assert_eq!(proposed.await.unwrap(), Ok(Outcome::Done));
    assert!(first.engine.machine.barrier().await.is_ok());
    assert!(second.engine.machine.barrier().await.is_ok());
    first.assert_equal(&second);
}

#[tokio::test(start_paused = true)]
async fn a_footer_that_is_not_what_was_named_is_waited_for() {
    let place = Place::new();
    let [first, second] = place.pair().await;
    place.commit_behind(&first, &second).await;
    let (lsn, footer) = place.last_footer().await;
    let key = footer.segment.key();
    let good = place.take_away(&key).await;
    second.faults.outage(false);
    assert!(second.engine.machine.barrier().await.is_err());
    // One bit of the footer, or another segment's in its place.
    let mut damaged = good.to_vec();
    damaged[good.len() - 14] ^= 1;
    for bad in [Bytes::from(damaged), good.slice(1..)] {
        place.put(&key, bad).await;
        assert!(second.engine.machine.barrier().await.is_err());
        assert!(second.applied() < lsn);
        place.take_away(&key).await;
    }
    place.put(&key, good).await;
    assert!(second.engine.machine.barrier().await.is_ok());
    first.assert_equal(&second);
}

#[tokio::test(start_paused = true)]
async fn one_that_is_lost_ends_a_start_and_is_waited_for_by_who_runs() {
    let place = Place::new();
    let [first, second] = place.pair().await;
    place.commit_behind(&first, &second).await;
    let (_, footer) = place.last_footer().await;
    place.take_away(&footer.segment.key()).await;
    first.engine.stop().await;
    // No snapshot has it: a start waits for nothing that may come, and says what is missing.
    let error = place.start(3, config(3)).await.err();
    assert!(matches!(error, Some(StartError::NoFooter { .. })), "{error:?}");
    second.faults.outage(false);
    assert!(timeout(Duration::from_secs(60), second.engine.machine.halted()).await.is_err());
}

#[tokio::test(start_paused = true)]
async fn who_slept_past_a_footer_stops_and_says_so() {
    let place = Place::new();
    let [first, second] = place.pair().await;
    place.commit_behind(&first, &second).await;
    let (_, footer) = place.last_footer().await;
    let mut often = config(3);
    often.machine.snapshot_entries = 1;
    let third = place.start(3, often).await.unwrap();
    third.write().await;
    sleep(Duration::from_secs(1)).await;
    place.take_away(&footer.segment.key()).await;
    second.faults.outage(false);
    let halted = timeout(Duration::from_secs(60), second.engine.machine.halted());
    let reason = halted.await.unwrap().to_string();
    assert!(reason.contains("slept too long"), "{reason}");
    let again = place.start(2, config(2)).await.unwrap();
    assert!(again.engine.machine.barrier().await.is_ok());
    assert!(third.engine.machine.barrier().await.is_ok());
    again.assert_equal(&third);
}

#[tokio::test(start_paused = true)]
async fn what_is_turned_away_needs_no_footer() {
    let place = Place::new();
    let [first, second] = place.pair().await;
    let began = first.applied();
    assert!(first.engine.machine.propose(Command::Heartbeat).await.is_ok());
    let raise = Command::RaiseHorizon { to: first.applied() };
    assert_eq!(first.engine.machine.propose(raise).await, Ok(Outcome::Done));
    place.room.lose(1.0);
    // Its segment was swept as an orphan, or never put.
    let segment = SegmentId { began, incarnation: first.incarnation(), counter: 77 };
    let footer = some_footer(segment);
    for late in [
        Command::CommitByFooter { footer, runs: Some(Vec::new()) },
        Command::ReplaceByFooter { footer, level: 1, replacements: Some(Vec::new()) },
    ] {
        let outcome = first.engine.machine.propose(late).await;
        assert!(
            matches!(outcome, Ok(Outcome::Rejected(Rejection::SegmentTooOld { .. }))),
            "{outcome:?}"
        );
    }
    first.append().await;
    assert!(second.engine.machine.barrier().await.is_ok());
    first.assert_equal(&second);
    let third = place.start(3, config(3)).await.unwrap();
    assert!(first.engine.machine.barrier().await.is_ok());
    third.assert_equal(&first);
}

#[tokio::test(start_paused = true)]
async fn what_another_is_asked_to_append_comes_with_its_footers() {
    let place = Place::new();
    let [first, second] = place.pair().await;
    place.room.lose(1.0);
    let id = CommandId { incarnation: second.incarnation(), counter: 1_000 };
    let segment = SegmentId { began: first.applied(), incarnation: id.incarnation, counter: 7 };
    let footer = some_footer(segment);
    let proposals =
        vec![Proposal { id, command: Command::CommitByFooter { footer, runs: Some(Vec::new()) } }];
    let before = first.applied();
    // Not with it, or not the one that is named: it would have to be read before it is applied.
    for footers in [Vec::new(), vec![Bytes::from_static(b"no footer")]] {
        let news = News::Help { proposals: proposals.clone(), footers };
        let message = PeerMessage { to: first.incarnation(), from: second.incarnation(), news };
        first.engine.machine.receive(PeerMessage::decode(&message.encode()).unwrap());
        sleep(Duration::from_secs(1)).await;
    }
    assert_eq!(first.applied(), before, "nothing was appended but heartbeats");
}

/// Sweeps at once what may be swept.
fn eager(number: u64, snapshot_entries: u64) -> EngineConfig {
    let mut config = config(number);
    config.machine.snapshot_entries = snapshot_entries;
    config.machine.log_kept = Duration::from_secs(60 * 60);
    config.life.sweeper = SweeperConfig {
        interval: Duration::from_secs(1),
        commit_max: Duration::from_secs(3),
        grace: Duration::from_secs(3),
        listing_interval: Duration::from_secs(5),
        ..SweeperConfig::default()
    };
    config
}

#[tokio::test(start_paused = true)]
async fn a_segment_is_kept_until_two_snapshots_have_what_named_its_footer() {
    for (leaves_to_footers, is_merged) in
        [(true, false), (false, false), (true, true), (false, true)]
    {
        let place = Place::new();
        let mut config = eager(1, 1_000_000);
        // Of the two, that one only whose segment is looked at.
        let least = leaves_to_footers.then_some(0);
        config.writer.footer_bytes_min = least.filter(|_| !is_merged);
        if is_merged {
            config.life.merger = merging(least);
        }
        let writer = place.start(1, config).await.unwrap();
        assert_eq!(writer.engine.machine.propose(create()).await, Ok(Outcome::Done));
        let segment = if is_merged {
            writer.append_until_merged().await
        } else {
            writer.append().await;
            let first = |state: &State| *state.segments().referenced().keys().next().unwrap();
            writer.engine.machine.read(first)
        };
        let delete = Command::DeleteRecords { partition: PARTITION, before: None };
        assert!(writer.engine.machine.propose(delete).await.is_ok());
        // Time passes, and the log moves on.
        for _ in 0..30 {
            sleep(Duration::from_secs(1)).await;
            writer.write().await;
        }
        assert_eq!(place.has(segment).await, leaves_to_footers);
        // Whoever comes has to read it.
        place.start(2, self::config(2)).await.unwrap().engine.stop().await;
        // Another writes snapshots, and at last there are two. At any time somebody may begin.
        let _often = place.start(3, eager(3, 20)).await.unwrap();
        for number in 4..64 {
            sleep(Duration::from_secs(1)).await;
            writer.write().await;
            place.start(number, self::config(number)).await.unwrap().engine.stop().await;
        }
        assert!(!place.has(segment).await);
    }
}
