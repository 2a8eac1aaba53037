//! Slabs: the files that blocks are kept in, one behind the other.
//!
//! ```text
//! slab     | "ODDC" | version u16 | 0 u16 | record | record | ...
//! record   | segment id 24 | position u64 | length u32 | crc32c of these u32 | block |
//! ```
//!
//! A slab is written from its beginning to its end by one process, never changed, and deleted as a
//! whole. Nothing is synced: a record that a crash has cut, or never let to the disk, ends what can
//! be found in its slab, and what is found is checked when it is read.

use std::fs::{self, File};
use std::io::{self, ErrorKind};
use std::os::unix::fs::FileExt;
use std::path::Path;

use bytes::{Buf, BufMut};

use super::super::blocks::BlockKey;
use super::index::Place;
use crate::command::Incarnation;
use crate::lsn::Lsn;
use crate::segment::SegmentId;

/// Bytes before the first record.
pub(super) const SLAB_HEADER_BYTES: u64 = 8;

/// What a slab begins with: magic and version.
pub(super) const SLAB_HEADER: [u8; 8] = *b"ODDC\0\x01\0\0";

/// Bytes of a record before its block.
pub(super) const RECORD_HEADER_BYTES: u64 = 40;

/// What the name of a slab ends with.
const SUFFIX: &str = ".slab";

/// The header of the record of a block.
pub(super) fn record_header(key: &BlockKey, bytes: u32) -> Vec<u8> {
    let mut header = Vec::with_capacity(40);
    header.put_slice(&key.segment.to_bytes());
    header.put_u64(key.position);
    header.put_u32(bytes);
    header.put_u32(crc32c::crc32c(&header));
    header
}

/// The block that a record has, and its length; `None` if it is no record.
fn parse(mut header: &[u8]) -> Option<(BlockKey, u32)> {
    let found = crc32c::crc32c(header.get(..36)?);
    let segment = SegmentId {
        began: Lsn::new(header.get_u64()),
        incarnation: Incarnation(header.get_u64()),
        counter: header.get_u64(),
    };
    let (position, bytes) = (header.get_u64(), header.get_u32());
    (header.get_u32() == found).then(|| (BlockKey::of(segment, position), bytes))
}

/// The name of the file of a slab.
pub(super) fn name(slab: u64) -> String {
    format!("{slab:016x}{SUFFIX}")
}

/// The slabs in a folder, oldest first.
pub(super) fn list(folder: &Path) -> io::Result<Vec<u64>> {
    let mut slabs = Vec::new();
    for item in fs::read_dir(folder)? {
        let item = item?.file_name();
        let number = item.to_str().and_then(|it| it.strip_suffix(SUFFIX));
        let number = number.and_then(|digits| u64::from_str_radix(digits, 16).ok());
        // Of other files nothing is known, and nothing is done to them.
        slabs.extend(number.filter(|number| *name(*number) == *item));
    }
    slabs.sort_unstable();
    Ok(slabs)
}

/// The records in a slab, as far as they are whole, and the length of its file.
pub(super) fn scan(path: &Path, slab: u64) -> io::Result<(u64, Vec<(BlockKey, Place)>)> {
    let file = File::open(path)?;
    let length = file.metadata()?.len();
    let mut records = Vec::new();
    let mut start = [0; SLAB_HEADER.len()];
    if !is_read(&file, &mut start, 0)? || start != SLAB_HEADER {
        return Ok((length, records));
    }
    let mut at = SLAB_HEADER_BYTES;
    let mut header = [0; 40];
    while is_read(&file, &mut header, at)?
        && let Some((key, bytes)) = parse(&header)
        && let Ok(begins) = u32::try_from(at + RECORD_HEADER_BYTES)
    {
        at += RECORD_HEADER_BYTES + u64::from(bytes);
        if at > length {
            break;
        }
        records.push((key, Place { slab, at: begins, bytes }));
    }
    Ok((length, records))
}

/// Reads so many bytes, if there are as many.
fn is_read(file: &File, bytes: &mut [u8], at: u64) -> io::Result<bool> {
    match file.read_exact_at(bytes, at) {
        Ok(()) => Ok(true),
        Err(error) if error.kind() == ErrorKind::UnexpectedEof => Ok(false),
        Err(error) => Err(error),
    }
}
