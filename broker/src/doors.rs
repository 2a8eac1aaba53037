//! Doors for tests: what of this crate reads the bytes and texts of strangers, without a broker
//! around it.

use bytes::Bytes;
use odradek_protocol::frame::read_header;
use odradek_protocol::request::Request;

use crate::branches;
use crate::config;
use crate::configs::validate;
use crate::group::consumer::check_regex;
use crate::group::offsets::topics_of;
use crate::handlers::produce;
use crate::resources::tables;
use crate::topics::is_legal_name;

/// How many batches of a Produce request, a frame without its length, are taken by topics that take
/// the most; none if it is no such request.
pub fn taken_batches(mut frame: Bytes) -> Option<usize> {
    let header = read_header(&mut frame).ok()?;
    match Request::decode(&header, frame) {
        Ok(Request::Produce(request)) => Some(produce::taken(header.version, &request)),
        _ => None,
    }
}

/// The topics that the metadata of a member of a classic group names, if it is a consumer's.
pub fn subscribed_topics(metadata: Bytes) -> Option<Vec<String>> {
    topics_of(metadata)
}

/// Whether a group takes this expression for its topics; if not, why.
pub fn subscribed_regex(text: &str) -> Result<(), String> {
    check_regex(text)
}

/// Whether the settings in a file of this content would be taken; if not, why.
pub fn settings(file: &str) -> Result<(), String> {
    config::check_file(file)
}

/// Whether `odradek.branch.at` takes this value; if not, why.
pub fn branch_point(at: &str) -> Result<(), String> {
    branches::check_point(at)
}

/// The values that the configs of this name take from this text, each in the form that is kept.
pub fn config_values(name: &str, value: &str) -> Vec<Result<String, String>> {
    tables().into_iter().map(|table| validate(table, name, Some(value))).collect()
}

/// The names of all configs.
pub fn config_names() -> Vec<&'static str> {
    tables().into_iter().flatten().map(|definition| definition.name).collect()
}

/// Whether a topic may have this name.
pub fn is_topic_name(name: &str) -> bool {
    is_legal_name(name)
}
