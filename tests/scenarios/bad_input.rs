//! Bad input: the broker answers with the protocol's error or closes the connection, its memory
//! stays bounded, and other clients notice nothing.

use bytes::{BufMut, Bytes};
use kafka_protocol::messages::{ApiKey, ApiVersionsRequest, ApiVersionsResponse, BrokerId};
use kafka_protocol::protocol::Decodable;
use odradek_tests::batches::{BatchSpec, seal};
use odradek_tests::client::{Client, fetch_request, frame_of, produce_request};
use odradek_tests::cluster::Cluster;

mod much;

/// A cluster, and a client whose life goes on whatever others send.
struct Scene {
    cluster: Cluster,
    bystander: Client,
}

impl Scene {
    async fn set() -> Self {
        let cluster = Cluster::in_memory(1).await;
        let mut bystander = Client::connect(cluster.address(0)).await;
        bystander.create_topic("t", 1).await;
        Self { cluster, bystander }
    }

    async fn intruder(&self) -> Client {
        Client::connect(self.cluster.address(0)).await
    }

    /// The bystander produces and fetches as if nothing had happened.
    async fn goes_on(&mut self) {
        let value = Bytes::from_static(b"life goes on");
        let base = self.bystander.produce("t", 0, &BatchSpec::of([value.clone()])).await;
        let read = self.bystander.read_all("t", 0, base).await;
        assert_eq!(read[0].value, value);
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn what_is_no_frame_closes_the_connection() {
    let mut scene = Scene::set().await;
    let tls_hello = [&[0x16, 3, 1, 2, 0, 1, 0, 1, 0xfc, 3, 3][..], &[7; 500]].concat();
    let frames: [&[u8]; 8] = [
        &[0xff, 0xff, 0xff, 0xff],
        &[0x80, 0, 0, 0],
        &[0, 0, 0, 0],
        &[0, 0, 0, 7, 0, 3, 0, 1, 0, 0, 0],
        &[0x7f, 0xff, 0xff, 0xff, 0, 3],
        &tls_hello,
        b"GET / HTTP/1.1\r\nHost: localhost\r\n\r\n",
        b"\0\0\0\x08\0\x03\0\x01\0\0\0\0",
    ];
    for frame in frames {
        let mut intruder = scene.intruder().await;
        intruder.send_raw(frame).await;
        assert!(intruder.read_to_end().await.is_empty(), "{frame:?}");
    }
    scene.goes_on().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn what_is_no_request_closes_the_connection() {
    let mut scene = Scene::set().await;
    let lying_tag = [0xff, 0xff, 0xff, 0xff, 0x0f];
    let frames = [
        // The fourteen bytes that ask for more memory than there is, and their compact form.
        frame_of(ApiKey::Metadata, 1, &[0x7f, 0xff, 0xff, 0xff]),
        frame_of(ApiKey::Metadata, 9, &[0xff, 0xff, 0xff, 0xff, 0x0f, 0, 0, 0, 0]),
        frame_of(ApiKey::Metadata, 9, &[[1, 0, 0, 0].as_slice(), &lying_tag].concat()),
        frame_of(ApiKey::Produce, 2, &[0; 20]),
        frame_of(ApiKey::Fetch, 99, &[0; 20]),
        frame_of(ApiKey::Vote, 0, &[0; 20]),
        Bytes::from_static(&[0, 0, 0, 10, 0x7f, 0xff, 0, 0, 0, 0, 0, 1, 0xff, 0xff]),
        frame_of(ApiKey::Fetch, 4, &[0x80; 64]),
    ];
    for frame in frames {
        let mut intruder = scene.intruder().await;
        intruder.send_raw(&frame).await;
        assert!(intruder.read_to_end().await.is_empty(), "{frame:?}");
    }
    scene.goes_on().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn an_api_versions_request_of_the_future_is_answered_in_version_0() {
    let mut scene = Scene::set().await;
    let mut client = scene.intruder().await;
    client.send_raw(&frame_of(ApiKey::ApiVersions, 5, &[0xde, 0xad])).await;
    let mut frame = client.next_frame().await.unwrap();
    assert_eq!(frame.split_to(4), 77_i32.to_be_bytes().as_slice());
    let response = ApiVersionsResponse::decode(&mut frame, 0).unwrap();
    assert_eq!(response.error_code, 35);
    let keys: Vec<_> =
        response.api_keys.iter().map(|it| (it.api_key, it.min_version, it.max_version)).collect();
    assert_eq!(keys, [(18, 0, 4)]);
    // The connection is still good.
    let response = client.call(4, &ApiVersionsRequest::default()).await;
    assert_eq!(response.error_code, 0);
    let produce = response.api_keys.iter().find(|it| it.api_key == 0).unwrap();
    assert_eq!((produce.min_version, produce.max_version), (0, 13));
    scene.goes_on().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_thousand_liars_and_a_thousand_sleepers_cost_little() {
    let mut scene = Scene::set().await;
    let before = resident_bytes();
    let mut crowd = Vec::new();
    for n in 0..1000 {
        let mut liar = scene.intruder().await;
        // Announces ninety megabytes and sends ten bytes.
        liar.send_raw(&(90_i32 << 20).to_be_bytes()).await;
        liar.send_raw(b"\0\0\0\x09\0\0\0\x01\xff\xff").await;
        crowd.push(liar);
        crowd.push(scene.intruder().await);
        if n % 100 == 0 {
            scene.goes_on().await;
        }
    }
    scene.goes_on().await;
    let grown = resident_bytes().saturating_sub(before);
    assert!(grown < 300 << 20, "{grown} bytes for nothing");
    drop(crowd);
    scene.goes_on().await;
}

fn resident_bytes() -> usize {
    let statm = std::fs::read_to_string("/proc/self/statm").unwrap();
    statm.split_whitespace().nth(1).unwrap().parse::<usize>().unwrap() * 4096
}

#[tokio::test(flavor = "multi_thread")]
async fn a_client_that_vanishes_in_the_middle_of_a_frame_is_forgotten() {
    let mut scene = Scene::set().await;
    let whole = frame_of(ApiKey::Metadata, 1, &[0, 0, 0, 0]);
    for end in 1..whole.len() {
        let mut intruder = scene.intruder().await;
        intruder.send_raw(&whole[..end]).await;
        intruder.finish_sending().await;
        assert!(intruder.read_to_end().await.is_empty(), "{end}");
    }
    scene.goes_on().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn every_flaw_of_a_batch_is_answered_by_its_own_code() {
    let mut scene = Scene::set().await;
    let good = BatchSpec::of(["value"]);
    let changed = |change: &dyn Fn(&mut Vec<u8>)| {
        let mut batch = good.encode().to_vec();
        change(&mut batch);
        Bytes::from(batch)
    };
    let sealed = |change: &dyn Fn(&mut Vec<u8>)| {
        changed(&|batch| {
            change(batch);
            seal(batch);
        })
    };
    let year_5000 = 95_617_584_000_000;
    let future = BatchSpec { timestamps: (year_5000, year_5000), ..BatchSpec::of(["value"]) };
    let long = BatchSpec::of([vec![0_u8; 1_100_000]]);
    let cases = [
        ("checksum", changed(&|batch| batch[70] ^= 1), 2),
        ("cut short", changed(&|batch| batch.truncate(65)), 2),
        ("magic 1", changed(&|batch| batch[16] = 1), 87),
        ("count", sealed(&|batch| batch[60] = 9), 87),
        ("count of records", sealed(&|batch| (batch[60], batch[26]) = (2, 1)), 87),
        ("two batches", [good.encode(), good.encode()].concat().into(), 87),
        ("base offset", changed(&|batch| batch[7] = 1), 87),
        ("control", sealed(&|batch| batch[22] |= 0x20), 87),
        ("codec 7", sealed(&|batch| batch[22] |= 7), 76),
        ("timestamp type", sealed(&|batch| batch[22] |= 8), 32),
        ("nothing", Bytes::new(), 87),
        ("transactional", sealed(&|batch| batch[22] |= 0x10), 53),
        ("future", future.encode(), 32),
        ("too long", long.encode(), 10),
        ("sequence", BatchSpec::of(["v"]).by(5, 0, -1).encode(), 87),
    ];
    let mut client = scene.intruder().await;
    for (flaw, records, code) in cases {
        let answer = client.produce_raw("t", 0, records).await;
        assert_eq!((answer.error_code, answer.base_offset), (code, -1), "{flaw}: {answer:?}");
        // The connection is still good, and so is the partition.
        client.produce("t", 0, &good).await;
    }
    scene.goes_on().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_bomb_hurts_nobody() {
    let mut scene = Scene::set().await;
    let mut client = scene.intruder().await;
    let bomb = zstd_of_zeros(1 << 30);
    assert!(bomb.len() < 1_000_000, "{}", bomb.len());
    let nonsense = Bytes::from_static(b"this is no zstd frame at all");
    for records in [bomb, nonsense] {
        let spec = BatchSpec { attributes: 4, ..BatchSpec::of([Bytes::new()]) };
        let answer = client.produce_raw("t", 0, spec.encode_around(&records, 1)).await;
        assert_eq!(answer.error_code, 0, "{answer:?}");
        // Looking into the batch stops at a limit and falls back to its first offset.
        let found = client.list_offset(7, "t", 0, 1).await;
        assert_eq!(found.error_code, 0, "{found:?}");
    }
    scene.goes_on().await;
}

/// A zstd frame that unpacks to zeros: one run-length block after the other.
fn zstd_of_zeros(bytes: u32) -> Bytes {
    let mut frame = vec![0x28, 0xb5, 0x2f, 0xfd, 0x00, 0x58];
    let block = 128 * 1024;
    for at in (0..bytes).step_by(128 * 1024) {
        let last = u32::from(at + block >= bytes);
        let header = (block << 3) | (1 << 1) | last;
        frame.put_slice(&header.to_le_bytes()[..3]);
        frame.put_u8(0);
    }
    frame.into()
}

#[tokio::test(flavor = "multi_thread")]
async fn without_acks_there_is_no_answer_and_a_failure_closes() {
    let mut scene = Scene::set().await;
    let mut client = scene.intruder().await;
    let good = BatchSpec::of(["unacknowledged"]).encode();
    client.send(9, &produce_request("t", 0, 0, good.clone())).await;
    // The next answer on the connection is not the produce request's.
    let response = client.call(4, &ApiVersionsRequest::default()).await;
    assert_eq!(response.error_code, 0);
    let read = scene.bystander.list_offset(7, "t", 0, -1).await;
    assert!(read.offset <= 1);
    client.send(9, &produce_request("no-such-topic", 0, 0, good)).await;
    assert!(client.read_to_end().await.is_empty());
    scene.goes_on().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_forged_follower_is_refused() {
    let mut scene = Scene::set().await;
    let mut client = scene.intruder().await;
    let forged = fetch_request("t", 0, 0).with_replica_id(BrokerId(1));
    let response = client.call(11, &forged).await;
    assert_eq!(response.error_code, 42);
    scene.goes_on().await;
}
