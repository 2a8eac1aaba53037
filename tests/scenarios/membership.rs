//! Brokers that come, leave, sleep, and are in zones.

use std::collections::BTreeMap;
use std::net::SocketAddr;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use kafka_protocol::messages::fetch_response::PartitionData;
use kafka_protocol::messages::metadata_response::MetadataResponseBroker;
use kafka_protocol::messages::{FindCoordinatorRequest, MetadataRequest};
use odradek::config::{Config, ZoneListener};
use odradek_storage::clock::{Clock, SystemClock};
use odradek_tests::batches::BatchSpec;
use odradek_tests::client::{Client, fetch_request};
use odradek_tests::cluster::{Cluster, memory_stores};
use tokio::time::sleep;

/// The error by which a client is sent to another broker.
const NOT_LEADER_OR_FOLLOWER: i16 = 6;

fn config(listen: &str, zone: Option<&str>) -> Config {
    let zone = zone.map(ToOwned::to_owned);
    Config { listen: listen.to_owned(), zone, ..Config::default() }
}

async fn in_zones(zones: &[&str]) -> Cluster {
    let mut cluster = Cluster::over(memory_stores(), 0, false).await;
    for zone in zones {
        cluster.start_with(config("127.0.0.1:0", Some(zone)), Arc::new(SystemClock)).await;
    }
    cluster
}

async fn brokers(address: SocketAddr) -> Vec<MetadataResponseBroker> {
    let mut client = Client::connect(address).await;
    client.call(12, &MetadataRequest::default()).await.brokers
}

fn port(address: SocketAddr) -> i32 {
    i32::from(address.port())
}

