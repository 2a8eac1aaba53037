//! Control batches: the ends of transactions, as consumers read them (KIP-98).
//!
//! None is written when a transaction ends. One is made from what the state knows whenever it is
//! read or merged, always with the same bytes.

use bytes::{BufMut, Bytes, BytesMut};

use super::{
    CONTROL_BIT, CRC_START, HEADER_BYTES, LENGTH_OVERHEAD, RecordBatch, RecordView,
    TRANSACTIONAL_BIT,
};

/// Length of a control batch.
pub const MARKER_BYTES: u32 = 78;

/// The one record of a control batch, but for what it says: lengths of the record (16), of the key
/// (4) and of the value (6) are zigzag numbers, as in every record.
const RECORD_BYTES: usize = 17;

/// What ends a transaction in a partition.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct ControlBatch {
    /// Its offset.
    pub offset: i64,
    /// Its time, in milliseconds since the Unix epoch.
    pub timestamp_ms: i64,
    /// Whose transaction.
    pub producer_id: i64,
    /// The epoch it was done under.
    pub producer_epoch: i16,
    /// Whether it was committed; else it was aborted.
    pub commits: bool,
}

impl ControlBatch {
    /// The batch as it stands on the wire: version 0 of key and value, coordinator epoch 0, no
    /// sequence number.
    pub fn to_bytes(&self) -> Bytes {
        let mut bytes = BytesMut::with_capacity(HEADER_BYTES + RECORD_BYTES);
        bytes.put_i64(self.offset);
        bytes.put_u32(MARKER_BYTES - LENGTH_OVERHEAD_U32);
        bytes.put_i32(0);
        bytes.put_i8(2);
        bytes.put_u32(0);
        bytes.put_i16(TRANSACTIONAL_BIT | CONTROL_BIT);
        bytes.put_i32(0);
        bytes.put_i64(self.timestamp_ms);
        bytes.put_i64(self.timestamp_ms);
        bytes.put_i64(self.producer_id);
        bytes.put_i16(self.producer_epoch);
        bytes.put_i32(-1);
        bytes.put_i32(1);
        bytes.put_slice(&[32, 0, 0, 0, 8]);
        bytes.put_i16(0);
        bytes.put_i16(i16::from(self.commits));
        bytes.put_u8(12);
        bytes.put_i16(0);
        bytes.put_i32(0);
        bytes.put_u8(0);
        let crc = crc32c::crc32c(&bytes[CRC_START..]);
        bytes[17..CRC_START].copy_from_slice(&crc.to_be_bytes());
        bytes.freeze()
    }
}

/// What a control batch says.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum ControlType {
    /// Its transaction was aborted.
    Abort,
    /// Its transaction was committed.
    Commit,
    /// Something that this release does not write.
    Other,
}

impl RecordBatch {
    /// What a control batch says; `None` if it is none, or has no record any more.
    pub fn control_type(&self) -> Option<ControlType> {
        if !self.is_control() || self.record_count() == 0 {
            return None;
        }
        let records = self.records();
        let kind = RecordView::split_first(&records).and_then(|(record, _)| record.key?.get(2..4));
        Some(match kind {
            Some([0, 0]) => ControlType::Abort,
            Some([0, 1]) => ControlType::Commit,
            _ => ControlType::Other,
        })
    }
}

/// [`LENGTH_OVERHEAD`], as the length field has it.
const LENGTH_OVERHEAD_U32: u32 = 12;

const _: () = assert!(LENGTH_OVERHEAD == 12 && HEADER_BYTES + RECORD_BYTES == 78);

#[cfg(test)]
mod tests {
    use kafka_protocol::records::RecordBatchDecoder;

    use super::*;
    use crate::record::RecordBatch;

    fn batch(commits: bool) -> ControlBatch {
        ControlBatch { offset: 7, timestamp_ms: 1_000, producer_id: 5, producer_epoch: 3, commits }
    }

    #[test]
    fn a_control_batch_has_the_bytes_that_kafka_writes() {
        for (commits, kind) in [(true, 1), (false, 0)] {
            let bytes = batch(commits).to_bytes();
            assert_eq!(bytes.len(), usize::try_from(MARKER_BYTES).unwrap());
            let (view, rest) = RecordBatch::split_first(&bytes).unwrap();
            assert!(rest.is_empty() && view.is_transactional());
            assert_eq!((view.base_offset(), view.offsets(), view.base_sequence()), (7, 1, -1));
            assert_eq!((view.producer_id(), view.producer_epoch()), (5, 3));
            let decoded = RecordBatchDecoder::decode(&mut bytes.clone()).unwrap();
            let record = &decoded.records[0];
            assert!(record.control && record.transactional && record.timestamp == 1_000);
            assert_eq!(record.key.as_deref(), Some(&[0, 0, 0, kind][..]));
            assert_eq!(record.value.as_deref(), Some(&[0; 6][..]));
        }
    }
}
