//! A session: what is known of the client at the other end of a connection.

use std::net::SocketAddr;

use crate::fetch_session::SessionSlot;

/// Keys under which a client id can name the client's zone: ours, and those that users of other
/// brokers of this kind have in their configurations already.
const ZONE_KEYS: [&str; 6] =
    ["zone", "odradek_az", "warpstream_az", "ws_az", "automq_az", "diskless_az"];

/// Longest client id that is written to logs.
const LOGGED_CHARS_MAX: usize = 64;

/// One client, as the request at hand shows it.
#[derive(Clone, Debug)]
pub(crate) struct Session {
    /// Where it comes from.
    pub(crate) peer: SocketAddr,
    /// What it calls itself, for logs: cut, and without anything that is not printable ASCII.
    pub(crate) client_id: String,
    /// The zone whose listener it came by, if it came by one.
    pub(crate) listener_zone: Option<String>,
    /// Its availability zone, if it says or its listener does.
    pub(crate) zone: Option<String>,
    /// Where its connection keeps a fetch session.
    pub(crate) fetches: SessionSlot,
}

impl Session {
    /// Where the client comes from, as Kafka writes it in descriptions of groups.
    pub(crate) fn client_host(&self) -> String {
        format!("/{}", self.peer.ip())
    }

    /// The session of a request with this client id, by a connection that keeps its fetch session
    /// at `fetches`.
    pub(crate) fn new(
        peer: SocketAddr,
        client_id: &str,
        listener_zone: Option<String>,
        fetches: SessionSlot,
    ) -> Self {
        let printable = |c: &char| c.is_ascii_graphic() || *c == ' ';
        Self {
            peer,
            client_id: client_id.chars().filter(printable).take(LOGGED_CHARS_MAX).collect(),
            zone: zone_of(client_id).or_else(|| listener_zone.clone()),
            listener_zone,
            fetches,
        }
    }
}

/// The zone in a client id such as `app,zone=eu-1a` or `ws_az=eu-1a,app`.
fn zone_of(client_id: &str) -> Option<String> {
    let zone = client_id.split(',').find_map(|part| {
        let (key, value) = part.trim().split_once('=')?;
        ZONE_KEYS.contains(&key).then_some(value)
    })?;
    (!zone.is_empty()).then(|| zone.to_owned())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_zone_is_found_in_every_dialect() {
        for key in ZONE_KEYS {
            assert_eq!(zone_of(&format!("app, {key}=eu-1a,x=y")).as_deref(), Some("eu-1a"));
        }
        assert_eq!(zone_of("app"), None);
        assert_eq!(zone_of("zone="), None);
        assert_eq!(zone_of("rack=eu-1a"), None);
    }

    #[test]
    fn a_client_id_can_not_forge_log_lines() {
        let peer = SocketAddr::from(([127, 0, 0, 1], 1));
        let session = Session::new(peer, "a\nERROR b\u{1b}[2J", None, SessionSlot::default());
        assert_eq!(session.client_id, "aERROR b[2J");
    }
}
