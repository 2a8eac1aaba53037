//! The stored form of a segment's footers, and of how an entry names them.

use bytes::Bytes;
use prost::Message;

use super::{CodecError, wire};
use crate::command::{FooterRef, Replacement, Run};
use crate::segment::SegmentId;

/// The stored form of a segment's last footer: its commit, with the bytes before the footer for a
/// length.
pub(crate) fn encode_footer<'a>(
    segment: SegmentId,
    blocks_end: u64,
    runs: impl Iterator<Item = &'a Run>,
) -> Vec<u8> {
    let runs = runs.map(Into::into).collect();
    wire::CommitSegment { segment: Some(segment.into()), bytes: blocks_end, runs }.encode_to_vec()
}

/// Reads what [`encode_footer`] wrote.
pub(crate) fn decode_footer(footer: Bytes) -> Result<(SegmentId, u64, Vec<Run>), CodecError> {
    let footer = wire::CommitSegment::decode(footer)?;
    let segment = footer.segment.ok_or(CodecError::Field("segment"))?.into();
    let runs = footer.runs.into_iter().map(super::run).collect::<Result<_, _>>()?;
    Ok((segment, footer.bytes, runs))
}

/// The stored form of a footer that says what is replaced by what lies in its segment.
pub(crate) fn encode_replacements(replacements: &[Replacement]) -> Vec<u8> {
    let replacements = replacements.iter().map(Into::into).collect();
    wire::Replacements { replacements }.encode_to_vec()
}

/// Reads what [`encode_replacements`] wrote.
pub(crate) fn decode_replacements(footer: Bytes) -> Result<Vec<Replacement>, CodecError> {
    wire::Replacements::decode(footer)?.replacements.into_iter().map(TryInto::try_into).collect()
}

impl From<FooterRef> for wire::FooterRef {
    fn from(footer: FooterRef) -> Self {
        Self {
            segment: Some(footer.segment.into()),
            segment_bytes: footer.segment_bytes,
            position: footer.position,
            bytes: footer.bytes,
            hash: footer.hash,
        }
    }
}

impl TryFrom<wire::FooterRef> for FooterRef {
    type Error = CodecError;

    fn try_from(stored: wire::FooterRef) -> Result<Self, CodecError> {
        if stored.bytes > Self::BYTES_MAX {
            return Err(CodecError::Field("bytes"));
        }
        Ok(Self {
            segment: stored.segment.ok_or(CodecError::Field("segment"))?.into(),
            segment_bytes: stored.segment_bytes,
            position: stored.position,
            bytes: stored.bytes,
            hash: stored.hash,
        })
    }
}
