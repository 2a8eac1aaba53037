//! Replies that are not what the store sent: with a bit that changed, or an end that is missing.

use std::convert::Infallible;
use std::pin::Pin;
use std::task::{Context, Poll};

use bytes::Bytes;
use hyper::Response;
use hyper::body::{Body, Frame, SizeHint};

/// Marks a reply of whose body only this share arrives.
#[derive(Clone, Copy, Debug)]
pub(super) struct CutShort(pub(super) f64);

/// The body of a reply. One that is cut short does not say so: its connection breaks off where the
/// bytes end that its head has promised.
#[derive(Debug)]
pub(super) struct ReplyBody {
    bytes: Option<Bytes>,
    is_cut: bool,
}

impl ReplyBody {
    /// A body that arrives as it is.
    pub(super) fn whole(bytes: Bytes) -> Self {
        Self { bytes: Some(bytes), is_cut: false }
    }

    /// The reply as its client gets it.
    pub(super) fn of(reply: Response<Bytes>) -> Response<Self> {
        match reply.extensions().get::<CutShort>().copied() {
            Some(CutShort(share)) => reply.map(|bytes| {
                let arrives = place(&bytes, share);
                Self { bytes: Some(bytes.slice(..arrives)), is_cut: true }
            }),
            None => reply.map(Self::whole),
        }
    }
}

impl Body for ReplyBody {
    type Data = Bytes;
    type Error = Infallible;

    fn poll_frame(
        mut self: Pin<&mut Self>,
        _context: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, Infallible>>> {
        let bytes = self.bytes.take().filter(|bytes| !bytes.is_empty());
        Poll::Ready(bytes.map(|bytes| Ok(Frame::data(bytes))))
    }

    fn is_end_stream(&self) -> bool {
        !self.is_cut && self.bytes.as_ref().is_none_or(Bytes::is_empty)
    }

    fn size_hint(&self) -> SizeHint {
        match &self.bytes {
            Some(bytes) if !self.is_cut => SizeHint::with_exact(wide(bytes.len())),
            _ => SizeHint::new(),
        }
    }
}

/// The reply with one bit of its body changed, so far into it.
pub(super) fn corrupted(reply: Response<Bytes>, at: f64) -> Response<Bytes> {
    reply.map(|bytes| {
        let mut bytes = bytes.to_vec();
        let at = place(&bytes, at);
        if let Some(byte) = bytes.get_mut(at) {
            *byte ^= 1;
        }
        bytes.into()
    })
}

/// The index that lies so far into `bytes`, out of `0..1`.
fn place(bytes: &[u8], share: f64) -> usize {
    let length = f64::from(u32::try_from(bytes.len()).unwrap_or(u32::MAX));
    #[expect(clippy::as_conversions, reason = "a float below 2^32 has no other conversion")]
    let at = (length * share) as usize;
    at.min(bytes.len().saturating_sub(1))
}

fn wide(length: usize) -> u64 {
    u64::try_from(length).unwrap_or(u64::MAX)
}
