//! What the requests amount to, and what DynamoDB would charge for them.
//!
//! Owns the counts. Sizes of items are those of the documentation: names and values in bytes, a
//! number as one byte for two digits and one more, 3 for a list or map and 1 for each element.

use std::collections::BTreeMap;
use std::sync::{Mutex, PoisonError};

use bytes::Bytes;
use hyper::{Response, StatusCode};
use serde::{Deserialize, Serialize};
use serde_json::{Map, Value};

use super::operation::{Operation, Service};

/// Bytes that a write unit pays for.
const WRITE_UNIT_BYTES: usize = 1 << 10;

/// Bytes that a read unit pays for.
const READ_UNIT_BYTES: usize = 4 << 10;

/// Bytes that a list or a map takes by itself.
const CONTAINER_BYTES: usize = 3;

/// What the requests of one operation amount to.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
pub struct Count {
    /// Requests read whole from clients.
    pub requests: u64,
    /// Bytes in the bodies of those requests.
    pub request_bytes: u64,
    /// How many of them met a fault, a delay included.
    pub faults: u64,
    /// Requests that the upstream answered: late and duplicate ones included.
    pub delivered: u64,
    /// Bytes in the bodies of the upstream's replies.
    pub reply_bytes: u64,
    /// Write units of DynamoDB for what was delivered, failed conditions included.
    pub write_units: f64,
    /// Read units of DynamoDB for what was delivered.
    pub read_units: f64,
}

/// The counts since the start, or since they were last reset.
#[derive(Debug, Default)]
pub(super) struct Meter {
    counts: Mutex<BTreeMap<String, Count>>,
}

impl Meter {
    /// A request of `bytes` arrived; `faulty` if something goes wrong with it.
    pub(super) fn arrived(&self, operation: &Operation, bytes: usize, faulty: bool) {
        self.update(operation, |count| {
            count.requests += 1;
            count.request_bytes += wide(bytes);
            count.faults += u64::from(faulty);
        });
    }

    /// The upstream answered a request.
    pub(super) fn answered(&self, operation: &Operation, request: &[u8], reply: &Response<Bytes>) {
        let units = match operation.service {
            Service::S3 => Units::default(),
            Service::DynamoDb => Units::of(&operation.name, request, reply),
        };
        self.update(operation, |count| {
            count.delivered += 1;
            count.reply_bytes += wide(reply.body().len());
            count.write_units += units.write;
            count.read_units += units.read;
        });
    }

    pub(super) fn counts(&self) -> BTreeMap<String, Count> {
        self.counts.lock().unwrap_or_else(PoisonError::into_inner).clone()
    }

    pub(super) fn reset(&self) {
        self.counts.lock().unwrap_or_else(PoisonError::into_inner).clear();
    }

    fn update(&self, operation: &Operation, change: impl FnOnce(&mut Count)) {
        let mut counts = self.counts.lock().unwrap_or_else(PoisonError::into_inner);
        change(counts.entry(operation.name.to_string()).or_default());
    }
}

fn wide(bytes: usize) -> u64 {
    u64::try_from(bytes).expect("a length fits 64 bits")
}

/// What DynamoDB charges for one request.
#[derive(Clone, Copy, Debug, Default, PartialEq)]
struct Units {
    write: f64,
    read: f64,
}

