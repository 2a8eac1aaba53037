//! Metrics: what a broker shows of itself to whoever watches it, for Prometheus and what reads its
//! format.
//!
//! Owns what is counted of requests and connections. What the engine counts is
//! `odradek_storage::counts`, how much there is of everything its state says; both are read when
//! the [`listing`] is asked for. There is no registry: a broker is one page, and several in one
//! process are several pages.

use std::collections::BTreeMap;
use std::sync::{Mutex, PoisonError};
use std::time::Duration;

use odradek_protocol::api::{self, APIS};
use odradek_protocol::response::Response;
use odradek_storage::counts::{Count, Durations};

mod errors;
pub(crate) mod listener;
mod listing;
mod page;

/// What a broker counts of those who talk to it.
#[derive(Debug)]
pub(crate) struct Metrics {
    /// By API key.
    requests: BTreeMap<i16, Requests>,
    /// Connections that were accepted, and those of them that have ended.
    pub(crate) connections_opened: Count,
    pub(crate) connections_closed: Count,
    /// Record batches that were handed to the writer.
    pub(crate) bytes_in: Count,
    /// Their records.
    pub(crate) records_in: Count,
    /// Record batches that were sent to consumers.
    bytes_out: Count,
}

/// The requests of one API.
#[derive(Debug, Default)]
struct Requests {
    /// From the end of its frame to the beginning of its response, with what it waited for.
    took: Durations,
    /// Error codes in responses, and how often.
    errors: Mutex<BTreeMap<i16, u64>>,
}

impl Default for Metrics {
    fn default() -> Self {
        let requests = APIS.iter().map(|row| (api::number(row.key), Requests::default()));
        Self {
            requests: requests.collect(),
            connections_opened: Count::default(),
            connections_closed: Count::default(),
            bytes_in: Count::default(),
            records_in: Count::default(),
            bytes_out: Count::default(),
        }
    }
}

impl Metrics {
    /// Counts a request that was carried out, and the errors in its response, if it has one.
    pub(crate) fn carried_out(&self, api: i16, took: Duration, response: Option<&Response>) {
        let Some(requests) = self.requests.get(&api) else { return };
        requests.took.add(took);
        let Some(response) = response else { return };
        if let Response::Fetch(response) = response {
            let partitions = response.topics.iter().flat_map(|topic| &topic.partitions);
            self.bytes_out.add_len(partitions.map(|it| it.records_bytes()).sum());
        }
        errors::each(response, |code| {
            let mut errors = requests.errors.lock().unwrap_or_else(PoisonError::into_inner);
            *errors.entry(code).or_default() += 1;
        });
    }
}
