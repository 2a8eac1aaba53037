//! Brokers: who lives, under which node id, and which of their commands were applied.
//!
//! CMD-1 lives here: a broker hands its commands over to others and repeats them when it does not
//! know what became of them, so each registration remembers its last applied command ids. What is
//! older than those can't be told from a repetition and is turned away as stale. With a
//! registration those ids are forgotten, so an incarnation registers once: who was expired comes
//! back as another.

use std::collections::{BTreeMap, BTreeSet, VecDeque};

use odradek_protocol::id::NodeId;
use xxhash_rust::xxh3::xxh3_64;

use crate::command::{BrokerAddress, CommandId, Endpoint, Incarnation, Outcome, Rejection};
use crate::lsn::Lsn;

/// How many command ids of a broker are remembered: more than a broker ever has in flight.
pub const COMMANDS_REMEMBERED: usize = 4096;

/// How many incarnations are remembered after they left: more than there are brokers whose commands
/// can still be on the way.
pub const INCARNATIONS_REMEMBERED: usize = 1024;

/// How many brokers that left are remembered with their node ids.
pub const DEPARTED_REMEMBERED: usize = 256;

/// A registered broker.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Broker {
    /// Which life of it.
    pub incarnation: Incarnation,
    /// Where it is.
    pub address: BrokerAddress,
    /// Whether it is about to leave, and clients are not to come to it any more.
    pub is_draining: bool,
    /// The newest entry that shows it alive.
    pub last_heard: Lsn,
    pub(crate) commands: AppliedCommands,
}

/// Which commands of one incarnation were applied.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(crate) struct AppliedCommands {
    /// Counters up to here are forgotten.
    pub(crate) floor: u64,
    /// Counters above the floor that were applied, at most [`COMMANDS_REMEMBERED`].
    pub(crate) above: BTreeSet<u64>,
}

impl AppliedCommands {
    /// Those of a broker that registers with this command. What it numbered before was turned away,
    /// and its proposer may have been told so.
    fn registered_with(counter: u64) -> Self {
        Self { floor: counter, above: BTreeSet::new() }
    }

    fn admit(&mut self, counter: u64) -> Admission {
        if counter <= self.floor {
            return Admission::Stale;
        }
        if !self.above.insert(counter) {
            return Admission::Repeated;
        }
        while self.above.len() > COMMANDS_REMEMBERED {
            if let Some(first) = self.above.pop_first() {
                self.floor = first;
            }
        }
        Admission::New
    }
}

/// Whether a command may be applied.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Admission {
    /// It was not applied before.
    New,
    /// It was.
    Repeated,
    /// Too old to tell.
    Stale,
    /// Its proposer is not registered.
    Fenced,
}

/// The registered brokers.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Brokers {
    pub(crate) by_node: BTreeMap<NodeId, Broker>,
    pub(crate) by_incarnation: BTreeMap<Incarnation, NodeId>,
    /// The last incarnations that left, oldest first, at most [`INCARNATIONS_REMEMBERED`].
    pub(crate) left: VecDeque<Incarnation>,
    /// The node ids of the last brokers that left, and where they were, oldest first, at most
    /// [`DEPARTED_REMEMBERED`]: who comes back to the same place gets its node id again.
    pub(crate) departed: VecDeque<(NodeId, Endpoint)>,
    /// The last node id given out.
    pub(crate) last_node_id: i32,
    /// The entry in which the serving brokers last changed.
    pub(crate) changed: Lsn,
}

impl Brokers {
    /// Living brokers, by node id.
    pub fn by_node(&self) -> &BTreeMap<NodeId, Broker> {
        &self.by_node
    }

    /// Those that are named to clients: whoever is about to leave is not, unless all are.
    pub(crate) fn serving(&self) -> impl Iterator<Item = (NodeId, &Broker)> {
        let all_leave = self.by_node.values().all(|broker| broker.is_draining);
        let brokers = self.by_node.iter().map(|(node, broker)| (*node, broker));
        brokers.filter(move |(_, broker)| all_leave || !broker.is_draining)
    }

    /// The broker that coordinates a group, by rendezvous hashing: when a broker comes or goes,
    /// only its own share moves.
    pub(crate) fn coordinator_of(&self, group: &str) -> Option<NodeId> {
        let weight = |node: NodeId| {
            let mut key = group.as_bytes().to_vec();
            key.extend_from_slice(&node.0.to_be_bytes());
            (xxh3_64(&key), node)
        };
        self.serving().map(|(node, _)| node).max_by_key(|node| weight(*node))
    }

    /// The node id of an incarnation that is registered.
    pub fn node_of(&self, incarnation: Incarnation) -> Option<NodeId> {
        self.by_incarnation.get(&incarnation).copied()
    }

