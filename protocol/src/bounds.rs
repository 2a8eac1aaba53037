//! Bounds: whether the lengths and counts of a request fit into its bytes.
//!
//! The message decoders reserve memory for as many elements as a count announces, so that fourteen
//! bytes could ask for more memory than there is, and an allocation that fails ends the process.
//! Every body is therefore walked first, by the shapes in [`shapes`]: each element must have its
//! bytes, and the whole may not have more than [`ELEMENTS_MAX`]. The walk allocates nothing.
//!
//! NB: bytes behind the message are let through, as Kafka does. librdkafka writes four bytes of
//! zeros where Metadata from version 9 on has one for "all topics", and reads as a good request
//! followed by three bytes of nothing.

use bytes::{Buf, Bytes};

use crate::error::DecodeError;
use crate::messages::ApiKey;

mod shapes;

/// Most elements of arrays (and tagged fields) in one request: ten times the partitions that a
/// large consumer asks for at once.
pub const ELEMENTS_MAX: usize = 500_000;

/// The shape of a struct: its fields in order. Tagged fields close it in flexible versions.
#[derive(Debug)]
struct Shape {
    fields: &'static [Field],
    /// Tagged fields whose content the decoder reads itself, from a version on.
    tags: &'static [(u32, i16, Kind)],
}

/// A field and the versions that have it.
#[derive(Debug)]
struct Field {
    since: i16,
    until: i16,
    kind: Kind,
}

#[derive(Clone, Copy, Debug)]
enum Kind {
    /// So many bytes.
    Fixed(usize),
    /// Text or null.
    Text,
    /// Bytes or null.
    Blob,
    /// Elements or null.
    Array(&'static Shape),
    /// A struct in place.
    Struct(&'static Shape),
    /// A struct behind a byte that says 1, or none behind any other, as the decoder has it.
    Option(&'static Shape),
}

/// Checks the body of a request.
pub fn check(key: ApiKey, version: i16, body: &Bytes) -> Result<(), DecodeError> {
    let (shape, flexible_since) =
        shapes::of(key).ok_or_else(|| DecodeError::UnknownApi(crate::api::number(key)))?;
    let mut walk = Walk { rest: body, version, flexible: version >= flexible_since, elements: 0 };
    walk.shape(shape)
}

/// Skips the tagged fields of a header.
pub(crate) fn skip_tags(frame: &mut Bytes) -> Result<(), DecodeError> {
    let mut walk = Walk { rest: frame, version: 0, flexible: true, elements: 0 };
    walk.tags(&[])?;
    let left = walk.rest.len();
    frame.advance(frame.len() - left);
    Ok(())
}

struct Walk<'a> {
    rest: &'a [u8],
    version: i16,
    flexible: bool,
    elements: usize,
}

impl Walk<'_> {
    fn shape(&mut self, shape: &Shape) -> Result<(), DecodeError> {
        for field in shape.fields {
            if (field.since..=field.until).contains(&self.version) {
                self.kind(field.kind)?;
            }
        }
        if self.flexible { self.tags(shape.tags) } else { Ok(()) }
    }

    fn kind(&mut self, kind: Kind) -> Result<(), DecodeError> {
        match kind {
            Kind::Fixed(bytes) => self.skip(bytes),
            Kind::Text => {
                let length = if self.flexible { self.compact()? } else { self.short()? };
                self.skip(length.unwrap_or(0))
            }
            Kind::Blob => {
                let length = if self.flexible { self.compact()? } else { self.long()? };
                self.skip(length.unwrap_or(0))
            }
            Kind::Array(shape) => {
                let count = if self.flexible { self.compact()? } else { self.long()? };
                // An element takes a byte at least, so a liar is found out soon; not before the
                // decoder would have believed it, though.
                let count = count.unwrap_or(0);
                if count > self.rest.len() {
                    return Err(DecodeError::Truncated);
                }
                self.count(count)?;
                (0..count).try_for_each(|_| self.shape_of_element(shape))
            }
            Kind::Struct(shape) => self.shape(shape),
            Kind::Option(shape) => match self.rest.try_get_i8() {
                Ok(1) => self.shape(shape),
                Ok(_) => Ok(()),
                Err(_) => Err(DecodeError::Truncated),
            },
        }
    }

    /// Elements that are no structs (numbers, texts) have no tagged fields.
    fn shape_of_element(&mut self, shape: &Shape) -> Result<(), DecodeError> {
        match shape {
            Shape { fields: [Field { kind, .. }], tags: [(u32::MAX, ..)] } => self.kind(*kind),
            _ => self.shape(shape),
        }
    }

    fn tags(&mut self, known: &[(u32, i16, Kind)]) -> Result<(), DecodeError> {
        let count = usize::try_from(self.varint()?).map_err(|_| DecodeError::Length)?;
        if count > self.rest.len() {
            return Err(DecodeError::Truncated);
        }
        self.count(count)?;
        for _ in 0..count {
            let tag = self.varint()?;
            // Tags end at 2^31 - 1; the decoder would take more for a negative one.
            if i32::try_from(tag).is_err() {
                return Err(DecodeError::Length);
            }
            let length = usize::try_from(self.varint()?).map_err(|_| DecodeError::Length)?;
            let before = self.rest.len();
            let known =
                known.iter().find(|(number, since, _)| *number == tag && *since <= self.version);
            match known {
                // The decoder reads the content and not the length: they must agree.
                Some((_, _, kind)) => {
                    self.kind(*kind)?;
                    if before - self.rest.len() != length {
                        return Err(DecodeError::Length);
                    }
                }
                None => self.skip(length)?,
            }
        }
        Ok(())
    }

    fn count(&mut self, elements: usize) -> Result<(), DecodeError> {
        self.elements = self.elements.saturating_add(elements);
        if self.elements > ELEMENTS_MAX {
            return Err(DecodeError::TooManyElements(ELEMENTS_MAX));
        }
        Ok(())
    }

    fn skip(&mut self, bytes: usize) -> Result<(), DecodeError> {
        self.rest = self.rest.get(bytes..).ok_or(DecodeError::Truncated)?;
        Ok(())
    }

    fn short(&mut self) -> Result<Option<usize>, DecodeError> {
        match self.rest.try_get_i16().map_err(|_| DecodeError::Truncated)? {
            -1 => Ok(None),
            length => usize::try_from(length).map(Some).map_err(|_| DecodeError::Length),
        }
    }

    fn long(&mut self) -> Result<Option<usize>, DecodeError> {
        match self.rest.try_get_i32().map_err(|_| DecodeError::Truncated)? {
            -1 => Ok(None),
            length => usize::try_from(length).map(Some).map_err(|_| DecodeError::Length),
        }
    }

    fn compact(&mut self) -> Result<Option<usize>, DecodeError> {
        match self.varint()?.checked_sub(1) {
            None => Ok(None),
            Some(length) => usize::try_from(length).map(Some).map_err(|_| DecodeError::Length),
        }
    }

    fn varint(&mut self) -> Result<u32, DecodeError> {
        let mut value = 0_u32;
        for shift in (0..35).step_by(7) {
            let byte = self.rest.try_get_u8().map_err(|_| DecodeError::Truncated)?;
            let bits = u32::from(byte & 0x7f);
            if shift == 28 && bits > 0x0f {
                return Err(DecodeError::Length);
            }
            value |= bits << shift;
            if byte & 0x80 == 0 {
                return Ok(value);
            }
        }
        Err(DecodeError::Length)
    }
}

#[cfg(test)]
mod tests;
