//! Where brokers are.

use std::collections::BTreeMap;
use std::fmt;

/// Where a broker is, as it tells the others.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct BrokerAddress {
    /// Where clients reach it.
    pub host: String,
    /// The port there.
    pub port: u16,
    /// Its availability zone, if it has one.
    pub zone: Option<String>,
    /// Where other brokers reach it, if not where clients do.
    pub peer: Option<Endpoint>,
    /// Where clients reach it through the listener for a zone, by zone.
    pub zone_listeners: BTreeMap<String, Endpoint>,
}

impl BrokerAddress {
    /// Where clients reach it.
    pub fn endpoint(&self) -> Endpoint {
        Endpoint { host: self.host.clone(), port: self.port }
    }

    /// Where other brokers reach it.
    pub fn peer_endpoint(&self) -> Endpoint {
        self.peer.clone().unwrap_or_else(|| self.endpoint())
    }
}

/// A host and a port.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Endpoint {
    /// Its name or address.
    pub host: String,
    /// The port there.
    pub port: u16,
}

impl fmt::Display for Endpoint {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.host.contains(':') {
            true => write!(f, "[{}]:{}", self.host, self.port),
            false => write!(f, "{}:{}", self.host, self.port),
        }
    }
}
