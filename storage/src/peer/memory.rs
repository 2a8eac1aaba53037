//! Brokers of one process that tell each other things, reliably or not.

use std::collections::BTreeMap;
use std::fmt;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use rand::rngs::StdRng;
use rand::{Rng, SeedableRng};

use super::{PeerLink, PeerMessage};
use crate::command::Endpoint;
use crate::machine::Machine;

/// A room in which brokers reach each other. Clones are the same room.
#[derive(Clone)]
pub struct MemoryPeers {
    room: Arc<Mutex<Room>>,
}

struct Room {
    machines: BTreeMap<(String, u16), Machine>,
    random: StdRng,
    /// How likely a message gets lost.
    lost: f64,
    /// Longest time a message takes.
    delay_max: Duration,
}

impl MemoryPeers {
    /// An empty room, in which messages get lost that often and take up to so long.
    pub fn new(seed: u64, lost: f64, delay_max: Duration) -> Self {
        let machines = BTreeMap::new();
        let room = Room { machines, random: StdRng::seed_from_u64(seed), lost, delay_max };
        Self { room: Arc::new(Mutex::new(room)) }
    }

    /// Lets a broker be reached; one that was there before is not any more.
    pub fn enter(&self, host: &str, port: u16, machine: Machine) {
        let mut room = self.room.lock().unwrap_or_else(PoisonError::into_inner);
        room.machines.insert((host.to_owned(), port), machine);
    }
}

impl PeerLink for MemoryPeers {
    fn send(&self, endpoint: &Endpoint, message: PeerMessage) {
        let mut room = self.room.lock().unwrap_or_else(PoisonError::into_inner);
        let is_lost = room.random.random::<f64>() < room.lost;
        let share = room.random.random::<f64>();
        let delay = room.delay_max.mul_f64(share);
        let found = room.machines.get(&(endpoint.host.clone(), endpoint.port)).cloned();
        drop(room);
        let Some(machine) = found.filter(|_| !is_lost) else { return };
        tokio::spawn(async move {
            tokio::time::sleep(delay).await;
            machine.receive(message);
        });
    }
}

impl fmt::Debug for MemoryPeers {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("MemoryPeers").finish_non_exhaustive()
    }
}