impl Units {
    fn of(operation: &str, request: &[u8], reply: &Response<Bytes>) -> Self {
        let Ok(request) = serde_json::from_slice::<Value>(request) else {
            return Self::default();
        };
        let answer = serde_json::from_slice::<Value>(reply.body()).unwrap_or_default();
        if reply.status() != StatusCode::OK && !is_charged(&answer) {
            return Self::default();
        }
        let read = |units: usize, consistent: &Value| match consistent {
            Value::Bool(true) => number(units),
            _ => number(units) / 2.0,
        };
        let write = |units: usize| Self { write: number(units), read: 0.0 };
        match operation {
            "PutItem" | "DeleteItem" | "UpdateItem" => write(write_units(&request)),
            "BatchWriteItem" => write(batch_writes(&request, &answer)),
            "TransactWriteItems" => write(2 * transaction_writes(&request)),
            "GetItem" => {
                let units = read_units(attributes_size(&answer["Item"]));
                Self { write: 0.0, read: read(units, &request["ConsistentRead"]) }
            }
            "Query" | "Scan" => {
                let size = elements(&answer["Items"]).map(attributes_size).sum();
                Self { write: 0.0, read: read(read_units(size), &request["ConsistentRead"]) }
            }
            "BatchGetItem" => {
                let tables = fields(&request["RequestItems"]).map(|(table, asked)| {
                    let asked_for = elements(&asked["Keys"]).count();
                    let put_off = elements(&answer["UnprocessedKeys"][table]["Keys"]).count();
                    let found: Vec<usize> = elements(&answer["Responses"][table])
                        .map(|item| read_units(attributes_size(item)))
                        .collect();
                    let missing = asked_for.saturating_sub(put_off + found.len());
                    read(found.iter().sum::<usize>() + missing, &asked["ConsistentRead"])
                });
                Self { write: 0.0, read: tables.sum() }
            }
            _ => Self::default(),
        }
    }
}

/// Whether an error costs as much as a success: a condition was looked at and did not hold.
fn is_charged(answer: &Value) -> bool {
    let name = answer["__type"].as_str().unwrap_or_default();
    ["ConditionalCheckFailedException", "TransactionCanceledException"]
        .iter()
        .any(|charged| name.ends_with(charged))
}

/// The units of one write: those of what it carries, which for an update is its key and its values.
fn write_units(write: &Value) -> usize {
    let size = match &write["Item"] {
        Value::Null => {
            attributes_size(&write["Key"]) + attributes_size(&write["ExpressionAttributeValues"])
        }
        item => attributes_size(item),
    };
    size.div_ceil(WRITE_UNIT_BYTES).max(1)
}

fn batch_writes(request: &Value, answer: &Value) -> usize {
    let units = |tables: &Value| -> usize {
        fields(tables)
            .flat_map(|(_, writes)| elements(writes))
            .flat_map(|write| fields(write).map(|(_, write)| write_units(write)))
            .sum()
    };
    units(&request["RequestItems"]).saturating_sub(units(&answer["UnprocessedItems"]))
}

fn transaction_writes(request: &Value) -> usize {
    elements(&request["TransactItems"])
        .flat_map(|item| fields(item).map(|(_, write)| write_units(write)))
        .sum()
}

fn read_units(bytes: usize) -> usize {
    bytes.div_ceil(READ_UNIT_BYTES).max(1)
}

/// Bytes of an item, or of anything else that gives values to names.
fn attributes_size(attributes: &Value) -> usize {
    fields(attributes).map(|(name, value)| name.len() + value_size(value)).sum()
}

/// Bytes of one value in DynamoDB's JSON, such as `{"S": "text"}`.
fn value_size(value: &Value) -> usize {
    let scalar = |kind: &str, value: &Value| {
        let text = value.as_str().unwrap_or_default();
        match kind {
            "N" | "NS" => text.len().div_ceil(2) + 1,
            "B" | "BS" => text.trim_end_matches('=').len() * 3 / 4,
            _ => text.len(),
        }
    };
    fields(value)
        .map(|(kind, value)| match kind {
            "BOOL" | "NULL" => 1,
            "SS" | "NS" | "BS" => elements(value).map(|element| scalar(kind, element)).sum(),
            "L" => {
                CONTAINER_BYTES
                    + elements(value).map(|element| 1 + value_size(element)).sum::<usize>()
            }
            "M" => CONTAINER_BYTES + fields(value).count() + attributes_size(value),
            _ => scalar(kind, value),
        })
        .sum()
}

/// The fields of an object; of anything else, none.
fn fields(value: &Value) -> impl Iterator<Item = (&str, &Value)> {
    value.as_object().into_iter().flat_map(Map::iter).map(|(name, value)| (name.as_str(), value))
}

/// The elements of an array; of anything else, none.
fn elements(value: &Value) -> impl Iterator<Item = &Value> {
    value.as_array().into_iter().flatten()
}

fn number(units: usize) -> f64 {
    f64::from(u32::try_from(units).expect("a request of some megabytes"))
}
