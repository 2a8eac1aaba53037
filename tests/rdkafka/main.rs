//! The rdkafka crate (librdkafka) as client, against three brokers over one memory.

#![expect(clippy::unwrap_used, reason = "a test fails by panicking")]

use std::time::Duration;

use odradek_tests::client::Client;
use odradek_tests::cluster::Cluster;
use rdkafka::config::ClientConfig;
use rdkafka::consumer::{BaseConsumer, Consumer};
use rdkafka::message::Message;
use rdkafka::producer::{FutureProducer, FutureRecord};
use rdkafka::{Offset, TopicPartitionList};

const PARTITIONS: i32 = 6;
const RECORDS: usize = 3000;

async fn scene() -> (Cluster, String) {
    let cluster = Cluster::in_memory(3).await;
    let mut client = Client::connect(cluster.address(0)).await;
    client.create_topic("t", PARTITIONS).await;
    let bootstrap = cluster.address(1).to_string();
    (cluster, bootstrap)
}

fn config(bootstrap: &str, settings: &[(&str, &str)]) -> ClientConfig {
    let mut config = ClientConfig::new();
    config.set("bootstrap.servers", bootstrap);
    for (name, value) in settings {
        config.set(*name, *value);
    }
    config
}

/// Produces numbered records and returns where each was acknowledged to be.
async fn produce(bootstrap: &str, settings: &[(&str, &str)]) -> Vec<(i32, i64)> {
    let producer: FutureProducer = config(bootstrap, settings).create().unwrap();
    let mut underway = Vec::with_capacity(RECORDS);
    for number in 0..RECORDS {
        let value = number.to_string();
        let producer = producer.clone();
        underway.push(tokio::spawn(async move {
            let key = value.clone();
            let record = FutureRecord::to("t").key(&key).payload(&value);
            producer.send(record, Duration::from_secs(30)).await.unwrap()
        }));
    }
    let mut places = Vec::with_capacity(RECORDS);
    for delivery in underway {
        let delivered = delivery.await.unwrap();
        places.push((delivered.partition, delivered.offset));
    }
    places
}

/// Reads every partition from its beginning to its end: values by their places.
fn consume(bootstrap: &str, records: usize) -> Vec<((i32, i64), String)> {
    let consumer: BaseConsumer =
        config(bootstrap, &[("group.id", "nobody"), ("enable.auto.commit", "false")])
            .create()
            .unwrap();
    let mut all = TopicPartitionList::new();
    for partition in 0..PARTITIONS {
        all.add_partition_offset("t", partition, Offset::Beginning).unwrap();
    }
    consumer.assign(&all).unwrap();
    let mut found = Vec::new();
    while found.len() < records {
        let message = consumer.poll(Duration::from_secs(30)).expect("more records").unwrap();
        let value = String::from_utf8(message.payload().unwrap().to_vec()).unwrap();
        found.push(((message.partition(), message.offset()), value));
    }
    assert!(consumer.poll(Duration::from_millis(200)).is_none(), "no record more");
    found
}

#[tokio::test(flavor = "multi_thread")]
async fn an_idempotent_producer_and_a_consumer_agree_on_every_record() {
    let (_cluster, bootstrap) = scene().await;
    let places = produce(&bootstrap, &[("enable.idempotence", "true"), ("linger.ms", "5")]).await;
    let read_from = bootstrap.clone();
    let found = tokio::task::spawn_blocking(move || consume(&read_from, RECORDS)).await.unwrap();
    assert_eq!(found.len(), RECORDS);
    for (place, value) in found {
        assert_eq!(places[value.parse::<usize>().unwrap()], place, "{value}");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn every_codec_that_the_crate_has_arrives_as_it_left() {
    for codec in ["none", "gzip", "snappy", "lz4"] {
        let (_cluster, bootstrap) = scene().await;
        let settings = [("compression.type", codec), ("linger.ms", "20")];
        let places = produce(&bootstrap, &settings).await;
        let found =
            tokio::task::spawn_blocking(move || consume(&bootstrap, RECORDS)).await.unwrap();
        for (place, value) in found {
            assert_eq!(places[value.parse::<usize>().unwrap()], place, "{codec} {value}");
        }
    }
}
