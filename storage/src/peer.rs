//! Peers: what brokers tell each other directly.
//!
//! Only hints and favours, on which nothing depends but speed and fairness: every message may get
//! lost, come late or twice. The log alone decides. A message names the incarnation it is for;
//! whoever knows it has read the log, which only brokers can.

use std::fmt;

use async_trait::async_trait;
use bytes::Bytes;
use prost::Message;

use crate::command::codec::{self, CodecError, wire};
use crate::command::{Endpoint, Incarnation, Proposal};
use crate::envelope::Format;
use crate::lsn::Lsn;
use crate::port::PortError;

pub mod blocks;
#[cfg(any(test, feature = "test-util"))]
pub mod memory;

use blocks::{BLOCKS_ASKED_MAX, BlockAddress, BlockAnswer, StoredAddress};

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
    /// Somebody would like the content of these blocks, and waits for a [`BlockAnswer`] on the same
    /// connection: see [`PeerLink::ask`]. At least one, and at most [`BLOCKS_ASKED_MAX`].
    Ask(Vec<BlockAddress>),
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
#[async_trait]
pub trait PeerLink: fmt::Debug + Send + Sync {
    /// Sends a message to the broker at `endpoint`, if that is possible just now; never waits.
    fn send(&self, endpoint: &Endpoint, message: PeerMessage);

    /// Asks the broker at `endpoint` for blocks ([`News::Ask`]), and waits for the answer for as
    /// long as it takes: whoever asks decides how long that may be. A question has no effect, so
    /// how an error is sorted matters to nobody.
    async fn ask(
        &self,
        endpoint: &Endpoint,
        question: PeerMessage,
    ) -> Result<BlockAnswer, PortError>;
}

/// No way: for a broker that is alone.
#[derive(Clone, Copy, Debug, Default)]
pub struct NoPeers;

#[async_trait]
impl PeerLink for NoPeers {
    fn send(&self, _: &Endpoint, _: PeerMessage) {}

    async fn ask(&self, _: &Endpoint, _: PeerMessage) -> Result<BlockAnswer, PortError> {
        Err(PortError::determinate("there is no way to other brokers"))
    }
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
    #[prost(message, repeated, tag = "7")]
    asked: Vec<StoredAddress>,
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
            News::Ask(blocks) => stored.asked = blocks.iter().map(Into::into).collect(),
        }
        PEER_FORMAT.seal(&stored.encode_to_vec())
    }

    /// The message in these bytes.
    pub fn decode(bytes: &Bytes) -> Result<Self, CodecError> {
        let (_, payload) = PEER_FORMAT.open(bytes)?;
        let stored = Stored::decode(payload)?;
        let news = match stored.filled {
            0 if !stored.asked.is_empty() => {
                if stored.asked.len() > BLOCKS_ASKED_MAX {
                    return Err(CodecError::Field("asked"));
                }
                let blocks = stored.asked.into_iter().map(TryInto::try_into);
                News::Ask(blocks.collect::<Result<_, CodecError>>()?)
            }
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
    use odradek_protocol::id::{TopicId, TopicPartition};
    use uuid::Uuid;

    use super::*;
    use crate::command::{Command, CommandId};
    use crate::segment::SegmentId;

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
        let address = BlockAddress {
            segment: SegmentId { began: Lsn::new(5), incarnation: Incarnation(8), counter: 2 },
            segment_bytes: 4000,
            position: 900,
            stored_bytes: 77,
            owner: TopicPartition { topic: TopicId(Uuid::from_u128(3)), partition: 12 },
        };
        let ask = News::Ask(vec![address, BlockAddress { position: 977, ..address }]);
        for news in [filled(None), filled(Some(entry)), filled(Some(with_footers)), help, ask] {
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
