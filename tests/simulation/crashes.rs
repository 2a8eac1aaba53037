//! A crash at every moment of the produce path (RELIABILITY A1, A3).

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use odradek_protocol::id::{Offset, TopicPartition};
use odradek_storage::command::{BrokerAddress, Command, Outcome};
use odradek_storage::engine::{Engine, EngineConfig};
use odradek_storage::life::LifeConfig;
use odradek_storage::log::faulty::{FaultyLog, LogFaults};
use odradek_storage::log::memory::MemoryLog;
use odradek_storage::machine::MachineConfig;
use odradek_storage::object::faulty::{Faults, FaultyObjectStore};
use odradek_storage::object::memory::MemoryObjectStore;
use odradek_storage::reader::{FetchTarget, Isolation, ReaderConfig};
use odradek_storage::writer::WriterConfig;
use odradek_tests::batches::read_records;
use odradek_tests::world::{TOPIC, batch, ports};

const PARTITION: TopicPartition = TopicPartition { topic: TOPIC, partition: 0 };

/// How long the path from the writer to the acknowledgement is: two delays each for the put, the
/// append and what lies between, of a few milliseconds.
const PATH_MS: u64 = 60;

async fn start(log: &MemoryLog, objects: &MemoryObjectStore, seed: u64) -> Engine {
    let calls =
        LogFaults { delayed: 1.0, delay_max: Duration::from_millis(12), ..LogFaults::default() };
    let faults = Faults { calls: calls.clone(), ..Faults::default() };
    let config = EngineConfig {
        address: BrokerAddress { host: "broker".to_owned(), ..BrokerAddress::default() },
        seed,
        machine: MachineConfig::default(),
        writer: WriterConfig::default(),
        reader: ReaderConfig::default(),
        life: LifeConfig::default(),
    };
    let log = FaultyLog::new(Arc::new(log.clone()), seed, calls);
    let objects = FaultyObjectStore::new(Arc::new(objects.clone()), seed, faults);
    Engine::start(config, ports(Arc::new(objects), Arc::new(log))).await.unwrap()
}

/// Sends a batch to an engine that is killed after `ms`, then again to the next one, as an
/// idempotent client does.
async fn crash_after(ms: u64) -> (Option<i64>, i64, usize) {
    let (log, objects) = (MemoryLog::default(), MemoryObjectStore::default());
    let first = start(&log, &objects, 2 * ms + 1).await;
    let create = Command::CreateTopic {
        topic: TOPIC,
        name: "t".to_owned(),
        partitions: 1,
        replication_factor: 1,
        configs: BTreeMap::new(),
    };
    assert_eq!(first.machine.propose(create).await, Ok(Outcome::Done));
    let record = || vec![(PARTITION, batch(&Bytes::from_static(b"once"), (1, 0, 0)))];
    let appending = first.writer.append(record()).await.unwrap();
    tokio::time::sleep(Duration::from_millis(ms)).await;
    first.machine.kill();
    let before = tokio::time::timeout(Duration::from_secs(30), appending).await;
    let before = before.ok().and_then(|mut it| it.remove(0).ok()).map(|it| it.base_offset.0);
    let second = start(&log, &objects, 2 * ms + 2).await;
    let mut again = second.writer.append(record()).await.unwrap().await;
    let offset = again.remove(0).unwrap().base_offset.0;
    let target = FetchTarget { partition: PARTITION, offset: Offset(0), bytes_max: 1 << 20 };
    let plan = second.reader.plan(&[target], 1 << 20, Isolation::ReadUncommitted);
    let fetched = second.reader.fetch(plan).await.remove(0).unwrap();
    (before, offset, read_records(fetched.records.concat().into()).len())
}

#[tokio::test(start_paused = true)]
async fn a_record_is_there_once_whenever_its_broker_was_killed() {
    let mut acknowledged_before = 0;
    for ms in 0..PATH_MS {
        let (before, offset, records) = crash_after(ms).await;
        assert_eq!((offset, records), (0, 1), "killed after {ms} ms");
        if let Some(before) = before {
            assert_eq!(before, 0, "killed after {ms} ms");
            acknowledged_before += 1;
        }
    }
    // The sweep reaches from before the first step to after the last.
    assert!(acknowledged_before > 0 && acknowledged_before < PATH_MS);
}
