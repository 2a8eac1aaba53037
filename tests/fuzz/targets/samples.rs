//! Bytes as they are really written.

use std::fs;
use std::path::Path;

use bytes::{BufMut, Bytes, BytesMut};
use kafka_protocol::messages::{ApiKey, RequestHeader};
use kafka_protocol::protocol::Encodable;

/// A request with its header, without its length.
pub(crate) fn request(key: ApiKey, version: i16, body: &[u8]) -> Vec<u8> {
    let header = RequestHeader::default()
        .with_request_api_key(odradek_protocol::api::number(key))
        .with_request_api_version(version)
        .with_correlation_id(7)
        .with_client_id(Some("fuzz".into()));
    let mut frame = BytesMut::new();
    header.encode(&mut frame, key.request_header_version(version)).unwrap();
    frame.put_slice(body);
    frame.to_vec()
}

/// A sample of a stored format, as the storage crate keeps it.
pub(crate) fn golden(name: &str) -> Bytes {
    let tests = Path::new(env!("CARGO_MANIFEST_DIR"));
    // This file belongs to two packages, one in a folder of the other.
    let root = tests.ancestors().find(|folder| folder.join("storage/golden").is_dir()).unwrap();
    fs::read(root.join("storage/golden").join(name)).unwrap().into()
}
