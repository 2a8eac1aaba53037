//! Neighbours: brokers of one zone, for which a segment is read from the store once.
//!
//! Between zones bytes are paid for, within one they are not, and a request to the store costs more
//! than either. So of the brokers in a zone one reads a segment for all: the one that wrote it, if
//! it is there, because it has it in memory; else the one that rendezvous hashing names. It is a
//! favour: who gets no answer in time, or less than it asked for, reads for itself, and lets
//! whoever did not answer alone for a while.

use std::collections::BTreeMap;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use bytes::Bytes;
use tokio::sync::{OwnedSemaphorePermit, Semaphore};
use tokio::time::{Instant, timeout};
use xxhash_rust::xxh3::xxh3_64;

use super::Reader;
use super::blocks::{BlockKey, Wanted};
use crate::command::{Endpoint, Incarnation};
use crate::machine::Machine;
use crate::names::is_writer;
use crate::peer::blocks::{BLOCKS_ASKED_MAX, BlockAddress, BlockAnswer, GivenBlock};
use crate::peer::{News, PeerLink, PeerMessage};
use crate::segment::SegmentId;

/// How long a broker that did not answer is not asked.
const SILENCE: Duration = Duration::from_secs(1);

/// Questions under way at a time: as many as there are reads of the store. Who would ask more, like
/// one that wants a little of many segments, reads for itself.
const ASKS_INFLIGHT_MAX: usize = 32;

/// The brokers of this one's zone.
#[derive(Debug)]
pub(super) struct Neighbours {
    machine: Machine,
    peers: Arc<dyn PeerLink>,
    /// See `ReaderConfig`.
    ask_max: Duration,
    asking: Arc<Semaphore>,
    /// Those that did not answer, and when they may be asked again.
    silent: Mutex<BTreeMap<Incarnation, Instant>>,
}

/// One of them, and leave to ask it something.
#[derive(Debug)]
pub(super) struct Neighbour {
    incarnation: Incarnation,
    endpoint: Endpoint,
    _leave: OwnedSemaphorePermit,
}

impl Neighbours {
    pub(super) fn new(machine: Machine, peers: Arc<dyn PeerLink>, ask_max: Duration) -> Self {
        let asking = Arc::new(Semaphore::new(ASKS_INFLIGHT_MAX));
        Self { machine, peers, ask_max, asking, silent: Mutex::default() }
    }

    /// Who is to be asked for blocks of a segment; nobody, if this broker is to read it.
    pub(super) fn of(&self, segment: SegmentId) -> Option<Neighbour> {
        if self.ask_max.is_zero() {
            return None;
        }
        let leave = Arc::clone(&self.asking).try_acquire_owned().ok()?;
        let this = self.machine.incarnation();
        let (incarnation, endpoint) = self.machine.read(|state| {
            let brokers = || state.brokers().values();
            let own = brokers().find(|it| it.incarnation == this)?;
            let zone = own.address.zone.as_ref()?;
            let near = brokers().filter(|it| it.address.zone.as_ref() == Some(zone));
            let talking = near.filter(|it| !self.is_silent(it.incarnation));
            let rank = |incarnation| rank(segment, incarnation);
            let best = talking.max_by_key(|it| (!it.is_draining, rank(it.incarnation)))?;
            Some((best.incarnation, best.address.peer_endpoint()))
        })?;
        (incarnation != this).then_some(Neighbour { incarnation, endpoint, _leave: leave })
    }

    /// What a neighbour has of these blocks; what is not there has to be read.
    pub(super) async fn ask(
        &self,
        neighbour: Neighbour,
        wanted: &[Wanted],
    ) -> BTreeMap<BlockKey, Bytes> {
        let wanted = &wanted[..wanted.len().min(BLOCKS_ASKED_MAX)];
        let question = PeerMessage {
            to: neighbour.incarnation,
            from: self.machine.incarnation(),
            news: News::Ask(wanted.iter().map(BlockAddress::from).collect()),
        };
        let Neighbour { incarnation, endpoint, _leave } = neighbour;
        match timeout(self.ask_max, self.peers.ask(&endpoint, question)).await {
            Ok(Ok(answer)) => {
                let given = answer.blocks.into_iter();
                return given
                    .map(|it| (BlockKey::of(it.segment, it.position), it.content))
                    .collect();
            }
            Ok(Err(error)) => tracing::debug!(%endpoint, %error, "a neighbour gives no blocks"),
            Err(_) => tracing::debug!(%endpoint, "a neighbour is silent"),
        }
        self.silent().insert(incarnation, Instant::now() + SILENCE);
        BTreeMap::new()
    }

    fn is_silent(&self, incarnation: Incarnation) -> bool {
        let now = Instant::now();
        let mut silent = self.silent();
        silent.retain(|_, until| *until > now);
        silent.contains_key(&incarnation)
    }

    fn silent(&self) -> MutexGuard<'_, BTreeMap<Incarnation, Instant>> {
        self.silent.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Reader {
    /// Answers the question of another broker for blocks ([`News::Ask`]) with as many of them as
    /// fit into `bytes_max`; `None` if it is no question, or not this broker's to answer.
    ///
    /// Blocks that are not packed: of others nobody knows how long they are before they are read.
    pub async fn answer(&self, question: PeerMessage, bytes_max: usize) -> Option<BlockAnswer> {
        if !self.machine.concerns(&question) {
            return None;
        }
        let News::Ask(addresses) = question.news else { return None };
        let mut bytes: u64 = 0;
        let fits = |address: &BlockAddress| {
            bytes += u64::from(address.stored_bytes);
            usize::try_from(bytes).is_ok_and(|bytes| bytes <= bytes_max)
        };
        let wanted = addresses.into_iter().take_while(fits).map(Wanted::from).collect();
        let read = self.blocks.load(wanted).await;
        let given = read.into_iter().filter_map(|(BlockKey { segment, position }, content)| {
            Some(GivenBlock { segment, position, content: content.ok()? })
        });
        let mut left = bytes_max;
        let fits = |block: &GivenBlock| {
            let rest = left.checked_sub(block.content.len());
            left = rest.unwrap_or(0);
            rest.is_some()
        };
        Some(BlockAnswer { blocks: given.take_while(fits).collect() })
    }
}

/// How much a broker is the one to read a segment: who wrote it before all others.
fn rank(segment: SegmentId, incarnation: Incarnation) -> (bool, u64) {
    let mut key = segment.to_bytes().to_vec();
    key.extend_from_slice(&incarnation.0.to_be_bytes());
    (is_writer(incarnation, segment), xxh3_64(&key))
}
