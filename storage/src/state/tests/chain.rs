//! Entries that follow each other: positions, hashes and the log's id are filled in.

use std::collections::BTreeMap;

use odradek_protocol::id::TopicPartition;
use uuid::Uuid;

use crate::command::{BrokerAddress, Command, CommandId, Entry, EntryHash, Incarnation, Proposal};
use crate::lsn::Lsn;
use crate::state::{Applied, Halt, State};

/// The log that every test begins, unless it is about another one.
pub(crate) const LOG_ID: Uuid = Uuid::from_u128(0x0100);

/// The cluster of that log.
pub(crate) const CLUSTER_ID: Uuid = Uuid::from_u128(0xc1);

/// When the first entry of a test is written, in milliseconds since the Unix epoch.
pub(crate) const START_MS: i64 = 1_000_000;

/// Writes entries that follow the last one written.
#[derive(Clone, Debug, Default)]
pub(crate) struct Chain {
    pub(crate) log_id: Uuid,
    pub(crate) lsn: Lsn,
    pub(crate) previous: EntryHash,
    pub(crate) appends: u64,
}

impl Chain {
    /// The entry that follows, with its hash. The chain goes on behind it.
    pub(crate) fn write(
        &mut self,
        by: Incarnation,
        time_ms: i64,
        proposals: Vec<Proposal>,
    ) -> (Entry, EntryHash) {
        let entry = self.draft(by, time_ms, proposals);
        let hash = self.take(&entry);
        (entry, hash)
    }

    /// The entry that would follow.
    pub(crate) fn draft(
        &mut self,
        by: Incarnation,
        time_ms: i64,
        proposals: Vec<Proposal>,
    ) -> Entry {
        self.appends += 1;
        Entry {
            log_id: self.log_id,
            lsn: self.lsn.next(),
            previous: self.previous,
            append_id: CommandId { incarnation: by, counter: self.appends },
            level: 1,
            time_ms,
            digest: None,
            proposals,
        }
    }

    /// Goes on behind `entry`.
    pub(crate) fn take(&mut self, entry: &Entry) -> EntryHash {
        let hash = EntryHash::of(&entry.encode());
        self.lsn = entry.lsn;
        self.previous = hash;
        if let Some(Proposal { command: Command::Genesis { log_id, .. }, .. }) =
            entry.proposals.first()
            && self.log_id.is_nil()
        {
            self.log_id = *log_id;
        }
        hash
    }

    /// Writes an entry with one command and applies it.
    pub(crate) fn apply(&mut self, state: &mut State, proposal: Proposal) -> Result<Applied, Halt> {
        let time_ms = state.log_time_ms();
        let (entry, hash) = self.write(proposal.id.incarnation, time_ms, vec![proposal]);
        state.apply(&entry, hash)
    }
}

/// A log that has begun, with the state after its first entry: brokers 1 and 2 are registered.
pub(crate) fn begun() -> (Chain, State, Entry) {
    let mut chain = Chain::default();
    let mut state = State::new();
    let proposals = vec![genesis(), register(1, 1, "h1"), register(2, 1, "h2")];
    let (entry, hash) = chain.write(Incarnation(1), START_MS, proposals);
    let applied = state.apply(&entry, hash).unwrap();
    assert_eq!(applied.outcomes.len(), 3);
    (chain, state, entry)
}

/// The first command of every log.
pub(crate) fn genesis() -> Proposal {
    propose(1, 0, Command::Genesis { cluster_id: CLUSTER_ID, log_id: LOG_ID, level: 1 })
}

/// A broker announces itself.
pub(crate) fn register(incarnation: u64, counter: u64, host: &str) -> Proposal {
    let command = Command::RegisterBroker(address(host, None));
    propose(incarnation, counter, command)
}

/// Where a broker of these tests is.
pub(crate) fn address(host: &str, zone: Option<&str>) -> BrokerAddress {
    let zone = zone.map(ToOwned::to_owned);
    BrokerAddress { host: host.to_owned(), port: 9092, zone, ..BrokerAddress::default() }
}

/// A command with its identity.
pub(crate) fn propose(incarnation: u64, counter: u64, command: Command) -> Proposal {
    Proposal { id: CommandId { incarnation: Incarnation(incarnation), counter }, command }
}

/// A topic named after its id.
pub(crate) fn create_topic(partition: TopicPartition, partitions: u32) -> Command {
    let TopicPartition { topic, .. } = partition;
    Command::CreateTopic {
        topic,
        name: format!("topic-{topic}"),
        partitions,
        replication_factor: 1,
        configs: BTreeMap::new(),
    }
}
