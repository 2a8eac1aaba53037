//! Entries that brokers send each other: they save reading the log, and prove nothing.

use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use odradek_protocol::id::TopicId;
use odradek_storage::clock::ManualClock;
use odradek_storage::command::{Command, Entry, Incarnation, Outcome};
use odradek_storage::engine::{Engine, Ports};
use odradek_storage::log::memory::MemoryLog;
use odradek_storage::log::{Freshness, LogRead, MetadataLog};
use odradek_storage::lsn::Lsn;
use odradek_storage::object::memory::MemoryObjectStore;
use odradek_storage::peer::memory::MemoryPeers;
use odradek_storage::peer::{News, PeerMessage, SentEntry};
use odradek_storage::state::State;
use odradek_tests::alone;
use tokio::time::sleep;
use uuid::Uuid;

/// Longest way from one broker to another.
const WAY: Duration = Duration::from_millis(2);

/// Two brokers of a cluster.
struct Pair {
    log: MemoryLog,
    room: MemoryPeers,
    first: Engine,
    second: Engine,
}

async fn pair(seeds: [u64; 2]) -> Pair {
    let (log, objects) = (MemoryLog::default(), MemoryObjectStore::default());
    let room = MemoryPeers::new(1, 0.0, WAY);
    let first = start(seeds[0], &log, &objects, &room).await;
    let second = start(seeds[1], &log, &objects, &room).await;
    // Each has seen that the other is there.
    assert_eq!(first.machine.propose(Command::Heartbeat).await, Ok(Outcome::Done));
    assert!(second.machine.barrier().await.is_ok());
    Pair { log, room, first, second }
}

async fn start(
    seed: u64,
    log: &MemoryLog,
    objects: &MemoryObjectStore,
    room: &MemoryPeers,
) -> Engine {
    let ports = Ports {
        objects: Arc::new(objects.clone()),
        log: Arc::new(log.clone()),
        clock: Arc::new(ManualClock::new(1_700_000_000_000)),
        peers: Arc::new(room.way_of(&alone::host(seed))),
    };
    let engine = Engine::start(alone::config(seed), ports).await.unwrap();
    room.enter(&alone::host(seed), 1, engine.clone());
    engine
}

fn incarnation(engine: &Engine) -> Incarnation {
    let node = engine.machine.node_id();
    engine.machine.read(|state| state.brokers()[&node].incarnation)
}

fn told(engine: &Engine) -> u64 {
    engine.machine.counts().told.get()
}

fn create(number: u32) -> Command {
    Command::CreateTopic {
        topic: TopicId(Uuid::from_u128(u128::from(number) + 1)),
        name: format!("topic-{number}"),
        partitions: 1,
        replication_factor: 1,
        configs: Default::default(),
    }
}

impl Pair {
    /// The second broker is where the first is, in place and in state.
    fn assert_equal(&self) {
        let at = |engine: &Engine| engine.machine.read(|state| (state.applied(), state.digest()));
        assert_eq!(at(&self.first), at(&self.second));
    }

    async fn entries(&self) -> Vec<Bytes> {
        let all = 10_000.try_into().unwrap();
        match self.log.read(Lsn::FIRST, all, Freshness::Latest).await.unwrap() {
            LogRead::Entries { slots, .. } => slots.into_iter().map(|slot| slot.bytes).collect(),
            LogRead::Trimmed(floor) => panic!("trimmed to {floor}"),
        }
    }

    /// The second broker hears from the first that this is the entry at `lsn`.
    fn tell(&self, lsn: Lsn, bytes: Bytes) {
        let entry = SentEntry { bytes, footers: Vec::new() };
        self.second.machine.receive(PeerMessage {
            to: incarnation(&self.second),
            from: incarnation(&self.first),
            news: News::Filled { lsn, entry: Some(entry) },
        });
    }
}

#[tokio::test(start_paused = true)]
async fn whoever_is_told_what_others_wrote_need_not_read_it() {
    let pair = pair([1, 2]).await;
    let (before, reads) = (told(&pair.second), pair.second.ports.read.answered.read().count);
    for number in 0..200 {
        assert_eq!(pair.first.machine.propose(create(number)).await, Ok(Outcome::Done));
        sleep(2 * WAY).await;
        pair.assert_equal();
        sleep(Duration::from_millis(100)).await;
    }
    assert_eq!(told(&pair.second) - before, 200);
    // Now and then it looks all the same, should somebody fail to tell it.
    let reads = pair.second.ports.read.answered.read().count - reads;
    assert!((10..60).contains(&reads), "{reads} reads");
}

#[tokio::test(start_paused = true)]
async fn what_gets_lost_or_comes_too_late_is_read() {
    let pair = pair([1, 2]).await;
    for (round, lost) in [0.3, 0.9, 1.0].into_iter().enumerate() {
        pair.room.lose(lost);
        for number in 0..50 {
            let number = 50 * u32::try_from(round).unwrap() + number;
            assert_eq!(pair.first.machine.propose(create(number)).await, Ok(Outcome::Done));
            sleep(WAY / 4).await;
        }
        assert!(pair.second.machine.barrier().await.is_ok());
        pair.assert_equal();
    }
    assert!(told(&pair.second) > 0);
}

#[tokio::test(start_paused = true)]
async fn what_is_not_the_next_entry_is_left_for_the_log_to_say() {
    let pair = pair([1, 2]).await;
    pair.room.lose(1.0);
    // Of a cluster that has written as much, and differs in all that it wrote.
    let other = self::pair([3, 4]).await;
    let next = pair.second.machine.read(|state| state.applied().next());
    let last = other.entries().await.pop().unwrap();
    let strange = Entry { lsn: next, ..Entry::decode(&last).unwrap() };
    let same_log = Entry { log_id: pair.second.machine.read(State::log_id), ..strange.clone() };
    let before = told(&pair.second);
    for entry in [strange.encode(), same_log.encode(), last, Bytes::from_static(b"nothing")] {
        pair.tell(next, entry);
        sleep(Duration::from_millis(10)).await;
    }
    assert_eq!(pair.first.machine.propose(create(1)).await, Ok(Outcome::Done));
    assert!(pair.second.machine.barrier().await.is_ok());
    pair.assert_equal();
    assert_eq!(told(&pair.second), before);

    // What was applied, what comes later, and then what comes next: only the last counts.
    let known = pair.entries().await;
    for number in 2..5 {
        assert_eq!(pair.first.machine.propose(create(number)).await, Ok(Outcome::Done));
    }
    let entries = pair.entries().await;
    let lsn = |at: usize| Lsn::new(u64::try_from(at + 1).unwrap());
    for at in [0, known.len() - 1, known.len() + 1, known.len() + 2, known.len()] {
        pair.tell(lsn(at), entries[at].clone());
    }
    sleep(Duration::from_millis(1)).await;
    pair.assert_equal();
    assert_eq!(told(&pair.second) - before, 3);
}
