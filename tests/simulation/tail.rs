//! Consumers at the tail who read from a broker that did not write: how often it asks the store.

use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use odradek_protocol::id::{Offset, TopicPartition};
use odradek_storage::clock::ManualClock;
use odradek_storage::command::{Command, Outcome};
use odradek_storage::counts::PortCounts;
use odradek_storage::engine::{Engine, EngineConfig, Ports};
use odradek_storage::log::memory::MemoryLog;
use odradek_storage::object::faulty::{Faults, FaultyObjectStore};
use odradek_storage::object::memory::MemoryObjectStore;
use odradek_storage::peer::memory::MemoryPeers;
use odradek_storage::port::fate::CallFaults;
use odradek_storage::reader::{FetchTarget, Isolation, ReaderConfig};
use odradek_tests::alone;
use odradek_tests::world::{TOPIC, batch};
use rand::rngs::StdRng;
use rand::{Rng, SeedableRng};
use tokio::time::sleep;

const PARTITIONS: i32 = 240;

/// Segments for each broker that reads: so many it reads itself, if its zone shares them, and it
/// learns from the first few how to.
const SEGMENTS: u64 = 100;

/// Bytes of each batch, of which a segment has one of every partition.
const VALUE: Bytes = Bytes::from_static(&[7; 8 * 1024]);

/// Who reads how much of the topic, and how fast.
#[derive(Clone, Copy)]
struct Readers {
    /// Brokers that they are spread over, all of one zone.
    brokers: u64,
    consumers: i32,
    /// Partitions of each, which nobody else reads.
    partitions: i32,
    /// Longest time between an answer and the next request.
    think_max: Duration,
}

impl Readers {
    /// Segments that are written for them.
    fn segments(&self) -> u64 {
        SEGMENTS * self.brokers
    }
}

fn partition(partition: i32) -> TopicPartition {
    TopicPartition { topic: TOPIC, partition }
}

/// Everything stays where it was written.
fn config(number: u64, zone: &str, reader: ReaderConfig) -> EngineConfig {
    let mut config = EngineConfig { reader, ..alone::config(number) };
    config.address.zone = Some(zone.to_owned());
    config.life.merger.interval = Duration::from_secs(60 * 60);
    config.writer.puts_per_second = Some(4);
    config
}

async fn start(number: u64, config: EngineConfig, place: &Place) -> Engine {
    // As long as S3 takes: what is asked for meanwhile is asked for once more.
    let calls =
        CallFaults { delayed: 1.0, delay_max: Duration::from_millis(30), ..CallFaults::default() };
    let faults = Faults { calls, ..Faults::default() };
    let ports = Ports {
        objects: Arc::new(FaultyObjectStore::new(Arc::new(place.objects.clone()), number, faults)),
        log: Arc::new(place.log.clone()),
        clock: Arc::new(ManualClock::new(1_700_000_000_000)),
        peers: Arc::new(place.room.way_of(&alone::host(number))),
    };
    let engine = Engine::start(config, ports).await.unwrap();
    place.room.enter(&alone::host(number), 1, engine.clone());
    engine
}

struct Place {
    log: MemoryLog,
    objects: MemoryObjectStore,
    room: MemoryPeers,
}

/// What reading cost.
struct Cost {
    /// Requests of all that read together for each segment.
    requests: f64,
    /// Bytes that they read for each that was wanted.
    bytes: f64,
    /// How many questions to a neighbour were answered for each segment.
    asked: f64,
}

/// Writes on a broker of one zone and reads on others of a second; of those as many as `dead` says
/// are killed before.
async fn cost(zones: [&str; 2], reader: ReaderConfig, readers: Readers, dead: usize) -> Cost {
    let place = Place {
        log: MemoryLog::default(),
        objects: MemoryObjectStore::default(),
        room: MemoryPeers::new(1, 0.0, Duration::from_millis(1)),
    };
    let writing = start(1, config(1, zones[0], reader.clone()), &place).await;
    let mut reading = Vec::new();
    for number in 0..readers.brokers {
        let config = config(number + 2, zones[1], reader.clone());
        reading.push(start(number + 2, config, &place).await);
    }
    let create = Command::CreateTopic {
        topic: TOPIC,
        name: "t".to_owned(),
        partitions: u32::try_from(PARTITIONS).unwrap(),
        replication_factor: 1,
        configs: Default::default(),
    };
    assert_eq!(writing.machine.propose(create).await, Ok(Outcome::Done));
    for engine in &reading {
        assert!(engine.machine.barrier().await.is_ok());
    }
    reading.drain(..dead).for_each(|engine| engine.kill());
    let sum = |of: fn(&PortCounts) -> u64| reading.iter().map(|it| of(&it.ports)).sum::<u64>();
    let requests = || sum(|ports| ports.get.answered.read().count);
    let (requests_before, bytes_before) = (requests(), sum(|ports| ports.get.bytes.get()));
    let segments = readers.segments();
    let Readers { consumers, partitions, think_max, .. } = readers;
    let consumers: Vec<_> = (0..consumers)
        .map(|number| {
            let own: Vec<_> =
                (0..partitions).map(|it| partition(it * consumers + number)).collect();
            let random = StdRng::seed_from_u64(u64::from(number.unsigned_abs()));
            let engine = &reading[usize::try_from(number).unwrap() % reading.len()];
            let end = Offset(i64::try_from(segments).unwrap());
            tokio::spawn(consume(engine.clone(), own, end, think_max, random))
        })
        .collect();
    for _ in 0..segments {
        let one = |at| (partition(at), batch(&VALUE, (-1, -1, -1)));
        let answers = writing.writer.append((0..PARTITIONS).map(one).collect()).await.unwrap();
        assert!(answers.await.iter().all(Result::is_ok));
    }
    for consumer in consumers {
        consumer.await.unwrap();
    }
    let written = writing.machine.read(|state| state.segments().referenced().len());
    assert_eq!(written, usize::try_from(segments).unwrap());
    let wanted = u64::try_from(readers.consumers * readers.partitions).unwrap() * segments;
    let ratio = |one: u64, other: u64| {
        f64::from(u32::try_from(one).unwrap()) / f64::from(u32::try_from(other).unwrap())
    };
    let read = sum(|ports| ports.get.bytes.get()) - bytes_before;
    let wanted_bytes = wanted * u64::try_from(batch_bytes()).unwrap();
    Cost {
        requests: ratio(requests() - requests_before, segments),
        bytes: ratio(read, wanted_bytes),
        asked: ratio(sum(|ports| ports.ask.answered.read().count), segments),
    }
}

