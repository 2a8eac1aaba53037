//! A log in a DynamoDB table: one item a slot, won by a conditional put.
//!
//! ```text
//! hash key "slot" (string)          attributes
//! CLUSTER/00000000000000000042      entry: the bytes (binary)
//! CLUSTER/floor                     floor: first slot that is not trimmed; deleted: first that may
//!                                   still be there (numbers)
//! ```
//!
//! The slot is in the hash key, so that a log is spread over all partitions of its table: rising
//! sort keys under one hash key would be one hot spot of 1,000 write units a second for ever. There
//! is no order to ask for then, but slots are dense: whoever knows one finds the tail by looking
//! further and further ahead.
//!
//! # A slot that was trimmed is never won again
//!
//! `attribute_not_exists` forgets what was deleted. So the floor is raised first, and entries are
//! deleted only [`Patience::grace`] later; and an append is believed only if the floor was read
//! less than [`Patience::trust`] before the answer came, or is read then. Both are measured by
//! clocks that do not stop while a machine sleeps, and neither is compared with another's
//! (RELIABILITY A6; the shape is that of SlateDB's RFC 0026).

use std::fmt;
use std::num::NonZeroUsize;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use async_trait::async_trait;
use aws_sdk_dynamodb::Client;
use aws_sdk_dynamodb::operation::put_item::PutItemError;
use aws_sdk_dynamodb::primitives::Blob;
use aws_sdk_dynamodb::types::{AttributeValue, ReturnValuesOnConditionCheckFailure};
use bytes::Bytes;

use super::{Append, ENTRY_BYTES_MAX, Freshness, LogRead, Lsn, MetadataLog, Slot};
use crate::aws::skew::ClockSkew;
use crate::aws::{Access, Failure, unthrottled};
use crate::clock::uptime;
use crate::port::PortError;

mod items;
mod open;
mod trim;

pub use open::OpenDynamoDbError;

/// How long one call may take before its outcome counts as unknown.
const CALL_MAX: Duration = Duration::from_secs(1);

/// The same for a batch of entries, which may be megabytes.
const BATCH_MAX: Duration = Duration::from_secs(5);

/// Most keys of one BatchGetItem.
const KEYS_MAX: usize = 100;

/// Where the log is.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct DynamoDbLocation {
    pub(crate) table: String,
    /// Name of the log in the table.
    pub(crate) name: String,
    pub(crate) access: Access,
    /// Whether a missing table is created.
    pub(crate) create: bool,
}

/// For how long what is known of the floor is believed. `grace` must be at least twice `trust`, or
/// both zero.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Patience {
    /// An append that is answered later than this after the floor was read reads it again.
    pub(crate) trust: Duration,
    /// Entries are deleted this long after the floor was raised.
    pub(crate) grace: Duration,
}

impl Default for Patience {
    fn default() -> Self {
        Self { trust: Duration::from_secs(20), grace: Duration::from_secs(60) }
    }
}

impl Patience {
    /// Believes nothing and waits for nothing, so that a test of trimming takes no minutes.
    #[cfg(feature = "test-util")]
    pub(crate) const NONE: Self = Self { trust: Duration::ZERO, grace: Duration::ZERO };
}

/// One log of a table. Clones share what is known of it.
#[derive(Clone)]
pub struct DynamoDbLog {
    inner: Arc<Inner>,
}

struct Inner {
    client: Client,
    location: DynamoDbLocation,
    patience: Patience,
    skew: ClockSkew,
    known: Mutex<Known>,
}

/// What this handle knows of the log.
#[derive(Debug, Default)]
struct Known {
    /// The newest slot that is known to be filled.
    filled: Lsn,
    floor: Lsn,
    /// When the floor was last asked for.
    floor_read: Option<Duration>,
    /// How many slots the next read looks at.
    window: usize,
}

impl DynamoDbLog {
    async fn connect(location: DynamoDbLocation, patience: Patience) -> Self {
        let skew = ClockSkew::default();
        let shared = location.access.load().await;
        let config =
            aws_sdk_dynamodb::config::Builder::from(&shared).interceptor(skew.clone()).build();
        let client = Client::from_conf(config);
        let known = Mutex::default();
        Self { inner: Arc::new(Inner { client, location, patience, skew, known }) }
    }

    /// A handle on the log called `name` in the same table that knows nothing yet, as one in
    /// another process would.
    #[cfg(feature = "test-util")]
    #[must_use]
    pub fn apart(&self, name: &str) -> Self {
        let Inner { client, location, patience, skew, .. } = &*self.inner;
        let location = DynamoDbLocation { name: name.to_owned(), ..location.clone() };
        let (client, skew, known) = (client.clone(), skew.clone(), Mutex::default());
        Self { inner: Arc::new(Inner { client, location, patience: *patience, skew, known }) }
    }

    /// The name of the log in its table.
    #[cfg(feature = "test-util")]
    pub fn name(&self) -> &str {
        &self.inner.location.name
    }
}

