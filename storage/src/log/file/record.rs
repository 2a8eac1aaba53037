//! The record around an entry.
//!
//! What is written behind the header is masked with a stream that differs from record to record:
//! the stored form of an entry has no run of zeros, whatever the entry is made of, so that zeros
//! always mean *never written*. It also keeps the bytes of an entry from looking like a record.

use super::Lsn;

/// Bytes before the body.
pub(super) const HEADER_BYTES: usize = 28;

/// The form of record that this release writes and reads.
pub(super) const VERSION: u16 = 1;

/// Records begin at multiples of this.
pub(super) const ALIGNMENT: usize = 8;

/// What a disk writes as a whole or not at all.
const SECTOR_BYTES: usize = 512;

const MAGIC: &[u8; 4] = b"ODRW";

/// What a record is for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Kind {
    /// It holds an entry.
    Entry,
    /// It ends its chunk: there is another one, which begins with this lsn.
    Seal,
}

/// What a header says.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Header {
    pub(super) version: u16,
    pub(super) kind: Kind,
    pub(super) lsn: Lsn,
    /// Of the entry, in bytes.
    pub(super) length: u32,
    /// Of the body as it is stored.
    pub(super) crc: u32,
}

/// Length of the record of an entry of `length` bytes.
pub(super) fn record_bytes(length: usize) -> usize {
    HEADER_BYTES.saturating_add(length).next_multiple_of(ALIGNMENT)
}

/// The record of an entry of at most 4 GB.
pub(super) fn encode(kind: Kind, lsn: Lsn, entry: &[u8]) -> Vec<u8> {
    let mut body = entry.to_vec();
    body.resize(record_bytes(entry.len()) - HEADER_BYTES, 0);
    mask(lsn, &mut body);
    let length = u32::try_from(entry.len()).expect("entries are checked against their limit");
    let kind: u16 = match kind {
        Kind::Entry => 0,
        Kind::Seal => 1,
    };
    let mut record = Vec::with_capacity(HEADER_BYTES + body.len());
    record.extend_from_slice(MAGIC);
    record.extend_from_slice(&VERSION.to_be_bytes());
    record.extend_from_slice(&kind.to_be_bytes());
    record.extend_from_slice(&lsn.get().to_be_bytes());
    record.extend_from_slice(&length.to_be_bytes());
    record.extend_from_slice(&crc32c::crc32c(&body).to_be_bytes());
    record.extend_from_slice(&crc32c::crc32c(&record).to_be_bytes());
    record.append(&mut body);
    record
}

/// The header that `bytes` begin with, if it is whole and unharmed.
pub(super) fn parse(bytes: &[u8]) -> Option<Header> {
    let header: &[u8; HEADER_BYTES] = bytes.first_chunk()?;
    let (checked, crc) = header.split_at(HEADER_BYTES - 4);
    if !header.starts_with(MAGIC) || crc != crc32c::crc32c(checked).to_be_bytes() {
        return None;
    }
    Some(Header {
        version: u16::from_be_bytes([header[4], header[5]]),
        kind: if header[7] == 0 { Kind::Entry } else { Kind::Seal },
        lsn: Lsn::new(u64::from_be_bytes(*header[8..].first_chunk()?)),
        length: u32::from_be_bytes(*header[16..].first_chunk()?),
        crc: u32::from_be_bytes(*header[20..].first_chunk()?),
    })
}

impl Header {
    /// Length of the whole record.
    pub(super) fn record_bytes(&self) -> usize {
        record_bytes(usize::try_from(self.length).unwrap_or(usize::MAX))
    }

    /// Whether the body in `record`, which begins with this header, is whole and unharmed.
    pub(super) fn fits(&self, record: &[u8]) -> bool {
        let body = record.get(HEADER_BYTES..self.record_bytes());
        body.is_some_and(|body| crc32c::crc32c(body) == self.crc)
    }

    /// The entry in a body, if the body is whole and unharmed.
    pub(super) fn open(&self, mut body: Vec<u8>) -> Option<Vec<u8>> {
        if crc32c::crc32c(&body) != self.crc {
            return None;
        }
        mask(self.lsn, &mut body);
        body.truncate(usize::try_from(self.length).ok()?);
        Some(body)
    }
}

/// Whether a sector's part of `bytes`, which stand at `at` in their file, is zero throughout: the
/// disk never wrote it.
pub(super) fn has_unwritten_sector(at: usize, bytes: &[u8]) -> bool {
    let first = (SECTOR_BYTES - at % SECTOR_BYTES).min(bytes.len());
    let (first, rest) = bytes.split_at(first);
    let is_zero = |part: &[u8]| !part.is_empty() && part.iter().all(|byte| *byte == 0);
    is_zero(first) || rest.chunks(SECTOR_BYTES).any(is_zero)
}

/// Masks and unmasks: the stream of `SplitMix64`, seeded with the lsn.
fn mask(lsn: Lsn, body: &mut [u8]) {
    const STEP: u64 = 0x9e37_79b9_7f4a_7c15;
    let mut state = lsn.get().wrapping_mul(0xd134_2543_de82_ef95);
    for word in body.chunks_mut(8) {
        state = state.wrapping_add(STEP);
        let mixed = (state ^ (state >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        let mixed = (mixed ^ (mixed >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        let stream = (mixed ^ (mixed >> 31)).to_be_bytes();
        word.iter_mut().zip(stream).for_each(|(byte, mask)| *byte ^= mask);
    }
}
