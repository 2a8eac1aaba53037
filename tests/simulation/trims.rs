//! Snapshots, and the log that is trimmed behind them: under brokers that start, stop, are slow or
//! are cut off meanwhile, and with snapshots that are damaged (RELIABILITY C5, C6, A6).

use std::io;
use std::num::NonZeroUsize;
use std::ops::Range;
use std::sync::{Arc, Mutex};
use std::time::Duration;

use async_trait::async_trait;
use bytes::Bytes;
use odradek_storage::clock::ManualClock;
use odradek_storage::command::{
    BrokerAddress, Command, ConfigChange, ConfigOperation, ConfigResource, Outcome,
};
use odradek_storage::engine::Ports;
use odradek_storage::log::faulty::{FaultyLog, LogFaults};
use odradek_storage::log::memory::MemoryLog;
use odradek_storage::log::{Freshness, LogRead, MetadataLog};
use odradek_storage::lsn::Lsn;
use odradek_storage::machine::{Machine, MachineConfig, StartError};
use odradek_storage::object::faulty::{Faults, FaultyObjectStore};
use odradek_storage::object::memory::MemoryObjectStore;
use odradek_storage::object::{ObjectKey, ObjectMeta, ObjectStore, Put};
use odradek_storage::peer::NoPeers;
use odradek_storage::port::PortError;
use odradek_storage::snapshot::{SNAPSHOT_PREFIX, snapshot_lsn};
use odradek_storage::state::State;
use rand::rngs::StdRng;
use rand::{Rng, SeedableRng};
use tokio::sync::Semaphore;
use tokio::time::sleep;

/// How long entries are kept here.
const KEPT: Duration = Duration::from_secs(5);

/// A log and the objects that belong to it.
#[derive(Clone)]
struct Place {
    log: MemoryLog,
    objects: MemoryObjectStore,
    clock: Arc<ManualClock>,
}

impl Place {
    fn new() -> Self {
        Self {
            log: MemoryLog::default(),
            objects: MemoryObjectStore::default(),
            clock: Arc::new(ManualClock::new(1_700_000_000_000)),
        }
    }

    async fn start(&self, number: u64, config: MachineConfig) -> Result<Machine, StartError> {
        let (log, objects) = (Arc::new(self.log.clone()), Arc::new(self.objects.clone()));
        self.start_on(number, config, log, objects).await
    }

    async fn start_on(
        &self,
        number: u64,
        config: MachineConfig,
        log: Arc<dyn MetadataLog>,
        objects: Arc<dyn ObjectStore>,
    ) -> Result<Machine, StartError> {
        let host = format!("broker-{number}");
        let address = BrokerAddress { host, port: 9092, ..BrokerAddress::default() };
        let clock = Arc::clone(&self.clock);
        let ports = Ports { objects, log, clock, peers: Arc::new(NoPeers) };
        Machine::start(config, address, ports, number).await
    }

    async fn floor(&self) -> Lsn {
        match self.log.read(Lsn::ZERO, NonZeroUsize::MIN, Freshness::Latest).await.unwrap() {
            LogRead::Trimmed(floor) => floor,
            LogRead::Entries { .. } => panic!("there is no entry 0"),
        }
    }

    async fn tail(&self) -> Lsn {
        self.log.tail().await.unwrap()
    }

    /// The snapshots there are, oldest first.
    async fn snapshots(&self) -> Vec<ObjectKey> {
        let most = NonZeroUsize::new(1000).unwrap();
        let listed = self.objects.list(SNAPSHOT_PREFIX, None, most).await.unwrap();
        listed.into_iter().map(|object| object.key).collect()
    }

    async fn positions(&self) -> Vec<Lsn> {
        self.snapshots().await.iter().map(|key| snapshot_lsn(key).unwrap()).collect()
    }

