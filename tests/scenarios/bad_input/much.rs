//! Too much of something: every request is good in its form, and asks for more than anybody should.

use std::io::Write as _;

use bytes::Bytes;
use futures::future::join_all;
use kafka_protocol::messages::create_topics_request::CreatableTopic;
use kafka_protocol::messages::fetch_request::{FetchPartition, FetchTopic};
use kafka_protocol::messages::incremental_alter_configs_request::{
    AlterConfigsResource, AlterableConfig,
};
use kafka_protocol::messages::join_group_request::JoinGroupRequestProtocol;
use kafka_protocol::messages::offset_commit_request::{
    OffsetCommitRequestPartition, OffsetCommitRequestTopic,
};
use kafka_protocol::messages::{
    ApiVersionsRequest, CreateTopicsRequest, GroupId, IncrementalAlterConfigsRequest,
    InitProducerIdRequest, JoinGroupRequest, MetadataRequest, OffsetCommitRequest, TransactionalId,
};
use odradek_protocol::compression::pack;
use odradek_protocol::record::Codec;
use odradek_tests::batches::BatchSpec;
use odradek_tests::client::{Client, fetch_request, frame, topic};

use super::{Scene, resident_bytes};

/// Memory that nonsense may cost, in tests that run beside others.
const GROWTH_MAX: usize = 400 << 20;

