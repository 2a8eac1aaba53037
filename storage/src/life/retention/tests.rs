//! What goes, when, and how much of it at most.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

use odradek_protocol::id::{Offset, TopicId, TopicPartition};
use tokio::task::JoinHandle;
use tokio::time::sleep;
use uuid::Uuid;

use super::{Retention, RetentionConfig};
use crate::clock::{Clock, ManualClock};
use crate::command::{
    BatchSummary, BrokerAddress, Command, ConfigChange, ConfigOperation, ConfigResource,
    Incarnation, Outcome, Run,
};
use crate::engine::Ports;
use crate::log::MetadataLog;
use crate::log::memory::MemoryLog;
use crate::lsn::Lsn;
use crate::machine::{Machine, MachineConfig};
use crate::object::memory::MemoryObjectStore;
use crate::peer::NoPeers;
use crate::segment::SegmentId;
use crate::state::State;

const TOPIC: TopicId = TopicId(Uuid::from_u128(1));

const FIRST: TopicPartition = TopicPartition { topic: TOPIC, partition: 0 };

const BASE_MS: i64 = 1_700_000_000_000;

const HOUR: Duration = Duration::from_secs(3600);

const HOUR_MS: i64 = 3_600_000;

const WEEK_MS: i64 = 7 * 24 * HOUR_MS;

const YEAR_MS: i64 = 365 * 24 * HOUR_MS;

/// A broker that is alone, and the log and the clock that it shares with those to come.
struct House {
    log: MemoryLog,
    objects: MemoryObjectStore,
    clock: Arc<ManualClock>,
    machine: Machine,
    segments: u64,
}

/// The task, as long as this lives.
struct Running(JoinHandle<()>);

impl Drop for Running {
    fn drop(&mut self) {
        self.0.abort();
    }
}

fn keep(machine: Machine, clock: Arc<ManualClock>, config: RetentionConfig) -> Running {
    Running(tokio::spawn(Retention::new(machine, clock, config, Arc::default()).run()))
}

impl House {
    /// A house whose clock shows this, with a topic of two partitions.
    async fn at(now_ms: i64, configs: &[(&str, &str)]) -> Self {
        let (log, objects) = (MemoryLog::default(), MemoryObjectStore::default());
        let clock = Arc::new(ManualClock::new(now_ms));
        let config = MachineConfig { exclusive: true, ..MachineConfig::default() };
        let machine = start(&log, &objects, &clock, 1, config).await;
        let house = Self { log, objects, clock, machine, segments: 0 };
        let owned = configs.iter().map(|(name, value)| ((*name).to_owned(), (*value).to_owned()));
        let create = Command::CreateTopic {
            topic: TOPIC,
            name: "orders".to_owned(),
            partitions: 2,
            replication_factor: 1,
            configs: owned.collect::<BTreeMap<_, _>>(),
        };
        house.done(create).await;
        house
    }

    fn keep(&self, config: RetentionConfig) -> Running {
        keep(self.machine.clone(), Arc::<ManualClock>::clone(&self.clock), config)
    }

    async fn done(&self, command: Command) {
        assert_eq!(self.machine.propose(command).await, Ok(Outcome::Done));
    }

    /// Adds ten records to a partition: an extent of so many bytes.
    async fn add(&mut self, partition: i32, bytes: u32, max_timestamp: i64) {
        self.segments += 1;
        let segment =
            SegmentId { began: Lsn::FIRST, incarnation: Incarnation(1), counter: self.segments };
        let batch = BatchSummary { bytes, records: 10, max_timestamp, producer: None };
        let run = Run {
            partition: TopicPartition { topic: TOPIC, partition },
            position: 32,
            stored_bytes: bytes,
            batches: vec![batch],
        };
        let bytes = u64::from(bytes) + 100;
        let commit = Command::CommitSegment { segment, bytes, runs: vec![run] };
        let outcome = self.machine.propose(commit).await.unwrap();
        assert!(matches!(outcome, Outcome::SegmentCommitted(_)), "{outcome:?}");
    }

    /// The same now.
    async fn write(&mut self, partition: i32, bytes: u32) {
        self.add(partition, bytes, self.clock.now_ms()).await;
    }

    fn bytes(&self) -> u64 {
        self.machine
            .read(|state| state.topic(TOPIC).unwrap().partitions.iter().map(|it| it.bytes()).sum())
    }

    fn log_start(&self) -> i64 {
        self.machine.read(|state| state.partition(FIRST).unwrap().log_start.0)
    }

    async fn tail(&self) -> Lsn {
        self.log.tail().await.unwrap()
    }

    async fn set(&self, name: &str, value: &str) {
        let operation = ConfigOperation::Set(value.to_owned());
        let changes = vec![ConfigChange { name: name.to_owned(), operation }];
        let resource = ConfigResource::Topic(TOPIC);
        self.done(Command::AlterConfigs { resource, replace: false, changes }).await;
    }
}