    /// Turns a bit of an object.
    async fn damage(&self, key: &ObjectKey) {
        let bytes = self.objects.get_range(key, 0..u64::MAX).await.unwrap().unwrap();
        let mut bytes = bytes.to_vec();
        let middle = bytes.len() / 2;
        bytes[middle] ^= 1;
        self.objects.delete(std::slice::from_ref(key)).await.unwrap();
        let put = self.objects.put_if_absent(key, bytes.into()).await.unwrap();
        assert_eq!(put, Put::Created);
    }
}

/// Snapshots after ten entries.
fn often() -> MachineConfig {
    MachineConfig {
        snapshot_entries: 10,
        log_kept: KEPT,
        append_attempt_max: Duration::from_millis(500),
        ..MachineConfig::default()
    }
}

/// Fills the log by one entry at least.
async fn write(machine: &Machine) {
    let outcome = machine.propose(Command::AllocateProducerIds { count: 1 }).await;
    assert!(matches!(outcome, Ok(Outcome::ProducerIds { .. })), "{outcome:?}");
}

/// Writes now and then, until the log begins at `past` or behind it.
async fn write_until_trimmed(place: &Place, machine: &Machine, past: Lsn) {
    for _ in 0..10_000 {
        if place.floor().await >= past {
            return;
        }
        write(machine).await;
        sleep(Duration::from_millis(100)).await;
    }
    panic!("the log begins at {}, {past} is still there", place.floor().await);
}

/// Follows the log to its tail, however long that takes.
async fn reach_tail(machine: &Machine) {
    let at_tail = async { while machine.barrier().await.is_err() {} };
    tokio::select! {
        biased;
        reason = machine.halted() => panic!("{reason}"),
        () = at_tail => {}
    }
}

/// What a broker that begins now holds is what another has that followed from the beginning.
async fn is_same_from_the_start(place: &Place, machine: &Machine, number: u64) {
    let fresh = place.start(number, often()).await.unwrap();
    are_same(machine, &fresh).await;
    fresh.kill();
}

async fn are_same(one: &Machine, other: &Machine) {
    let look = |state: &State| (state.applied(), state.digest());
    for _ in 0..1000 {
        reach_tail(one).await;
        reach_tail(other).await;
        let (one, other) = (one.read(look), other.read(look));
        // Others may write meanwhile.
        if one.0 == other.0 {
            assert_eq!(one, other);
            return;
        }
        sleep(Duration::from_millis(7)).await;
    }
    panic!("they are never at the same entry");
}

#[tokio::test(start_paused = true)]
async fn the_log_is_trimmed_below_the_second_newest_snapshot_once_it_is_old() {
    let place = Place::new();
    let machine = place.start(1, often()).await.unwrap();
    for _ in 0..100 {
        write(&machine).await;
    }
    sleep(Duration::from_millis(10)).await;
    assert!(place.positions().await.len() >= 2);
    assert_eq!(place.floor().await, Lsn::FIRST, "nothing is old enough yet");
    sleep(KEPT * 2).await;
    for _ in 0..30 {
        write(&machine).await;
        sleep(Duration::from_millis(10)).await;
    }
    let (floor, positions) = (place.floor().await, place.positions().await);
    assert!(floor > Lsn::new(90), "{floor}");
    assert!(floor <= positions[positions.len() - 2], "{floor} {positions:?}");
    assert!(positions.len() <= 4, "{positions:?}");
    // Old ones are still kept where they are young.
    assert!(place.tail().await > Lsn::new(floor.get() + 20));
    is_same_from_the_start(&place, &machine, 2).await;
}

