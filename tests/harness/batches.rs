//! Record batches, made by hand so that they can be made wrong.

use bytes::{BufMut, Bytes};

/// The attribute of batches in transactions.
const TRANSACTIONAL: i16 = 0x10;

/// The attribute of batches that end transactions.
const CONTROL: i16 = 0x20;

/// What a batch is to be like.
#[derive(Clone, Debug)]
pub struct BatchSpec {
    /// Attributes: codec and flags.
    pub attributes: i16,
    /// Producer id, epoch and first sequence number; -1 for none.
    pub producer: (i64, i16, i32),
    /// Timestamp of the first record and of the last, in milliseconds since the Unix epoch.
    pub timestamps: (i64, i64),
    /// Values of the records; keys are null.
    pub values: Vec<Bytes>,
}

impl BatchSpec {
    /// Records with these values, by nobody in particular.
    pub fn of<V: Into<Bytes>>(values: impl IntoIterator<Item = V>) -> Self {
        Self {
            attributes: 0,
            producer: (-1, -1, -1),
            timestamps: (1_700_000_000_000, 1_700_000_000_000),
            values: values.into_iter().map(Into::into).collect(),
        }
    }

    /// The same, by an idempotent producer.
    #[must_use]
    pub fn by(self, id: i64, epoch: i16, sequence: i32) -> Self {
        Self { producer: (id, epoch, sequence), ..self }
    }

    /// The same, in its producer's transaction.
    #[must_use]
    pub fn transactional(self) -> Self {
        Self { attributes: self.attributes | TRANSACTIONAL, ..self }
    }

    /// The bytes of the batch.
    pub fn encode(&self) -> Bytes {
        let mut records = Vec::new();
        let last = self.values.len().saturating_sub(1);
        for (at, value) in self.values.iter().enumerate() {
            let delta = if at == last { self.timestamps.1 - self.timestamps.0 } else { 0 };
            put_record(&mut records, i64::try_from(at).unwrap(), delta, value);
        }
        self.encode_around(&records, i32::try_from(self.values.len()).unwrap())
    }

    /// A batch around these bytes, which claim to be so many records.
    pub fn encode_around(&self, records: &[u8], count: i32) -> Bytes {
        let mut batch = Vec::with_capacity(61 + records.len());
        batch.put_i64(0);
        batch.put_i32(i32::try_from(49 + records.len()).unwrap());
        batch.put_i32(-1);
        batch.put_i8(2);
        batch.put_u32(0);
        batch.put_i16(self.attributes);
        batch.put_i32(count - 1);
        batch.put_i64(self.timestamps.0);
        batch.put_i64(self.timestamps.1);
        batch.put_i64(self.producer.0);
        batch.put_i16(self.producer.1);
        batch.put_i32(self.producer.2);
        batch.put_i32(count);
        batch.extend_from_slice(records);
        seal(&mut batch);
        batch.into()
    }
}

/// Puts the right checksum into a batch.
pub fn seal(batch: &mut [u8]) {
    let crc = crc32c::crc32c(&batch[21..]);
    batch[17..21].copy_from_slice(&crc.to_be_bytes());
}

fn put_record(records: &mut Vec<u8>, offset_delta: i64, timestamp_delta: i64, value: &Bytes) {
    let mut record = vec![0];
    put_varint(&mut record, timestamp_delta);
    put_varint(&mut record, offset_delta);
    put_varint(&mut record, -1);
    put_varint(&mut record, i64::try_from(value.len()).unwrap());
    record.extend_from_slice(value);
    put_varint(&mut record, 0);
    put_varint(records, i64::try_from(record.len()).unwrap());
    records.extend_from_slice(&record);
}

pub(crate) fn put_varint(out: &mut Vec<u8>, value: i64) {
    let mut zigzag = (value << 1) ^ (value >> 63);
    loop {
        let low = u8::try_from(zigzag & 0x7f).unwrap();
        zigzag = ((zigzag.cast_unsigned()) >> 7).cast_signed();
        if zigzag == 0 {
            out.push(low);
            return;
        }
        out.push(low | 0x80);
    }
}

