//! Consumers at the tail who read from a broker that did not write: how often it asks the store.

use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use odradek_protocol::id::{Offset, TopicPartition};
use odradek_storage::clock::ManualClock;
use odradek_storage::command::{Command, Outcome};
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

/// Segments that are written.
const SEGMENTS: u64 = 100;

/// Bytes of each batch, of which a segment has one of every partition.
const VALUE: Bytes = Bytes::from_static(&[7; 8 * 1024]);

/// Who reads how much of the topic, and how fast.
#[derive(Clone, Copy)]
struct Readers {
    consumers: i32,
    /// Partitions of each, which nobody else reads.
    partitions: i32,
    /// Longest time between an answer and the next request.
    think_max: Duration,
}

fn partition(partition: i32) -> TopicPartition {
    TopicPartition { topic: TOPIC, partition }
}

/// Everything stays where it was written.
fn config(number: u64) -> EngineConfig {
    let mut config = alone::config(number);
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
        peers: Arc::new(place.room.clone()),
    };
    let engine = Engine::start(config, ports).await.unwrap();
    place.room.enter(&alone::host(number), 1, engine.machine.clone());
    engine
}

struct Place {
    log: MemoryLog,
    objects: MemoryObjectStore,
    room: MemoryPeers,
}

/// Writes on one broker and reads on another, and says how many requests that one needed for each
/// segment, and how many bytes it read for each that was wanted.
async fn requests_per_segment(reader: ReaderConfig, readers: Readers) -> (f64, f64) {
    let place = Place {
        log: MemoryLog::default(),
        objects: MemoryObjectStore::default(),
        room: MemoryPeers::new(1, 0.0, Duration::from_millis(1)),
    };
    let writing = start(1, config(1), &place).await;
    let reading = start(2, EngineConfig { reader, ..config(2) }, &place).await;
    let create = Command::CreateTopic {
        topic: TOPIC,
        name: "t".to_owned(),
        partitions: u32::try_from(PARTITIONS).unwrap(),
        replication_factor: 1,
        configs: Default::default(),
    };
    assert_eq!(writing.machine.propose(create).await, Ok(Outcome::Done));
    assert!(reading.machine.barrier().await.is_ok());
    let Readers { consumers, partitions, think_max } = readers;
    let requests = || reading.ports.get.answered.read().count;
    let (requests_before, bytes_before) = (requests(), reading.ports.get.bytes.get());
    let consumers: Vec<_> = (0..consumers)
        .map(|number| {
            let own: Vec<_> =
                (0..partitions).map(|it| partition(it * consumers + number)).collect();
            let random = StdRng::seed_from_u64(u64::from(number.unsigned_abs()));
            tokio::spawn(consume(reading.clone(), own, think_max, random))
        })
        .collect();
    for _ in 0..SEGMENTS {
        let one = |at| (partition(at), batch(&VALUE, (-1, -1, -1)));
        let answers = writing.writer.append((0..PARTITIONS).map(one).collect()).await.unwrap();
        assert!(answers.await.iter().all(Result::is_ok));
    }
    for consumer in consumers {
        consumer.await.unwrap();
    }
    let segments = reading.machine.read(|state| state.segments().referenced().len());
    assert_eq!(segments, usize::try_from(SEGMENTS).unwrap());
    let wanted = u64::try_from(readers.consumers * readers.partitions).unwrap() * SEGMENTS;
    let ratio = |one: u64, other: u64| {
        f64::from(u32::try_from(one).unwrap()) / f64::from(u32::try_from(other).unwrap())
    };
    let read = reading.ports.get.bytes.get() - bytes_before;
    let wanted_bytes = wanted * u64::try_from(batch_bytes()).unwrap();
    (ratio(requests() - requests_before, SEGMENTS), ratio(read, wanted_bytes))
}

fn batch_bytes() -> usize {
    batch(&VALUE, (-1, -1, -1)).bytes.len()
}

/// Reads these partitions to the end of what is written, as a consumer does: all of them with one
/// request, which is answered when there is something.
async fn consume(
    engine: Engine,
    own: Vec<TopicPartition>,
    think_max: Duration,
    mut random: StdRng,
) {
    let end = Offset(i64::try_from(SEGMENTS).unwrap());
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
    let gather = Duration::from_millis(3);
    ReaderConfig { gather, range_gap_max: 1024 * 1024, ..ReaderConfig::default() }
}

#[tokio::test(start_paused = true)]
async fn a_segment_is_read_once_however_many_consumers_want_parts_of_it() {
    for (consumers, partitions) in [(1, PARTITIONS), (40, 6), (240, 1), (8, 3)] {
        for think_max in [20, 400].map(Duration::from_millis) {
            let readers = Readers { consumers, partitions, think_max };
            let alone = requests_per_segment(ReaderConfig::default(), readers).await;
            let (requests, bytes) = requests_per_segment(gathers(), readers).await;
            println!(
                "{consumers} consumers of {partitions} partitions, {think_max:?} at most from \
                 answer to request: {requests:.2} GETs a segment, {bytes:.2} bytes read for each \
                 wanted; {alone:.2?} where each reads for itself"
            );
            assert!(requests <= 1.2, "{requests} of {consumers} consumers");
        }
    }
}
