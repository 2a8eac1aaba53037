//! Faults that must end in a stop: what no broker wrote stands in the log, or the log is not the
//! one that the objects belong to any more.

use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use odradek::broker::Broker;
use odradek::config::Config;
use odradek_storage::command::BrokerAddress;
use odradek_storage::engine::{EngineConfig, Ports};
use odradek_storage::log::memory::MemoryLog;
use odradek_storage::log::{Append, Freshness, LogRead, MetadataLog};
use odradek_storage::lsn::Lsn;
use odradek_storage::machine::MachineConfig;
use odradek_storage::object::ObjectStore;
use odradek_storage::peer::NoPeers;
use odradek_storage::reader::ReaderConfig;
use odradek_storage::snapshot::{SNAPSHOT_PREFIX, snapshot_lsn};
use odradek_storage::writer::WriterConfig;
use rand::rngs::StdRng;
use rand::{Rng, SeedableRng};
use tokio::time::{Instant, sleep};

use super::plan::Plan;
use super::site::{TICK, UNIT_BYTES};
use super::{ALL, POLL, World};
use crate::groups::paused;
use crate::hasty;

/// How long brokers may take to notice an entry that none of them wrote.
const NOTICED_MAX: Duration = Duration::from_secs(10);

/// Fault 26: lets a world work, writes an entry into its log that no broker wrote, and gives what
/// each broker says when it stops.
///
/// # Panics
///
/// If one of them goes on.
pub fn garbage(seed: u64) -> Vec<String> {
    paused(async move {
        let (world, mut random) = (begin(seed).await, StdRng::seed_from_u64(seed));
        let mut bytes = vec![0; random.random_range(1..200)];
        random.fill(&mut bytes[..]);
        loop {
            let tail = world.log.tail().await.unwrap();
            if world.log.append(tail, Bytes::from(bytes.clone())).await.unwrap()
                == Append::Committed
            {
                break;
            }
        }
        let written = Instant::now();
        let brokers = usize::try_from(world.plan.brokers).unwrap();
        while world.lock().halts.len() < brokers {
            assert!(written.elapsed() < NOTICED_MAX, "seed {seed}: {:?}", world.lock().halts);
            sleep(POLL).await;
        }
        let shared = world.lock();
        shared.halts.clone()
    })
}

/// Fault 25: lets a world work, puts its log back to where it was some time before, and gives what
/// a broker says that is started then; none if it serves.
pub fn swapped(seed: u64) -> Option<String> {
    paused(async move {
        let world = begin(seed).await;
        let slots = match world.log.read(Lsn::ZERO.next(), ALL, Freshness::Latest).await.unwrap() {
            LogRead::Entries { slots, .. } => slots,
            LogRead::Trimmed(floor) => {
                let read = world.log.read(floor, ALL, Freshness::Latest).await.unwrap();
                let LogRead::Entries { slots, .. } = read else { panic!("{read:?}") };
                slots
            }
        };
        let listed = world.objects.list(SNAPSHOT_PREFIX, None, ALL).await.unwrap();
        let snapshot = snapshot_lsn(&listed.last().unwrap().key).unwrap();
        let restored = MemoryLog::default();
        // As a table has it that was restored: nothing of what was trimmed, and no floor either.
        for slot in slots.into_iter().take_while(|slot| slot.lsn < snapshot) {
            assert_eq!(restored.append(slot.lsn, slot.bytes).await.unwrap(), Append::Committed);
        }
        let config = EngineConfig {
            address: BrokerAddress { host: "new".to_owned(), ..BrokerAddress::default() },
            seed,
            machine: MachineConfig::default(),
            writer: WriterConfig::default(),
            reader: ReaderConfig::default(),
            life: hasty::life(TICK, UNIT_BYTES),
        };
        let ports = Ports {
            objects: Arc::new(world.objects.clone()),
            log: Arc::new(restored),
            clock: Arc::<odradek_storage::clock::ManualClock>::clone(&world.clock),
            peers: Arc::new(NoPeers),
        };
        let starting = Broker::start_behind_pipes(Config::default(), config, ports);
        Box::pin(starting).await.err().map(|error| error.to_string())
    })
}

/// A world without other faults that has worked for a while.
async fn begin(seed: u64) -> World {
    let plan = Plan {
        faults: Default::default(),
        snapshot_entries: 20,
        // So long that nothing is trimmed.
        log_kept: Duration::from_secs(3600),
        duration: Duration::from_secs(20),
        ..Plan::of(seed)
    };
    let world = World::new(plan);
    world.lock().may_halt = true;
    world.begin().await;
    drop(world.clients());
    sleep(world.plan.duration / 2).await;
    world
}