#[tokio::test(flavor = "multi_thread")]
async fn a_frame_of_a_byte_too_many_is_not_read() {
    let mut scene = Scene::set().await;
    for length in [(100 << 20) + 1, i32::MAX] {
        let mut intruder = scene.intruder().await;
        intruder.send_raw(&length.to_be_bytes()).await;
        assert!(intruder.read_to_end().await.is_empty(), "{length}");
    }
    scene.goes_on().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn ten_thousand_topics_in_one_request_are_created() {
    let mut scene = Scene::set().await;
    let new = |n: usize| {
        CreatableTopic::default()
            .with_name(topic(&format!("many-{n:05}")))
            .with_num_partitions(1)
            .with_replication_factor(1)
    };
    let request = CreateTopicsRequest::default()
        .with_topics((0..10_000).map(new).collect())
        .with_timeout_ms(60_000);
    let mut client = scene.intruder().await;
    let asked = tokio::spawn(async move { client.call(2, &request).await });
    while !asked.is_finished() {
        scene.goes_on().await;
        tokio::task::yield_now().await;
    }
    let response = asked.await.unwrap();
    assert_eq!(response.topics.len(), 10_000);
    assert!(response.topics.iter().all(|topic| topic.error_code == 0));
    everybody_asks_for_all_topics(&scene).await;
    scene.goes_on().await;
}

/// Metadata of all topics, asked for by fifty at once: timers are not kept waiting until the broker
/// takes itself for one that was asleep and drops them all.
async fn everybody_asks_for_all_topics(scene: &Scene) {
    let before = resident_bytes();
    let clients: Vec<Client> = join_all((0..50).map(|_| scene.intruder())).await;
    let ask = |mut client: Client| async move {
        let all = MetadataRequest::default().with_topics(None);
        client.call(8, &all).await.topics.len()
    };
    for topics in join_all(clients.into_iter().map(ask)).await {
        assert_eq!(topics, 10_001);
    }
    let grown = resident_bytes().saturating_sub(before);
    assert!(grown < GROWTH_MAX, "{grown} bytes for metadata");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_fetch_of_fifty_thousand_partitions_is_answered_for_each() {
    let mut scene = Scene::set().await;
    let asked = |partition: i32| {
        FetchPartition::default().with_partition(partition).with_partition_max_bytes(i32::MAX)
    };
    let topics = vec![
        FetchTopic::default()
            .with_topic(topic("t"))
            .with_partitions((0..50_000).map(asked).collect()),
    ];
    let request = fetch_request("t", 0, 0).with_topics(topics);
    let mut client = scene.intruder().await;
    let response = client.call(11, &request).await;
    let partitions = &response.responses[0].partitions;
    assert_eq!(partitions.len(), 50_000);
    assert_eq!(partitions[0].error_code, 0);
    assert!(partitions[1..].iter().all(|it| it.error_code == 3), "there is one partition");
    scene.goes_on().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn more_elements_than_anybody_sends_close_the_connection() {
    let mut scene = Scene::set().await;
    let before = resident_bytes();
    let partitions = vec![FetchPartition::default(); 600_000];
    let topics = vec![FetchTopic::default().with_topic(topic("t")).with_partitions(partitions)];
    let request = fetch_request("t", 0, 0).with_topics(topics);
    let mut client = scene.intruder().await;
    client.send(11, &request).await;
    assert!(client.read_to_end().await.is_empty());
    drop(request);
    let grown = resident_bytes().saturating_sub(before);
    assert!(grown < GROWTH_MAX, "{grown} bytes for a refusal");
    scene.goes_on().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_record_with_a_hundred_thousand_headers_is_a_record() {
    let mut scene = Scene::set().await;
    let mut body = vec![0, 0, 0, 1, 2, b'v'];
    varint(&mut body, 100_000);
    for _ in 0..100_000 {
        body.extend([2, b'h', 1]);
    }
    let mut record = Vec::new();
    varint(&mut record, i64::try_from(body.len()).unwrap());
    record.extend(body);
    let mut client = scene.intruder().await;
    let batch = BatchSpec::of(["v"]).encode_around(&record, 1);
    let answer = client.produce_raw("t", 0, batch.clone()).await;
    assert_eq!(answer.error_code, 0, "{answer:?}");
    let found = client.list_offset(7, "t", 0, 1).await;
    assert_eq!((found.error_code, found.offset), (0, answer.base_offset));
    let read = client.fetch("t", 0, answer.base_offset).await;
    assert_eq!(read.records.unwrap()[61..], batch[61..], "as it was sent");
    scene.goes_on().await;
}

fn varint(out: &mut Vec<u8>, value: i64) {
    let mut zigzag = u64::try_from(value).unwrap() << 1;
    while zigzag >= 0x80 {
        out.push(u8::try_from(zigzag & 0x7f).unwrap() | 0x80);
        zigzag >>= 7;
    }
    out.push(u8::try_from(zigzag).unwrap());
}

#[tokio::test(flavor = "multi_thread")]
async fn a_bomb_of_any_codec_is_opened_only_so_far() {
    let mut scene = Scene::set().await;
    let mut client = scene.intruder().await;
    // Compacted, so that each record is looked at when it is produced.
    client.create_topic_with("bombs", 1, &[("cleanup.policy", "compact")]).await;
    let before = resident_bytes();
    let zeros = vec![0; 200 << 20];
    for (bits, codec) in [(1, Codec::Gzip), (2, Codec::Snappy), (3, Codec::Lz4)] {
        let bomb = match codec {
            Codec::Snappy => snappy_of_zeros(),
            codec => pack(codec, zeros.clone()).unwrap(),
        };
        let bomb = bomb.slice(..bomb.len().min(900_000));
        let spec = BatchSpec { attributes: bits, ..BatchSpec::of([Bytes::new()]) };
        for name in ["t", "bombs"] {
            let answer = client.produce_raw(name, 0, spec.encode_around(&bomb, 1)).await;
            let code = if name == "t" { 0 } else { 87 };
            assert_eq!(answer.error_code, code, "{codec:?}: {answer:?}");
        }
        // A search by time gives up at a limit and begins where the batch does.
        let found = client.list_offset(7, "t", 0, 1).await;
        assert_eq!(found.error_code, 0, "{found:?}");
    }
    drop(zeros);
    let grown = resident_bytes().saturating_sub(before);
    assert!(grown < GROWTH_MAX, "{grown} bytes for bombs");
    scene.goes_on().await;
}

/// A block in raw form that says it is 4 GiB long.
fn snappy_of_zeros() -> Bytes {
    let mut block = vec![0xff, 0xff, 0xff, 0xff, 0x0f, 0x00, 0x00];
    for _ in 0..100_000 {
        block.extend([0xfe, 0x01, 0x00]);
    }
    block.into()
}

#[tokio::test(flavor = "multi_thread")]
async fn a_window_of_two_gigabytes_is_not_opened() {
    let mut scene = Scene::set().await;
    let mut client = scene.intruder().await;
    client.create_topic_with("windows", 1, &[("cleanup.policy", "compact")]).await;
    let before = resident_bytes();
    // Window descriptor 21 << 3: 2^(10 + 21) bytes. One block of a run of zeros.
    let frame = [0x28, 0xb5, 0x2f, 0xfd, 0x00, 21 << 3, 0x03, 0x00, 0x10, 0x00];
    let spec = BatchSpec { attributes: 4, ..BatchSpec::of([Bytes::new()]) };
    let answer = client.produce_raw("windows", 0, spec.encode_around(&frame, 1)).await;
    assert_eq!(answer.error_code, 87, "{answer:?}");
    let answer = client.produce_raw("t", 0, spec.encode_around(&frame, 1)).await;
    assert_eq!(answer.error_code, 0, "nobody looks into it: {answer:?}");
    assert_eq!(client.list_offset(7, "t", 0, 1).await.error_code, 0);
    let grown = resident_bytes().saturating_sub(before);
    assert!(grown < GROWTH_MAX, "{grown} bytes for a window");
    scene.goes_on().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn times_that_can_not_be_break_no_search() {
    let mut scene = Scene::set().await;
    let mut client = scene.intruder().await;
    for (first, last) in [(-1, -1), (i64::MIN, i64::MIN), (-1_000, 5), (0, 0), (i64::MIN, 7)] {
        let spec = BatchSpec { timestamps: (first, first), ..BatchSpec::of(["v"]) };
        let mut batch = spec.encode().to_vec();
        batch[35..43].copy_from_slice(&i64::to_be_bytes(last));
        odradek_tests::batches::seal(&mut batch);
        let answer = client.produce_raw("t", 0, batch.into()).await;
        assert!([0, 32].contains(&answer.error_code), "{first}: {answer:?}");
    }
    let future = BatchSpec { timestamps: (i64::MAX, i64::MAX), ..BatchSpec::of(["v"]) };
    assert_eq!(client.produce_raw("t", 0, future.encode()).await.error_code, 32);
    for asked in [i64::MIN, -5, -4, -3, -2, -1, 0, 1, i64::MAX] {
        let found = client.list_offset(7, "t", 0, asked).await;
        assert!([0, 35, 42].contains(&found.error_code), "{asked}: {found:?}");
    }
    scene.goes_on().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn positions_of_partitions_that_are_not_there_are_refused_one_by_one() {
    let mut scene = Scene::set().await;
    let mut client = scene.intruder().await;
    let position = |index: i32, offset: i64| {
        OffsetCommitRequestPartition::default()
            .with_partition_index(index)
            .with_committed_offset(offset)
            .with_committed_metadata(Some("".into()))
    };
    let partitions = vec![
        position(i32::MAX, 0),
        position(i32::MIN, 0),
        position(-1, 0),
        position(0, i64::MAX),
        position(0, i64::from(i32::MAX)),
    ];
    let topics =
        vec![OffsetCommitRequestTopic::default().with_name(topic("t")).with_partitions(partitions)];
    let request = OffsetCommitRequest::default()
        .with_group_id(GroupId("positions".into()))
        .with_generation_id_or_member_epoch(-1)
        .with_topics(topics);
    let response = client.call(8, &request).await;
    let codes: Vec<_> = response.topics[0].partitions.iter().map(|it| it.error_code).collect();
    assert_eq!(codes[..3], [3, 3, 3], "{codes:?}");
    assert!(codes[3..].iter().all(|code| *code == 0), "a position may be anywhere: {codes:?}");
    scene.goes_on().await;
}

fn join(group: &str, metadata: Bytes) -> JoinGroupRequest {
    let protocol =
        JoinGroupRequestProtocol::default().with_name("range".into()).with_metadata(metadata);
    JoinGroupRequest::default()
        .with_group_id(GroupId(group.to_owned().into()))
        .with_session_timeout_ms(30_000)
        .with_rebalance_timeout_ms(60_000)
        .with_protocol_type("consumer".into())
        .with_protocols(vec![protocol])
}

#[tokio::test(flavor = "multi_thread")]
async fn a_member_that_says_ten_megabytes_of_itself_is_sent_away() {
    let mut scene = Scene::set().await;
    let mut client = scene.intruder().await;
    let response = client.call(3, &join("large", vec![0; 10 << 20].into())).await;
    assert_ne!(response.error_code, 0, "{:?}", response.error_code);
    // The connection is still good.
    assert_eq!(client.call(4, &ApiVersionsRequest::default()).await.error_code, 0);
    scene.goes_on().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn thousands_who_join_one_group_bother_nobody_else() {
    let mut scene = Scene::set().await;
    let before = resident_bytes();
    let mut crowd = Vec::new();
    // Joins without a member id are answered with one, so that a connection can have many.
    for _ in 0..20 {
        let mut client = scene.intruder().await;
        for _ in 0..150 {
            let request = join("crowd", Bytes::from_static(b"\0\0\0\0\0\x01\0\x01t"));
            client.send(4, &request).await;
        }
        for _ in 0..150 {
            let answer = client.next_frame().await.unwrap();
            assert!(answer.len() > 8);
        }
        crowd.push(client);
        scene.goes_on().await;
    }
    // And those of old clients wait for each other.
    for _ in 0..1000 {
        let mut client = scene.intruder().await;
        client.send(3, &join("crowd", Bytes::from_static(b"\0\0\0\0\0\x01\0\x01t"))).await;
        crowd.push(client);
    }
    scene.goes_on().await;
    let grown = resident_bytes().saturating_sub(before);
    assert!(grown < GROWTH_MAX, "{grown} bytes for members");
    drop(crowd);
    scene.goes_on().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_transactional_id_of_32_kilobytes_is_an_id_or_refused() {
    let mut scene = Scene::set().await;
    let mut client = scene.intruder().await;
    for length in [32_767, 32 << 10] {
        let request = InitProducerIdRequest::default()
            .with_transactional_id(Some(TransactionalId("x".repeat(length).into())))
            .with_transaction_timeout_ms(1_000);
        // Compact texts may be longer than those with two bytes of length.
        let response = client.call(4, &request).await;
        assert!([0, 42].contains(&response.error_code), "{length}: {response:?}");
    }
    scene.goes_on().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_fetcher_that_never_reads_holds_what_one_response_takes() {
    let mut scene = Scene::set().await;
    let mut client = scene.intruder().await;
    let value = Bytes::from(vec![7; 1_000_000]);
    for _ in 0..20 {
        client.produce("t", 0, &BatchSpec::of([value.clone()])).await;
    }
    let before = resident_bytes();
    let request = fetch_request("t", 0, 0).with_max_bytes(i32::MAX);
    let mut topics = request.topics.clone();
    topics[0].partitions[0].partition_max_bytes = i32::MAX;
    let request = request.with_topics(topics);
    let mut deaf = Vec::new();
    for _ in 0..20 {
        let mut client = scene.intruder().await;
        let pipelined = frame(11, 1, &request).repeat(200);
        client.send_raw(&pipelined).await;
        deaf.push(client);
    }
    scene.goes_on().await;
    let grown = resident_bytes().saturating_sub(before);
    assert!(grown < GROWTH_MAX, "{grown} bytes for those who do not read");
    drop(deaf);
    scene.goes_on().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_flood_of_connections_from_one_address_is_stemmed() {
    const MOST: usize = 50;
    let mut scene = Scene::set().await;
    let limit = AlterableConfig::default()
        .with_name("max.connections.per.ip".into())
        .with_config_operation(0)
        .with_value(Some(MOST.to_string().into()));
    let cluster = AlterConfigsResource::default().with_resource_type(4).with_configs(vec![limit]);
    let alter = IncrementalAlterConfigsRequest::default().with_resources(vec![cluster]);
    let altered = scene.intruder().await.call(1, &alter).await;
    assert_eq!(altered.responses[0].error_code, 0, "{altered:?}");
    let mut crowd = Vec::new();
    for _ in 0..4 * MOST {
        let mut client = scene.intruder().await;
        client.send(4, &ApiVersionsRequest::default()).await;
        if client.next_frame().await.is_some() {
            crowd.push(client);
        }
        assert!(crowd.len() < MOST, "the bystander has a place as well");
    }
    assert!(crowd.len() > MOST / 2, "only {} were let in", crowd.len());
    scene.goes_on().await;
    drop(crowd);
    // As soon as the broker has noticed that they are gone, there is room again.
    loop {
        let mut client = scene.intruder().await;
        client.send(4, &ApiVersionsRequest::default()).await;
        if client.next_frame().await.is_some() {
            break;
        }
        tokio::task::yield_now().await;
    }
    scene.goes_on().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn gzip_that_never_ends_is_cut() {
    let mut scene = Scene::set().await;
    let mut client = scene.intruder().await;
    client.create_topic_with("endless", 1, &[("cleanup.policy", "compact")]).await;
    // Members without content, one behind the other: nothing to unpack, and many to open.
    let mut empty = Vec::new();
    empty.write_all(&pack(Codec::Gzip, Vec::new()).unwrap()).unwrap();
    let packed = empty.repeat(900_000 / empty.len());
    let spec = BatchSpec { attributes: 1, ..BatchSpec::of([Bytes::new()]) };
    let answer = client.produce_raw("endless", 0, spec.encode_around(&packed, 1)).await;
    assert_eq!(answer.error_code, 87, "{answer:?}");
    scene.goes_on().await;
}
