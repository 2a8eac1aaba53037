//! Records with keys, tombstones and names of their own, written and read by hand.
//!
//! A record's name is in a header, so that a tombstone has one as well.

use bytes::{Buf, BufMut, Bytes};
use odradek_protocol::id::ProducerId;
use odradek_storage::command::{BatchProducer, BatchSummary, BatchTransaction};
use odradek_storage::segment::builder::PendingBatch;

use crate::batches::{BatchSpec, put_varint, varint};

/// A record.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Record {
    /// What it is known by: no other has it.
    pub name: u64,
    /// Its key, in compacted topics.
    pub key: Option<u8>,
    /// Its value; none for a tombstone.
    pub value: Option<Bytes>,
    /// In milliseconds since the Unix epoch.
    pub timestamp: i64,
}

/// A batch of records, ready for the writer. `producer` is an id and a sequence number.
pub fn batch(records: &[Record], producer: Option<(i64, i32)>) -> PendingBatch {
    let (first, last) = (records[0].timestamp, records.last().unwrap().timestamp);
    let mut bytes = Vec::new();
    for (delta, record) in (0..).zip(records) {
        put_record(&mut bytes, delta, record.timestamp - first, record);
    }
    let (id, base_sequence) = producer.unwrap_or((-1, -1));
    let epoch = if producer.is_some() { 0 } else { -1 };
    let spec = BatchSpec {
        attributes: 0,
        producer: (id, epoch, base_sequence),
        timestamps: (first, last),
        values: Vec::new(),
    };
    let count = i32::try_from(records.len()).unwrap();
    let bytes = spec.encode_around(&bytes, count);
    let transaction = BatchTransaction::None;
    let summary = BatchSummary {
        bytes: u32::try_from(bytes.len()).unwrap(),
        records: count.unsigned_abs(),
        max_timestamp: last,
        producer: producer.map(|_| BatchProducer {
            id: ProducerId(id),
            epoch,
            base_sequence,
            transaction,
        }),
    };
    PendingBatch { bytes, summary, compressed: false }
}

fn put_record(out: &mut Vec<u8>, offset_delta: i64, timestamp_delta: i64, record: &Record) {
    let mut body = vec![0];
    put_varint(&mut body, timestamp_delta);
    put_varint(&mut body, offset_delta);
    put_bytes(&mut body, record.key.as_ref().map(std::slice::from_ref));
    put_bytes(&mut body, record.value.as_deref());
    put_varint(&mut body, 1);
    put_bytes(&mut body, Some(b"name"));
    put_bytes(&mut body, Some(&record.name.to_be_bytes()));
    put_varint(out, i64::try_from(body.len()).unwrap());
    out.put_slice(&body);
}

fn put_bytes(out: &mut Vec<u8>, bytes: Option<&[u8]>) {
    put_varint(out, bytes.map_or(-1, |bytes| i64::try_from(bytes.len()).unwrap()));
    out.put_slice(bytes.unwrap_or_default());
}

/// A batch that was read back.
#[derive(Clone, Debug)]
pub struct Found {
    /// The offset behind its last.
    pub end: i64,
    /// Its length in bytes.
    pub bytes: usize,
    /// Its records, with their offsets.
    pub records: Vec<(i64, Record)>,
}

/// Batches of records that [`batch`] made, their checksums checked.
pub fn read(mut batches: Bytes) -> Vec<Found> {
    let mut read = Vec::new();
    while !batches.is_empty() {
        let length = usize::try_from((&batches[8..12]).get_i32()).unwrap() + 12;
        let batch = batches.split_to(length);
        let base = (&batch[..8]).get_i64();
        assert_eq!((&batch[17..21]).get_u32(), crc32c::crc32c(&batch[21..]), "at {base}");
        let end = base + i64::from((&batch[23..27]).get_i32()) + 1;
        let first_timestamp = (&batch[27..35]).get_i64();
        let count = (&batch[57..61]).get_i32();
        let mut bytes = batch.slice(61..);
        let records = (0..count).map(|_| read_record(&mut bytes, base, first_timestamp)).collect();
        assert!(bytes.is_empty(), "at {base}: {} bytes too many", bytes.len());
        read.push(Found { end, bytes: length, records });
    }
    read
}

fn read_record(bytes: &mut Bytes, base: i64, first_timestamp: i64) -> (i64, Record) {
    let length = usize::try_from(varint(bytes)).unwrap();
    let mut body = bytes.split_to(length);
    body.advance(1);
    let timestamp = first_timestamp + varint(&mut body);
    let offset = base + varint(&mut body);
    let key = read_bytes(&mut body).map(|key| key[0]);
    let value = read_bytes(&mut body);
    assert_eq!(varint(&mut body), 1, "headers");
    assert_eq!(read_bytes(&mut body).as_deref(), Some(&b"name"[..]));
    let name = read_bytes(&mut body).unwrap().get_u64();
    (offset, Record { name, key, value, timestamp })
}

fn read_bytes(body: &mut Bytes) -> Option<Bytes> {
    let length = varint(body);
    usize::try_from(length).ok().map(|length| body.split_to(length))
}
