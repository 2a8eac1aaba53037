//! What the S3 and the DynamoDB backend share: how they are reached, and what their failures mean.
//!
//! Every timeout, retry and hash is set here or in the backends, never left to the SDK: its
//! defaults hide a retry that makes our own write look like a lost race, wait a second before the
//! first repetition, and hash each payload twice.

use std::error::Error;
use std::time::Duration;

use aws_config::{BehaviorVersion, Region, SdkConfig};
use aws_credential_types::provider::error::CredentialsError;
use aws_sdk_s3::config::http::HttpResponse;
use aws_sdk_s3::config::retry::RetryConfig;
use aws_sdk_s3::config::timeout::TimeoutConfig;
use aws_sdk_s3::config::{SharedHttpClient, StalledStreamProtectionConfig};
use aws_sdk_s3::error::{ProvideErrorMetadata, SdkError};
use aws_smithy_http_client::Builder;
use aws_smithy_http_client::tls::Provider;
use aws_smithy_http_client::tls::rustls_provider::CryptoMode;
use rand::TryRngCore;
use rand::rngs::OsRng;

use tokio::time::timeout;

use crate::port::PortError;

pub(crate) mod skew;

/// How long a connection may take to open.
const CONNECT_MAX: Duration = Duration::from_secs(1);

/// Idle connections are kept for as long as servers usually keep theirs.
const IDLE_MAX: Duration = Duration::from_secs(60);

/// Idle connections kept to one host.
const IDLE_CONNECTIONS_MAX: usize = 64;

/// Pause before a throttled call is repeated: drawn from zero to this, doubled each time up to
/// [`PAUSE_MAX`].
const PAUSE_MIN: Duration = Duration::from_millis(25);
const PAUSE_MAX: Duration = Duration::from_secs(2);

/// Where a service is.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(crate) struct Access {
    /// Its region; without one, that of the environment.
    pub(crate) region: Option<String>,
    /// Its address, if it is not AWS's own.
    pub(crate) endpoint: Option<String>,
}

impl Access {
    /// Finds credentials and region the way every AWS tool does, and sets up connections.
    pub(crate) async fn load(&self) -> SdkConfig {
        let mut loader = aws_config::defaults(BehaviorVersion::latest())
            .http_client(http_client(self.is_plain()))
            .retry_config(RetryConfig::disabled())
            .timeout_config(TimeoutConfig::builder().connect_timeout(CONNECT_MAX).build())
            .stalled_stream_protection(StalledStreamProtectionConfig::disabled());
        if let Some(endpoint) = &self.endpoint {
            loader = loader.endpoint_url(endpoint);
        }
        if let Some(region) = &self.region {
            loader = loader.region(Region::new(region.clone()));
        }
        let config = loader.load().await;
        if config.region().is_some() || self.endpoint.is_none() {
            return config;
        }
        // A server of one's own has no regions, but a signature needs one.
        config.into_builder().region(Region::new("us-east-1")).build()
    }

    /// The address, as users know it.
    pub(crate) fn shown(&self) -> &str {
        self.endpoint.as_deref().unwrap_or("AWS")
    }

    /// Whether what is sent travels in the clear, so that only a signature protects it.
    pub(crate) fn is_plain(&self) -> bool {
        self.endpoint.as_deref().is_some_and(|endpoint| endpoint.starts_with("http://"))
    }
}

fn http_client(is_plain: bool) -> SharedHttpClient {
    let builder =
        Builder::new().pool_idle_timeout(IDLE_MAX).pool_max_idle_per_host(IDLE_CONNECTIONS_MAX);
    if is_plain {
        return builder.build_http();
    }
    builder.tls_provider(Provider::Rustls(CryptoMode::Ring)).build_https()
}

/// What became of a call, as far as its answer tells.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum Failure {
    /// The service asked to slow down and did nothing.
    Throttled(String),
    /// The service refused, and would refuse again.
    Refused {
        /// The service's word for why.
        code: String,
        /// A sentence.
        message: String,
    },
    /// The call may have taken effect, or may yet.
    Unknown(String),
}

/// Codes by which the services say "slow down". `ConditionalRequestConflict` is S3's word for two
/// conditional writes at once: whoever hears it tries again.
const THROTTLE_CODES: [&str; 9] = [
    "SlowDown",
    "SlowDownRead",
    "SlowDownWrite",
    "Throttling",
    "ThrottlingException",
    "ProvisionedThroughputExceededException",
    "RequestLimitExceeded",
    "TooManyRequestsException",
    "ConditionalRequestConflict",
];

/// A 4xx that says no more than a lost reply does: S3 got tired of waiting for the body.
const UNKNOWN_CODES: [&str; 2] = ["RequestTimeout", "OperationAborted"];

impl Failure {
    /// Sorts an error of the SDK. What can't be sorted is unknown.
    pub(crate) fn of<E>(error: &SdkError<E, HttpResponse>) -> Self
    where
        E: ProvideErrorMetadata + Error + 'static,
    {
        let SdkError::ServiceError(context) = error else { return Self::unanswered(error) };
        let status = context.raw().status().as_u16();
        let code = context.err().code().unwrap_or_default().to_owned();
        let said = context.err().message().unwrap_or_default();
        let message = match (code.as_str(), said) {
            ("", "") => {
                format!("HTTP status {status} without a word why: is that the right endpoint?")
            }
            (code, "") => code.to_owned(),
            ("", said) => said.to_owned(),
            (code, said) => format!("{code}: {said}"),
        };
        if THROTTLE_CODES.contains(&code.as_str()) || status == 429 {
            Self::Throttled(message)
        } else if status >= 500 || code.is_empty() || UNKNOWN_CODES.contains(&code.as_str()) {
            Self::Unknown(message)
        } else {
            Self::Refused { code, message }
        }
    }