async fn start(
    log: &MemoryLog,
    objects: &MemoryObjectStore,
    clock: &Arc<ManualClock>,
    number: u64,
    config: MachineConfig,
) -> Machine {
    let ports = Ports {
        objects: Arc::new(objects.clone()),
        log: Arc::new(log.clone()),
        clock: Arc::<ManualClock>::clone(clock),
        peers: Arc::new(NoPeers),
    };
    let host = format!("broker-{number}");
    let address = BrokerAddress { host, port: 9092, ..BrokerAddress::default() };
    Machine::start(config, address, ports, number).await.unwrap()
}

#[tokio::test(start_paused = true)]
async fn records_go_when_they_are_too_old_and_not_before() {
    let mut house = House::at(BASE_MS, &[("retention.ms", "36000000")]).await;
    let _retention = house.keep(RetentionConfig::default());
    for hour in 0..40_i64 {
        // Ten records each, at the full hour.
        house.write(0, 1000).await;
        sleep(Duration::from_secs(1)).await;
        assert_eq!(house.log_start(), (hour - 10).max(0) * 10, "after {hour} hours");
        sleep(HOUR - Duration::from_secs(1)).await;
    }
}

#[tokio::test(start_paused = true)]
async fn a_retention_of_a_second_empties_a_topic_at_once() {
    let mut house = House::at(BASE_MS, &[]).await;
    let _retention = house.keep(RetentionConfig::default());
    for _ in 0..100 {
        house.write(0, 100_000).await;
    }
    sleep(HOUR).await;
    assert_eq!(house.log_start(), 0);
    house.set("retention.ms", "1000").await;
    sleep(Duration::from_secs(30)).await;
    assert_eq!((house.log_start(), house.bytes()), (1000, 0));
}

#[tokio::test(start_paused = true)]
async fn bytes_above_the_limit_go_at_once_whatever_the_clocks_say() {
    let configs = [("retention.bytes", "2500"), ("retention.ms", "-1")];
    let mut house = House::at(BASE_MS, &configs).await;
    let _retention = house.keep(RetentionConfig::default());
    for _ in 0..100 {
        house.write(0, 1000).await;
        house.write(1, 100).await;
    }
    sleep(Duration::from_secs(20)).await;
    // A partition keeps at least that much: three extents are, two would not be.
    assert_eq!(house.log_start(), 970);
    assert_eq!(house.bytes(), 3000 + 2500);
    sleep(HOUR * 100).await;
    assert_eq!(house.log_start(), 970, "nothing grows too old");
}

#[tokio::test(start_paused = true)]
async fn a_clock_that_jumps_ahead_while_the_broker_runs_expires_nothing() {
    let mut house = House::at(BASE_MS, &[]).await;
    for _ in 0..10 {
        house.write(0, 1000).await;
    }
    let _retention = house.keep(RetentionConfig::default());
    house.clock.shift(YEAR_MS);
    for _ in 0..2000 {
        house.done(Command::Heartbeat).await;
    }
    assert!(house.machine.read(State::log_time_ms) > BASE_MS + WEEK_MS);
    sleep(HOUR * 24).await;
    assert_eq!(house.log_start(), 0);
    // A week after they were written they are due, and go by a tenth an hour.
    sleep(HOUR * (24 * 6 + 1)).await;
    assert!((10..50).contains(&house.log_start()), "{}", house.log_start());
    sleep(HOUR * 9).await;
    assert_eq!(house.log_start(), 100);
}

#[tokio::test(start_paused = true)]
async fn log_time_that_is_behind_keeps_what_only_this_broker_takes_for_old() {
    let mut house = House::at(BASE_MS, &[]).await;
    for _ in 0..10 {
        house.write(0, 1000).await;
    }
    let _retention = house.keep(RetentionConfig { at_once: true, ..RetentionConfig::default() });
    sleep(HOUR).await;
    // Everybody's clock is put back now: log time stands still.
    house.clock.shift(-2 * YEAR_MS);
    sleep(HOUR * 24 * 8).await;
    assert_eq!(house.log_start(), 0);
    let entries = house.tail().await;
    sleep(HOUR).await;
    assert_eq!(house.tail().await, entries, "it can't be moved on either");
}

#[tokio::test(start_paused = true)]
async fn a_clock_that_is_a_year_ahead_costs_a_tenth_an_hour() {
    let mut house = House::at(BASE_MS + YEAR_MS, &[]).await;
    for number in 0..1000 {
        house.add(number % 2, 1000, BASE_MS).await;
    }
    let _retention = house.keep(RetentionConfig::default());
    let mut before = house.bytes();
    for hour in 0..9 {
        sleep(HOUR).await;
        let gone = before - house.bytes();
        assert!((105_000..=106_000).contains(&gone), "{gone} are gone in hour {hour}");
        before = house.bytes();
    }
    sleep(HOUR).await;
    assert_eq!(house.bytes(), 0);
}