#[tokio::test(start_paused = true)]
async fn brokers_that_start_and_end_during_trims_hold_the_same_state() {
    for seed in 0..20 {
        let mut random = StdRng::seed_from_u64(seed);
        let place = Place::new();
        let chance = |random: &mut StdRng, most: f64| random.random_range(0.0..most);
        let mut brokers = Vec::new();
        for number in 1..60 {
            let calls = LogFaults {
                lost: chance(&mut random, 0.1),
                answer_lost: chance(&mut random, 0.1),
                late: chance(&mut random, 0.1),
                late_max: Duration::from_secs(3),
                delayed: 1.0,
                delay_max: Duration::from_millis(50),
                ..LogFaults::default()
            };
            let log = FaultyLog::new(Arc::new(place.log.clone()), seed ^ number, calls.clone());
            let faults = Faults { calls, ..Faults::default() };
            let objects = Arc::new(place.objects.clone());
            let objects = FaultyObjectStore::new(objects, seed ^ number, faults);
            let config = MachineConfig { log_kept: KEPT * 3, ..often() };
            let starting = place.start_on(number, config, Arc::new(log), Arc::new(objects)).await;
            let machine = match starting {
                Ok(machine) => machine,
                Err(error) => panic!("seed {seed}: {error}"),
            };
            brokers.push(machine);
            for _ in 0..random.random_range(1..40) {
                let machine = &brokers[random.random_range(0..brokers.len())];
                drop(machine.propose(Command::AllocateProducerIds { count: 1 }).await);
            }
            if brokers.len() > 3 {
                brokers.remove(random.random_range(0..3)).kill();
            }
        }
        for machine in &brokers {
            reach_tail(machine).await;
        }
        assert!(place.floor().await > Lsn::new(50), "seed {seed}: {}", place.floor().await);
        let positions = place.positions().await;
        assert!(place.floor().await <= positions[positions.len() - 2], "seed {seed}");
        is_same_from_the_start(&place, &brokers[0], 1000).await;
        brokers.iter().for_each(Machine::kill);
    }
}

/// Objects that hold back whoever reads a snapshot.
#[derive(Debug)]
struct Held {
    inner: MemoryObjectStore,
    /// Whether a reader is held before it reads; else after.
    before: bool,
    /// How many have come.
    come: Arc<Semaphore>,
    /// How many may go on.
    may_go: Arc<Semaphore>,
}

#[async_trait]
impl ObjectStore for Held {
    async fn put_if_absent(&self, key: &ObjectKey, bytes: Bytes) -> Result<Put, PortError> {
        self.inner.put_if_absent(key, bytes).await
    }

    async fn get_range(
        &self,
        key: &ObjectKey,
        range: Range<u64>,
    ) -> Result<Option<Bytes>, PortError> {
        let found = if self.before { None } else { Some(self.inner.get_range(key, range.clone())) };
        let found = match found {
            Some(found) => Some(found.await?),
            None => None,
        };
        if key.as_str().starts_with(SNAPSHOT_PREFIX) {
            self.come.add_permits(1);
            self.may_go.acquire().await.unwrap().forget();
        }
        match found {
            Some(found) => Ok(found),
            None => self.inner.get_range(key, range).await,
        }
    }

    async fn list(
        &self,
        prefix: &str,
        after: Option<&ObjectKey>,
        limit: NonZeroUsize,
    ) -> Result<Vec<ObjectMeta>, PortError> {
        self.inner.list(prefix, after, limit).await
    }

    async fn delete(&self, keys: &[ObjectKey]) -> Result<(), PortError> {
        self.inner.delete(keys).await
    }
}

