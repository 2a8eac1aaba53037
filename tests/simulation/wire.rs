//! The wire: a broker and clients that are slow, silent, torn off or unreasonable, over pipes and
//! on simulated time. What each of them holds comes back, and the others are served meanwhile.

use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use kafka_protocol::messages::create_topics_request::CreatableTopic;
use kafka_protocol::messages::{
    ApiKey, ApiVersionsRequest, CreateTopicsRequest, FetchRequest, MetadataRequest,
};
use kafka_protocol::protocol::Request;
use odradek::broker::Broker;
use odradek::config::Config;
use odradek_storage::log::memory::MemoryLog;
use odradek_storage::object::memory::MemoryObjectStore;
use odradek_tests::alone;
use odradek_tests::batches::{BatchSpec, read_records};
use odradek_tests::client::{fetch_request, frame, frame_of, produce_request, topic};
use odradek_tests::world::ports;
use tokio::io::{AsyncReadExt, AsyncWriteExt, DuplexStream, duplex};
use tokio::sync::mpsc;
use tokio::time::{Instant, sleep, timeout};

/// What the two ends of a connection buffer between them.
const WINDOW_BYTES: usize = 4096;

/// Longest a request of a well-behaved client may take.
const PATIENCE: Duration = Duration::from_secs(5);

/// The least budget there is: what it is spent for shows at once.
const MEMORY_BYTES: usize = 1 << 20;

/// A budget for crowds: an eighth of the usual one.
const CROWD_MEMORY_BYTES: usize = 64 << 20;

/// A broker behind pipes, and a client that behaves.
struct Scene {
    broker: Broker,
    door: mpsc::Sender<DuplexStream>,
    bystander: Wire,
}

impl Scene {
    async fn set(memory_bytes: usize) -> Self {
        let ports = ports(Arc::new(MemoryObjectStore::default()), Arc::new(MemoryLog::default()));
        let config = Config { memory_bytes, ..Config::default() };
        let broker = Broker::start_behind_pipes(config, alone::config(1), ports);
        let (broker, door) = broker.await.unwrap();
        let bystander = Wire::through(&door).await;
        let mut scene = Self { broker, door, bystander };
        let new = CreatableTopic::default()
            .with_name(topic("t"))
            .with_num_partitions(1)
            .with_replication_factor(1);
        let create = CreateTopicsRequest::default().with_topics(vec![new]).with_timeout_ms(10_000);
        let created = scene.bystander.call(2, &create).await;
        assert_eq!(created.topics[0].error_code, 0);
        scene
    }

    async fn wire(&self) -> Wire {
        Wire::through(&self.door).await
    }

    /// The bystander is served as if nothing were the matter.
    async fn goes_on(&mut self) {
        let produce = produce_request("t", 0, -1, BatchSpec::of(["life goes on"]).encode());
        let served = async {
            let answer = self.bystander.call(9, &produce).await;
            assert_eq!(answer.responses[0].partition_responses[0].error_code, 0);
            let fetched = self.bystander.call(11, &fetch_request("t", 0, 0)).await;
            assert_eq!(fetched.responses[0].partitions[0].error_code, 0);
        };
        timeout(PATIENCE, served).await.expect("others are served");
    }

    /// How many records the bystander is given at once from an offset on.
    async fn batches_from(&mut self, offset: i64) -> usize {
        let fetched = self.bystander.call(11, &fetch_request("t", 0, offset)).await;
        let records = fetched.responses[0].partitions[0].records.clone();
        read_records(records.unwrap_or_default()).len()
    }

    /// All of the budget is there again: a request that takes most of it, from several at once.
    async fn has_all_its_memory(&mut self) {
        let large = frame_of(ApiKey::Metadata, 1, &[[0; 4].as_slice(), &[0; 800_000]].concat());
        let asked = (0..4).map(|_| async {
            let mut wire = self.wire().await;
            wire.send(&large).await;
            assert!(wire.next_frame().await.is_some());
        });
        let all = futures::future::join_all(asked);
        timeout(PATIENCE, all).await.expect("the memory was given back");
        self.goes_on().await;
    }
}

/// One end of a connection.
struct Wire {
    stream: DuplexStream,
    correlation_id: i32,
}

impl Wire {
    async fn through(door: &mpsc::Sender<DuplexStream>) -> Self {
        let (stream, other) = duplex(WINDOW_BYTES);
        door.send(other).await.unwrap();
        Self { stream, correlation_id: 0 }
    }

    /// Sends, unless the broker has hung up.
    async fn send(&mut self, bytes: &[u8]) {
        drop(self.stream.write_all(bytes).await);
    }

    /// The next response without its length; `None` if the connection is at its end.
    async fn next_frame(&mut self) -> Option<Bytes> {
        let length = usize::try_from(self.stream.read_i32().await.ok()?).unwrap();
        let mut frame = vec![0; length];
        self.stream.read_exact(&mut frame).await.ok()?;
        Some(frame.into())
    }

