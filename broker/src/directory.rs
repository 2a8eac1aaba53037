//! The directory: which brokers a client is told of, and under which addresses.
//!
//! A broker that is about to leave is not named any more, so that clients are elsewhere before it
//! goes; if all are about to leave, all are named. A client that came by the listener for a zone is
//! given the addresses of that listener, where there are any.

use odradek_protocol::id::NodeId;
use odradek_storage::command::Endpoint;
use odradek_storage::state::State;
use odradek_storage::state::brokers::Broker;

use crate::session::Session;

/// A broker as a client sees it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Listed {
    pub(crate) node: NodeId,
    pub(crate) endpoint: Endpoint,
    pub(crate) zone: Option<String>,
}

/// The brokers that this client is told of, by node id.
pub(crate) fn listed(state: &State, session: &Session) -> Vec<Listed> {
    state.serving_brokers().map(|(node, broker)| list(node, broker, session)).collect()
}

/// One broker, whether it is about to leave or not.
pub(crate) fn find(state: &State, session: &Session, node: NodeId) -> Option<Listed> {
    state.brokers().get(&node).map(|broker| list(node, broker, session))
}

fn list(node: NodeId, broker: &Broker, session: &Session) -> Listed {
    let address = &broker.address;
    let zone = session.listener_zone.as_deref();
    let special = zone.and_then(|zone| address.zone_listeners.get(zone)).cloned();
    Listed {
        node,
        endpoint: special.unwrap_or_else(|| address.endpoint()),
        zone: address.zone.clone(),
    }
}

#[cfg(test)]
pub(crate) mod tests {
    use std::collections::BTreeMap;
    use std::net::SocketAddr;

    use odradek_storage::command::{
        BrokerAddress, Command, CommandId, Entry, EntryHash, Incarnation, Proposal,
    };
    use odradek_storage::lsn::Lsn;
    use uuid::Uuid;

    use super::*;
    use crate::fetch_session::SessionSlot;

    /// A state with these commands applied, each by a broker of its own: the first by 2, and so on.
    pub(crate) fn state_of(commands: Vec<(u64, Command)>) -> State {
        state_of_cluster(Uuid::from_u128(1), commands)
    }

    /// The same in a cluster with this id.
    pub(crate) fn state_of_cluster(id: Uuid, commands: Vec<(u64, Command)>) -> State {
        let genesis = Command::Genesis { cluster_id: id, log_id: id, level: 1 };
        let propose = |(counter, (incarnation, command)): (u64, (u64, Command))| Proposal {
            id: CommandId { incarnation: Incarnation(incarnation), counter },
            command,
        };
        let commands = std::iter::once((1, genesis)).chain(commands);
        let entry = Entry {
            log_id: Uuid::nil(),
            lsn: Lsn::FIRST,
            previous: EntryHash::default(),
            append_id: CommandId::default(),
            level: 0,
            time_ms: 0,
            digest: None,
            proposals: (1..).zip(commands).map(propose).collect(),
        };
        let mut state = State::new();
        state.apply(&entry, EntryHash(1)).unwrap();
        state
    }

    fn register(port: u16) -> Command {
        let special = Endpoint { host: "inside".to_owned(), port: port + 1000 };
        let zone_listeners = BTreeMap::from([("a".to_owned(), special)]);
        let host = "h".to_owned();
        Command::RegisterBroker(BrokerAddress {
            host,
            port,
            zone_listeners,
            ..BrokerAddress::default()
        })
    }

    fn session(listener_zone: Option<&str>) -> Session {
        let peer = SocketAddr::from(([127, 0, 0, 1], 1));
        let zone = listener_zone.map(ToOwned::to_owned);
        Session::new(peer, "client", zone, SessionSlot::default())
    }

    fn endpoints(state: &State, zone: Option<&str>) -> Vec<String> {
        listed(state, &session(zone)).into_iter().map(|it| it.endpoint.to_string()).collect()
    }

    #[test]
    fn a_client_is_told_the_addresses_of_the_listener_it_came_by() {
        let state = state_of(vec![(2, register(1)), (3, register(2))]);
        assert_eq!(endpoints(&state, None), ["h:1", "h:2"]);
        assert_eq!(endpoints(&state, Some("a")), ["inside:1001", "inside:1002"]);
        assert_eq!(endpoints(&state, Some("b")), ["h:1", "h:2"]);
    }

    #[test]
    fn a_broker_that_is_about_to_leave_is_not_named_unless_all_are() {
        let mut commands = vec![(2, register(1)), (3, register(2)), (2, Command::DrainBroker)];
        let state = state_of(commands.clone());
        assert_eq!(endpoints(&state, None), ["h:2"]);
        assert!(find(&state, &session(None), NodeId(1)).is_some());
        commands.push((3, Command::DrainBroker));
        assert_eq!(endpoints(&state_of(commands), None), ["h:1", "h:2"]);
    }
}
