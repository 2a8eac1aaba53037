//! A broker that is behind: it knows of less than there is, and must not deny the rest
//! (RELIABILITY B1, B2).

use std::sync::Arc;
use std::time::Duration;

use odradek_storage::log::faulty::{FaultyLog, LogFaults};
use odradek_storage::port::fate::Control;
use odradek_tests::batches::{BatchSpec, read_records};
use odradek_tests::client::Client;
use odradek_tests::cluster::{Cluster, Stores, memory_stores};
use tokio::time::sleep;

const LATEST: i64 = -1;

/// What a broker says that can't find out; clients ask again.
const OFFSET_NOT_AVAILABLE: i16 = 78;

/// Two brokers, of which the second can be cut off from the log.
struct Scene {
    _brokers: [Cluster; 2],
    clients: [Client; 2],
    log: Control<LogFaults>,
}

/// Both know of one record; then the second is cut off, and the first takes two more.
async fn second_is_behind() -> Scene {
    let stores = memory_stores();
    let log = FaultyLog::new(Arc::clone(&stores.log), 1, LogFaults::default());
    let control = log.control();
    let cut = Stores { objects: Arc::clone(&stores.objects), log: Arc::new(log) };
    let brokers = [Cluster::over(stores, 1, false).await, Cluster::over(cut, 1, false).await];
    let mut clients = [
        Client::connect(brokers[0].address(0)).await,
        Client::connect(brokers[1].address(0)).await,
    ];
    clients[0].create_topic("t", 1).await;
    clients[0].produce("t", 0, &BatchSpec::of(["a"])).await;
    assert_eq!(clients[1].list_offset(7, "t", 0, LATEST).await.offset, 1);
    control.outage(true);
    for value in ["b", "c"] {
        clients[0].produce("t", 0, &BatchSpec::of([value])).await;
    }
    Scene { _brokers: brokers, clients, log: control }
}

/// The log comes back after a while, in which a broker that does not ask it has answered.
async fn heal(log: &Control<LogFaults>) {
    sleep(Duration::from_millis(300)).await;
    log.outage(false);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_broker_that_is_behind_does_not_deny_what_is_there() {
    let Scene { _brokers, clients: [_first, mut second], log } = second_is_behind().await;
    let asked = async {
        loop {
            let fetched = second.fetch("t", 0, 2).await;
            if fetched.error_code != OFFSET_NOT_AVAILABLE {
                break fetched;
            }
        }
    };
    let (fetched, ()) = tokio::join!(asked, heal(&log));
    assert_eq!(fetched.error_code, 0, "{fetched:?}");
    assert_eq!(read_records(fetched.records.unwrap()).len(), 1);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_broker_that_is_behind_does_not_tell_an_old_end() {
    let Scene { _brokers, clients: [_first, mut second], log } = second_is_behind().await;
    let asked = async {
        loop {
            let listed = second.list_offset(7, "t", 0, LATEST).await;
            if listed.error_code != OFFSET_NOT_AVAILABLE {
                break listed;
            }
        }
    };
    let (listed, ()) = tokio::join!(asked, heal(&log));
    assert_eq!((listed.error_code, listed.offset), (0, 3));
}
