//! The object store: immutable objects, written once.
//!
//! Owns names, ranges and the race for a name. Does not own what the bytes mean (see `segment` and
//! `snapshot`) nor when an object may be deleted (that is decided by commands).

use std::fmt;
use std::num::NonZeroUsize;
use std::ops::Range;

use async_trait::async_trait;
use bytes::Bytes;

pub use crate::key::{InvalidKey, ObjectKey};
use crate::port::PortError;

#[cfg(any(test, feature = "test-util"))]
pub mod conformance;
#[cfg(any(test, feature = "test-util"))]
pub mod faulty;
pub mod file;
pub mod memory;
pub mod s3;

/// The answer of the store to a put. Losing the race for a name is an answer, not an error.
#[must_use]
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Put {
    /// The name was free. It now holds these bytes, durably and for good.
    Created,
    /// The name already held an object, which was left as it is.
    Exists,
}

/// One row of a listing.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ObjectMeta {
    /// The object's name.
    pub key: ObjectKey,
    /// Its length in bytes.
    pub size: u64,
}

/// A flat space of immutable objects, shared by every broker of a cluster.
///
/// A backend is done when it passes `object::conformance`. The contract, by invariant:
///
/// - **OBJ-1 whole or absent.** An object is visible with all its bytes or not at all, also after a
///   crash in the middle of a put.
/// - **OBJ-2 single writer.** At most one put per key ever answers `Created`; no call changes the
///   bytes of an object.
/// - **OBJ-3 durable before acknowledged.** After `Created` the object survives the loss of every
///   process.
/// - **OBJ-4 read after write.** Whoever learns of a `Created` finds the object by `get_range` and
///   by `list`, from any process, from then on.
///
/// SUBTLE: a put that failed as `Indeterminate` can still land, minutes later. Keys are therefore
/// never used twice for different bytes, and an object that nobody refers to means nothing.
#[async_trait]
pub trait ObjectStore: fmt::Debug + Send + Sync {
    /// Writes `bytes` under `key` if nothing stands there.
    async fn put_if_absent(&self, key: &ObjectKey, bytes: Bytes) -> Result<Put, PortError>;

    /// Returns the bytes of `range`, cut at the end of the object; `None` if there is no such
    /// object.
    ///
    /// A range that begins at or past the end gives no bytes.
    async fn get_range(
        &self,
        key: &ObjectKey,
        range: Range<u64>,
    ) -> Result<Option<Bytes>, PortError>;

    /// Returns up to `limit` objects whose key begins with `prefix` and is greater than `after`, in
    /// byte order of their keys. Fewer than `limit` means that these were the last.
    async fn list(
        &self,
        prefix: &str,
        after: Option<&ObjectKey>,
        limit: NonZeroUsize,
    ) -> Result<Vec<ObjectMeta>, PortError>;

    /// Removes the objects. Idempotent: absent ones are no error.
    async fn delete(&self, keys: &[ObjectKey]) -> Result<(), PortError>;
}