#[async_trait]
impl MetadataLog for DynamoDbLog {
    async fn append(&self, at: Lsn, bytes: Bytes) -> Result<Append, PortError> {
        let inner = &self.inner;
        if bytes.len() > ENTRY_BYTES_MAX {
            return Err(PortError::determinate(format!("entry of {} bytes", bytes.len())));
        }
        if at < inner.floor_known().await? {
            return Ok(Append::Trimmed);
        }
        if !inner.leaves_no_hole(at).await? {
            return Err(PortError::determinate(format!("{at} would leave a hole")));
        }
        let found = inner.put(at, bytes).await?;
        // Whatever stands there: an earlier attempt of the caller's own may have landed in a slot
        // that was emptied by a trim.
        // From here on nothing is definite any more: the entry may stand.
        let floor = inner.floor_trusted().await;
        if at < floor.map_err(|error| PortError::indeterminate(error.to_string()))? {
            return Ok(Append::Trimmed);
        }
        inner.filled(at);
        Ok(found.map_or(Append::Committed, Append::Taken))
    }

    async fn read(
        &self,
        from: Lsn,
        limit: NonZeroUsize,
        freshness: Freshness,
    ) -> Result<LogRead, PortError> {
        let inner = &self.inner;
        if from < inner.floor_known().await? {
            return inner.trimmed().await;
        }
        let window = inner.known().window.clamp(1, KEYS_MAX).min(limit.get());
        let found = match inner.entries(from, window, freshness).await {
            Ok(found) => found,
            Err(error) => {
                // Perhaps it was too much at once.
                inner.known().window = window / 2;
                return Err(error);
            }
        };
        inner.found(window, &found);
        // A slot that is empty may have been emptied by a trim since, and what stands in it may be
        // a put that landed after that. What lies above the floor was never deleted.
        let is_tail = found.is_empty() && freshness == Freshness::Latest;
        let floor = if is_tail { inner.read_floor().await } else { inner.floor_trusted().await };
        if from < floor? {
            return inner.trimmed().await;
        }
        let at_tail = found.len() < window;
        Ok(LogRead::Entries { slots: found, at_tail })
    }

    async fn tail(&self) -> Result<Lsn, PortError> {
        let floor = self.inner.read_floor().await?;
        let tail = self.inner.find_tail(floor).await?;
        if tail > floor {
            self.inner.filled(tail.prev());
        }
        Ok(tail)
    }

    async fn trim(&self, before: Lsn) -> Result<(), PortError> {
        self.inner.trim(before).await
    }
}

impl Inner {
    fn known(&self) -> MutexGuard<'_, Known> {
        self.known.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn filled(&self, at: Lsn) {
        let mut known = self.known();
        known.filled = known.filled.max(at);
    }

    fn found(&self, window: usize, found: &[Slot]) {
        let mut known = self.known();
        // Doubled while there is more, so that whoever is far behind catches up in long strides; at
        // the tail each slot that is asked for and empty costs a read.
        known.window = if found.len() == window { window * 2 } else { found.len() + 1 };
        if let Some(last) = found.last() {
            known.filled = known.filled.max(last.lsn);
        }
    }

    /// A floor below which everything is trimmed; the floor itself may have risen since.
    async fn floor_known(&self) -> Result<Lsn, PortError> {
        let known = {
            let known = self.known();
            known.floor_read.map(|_| known.floor)
        };
        match known {
            Some(floor) => Ok(floor),
            None => self.read_floor().await,
        }
    }

    /// A floor that was read so recently that nothing above it can have been deleted.
    async fn floor_trusted(&self) -> Result<Lsn, PortError> {
        let trusted = {
            let known = self.known();
            let is_fresh = |at| uptime().saturating_sub(at) < self.patience.trust;
            known.floor_read.filter(|at| is_fresh(*at)).map(|_| known.floor)
        };
        match trusted {
            Some(floor) => Ok(floor),
            None => self.read_floor().await,
        }
    }

    async fn trimmed(&self) -> Result<LogRead, PortError> {
        Ok(LogRead::Trimmed(self.read_floor().await?))
    }

    /// Whether the slot before `at` is filled, or trimmed.
    async fn leaves_no_hole(&self, at: Lsn) -> Result<bool, PortError> {
        if at.prev() <= self.known().filled || at == Lsn::FIRST {
            return Ok(true);
        }
        if !self.entries(at.prev(), 1, Freshness::Latest).await?.is_empty() {
            self.filled(at.prev());
            return Ok(true);
        }
        Ok(at == self.read_floor().await?)
    }

    /// Puts an entry if its slot is free; otherwise gives what stands there.
    async fn put(&self, at: Lsn, bytes: Bytes) -> Result<Option<Bytes>, PortError> {
        let put = self
            .client
            .put_item()
            .table_name(&self.location.table)
            .item(items::SLOT, AttributeValue::S(items::key(&self.location.name, at)))
            .item(items::ENTRY, AttributeValue::B(Blob::new(bytes)))
            .condition_expression("attribute_not_exists(slot)")
            .return_values_on_condition_check_failure(ReturnValuesOnConditionCheckFailure::AllOld);
        let Err(error) = unthrottled(CALL_MAX, || put.clone().send()).await? else {
            return Ok(None);
        };
        let service_error = error.as_service_error();
        let Some(PutItemError::ConditionalCheckFailedException(taken)) = service_error else {
            return Err(Failure::of(&error).into());
        };
        if let Some(found) = taken.item().and_then(items::entry) {
            return Ok(Some(found));
        }
        // A server that does not say what was in the way.
        match self.entries(at, 1, Freshness::Latest).await?.pop() {
            Some(slot) => Ok(Some(slot.bytes)),
            None => Err(PortError::indeterminate(format!("{at} is taken and empty"))),
        }
    }
}

impl fmt::Debug for DynamoDbLog {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let DynamoDbLocation { table, name, .. } = &self.inner.location;
        write!(f, "DynamoDbLog({table}/{name})")
    }
}
