//! One machine: a broker on files that is killed and started again.

use bytes::Bytes;
use kafka_protocol::messages::{MetadataRequest, ProduceRequest};
use odradek_tests::batches::BatchSpec;
use odradek_tests::client::{Client, produce_request};
use odradek_tests::cluster::Cluster;

#[tokio::test(flavor = "multi_thread")]
async fn what_was_acknowledged_before_a_kill_is_there_after_it() {
    let folder = tempfile::tempdir().unwrap();
    let mut acknowledged: Vec<(i64, Bytes)> = Vec::new();
    for round in 0..8 {
        let mut cluster = Cluster::in_folder(folder.path()).await;
        let mut client = Client::connect(cluster.address(0)).await;
        if round == 0 {
            client.create_topic("t", 1).await;
        }
        let read = client.read_all("t", 0, 0).await;
        for (offset, value) in &acknowledged {
            let found = &read[usize::try_from(*offset).unwrap()];
            assert_eq!((found.offset, &found.value), (*offset, value), "round {round}");
        }
        let value = |n: usize| Bytes::from(format!("{round}-{n}"));
        let mut sent = Vec::new();
        for n in 0..50 {
            let batch = BatchSpec::of([value(n)]).encode();
            sent.push(client.send(9, &produce_request("t", 0, -1, batch)).await);
        }
        // Some are answered, the others are in flight when the broker is killed.
        for (n, id) in sent.into_iter().enumerate().take(5 * round) {
            let response = client.receive::<ProduceRequest>(9, id).await;
            let answer = &response.responses[0].partition_responses[0];
            assert_eq!(answer.error_code, 0);
            acknowledged.push((answer.base_offset, value(n)));
        }
        cluster.kill(0);
        // The lock of the log goes with the last task that holds it.
        drop(cluster);
        wait_for_the_lock(folder.path()).await;
    }
    assert!(acknowledged.len() > 100);
}

/// A killed broker's last calls may still be at the disk; another process would find the lock free
/// at once, this one has to wait for its own threads.
pub(crate) async fn wait_for_the_lock(folder: &std::path::Path) {
    let log = format!("file:{}", folder.join("log").display());
    while odradek_storage::location::open_log(&log, "test").await.is_err() {
        tokio::task::yield_now().await;
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_broker_that_is_stopped_answers_what_is_in_flight() {
    let mut cluster = Cluster::in_memory(1).await;
    let mut client = Client::connect(cluster.address(0)).await;
    client.create_topic("t", 1).await;
    let mut sent = Vec::new();
    for n in 0..20 {
        let batch = BatchSpec::of([n.to_string()]).encode();
        sent.push(client.send(9, &produce_request("t", 0, -1, batch)).await);
    }
    // The first answer says that the broker has begun to read them.
    let first = sent.remove(0);
    client.receive::<ProduceRequest>(9, first).await;
    cluster.stop(0).await;
    let mut answered = 1;
    while let Some(frame) = client.next_frame().await {
        assert_eq!(frame[..4], (answered + 2_i32).to_be_bytes()[..], "in order");
        answered += 1;
    }
    // What was read was answered, and whatever was answered is in the log.
    let place = cluster.start_one().await;
    let mut client = Client::connect(cluster.address(place)).await;
    let read = client.read_all("t", 0, 0).await;
    assert!(read.len() >= usize::try_from(answered).unwrap(), "{} < {answered}", read.len());
}

#[tokio::test(flavor = "multi_thread")]
async fn a_broker_that_is_alone_is_the_only_one_listed() {
    let folder = tempfile::tempdir().unwrap();
    for round in 0..3 {
        let mut cluster = Cluster::in_folder(folder.path()).await;
        let mut client = Client::connect(cluster.address(0)).await;
        let brokers = client.call(9, &MetadataRequest::default().with_topics(None)).await.brokers;
        // Listening on another port each time, it is another broker each time, and the only one.
        assert_eq!(brokers.len(), 1, "round {round}");
        assert_eq!(brokers[0].port, i32::from(cluster.address(0).port()));
        cluster.stop(0).await;
        drop(cluster);
        wait_for_the_lock(folder.path()).await;
    }
}
