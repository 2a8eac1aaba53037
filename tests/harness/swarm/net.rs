//! The network between clients and brokers: pipes, and what becomes of the bytes in them.
//!
//! A client's connection is two pipes with a task for each direction between them, which carries
//! bytes from one to the other when it pleases the network. What is on its way when a client hangs
//! up still arrives, as with TCP, unless the client says that it must not.

use std::collections::BTreeMap;
use std::sync::{Arc, Mutex, MutexGuard};
use std::time::Duration;

use rand::rngs::StdRng;
use rand::{Rng, SeedableRng};
use tokio::io::{AsyncReadExt, AsyncWriteExt, DuplexStream, ReadHalf, WriteHalf, duplex, split};
use tokio::sync::{Notify, mpsc};
use tokio::task::AbortHandle;
use tokio::time::sleep;

use crate::door::Door;

/// Bytes that a pipe holds.
const PIPE_BYTES: usize = 16 * 1024;

/// Longest time that bytes take.
const DELAY_MAX: Duration = Duration::from_millis(4);

/// Longest time that few bytes take to a client that reads slowly.
const SLOW_MAX: Duration = Duration::from_secs(5);

/// Which ways between clients and a broker are cut.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(super) struct Cut {
    pub(super) to_broker: bool,
    pub(super) from_broker: bool,
}

/// Where a broker is reached.
#[derive(Clone, Debug)]
struct Entry {
    number: u64,
    pipes: mpsc::Sender<DuplexStream>,
    door: Door,
}

/// The network. Clones are the same.
#[derive(Clone, Debug, Default)]
pub(super) struct Net {
    shared: Arc<Mutex<Shared>>,
    changed: Arc<Notify>,
}

#[derive(Debug, Default)]
struct Shared {
    entries: BTreeMap<String, Entry>,
    cut: BTreeMap<String, Cut>,
    /// How likely a new connection is one to a client that reads slowly, or not at all.
    slow: f64,
    /// How likely a connection breaks in the middle of a request.
    breaks: f64,
    /// Whether all clients read as fast as they can from now on.
    is_healed: bool,
}

impl Net {
    fn lock(&self) -> MutexGuard<'_, Shared> {
        self.shared.lock().unwrap()
    }

    /// Lets a broker be reached, in place of whoever was there.
    pub(super) fn enter(
        &self,
        host: &str,
        number: u64,
        pipes: mpsc::Sender<DuplexStream>,
        door: Door,
    ) {
        self.lock().entries.insert(host.to_owned(), Entry { number, pipes, door });
    }

    /// Lets nobody reach that broker any more.
    pub(super) fn leave(&self, host: &str, number: u64) {
        let mut shared = self.lock();
        if shared.entries.get(host).is_some_and(|entry| entry.number == number) {
            shared.entries.remove(host);
        }
    }

    /// The hosts that can be reached, or could be.
    pub(super) fn hosts(&self) -> Vec<String> {
        self.lock().entries.keys().cloned().collect()
    }

    /// Which broker is at a host just now.
    pub(super) fn number(&self, host: &str) -> Option<u64> {
        self.lock().entries.get(host).map(|entry| entry.number)
    }

    /// Cuts ways between clients and a broker, or mends them.
    pub(super) fn cut(&self, host: &str, cut: Cut) {
        self.lock().cut.insert(host.to_owned(), cut);
        self.changed.notify_waiters();
    }

    /// Decides how clients behave.
    pub(super) fn set_manners(&self, slow: f64, breaks: f64) {
        let mut shared = self.lock();
        (shared.slow, shared.breaks) = (slow, breaks);
    }

    /// Ends all that is wrong, with the connections that there are as well.
    pub(super) fn heal(&self) {
        let shared = &mut *self.lock();
        (shared.slow, shared.breaks, shared.is_healed) = (0.0, 0.0, true);
        shared.cut.clear();
        self.changed.notify_waiters();
    }

    fn is_healed(&self) -> bool {
        self.lock().is_healed
    }

    async fn until_healed(&self) {
        loop {
            let changed = self.changed.notified();
            if self.is_healed() {
                return;
            }
            changed.await;
        }
    }

    pub(super) fn breaks(&self) -> f64 {
        self.lock().breaks
    }

    async fn until_open(&self, host: &str, to_broker: bool) {
        loop {
            let changed = self.changed.notified();
            let cut = self.lock().cut.get(host).copied().unwrap_or_default();
            if !(if to_broker { cut.to_broker } else { cut.from_broker }) {
                return;
            }
            changed.await;
        }
    }

    /// Connects to a host; the client's end.
    pub(super) async fn connect(&self, host: &str, random: &mut StdRng) -> Option<Line> {
        let (Entry { pipes, door, .. }, slow) = {
            let shared = self.lock();
            (shared.entries.get(host)?.clone(), shared.slow)
        };
        let manner = match random.random_bool(slow) {
            false => Manner::Quick,
            true if random.random_bool(0.3) => Manner::Deaf,
            true => Manner::Slow,
        };
        let (client, inner) = duplex(PIPE_BYTES);
        let (outer, broker) = duplex(PIPE_BYTES);
        pipes.try_send(broker).ok()?;
        let ((from_client, to_client), (from_broker, to_broker)) = (split(inner), split(outer));
        let mut way = |is_to_broker, manner| Way {
            net: self.clone(),
            host: host.to_owned(),
            is_to_broker,
            door: door.clone(),
            manner,
            random: StdRng::seed_from_u64(random.random()),
        };
        let (there, back) = (way(true, Manner::Quick), way(false, manner));
        let carriers = [
            tokio::spawn(there.carry(from_client, to_broker)).abort_handle(),
            tokio::spawn(back.carry(from_broker, to_client)).abort_handle(),
        ];
        Some(Line { pipe: client, asked: 0, carriers })
    }
}

/// A client's end of a connection.
#[derive(Debug)]
pub(super) struct Line {
    pub(super) pipe: DuplexStream,
    /// How often something was asked.
    pub(super) asked: i32,
    carriers: [AbortHandle; 2],
}

impl Line {
    /// Breaks it: what has not arrived never does.
    pub(super) fn reset(self) {
        self.carriers.iter().for_each(AbortHandle::abort);
    }
}

/// How a client reads.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Manner {
    Quick,
    Slow,
    /// Not at all, nor does it hang up: half of the connection is there.
    Deaf,
}

/// One direction of a connection.
struct Way {
    net: Net,
    host: String,
    is_to_broker: bool,
    door: Door,
    manner: Manner,
    random: StdRng,
}

impl Way {
    async fn carry(mut self, mut from: ReadHalf<DuplexStream>, mut to: WriteHalf<DuplexStream>) {
        let mut buffer = vec![0; PIPE_BYTES];
        if self.manner == Manner::Deaf {
            self.net.until_healed().await;
        }
        loop {
            let is_slow = self.manner == Manner::Slow && !self.net.is_healed();
            let most = if is_slow { 100 } else { PIPE_BYTES };
            let read = from.read(&mut buffer[..most]).await.unwrap_or(0);
            let delay = if is_slow { SLOW_MAX } else { DELAY_MAX };
            sleep(self.random.random_range(Duration::ZERO..delay)).await;
            self.net.until_open(&self.host, self.is_to_broker).await;
            self.door.pass().await;
            if read == 0 {
                drop(to.shutdown().await);
                return;
            }
            if to.write_all(&buffer[..read]).await.is_err() {
                return;
            }
        }
    }
}
