//! The Fetch response, written by hand: the one response that is large.
//!
//! The message encoder would copy every record into one buffer. Here the frame is a list of parts,
//! in which record batches stand as they came from memory or from the store.

use bytes::{BufMut, Bytes, BytesMut};
use uuid::Uuid;

use crate::frame::{begin_response, put_length};
use crate::messages::ApiKey;

/// The first flexible version.
const FLEXIBLE: i16 = 12;

/// A Fetch response, versions 4 to 18.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct FetchResponse {
    /// How long the client is to hold back, in milliseconds.
    pub throttle_time_ms: i32,
    /// Error of the whole response.
    pub error_code: i16,
    /// Fetch session, 0 for none (KIP-227).
    pub session_id: i32,
    /// Topics in the order of the request.
    pub topics: Vec<FetchedTopic>,
}

/// A topic in a Fetch response.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct FetchedTopic {
    /// Its name, for versions up to 12.
    pub name: String,
    /// Its id, for versions from 13 on.
    pub id: Uuid,
    /// Its partitions.
    pub partitions: Vec<FetchedPartition>,
}

/// A partition in a Fetch response.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct FetchedPartition {
    /// Which.
    pub index: i32,
    /// Error of the partition.
    pub error_code: i16,
    /// High watermark, -1 if unknown.
    pub high_watermark: i64,
    /// Last stable offset, -1 if unknown.
    pub last_stable_offset: i64,
    /// Log start offset, -1 if unknown.
    pub log_start_offset: i64,
    /// Producer and first offset of transactions that were aborted, for read_committed consumers.
    pub aborted_transactions: Option<Vec<(i64, i64)>>,
    /// The broker that the client should rather ask, -1 if it is this one (KIP-392).
    pub preferred_read_replica: i32,
    /// Whole batches, in parts.
    pub records: Vec<Bytes>,
}

impl FetchedPartition {
    /// A partition of which nothing is known but an error.
    pub fn failed(index: i32, error_code: i16) -> Self {
        Self {
            index,
            error_code,
            high_watermark: -1,
            last_stable_offset: -1,
            log_start_offset: -1,
            aborted_transactions: None,
            preferred_read_replica: -1,
            records: Vec::new(),
        }
    }

    /// Bytes of records.
    pub fn records_bytes(&self) -> usize {
        self.records.iter().map(Bytes::len).sum()
    }
}

impl FetchResponse {
    /// Bytes of records in all.
    pub fn records_bytes(&self) -> usize {
        let partitions = self.topics.iter().flat_map(|topic| &topic.partitions);
        partitions.map(FetchedPartition::records_bytes).sum()
    }

    /// The frame in parts.
    pub fn encode(&self, version: i16, correlation_id: i32) -> Vec<Bytes> {
        let open = begin_response(ApiKey::Fetch, version, correlation_id);
        let mut writer = Writer { first: None, rest: Vec::new(), open, version };
        writer.response(self);
        writer.finish()
    }
}

struct Writer {
    /// The part that begins with the frame's length, which is known last.
    first: Option<BytesMut>,
    rest: Vec<Bytes>,
    open: BytesMut,
    version: i16,
}

impl Writer {
    fn response(&mut self, response: &FetchResponse) {
        self.open.put_i32(response.throttle_time_ms);
        if self.version >= 7 {
            self.open.put_i16(response.error_code);
            self.open.put_i32(response.session_id);
        }
        self.count(response.topics.len());
        for topic in &response.topics {
            self.topic(topic);
        }
        self.no_tags();
    }

    fn topic(&mut self, topic: &FetchedTopic) {
        if self.version >= 13 {
            self.open.put_slice(topic.id.as_bytes());
        } else if self.version >= FLEXIBLE {
            self.varint(topic.name.len() + 1);
            self.open.put_slice(topic.name.as_bytes());
        } else {
            self.open.put_i16(i16::try_from(topic.name.len()).unwrap_or(i16::MAX));
            self.open.put_slice(topic.name.as_bytes());
        }
        self.count(topic.partitions.len());
        for partition in &topic.partitions {
            self.partition(partition);
        }
        self.no_tags();
    }

    fn partition(&mut self, partition: &FetchedPartition) {
        self.open.put_i32(partition.index);
        self.open.put_i16(partition.error_code);
        self.open.put_i64(partition.high_watermark);
        self.open.put_i64(partition.last_stable_offset);
        if self.version >= 5 {
            self.open.put_i64(partition.log_start_offset);
        }
        match &partition.aborted_transactions {
            Some(aborted) => {
                self.count(aborted.len());
                for (producer, first_offset) in aborted {
                    self.open.put_i64(*producer);
                    self.open.put_i64(*first_offset);
                    self.no_tags();
                }
            }
            None if self.version >= FLEXIBLE => self.open.put_u8(0),
            None => self.open.put_i32(-1),
        }
        if self.version >= 11 {
            self.open.put_i32(partition.preferred_read_replica);
        }
        let bytes = partition.records_bytes();
        if self.version >= FLEXIBLE {
            self.varint(bytes + 1);
        } else {
            self.open.put_i32(i32::try_from(bytes).unwrap_or(i32::MAX));
        }
        partition.records.iter().for_each(|part| self.part(part));
        self.no_tags();
    }

    fn part(&mut self, part: &Bytes) {
        let done = self.open.split();
        match self.first {
            None => self.first = Some(done),
            Some(_) if done.is_empty() => {}
            Some(_) => self.rest.push(done.freeze()),
        }
        self.rest.push(part.clone());
    }

    fn count(&mut self, count: usize) {
        if self.version >= FLEXIBLE {
            self.varint(count + 1);
        } else {
            self.open.put_i32(i32::try_from(count).unwrap_or(i32::MAX));
        }
    }

    fn varint(&mut self, value: usize) {
        let mut value = value;
        while value >= 0x80 {
            let low = u8::try_from(value & 0x7f).unwrap_or(0);
            self.open.put_u8(low | 0x80);
            value >>= 7;
        }
        self.open.put_u8(u8::try_from(value).unwrap_or(0));
    }

    fn no_tags(&mut self) {
        if self.version >= FLEXIBLE {
            self.open.put_u8(0);
        }
    }

    fn finish(self) -> Vec<Bytes> {
        let Self { first, mut rest, open, .. } = self;
        let mut first = match first {
            None => open,
            Some(first) => {
                if !open.is_empty() {
                    rest.push(open.freeze());
                }
                first
            }
        };
        put_length(&mut first, rest.iter().map(Bytes::len).sum());
        let mut parts = Vec::with_capacity(rest.len() + 1);
        parts.push(first.freeze());
        parts.append(&mut rest);
        parts
    }
}

#[cfg(test)]
mod tests;
