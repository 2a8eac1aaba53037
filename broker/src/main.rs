//! The binary: settings in, a broker until it is told to stop, an exit code out.

use std::io::Write;
use std::process::ExitCode;
use std::sync::Arc;
use std::time::Duration;

use anyhow::{Context, anyhow};
use odradek::broker::{Broker, BrokerError, Foundation};
use odradek::commands::{fsck, inspect};
use odradek::config::{Config, Task};
use odradek::telemetry;
use odradek_storage::clock::SystemClock;
use odradek_storage::location::{open_log, open_object_store, puts_are_charged};
use rand::TryRngCore;
use tokio::signal::unix::{SignalKind, signal};

/// How long a broker may take to finish what is in flight.
const STOP_MAX: Duration = Duration::from_secs(20);

fn main() -> ExitCode {
    match run() {
        Ok(code) => code,
        Err(error) => {
            drop(writeln!(std::io::stderr(), "odradek: {error:#}"));
            ExitCode::FAILURE
        }
    }
}

fn run() -> anyhow::Result<ExitCode> {
    let (task, config) = Config::from_process()?;
    telemetry::init(&config.log_level).map_err(anyhow::Error::msg)?;
    let runtime = tokio::runtime::Builder::new_multi_thread().enable_all().build()?;
    let served = runtime.block_on(async {
        match task {
            Task::Serve => serve(config).await.map(|()| ExitCode::SUCCESS),
            Task::Fsck(options) => Ok(fsck::run(&config, &options).await.into()),
            Task::Inspect(options) => Ok(inspect::run(&config, &options).await.into()),
        }
    });
    // What still hangs on a dead disk or network must not keep the process.
    runtime.shutdown_timeout(Duration::from_secs(1));
    served
}

async fn start(config: Config) -> anyhow::Result<Broker> {
    let log = open_log(&config.log, &config.cluster).await?;
    let objects = open_object_store(&config.store).await?;
    let on = Foundation {
        objects,
        log: log.log,
        clock: Arc::new(SystemClock),
        is_exclusive: log.exclusive,
        puts_are_charged: puts_are_charged(&config.store),
        seed: rand::rngs::OsRng.try_next_u64().context("no entropy from the operating system")?,
    };
    let (store, log) = (config.store.clone(), config.log.clone());
    Broker::start(config, on).await.map_err(|error| match error {
        BrokerError::Engine(error) => anyhow!("{store} with {log}: {error}"),
        error @ (BrokerError::Listen { .. } | BrokerError::DiskCache(_)) => error.into(),
    })
}

async fn serve(config: Config) -> anyhow::Result<()> {
    let mut terminate = signal(SignalKind::terminate())?;
    let mut interrupt = signal(SignalKind::interrupt())?;
    let (store, order) = (config.store.clone(), config.log.clone());
    let broker = tokio::select! {
        biased;
        broker = start(config) => broker?,
        // A broker that still waits for its store has nothing to finish.
        _ = terminate.recv() => return Ok(()),
        _ = interrupt.recv() => return Ok(()),
    };
    let mut out = std::io::stdout();
    writeln!(
        out,
        "odradek is ready: Kafka on {}, records in {store}, their order in {order}",
        broker.address()
    )?;
    out.flush()?;
    tokio::select! {
        biased;
        reason = broker.halted() => anyhow::bail!("{reason}"),
        _ = terminate.recv() => {}
        _ = interrupt.recv() => {}
    }
    tracing::info!("stopping");
    if tokio::time::timeout(STOP_MAX, broker.stop()).await.is_err() {
        tracing::warn!("not all that was in flight could be finished");
    }
    Ok(())
}