#[tokio::test(start_paused = true)]
async fn a_starter_that_is_overtaken_by_a_trim_starts_over() {
    for before in [true, false] {
        let place = Place::new();
        let machine = place.start(1, often()).await.unwrap();
        for _ in 0..25 {
            write(&machine).await;
            sleep(Duration::from_millis(1)).await;
        }
        let (come, may_go) = (Arc::new(Semaphore::new(0)), Arc::new(Semaphore::new(0)));
        let inner = place.objects.clone();
        let held = Held { inner, before, come: Arc::clone(&come), may_go: Arc::clone(&may_go) };
        let (there, log) = (place.clone(), Arc::new(place.log.clone()));
        let starting = tokio::spawn(async move {
            let config = MachineConfig { snapshot_entries: 1_000_000, ..often() };
            there.start_on(2, config, log, Arc::new(held)).await
        });
        // Twice it is overtaken: as often as that, it starts over.
        for _ in 0..2 {
            come.acquire().await.unwrap().forget();
            let newest = *place.positions().await.last().unwrap();
            write_until_trimmed(&place, &machine, Lsn::new(newest.get() + 5)).await;
            assert!(!place.positions().await.contains(&newest), "it is gone");
            may_go.add_permits(1);
        }
        may_go.add_permits(100);
        let starter = starting.await.unwrap().unwrap();
        are_same(&machine, &starter).await;
        assert!(come.available_permits() <= 3, "{}", come.available_permits());
    }
}

/// What is logged while it lives.
#[derive(Clone, Default)]
struct Said(Arc<Mutex<Vec<u8>>>);

impl io::Write for Said {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        self.0.lock().unwrap().extend_from_slice(bytes);
        Ok(bytes.len())
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

impl Said {
    /// The lines so far of at least this level.
    fn lines(&self, level: &str) -> Vec<String> {
        let said = String::from_utf8(self.0.lock().unwrap().clone()).unwrap();
        said.lines().filter(|line| line.contains(level)).map(str::to_owned).collect()
    }

