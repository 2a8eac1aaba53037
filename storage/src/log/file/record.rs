//! The record around an entry.

use super::Lsn;

/// Bytes before the payload.
pub(super) const HEADER_BYTES: u64 = 28;

const MAGIC: &[u8; 4] = b"ODRW";

/// Records begin at multiples of this.
const ALIGNMENT: u64 = 8;

/// What a header says.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Header {
    pub(super) lsn: Lsn,
    pub(super) length: u32,
    pub(super) crc: u32,
}

pub(super) fn padded(bytes: u64) -> u64 {
    bytes.next_multiple_of(ALIGNMENT)
}

pub(super) fn header(lsn: Lsn, length: u32, crc: u32) -> Vec<u8> {
    let mut header = MAGIC.to_vec();
    header.extend_from_slice(&[0; 4]);
    header.extend_from_slice(&lsn.get().to_be_bytes());
    header.extend_from_slice(&length.to_be_bytes());
    header.extend_from_slice(&crc.to_be_bytes());
    header.extend_from_slice(&crc32c::crc32c(&header).to_be_bytes());
    header
}

/// The header that `bytes` begin with, if it is whole and unharmed.
pub(super) fn parse(bytes: &[u8]) -> Option<Header> {
    let header = bytes.get(..usize::try_from(HEADER_BYTES).ok()?)?;
    let number = |at: usize| Some(u32::from_be_bytes(header.get(at..at + 4)?.try_into().ok()?));
    if !header.starts_with(MAGIC) || header[4..8] != [0; 4] {
        return None;
    }
    if number(24)? != crc32c::crc32c(&header[..24]) {
        return None;
    }
    let lsn = Lsn::new(u64::from_be_bytes(header[8..16].try_into().ok()?));
    Some(Header { lsn, length: number(16)?, crc: number(20)? })
}

/// The payload behind `header` at the beginning of `bytes`, if it is whole and unharmed.
pub(super) fn payload<'a>(header: &Header, bytes: &'a [u8]) -> Option<&'a [u8]> {
    let start = usize::try_from(HEADER_BYTES).ok()?;
    let payload = bytes.get(start..start.checked_add(usize::try_from(header.length).ok()?)?)?;
    (crc32c::crc32c(payload) == header.crc).then_some(payload)
}