    fn unanswered<E>(error: &SdkError<E, HttpResponse>) -> Self
    where
        E: Error + 'static,
    {
        let message = chain(error);
        let mut cause: Option<&(dyn Error + 'static)> = Some(error);
        while let Some(error) = cause {
            if let Some(CredentialsError::CredentialsNotLoaded(_)) = error.downcast_ref() {
                let message = "none of the usual places has any".to_owned();
                return Self::Refused { code: NO_CREDENTIALS.to_owned(), message };
            }
            cause = error.source();
        }
        match error {
            SdkError::ConstructionFailure(_) => Self::Refused { code: String::new(), message },
            _ => Self::Unknown(message),
        }
    }

    pub(crate) fn takes_too_long() -> Self {
        Self::Unknown("no answer in time".to_owned())
    }
}

/// An error and its causes, in their own words: what they say last is what went wrong.
fn chain(error: &(dyn Error + 'static)) -> String {
    let mut said = vec![error.to_string()];
    let mut cause = error.source();
    while let Some(error) = cause {
        said.push(error.to_string());
        cause = error.source();
    }
    said.dedup();
    // Some put a line for each thing they tried.
    said.join(": ").split_whitespace().collect::<Vec<_>>().join(" ")
}

/// Our own code for a call that was not sent because there is nothing to sign it with.
pub(crate) const NO_CREDENTIALS: &str = "no credentials";

impl From<Failure> for PortError {
    fn from(failure: Failure) -> Self {
        match failure {
            // Did nothing, but will: nobody may give up because of it.
            Failure::Throttled(said) => Self::indeterminate(said),
            Failure::Refused { message, .. } => Self::determinate(message),
            Failure::Unknown(said) => Self::indeterminate(said),
        }
    }
}

/// What a user who has not said which region is told.
pub(crate) const NO_REGION: &str = "no region is known: add ?region= or set AWS_REGION";

/// A refusal as a sentence, with what a user does about it where we know.
pub(crate) fn advised(code: &str, message: String) -> String {
    advice(code).map(|advice| format!("{advice} ({message})")).unwrap_or(message)
}

fn advice(code: &str) -> Option<&'static str> {
    Some(match code {
        NO_CREDENTIALS => {
            "there are no AWS credentials: set AWS_ACCESS_KEY_ID and AWS_SECRET_ACCESS_KEY or a \
             profile, or give the machine a role"
        }
        "InvalidAccessKeyId" | "UnrecognizedClientException" | "InvalidClientTokenId" => {
            "the access key is not known there: check the credentials and the region"
        }
        "SignatureDoesNotMatch" | "InvalidSignatureException" => {
            "the secret key is wrong: check the credentials"
        }
        "ExpiredToken" | "ExpiredTokenException" => "the credentials have expired: renew them",
        "AccessDenied" | "AccessDeniedException" | "AllAccessDisabled" => {
            "the credentials do not allow it: the README lists the permissions that are needed"
        }
        "RequestTimeTooSkewed" | "RequestExpired" => {
            "the clock of this machine is wrong: set it (with NTP)"
        }
        "PermanentRedirect"
        | "AuthorizationHeaderMalformed"
        | "IllegalLocationConstraintException" => {
            "it is in another region: give the right one with ?region="
        }
        _ => return None,
    })
}

/// The pauses between throttled calls.
#[derive(Debug)]
pub(crate) struct Pauses {
    longest: Duration,
}

impl Default for Pauses {
    fn default() -> Self {
        Self { longest: PAUSE_MIN }
    }
}

impl Pauses {
    /// Waits for a random time that grows with each call.
    pub(crate) async fn pause(&mut self) {
        tokio::time::sleep(self.longest.mul_f64(random_fraction())).await;
        self.longest = (self.longest * 2).min(PAUSE_MAX);
    }
}

/// Makes a call that may take so long each time, again as long as the service asks to slow down.
/// What the service said otherwise is the inner result.
pub(crate) async fn unthrottled<T, E, F>(
    limit: Duration,
    call: impl Fn() -> F,
) -> Result<Result<T, SdkError<E, HttpResponse>>, Failure>
where
    E: ProvideErrorMetadata + Error + 'static,
    F: Future<Output = Result<T, SdkError<E, HttpResponse>>>,
{
    let mut pauses = Pauses::default();
    loop {
        let answer = timeout(limit, call()).await.map_err(|_| Failure::takes_too_long())?;
        match answer.as_ref().map_err(Failure::of) {
            Err(Failure::Throttled(said)) => {
                tracing::warn!(said, "AWS asks to slow down");
                pauses.pause().await;
            }
            _ => return Ok(answer),
        }
    }
}

/// A number from zero to one that no other broker draws: this side of the ports is not simulated.
fn random_fraction() -> f64 {
    let drawn = OsRng.try_next_u32().unwrap_or(u32::MAX / 2);
    f64::from(drawn) / f64::from(u32::MAX)
}

#[cfg(test)]
mod tests;
