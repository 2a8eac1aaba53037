//! Writing and finding snapshots.

use std::num::NonZeroUsize;

use bytes::Bytes;

use crate::command::Digest;
use crate::engine::Ports;
use crate::key::ObjectKey;
use crate::lsn::Lsn;
use crate::object::Put;
use crate::port::PortError;
use crate::snapshot::{SNAPSHOT_PREFIX, snapshot_key};
use crate::state::State;

/// How many snapshots are kept.
const SNAPSHOTS_KEPT: usize = 3;

const LIST_MAX: NonZeroUsize = NonZeroUsize::new(1000).unwrap();

/// The state in the newest snapshot that is whole; an empty one if there is none.
///
/// A damaged snapshot is passed over with an alarm: the one before it and the log hold the same.
pub(super) async fn newest(ports: &Ports) -> Result<State, PortError> {
    for key in list(ports).await?.iter().rev() {
        match load(ports, key).await? {
            Ok(state) => return Ok(state),
            Err(cause) => tracing::error!(%key, cause, "snapshot is damaged, trying an older one"),
        }
    }
    Ok(State::new())
}

/// Writes a snapshot, reads it back, and deletes what is older than the newest few.
pub(super) async fn write(
    ports: &Ports,
    lsn: Lsn,
    digest: Digest,
    bytes: Bytes,
) -> Result<(), String> {
    let key = snapshot_key(lsn, digest);
    match ports.objects.put_if_absent(&key, bytes).await {
        Ok(Put::Created | Put::Exists) => {}
        Err(error) => return Err(error.to_string()),
    }
    load(ports, &key).await.map_err(|error| error.to_string())??;
    let keys = list(ports).await.map_err(|error| error.to_string())?;
    let stale = keys.len().saturating_sub(SNAPSHOTS_KEPT);
    ports.objects.delete(&keys[..stale]).await.map_err(|error| error.to_string())
}

async fn list(ports: &Ports) -> Result<Vec<ObjectKey>, PortError> {
    let mut keys: Vec<ObjectKey> = Vec::new();
    loop {
        let page = ports.objects.list(SNAPSHOT_PREFIX, keys.last(), LIST_MAX).await?;
        let last = page.len() < LIST_MAX.get();
        keys.extend(page.into_iter().map(|object| object.key));
        if last {
            return Ok(keys);
        }
    }
}

async fn load(ports: &Ports, key: &ObjectKey) -> Result<Result<State, String>, PortError> {
    let Some(bytes) = ports.objects.get_range(key, 0..u64::MAX).await? else {
        return Ok(Err("it is gone".to_owned()));
    };
    let state = match State::from_snapshot(&bytes) {
        Ok(state) => state,
        Err(error) => return Ok(Err(error.to_string())),
    };
    if snapshot_key(state.applied(), state.digest()) == *key {
        Ok(Ok(state))
    } else {
        Ok(Err("it is not the state that its name says".to_owned()))
    }
}
