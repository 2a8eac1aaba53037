//! Texts of users and clients: configurations, names, subscriptions.

use std::hint::black_box;

use bytes::Bytes;
use kafka_protocol::messages::ConsumerProtocolSubscription;
use kafka_protocol::protocol::Decodable;
use odradek::doors;
use odradek_storage::key::ObjectKey;
use odradek_storage::location::puts_are_charged;
use odradek_storage::segment::SegmentId;
use odradek_storage::snapshot::{snapshot_key, snapshot_lsn};

use super::oracle::{bounded, bounded_with};

/// The metadata of a member of a classic group; what both understand, the message decoder
/// understands the same.
pub(crate) fn subscription(data: &[u8]) {
    let metadata = Bytes::copy_from_slice(data);
    // A topic takes two bytes at least, and a text three words.
    let more = 24 * u64::try_from(data.len()).unwrap();
    let topics = bounded_with(data.len(), more, || doors::subscribed_topics(metadata.clone()));
    let Some(topics) = topics else { return };
    let mut rest = metadata.slice(2..);
    // The other decoder believes a negative count to be none as well.
    if let Ok(other) = ConsumerProtocolSubscription::decode(&mut rest, 0) {
        let other: Vec<&str> = other.topics.iter().map(|topic| &**topic).collect();
        assert_eq!(topics, other);
    }
}

pub(crate) fn subscription_seeds() -> Vec<Vec<u8>> {
    let seeds: [&[u8]; 4] = [
        b"\0\x03\0\0\0\x02\0\x01a\0\x02bc\xff\xff\xff\xff",
        b"\0\x01\0\0\0\x01\0\x06orders\0\0\0\0\0\0\0\x01\0\x06orders\0\0\0\x01\0\0\0\0",
        b"\0\0\x7f\xff\xff\xff\0\0",
        b"\0\0\0\0\0\0",
    ];
    seeds.map(<[u8]>::to_vec).to_vec()
}

pub(crate) fn regex(data: &[u8]) {
    let Ok(text) = str::from_utf8(data) else { return };
    // The compiler is told a limit of its own for what it makes, and works within a small multiple.
    let compiled = bounded_with(100 * data.len(), 64 << 20, || doors::subscribed_regex(text));
    if let Err(why) = compiled {
        assert!(!why.is_empty());
    }
}

pub(crate) fn regex_seeds() -> Vec<Vec<u8>> {
    let seeds = [
        "foo.*",
        "^foo-[0-9]+$",
        r"\Qa.b\E.*",
        "[[:alpha:]_]+",
        "[[a]",
        "[a&&b]",
        "[^]a]",
        "x{2}?",
        "x**",
        "(?i)FOO|bar",
        "((a{100}){100}){100}",
        r"\w+\pL",
        "(?<a>x)",
        "[[:[:[:",
        "{{{{{",
    ];
    seeds.map(|text| text.as_bytes().to_vec()).to_vec()
}

pub(crate) fn settings(data: &[u8]) {
    let Ok(text) = str::from_utf8(data) else { return };
    // A file is read once, by whoever may write it: a tree of its lines is no harm.
    let taken = bounded_with(data.len(), 1_000 * u64::try_from(data.len()).unwrap(), || {
        doors::settings(text)
    });
    if let Err(why) = taken {
        assert!(!why.is_empty() && !why.contains('\n'), "{why:?}");
    }
}

pub(crate) fn settings_seeds() -> Vec<Vec<u8>> {
    let seeds = [
        "listen = \"127.0.0.1:9092\"\ndata = \"./d\"\nmemory = 1048576\n",
        "listen = \"[::1]:9092\"\nadvertise = \"a:1\"\nzone = \"b\"\npeer-address = \"h:2\"\n",
        "zone-listen = \"a=0.0.0.0:1,b=0.0.0.0:2\"\nzone-advertise = \"a=h:3\"\nlinger-ms = 5\n",
        "store = \"s3://b/p?region=x&endpoint=http://h:1\"\nlog = \"dynamodb://t?region=x\"\n",
        "cluster = \"c-1\"\nrequest-bytes-max = 1024\nsegment-bytes-max = 1024\nlog-level = \"a\"",
    ];
    seeds.map(|text| text.as_bytes().to_vec()).to_vec()
}

/// Whatever else is a short text: names, keys, values of configs, locations.
pub(crate) fn names(data: &[u8]) {
    let Ok(text) = str::from_utf8(data) else { return };
    bounded(data.len(), || {
        drop(doors::branch_point(text));
        black_box((doors::is_topic_name(text), puts_are_charged(text)));
    });
    let (name, value) = text.split_once('=').unwrap_or((text, ""));
    for taken in doors::config_values(name, value).into_iter().flatten() {
        let again = doors::config_values(name, &taken);
        assert!(again.contains(&Ok(taken)), "{name} = {value:?}: what is kept would be refused");
    }
    let Ok(key) = ObjectKey::new(text) else { return };
    if let Some(segment) = SegmentId::from_key(&key) {
        assert_eq!(segment.key(), key);
    }
    black_box(snapshot_lsn(&key));
}

pub(crate) fn names_seeds() -> Vec<Vec<u8>> {
    let mut seeds: Vec<String> = [
        "orders",
        "now",
        "12",
        "0:12, 3:40",
        "1970-01-01T01:00:00+01:00",
        "memory:",
        "file:/tmp/x",
        "s3://bucket/prefix?region=eu-central-1&endpoint=http://127.0.0.1:9000",
        "segment/46/0000000000000003-feed000000000001-00000001",
    ]
    .map(str::to_owned)
    .to_vec();
    let key = snapshot_key(odradek_storage::lsn::Lsn::new(7), odradek_storage::command::Digest(9));
    seeds.push(key.as_str().to_owned());
    seeds.extend(doors::config_names().iter().flat_map(|name| {
        ["-1", "true", "0.5", "compact,delete", "1048576"].map(|value| format!("{name}={value}"))
    }));
    seeds.into_iter().map(String::into_bytes).collect()
}
