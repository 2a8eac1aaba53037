//! Addresses as settings name them: one, or one for each zone.

use std::collections::BTreeMap;

use super::{ConfigError, ZoneListener};

pub(super) fn host_and_port(address: &str) -> Result<(String, u16), ConfigError> {
    let parts = address.rsplit_once(':').and_then(|(host, port)| {
        let host = host.strip_prefix('[').and_then(|it| it.strip_suffix(']')).unwrap_or(host);
        Some((host.to_owned(), port.parse().ok()?))
    });
    match parts {
        Some((host, port)) if !host.is_empty() => Ok((host, port)),
        _ => Err(ConfigError(format!("{address:?} is no address: use HOST:PORT"))),
    }
}

pub(super) fn zone_listeners(
    listen: &str,
    advertise: &str,
) -> Result<BTreeMap<String, ZoneListener>, ConfigError> {
    let mut listeners = BTreeMap::new();
    for (zone, listen) in by_zone("zone-listen", listen)? {
        host_and_port(&listen)?;
        listeners.insert(zone, ZoneListener { listen, advertise: None });
    }
    for (zone, advertise) in by_zone("zone-advertise", advertise)? {
        let Some(listener) = listeners.get_mut(&zone) else {
            return Err(ConfigError(format!("zone-advertise names {zone}, zone-listen does not")));
        };
        listener.advertise = Some(host_and_port(&advertise)?);
    }
    Ok(listeners)
}

/// The pairs of `ZONE=HOST:PORT,ZONE=HOST:PORT`.
fn by_zone(setting: &str, pairs: &str) -> Result<BTreeMap<String, String>, ConfigError> {
    let pairs = pairs.split(',').map(str::trim).filter(|pair| !pair.is_empty());
    let pair = |pair: &str| match pair.split_once('=') {
        Some((zone, address)) if !zone.is_empty() => Ok((zone.to_owned(), address.to_owned())),
        _ => Err(ConfigError(format!("{setting}: {pair:?} is not ZONE=HOST:PORT"))),
    };
    pairs.map(pair).collect()
}
