//! The stored form of a segment's footer, and of how an entry names it.

use bytes::Bytes;
use prost::Message;

use super::{CodecError, wire};
use crate::command::{FooterRef, Run};
use crate::segment::SegmentId;

/// The stored form of a segment's footer: its commit, with the end of its last block for a length.
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

impl From<FooterRef> for wire::CommitByFooter {
    fn from(footer: FooterRef) -> Self {
        Self {
            segment: Some(footer.segment.into()),
            bytes: footer.segment_bytes,
            footer_bytes: footer.bytes,
            footer_hash: footer.hash,
        }
    }
}

impl TryFrom<wire::CommitByFooter> for FooterRef {
    type Error = CodecError;

    fn try_from(stored: wire::CommitByFooter) -> Result<Self, CodecError> {
        if stored.footer_bytes > Self::BYTES_MAX {
            return Err(CodecError::Field("footer_bytes"));
        }
        Ok(Self {
            segment: stored.segment.ok_or(CodecError::Field("segment"))?.into(),
            segment_bytes: stored.bytes,
            bytes: stored.footer_bytes,
            hash: stored.footer_hash,
        })
    }
}