#[tokio::test(flavor = "multi_thread")]
async fn a_broker_that_leaves_sends_its_clients_to_others_and_finds_its_node_id_again() {
    let mut cluster = Cluster::in_memory(2).await;
    let (leaver, other) = (cluster.address(0), cluster.address(1));
    let mut client = Client::connect(leaver).await;
    client.create_topic("t", 1).await;
    client.produce("t", 0, &BatchSpec::of(["before"])).await;
    let of_leaver = |it: &MetadataResponseBroker| it.port == port(leaver);
    let node = brokers(other).await.into_iter().find(of_leaver).unwrap().node_id;

    let stopping = tokio::spawn(cluster.take(0).stop());
    while brokers(other).await.iter().any(of_leaver) {
        sleep(Duration::from_millis(5)).await;
    }
    // It says so itself, as long as it can be asked.
    while client.produce_raw("t", 0, BatchSpec::of(["x"]).encode()).await.error_code == 0 {}
    let refused = client.produce_raw("t", 0, BatchSpec::of(["after"]).encode()).await;
    assert_eq!(refused.error_code, NOT_LEADER_OR_FOLLOWER);
    assert_eq!(client.fetch("t", 0, 0).await.error_code, NOT_LEADER_OR_FOLLOWER);
    assert!(!brokers(leaver).await.iter().any(of_leaver));
    stopping.await.unwrap();

    let listen = leaver.to_string();
    cluster.start_with(config(&listen, None), Arc::new(SystemClock)).await;
    let back = loop {
        if let Some(back) = brokers(other).await.into_iter().find(of_leaver) {
            break back;
        }
        sleep(Duration::from_millis(5)).await;
    };
    assert_eq!(back.node_id, node);
    let mut client = Client::connect(leaver).await;
    client.produce("t", 0, &BatchSpec::of(["back"])).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_consumer_is_sent_to_the_broker_in_its_rack() {
    let cluster = in_zones(&["a", "b"]).await;
    let mut in_a = Client::connect(cluster.address(0)).await;
    in_a.create_topic("t", 1).await;
    in_a.produce("t", 0, &BatchSpec::of(["x"])).await;
    let node_in_b = brokers(cluster.address(1)).await;
    let in_b = |it: &MetadataResponseBroker| it.port == port(cluster.address(1));
    let node_in_b = node_in_b.into_iter().find(in_b).unwrap().node_id;

    let fetched = fetch_from_rack(&mut in_a, "b").await;
    assert_eq!(fetched.preferred_read_replica, node_in_b);
    assert!(fetched.records.is_none_or(|records| records.is_empty()));
    for rack in ["a", "", "nowhere"] {
        let fetched = fetch_from_rack(&mut in_a, rack).await;
        assert_eq!(fetched.preferred_read_replica.0, -1, "{rack}");
        assert!(fetched.records.is_some_and(|records| !records.is_empty()), "{rack}");
    }
    let mut in_b = Client::connect(cluster.address(1)).await;
    let fetched = fetch_from_rack(&mut in_b, "b").await;
    assert!(fetched.records.is_some_and(|records| !records.is_empty()));
}

async fn fetch_from_rack(client: &mut Client, rack: &str) -> PartitionData {
    let request = fetch_request("t", 0, 0).with_rack_id(rack.to_owned().into());
    let mut response = client.call(11, &request).await;
    response.responses.remove(0).partitions.remove(0)
}

#[tokio::test(flavor = "multi_thread")]
async fn clients_of_a_listener_for_a_zone_are_in_it_and_stay_with_it() {
    let mut cluster = Cluster::over(memory_stores(), 0, false).await;
    for (zone, host) in [("a", "one"), ("b", "two")] {
        let listener = ZoneListener {
            listen: "127.0.0.1:0".to_owned(),
            advertise: Some((format!("{host}.for-b"), 9192)),
        };
        let zone_listeners = BTreeMap::from([("b".to_owned(), listener)]);
        let config = Config { zone_listeners, ..config("127.0.0.1:0", Some(zone)) };
        cluster.start_with(config, Arc::new(SystemClock)).await;
    }
    let mut client = Client::connect(cluster.address(0)).await;
    client.create_topic("t", 8).await;
    let special = cluster.zone_address(0, "b");
    let mut client = Client::connect(special).await;
    let metadata = client.call(12, &MetadataRequest::default().with_topics(None)).await;
    let mut hosts: Vec<String> = metadata.brokers.iter().map(|it| it.host.to_string()).collect();
    hosts.sort();
    assert_eq!(hosts, ["one.for-b", "two.for-b"]);
    let in_b = metadata.brokers.iter().find(|it| it.rack.as_deref() == Some("b")).unwrap();
    for partition in &metadata.topics[0].partitions {
        assert_eq!(partition.leader_id, in_b.node_id);
    }
    let request = FindCoordinatorRequest::default().with_key("group".into());
    let coordinator = client.call(3, &request).await;
    assert!(hosts.contains(&coordinator.host.to_string()), "{coordinator:?}");
}

/// A clock whose uptime can be moved, as it does in a process that is stopped and continued.
#[derive(Debug, Default)]
struct Sleeper {
    slept_ms: AtomicU64,
}

impl Clock for Sleeper {
    fn now_ms(&self) -> i64 {
        SystemClock.now_ms()
    }

    fn uptime(&self) -> Duration {
        SystemClock.uptime() + Duration::from_millis(self.slept_ms.load(Ordering::Relaxed))
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_broker_that_was_asleep_drops_its_connections_and_serves_again() {
    let mut cluster = Cluster::in_memory(1).await;
    let clock = Arc::new(Sleeper::default());
    let config = config("127.0.0.1:0", None);
    let sleeper = cluster.start_with(config, Arc::<Sleeper>::clone(&clock)).await;
    let address = cluster.address(sleeper);
    let mut client = Client::connect(address).await;
    client.create_topic("t", 1).await;
    client.produce("t", 0, &BatchSpec::of(["before"])).await;
    let before = brokers(address).await;

    clock.slept_ms.store(60_000, Ordering::Relaxed);
    assert_eq!(client.read_to_end().await, "", "the connection is closed");
    let mut client = Client::connect(address).await;
    client.produce("t", 0, &BatchSpec::of(["after"])).await;
    let read = client.read_all("t", 0, 0).await;
    assert_eq!(read.iter().map(|it| &it.value[..]).collect::<Vec<_>>(), [&b"before"[..], b"after"]);
    let nodes = |brokers: &[MetadataResponseBroker]| {
        brokers.iter().map(|it| (it.node_id, it.port)).collect::<Vec<_>>()
    };
    assert_eq!(nodes(&brokers(address).await), nodes(&before), "it has its node id again");
}
