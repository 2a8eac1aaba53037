//! A broker over files that take as long to answer as S3 and DynamoDB do.
//!
//! The files of a machine answer at once; what waits for a store is seen only over one that lets
//! wait. This is the broker as it is, with its own flags, and a delay before and after each call.

use std::process::Command;
use std::sync::Arc;
use std::time::Duration;

use odradek::broker::{Broker, Foundation};
use odradek::config::Config;
use odradek_storage::clock::SystemClock;
use odradek_storage::location::{open_log, open_object_store};
use odradek_storage::log::faulty::FaultyLog;
use odradek_storage::object::faulty::{CallFaults, Faults, FaultyObjectStore};
use tokio::signal::unix::{SignalKind, signal};

/// Says that this process is to be a broker.
const VARIABLE: &str = "DELAYED_BROKER";

/// What a call takes at most each way, and one of a hundred on top of that: drawn evenly.
const OBJECTS: [Duration; 2] = [Duration::from_millis(30), Duration::from_millis(120)];
const LOG: [Duration; 2] = [Duration::from_millis(5), Duration::from_millis(15)];

/// A program that is such a broker: this one.
pub(crate) fn program() -> Command {
    let mut command = Command::new(std::env::current_exe().unwrap());
    command.env(VARIABLE, "yes");
    command
}

/// Whether this process is to be a broker.
pub(crate) fn is_asked_for() -> bool {
    std::env::var_os(VARIABLE).is_some()
}

/// Serves until SIGTERM.
pub(crate) async fn serve() {
    let (_, config) = Config::from_process().unwrap();
    let mut terminate = signal(SignalKind::terminate()).unwrap();
    let log = open_log(&config.log, &config.cluster).await.unwrap();
    let objects = open_object_store(&config.store).await.unwrap();
    let faults = Faults { calls: delays(OBJECTS), ..Faults::default() };
    let on = Foundation {
        objects: Arc::new(FaultyObjectStore::new(objects, 1, faults)),
        log: Arc::new(FaultyLog::new(log.log, 2, delays(LOG))),
        clock: Arc::new(SystemClock),
        is_exclusive: log.exclusive,
        puts_are_charged: true,
        seed: std::process::id().into(),
    };
    let broker = Broker::start(config, on).await.unwrap();
    terminate.recv().await;
    broker.stop().await;
}

fn delays([delay_max, slow_max]: [Duration; 2]) -> CallFaults {
    CallFaults { delayed: 1.0, delay_max, slow: 0.01, slow_max, ..CallFaults::default() }
}
