//! Objects in S3, or in anything that speaks its protocol and honours `If-None-Match: *`.
//!
//! Puts are conditional and carry a CRC32C that the store verifies. An attempt that takes longer
//! than most is joined by a second one within a budget ([`hedge`]); when the store asks to slow
//! down, fewer requests are under way at once ([`limiter`]).
//!
//! SUBTLE: a put that is repeated meets its own first attempt and hears "exists". Each put
//! therefore marks its object with an id of its own (the way SlateDB does), and looks at the mark
//! before it believes that somebody else was quicker. That covers the attempts within one call; a
//! caller that gave up on a call and repeats it knows itself that the first was not answered.

use std::fmt;
use std::num::NonZeroUsize;
use std::ops::Range;
use std::sync::Arc;
use std::time::Duration;

use async_trait::async_trait;
use aws_sdk_s3::Client;
use aws_sdk_s3::config::retry::RetryConfig;
use aws_sdk_s3::config::{RequestChecksumCalculation, ResponseChecksumValidation};
use aws_sdk_s3::primitives::ByteStream;
use aws_sdk_s3::types::{ChecksumMode, Delete, ObjectIdentifier};
use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use bytes::Bytes;
use rand::TryRngCore;
use rand::rngs::OsRng;
use tokio::time::timeout;

use super::{ObjectKey, ObjectMeta, ObjectStore, Put};
use crate::aws::skew::ClockSkew;
use crate::aws::{Access, Failure, Pauses};
use crate::port::PortError;

mod hedge;
mod limiter;
mod open;

pub use open::OpenS3Error;

use hedge::{Hedging, hedged};
use limiter::Limiter;

/// How long an attempt may take, whatever its size...
const ATTEMPT_MAX: Duration = Duration::from_secs(5);
/// ...and in addition, for each of so many bytes: the slowest stream that is put up with.
const BYTES_PER_SECOND_MIN: u64 = 2 * 1024 * 1024;

/// Attempts of what nobody waits for: listings and deletions.
const BACKGROUND_ATTEMPTS: u32 = 4;

/// Most keys of one DeleteObjects, and of one page of a listing.
const KEYS_MAX: usize = 1000;

/// Under which name an object carries the id of its put.
const PUT_ID: &str = "odradek-put";

/// Where the objects are.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct S3Location {
    pub(crate) bucket: String,
    /// Prefix of every key, with a `/` at its end, or empty.
    pub(crate) prefix: String,
    pub(crate) access: Access,
    /// Whether a missing bucket is created.
    pub(crate) create: bool,
}

/// A part of a bucket. Clones share connections, budgets and limits.
#[derive(Clone)]
pub struct S3ObjectStore {
    inner: Arc<Inner>,
}

struct Inner {
    client: Client,
    location: S3Location,
    limiter: Limiter,
    put_hedging: Hedging,
    get_hedging: Hedging,
    skew: ClockSkew,
}

/// How a conditional put was answered.
enum Conditional {
    Written,
    Exists,
}

/// What every attempt of one put sends.
struct Sending<'a> {
    key: &'a str,
    bytes: Bytes,
    checksum: String,
    id: String,
}

impl S3ObjectStore {
    async fn connect(location: S3Location) -> Self {
        let skew = ClockSkew::default();
        let shared = location.access.load().await;
        let config = aws_sdk_s3::config::Builder::from(&shared)
            .interceptor(skew.clone())
            .force_path_style(location.access.endpoint.is_some())
            // Checksums are ours where we have them; see `send` and `get`.
            .request_checksum_calculation(RequestChecksumCalculation::WhenRequired)
            .response_checksum_validation(ResponseChecksumValidation::WhenRequired)
            .build();
        let client = Client::from_conf(config);
        Self { inner: Arc::new(Inner::new(client, location, skew)) }
    }

    /// Another part of the same bucket.
    #[cfg(feature = "test-util")]
    #[must_use]
    pub fn at_prefix(&self, prefix: &str) -> Self {
        let Inner { client, location, skew, .. } = &*self.inner;
        let location = S3Location { prefix: format!("{prefix}/"), ..location.clone() };
        let (client, skew) = (client.clone(), skew.clone());
        Self { inner: Arc::new(Inner::new(client, location, skew)) }
    }
}

#[async_trait]
impl ObjectStore for S3ObjectStore {
    async fn put_if_absent(&self, key: &ObjectKey, bytes: Bytes) -> Result<Put, PortError> {
        self.inner.put(&self.inner.full_key(key), bytes).await
    }

    async fn get_range(
        &self,
        key: &ObjectKey,
        range: Range<u64>,
    ) -> Result<Option<Bytes>, PortError> {
        let key = self.inner.full_key(key);
        if range.is_empty() {
            let found = self.inner.exists(&key).await?;
            return Ok(found.then(Bytes::new));
        }
        Ok(self.inner.get(&key, range).await?)
    }