#[tokio::test(start_paused = true)]
async fn each_start_of_a_broker_begins_with_nothing_saved_up() {
    let mut house = House::at(BASE_MS + YEAR_MS, &[]).await;
    for _ in 0..100 {
        house.add(0, 1000, BASE_MS).await;
    }
    for _ in 0..100 {
        let retention = house.keep(RetentionConfig::default());
        sleep(Duration::from_secs(60)).await;
        drop(retention);
    }
    assert_eq!(house.log_start(), 0);
}

#[tokio::test(start_paused = true)]
async fn what_is_due_goes_at_once_if_the_operator_says_so() {
    let mut house = House::at(BASE_MS + YEAR_MS, &[]).await;
    for _ in 0..100 {
        house.add(0, 1000, BASE_MS).await;
    }
    let _retention = house.keep(RetentionConfig { at_once: true, ..RetentionConfig::default() });
    sleep(Duration::from_secs(15)).await;
    assert_eq!(house.log_start(), 1000);
}

#[tokio::test(start_paused = true)]
async fn the_oldest_goes_first_whatever_its_partition() {
    let mut house = House::at(BASE_MS + 10 * WEEK_MS, &[]).await;
    for number in 0..50 {
        house.add(0, 1000, BASE_MS + number).await;
        house.add(1, 1000, BASE_MS + WEEK_MS + number).await;
    }
    let _retention = house.keep(RetentionConfig::default());
    sleep(HOUR * 4).await;
    let second = TopicPartition { partition: 1, ..FIRST };
    let start = house.machine.read(|state| state.partition(second).unwrap().log_start);
    assert!(house.log_start() > 200 && start == Offset(0), "{} {start}", house.log_start());
}

#[tokio::test(start_paused = true)]
async fn log_time_is_moved_on_in_an_idle_log_if_something_is_due_by_it() {
    let mut house = House::at(BASE_MS, &[("retention.ms", "3600000")]).await;
    let _retention = house.keep(RetentionConfig::default());
    house.write(0, 1000).await;
    let before = house.tail().await;
    sleep(HOUR - Duration::from_secs(60)).await;
    assert_eq!(house.tail().await, before, "nothing is due");
    // In one piece: it goes when all of it may.
    sleep(HOUR * 2).await;
    assert_eq!(house.log_start(), 10);
    let after = house.tail().await;
    assert!(after.get() - before.get() < 20, "{before} {after}");
    sleep(HOUR * 100).await;
    assert_eq!(house.tail().await, after, "nothing is due any more");
}

#[tokio::test(start_paused = true)]
async fn a_topic_that_is_only_compacted_keeps_everything() {
    let configs = [("cleanup.policy", "compact"), ("retention.ms", "1000")];
    let mut house = House::at(BASE_MS, &configs).await;
    let _retention = house.keep(RetentionConfig::default());
    house.write(0, 1000).await;
    sleep(HOUR).await;
    assert_eq!(house.log_start(), 0);
}

#[tokio::test(start_paused = true)]
async fn what_was_deleted_is_given_up_after_a_while_and_not_before() {
    let mut house = House::at(BASE_MS, &[]).await;
    house.write(0, 1000).await;
    let _retention = house.keep(RetentionConfig::default());
    sleep(HOUR * 10).await;
    house.done(Command::DeleteTopic { topic: TOPIC }).await;
    // No clock counts for that.
    house.clock.shift(YEAR_MS);
    let is_kept = || house.machine.read(|state| state.deleted_topics().contains_key(&TOPIC));
    sleep(HOUR - Duration::from_secs(60)).await;
    assert!(is_kept());
    let unreferenced = || house.machine.read(|state| state.segments().unreferenced().len());
    assert_eq!(unreferenced(), 0);
    sleep(Duration::from_secs(300)).await;
    assert!(!is_kept());
    assert_eq!(unreferenced(), 1);
}

#[tokio::test(start_paused = true)]
async fn one_broker_does_it() {
    let house = House::at(BASE_MS, &[("retention.ms", "1000")]).await;
    let House { log, objects, clock, machine, .. } = house;
    machine.stop().await;
    let mut machines = Vec::new();
    for number in 2..5 {
        machines.push(start(&log, &objects, &clock, number, MachineConfig::default()).await);
    }
    for machine in &machines {
        machine.barrier().await.unwrap();
    }
    let keeper = machines[0].read(State::housekeeper).unwrap();
    machines.sort_by_key(|machine| machine.node_id() == keeper);
    let keeping = machines.pop().unwrap();
    let mut house = House { log, objects, clock, machine: keeping, segments: 0 };
    house.write(0, 1000).await;
    let keep_too = |machine: &Machine| {
        let clock = Arc::<ManualClock>::clone(&house.clock);
        keep(machine.clone(), clock, RetentionConfig::default())
    };
    let others: Vec<Running> = machines.iter().map(keep_too).collect();
    sleep(HOUR).await;
    assert_eq!(house.log_start(), 0);
    let _retention = keep_too(&house.machine);
    sleep(Duration::from_secs(60)).await;
    assert_eq!(house.log_start(), 10);
    drop(others);
}
