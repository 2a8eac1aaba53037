//! Fairness: twelve brokers race for the log, one of them by a way that is four times as long.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

use odradek_protocol::id::TopicId;
use odradek_storage::clock::ManualClock;
use odradek_storage::command::{Command, Outcome};
use odradek_storage::engine::{Engine, Ports};
use odradek_storage::log::ENTRY_BYTES_MAX;
use odradek_storage::log::faulty::{FaultyLog, LogFaults};
use odradek_storage::log::memory::MemoryLog;
use odradek_storage::machine::{Machine, ProposeError};
use odradek_storage::object::memory::MemoryObjectStore;
use odradek_storage::peer::memory::MemoryPeers;
use odradek_storage::peer::{NoPeers, PeerLink};
use odradek_tests::alone;
use tokio::time::{Instant, sleep};
use uuid::Uuid;

const BROKERS: u64 = 12;

/// How often each broker has something to commit.
const LINGER: Duration = Duration::from_millis(50);

const RUN: Duration = Duration::from_secs(60);

/// Longest way to the log and back, each, for most brokers.
const WAY: Duration = Duration::from_millis(4);

/// What one broker came to, in simulated time.
struct Share {
    commits: usize,
    p99: Duration,
}

async fn start(number: u64, log: &MemoryLog, objects: &MemoryObjectStore, peers: &Peers) -> Engine {
    let way = if number == BROKERS { WAY * 4 } else { WAY };
    let faults = LogFaults { delayed: 1.0, delay_max: way, ..LogFaults::default() };
    let log = FaultyLog::new(Arc::new(log.clone()), number, faults);
    let clock = Arc::new(ManualClock::new(1_700_000_000_000));
    let link: Arc<dyn PeerLink> = match peers {
        Some(room) => Arc::new(room.way_of(&alone::host(number))),
        None => Arc::new(NoPeers),
    };
    let ports =
        Ports { objects: Arc::new(objects.clone()), log: Arc::new(log), clock, peers: link };
    let engine = Engine::start(alone::config(number), ports).await.unwrap();
    if let Some(room) = peers {
        room.enter(&alone::host(number), 1, engine.clone());
    }
    engine
}

type Peers = Option<MemoryPeers>;

/// Runs the race; gives the shares of the brokers, that of the slow one last.
fn race(peers: Peers) -> Vec<Share> {
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_time()
        .start_paused(true)
        .build()
        .unwrap();
    runtime.block_on(async move {
        let (log, objects) = (MemoryLog::default(), MemoryObjectStore::default());
        let mut racers = Vec::new();
        for number in 1..=BROKERS {
            let engine = start(number, &log, &objects, &peers).await;
            tokio::spawn(ask_too_much(engine.machine.clone()));
            racers.push(tokio::spawn(commit_for_a_while(engine)));
        }
        let mut shares = Vec::new();
        for racer in racers {
            shares.push(racer.await.unwrap());
        }
        shares
    })
}

/// Commits something after each linger, however long the one before took.
async fn commit_for_a_while(engine: Engine) -> Share {
    let end = Instant::now() + RUN;
    let mut latencies = Vec::new();
    while Instant::now() < end {
        let began = Instant::now();
        let outcome = engine.machine.propose(Command::Heartbeat).await;
        assert_eq!(outcome, Ok(Outcome::Done));
        latencies.push(began.elapsed());
        sleep(LINGER).await;
    }
    latencies.sort();
    Share { commits: latencies.len(), p99: latencies[latencies.len() * 99 / 100] }
}

/// Now and then proposes what no log takes: a broker that waited for it would wait for ever, above
/// all one that has asked others to append it as well.
async fn ask_too_much(machine: Machine) {
    loop {
        sleep(RUN / 10).await;
        let command = Command::CreateTopic {
            topic: TopicId(Uuid::from_u128(1)),
            name: "x".repeat(ENTRY_BYTES_MAX),
            partitions: 1,
            replication_factor: 1,
            configs: BTreeMap::new(),
        };
        let outcome = machine.propose(command).await;
        assert!(matches!(outcome, Err(ProposeError::NotAppended(_))), "{outcome:?}");
    }
}

fn print(what: &str, shares: &[Share]) {
    let slow = shares.last().unwrap();
    let quick = shares[..shares.len() - 1].iter().map(|share| share.p99).max().unwrap();
    let (commits, p99) = (slow.commits, slow.p99);
    println!("{what}: slow broker {commits} commits, p99 {p99:?}; p99 of the others {quick:?}");
}

#[test]
fn the_slowest_of_twelve_brokers_commits_within_a_second() {
    let helped = race(Some(MemoryPeers::new(1, 0.01, Duration::from_millis(4))));
    print("with help", &helped);
    for share in &helped {
        assert!(share.p99 < Duration::from_secs(1), "{:?}", share.p99);
    }
    let alone = race(None);
    print("without help", &alone);
    let (helped, alone) = (helped.last().unwrap(), alone.last().unwrap());
    assert!(helped.p99 < alone.p99, "{:?} with help, {:?} without", helped.p99, alone.p99);
}