    async fn list(
        &self,
        prefix: &str,
        after: Option<&ObjectKey>,
        limit: NonZeroUsize,
    ) -> Result<Vec<ObjectMeta>, PortError> {
        let mut found = Vec::new();
        let mut after = after.map(|key| self.inner.full_key(key));
        while found.len() < limit.get() {
            let wanted = (limit.get() - found.len()).min(KEYS_MAX);
            let (page, last) = self.inner.page(prefix, after.take(), wanted).await?;
            found.extend(page);
            if last.is_none() {
                break;
            }
            after = last;
        }
        Ok(found)
    }

    async fn delete(&self, keys: &[ObjectKey]) -> Result<(), PortError> {
        for keys in keys.chunks(KEYS_MAX) {
            self.inner.delete(keys).await?;
        }
        Ok(())
    }
}

impl Inner {
    fn new(client: Client, location: S3Location, skew: ClockSkew) -> Self {
        let limiter = Limiter::default();
        // Each verb with a patience and a budget of its own: a read is no measure of a write.
        let (put_hedging, get_hedging) = (Hedging::default(), Hedging::default());
        Self { client, location, limiter, put_hedging, get_hedging, skew }
    }

    fn full_key(&self, key: &ObjectKey) -> String {
        format!("{}{key}", self.location.prefix)
    }

    async fn put(&self, key: &str, bytes: Bytes) -> Result<Put, PortError> {
        let checksum = STANDARD.encode(crc32c::crc32c(&bytes).to_be_bytes());
        let sending = Sending { key, bytes, checksum, id: random_id()? };
        let mut attempts = 0;
        let mut pauses = Pauses::default();
        let mut is_unknown = false;
        loop {
            let pass = self.limiter.enter().await;
            let (answer, sent) =
                hedged(&self.put_hedging, sending.bytes.len(), || self.send(&sending)).await;
            drop(pass);
            attempts += sent;
            match answer {
                Ok(Conditional::Written) => {
                    self.limiter.went_well();
                    return Ok(Put::Created);
                }
                Ok(Conditional::Exists) if attempts == 1 => return Ok(Put::Exists),
                Ok(Conditional::Exists) => return Ok(self.whose(&sending).await?),
                Err(Failure::Throttled(said)) => {
                    self.slow_down(&said);
                    is_unknown |= sent > 1;
                    pauses.pause().await;
                }
                Err(Failure::Refused { message, .. }) if is_unknown || sent > 1 => {
                    return Err(PortError::indeterminate(message));
                }
                Err(failure) => return Err(failure.into()),
            }
        }
    }

    async fn send(&self, sending: &Sending<'_>) -> Result<Conditional, Failure> {
        let put = self
            .client
            .put_object()
            .bucket(&self.location.bucket)
            .key(sending.key)
            .if_none_match("*")
            .checksum_crc32_c(&sending.checksum)
            .metadata(PUT_ID, &sending.id)
            .body(ByteStream::from(sending.bytes.clone()))
            .customize();
        // Over TLS nobody can change the payload, and the checksum above catches what goes wrong by
        // itself: hashing it once more for the signature would double the cost of a put.
        let put = if self.location.access.is_plain() { put } else { put.disable_payload_signing() };
        match within(sending.bytes.len(), put.send()).await? {
            Ok(_) => Ok(Conditional::Written),
            Err(error) if status(&error) == Some(412) => Ok(Conditional::Exists),
            Err(error) => Err(Failure::of(&error)),
        }
    }

    /// Whether the object that was in the way is the one that this put sent before.
    async fn whose(&self, sending: &Sending<'_>) -> Result<Put, Failure> {
        let head = self.client.head_object().bucket(&self.location.bucket).key(sending.key).send();
        match within(0, head).await? {
            Ok(head) => {
                let id = head.metadata().and_then(|metadata| metadata.get(PUT_ID));
                Ok(if id == Some(&sending.id) { Put::Created } else { Put::Exists })
            }
            // Whatever the reason: what was in the way can't be told.
            Err(error) => Err(Failure::Unknown(format!("{:?}", Failure::of(&error)))),
        }
    }

    async fn exists(&self, key: &str) -> Result<bool, Failure> {
        let head = self.client.head_object().bucket(&self.location.bucket).key(key).send();
        match within(0, head).await? {
            Ok(_) => Ok(true),
            Err(error) if status(&error) == Some(404) => Ok(false),
            Err(error) => Err(Failure::of(&error)),
        }
    }

    async fn get(&self, key: &str, range: Range<u64>) -> Result<Option<Bytes>, Failure> {
        let wanted = range.end.saturating_sub(range.start);
        let wanted = usize::try_from(wanted).unwrap_or(usize::MAX);
        let mut pauses = Pauses::default();
        loop {
            let pass = self.limiter.enter().await;
            let (answer, _) = hedged(&self.get_hedging, wanted, || self.fetch(key, &range)).await;
            drop(pass);
            match answer {
                Err(Failure::Throttled(said)) => {
                    self.slow_down(&said);
                    pauses.pause().await;
                }
                answer => {
                    if answer.is_ok() {
                        self.limiter.went_well();
                    }
                    return answer;
                }
            }
        }
    }