    async fn call<R: Request>(&mut self, version: i16, request: &R) -> R::Response {
        self.correlation_id += 1;
        self.send(&frame(version, self.correlation_id, request)).await;
        let answer = self.next_frame().await.expect("an answer");
        odradek_tests::client::response::<R>(version, self.correlation_id, answer)
    }

    /// Waits until the broker hangs up; how long that took.
    async fn is_hung_up_on(&mut self) -> Duration {
        let began = Instant::now();
        let mut rest = Vec::new();
        drop(self.stream.read_to_end(&mut rest).await);
        began.elapsed()
    }
}

fn simulate(scenario: impl AsyncFnOnce(Scene)) {
    simulate_with(MEMORY_BYTES, scenario);
}

fn simulate_with(memory_bytes: usize, scenario: impl AsyncFnOnce(Scene)) {
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_time()
        .start_paused(true)
        .build()
        .unwrap();
    runtime.block_on(async { scenario(Scene::set(memory_bytes).await).await });
}

/// Some requests of different kinds, and their correlation ids.
fn pipelined() -> (Vec<u8>, Vec<i32>) {
    let produce = |number: i32| {
        let batch = BatchSpec::of([number.to_string()]).encode();
        frame(9, number, &produce_request("t", 0, -1, batch))
    };
    let metadata = MetadataRequest::default().with_topics(None);
    let frames = [
        frame(4, 1, &ApiVersionsRequest::default()),
        produce(2),
        produce(3),
        frame(8, 4, &metadata),
        frame(11, 5, &fetch_request("t", 0, 0)),
        produce(6),
        frame(4, 7, &ApiVersionsRequest::default()),
    ];
    (frames.concat(), (1..=7).collect())
}

#[test]
fn requests_cut_at_any_byte_are_answered_in_order() {
    simulate(async |mut scene| {
        let (bytes, ids) = pipelined();
        for cut in 0..=bytes.len() {
            let mut wire = scene.wire().await;
            wire.send(&bytes[..cut]).await;
            sleep(Duration::from_millis(10)).await;
            wire.send(&bytes[cut..]).await;
            for id in &ids {
                let answer = wire.next_frame().await.expect("an answer");
                assert_eq!(answer[..4], id.to_be_bytes(), "cut at {cut}");
            }
        }
        scene.has_all_its_memory().await;
    });
}

#[test]
fn requests_that_come_byte_by_byte_are_answered_in_order() {
    simulate(async |mut scene| {
        let (bytes, ids) = pipelined();
        let mut wire = scene.wire().await;
        for byte in &bytes {
            wire.send(std::slice::from_ref(byte)).await;
            sleep(Duration::from_millis(1)).await;
        }
        for id in &ids {
            assert_eq!(wire.next_frame().await.expect("an answer")[..4], id.to_be_bytes());
        }
        scene.has_all_its_memory().await;
    });
}

#[test]
fn whoever_is_torn_off_at_any_byte_leaves_nothing_behind() {
    simulate(async |mut scene| {
        let (bytes, _) = pipelined();
        // So often that nothing would be left if each kept the least.
        let cuts = (0..bytes.len()).cycle().take(MEMORY_BYTES / 1024 + 200);
        for cut in cuts {
            let mut wire = scene.wire().await;
            wire.send(&bytes[..cut]).await;
            // Now and then in the middle of an answer.
            if cut % 3 == 0 {
                let mut some = [0; 7];
                drop(timeout(Duration::from_millis(5), wire.stream.read(&mut some)).await);
            }
        }
        scene.has_all_its_memory().await;
    });
}

#[test]
fn answers_that_nobody_takes_hold_what_they_may_and_a_batch_each() {
    const BATCH_BYTES: usize = 60_000;
    const CROWD: usize = 40;
    simulate(async |mut scene| {
        for _ in 0..32 {
            let batch = BatchSpec::of([vec![7; BATCH_BYTES]]).encode();
            let answer = scene.bystander.call(9, &produce_request("t", 0, -1, batch)).await;
            assert_eq!(answer.responses[0].partition_responses[0].error_code, 0);
        }
        // Each asks for as much as all may have together.
        let mut crowd = Vec::new();
        for _ in 0..CROWD {
            let mut wire = scene.wire().await;
            wire.send(&frame::<FetchRequest>(11, 1, &fetch_request("t", 0, 0))).await;
            sleep(Duration::from_millis(10)).await;
            crowd.push(wire);
        }
        let (taken, total) = scene.broker.answer_bytes();
        assert_eq!(total, MEMORY_BYTES);
        assert!(taken > total / 2, "{taken} of {total} bytes");
        assert!(taken < total + CROWD * (BATCH_BYTES + 200), "{taken} of {total} bytes");

        // Who reads gets on, a batch at a time; and as before once the others are gone.
        for offset in 0..5 {
            assert_eq!(scene.batches_from(offset).await, 1);
        }
        drop(crowd);
        sleep(Duration::from_secs(1)).await;
        assert_eq!(scene.broker.answer_bytes().0, 0);
        assert!(scene.batches_from(0).await > 10);
        scene.has_all_its_memory().await;
    });
}

