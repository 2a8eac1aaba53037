//! Who leads: which broker Metadata names for a partition, and as controller.
//!
//! Any broker serves any partition; the "leader" is a hint that keeps a partition's batches and
//! blocks together. It is chosen by rendezvous hashing: every broker gives the same answer, and
//! when a broker comes or goes only its own share moves.

use odradek_protocol::id::{NodeId, PartitionIndex, TopicPartition};
use odradek_protocol::messages::BrokerId;
use odradek_storage::state::topics::Topic;
use xxhash_rust::xxh3::xxh3_64;

use crate::directory::Listed;

/// The brokers for a partition, best first: those in `zone` before all others. As many as the
/// replication factor asks for, and there are.
pub(crate) fn replicas(
    brokers: &[Listed],
    partition: TopicPartition,
    zone: Option<&str>,
    replication_factor: u16,
) -> Vec<NodeId> {
    let mut key = partition.topic.as_bytes().to_vec();
    key.extend_from_slice(&partition.partition.to_be_bytes());
    let is_near = |broker: &Listed| zone.is_some() && broker.zone.as_deref() == zone;
    let mut ranked: Vec<_> = brokers
        .iter()
        .map(|broker| ((is_near(broker), weight(&key, broker.node)), broker.node))
        .collect();
    ranked.sort_by(|a, b| b.cmp(a));
    let wanted = usize::from(replication_factor.max(1));
    ranked.into_iter().take(wanted).map(|(_, node)| node).collect()
}

/// The same for a partition of this topic, as messages have it: what a client in `zone` is told
/// about who leads and who follows, whichever way it asks.
pub(crate) fn named(
    brokers: &[Listed],
    topic: &Topic,
    partition: PartitionIndex,
    zone: Option<&str>,
) -> Vec<BrokerId> {
    let partition = TopicPartition { topic: topic.id, partition };
    let replicas = replicas(brokers, partition, zone, topic.replication_factor);
    replicas.into_iter().map(|node| BrokerId(node.0)).collect()
}

/// The broker in a client's zone that it should read this partition from, if this one is in another
/// (KIP-392).
pub(crate) fn nearer(
    brokers: &[Listed],
    partition: TopicPartition,
    zone: &str,
    this: NodeId,
) -> Option<NodeId> {
    let is_near = |node: NodeId| {
        let found = brokers.iter().find(|broker| broker.node == node);
        found.is_some_and(|broker| broker.zone.as_deref() == Some(zone))
    };
    let best = replicas(brokers, partition, Some(zone), 1).first().copied()?;
    (is_near(best) && !is_near(this)).then_some(best)
}

/// The broker that is named as controller: the one that is asked, as long as it is named at all.
/// Any broker can do what a controller does.
pub(crate) fn controller(brokers: &[Listed], this: NodeId) -> NodeId {
    let is_listed = brokers.iter().any(|broker| broker.node == this);
    if is_listed { this } else { brokers.first().map_or(this, |broker| broker.node) }
}

fn weight(key: &[u8], node: NodeId) -> u64 {
    let mut bytes = key.to_vec();
    bytes.extend_from_slice(&node.0.to_be_bytes());
    xxh3_64(&bytes)
}

#[cfg(test)]
mod tests {
    use odradek_protocol::id::TopicId;
    use odradek_storage::command::{BrokerAddress, Command};
    use uuid::Uuid;

    use super::*;
    use crate::directory::{self, tests::state_of};
    use crate::fetch_session::SessionSlot;
    use crate::session::Session;

    /// Brokers 1 to `count`, in zones a, b and c by turns.
    fn brokers(count: u64) -> Vec<Listed> {
        let register = |n: u64| {
            let zone = ["a", "b", "c"][usize::try_from(n % 3).unwrap()];
            let port = u16::try_from(9000 + n).unwrap();
            let (host, zone) = ("h".to_owned(), Some(zone.to_owned()));
            Command::RegisterBroker(BrokerAddress { host, port, zone, ..Default::default() })
        };
        let state = state_of((0..count).map(|n| (n + 2, register(n))).collect());
        let slot = SessionSlot::default();
        let session = Session::new(([127, 0, 0, 1], 1).into(), "client", None, slot);
        directory::listed(&state, &session)
    }

    fn partition(index: i32) -> TopicPartition {
        TopicPartition { topic: TopicId(Uuid::from_u128(7)), partition: index }
    }

    #[test]
    fn a_broker_that_goes_takes_only_its_own_share_with_it() {
        let all = brokers(6);
        let mut fewer = all.clone();
        fewer.retain(|broker| broker.node != NodeId(3));
        for index in 0..1000 {
            let before = replicas(&all, partition(index), None, 1);
            let after = replicas(&fewer, partition(index), None, 1);
            assert!(before == after || before == [NodeId(3)], "{index}");
        }
    }

    #[test]
    fn every_broker_gets_a_share() {
        let all = brokers(5);
        for broker in &all {
            let is_led = |it: &i32| replicas(&all, partition(*it), None, 1) == [broker.node];
            assert!((0..1000).filter(is_led).count() > 100, "{}", broker.node);
        }
    }

    #[test]
    fn a_client_is_led_to_its_own_zone_if_there_is_a_broker() {
        let all = brokers(6);
        let zone_of = |node: NodeId| all.iter().find(|it| it.node == node).unwrap().zone.clone();
        for index in 0..100 {
            let near = replicas(&all, partition(index), Some("b"), 3);
            assert_eq!(zone_of(near[0]).as_deref(), Some("b"));
            assert_eq!(near.len(), 3);
            let nowhere = replicas(&all, partition(index), Some("z"), 1);
            assert_eq!(nowhere, replicas(&all, partition(index), None, 1));
        }
    }

    #[test]
    fn a_consumer_is_sent_to_a_broker_of_its_zone_and_stays_there() {
        let all = brokers(6);
        for index in 0..20 {
            let near = nearer(&all, partition(index), "b", NodeId(1)).unwrap();
            assert_eq!(near, replicas(&all, partition(index), Some("b"), 1)[0]);
            for at_home in [NodeId(2), NodeId(5)] {
                assert_eq!(nearer(&all, partition(index), "b", at_home), None);
            }
            assert_eq!(nearer(&all, partition(index), "z", NodeId(1)), None);
        }
    }
}
