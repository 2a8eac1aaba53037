//! Both ports over real servers: MinIO, whose conditional writes are atomic, and DynamoDB Local.
//!
//! Built with the feature `servers` only, because it needs programs that cargo does not bring:
//! `MINIO_BIN` names MinIO's binary, `DYNAMODB_LIBS` the folder with the jars of DynamoDB Local.
//! `tests/run backends` installs both. With `AWS_STORE=s3://...` and `AWS_LOG=dynamodb://...` the
//! same suites run against AWS itself too, under names of their own that they delete again.

#![allow(clippy::unwrap_used, reason = "a test fails by panicking")]

mod conditions;
mod suites;
mod trims;
