//! The conformance suites of both ports.

use std::num::NonZeroUsize;
use std::sync::atomic::{AtomicU64, Ordering};

use async_trait::async_trait;
use bytes::Bytes;
use odradek_storage::location::{open_dynamodb, open_s3};
use odradek_storage::log::dynamodb::DynamoDbLog;
use odradek_storage::log::{self, Append, Freshness, LogRead, Lsn, MetadataLog};
use odradek_storage::object::s3::S3ObjectStore;
use odradek_storage::object::{self};
use odradek_storage::port::PortError;
use rand::TryRngCore;
use rand::rngs::OsRng;

use odradek_tests::servers::Server;

static NEXT: AtomicU64 = AtomicU64::new(0);

/// A name that no other suite has, on this or another machine.
fn fresh_name() -> String {
    let random = OsRng.try_next_u64().unwrap();
    format!("conformance-{random:016x}-{}", NEXT.fetch_add(1, Ordering::Relaxed))
}

/// A log whose clones know nothing of each other, as those of several brokers.
#[derive(Debug)]
struct Apart(DynamoDbLog);

impl Clone for Apart {
    fn clone(&self) -> Self {
        Self(self.0.apart(self.0.name()))
    }
}

#[async_trait]
impl MetadataLog for Apart {
    async fn append(&self, at: Lsn, bytes: Bytes) -> Result<Append, PortError> {
        self.0.append(at, bytes).await
    }

    async fn read(
        &self,
        from: Lsn,
        limit: NonZeroUsize,
        freshness: Freshness,
    ) -> Result<LogRead, PortError> {
        self.0.read(from, limit, freshness).await
    }

    async fn tail(&self) -> Result<Lsn, PortError> {
        self.0.tail().await
    }

    async fn trim(&self, before: Lsn) -> Result<(), PortError> {
        self.0.trim(before).await
    }
}

async fn check_store(url: &str) {
    let store: S3ObjectStore = open_s3(url).await.unwrap();
    object::conformance::check(|| store.at_prefix(&fresh_name())).await;
    object::conformance::check_despite_faults(store.at_prefix(&fresh_name()), || async {}).await;
}

async fn check_log(url: &str) {
    let table = open_dynamodb(url, "conformance").await.unwrap();
    log::conformance::check(|| Apart(table.apart(&fresh_name()))).await;
    log::conformance::check_despite_faults(Apart(table.apart(&fresh_name()))).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn s3_is_an_object_store() {
    let minio = Server::minio().await;
    check_store(&format!("s3://conformance?{}", minio.options())).await;
    if let Ok(url) = std::env::var("AWS_STORE") {
        check_store(&url).await;
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn dynamodb_is_a_metadata_log() {
    let dynamodb = Server::dynamodb().await;
    check_log(&format!("dynamodb://conformance?{}", dynamodb.options())).await;
    if let Ok(url) = std::env::var("AWS_LOG") {
        check_log(&url).await;
    }
}

/// The tail is found without any order of keys, wherever it is.
#[tokio::test(flavor = "multi_thread")]
async fn the_tail_is_found_from_any_floor() {
    let dynamodb = Server::dynamodb().await;
    let url = format!("dynamodb://tails?{}", dynamodb.options());
    let log = open_dynamodb(&url, "tail").await.unwrap();
    for number in 1..=420 {
        let at = Lsn::new(number);
        assert_eq!(log.append(at, Bytes::from_static(b"x")).await.unwrap(), Append::Committed);
        if [1, 2, 3, 4, 99, 100, 101, 128, 256, 257, 300, 420].contains(&number) {
            assert_eq!(log.apart("tail").tail().await.unwrap(), at.next());
        }
        if number == 150 {
            log.trim(Lsn::new(120)).await.unwrap();
        }
    }
    log.trim(Lsn::new(421)).await.unwrap();
    assert_eq!(log.apart("tail").tail().await.unwrap(), Lsn::new(421));
}
