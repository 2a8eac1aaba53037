//! Appends whose outcome is not what it seems (RELIABILITY A4, A5, A6, A19).

use std::num::NonZeroUsize;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::time::Duration;

use async_trait::async_trait;
use bytes::Bytes;
use odradek_protocol::id::TopicPartition;
use odradek_storage::command::{Command, Entry, Outcome};
use odradek_storage::engine::Engine;
use odradek_storage::log::faulty::{Control, Fate, FaultyLog, LogFaults};
use odradek_storage::log::memory::MemoryLog;
use odradek_storage::log::{Append, Freshness, LogRead, MetadataLog};
use odradek_storage::lsn::Lsn;
use odradek_storage::machine::ProposeError;
use odradek_storage::object::memory::MemoryObjectStore;
use odradek_storage::peer::{News, PeerMessage};
use odradek_storage::port::PortError;
use odradek_tests::alone;
use odradek_tests::world::{TOPIC, batch, ports};

/// An engine, the log below its faults, and the faults.
struct Scene {
    engine: Engine,
    log: MemoryLog,
    objects: MemoryObjectStore,
    fates: Control<LogFaults>,
}

async fn scene(log: MemoryLog, objects: MemoryObjectStore, seed: u64) -> Scene {
    let faulty = FaultyLog::new(Arc::new(log.clone()), seed, LogFaults::default());
    let fates = faulty.control();
    let ports = ports(Arc::new(objects.clone()), Arc::new(faulty));
    let engine = Engine::start(alone::config(seed), ports).await.unwrap();
    Scene { engine, log, objects, fates }
}

async fn alone() -> Scene {
    let scene = scene(MemoryLog::default(), MemoryObjectStore::default(), 1).await;
    let create = Command::CreateTopic {
        topic: TOPIC,
        name: "t".to_owned(),
        partitions: 1,
        replication_factor: 1,
        configs: Default::default(),
    };
    assert_eq!(scene.engine.machine.propose(create).await, Ok(Outcome::Done));
    scene
}

impl Scene {
    /// Appends a record and returns its offset.
    async fn append(&self, value: &'static str) -> i64 {
        let partition = TopicPartition { topic: TOPIC, partition: 0 };
        let batches = vec![(partition, batch(&Bytes::from_static(value.as_bytes()), (-1, -1, -1)))];
        let mut answers = self.engine.writer.append(batches).await.unwrap().await;
        answers.remove(0).unwrap().base_offset.0
    }

    /// How many entries of the log commit segments.
    async fn commits(&self) -> usize {
        let LogRead::Entries { slots, .. } =
            self.log.read(Lsn::FIRST, 10_000.try_into().unwrap(), Freshness::Latest).await.unwrap()
        else {
            panic!("trimmed");
        };
        let commits = |slot: &odradek_storage::log::Slot| {
            let entry = Entry::decode(&slot.bytes).unwrap();
            let is_commit = |it: &odradek_storage::command::Proposal| {
                matches!(it.command, Command::CommitSegment { .. })
            };
            entry.proposals.iter().filter(|it| is_commit(it)).count()
        };
        slots.iter().map(commits).sum()
    }
}

#[tokio::test(start_paused = true)]
async fn an_append_of_unknown_outcome_is_applied_once() {
    let late = |ms| Fate::Late(Duration::from_millis(ms));
    let scripts: Vec<Vec<Fate>> = vec![
        vec![Fate::AnswerLost],
        vec![Fate::Lost],
        vec![Fate::AnswerLost, Fate::AnswerLost, Fate::Lost],
        vec![Fate::Lost, Fate::AnswerLost],
        // Refused after an attempt that went unanswered proves nothing about that attempt.
        vec![Fate::AnswerLost, Fate::Refused],
        vec![late(1), Fate::Lost, Fate::Lost, Fate::Lost],
        vec![late(500), Fate::Lost],
        vec![late(60_000)],
        vec![late(5), Fate::Refused, Fate::Refused, Fate::AnswerLost],
    ];
    let scene = alone().await;
    for (n, script) in scripts.into_iter().enumerate() {
        scene.fates.script(script.clone());
        let offset = scene.append("x").await;
        assert_eq!(offset, i64::try_from(n).unwrap(), "{script:?}");
        assert_eq!(scene.commits().await, n + 1, "{script:?}");
    }
    // Whatever was late lands now, and changes nothing.
    tokio::time::sleep(Duration::from_secs(120)).await;
    let offset = scene.append("last").await;
    assert_eq!(usize::try_from(offset).unwrap() + 1, scene.commits().await);
}

#[tokio::test(start_paused = true)]
async fn a_refused_append_is_a_definite_no_and_the_next_one_works() {
    let scene = alone().await;
    scene.fates.script([Fate::Refused]);
    let answer = scene.engine.machine.propose(Command::Heartbeat).await;
    assert!(matches!(answer, Err(ProposeError::NotAppended(_))), "{answer:?}");
    assert_eq!(scene.engine.machine.propose(Command::Heartbeat).await, Ok(Outcome::Done));
}

/// A log that counts how often it is read, and can refuse it at once.
#[derive(Debug, Default)]
struct CountedLog {
    inner: MemoryLog,
    reads: AtomicUsize,
    refuses: AtomicBool,
}

/// More reads than a broker makes in minutes. Whoever asks without end must not hang the test.
const READS_MAX: usize = 100_000;

#[async_trait]
impl MetadataLog for CountedLog {
    async fn append(&self, at: Lsn, bytes: Bytes) -> Result<Append, PortError> {
        self.inner.append(at, bytes).await
    }