fn batch_bytes() -> usize {
    batch(&VALUE, (-1, -1, -1)).bytes.len()
}

/// Reads these partitions up to an offset, as a consumer does: all of them with one request, which
/// is answered when there is something.
async fn consume(
    engine: Engine,
    own: Vec<TopicPartition>,
    end: Offset,
    think_max: Duration,
    mut random: StdRng,
) {
    let mut offsets = vec![Offset(0); own.len()];
    while offsets.iter().any(|at| *at < end) {
        let target = |(partition, offset): (&TopicPartition, &Offset)| FetchTarget {
            partition: *partition,
            offset: *offset,
            bytes_max: 1024 * 1024,
        };
        let targets: Vec<_> = own.iter().zip(&offsets).map(target).collect();
        let mut watch = engine.machine.watch(own.iter().copied());
        let plan = engine.reader.plan(&targets, usize::MAX, Isolation::ReadUncommitted);
        if plan.available_bytes() == 0 {
            watch.changed().await;
            continue;
        }
        for (offset, fetched) in offsets.iter_mut().zip(engine.reader.fetch(plan).await) {
            let records = fetched.unwrap().records_bytes / batch_bytes();
            *offset = offset.advanced_by(u32::try_from(records).unwrap());
        }
        sleep(think_max.mul_f64(random.random())).await;
    }
}

/// As it is where requests are paid for.
fn gathers() -> ReaderConfig {
    let (gather, ask_max) = (Duration::from_millis(3), Duration::from_millis(300));
    ReaderConfig { gather, ask_max, range_gap_max: 1024 * 1024, ..ReaderConfig::default() }
}

#[tokio::test(start_paused = true)]
async fn a_segment_is_read_once_however_many_consumers_want_parts_of_it() {
    for (consumers, partitions) in [(1, PARTITIONS), (40, 6), (240, 1), (8, 3)] {
        for think_max in [20, 400].map(Duration::from_millis) {
            let readers = Readers { brokers: 1, consumers, partitions, think_max };
            let alone = cost(["a", "b"], ReaderConfig::default(), readers, 0).await;
            let Cost { requests, bytes, .. } = cost(["a", "b"], gathers(), readers, 0).await;
            println!(
                "{consumers} consumers of {partitions} partitions, {think_max:?} at most from \
                 answer to request: {requests:.2} GETs a segment, {bytes:.2} bytes read for each \
                 wanted; {:.2} and {:.2} where each reads for itself",
                alone.requests, alone.bytes
            );
            assert!(requests <= 1.2, "{requests} of {consumers} consumers");
        }
    }
}

#[tokio::test(start_paused = true)]
async fn a_segment_is_read_once_for_all_brokers_of_a_zone_and_never_in_that_of_its_writer() {
    for think_max in [20, 400].map(Duration::from_millis) {
        let readers = Readers { brokers: 4, consumers: 40, partitions: 6, think_max };
        let near = cost(["a", "a"], gathers(), readers, 0).await;
        let far = cost(["a", "b"], gathers(), readers, 0).await;
        let alone =
            cost(["a", "b"], ReaderConfig { ask_max: Duration::ZERO, ..gathers() }, readers, 0);
        let alone = alone.await;
        println!(
            "4 brokers, {think_max:?} at most from answer to request: {:.2} GETs a segment in the \
             zone of the writer ({:.2} questions), {:.2} in another ({:.2} questions), {:.2} where \
             each broker reads for itself",
            near.requests, near.asked, far.requests, far.asked, alone.requests
        );
        // Each reads the marker of the cluster once.
        assert!(near.requests <= 0.05, "{}", near.requests);
        assert!(far.requests <= 1.2, "{}", far.requests);
    }
}

#[tokio::test(start_paused = true)]
async fn who_is_asked_and_is_dead_is_waited_for_once_a_second_until_it_is_known_to_be_dead() {
    let think_max = Duration::from_millis(20);
    let readers = Readers { brokers: 4, consumers: 40, partitions: 6, think_max };
    let Cost { requests, .. } = cost(["a", "b"], gathers(), readers, 2).await;
    println!("2 of 4 brokers dead: {requests:.2} GETs a segment");
    assert!(requests <= 2.0, "{requests}");
}
