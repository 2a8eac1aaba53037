//! Brokers of one process that tell each other things, reliably or not.

use std::collections::{BTreeMap, BTreeSet};
use std::fmt;
use std::future::pending;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError, Weak};
use std::time::Duration;

use async_trait::async_trait;
use bytes::{Buf, Bytes};
use rand::rngs::StdRng;
use rand::{Rng, SeedableRng};
use tokio::time::sleep;

use super::blocks::{ANSWER_CONTENT_BYTES_MAX, ANSWER_PREFIX_BYTES, BlockAnswer};
use super::{PeerLink, PeerMessage};
use crate::command::Endpoint;
use crate::engine::Engine;
use crate::port::PortError;

/// A room in which brokers reach each other. Clones are the same room.
#[derive(Clone)]
pub struct MemoryPeers {
    room: Arc<Mutex<Room>>,
}

/// The way of one broker to the others, for as long as the room is there.
pub struct Way {
    /// The brokers in it have ways.
    room: Weak<Mutex<Room>>,
    from: String,
}

struct Room {
    brokers: BTreeMap<(String, u16), Engine>,
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
        let random = StdRng::seed_from_u64(seed);
        let room = Room { brokers: BTreeMap::new(), random, lost, delay_max, cut: BTreeSet::new() };
        Self { room: Arc::new(Mutex::new(room)) }
    }

    /// The way of one broker to the others, which can be cut.
    pub fn way_of(&self, host: &str) -> Way {
        Way { room: Arc::downgrade(&self.room), from: host.to_owned() }
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
    pub fn enter(&self, host: &str, port: u16, engine: Engine) {
        self.lock().brokers.insert((host.to_owned(), port), engine);
    }
}

impl Way {
    /// How long a message takes from one to the other; `None` if it does not get there.
    fn delay(&self, from: &str, to: &str) -> Option<Duration> {
        let room = self.room.upgrade()?;
        let mut room = room.lock().unwrap_or_else(PoisonError::into_inner);
        let is_cut = room.cut.contains(&(from.to_owned(), to.to_owned()));
        let is_lost = room.random.random::<f64>() < room.lost;
        let share = room.random.random::<f64>();
        (!is_lost && !is_cut).then(|| room.delay_max.mul_f64(share))
    }

    /// Who lives at `endpoint`.
    fn broker_at(&self, endpoint: &Endpoint) -> Option<Engine> {
        let room = self.room.upgrade()?;
        let room = room.lock().unwrap_or_else(PoisonError::into_inner);
        let found = room.brokers.get(&(endpoint.host.clone(), endpoint.port));
        found.filter(|it| !it.machine.is_gone()).cloned()
    }
}

#[async_trait]
impl PeerLink for Way {
    fn send(&self, endpoint: &Endpoint, message: PeerMessage) {
        let Some(delay) = self.delay(&self.from, &endpoint.host) else { return };
        let Some(broker) = self.broker_at(endpoint) else { return };
        tokio::spawn(async move {
            sleep(delay).await;
            broker.machine.receive(message);
        });
    }

    async fn ask(
        &self,
        endpoint: &Endpoint,
        question: PeerMessage,
    ) -> Result<BlockAnswer, PortError> {
        let there = self.delay(&self.from, &endpoint.host);
        let back = self.delay(&endpoint.host, &self.from);
        // Who is dead or cut off says nothing.
        let Some(((there, back), broker)) = there.zip(back).zip(self.broker_at(endpoint)) else {
            return pending().await;
        };
        sleep(there).await;
        let answer = async move { broker.reader.answer(question, ANSWER_CONTENT_BYTES_MAX).await };
        let answer = tokio::spawn(answer).await.ok().flatten();
        sleep(back).await;
        let answer = answer.ok_or_else(|| PortError::determinate("not for this broker"))?;
        let mut sent = Bytes::from(answer.encode().concat());
        sent.advance(ANSWER_PREFIX_BYTES / 2);
        BlockAnswer::decode(sent).map_err(PortError::indeterminate)
    }
}

impl fmt::Debug for Way {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Way").field("from", &self.from).finish_non_exhaustive()
    }
}

impl fmt::Debug for MemoryPeers {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("MemoryPeers").finish_non_exhaustive()
    }
}