    pub(crate) fn register(
        &mut self,
        id: CommandId,
        address: &BrokerAddress,
        now: Lsn,
    ) -> Result<NodeId, Outcome> {
        if let Some(node) = self.node_of(id.incarnation) {
            return match self.admit(id, now) {
                Admission::New => {
                    Err(Outcome::Rejected(Rejection::Malformed("an incarnation registers once")))
                }
                _ => Ok(node),
            };
        }
        if self.left.contains(&id.incarnation) {
            return Err(Outcome::Rejected(Rejection::BrokerFenced(id.incarnation)));
        }
        let place = address.endpoint();
        let known = self
            .by_node
            .iter()
            .find(|(_, broker)| broker.address.endpoint() == place)
            .map(|(node, broker)| (*node, broker.incarnation));
        let node = match known {
            Some((node, predecessor)) => {
                self.forget(predecessor);
                node
            }
            None => match self.departed.iter().position(|(_, at)| *at == place) {
                Some(place) => self.departed.remove(place).map_or(NodeId(0), |(node, _)| node),
                None => NodeId(self.next_node_id()?),
            },
        };
        let broker = Broker {
            incarnation: id.incarnation,
            address: address.clone(),
            is_draining: false,
            last_heard: now,
            commands: AppliedCommands::registered_with(id.counter),
        };
        self.by_node.insert(node, broker);
        self.by_incarnation.insert(id.incarnation, node);
        self.changed = now;
        Ok(node)
    }

    fn next_node_id(&mut self) -> Result<i32, Outcome> {
        let next = self.last_node_id.checked_add(1);
        let next = next.ok_or(Outcome::Rejected(Rejection::Malformed("node ids are used up")))?;
        self.last_node_id = next;
        Ok(next)
    }

    /// Lets a broker go: on its own wish always, on another's if nothing was heard from it since.
    /// Gives the node id that is forgotten for it, if one is.
    pub(crate) fn expire(
        &mut self,
        proposer: Incarnation,
        incarnation: Incarnation,
        seen: Lsn,
        now: Lsn,
    ) -> Result<Option<NodeId>, Rejection> {
        let node = self.node_of(incarnation).ok_or(Rejection::BrokerFenced(incarnation))?;
        let heard_later = self.by_node.get(&node).is_some_and(|broker| broker.last_heard > seen);
        if heard_later && proposer != incarnation {
            return Err(Rejection::BrokerAlive(node));
        }
        let mut forgotten = None;
        if let Some(gone) = self.by_node.remove(&node) {
            if self.departed.len() == DEPARTED_REMEMBERED {
                forgotten = self.departed.pop_front().map(|(node, _)| node);
            }
            self.departed.push_back((node, gone.address.endpoint()));
        }
        self.forget(incarnation);
        self.changed = now;
        Ok(forgotten)
    }

    /// Lets clients be sent to others from now on.
    pub(crate) fn drain(&mut self, incarnation: Incarnation, now: Lsn) {
        let broker = self.node_of(incarnation).and_then(|node| self.by_node.get_mut(&node));
        if let Some(broker) = broker {
            broker.is_draining = true;
            self.changed = now;
        }
    }

    fn forget(&mut self, incarnation: Incarnation) {
        self.by_incarnation.remove(&incarnation);
        if self.left.len() == INCARNATIONS_REMEMBERED {
            self.left.pop_front();
        }
        self.left.push_back(incarnation);
    }

    /// Says whether a command may be applied. A new one shows that its broker lives, whoever
    /// brought it into the log.
    pub(crate) fn admit(&mut self, id: CommandId, now: Lsn) -> Admission {
        let broker = self.node_of(id.incarnation).and_then(|node| self.by_node.get_mut(&node));
        let Some(broker) = broker else { return Admission::Fenced };
        let admission = broker.commands.admit(id.counter);
        if admission == Admission::New {
            broker.last_heard = now;
        }
        admission
    }

    /// Whether a command need not be tried any more: it was applied, is too old to tell, or its
    /// proposer is gone.
    pub(crate) fn is_applied(&self, id: CommandId) -> bool {
        let broker = self.node_of(id.incarnation).and_then(|node| self.by_node.get(&node));
        broker.is_none_or(|broker| {
            id.counter <= broker.commands.floor || broker.commands.above.contains(&id.counter)
        })
    }

    pub(crate) fn heard_from(&mut self, incarnation: Incarnation, at: Lsn) {
        let broker = self.node_of(incarnation).and_then(|node| self.by_node.get_mut(&node));
        if let Some(broker) = broker {
            broker.last_heard = at;
        }
    }
}