/// A value for a batch of so many bytes, which compresses to about three quarters, as records do.
pub fn filler(batch: u32, seed: u64) -> Bytes {
    let mut state = (2 * seed + 1).wrapping_mul(0x9e37_79b9_7f4a_7c15);
    let mut next = || {
        state ^= state << 13;
        state ^= state >> 7;
        state ^= state << 17;
        state.to_be_bytes()[0]
    };
    (0..batch - 100).map(|at| if at % 4 == 0 { b' ' } else { next() }).collect()
}

/// A record that was read back.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ReadRecord {
    /// Its offset.
    pub offset: i64,
    /// Its value.
    pub value: Bytes,
}

/// The records of uncompressed batches, checked: checksums, and offsets without gaps inside a
/// batch.
pub fn read_records(mut batches: Bytes) -> Vec<ReadRecord> {
    use bytes::Buf;
    let mut read = Vec::new();
    while !batches.is_empty() {
        let length = usize::try_from((&batches[8..12]).get_i32()).unwrap() + 12;
        let batch = batches.split_to(length);
        let base = (&batch[..8]).get_i64();
        assert_eq!((&batch[17..21]).get_u32(), crc32c::crc32c(&batch[21..]), "at {base}");
        assert_eq!((&batch[12..16]).get_i32(), 0, "leader epoch");
        let count = (&batch[57..61]).get_i32();
        let mut records = batch.slice(61..);
        for _ in 0..count {
            let length = usize::try_from(varint(&mut records)).unwrap();
            let mut record = records.split_to(length);
            record.advance(1);
            varint(&mut record);
            let offset = base + varint(&mut record);
            assert_eq!(varint(&mut record), -1, "key");
            let length = usize::try_from(varint(&mut record)).unwrap();
            read.push(ReadRecord { offset, value: record.split_to(length) });
        }
    }
    read
}

/// A batch that was read back.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ReadBatch {
    /// The offset of its last record.
    pub last: i64,
    /// Its producer's id, or -1.
    pub producer: i64,
    /// Whether it is a part of a transaction.
    pub is_transactional: bool,
    /// What it holds.
    pub content: ReadContent,
}

/// What a batch holds.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum ReadContent {
    /// Records.
    Records(Vec<ReadRecord>),
    /// The end of its producer's transaction: whether it was committed.
    Marker(bool),
}

/// Uncompressed batches one by one, checked as by [`read_records`].
pub fn read_batches(mut batches: Bytes) -> Vec<ReadBatch> {
    use bytes::Buf;
    let mut read = Vec::new();
    while !batches.is_empty() {
        let length = usize::try_from((&batches[8..12]).get_i32()).unwrap() + 12;
        let batch = batches.split_to(length);
        let attributes = (&batch[21..23]).get_i16();
        let last = (&batch[..8]).get_i64() + i64::from((&batch[23..27]).get_i32());
        let producer = (&batch[43..51]).get_i64();
        let content = if attributes & CONTROL == 0 {
            ReadContent::Records(read_records(batch))
        } else {
            ReadContent::Marker(read_marker(batch.slice(61..)))
        };
        let is_transactional = attributes & TRANSACTIONAL != 0;
        read.push(ReadBatch { last, producer, is_transactional, content });
    }
    read
}

/// Whether the record of a control batch says that a transaction was committed.
fn read_marker(mut record: Bytes) -> bool {
    use bytes::Buf;
    varint(&mut record);
    record.advance(1);
    varint(&mut record);
    varint(&mut record);
    assert_eq!(varint(&mut record), 4, "length of the key");
    assert_eq!(record.get_i16(), 0, "version of the key");
    match record.get_i16() {
        0 => false,
        1 => true,
        other => panic!("a marker of type {other}"),
    }
}

pub(crate) fn varint(bytes: &mut Bytes) -> i64 {
    use bytes::Buf;
    let mut zigzag = 0_u64;
    for shift in (0..64).step_by(7) {
        let byte = bytes.get_u8();
        zigzag |= u64::from(byte & 0x7f) << shift;
        if byte & 0x80 == 0 {
            break;
        }
    }
    (zigzag >> 1).cast_signed() ^ -((zigzag & 1).cast_signed())
}