    async fn read(
        &self,
        from: Lsn,
        limit: NonZeroUsize,
        freshness: Freshness,
    ) -> Result<LogRead, PortError> {
        assert!(self.reads.fetch_add(1, Ordering::Relaxed) < READS_MAX, "read without end");
        if self.refuses.load(Ordering::Relaxed) {
            return Err(PortError::determinate("refused"));
        }
        self.inner.read(from, limit, freshness).await
    }

    async fn tail(&self) -> Result<Lsn, PortError> {
        self.inner.tail().await
    }

    async fn trim(&self, before: Lsn) -> Result<(), PortError> {
        self.inner.trim(before).await
    }
}

#[tokio::test(start_paused = true)]
async fn a_log_that_refuses_at_once_is_not_asked_without_end() {
    let log = Arc::new(CountedLog::default());
    let objects = MemoryObjectStore::default();
    let ports = || {
        let log: Arc<dyn MetadataLog> = Arc::<CountedLog>::clone(&log);
        ports(Arc::new(objects.clone()), log)
    };
    let first = Engine::start(alone::config(1), ports()).await.unwrap();
    let second = Engine::start(alone::config(2), ports()).await.unwrap();
    assert!(first.machine.barrier().await.is_ok());
    log.refuses.store(true, Ordering::Relaxed);
    // One that can still read says that there is more.
    let incarnation = |node| second.machine.read(|state| state.brokers()[&node].incarnation);
    first.machine.receive(PeerMessage {
        to: incarnation(first.machine.node_id()),
        from: incarnation(second.machine.node_id()),
        news: News::Filled { lsn: Lsn::new(1_000_000), entry: None },
    });
    tokio::time::sleep(Duration::from_secs(60)).await;
    log.refuses.store(false, Ordering::Relaxed);
    assert!(first.machine.barrier().await.is_ok());
    let reads = log.reads.load(Ordering::Relaxed);
    assert!((60..10_000).contains(&reads), "{reads} reads");
}

#[tokio::test(start_paused = true)]
async fn an_outage_is_waited_out() {
    let scene = alone().await;
    scene.fates.outage(true);
    let machine = scene.engine.machine.clone();
    let proposed = tokio::spawn(async move { machine.propose(Command::Heartbeat).await });
    tokio::time::sleep(Duration::from_secs(3600)).await;
    assert!(!proposed.is_finished());
    scene.fates.outage(false);
    assert_eq!(proposed.await.unwrap(), Ok(Outcome::Done));
    assert_eq!(scene.append("after").await, 0);
}

#[tokio::test(start_paused = true)]
async fn a_broker_that_slept_through_a_trim_never_wins_a_trimmed_slot() {
    let first = alone().await;
    // Its next append is sent now and arrives a minute later, as from a process that was stopped.
    // However soon it is repeated, nothing else arrives.
    let late = std::iter::once(Fate::Late(Duration::from_secs(60)));
    first.fates.script(late.chain(std::iter::repeat_n(Fate::Lost, 200)));
    let partition = TopicPartition { topic: TOPIC, partition: 0 };
    let batches = vec![(partition, batch(&Bytes::from_static(b"stale"), (-1, -1, -1)))];
    let appending = first.engine.writer.append(batches).await.unwrap();
    tokio::time::sleep(Duration::from_millis(5)).await;
    let second = scene(first.log.clone(), first.objects.clone(), 2).await;
    for _ in 0..10 {
        assert_eq!(second.engine.machine.propose(Command::Heartbeat).await, Ok(Outcome::Done));
    }
    let tail = first.log.tail().await.unwrap();
    first.log.trim(tail).await.unwrap();
    tokio::time::sleep(Duration::from_secs(120)).await;
    // The late append found no slot: whoever sent it learns that and stops, and says nothing that
    // it can't know.
    assert!(appending.await[0].is_err());
    let halted = tokio::time::timeout(Duration::from_secs(60), first.engine.machine.halted());
    let reason = halted.await.expect("it stops");
    assert!(reason.to_string().contains("slept too long"), "{reason}");
    // Nothing is there, and the log goes on.
    assert_eq!(second.engine.machine.propose(Command::Heartbeat).await, Ok(Outcome::Done));
    let end = second.engine.machine.read(|state| state.high_watermark(partition));
    assert_eq!(end.map(|end| end.0), Some(0));
}

#[tokio::test(start_paused = true)]
async fn a_broker_that_was_expired_while_alive_registers_again_and_loses_nothing() {
    let log = MemoryLog::default();
    let objects = MemoryObjectStore::default();
    let first = scene(log.clone(), objects.clone(), 1).await;
    let second = scene(log, objects, 2).await;
    let create = Command::CreateTopic {
        topic: TOPIC,
        name: "t".to_owned(),
        partitions: 1,
        replication_factor: 1,
        configs: Default::default(),
    };
    assert_eq!(second.engine.machine.propose(create).await, Ok(Outcome::Done));
    for round in 0..5 {
        let (incarnation, seen) = first.engine.machine.read(|state| {
            let broker = &state.brokers()[&first.engine.machine.node_id()];
            (broker.incarnation, Lsn::new(u64::MAX))
        });
        let expire = Command::ExpireBroker { incarnation, seen };
        assert_eq!(second.engine.machine.propose(expire).await, Ok(Outcome::Done));
        assert_eq!(first.append("x").await, round);
        let listed = first.engine.machine.read(|state| state.brokers().len());
        assert_eq!(listed, 2);
    }
}
