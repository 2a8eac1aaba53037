//! The lease: until when a broker may trust that nobody has taken its offices.
//!
//! Another broker proposes this one's expiry after [`MachineConfig::silence_max`] of silence, so
//! whoever appended something, or saw at the tail that there is no other broker, knows that its
//! registration stands for nearly as long from the moment it *began* to do so. Nothing in the log
//! rests on that: a command of a broker that was expired is turned away by `apply` in any case. It
//! is for what is answered without the log, such as the heartbeat of a group member.

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use super::MachineConfig;
use crate::clock::Clock;

/// Part of the silence after which a broker is expired for which it trusts itself: what is left is
/// for clocks that do not run at quite the same rate.
const TRUSTED_TENTHS: u32 = 8;

pub(super) struct Lease {
    clock: Arc<dyn Clock>,
    /// None if nobody else can reach the log.
    length: Option<Duration>,
    /// When the last proof was begun, in microseconds of the clock that counts sleep.
    proven_at: AtomicU64,
}

impl Lease {
    pub(super) fn new(config: &MachineConfig, clock: Arc<dyn Clock>) -> Self {
        let length = (!config.exclusive).then_some(config.silence_max * TRUSTED_TENTHS / 10);
        Self { clock, length, proven_at: AtomicU64::new(0) }
    }

    /// Something that began at `since` has shown that the registration stands.
    pub(super) fn renew(&self, since: Duration) {
        let since = u64::try_from(since.as_micros()).unwrap_or(u64::MAX);
        self.proven_at.fetch_max(since, Ordering::Relaxed);
    }

    /// Whether nobody else can reach the log.
    pub(super) fn is_for_good(&self) -> bool {
        self.length.is_none()
    }

    pub(super) fn is_held(&self) -> bool {
        let Some(length) = self.length else { return true };
        let proven_at = Duration::from_micros(self.proven_at.load(Ordering::Relaxed));
        self.clock.uptime().saturating_sub(proven_at) < length
    }
}

#[cfg(test)]
mod tests {
    use tokio::time::{advance, sleep};

    use super::*;
    use crate::clock::ManualClock;
    use crate::command::{BrokerAddress, Command, CommandId, Incarnation, Outcome, Proposal};
    use crate::engine::Ports;
    use crate::log::faulty::{FaultyLog, LogFaults};
    use crate::log::memory::MemoryLog;
    use crate::machine::Machine;
    use crate::object::memory::MemoryObjectStore;
    use crate::peer::{News, NoPeers, PeerMessage};

    async fn start(host: &str, log: &FaultyLog, objects: &MemoryObjectStore, seed: u64) -> Machine {
        let ports = Ports {
            objects: Arc::new(objects.clone()),
            log: Arc::new(log.clone()),
            clock: Arc::new(ManualClock::new(0)),
            peers: Arc::new(NoPeers),
        };
        let address = BrokerAddress { host: host.to_owned(), ..BrokerAddress::default() };
        Machine::start(MachineConfig::default(), address, ports, seed).await.unwrap()
    }

    fn incarnation(machine: &Machine) -> Incarnation {
        machine.read(|state| state.brokers()[&machine.node_id()].incarnation)
    }

    #[tokio::test(start_paused = true)]
    async fn what_others_ask_for_again_proves_nothing() {
        let (log, objects) = (MemoryLog::default(), MemoryObjectStore::default());
        let way = |seed| FaultyLog::new(Arc::new(log.clone()), seed, LogFaults::default());
        let cut = way(1);
        let lonely = start("lonely", &cut, &objects, 1).await;
        let other = start("other", &way(2), &objects, 2).await;
        assert_eq!(lonely.barrier().await, Ok(()));
        assert_eq!(lonely.propose(Command::Heartbeat).await, Ok(Outcome::Done));
        assert!(lonely.has_lease().await);
        // What was done when the other one registered.
        let (to, from) = (incarnation(&lonely), incarnation(&other));
        let id = CommandId { incarnation: from, counter: 1 };
        let favour = Proposal { id, command: Command::Heartbeat };
        cut.control().outage(true);
        for _ in 0..48 {
            let news = News::Help { proposals: vec![favour.clone()], footers: Vec::new() };
            lonely.receive(PeerMessage { to, from, news });
            sleep(MachineConfig::default().silence_max / 48).await;
        }
        assert!(!lonely.has_lease().await);
    }

    #[tokio::test(start_paused = true)]
    async fn a_lease_ends_before_others_would_expire_its_holder() {
        let clock = Arc::new(ManualClock::new(0));
        let config = MachineConfig::default();
        let lease = Lease::new(&config, Arc::<ManualClock>::clone(&clock));
        advance(config.silence_max).await;
        assert!(!lease.is_held());
        let proof = clock.uptime();
        lease.renew(proof);
        assert!(lease.is_held());
        lease.renew(Duration::from_secs(1));
        assert!(lease.is_held(), "an older proof takes nothing away");
        advance(config.silence_max - Duration::from_secs(1)).await;
        assert!(!lease.is_held());
    }

    #[tokio::test(start_paused = true)]
    async fn who_is_alone_with_its_log_needs_no_proof() {
        let config = MachineConfig { exclusive: true, ..MachineConfig::default() };
        let lease = Lease::new(&config, Arc::new(ManualClock::new(0)));
        advance(Duration::from_secs(3600)).await;
        assert!(lease.is_held());
    }
}
