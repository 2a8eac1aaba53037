//! A put that arrives after its slot was trimmed: the table takes it, and nobody may believe it
//! (RELIABILITY A6).

use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use odradek_storage::clock::SystemClock;
use odradek_storage::command::{BrokerAddress, Command, Outcome};
use odradek_storage::engine::{Engine, EngineConfig, Ports};
use odradek_storage::life::LifeConfig;
use odradek_storage::location::open_dynamodb;
use odradek_storage::log::dynamodb::DynamoDbLog;
use odradek_storage::log::{Append, Freshness, LogRead, Lsn, MetadataLog};
use odradek_storage::machine::MachineConfig;
use odradek_storage::object::memory::MemoryObjectStore;
use odradek_storage::peer::NoPeers;
use odradek_storage::port::PortError;
use odradek_storage::reader::ReaderConfig;
use odradek_storage::writer::WriterConfig;
use odradek_tests::fault_proxy::{Chance, FaultProxy, Faults};
use tokio::time::sleep;

use odradek_tests::servers::{Server, options};

async fn log_at(address: std::net::SocketAddr, table: &str) -> DynamoDbLog {
    open_dynamodb(&format!("dynamodb://{table}?{}", options(address)), "log").await.unwrap()
}

async fn fill(log: &DynamoDbLog, numbers: std::ops::RangeInclusive<u64>) {
    for number in numbers {
        let entry = Bytes::from(format!("entry {number}"));
        assert_eq!(log.append(Lsn::new(number), entry).await.unwrap(), Append::Committed);
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_put_that_lands_behind_a_trim_is_not_believed() {
    let server = Server::dynamodb().await;
    let quick = log_at(server.address(), "trims").await;
    fill(&quick, 1..=3).await;

    let proxy = FaultProxy::start(server.address(), 1);
    let slow = log_at(proxy.address(), "trims").await;
    assert_eq!(slow.tail().await.unwrap(), Lsn::new(4));
    // This one has read the floor, and sleeps from now on.
    let asleep = quick.apart("log");
    assert_eq!(asleep.tail().await.unwrap(), Lsn::new(4));
    let late = Faults {
        late: Chance::once("PutItem"),
        late_max: Duration::from_secs(2),
        ..Faults::default()
    };
    proxy.set_faults(late);
    let mine = Bytes::from_static(b"prepared before the trim");
    let sent = slow.append(Lsn::new(4), mine.clone()).await;
    assert!(matches!(sent, Err(PortError::Indeterminate(_))), "{sent:?}");

    fill(&quick, 4..=9).await;
    quick.trim(Lsn::new(8)).await.unwrap();
    while proxy.counts()["PutItem"].delivered < 1 {
        sleep(Duration::from_millis(20)).await;
    }
    // Now it stands in the table, in a slot that nobody reads any more, also who slept.
    for freshness in [Freshness::Recent, Freshness::Latest] {
        let read = asleep.read(Lsn::new(4), 9.try_into().unwrap(), freshness).await.unwrap();
        assert_eq!(read, LogRead::Trimmed(Lsn::new(8)), "{freshness:?}");
    }
    // Sent again it is found there.
    assert_eq!(slow.append(Lsn::new(4), mine.clone()).await.unwrap(), Append::Trimmed);
    let apart = quick.apart("log");
    assert_eq!(apart.append(Lsn::new(4), mine).await.unwrap(), Append::Trimmed);
    let read = slow.read(Lsn::new(4), 9.try_into().unwrap(), Freshness::Latest).await.unwrap();
    assert_eq!(read, LogRead::Trimmed(Lsn::new(8)));
    assert_eq!(apart.tail().await.unwrap(), Lsn::new(10));
}

/// A whole engine, cut off with an append on its way, while another goes on and the log is trimmed.
#[tokio::test(flavor = "multi_thread")]
async fn a_broker_that_slept_through_a_trim_stops_and_acknowledges_nothing() {
    let server = Server::dynamodb().await;
    let proxy = FaultProxy::start(server.address(), 1);
    let objects = Arc::new(MemoryObjectStore::default());
    let start = async |host: &str, log: DynamoDbLog| {
        let config = EngineConfig {
            address: BrokerAddress { host: host.to_owned(), ..BrokerAddress::default() },
            seed: u64::from(host.as_bytes()[0]),
            machine: MachineConfig::default(),
            writer: WriterConfig::default(),
            reader: ReaderConfig::default(),
            life: LifeConfig::default(),
        };
        let (log, clock) = (Arc::new(log), Arc::new(SystemClock));
        let ports = Ports {
            objects: Arc::<MemoryObjectStore>::clone(&objects),
            log,
            clock,
            peers: Arc::new(NoPeers),
        };
        Engine::start(config, ports).await.unwrap()
    };
    let log = log_at(server.address(), "sleeper").await;
    let awake = start("awake", log.apart("log")).await;
    let asleep = start("sleeper", log_at(proxy.address(), "sleeper").await).await;

    proxy.set_faults(Faults { black_hole: true, ..Faults::default() });
    let machine = asleep.machine.clone();
    let allocate = |count| Command::AllocateProducerIds { count };
    let proposed = tokio::spawn(async move { machine.propose(allocate(1)).await });
    while proxy.counts().get("PutItem").is_none_or(|it| it.requests == it.delivered) {
        sleep(Duration::from_millis(20)).await;
    }
    for _ in 0..5 {
        let outcome = awake.machine.propose(allocate(1)).await;
        assert!(matches!(outcome, Ok(Outcome::ProducerIds { .. })), "{outcome:?}");
    }
    let tail = log.tail().await.unwrap();
    log.trim(tail).await.unwrap();
    proxy.set_faults(Faults::default());

    let reason = asleep.machine.halted().await.to_string();
    assert!(reason.contains("slept too long"), "{reason}");
    let outcome = proposed.await.unwrap();
    assert!(outcome.is_err(), "{outcome:?} was said of a command that is in no entry");
    let next = awake.machine.propose(allocate(1)).await;
    assert!(matches!(next, Ok(Outcome::ProducerIds { .. })), "{next:?}");
}
