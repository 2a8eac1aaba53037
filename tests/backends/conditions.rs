//! What users hear of buckets and tables that can't be used.

use odradek_storage::location::{open_log, open_object_store};

use odradek_tests::servers::Server;

#[tokio::test(flavor = "multi_thread")]
async fn a_bucket_or_table_that_is_missing_is_not_made_unless_wanted() {
    let (minio, dynamodb) = (Server::minio().await, Server::dynamodb().await);
    let without = |server: &Server| server.options().replace("create=true", "create=false");
    let store = |options: String| format!("s3://missing?{options}");
    let error = open_object_store(&store(without(&minio))).await.unwrap_err().to_string();
    assert!(error.contains("there is no such bucket: create it, or add ?create=true"), "{error}");
    let log = |options: String| format!("dynamodb://missing?{options}");
    let error = open_log(&log(without(&dynamodb)), "x").await.unwrap_err().to_string();
    assert!(error.contains("there is no such table in region us-east-1"), "{error}");
    open_object_store(&store(minio.options())).await.unwrap();
    open_object_store(&store(without(&minio))).await.unwrap();
    open_log(&log(dynamodb.options()), "x").await.unwrap();
    assert!(!open_log(&log(without(&dynamodb)), "x").await.unwrap().exclusive);
}
