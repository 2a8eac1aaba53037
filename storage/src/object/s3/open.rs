//! Opening a bucket: is it there, is it ours to use, does it keep its promises.

use std::time::Duration;

use aws_sdk_s3::types::{BucketLocationConstraint, CreateBucketConfiguration};
use futures::future::join_all;
use tokio::time::sleep;

use super::{Inner, S3Location, S3ObjectStore, status, within};
use crate::aws::{Failure, NO_REGION, advised};

/// Time between two attempts to reach a store that does not answer.
const RETRY_INTERVAL: Duration = Duration::from_secs(2);

/// Connections opened before anybody needs one.
const WARM_CONNECTIONS: usize = 4;

/// Why a bucket can't be used: a sentence.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("s3://{bucket}: {what}")]
pub struct OpenS3Error {
    /// The bucket.
    pub bucket: String,
    /// What is wrong, and what to do about it.
    pub what: String,
}

impl S3ObjectStore {
    /// Opens the bucket, creating it if that is wanted. Waits, and says so, as long as the store
    /// can't be reached.
    pub(crate) async fn open(location: S3Location) -> Result<Self, OpenS3Error> {
        let store = Self::connect(location).await;
        let inner = &store.inner;
        let bucket = inner.location.bucket.clone();
        let sorry = |what| OpenS3Error { bucket: bucket.clone(), what };
        if inner.client.config().region().is_none() {
            return Err(sorry(NO_REGION.to_owned()));
        }
        loop {
            let answer = inner.look().await;
            if let Some(complaint) = inner.skew.complaint() {
                return Err(sorry(complaint));
            }
            match answer {
                Ok(()) => break,
                Err(Failure::Refused { code, .. }) if code == "NoSuchBucket" => {
                    if !inner.location.create {
                        return Err(sorry(
                            "there is no such bucket: create it, or add ?create=true".to_owned(),
                        ));
                    }
                    inner.create_bucket().await.map_err(sorry)?;
                }
                Err(Failure::Refused { code, message }) => {
                    return Err(sorry(advised(&code, message)));
                }
                Err(Failure::Throttled(said) | Failure::Unknown(said)) => {
                    let endpoint = inner.location.access.shown();
                    tracing::warn!(bucket, endpoint, cause = said, "waiting for S3");
                    sleep(RETRY_INTERVAL).await;
                }
            }
        }
        // Whatever they come to: a connection that is not warm now is opened when it is needed.
        drop(join_all((0..WARM_CONNECTIONS).map(|_| inner.look())).await);
        Ok(store)
    }
}

impl Inner {
    /// The cheapest question that tells whether the bucket can be used: unlike a HEAD, its answer
    /// says what is wrong.
    async fn look(&self) -> Result<(), Failure> {
        let list = self.client.list_objects_v2().bucket(&self.location.bucket);
        let list = list.prefix(&self.location.prefix).max_keys(1).send();
        match within(0, list).await? {
            Ok(_) => Ok(()),
            Err(error) => match (status(&error), Failure::of(&error)) {
                (Some(301), Failure::Refused { message, .. }) => {
                    Err(Failure::Refused { code: "PermanentRedirect".to_owned(), message })
                }
                (_, failure) => Err(failure),
            },
        }
    }

    async fn create_bucket(&self) -> Result<(), String> {
        let region = self.client.config().region().map(ToString::to_string).unwrap_or_default();
        // The oldest region must not be named.
        let constraint = (region != "us-east-1").then(|| {
            CreateBucketConfiguration::builder()
                .location_constraint(BucketLocationConstraint::from(region.as_str()))
                .build()
        });
        let create = self.client.create_bucket().bucket(&self.location.bucket);
        let create = create.set_create_bucket_configuration(constraint).send();
        match within(0, create).await.map_err(|_| "it can't be created: no answer".to_owned())? {
            Ok(_) => {
                tracing::info!(bucket = self.location.bucket, region, "bucket created");
                Ok(())
            }
            Err(error) => match Failure::of(&error) {
                // Another broker was quicker, or it is somebody else's, which the next look shows.
                Failure::Refused { code, .. } if code.starts_with("BucketAlready") => Ok(()),
                Failure::Refused { message, .. } => Err(format!("it can't be created: {message}")),
                // Asked again after the next look.
                Failure::Throttled(_) | Failure::Unknown(_) => Ok(()),
            },
        }
    }
}
