//! The outer shape of every stored format: magic, version, length, checksum, payload.
//!
//! Bytes that outlive a process are forever: a reader of a later release must know what it holds
//! before it believes a word of it. What the payload means is for `command`, `segment` and
//! `snapshot` to say.
//!
//! ```text
//! | magic 4 | version u16 | reserved u16 | payload length u32 | crc32c u32 | payload |
//! ```
//!
//! Numbers are big-endian. The checksum covers everything but itself, so that a flipped bit can't
//! make one version into another. The reserved field is zero and is refused when it is not.

use bytes::{Buf, BufMut, Bytes, BytesMut};

/// Bytes before the payload.
pub const HEADER_BYTES: usize = 16;

/// Names a stored format and the newest version of it that this release writes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Format {
    /// Four letters that begin every object or entry of this format.
    pub magic: [u8; 4],
    /// The version written, and the newest one read.
    pub version: u16,
}

/// Why stored bytes were not believed.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum EnvelopeError {
    /// Fewer bytes than the header or its length field promise.
    #[error("{have} bytes where {need} were promised")]
    Truncated {
        /// Bytes there are.
        have: usize,
        /// Bytes there should be.
        need: usize,
    },
    /// Another format, or no format at all.
    #[error("magic is {0:02x?}")]
    Magic([u8; 4]),
    /// Written by a newer release.
    #[error("format version {found} is newer than {known}")]
    Version {
        /// The version in the header.
        found: u16,
        /// The newest version this release reads.
        known: u16,
    },
    /// Bytes behind the payload, or a reserved field that is not zero.
    #[error("bytes where none belong")]
    Trailing,
    /// The header or the payload is not what was written.
    #[error("checksum is {found:08x}, not {expected:08x}")]
    Checksum {
        /// Computed over what was read.
        found: u32,
        /// Stored when it was written.
        expected: u32,
    },
}

impl Format {
    /// Wraps `payload`.
    ///
    /// # Panics
    ///
    /// If the payload is longer than 4 GiB, which no format of ours allows.
    pub fn seal(self, payload: &[u8]) -> Bytes {
        let length = u32::try_from(payload.len()).expect("stored formats are far below 4 GiB");
        let mut sealed = BytesMut::with_capacity(HEADER_BYTES + payload.len());
        sealed.put_slice(&self.magic);
        sealed.put_u16(self.version);
        sealed.put_u16(0);
        sealed.put_u32(length);
        sealed.put_u32(checksum(&sealed, payload));
        sealed.put_slice(payload);
        sealed.freeze()
    }

    /// Unwraps exactly one envelope and returns its version and payload.
    pub fn open(self, sealed: &Bytes) -> Result<(u16, Bytes), EnvelopeError> {
        let have = sealed.len();
        if have < HEADER_BYTES {
            return Err(EnvelopeError::Truncated { have, need: HEADER_BYTES });
        }
        let mut header = sealed.slice(..HEADER_BYTES);
        let mut magic = [0; 4];
        header.copy_to_slice(&mut magic);
        if magic != self.magic {
            return Err(EnvelopeError::Magic(magic));
        }
        let version = header.get_u16();
        if version == 0 || version > self.version {
            return Err(EnvelopeError::Version { found: version, known: self.version });
        }
        let reserved = header.get_u16();
        let length = usize::try_from(header.get_u32()).unwrap_or(usize::MAX);
        let expected = header.get_u32();
        let need = HEADER_BYTES.saturating_add(length);
        if have < need {
            return Err(EnvelopeError::Truncated { have, need });
        }
        if have > need || reserved != 0 {
            return Err(EnvelopeError::Trailing);
        }
        let payload = sealed.slice(HEADER_BYTES..);
        let found = checksum(&sealed[..HEADER_BYTES - 4], &payload);
        if found != expected {
            return Err(EnvelopeError::Checksum { found, expected });
        }
        Ok((version, payload))
    }
}

fn checksum(header: &[u8], payload: &[u8]) -> u32 {
    crc32c::crc32c_append(crc32c::crc32c(header), payload)
}

#[cfg(test)]
mod tests {
    use super::*;

    const FORMAT: Format = Format { magic: *b"TEST", version: 3 };

    #[test]
    fn what_was_sealed_opens_again() {
        let sealed = FORMAT.seal(b"payload");
        assert_eq!(FORMAT.open(&sealed), Ok((3, Bytes::from_static(b"payload"))));
    }

    #[test]
    fn older_versions_are_opened_and_newer_ones_are_not() {
        for version in 0..5 {
            let sealed = Format { version, ..FORMAT }.seal(b"payload");
            let opened = FORMAT.open(&sealed).map(|(version, _)| version);
            let refused = Err(EnvelopeError::Version { found: version, known: 3 });
            assert_eq!(opened, if (1..=3).contains(&version) { Ok(version) } else { refused });
        }
    }

    #[test]
    fn every_flipped_bit_and_every_cut_is_noticed() {
        let sealed = FORMAT.seal(b"payload");
        for at in 0..sealed.len() {
            assert!(FORMAT.open(&sealed.slice(..at)).is_err(), "cut at {at}");
            for bit in 0..8 {
                let mut bytes = sealed.to_vec();
                bytes[at] ^= 1 << bit;
                assert!(FORMAT.open(&Bytes::from(bytes)).is_err(), "bit {bit} of {at}");
            }
        }
        let mut longer = sealed.to_vec();
        longer.push(0);
        assert_eq!(FORMAT.open(&Bytes::from(longer)), Err(EnvelopeError::Trailing));
    }
}
