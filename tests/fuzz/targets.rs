//! The targets: what reads bytes that others wrote, each as a plain function of these bytes.
//!
//! A target panics if a promise is broken: that nothing panics, that memory and work stay in
//! proportion to the input ([`oracle`]), that what is read and written again is read the same. What
//! checksums guard is sealed by the target, so that mutations get past them.

mod entries;
mod fetch_response;
mod file_log;
mod frames;
mod input;
pub(crate) mod oracle;
mod records;
mod requests;
mod samples;
mod segments;
mod state;
mod texts;

/// A target.
pub(crate) struct Target {
    /// Its name, which is the name of its folder of inputs.
    pub(crate) name: &'static str,
    /// Reads an input.
    pub(crate) run: fn(&[u8]),
    /// Inputs to begin with, made of what is really written.
    pub(crate) seeds: fn() -> Vec<Vec<u8>>,
}

const fn target(name: &'static str, run: fn(&[u8]), seeds: fn() -> Vec<Vec<u8>>) -> Target {
    Target { name, run, seeds }
}

/// All of them.
pub(crate) const TARGETS: &[Target] = &[
    target("frames", frames::run, frames::seeds),
    target("requests", requests::run, requests::seeds),
    target("fetch_response", fetch_response::run, fetch_response::seeds),
    target("records", records::run, records::seeds),
    target("gzip", records::gzip, records::gzip_seeds),
    target("snappy", records::snappy, records::snappy_seeds),
    target("lz4", records::lz4, records::lz4_seeds),
    target("zstd", records::zstd, records::zstd_seeds),
    target("envelope", entries::envelope, entries::envelope_seeds),
    target("entry", entries::run, entries::seeds),
    target("peer_message", entries::peer_message, entries::peer_message_seeds),
    target("peer_answer", entries::peer_answer, entries::peer_answer_seeds),
    target("segment_footer", segments::footer, segments::footer_seeds),
    target("segment_block", segments::block, segments::block_seeds),
    target("state", state::run, state::seeds),
    target("snapshot", state::snapshot, state::snapshot_seeds),
    target("file_log", file_log::run, file_log::seeds),
    target("subscription", texts::subscription, texts::subscription_seeds),
    target("regex", texts::regex, texts::regex_seeds),
    target("settings", texts::settings, texts::settings_seeds),
    target("names", texts::names, texts::names_seeds),
];
