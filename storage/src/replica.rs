//! Making a replica: what the log holds behind a state is applied to it.
//!
//! Shared by whoever starts to follow the log for good (`machine`) and whoever only wants to see
//! what there is (`fsck`, `inspect`). How often a call is repeated that was not answered is up to
//! them.

use std::ops::Range;

use bytes::Bytes;

use crate::command::codec::CodecError;
use crate::command::{Entry, EntryHash};
use crate::footers;
use crate::log::{LogRead, Slot};
use crate::lsn::Lsn;
use crate::object::ObjectKey;
use crate::port::PortError;
use crate::segment::SegmentId;
use crate::state::{Halt, State};

/// Why a state can't be brought to the tail of the log.
#[derive(Debug, thiserror::Error)]
pub(crate) enum FollowError {
    /// The log begins behind what the state has applied.
    #[error("the log begins at {0}")]
    Trimmed(Lsn),
    /// An entry can't be read.
    #[error("entry {lsn} can't be read: {cause}")]
    Entry {
        /// Which.
        lsn: Lsn,
        /// Why.
        cause: CodecError,
    },
    /// An entry can't be applied.
    #[error("entry can't be applied: {0}")]
    Halt(#[from] Halt),
    /// An entry needs the footer of a segment that is not there, or is damaged.
    #[error("entry {lsn} needs the footer of segment {segment}, which is gone or damaged")]
    NoFooter {
        /// Which.
        lsn: Lsn,
        /// The segment.
        segment: SegmentId,
    },
    /// The log does not give it.
    #[error("the log can't be read: {0}")]
    Log(PortError),
    /// The store does not give a footer.
    #[error("the object store can't be read: {0}")]
    Objects(PortError),
}

/// Applies all that the log holds behind `state`, up to its tail at some moment during the call.
/// Returns how much that was, in bytes of entries ([`footers::weight`]). After an error the state
/// holds what could be applied.
pub(crate) async fn follow<L, O>(
    state: &mut State,
    mut read: impl FnMut(Lsn) -> L,
    get: impl Fn(ObjectKey, Range<u64>) -> O,
) -> Result<u64, FollowError>
where
    L: Future<Output = Result<LogRead, PortError>>,
    O: Future<Output = Result<Option<Bytes>, PortError>>,
{
    let mut weight = 0_u64;
    loop {
        let (slots, at_tail) = match read(state.applied().next()).await.map_err(FollowError::Log)? {
            LogRead::Entries { slots, at_tail } => (slots, at_tail),
            LogRead::Trimmed(floor) => return Err(FollowError::Trimmed(floor)),
        };
        let decode = |slot: &Slot| {
            let lsn = slot.lsn;
            Entry::decode(&slot.bytes).map_err(|cause| FollowError::Entry { lsn, cause })
        };
        let mut entries = slots.iter().map(decode).collect::<Result<Vec<_>, _>>()?;
        footers::read(&mut entries, &get).await.map_err(FollowError::Objects)?;
        for (entry, slot) in entries.iter().zip(slots) {
            match state.apply(entry, EntryHash::of(&slot.bytes)) {
                Ok(_) => {}
                Err(Halt::NoFooter { lsn, segment }) => {
                    return Err(FollowError::NoFooter { lsn, segment });
                }
                Err(halt) => return Err(halt.into()),
            }
            weight = weight.saturating_add(footers::weight(entry, slot.bytes.len()));
        }
        if at_tail {
            return Ok(weight);
        }
    }
}
