//! Peers: what brokers tell each other directly.
//!
//! Only hints and favours, on which nothing depends but speed and fairness: every message may get
//! lost, come late or twice. The log alone decides. A message names the incarnation it is for;
//! whoever knows it has read the log, which only brokers can.

use std::fmt;

use bytes::Bytes;
use prost::Message;

use crate::command::codec::{self, CodecError, wire};
use crate::command::{Endpoint, Incarnation, Proposal};
use crate::envelope::Format;
use crate::lsn::Lsn;

#[cfg(any(test, feature = "test-util"))]
pub mod memory;

const PEER_FORMAT: Format = Format { magic: *b"ODRH", version: 1 };

/// What one broker tells another.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct PeerMessage {
    /// Whom it is for.
    pub to: Incarnation,
    /// Who says it.
    pub from: Incarnation,
    /// What is said.
    pub news: News,
}

/// See [`PeerMessage`].
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum News {
    /// The log is filled up to here: it is worth reading.
    Filled {
        /// A slot that is filled, durably.
        lsn: Lsn,
        /// What stands there, if that is not too much to send along: then it need not be read.
        entry: Option<SentEntry>,
    },
    /// Somebody has lost the race for a slot too often and asks to have these appended along with
    /// one's own. What is applied twice is dropped, so nothing is lost if both append them.
    Help {
        /// The proposals.
        proposals: Vec<Proposal>,
        /// The footers that they name, in order, each in a zstd frame.
        footers: Vec<Bytes>,
    },
}

/// An entry that is sent along.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct SentEntry {
    /// Its bytes, as they stand in the log.
    pub bytes: Bytes,
    /// The footers that it names, in order, each in a zstd frame; none if they were too long.
    pub footers: Vec<Bytes>,
}

impl SentEntry {
    /// How long all of it is, in bytes.
    pub(crate) fn len(&self) -> usize {
        self.bytes.len() + self.footers.iter().map(Bytes::len).sum::<usize>()
    }
}

/// A way to other brokers.
pub trait PeerLink: fmt::Debug + Send + Sync {
    /// Sends a message to the broker at `endpoint`, if that is possible just now; never waits.
    fn send(&self, endpoint: &Endpoint, message: PeerMessage);
}

/// No way: for a broker that is alone.
#[derive(Clone, Copy, Debug, Default)]
pub struct NoPeers;

impl PeerLink for NoPeers {
    fn send(&self, _: &Endpoint, _: PeerMessage) {}
}

#[derive(Clone, PartialEq, Message)]
struct Stored {
    #[prost(fixed64, tag = "1")]
    to: u64,
    #[prost(fixed64, tag = "2")]
    from: u64,
    #[prost(uint64, tag = "3")]
    filled: u64,
    #[prost(message, repeated, tag = "4")]
    help: Vec<wire::Proposal>,
    #[prost(bytes = "bytes", tag = "5")]
    entry: Bytes,
    #[prost(bytes = "bytes", repeated, tag = "6")]
    footers: Vec<Bytes>,
}

impl PeerMessage {
    /// The message as bytes.
    pub fn encode(&self) -> Bytes {
        let mut stored = Stored { to: self.to.0, from: self.from.0, ..Stored::default() };
        match &self.news {
            News::Filled { lsn, entry } => {
                stored.filled = lsn.get();
                let SentEntry { bytes, footers } = entry.clone().unwrap_or_default();
                (stored.entry, stored.footers) = (bytes, footers);
            }
            News::Help { proposals, footers } => {
                stored.help = proposals.iter().map(Into::into).collect();
                stored.footers.clone_from(footers);
            }
        }
        PEER_FORMAT.seal(&stored.encode_to_vec())
    }

    /// The message in these bytes.
    pub fn decode(bytes: &Bytes) -> Result<Self, CodecError> {
        let (_, payload) = PEER_FORMAT.open(bytes)?;
        let stored = Stored::decode(payload)?;
        let news = match stored.filled {
            0 => {
                let proposals = stored.help.into_iter().map(codec::proposal);
                let proposals = proposals.collect::<Result<_, CodecError>>()?;
                News::Help { proposals, footers: stored.footers }
            }
            filled => {
                let entry = SentEntry { bytes: stored.entry, footers: stored.footers };
                let entry = Some(entry).filter(|entry| !entry.bytes.is_empty());
                News::Filled { lsn: Lsn::new(filled), entry }
            }
        };
        Ok(Self { to: Incarnation(stored.to), from: Incarnation(stored.from), news })
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::command::{Command, CommandId};

    #[test]
    fn a_message_is_read_back_as_it_was_sent() {
        let id = CommandId { incarnation: Incarnation(7), counter: 3 };
        let proposals = vec![Proposal { id, command: Command::Heartbeat }];
        let filled = |entry| News::Filled { lsn: Lsn::new(9), entry };
        let footers = vec![Bytes::from_static(b"one"), Bytes::from_static(b"another")];
        let bytes = Bytes::from_static(b"an entry");
        let entry = SentEntry { bytes: bytes.clone(), footers: Vec::new() };
        let with_footers = SentEntry { bytes, footers: footers.clone() };
        let help = News::Help { proposals, footers };
        for news in [filled(None), filled(Some(entry)), filled(Some(with_footers)), help] {
            let message = PeerMessage { to: Incarnation(1), from: Incarnation(2), news };
            let bytes = message.encode();
            assert_eq!(PeerMessage::decode(&bytes), Ok(message));
            for at in 0..bytes.len() {
                let mut damaged = bytes.to_vec();
                damaged[at] ^= 1;
                assert!(PeerMessage::decode(&damaged.into()).is_err(), "{at}");
            }
        }
    }
}
