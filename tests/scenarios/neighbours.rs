//! Brokers of one zone that read for each other, over real sockets.

use std::sync::Arc;

use odradek::config::Config;
use odradek_storage::clock::SystemClock;
use odradek_tests::batches::BatchSpec;
use odradek_tests::client::Client;
use odradek_tests::cluster::{Cluster, memory_stores};

/// Brokers in these zones, over a store whose requests are paid for.
async fn in_zones(zones: &[&str]) -> Cluster {
    let mut cluster = Cluster::over(memory_stores(), 0, false).await;
    for zone in zones {
        let (listen, zone) = ("127.0.0.1:0".to_owned(), Some((*zone).to_owned()));
        let config = Config { listen, zone, ..Config::default() };
        cluster.start_charged(config, Arc::new(SystemClock)).await;
    }
    cluster
}

/// How often a broker has read from the store, and had an answer of a neighbour.
fn counts(cluster: &Cluster, place: usize) -> (u64, u64) {
    let ports = &cluster.engine(place).ports;
    (ports.get.answered.read().count, ports.ask.answered.read().count)
}

/// Too much for the log.
fn value(number: i64) -> String {
    let letter = u8::try_from(number % 26).unwrap();
    char::from(b'a' + letter).to_string().repeat(40_000)
}

/// Writes one record on one broker, has some others read it, one after the other, and says what
/// that cost each of those.
async fn pass_on(cluster: &Cluster, offset: i64, to: &[usize]) -> Vec<(u64, u64)> {
    let mut client = Client::connect(cluster.address(0)).await;
    assert_eq!(client.produce("t", 0, &BatchSpec::of([value(offset)])).await, offset);
    let mut costs = Vec::new();
    for place in to {
        assert!(cluster.engine(*place).machine.barrier().await.is_ok());
        let before = counts(cluster, *place);
        let read = Client::connect(cluster.address(*place)).await.read_all("t", 0, offset).await;
        let values: Vec<_> = read.into_iter().map(|record| record.value).collect();
        assert_eq!(values, [value(offset)]);
        let after = counts(cluster, *place);
        costs.push((after.0 - before.0, after.1 - before.1));
    }
    costs
}

/// Records that are tried: an answer can be so late, on a busy machine, that nobody waits for it.
const TRIED: std::ops::Range<i64> = 0..50;

#[tokio::test(flavor = "multi_thread")]
async fn what_a_broker_has_written_its_neighbours_have_of_it_and_those_in_other_zones_of_the_store()
{
    let cluster = in_zones(&["a", "a", "b"]).await;
    Client::connect(cluster.address(0)).await.create_topic("t", 1).await;
    for offset in TRIED {
        let [own, near, far] = pass_on(&cluster, offset, &[0, 1, 2]).await[..] else { panic!() };
        assert_eq!(own, (0, 0));
        assert_eq!(far, (1, 0));
        if near == (0, 1) {
            return;
        }
    }
    panic!("no neighbour has had anything");
}

#[tokio::test(flavor = "multi_thread")]
async fn what_was_written_in_another_zone_one_broker_reads_for_all() {
    let cluster = in_zones(&["b", "a", "a", "a"]).await;
    Client::connect(cluster.address(0)).await.create_topic("t", 1).await;
    for offset in TRIED {
        let gets = || (1..=3).map(|place| counts(&cluster, place).0).sum::<u64>();
        let before = gets();
        pass_on(&cluster, offset, &[1, 2, 3]).await;
        if gets() == before + 1 {
            return;
        }
    }
    panic!("each broker has read for itself");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_neighbour_that_is_gone_is_done_without() {
    let mut cluster = in_zones(&["a", "a"]).await;
    let mut client = Client::connect(cluster.address(0)).await;
    client.create_topic("t", 1).await;
    client.produce("t", 0, &BatchSpec::of([value(0)])).await;
    cluster.kill(0);
    assert!(cluster.engine(1).machine.barrier().await.is_ok());
    let read = Client::connect(cluster.address(1)).await.read_all("t", 0, 0).await;
    assert_eq!(read.len(), 1);
    assert_eq!(counts(&cluster, 1).1, 0);
}
