//! What can be told to a proxy over HTTP, on the port it listens on.
//!
//! `PUT /__proxy/faults` replaces all faults, `GET` shows them; `GET /__proxy/counts` shows the
//! counts, `DELETE` begins to count anew. Works during an outage, too.

use bytes::Bytes;
use hyper::{Method, Response};
use serde::Serialize;

use super::operation::answer;
use super::{Faults, Proxy};

/// What the path of a command begins with. No bucket can have this name.
pub(super) const PREFIX: &str = "/__proxy/";

/// Obeys one command: `path` is what follows the prefix.
pub(super) fn obey(proxy: &Proxy, method: &Method, path: &str, body: &[u8]) -> Response<Bytes> {
    match (method, path) {
        (&Method::PUT, "faults") => {
            let set = serde_json::from_slice::<Faults>(body)
                .map_err(|error| error.to_string())
                .and_then(|faults| proxy.set_faults(faults));
            match set {
                Ok(()) => json(&*proxy.faults.borrow()),
                Err(reason) => answer(400, "text/plain", reason),
            }
        }
        (&Method::GET, "faults") => json(&*proxy.faults.borrow()),
        (&Method::GET, "counts") => json(&proxy.meter.counts()),
        (&Method::DELETE, "counts") => {
            proxy.meter.reset();
            json(&proxy.meter.counts())
        }
        _ => answer(404, "text/plain", format_args!("no command {method} {path}")),
    }
}

fn json(value: &impl Serialize) -> Response<Bytes> {
    let text = serde_json::to_string(value).expect("names and numbers");
    answer(200, "application/json", text)
}
