//! Making a replica: what the log holds behind a state is applied to it.
//!
//! Shared by whoever starts to follow the log for good (`machine`) and whoever only wants to see
//! what there is (`fsck`, `inspect`). How often a call is repeated that was not answered is up to
//! them.

use crate::command::codec::CodecError;
use crate::command::{Entry, EntryHash};
use crate::log::LogRead;
use crate::lsn::Lsn;
use crate::port::PortError;
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
    /// The backend does not give it.
    #[error("the log can't be read: {0}")]
    Log(PortError),
}

/// Applies all that the log holds behind `state`, up to its tail at some moment during the call.
/// Returns how many bytes of entries that were. After an error the state holds what could be
/// applied.
pub(crate) async fn follow<F>(
    state: &mut State,
    mut read: impl FnMut(Lsn) -> F,
) -> Result<u64, FollowError>
where
    F: Future<Output = Result<LogRead, PortError>>,
{
    let mut bytes = 0_u64;
    loop {
        let (slots, at_tail) = match read(state.applied().next()).await.map_err(FollowError::Log)? {
            LogRead::Entries { slots, at_tail } => (slots, at_tail),
            LogRead::Trimmed(floor) => return Err(FollowError::Trimmed(floor)),
        };
        for slot in slots {
            let entry = Entry::decode(&slot.bytes)
                .map_err(|cause| FollowError::Entry { lsn: slot.lsn, cause })?;
            state.apply(&entry, EntryHash::of(&slot.bytes))?;
            bytes = bytes.saturating_add(u64::try_from(slot.bytes.len()).unwrap_or(u64::MAX));
        }
        if at_tail {
            return Ok(bytes);
        }
    }
}
