//! What a request asks for, and how its service says no.
//!
//! Owns the names of the operations and the wire form of the errors that the proxy makes up. Knows
//! nothing of when they are made up (see `faults`).

use std::borrow::Cow;
use std::fmt;

use bytes::Bytes;
use hyper::header::{CONTENT_LENGTH, CONTENT_TYPE, HeaderValue};
use hyper::http::request::Parts;
use hyper::{Method, Response, StatusCode};
use serde_json::json;

/// Where the types of DynamoDB's errors live.
const DYNAMODB_TYPES: &str = "com.amazonaws.dynamodb.v20120810";

/// The protocol that a request speaks.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Service {
    /// XML, the operation in method, path and query.
    S3,
    /// JSON, the operation in `X-Amz-Target`.
    DynamoDb,
}

/// What a request asks for, by the name that the documentation of its service uses.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Operation {
    /// The service asked.
    pub(super) service: Service,
    /// For instance `PutItem`; `Other` where we know none.
    pub(super) name: Cow<'static, str>,
}

impl Operation {
    /// Tells the operation from the head of a request. S3 requests must be path-style.
    pub(super) fn of(head: &Parts) -> Self {
        let target = head.headers.get("x-amz-target").and_then(|value| value.to_str().ok());
        match target {
            Some(target) => {
                let name = target.rsplit_once('.').map_or(target, |(_, name)| name);
                Self { service: Service::DynamoDb, name: Cow::Owned(name.to_owned()) }
            }
            None => Self { service: Service::S3, name: Cow::Borrowed(s3_name(head)) },
        }
    }
}

fn s3_name(head: &Parts) -> &'static str {
    let path = head.uri.path().strip_prefix('/').unwrap_or_default();
    let (bucket, key) = path.split_once('/').unwrap_or((path, ""));
    let query = head.uri.query().unwrap_or_default();
    let asks = |name: &str| {
        query.split('&').any(|pair| pair.split_once('=').map_or(pair, |(key, _)| key) == name)
    };
    match (&head.method, bucket.is_empty(), key.is_empty()) {
        (&Method::GET, true, _) => "ListBuckets",
        (&Method::GET, false, true) if query.split('&').any(|pair| pair == "list-type=2") => {
            "ListObjectsV2"
        }
        (&Method::HEAD, false, true) => "HeadBucket",
        (&Method::PUT, false, true) if query.is_empty() || asks("x-id") => "CreateBucket",
        (&Method::POST, false, true) if asks("delete") => "DeleteObjects",
        (&Method::PUT, false, false) if asks("partNumber") => "UploadPart",
        (&Method::PUT, false, false) if head.headers.contains_key("x-amz-copy-source") => {
            "CopyObject"
        }
        (&Method::PUT, false, false) => "PutObject",
        (&Method::GET, false, false) => "GetObject",
        (&Method::HEAD, false, false) => "HeadObject",
        (&Method::DELETE, false, false) if asks("uploadId") => "AbortMultipartUpload",
        (&Method::DELETE, false, false) => "DeleteObject",
        (&Method::POST, false, false) if asks("uploads") => "CreateMultipartUpload",
        (&Method::POST, false, false) if asks("uploadId") => "CompleteMultipartUpload",
        _ => "Other",
    }
}

/// An error that a service under stress answers with.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Refusal {
    /// "We encountered an internal error."
    InternalError,
    /// "Slow down."
    Throttled,
    /// "A conflicting operation occurred."
    Conflict,
    /// "There is no such thing."
    NotFound,
}

impl Refusal {
    /// The error as a client of the service expects it, which asked with `method`.
    pub(super) fn answer(self, service: Service, method: &Method) -> Response<Bytes> {
        match (service, self) {
            (Service::S3, Self::InternalError) => {
                xml(500, "InternalError", "We encountered an internal error.", method)
            }
            (Service::S3, Self::Throttled) => {
                xml(503, "SlowDown", "Please reduce your request rate.", method)
            }
            (Service::S3, Self::Conflict) => xml(
                409,
                "ConditionalRequestConflict",
                "The conditional request cannot succeed due to a conflicting operation.",
                method,
            ),
            (Service::S3, Self::NotFound) => {
                xml(404, "NoSuchKey", "The specified key does not exist.", method)
            }
            (Service::DynamoDb, Self::Conflict) => {
                typed(400, "TransactionConflictException", "Transaction is ongoing for the item.")
            }
            (Service::DynamoDb, Self::NotFound) => {
                typed(400, "ResourceNotFoundException", "Requested resource not found.")
            }
            (Service::DynamoDb, Self::InternalError) => {
                typed(500, "InternalServerError", "The request could not be processed.")
            }
            (Service::DynamoDb, Self::Throttled) => {
                typed(400, "ProvisionedThroughputExceededException", "Throughput exceeded.")
            }
        }
    }
}

fn xml(status: u16, code: &str, message: &str, method: &Method) -> Response<Bytes> {
    let mut reply = answer(
        status,
        "application/xml",
        format!(
            "<?xml version=\"1.0\" encoding=\"UTF-8\"?>\n<Error><Code>{code}</Code>\
             <Message>{message}</Message><RequestId>fault-proxy</RequestId></Error>"
        ),
    );
    if method == Method::HEAD {
        *reply.body_mut() = Bytes::new();
    }
    reply
}

fn typed(status: u16, name: &str, message: &str) -> Response<Bytes> {
    let body = json!({ "__type": format!("{DYNAMODB_TYPES}#{name}"), "message": message });
    answer(status, "application/x-amz-json-1.0", body.to_string())
}

/// A whole reply that the proxy makes itself.
pub(super) fn answer(
    status: u16,
    content_type: &'static str,
    body: impl fmt::Display,
) -> Response<Bytes> {
    let body = Bytes::from(body.to_string());
    let mut reply = Response::new(Bytes::new());
    *reply.status_mut() = StatusCode::from_u16(status).expect("a status of ours");
    let headers = reply.headers_mut();
    headers.insert(CONTENT_TYPE, HeaderValue::from_static(content_type));
    headers.insert(CONTENT_LENGTH, HeaderValue::from(body.len()));
    *reply.body_mut() = body;
    reply
}
