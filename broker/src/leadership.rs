//! Who leads: which broker Metadata names for a partition, and who coordinates a group.
//!
//! Any broker serves any partition; the "leader" is a hint that keeps a partition's batches and
//! blocks together. It is chosen by rendezvous hashing: every broker gives the same answer, and
//! when a broker comes or goes only its own share moves.

use std::collections::BTreeMap;

use odradek_protocol::id::{NodeId, TopicPartition};
use odradek_storage::state::brokers::Broker;
use xxhash_rust::xxh3::xxh3_64;

/// The brokers for a partition, best first: those in `zone` before all others. As many as the
/// replication factor asks for, and there are.
pub(crate) fn replicas(
    brokers: &BTreeMap<NodeId, Broker>,
    partition: TopicPartition,
    zone: Option<&str>,
    replication_factor: u16,
) -> Vec<NodeId> {
    let mut key = partition.topic.as_bytes().to_vec();
    key.extend_from_slice(&partition.partition.to_be_bytes());
    let is_near = |broker: &Broker| zone.is_some() && broker.zone.as_deref() == zone;
    let mut ranked: Vec<_> = brokers
        .iter()
        .map(|(node, broker)| ((is_near(broker), weight(&key, *node)), *node))
        .collect();
    ranked.sort_by(|a, b| b.cmp(a));
    let wanted = usize::from(replication_factor.max(1));
    ranked.into_iter().take(wanted).map(|(_, node)| node).collect()
}

/// The broker that coordinates a group: the same whoever asks, whatever the zone.
pub(crate) fn coordinator(brokers: &BTreeMap<NodeId, Broker>, group: &str) -> Option<NodeId> {
    brokers.keys().copied().max_by_key(|node| (weight(group.as_bytes(), *node), *node))
}

fn weight(key: &[u8], node: NodeId) -> u64 {
    let mut bytes = key.to_vec();
    bytes.extend_from_slice(&node.0.to_be_bytes());
    xxh3_64(&bytes)
}

#[cfg(test)]
mod tests {
    use odradek_protocol::id::TopicId;
    use odradek_storage::command::{Command, CommandId, Entry, EntryHash, Incarnation, Proposal};
    use odradek_storage::lsn::Lsn;
    use odradek_storage::state::State;
    use uuid::Uuid;

    use super::*;

    /// Brokers 1 to `count`, in zones a, b and c by turns.
    fn brokers(count: u64) -> BTreeMap<NodeId, Broker> {
        let log_id = Uuid::from_u128(1);
        let mut state = State::new();
        let mut proposals = vec![Command::Genesis { cluster_id: log_id, log_id, level: 1 }];
        for n in 0..count {
            let zone = ["a", "b", "c"][usize::try_from(n % 3).unwrap()];
            let port = u16::try_from(9000 + n).unwrap();
            let zone = Some(zone.to_owned());
            proposals.push(Command::RegisterBroker { host: "h".to_owned(), port, zone });
        }
        let proposals: Vec<Proposal> = (1..)
            .zip(proposals)
            .map(|(n, command)| {
                let id = CommandId { incarnation: Incarnation(n), counter: 1 };
                Proposal { id, command }
            })
            .collect();
        let entry = Entry {
            log_id: Uuid::nil(),
            lsn: Lsn::FIRST,
            previous: EntryHash::default(),
            append_id: CommandId::default(),
            level: 0,
            time_ms: 0,
            digest: None,
            proposals,
        };
        state.apply(&entry, EntryHash(1)).unwrap();
        state.brokers().clone()
    }

    fn partition(index: i32) -> TopicPartition {
        TopicPartition { topic: TopicId(Uuid::from_u128(7)), partition: index }
    }

    #[test]
    fn a_broker_that_goes_takes_only_its_own_share_with_it() {
        let all = brokers(6);
        let mut fewer = all.clone();
        fewer.remove(&NodeId(3));
        for index in 0..1000 {
            let before = replicas(&all, partition(index), None, 1);
            let after = replicas(&fewer, partition(index), None, 1);
            assert!(before == after || before == [NodeId(3)], "{index}");
        }
    }

    #[test]
    fn every_broker_gets_a_share() {
        let all = brokers(5);
        for node in all.keys() {
            let led = (0..1000).filter(|it| replicas(&all, partition(*it), None, 1) == [*node]);
            assert!(led.count() > 100, "{node}");
        }
    }

    #[test]
    fn a_client_is_led_to_its_own_zone_if_there_is_a_broker() {
        let all = brokers(6);
        for index in 0..100 {
            let near = replicas(&all, partition(index), Some("b"), 3);
            assert_eq!(all[&near[0]].zone.as_deref(), Some("b"));
            assert_eq!(near.len(), 3);
            let nowhere = replicas(&all, partition(index), Some("z"), 1);
            assert_eq!(nowhere, replicas(&all, partition(index), None, 1));
        }
    }
}