    async fn fetch(&self, key: &str, range: &Range<u64>) -> Result<Option<Bytes>, Failure> {
        let mut get = self.client.get_object().bucket(&self.location.bucket).key(key);
        let is_whole = *range == (0..u64::MAX);
        if is_whole {
            // A checksum covers whole objects only; parts are under checksums of our own.
            get = get.checksum_mode(ChecksumMode::Enabled);
        } else {
            let last = range.end - 1;
            get = get.range(match range.end {
                u64::MAX => format!("bytes={}-", range.start),
                _ => format!("bytes={}-{last}", range.start),
            });
        }
        let reply = match within(0, get.send()).await? {
            Ok(reply) => reply,
            Err(error) => {
                return match (status(&error), Failure::of(&error)) {
                    (_, Failure::Refused { code, .. }) if code == "NoSuchKey" => Ok(None),
                    (Some(416), _) => Ok(Some(Bytes::new())),
                    (_, failure) => Err(failure),
                };
            }
        };
        let promised = reply.content_length().and_then(|bytes| usize::try_from(bytes).ok());
        let body = within(promised.unwrap_or(0), reply.body.collect()).await?;
        let bytes = body.map_err(|error| Failure::Unknown(error.to_string()))?.into_bytes();
        if promised.is_some_and(|promised| promised != bytes.len()) {
            return Err(Failure::Unknown(format!("{} bytes of {promised:?}", bytes.len())));
        }
        Ok(Some(bytes))
    }

    /// One page of a listing, and its last key if there are more. What has no name of ours is not
    /// ours.
    async fn page(
        &self,
        prefix: &str,
        after: Option<String>,
        limit: usize,
    ) -> Result<(Vec<ObjectMeta>, Option<String>), Failure> {
        let page = self
            .client
            .list_objects_v2()
            .bucket(&self.location.bucket)
            .prefix(format!("{}{prefix}", self.location.prefix))
            .set_start_after(after)
            .max_keys(i32::try_from(limit).unwrap_or(i32::MAX))
            .customize()
            .config_override(background())
            .send();
        let page = within(0, page).await?.map_err(|error| Failure::of(&error))?;
        let objects = page.contents().iter().filter_map(|object| {
            let key = object.key()?.strip_prefix(&self.location.prefix)?;
            let size = u64::try_from(object.size()?).ok()?;
            Some(ObjectMeta { key: ObjectKey::new(key).ok()?, size })
        });
        let last = page.contents().last().and_then(|object| object.key());
        let goes_on = page.is_truncated() == Some(true);
        Ok((objects.collect(), last.filter(|_| goes_on).map(ToOwned::to_owned)))
    }

    async fn delete(&self, keys: &[ObjectKey]) -> Result<(), PortError> {
        let identifiers: Result<Vec<_>, _> = keys
            .iter()
            .map(|key| ObjectIdentifier::builder().key(self.full_key(key)).build())
            .collect();
        let delete = identifiers
            .and_then(|keys| Delete::builder().set_objects(Some(keys)).quiet(true).build())
            .map_err(PortError::determinate)?;
        let deletion = self
            .client
            .delete_objects()
            .bucket(&self.location.bucket)
            .delete(delete)
            .customize()
            .config_override(background())
            .send();
        let reply = within(0, deletion).await?.map_err(|error| Failure::of(&error))?;
        match reply.errors().first() {
            None => Ok(()),
            Some(error) => Err(PortError::indeterminate(format!(
                "{} of {} objects were not deleted: {}",
                reply.errors().len(),
                keys.len(),
                error.message().unwrap_or("no reason given")
            ))),
        }
    }

    fn slow_down(&self, said: &str) {
        if self.limiter.throttled() {
            tracing::warn!(said, allowed = self.limiter.allowed(), "S3 asks to slow down");
        }
    }
}

impl fmt::Debug for S3ObjectStore {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let S3Location { bucket, prefix, .. } = &self.inner.location;
        write!(f, "S3ObjectStore({bucket}/{prefix})")
    }
}

/// How calls that nobody waits for are sent.
fn background() -> aws_sdk_s3::config::Builder {
    let retries = RetryConfig::standard()
        .with_max_attempts(BACKGROUND_ATTEMPTS)
        .with_initial_backoff(Duration::from_millis(100));
    aws_sdk_s3::config::Builder::new().retry_config(retries)
}

/// Waits for an attempt that moves so many bytes for as long as is reasonable.
async fn within<T>(bytes: usize, call: impl Future<Output = T>) -> Result<T, Failure> {
    let seconds = u64::try_from(bytes).unwrap_or(u64::MAX) / BYTES_PER_SECOND_MIN;
    let patience = ATTEMPT_MAX + Duration::from_secs(seconds);
    timeout(patience, call).await.map_err(|_| Failure::takes_too_long())
}

fn status<E>(error: &aws_sdk_s3::error::SdkError<E>) -> Option<u16> {
    error.raw_response().map(|response| response.status().as_u16())
}

/// An id that no other put has.
fn random_id() -> Result<String, PortError> {
    let mut bytes = [0; 16];
    OsRng.try_fill_bytes(&mut bytes).map_err(PortError::determinate)?;
    Ok(bytes.iter().map(|byte| format!("{byte:02x}")).collect())
}
