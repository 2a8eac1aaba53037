//! Brokers of one process that tell each other things, reliably or not.

use std::collections::{BTreeMap, BTreeSet};
use std::fmt;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
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
    /// Whose way it is to the others, if somebody's.
    from: Option<String>,
}

struct Room {
    machines: BTreeMap<(String, u16), Machine>,
    random: StdRng,
    /// How likely a message gets lost.
    lost: f64,
    /// Longest time a message takes.
    delay_max: Duration,
    /// Ways that are cut: from whom, and to whom.
    cut: BTreeSet<(String, String)>,
}

impl MemoryPeers {
    /// An empty room, in which messages get lost that often and take up to so long.
    pub fn new(seed: u64, lost: f64, delay_max: Duration) -> Self {
        let machines = BTreeMap::new();
        let random = StdRng::seed_from_u64(seed);
        let room = Room { machines, random, lost, delay_max, cut: BTreeSet::new() };
        Self { room: Arc::new(Mutex::new(room)), from: None }
    }

    /// The way of one broker to the others, which can be cut.
    #[must_use]
    pub fn way_of(&self, host: &str) -> Self {
        Self { room: Arc::clone(&self.room), from: Some(host.to_owned()) }
    }

    /// Decides how many messages get lost from now on.
    pub fn lose(&self, likelihood: f64) {
        self.lock().lost = likelihood;
    }

    /// Cuts the way from one broker to another, and not back; or mends it.
    pub fn cut(&self, from: &str, to: &str, on: bool) {
        let way = (from.to_owned(), to.to_owned());
        let mut room = self.lock();
        if on {
            room.cut.insert(way);
        } else {
            room.cut.remove(&way);
        }
    }

    fn lock(&self) -> MutexGuard<'_, Room> {
        self.room.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Lets a broker be reached; one that was there before is not any more.
    pub fn enter(&self, host: &str, port: u16, machine: Machine) {
        self.lock().machines.insert((host.to_owned(), port), machine);
    }
}

impl PeerLink for MemoryPeers {
    fn send(&self, endpoint: &Endpoint, message: PeerMessage) {
        let mut room = self.lock();
        let way = self.from.as_ref().map(|from| (from.clone(), endpoint.host.clone()));
        let is_cut = way.is_some_and(|way| room.cut.contains(&way));
        let is_lost = room.random.random::<f64>() < room.lost;
        let share = room.random.random::<f64>();
        let delay = room.delay_max.mul_f64(share);
        let found = room.machines.get(&(endpoint.host.clone(), endpoint.port)).cloned();
        drop(room);
        let Some(machine) = found.filter(|_| !is_lost && !is_cut) else { return };
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
