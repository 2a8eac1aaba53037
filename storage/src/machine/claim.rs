//! Which log the objects belong to.
//!
//! Log and objects are named apart, so they can be mixed up: two clusters on one prefix of a
//! bucket, or a log whose objects are elsewhere. One object says which log its store belongs to; it
//! is written once, by whoever begins the log, and then the log says that it was: a log that has
//! said so is never served over a store that nobody has claimed. The same object shows whether the
//! store keeps its promise: a second put under its name must be turned away.

use bytes::Bytes;
use uuid::Uuid;

use super::start::{StartError, patiently};
use crate::key::ObjectKey;
use crate::object::{ObjectStore, Put};

/// The name of the object.
const KEY: &str = "cluster";

/// The object that says whose the store is.
pub(crate) fn key() -> ObjectKey {
    ObjectKey::new(KEY).expect("a constant of the right alphabet")
}

/// Makes sure that the objects belong to the log with this id, or to none yet, which is claimed
/// then.
pub(super) async fn claim(objects: &dyn ObjectStore, log: Uuid) -> Result<(), StartError> {
    let claim = Bytes::from(format!("odradek log {log}\n"));
    // Whoever is first creates it; whoever else comes must hear that it is there, also who created.
    let key = key();
    for _ in 0..2 {
        let put = patiently("objects", || objects.put_if_absent(&key, claim.clone())).await;
        if put.map_err(StartError::Objects)? == Put::Exists {
            return match found(objects).await? {
                Some(found) if found == claim => Ok(()),
                found => Err(StartError::ForeignObjects(sentence(&found.unwrap_or_default()))),
            };
        }
    }
    Err(StartError::Overwrites)
}

/// Who claims the objects, if somebody does.
pub(super) async fn claimant(objects: &dyn ObjectStore) -> Result<Option<String>, StartError> {
    Ok(found(objects).await?.map(|found| sentence(&found)))
}

async fn found(objects: &dyn ObjectStore) -> Result<Option<Bytes>, StartError> {
    let key = key();
    let read = patiently("objects", || objects.get_range(&key, 0..u64::MAX)).await;
    read.map_err(StartError::Objects)
}

/// What the object says, cut to a length that can be shown.
pub(crate) fn sentence(found: &Bytes) -> String {
    String::from_utf8_lossy(found).trim().chars().take(80).collect()
}