#[test]
fn a_crowd_of_the_half_open_is_hung_up_on_and_bothers_nobody() {
    simulate_with(CROWD_MEMORY_BYTES, async |mut scene| {
        let mut crowd = Vec::new();
        for number in 0..2_000 {
            let mut wire = scene.wire().await;
            // Nothing; a part of a length; a length; a length that is a lot, and a little more.
            let sent: [&[u8]; 4] = [&[], &[0, 0], &[0, 0, 1, 0], &[0, 0x60, 0, 0, 0, 3]];
            wire.send(sent[number % 4]).await;
            crowd.push(wire);
        }
        scene.goes_on().await;
        sleep(Duration::from_secs(45)).await;
        scene.goes_on().await;
        for (number, wire) in crowd.iter_mut().enumerate() {
            let took = wire.is_hung_up_on().await;
            if number == 0 {
                let idle = Duration::from_secs(500)..Duration::from_secs(600);
                assert!(idle.contains(&took), "an idle connection is closed after {took:?}");
            }
        }
        // The bystander was idle as well.
        scene.bystander = scene.wire().await;
        scene.has_all_its_memory().await;
    });
}

#[test]
fn whoever_sends_a_byte_a_second_does_not_keep_memory_from_others() {
    simulate_with(CROWD_MEMORY_BYTES, async |mut scene| {
        let mut crowd = Vec::new();
        for _ in 0..2_000 {
            let mut wire = scene.wire().await;
            crowd.push(tokio::spawn(async move {
                wire.send(&(1_i32 << 20).to_be_bytes()).await;
                loop {
                    if wire.stream.write_all(&[0]).await.is_err() {
                        return;
                    }
                    sleep(Duration::from_secs(1)).await;
                }
            }));
        }
        for _ in 0..6 {
            sleep(Duration::from_secs(10)).await;
            scene.goes_on().await;
        }
        for sender in crowd {
            timeout(Duration::from_secs(600), sender).await.expect("hung up on").unwrap();
        }
        scene.bystander = scene.wire().await;
        scene.has_all_its_memory().await;
    });
}

#[test]
fn whoever_reads_a_byte_a_second_or_nothing_keeps_nobody_waiting() {
    simulate(async |mut scene| {
        let value = Bytes::from(vec![7; 200_000]);
        let batch = BatchSpec::of([value]).encode();
        for _ in 0..5 {
            scene.bystander.call(9, &produce_request("t", 0, -1, batch.clone())).await;
        }
        let fetches = frame(11, 1, &fetch_request("t", 0, 0)).repeat(100);
        let mut deaf = scene.wire().await;
        deaf.send(&fetches).await;
        let mut slow = scene.wire().await;
        slow.send(&fetches).await;
        let reading = tokio::spawn(async move {
            for _ in 0..200 {
                slow.stream.read_u8().await.unwrap();
                sleep(Duration::from_secs(1)).await;
            }
        });
        for _ in 0..20 {
            scene.goes_on().await;
            sleep(Duration::from_secs(10)).await;
        }
        reading.await.expect("who reads something is not hung up on");
        let took = deaf.is_hung_up_on().await;
        assert!(took < Duration::from_secs(60), "who reads nothing is, after {took:?}");
        scene.has_all_its_memory().await;
    });
}

#[test]
fn a_client_that_does_not_read_is_not_read_from() {
    simulate(async |mut scene| {
        let one = frame(4, 1, &ApiVersionsRequest::default());
        let mut wire = scene.wire().await;
        let sending = async {
            loop {
                if wire.stream.write_all(&one).await.is_err() {
                    return;
                }
            }
        };
        // No end of requests, and not one answer read: it stops being read from, and is hung up on.
        timeout(Duration::from_secs(120), sending).await.expect("hung up on");
        scene.has_all_its_memory().await;
    });
}

#[test]
fn a_broker_that_stops_answers_what_it_has_read() {
    simulate(async |scene| {
        let (bytes, ids) = pipelined();
        let mut wire = scene.wire().await;
        wire.send(&bytes).await;
        // Until it has been let in and read from: what is behind the door is nobody's yet.
        sleep(Duration::from_millis(1)).await;
        let mut silent = scene.wire().await;
        silent.send(&[0, 0, 1, 0, 0]).await;
        let Scene { broker, door, .. } = scene;
        let stopping = tokio::spawn(broker.stop());
        for id in &ids {
            assert_eq!(wire.next_frame().await.expect("an answer")[..4], id.to_be_bytes());
        }
        assert!(wire.next_frame().await.is_none());
        silent.is_hung_up_on().await;
        timeout(Duration::from_secs(60), stopping).await.expect("it stops").unwrap();
        drop(door);
    });
}
