//! Frames: a length, a header, a body.

use bytes::{Buf, BufMut, Bytes, BytesMut};

use crate::api;
use crate::error::DecodeError;
use crate::messages::ApiKey;

/// The API by which brokers of a cluster speak with each other: far from Kafka's, and in no table.
const PEER_API: i16 = 31_000;

/// Bytes of the length before a frame.
pub const LENGTH_BYTES: usize = 4;

/// No request is shorter: api key, version and correlation id.
const REQUEST_BYTES_MIN: usize = 8;

/// The header of a request, versions 1 and 2.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct RequestHeader {
    /// The api key as sent; see [`crate::api::find`].
    pub api: i16,
    /// The version of the request.
    pub version: i16,
    /// What the response must carry.
    pub correlation_id: i32,
    /// What the client calls itself; empty if it does not say.
    pub client_id: String,
}

/// The length that the first four bytes announce, if it is one that is taken.
pub fn announced_length(prefix: [u8; LENGTH_BYTES], limit: usize) -> Result<usize, DecodeError> {
    let announced = i32::from_be_bytes(prefix);
    let length = usize::try_from(announced).map_err(|_| DecodeError::FrameLength(announced))?;
    if length < REQUEST_BYTES_MIN {
        return Err(DecodeError::FrameLength(announced));
    }
    if length <= limit {
        return Ok(length);
    }
    match &prefix {
        [0x16, 0x03, ..] => Err(DecodeError::OtherProtocol("TLS handshake")),
        [0x15, 0x03, ..] => Err(DecodeError::OtherProtocol("TLS alert")),
        b"GET " | b"POST" | b"PUT " | b"HEAD" | b"OPTI" | b"DELE" | b"PRI " => {
            Err(DecodeError::OtherProtocol("HTTP request"))
        }
        b"SSH-" => Err(DecodeError::OtherProtocol("SSH greeting")),
        _ => Err(DecodeError::FrameTooLong { announced: length, limit }),
    }
}

/// A message to another broker as a frame, with its length.
pub fn peer_frame(message: &[u8]) -> Bytes {
    let mut frame = BytesMut::with_capacity(LENGTH_BYTES + REQUEST_BYTES_MIN + message.len());
    // A message is far shorter than a frame may be.
    frame.put_i32(i32::try_from(REQUEST_BYTES_MIN + message.len()).unwrap_or(i32::MAX));
    frame.put_i16(PEER_API);
    frame.put_i16(0);
    frame.put_i32(0);
    frame.put_slice(message);
    frame.freeze()
}

/// The message of another broker in a frame, without its length; `None` if it is a client's
/// request.
pub fn peer_message(frame: &Bytes) -> Option<Bytes> {
    let is_peer = frame.starts_with(&PEER_API.to_be_bytes()) && frame.len() >= REQUEST_BYTES_MIN;
    is_peer.then(|| frame.slice(REQUEST_BYTES_MIN..))
}

/// Reads the header of a request and leaves the body in `frame`.
///
/// Tells an unknown api key or an unsupported version before anything of the body is looked at. An
/// ApiVersions request of a version that is not served is let through with its body unread: it is
/// answered, so that the client can try a lower one (KIP-511).
pub fn read_header(frame: &mut Bytes) -> Result<RequestHeader, DecodeError> {
    let api = frame.try_get_i16().map_err(|_| DecodeError::Truncated)?;
    let version = frame.try_get_i16().map_err(|_| DecodeError::Truncated)?;
    let correlation_id = frame.try_get_i32().map_err(|_| DecodeError::Truncated)?;
    let row = api::find(api).ok_or(DecodeError::UnknownApi(api))?;
    if version < row.min || version > row.max {
        if row.key == ApiKey::ApiVersions {
            return Ok(RequestHeader { api, version, correlation_id, client_id: String::new() });
        }
        return Err(DecodeError::UnsupportedVersion { api, version });
    }
    // The client id is never compact, not even in header version 2.
    let client_id = match frame.try_get_i16().map_err(|_| DecodeError::Truncated)? {
        -1 => String::new(),
        length => {
            let length = usize::try_from(length).map_err(|_| DecodeError::Length)?;
            if length > frame.len() {
                return Err(DecodeError::Truncated);
            }
            let text = frame.split_to(length);
            str::from_utf8(&text).map_err(|_| DecodeError::Text)?.to_owned()
        }
    };
    if row.key.request_header_version(version) >= 2 {
        crate::bounds::skip_tags(frame)?;
    }
    Ok(RequestHeader { api, version, correlation_id, client_id })
}

/// Begins a response frame: room for its length, and its header.
pub(crate) fn begin_response(key: ApiKey, version: i16, correlation_id: i32) -> BytesMut {
    let mut frame = BytesMut::with_capacity(256);
    frame.put_i32(0);
    frame.put_i32(correlation_id);
    // ApiVersions answers with header version 0 always: the client may not know better yet.
    if key.response_header_version(version) >= 1 {
        frame.put_u8(0);
    }
    frame
}

/// Writes the length of a frame whose parts are complete.
pub(crate) fn put_length(first: &mut BytesMut, rest: usize) {
    let length = first.len() - LENGTH_BYTES + rest;
    let length = i32::try_from(length).expect("a response is far shorter than 2 GiB");
    first[..LENGTH_BYTES].copy_from_slice(&length.to_be_bytes());
}

#[cfg(test)]
mod tests {
    use super::*;

    const LIMIT: usize = 100 * 1024 * 1024;

    #[test]
    fn lengths_that_are_no_frames_are_told_apart() {
        assert_eq!(announced_length([0, 0, 0, 8], LIMIT), Ok(8));
        assert_eq!(announced_length([0, 0, 0, 7], LIMIT), Err(DecodeError::FrameLength(7)));
        assert_eq!(announced_length([0xff; 4], LIMIT), Err(DecodeError::FrameLength(-1)));
        assert_eq!(
            announced_length(*b"GET ", LIMIT),
            Err(DecodeError::OtherProtocol("HTTP request"))
        );
        assert_eq!(
            announced_length([0x16, 3, 1, 2], LIMIT),
            Err(DecodeError::OtherProtocol("TLS handshake"))
        );
        assert_eq!(
            announced_length([0x7f, 0xff, 0xff, 0xff], LIMIT),
            Err(DecodeError::FrameTooLong { announced: 0x7fff_ffff, limit: LIMIT })
        );
    }

    #[test]
    fn a_header_that_ends_early_is_an_error_at_every_byte() {
        let whole: &[u8] = &[0, 3, 0, 9, 0, 0, 0, 7, 0, 2, b'm', b'e', 0];
        let mut frame = Bytes::from_static(whole);
        let header = read_header(&mut frame).unwrap();
        assert_eq!((header.correlation_id, header.client_id.as_str()), (7, "me"));
        assert!(frame.is_empty());
        for end in 0..whole.len() {
            assert!(read_header(&mut Bytes::from_static(&whole[..end])).is_err(), "{end}");
        }
    }

    #[test]
    fn an_api_versions_request_of_the_future_gets_through() {
        let mut frame = Bytes::from_static(&[0, 18, 0, 5, 0, 0, 0, 9, 0xff]);
        let header = read_header(&mut frame).unwrap();
        assert_eq!((header.api, header.version, header.correlation_id), (18, 5, 9));
    }
}
