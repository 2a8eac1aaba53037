//! Logs to compact: records as programs see them, encoded without the code under test.

use bytes::{BufMut, Bytes, BytesMut};
use odradek_protocol::compression;
use odradek_protocol::id::{Offset, ProducerId};
use odradek_protocol::record::{Codec, ControlBatch, ControlType, RecordBatch, RecordViews};

use crate::state::partition::AbortedTransaction;

/// A record.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Fact {
    pub(super) offset: i64,
    pub(super) timestamp_ms: i64,
    pub(super) key: u8,
    pub(super) value: Option<u16>,
    /// Key, value, headers: as bytes.
    pub(super) content: Bytes,
}

/// A batch to write.
#[derive(Clone, Debug)]
pub(super) struct Draft {
    pub(super) codec: Codec,
    /// Whose transaction it is part of, if of one.
    pub(super) producer: Option<i64>,
    pub(super) time_ms: i64,
    /// Key, value, headers.
    pub(super) records: Vec<(u8, Option<u16>, u8)>,
}

fn varint(value: i64, out: &mut BytesMut) {
    let mut left = ((value << 1) ^ (value >> 63)).cast_unsigned();
    while left > 0x7f {
        out.put_u8(u8::try_from(left & 0x7f).unwrap() | 0x80);
        left >>= 7;
    }
    out.put_u8(u8::try_from(left).unwrap());
}

fn sized(bytes: &[u8], out: &mut BytesMut) {
    varint(i64::try_from(bytes.len()).unwrap(), out);
    out.put_slice(bytes);
}

fn record(delta: i64, time_delta: i64, (key, value, headers): (u8, Option<u16>, u8)) -> BytesMut {
    let mut body = BytesMut::new();
    body.put_u8(0);
    varint(time_delta, &mut body);
    varint(delta, &mut body);
    sized(&[key], &mut body);
    match value {
        Some(value) => sized(&vec![b'v'; usize::from(value)], &mut body),
        None => varint(-1, &mut body),
    }
    varint(i64::from(headers), &mut body);
    for header in 0..headers {
        sized(b"name", &mut body);
        if header % 2 == 0 { sized(&[header], &mut body) } else { varint(-1, &mut body) }
    }
    let mut record = BytesMut::new();
    sized(&body, &mut record);
    record
}

impl Draft {
    /// The batch at `base`.
    pub(super) fn at(&self, base: i64) -> RecordBatch {
        let mut records = BytesMut::new();
        let count = i32::try_from(self.records.len()).unwrap();
        for (delta, record_draft) in (0_i64..).zip(&self.records) {
            records.extend_from_slice(&record(delta, delta * 3, *record_draft));
        }
        let number = [Codec::None, Codec::Gzip, Codec::Snappy, Codec::Lz4, Codec::Zstd];
        let number = number.iter().position(|it| *it == self.codec).unwrap();
        let transactional = if self.producer.is_some() { 0x10 } else { 0 };
        let records = compression::pack(self.codec, records.to_vec()).unwrap();
        let mut bytes = BytesMut::new();
        bytes.put_i64(base);
        bytes.put_i32(i32::try_from(49 + records.len()).unwrap());
        bytes.put_i32(0);
        bytes.put_i8(2);
        bytes.put_u32(0);
        bytes.put_i16(i16::try_from(number).unwrap() | transactional);
        bytes.put_i32(count - 1);
        bytes.put_i64(self.time_ms);
        bytes.put_i64(self.time_ms + i64::from(count - 1) * 3);
        bytes.put_i64(self.producer.unwrap_or(-1));
        bytes.put_i16(0);
        bytes.put_i32(-1);
        bytes.put_i32(count);
        bytes.put_slice(&records);
        let crc = crc32c::crc32c(&bytes[21..]);
        bytes[17..21].copy_from_slice(&crc.to_be_bytes());
        RecordBatch::split_first(&bytes.freeze()).unwrap().0
    }
}

/// The end of a transaction.
pub(super) fn marker(offset: i64, time_ms: i64, producer_id: i64, commits: bool) -> RecordBatch {
    let timestamp_ms = time_ms;
    let batch = ControlBatch { offset, timestamp_ms, producer_id, producer_epoch: 0, commits };
    RecordBatch::split_first(&batch.to_bytes()).unwrap().0
}

/// All records of a batch that is no control batch.
pub(super) fn facts(batch: &RecordBatch) -> Vec<Fact> {
    assert_eq!(batch.crc(), crc32c::crc32c(&batch.bytes()[21..]));
    let unpacked = compression::unpack(batch, 1 << 24).unwrap();
    let views = RecordViews::of(&unpacked, batch.record_count());
    let fact = |view: odradek_protocol::record::RecordView<'_>| {
        // Behind the length (whose length varies), the attributes and the deltas.
        let key = view.key.unwrap();
        let start = key.as_ptr().addr() - view.bytes.as_ptr().addr() - 1;
        let content = Bytes::copy_from_slice(&view.bytes[start..]);
        let length = content[2..].iter().filter(|byte| **byte == b'v').count();
        Fact {
            offset: batch.base_offset() + i64::from(view.offset_delta),
            timestamp_ms: batch.timestamp_of(&view),
            key: key[0],
            value: view.has_value.then(|| u16::try_from(length).unwrap()),
            content,
        }
    };
    views.map(|view| fact(view.unwrap())).collect()
}

/// What a read_committed consumer that is told of these aborted transactions sees: by the rules by
/// which clients go, not by ours.
pub(super) fn committed<'a>(
    batches: impl Iterator<Item = &'a RecordBatch>,
    aborted: &[AbortedTransaction],
) -> Vec<Fact> {
    let mut waiting = aborted.to_vec();
    waiting.sort_by_key(|it| it.first);
    waiting.reverse();
    let mut skipped: Vec<ProducerId> = Vec::new();
    let mut seen = Vec::new();
    for batch in batches {
        let producer = ProducerId(batch.producer_id());
        let last = Offset(batch.base_offset() + i64::from(batch.last_offset_delta()));
        while waiting.last().is_some_and(|it| it.first <= last) {
            skipped.push(waiting.pop().unwrap().producer);
        }
        if batch.is_control() {
            if batch.control_type() == Some(ControlType::Abort) {
                skipped.retain(|it| *it != producer);
            }
        } else if !batch.is_transactional() || !skipped.contains(&producer) {
            seen.extend(facts(batch));
        }
    }
    seen
}
