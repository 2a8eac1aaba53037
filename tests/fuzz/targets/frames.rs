//! A stream of bytes, cut into frames and read as a connection does.

use bytes::Bytes;
use odradek_protocol::error::DecodeError;
use odradek_protocol::frame::{
    LENGTH_BYTES, announced_length, peer_frame, peer_message, read_header,
};
use odradek_protocol::request::Request;
use odradek_storage::peer::PeerMessage;

use super::oracle::bounded;
use super::{entries, requests, samples};

/// What a broker takes unless told otherwise.
const LIMIT: usize = 100 * 1024 * 1024;

/// Reads requests until one is refused or the stream ends, as `connection` does.
pub(crate) fn run(data: &[u8]) {
    let mut rest = Bytes::copy_from_slice(data);
    while let Some(prefix) = rest.first_chunk::<LENGTH_BYTES>() {
        let Ok(length) = announced_length(*prefix, LIMIT) else { return };
        assert!((8..=LIMIT).contains(&length));
        if rest.len() - LENGTH_BYTES < length {
            return;
        }
        let _prefix = rest.split_to(LENGTH_BYTES);
        let frame = rest.split_to(length);
        if bounded(length, || read(frame.clone())).is_err() {
            return;
        }
    }
}

fn read(mut body: Bytes) -> Result<(), DecodeError> {
    if let Some(message) = peer_message(&body) {
        let framed = peer_frame(&message);
        assert_eq!(peer_message(&framed.slice(LENGTH_BYTES..)), Some(message.clone()));
        // Whether it is one is another target's to find out.
        drop(PeerMessage::decode(&message));
        return Ok(());
    }
    let header = read_header(&mut body)?;
    // A header that is cut anywhere is none. (Not worth the time for long ones.)
    Request::decode(&header, body).map(drop)
}

pub(crate) fn seeds() -> Vec<Vec<u8>> {
    let framed = |message: &[u8]| {
        let length = i32::try_from(message.len()).unwrap();
        [&length.to_be_bytes()[..], message].concat()
    };
    let mut seeds: Vec<Vec<u8>> = requests::samples()
        .map(|(key, version, body)| framed(&samples::request(key, version, &body)))
        .collect();
    let pipelined = seeds.iter().take(12).flatten().copied().collect();
    seeds.push(pipelined);
    seeds.extend(entries::peer_messages().iter().map(|message| peer_frame(message).to_vec()));
    seeds
}
