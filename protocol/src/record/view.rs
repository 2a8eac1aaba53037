//! The records inside a batch, looked at in place.
//!
//! Nothing is decoded to be encoded again: a view knows the bytes of its record, so that whoever
//! keeps some records of a batch keeps them with all that is in them, headers and what this release
//! does not know.

use super::varint;

/// One record of an unpacked batch.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct RecordView<'a> {
    /// All of it, with its length before it.
    pub bytes: &'a [u8],
    /// Offset relative to the batch's base offset.
    pub offset_delta: i32,
    /// Timestamp relative to the batch's base timestamp, in milliseconds.
    pub timestamp_delta: i64,
    /// Its key, if it has one.
    pub key: Option<&'a [u8]>,
    /// Whether it has a value; a record without one is a tombstone.
    pub has_value: bool,
    /// The attributes' byte.
    attributes: u8,
    /// What follows the timestamp delta.
    behind_timestamp: &'a [u8],
}

impl<'a> RecordView<'a> {
    /// The first record in `bytes` and what follows it; `None` if there is no well-formed one.
    pub fn split_first(bytes: &'a [u8]) -> Option<(Self, &'a [u8])> {
        let mut rest = bytes;
        let length = usize::try_from(varint::take(&mut rest)?).ok()?;
        let (mut body, rest) = rest.split_at_checked(length)?;
        let bytes = &bytes[..bytes.len() - rest.len()];
        let (attributes, behind) = body.split_first()?;
        body = behind;
        let timestamp_delta = varint::take(&mut body)?;
        let behind_timestamp = body;
        let offset_delta = i32::try_from(varint::take(&mut body)?).ok()?;
        let key = take_bytes(&mut body)?;
        let has_value = take_bytes(&mut body)?.is_some();
        let headers = varint::take(&mut body)?;
        for _ in 0..headers {
            // A header has a name, and perhaps no value.
            take_bytes(&mut body)??;
            take_bytes(&mut body)?;
        }
        let view = Self {
            bytes,
            offset_delta,
            timestamp_delta,
            key,
            has_value,
            attributes: *attributes,
            behind_timestamp,
        };
        (headers >= 0 && body.is_empty()).then_some((view, rest))
    }

    /// Writes the record with another timestamp delta, and otherwise as it is.
    pub fn put_with_timestamp_delta(&self, timestamp_delta: i64, out: &mut Vec<u8>) {
        let length = 1 + varint::length(timestamp_delta) + self.behind_timestamp.len();
        varint::put(i64::try_from(length).unwrap_or(i64::MAX), out);
        out.push(self.attributes);
        varint::put(timestamp_delta, out);
        out.extend_from_slice(self.behind_timestamp);
    }
}

/// Bytes with their length before them; `Some(None)` if they are null.
fn take_bytes<'a>(rest: &mut &'a [u8]) -> Option<Option<&'a [u8]>> {
    match varint::take(rest)? {
        -1 => Some(None),
        length => {
            let (bytes, behind) = rest.split_at_checked(usize::try_from(length).ok()?)?;
            *rest = behind;
            Some(Some(bytes))
        }
    }
}

/// Walks the records of an unpacked batch. Ends after as many as there should be, or with an error
/// where they are malformed or bytes are left over.
#[derive(Clone, Debug)]
pub struct RecordViews<'a> {
    rest: &'a [u8],
    left: i32,
}

/// The records of a batch are not what its header says.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("records are malformed")]
pub struct Malformed;

impl<'a> RecordViews<'a> {
    /// The `count` records that `unpacked` should be.
    pub fn of(unpacked: &'a [u8], count: i32) -> Self {
        Self { rest: unpacked, left: count }
    }
}

impl<'a> Iterator for RecordViews<'a> {
    type Item = Result<RecordView<'a>, Malformed>;

    fn next(&mut self) -> Option<Self::Item> {
        if self.left <= 0 {
            let rest = std::mem::take(&mut self.rest);
            return (!rest.is_empty()).then_some(Err(Malformed));
        }
        self.left -= 1;
        if let Some((record, rest)) = RecordView::split_first(self.rest) {
            self.rest = rest;
            Some(Ok(record))
        } else {
            self.left = 0;
            self.rest = &[];
            Some(Err(Malformed))
        }
    }
}