    fn begin(&self) -> tracing::subscriber::DefaultGuard {
        let said = self.clone();
        let subscriber =
            tracing_subscriber::fmt().with_ansi(false).with_writer(move || said.clone());
        tracing::subscriber::set_default(subscriber.finish())
    }
}

#[tokio::test(start_paused = true)]
async fn a_damaged_snapshot_is_passed_over_with_an_alarm_and_nothing_is_trimmed_for_it() {
    let place = Place::new();
    let machine = place.start(1, often()).await.unwrap();
    write_until_trimmed(&place, &machine, Lsn::new(50)).await;
    machine.stop().await;
    let newest = place.snapshots().await.pop().unwrap();
    place.damage(&newest).await;

    let said = Said::default();
    let listening = said.begin();
    let machine = place.start(2, often()).await.unwrap();
    let alarms = said.lines("ERROR");
    assert_eq!(alarms.len(), 1, "{alarms:?}");
    assert!(alarms[0].contains(newest.as_str()) && alarms[0].contains("damaged"), "{alarms:?}");
    is_same_from_the_start(&place, &machine, 3).await;

    // It counts neither as the newest nor as the second newest.
    let good = |positions: &[Lsn]| {
        let damaged = snapshot_lsn(&newest).unwrap();
        let good = positions.iter().rev().filter(|lsn| **lsn != damaged);
        good.copied().nth(1)
    };
    for _ in 0..30 {
        write(&machine).await;
        sleep(Duration::from_millis(500)).await;
        let (floor, positions) = (place.floor().await, place.positions().await);
        assert!(Some(floor) <= good(&positions), "{floor} {positions:?}");
    }
    assert!(place.floor().await > snapshot_lsn(&newest).unwrap());
    assert!(!place.snapshots().await.contains(&newest), "it went with the others of its age");
    drop(listening);
}

#[tokio::test(start_paused = true)]
async fn a_broker_without_a_good_snapshot_does_not_start_and_says_why() {
    let place = Place::new();
    let machine = place.start(1, often()).await.unwrap();
    write_until_trimmed(&place, &machine, Lsn::new(50)).await;
    machine.stop().await;
    for snapshot in place.snapshots().await {
        place.damage(&snapshot).await;
    }
    let floor = place.floor().await;
    let refusal = place.start(2, often()).await.unwrap_err();
    let said = refusal.to_string();
    assert!(matches!(refusal, StartError::NoSnapshot { .. }), "{said}");
    assert!(said.contains(&format!("begins at {floor}")), "{said}");
}

#[tokio::test(start_paused = true)]
async fn a_broker_that_is_cut_off_for_longer_than_the_log_is_kept_stops_and_can_start_again() {
    let place = Place::new();
    let log = FaultyLog::new(Arc::new(place.log.clone()), 7, LogFaults::default());
    let fates = log.control();
    let objects = Arc::new(place.objects.clone());
    let cut_off = place.start_on(1, often(), Arc::new(log.clone()), objects).await.unwrap();
    let machine = place.start(2, often()).await.unwrap();
    fates.outage(true);
    let reached = cut_off.read(State::applied);
    write_until_trimmed(&place, &machine, Lsn::new(reached.get() + 2)).await;
    fates.outage(false);
    let reason = cut_off.halted().await.to_string();
    assert!(reason.contains("slept too long"), "{reason}");
    assert!(reason.contains(&format!("entry {} is gone", reached.next())), "{reason}");
    let objects = Arc::new(place.objects.clone());
    let again = place.start_on(1, often(), Arc::new(log), objects).await.unwrap();
    write(&again).await;
    is_same_from_the_start(&place, &again, 3).await;
}

#[tokio::test(start_paused = true)]
async fn a_log_with_few_entries_gets_a_snapshot_when_time_has_passed_and_only_then() {
    let place = Place::new();
    let config = MachineConfig { exclusive: true, log_kept: Duration::ZERO, ..Default::default() };
    let interval = config.snapshot_interval;
    let machine = place.start(1, config).await.unwrap();
    write(&machine).await;
    sleep(interval / 2).await;
    assert_eq!(place.positions().await, []);
    sleep(interval).await;
    let first = place.tail().await.prev();
    assert_eq!(place.positions().await, [first]);
    // Nothing happens, and nothing is written of it.
    sleep(interval * 10).await;
    assert_eq!(place.positions().await, [first]);
    write(&machine).await;
    sleep(interval * 2).await;
    assert_eq!(place.positions().await, [first, first.next()]);
    assert_eq!(place.floor().await, first);
    machine.kill();
    let config = MachineConfig { exclusive: true, ..Default::default() };
    place.start(2, config).await.unwrap();
}

#[tokio::test(start_paused = true)]
async fn a_log_with_long_entries_gets_a_snapshot_after_few() {
    let place = Place::new();
    let config = MachineConfig { snapshot_bytes: 1_000_000, ..Default::default() };
    let machine = place.start(1, config).await.unwrap();
    let describe = |number: usize| {
        let operation = ConfigOperation::Set("x".repeat(100_000));
        let change = ConfigChange { name: "description".to_owned(), operation };
        let resource = ConfigResource::Group(format!("group-{number}"));
        Command::AlterConfigs { resource, replace: true, changes: vec![change] }
    };
    for number in 0..9 {
        assert_eq!(machine.propose(describe(number)).await, Ok(Outcome::Done));
    }
    sleep(Duration::from_millis(10)).await;
    assert_eq!(place.positions().await, []);
    for number in 9..14 {
        assert_eq!(machine.propose(describe(number)).await, Ok(Outcome::Done));
    }
    sleep(Duration::from_millis(10)).await;
    assert_eq!(place.positions().await.len(), 1);
}

#[tokio::test(start_paused = true)]
async fn a_snapshot_that_could_not_be_written_is_tried_again() {
    let place = Place::new();
    let objects = Arc::new(place.objects.clone());
    let faulty = FaultyObjectStore::new(objects, 1, Faults::default());
    let fates = faulty.control();
    let log = Arc::new(place.log.clone());
    let machine = place.start_on(1, often(), log, Arc::new(faulty)).await.unwrap();
    fates.outage(true);
    for _ in 0..50 {
        write(&machine).await;
    }
    sleep(Duration::from_secs(600)).await;
    assert_eq!(place.positions().await, []);
    fates.outage(false);
    sleep(Duration::from_secs(120)).await;
    assert_eq!(place.positions().await.len(), 1);
}
