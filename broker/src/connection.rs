//! A connection: requests in, replies out in the same order.
//!
//! Two halves. The *reading* half cuts frames, decodes them and queues a reply for each. Produce
//! requests begin here, in the order in which they came, so that several of one connection are in
//! flight at once: their latency is that of an object store, and a client's throughput is what its
//! window allows. Every other request is executed when its turn to be answered has come, one after
//! the other, as in Kafka. The *writing* half takes the replies from the queue, finishes and writes
//! them.
//!
//! The queue is bounded, and each request holds its share of the memory budget until it is
//! answered: a client that does not read its replies is not read from.

use std::io;
use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use bytes::{BufMut, Bytes, BytesMut};
use odradek_protocol::error::DecodeError;
use odradek_protocol::frame::{
    LENGTH_BYTES, RequestHeader, announced_length, peer_message, read_header,
};
use odradek_protocol::request::Request;
use odradek_storage::peer::blocks::ANSWER_CONTENT_BYTES_MAX;
use odradek_storage::peer::{News, PeerMessage};
use tokio::io::{AsyncRead, AsyncReadExt, AsyncWrite, AsyncWriteExt};
use tokio::sync::mpsc;
use tokio::time::{Instant, timeout, timeout_at};

use crate::context::Context;
use crate::dispatch::{self, Reply};
use crate::fetch_session::SessionSlot;
use crate::memory::Share;
use crate::session::Session;
use crate::switch::Switch;

/// Replies that may wait in one connection.
const REPLIES_MAX: usize = 256;

/// A connection on which nothing happens is closed after this (`connections.max.idle.ms`).
const IDLE_MAX: Duration = Duration::from_secs(600);

/// A frame that has begun must go on arriving within this.
const FRAME_STALL_MAX: Duration = Duration::from_secs(30);

/// A client must take some of its replies within this.
const WRITE_STALL_MAX: Duration = Duration::from_secs(60);

/// A frame that goes on arriving must arrive this fast, on top of one stall: who sends a byte now
/// and then would hold memory for ever.
const BYTES_PER_SECOND_MIN: usize = 4 * 1024;

/// Memory is taken, and a frame read, in a first step of this many bytes, and then in steps as long
/// as what has come: all the connections there may be, with a frame begun on each, hold less than
/// the usual budget.
const STEP_BYTES: usize = 16 * 1024;

/// Longest message of another broker: more than an entry's worth of proposals.
const PEER_MESSAGE_BYTES_MAX: usize = 512 * 1024;

/// Parts of a response given to the socket at once.
const SLICES_MAX: usize = 64;

/// Why a connection ends.
#[derive(Debug, thiserror::Error)]
enum End {
    #[error("closed by the client")]
    Closed,
    #[error("a message between brokers that is none")]
    NoPeer,
    #[error("idle")]
    Idle,
    #[error("stopping")]
    Stopping,
    #[error("a frame stopped in the middle")]
    FrameStalled,
    #[error("the client does not read its replies")]
    WriteStalled,
    #[error("an unacknowledged produce request failed")]
    Unacknowledged,
    #[error(transparent)]
    Decode(#[from] DecodeError),
    #[error(transparent)]
    Io(#[from] io::Error),
}

/// A reply that waits for its turn, and the memory its request holds.
struct Queued {
    due: Due,
    _share: Share,
}

/// To whom a reply is due.
enum Due {
    /// To a client, whose request was there at `since`.
    Client { header: RequestHeader, reply: Reply, since: Instant },
    /// To another broker, which has asked for blocks.
    Neighbour(PeerMessage),
}

/// Who is at the other end, as far as the connection tells.
#[derive(Clone, Debug)]
pub(crate) struct Client {
    pub(crate) peer: SocketAddr,
    /// The zone whose listener it came by, if it came by one.
    pub(crate) listener_zone: Option<String>,
}

/// Serves a connection until it ends.
pub(crate) async fn serve(
    (read, write): (impl AsyncRead + Unpin, impl AsyncWrite + Unpin),
    client: Client,
    context: Arc<Context>,
    stop: Switch,
) {
    let (replies, queue) = mpsc::channel(REPLIES_MAX);
    let peer = client.peer;
    let fetches = SessionSlot::default();
    let reader = Reader { read, client, fetches, context: Arc::clone(&context), replies, stop };
    let end = {
        let reading = reader.run();
        let writing = write_replies(write, queue, Arc::clone(&context));
        tokio::pin!(reading, writing);
        tokio::select! {
            biased;
            end = &mut reading => match end {
                // Told to stop: what was read is still answered.
                End::Stopping => writing.await.err().unwrap_or(End::Stopping),
                end => end,
            },
            written = &mut writing => written.err().unwrap_or(End::Closed),
        }
    };
    let is_nonsense = matches!(end, End::Decode(_) | End::NoPeer);
    match is_nonsense.then(|| context.nonsense.pass()).flatten() {
        Some(more) => tracing::warn!(%peer, reason = %end, more, "connection closed"),
        None => tracing::debug!(%peer, reason = %end, "connection closed"),
    }
}

struct Reader<R> {
    read: R,
    client: Client,
    fetches: SessionSlot,
    context: Arc<Context>,
    replies: mpsc::Sender<Queued>,
    stop: Switch,
}

impl<R: AsyncRead + Unpin> Reader<R> {
    async fn run(mut self) -> End {
        loop {
            if let Err(end) = self.request().await {
                return end;
            }
        }
    }

    async fn request(&mut self) -> Result<(), End> {
        let length = self.frame_length().await?;
        let (mut body, share) = self.frame(length).await?;
        if let Some(message) = peer_message(&body) {
            // Not from a broker of this cluster, or damaged: either way there is no one to answer.
            // Nothing of ours is long, and what is long would be longer still when decoded.
            if message.len() > PEER_MESSAGE_BYTES_MAX {
                return Err(End::NoPeer);
            }
            let message = PeerMessage::decode(&message).map_err(|_| End::NoPeer)?;
            if matches!(message.news, News::Ask(_)) {
                if !self.context.machine().concerns(&message) {
                    return Err(End::Closed);
                }
                let queued = Queued { due: Due::Neighbour(message), _share: share };
                return self.replies.send(queued).await.map_err(|_| End::Closed);
            }
            self.context.machine().receive(message);
            return Ok(());
        }
        let since = Instant::now();
        let header = read_header(&mut body)?;
        let request = Request::decode(&header, body)?;
        let Client { peer, listener_zone } = self.client.clone();
        let session = Session::new(peer, &header.client_id, listener_zone, self.fetches.clone());
        let reply = dispatch::begin(&self.context, session, header.version, request).await;
        let reply = match reply {
            Reply::None => {
                self.context.metrics.carried_out(header.api, since.elapsed(), None);
                return Ok(());
            }
            Reply::Close => return Err(End::Unacknowledged),
            reply => reply,
        };
        let queued = Queued { due: Due::Client { header, reply, since }, _share: share };
        self.replies.send(queued).await.map_err(|_| End::Closed)
    }

    /// Waits for the next frame to begin.
    async fn frame_length(&mut self) -> Result<usize, End> {
        let mut prefix = [0; LENGTH_BYTES];
        loop {
            tokio::select! {
                biased;
                () = self.stop.wait_for(true) => return Err(End::Stopping),
                read = self.read.read(&mut prefix[..1]) => {
                    if read? == 0 {
                        return Err(End::Closed);
                    }
                    break;
                }
                () = tokio::time::sleep(IDLE_MAX) => {
                    // Only if nothing is in flight either.
                    if self.replies.capacity() == REPLIES_MAX {
                        return Err(End::Idle);
                    }
                }
            }
        }
        timeout(FRAME_STALL_MAX, self.read.read_exact(&mut prefix[1..]))
            .await
            .map_err(|_| End::FrameStalled)??;
        Ok(announced_length(prefix, self.context.config.request_bytes_max)?)
    }

    /// Reads a frame in steps: a client that announces much and sends little costs little.
    async fn frame(&mut self, length: usize) -> Result<(Bytes, Share), End> {
        let mut frame = BytesMut::new();
        let mut share = self.context.memory.begin(length.min(STEP_BYTES)).await;
        loop {
            let step = (length - frame.len()).min(STEP_BYTES.max(frame.len()));
            self.fill(&mut frame, step).await?;
            if frame.len() == length {
                return Ok((frame.freeze(), share));
            }
            let next = (length - frame.len()).min(frame.len());
            self.context.memory.extend(&mut share, next).await;
        }
    }

    /// Reads so many bytes more. Their memory is not cleared before: nobody sees it until then.
    async fn fill(&mut self, frame: &mut BytesMut, step: usize) -> Result<(), End> {
        let seconds = u64::try_from(step / BYTES_PER_SECOND_MIN).unwrap_or(u64::MAX);
        let slowest = Instant::now() + FRAME_STALL_MAX + Duration::from_secs(seconds);
        frame.reserve(step);
        let mut rest = frame.limit(step);
        while rest.has_remaining_mut() {
            let deadline = slowest.min(Instant::now() + FRAME_STALL_MAX);
            let read = timeout_at(deadline, self.read.read_buf(&mut rest));
            if read.await.map_err(|_| End::FrameStalled)?? == 0 {
                return Err(End::Closed);
            }
        }
        Ok(())
    }
}

async fn write_replies(
    mut write: impl AsyncWrite + Unpin,
    mut queue: mpsc::Receiver<Queued>,
    context: Arc<Context>,
) -> Result<(), End> {
    while let Some(queued) = queue.recv().await {
        let Queued { due, _share } = queued;
        let parts = match due {
            Due::Client { header, reply, since } => {
                dispatch::finish(&context, &header, reply, since).await.ok_or(End::Closed)?
            }
            Due::Neighbour(question) => blocks(&context, question).await.ok_or(End::Closed)?,
        };
        write_parts(&mut write, parts).await?;
    }
    // Fails if the client is gone already, which is as good.
    drop(write.shutdown().await);
    Ok(())
}

/// The answer to another broker that asks for blocks, in parts; `None` if it takes this one for
/// another.
async fn blocks(context: &Context, question: PeerMessage) -> Option<Vec<Bytes>> {
    let News::Ask(blocks) = &question.news else { return None };
    let asked = blocks.iter().fold(0_usize, |bytes, block| {
        bytes.saturating_add(usize::try_from(block.stored_bytes).unwrap_or(usize::MAX))
    });
    // Who gets less reads the rest for itself.
    let mut claim = context.answers.claim(asked.min(ANSWER_CONTENT_BYTES_MAX));
    let answer = context.engine.reader.answer(question, claim.bytes()).await?;
    claim.settle(answer.content_bytes());
    let mut parts = answer.encode();
    if let Some(last) = parts.pop() {
        parts.push(claim.attach(last));
    }
    Some(parts)
}

/// Writes the parts one after the other, without joining them.
async fn write_parts(
    write: &mut (impl AsyncWrite + Unpin),
    mut parts: Vec<Bytes>,
) -> Result<(), End> {
    let mut first = 0;
    while first < parts.len() {
        if parts[first].is_empty() {
            first += 1;
            continue;
        }
        let last = parts.len().min(first + SLICES_MAX);
        let slices: Vec<io::IoSlice<'_>> =
            parts[first..last].iter().map(|part| io::IoSlice::new(part)).collect();
        let written = timeout(WRITE_STALL_MAX, write.write_vectored(&slices));
        let mut written = written.await.map_err(|_| End::WriteStalled)??;
        if written == 0 {
            return Err(End::Closed);
        }
        while written > 0 {
            let taken = written.min(parts[first].len());
            drop(parts[first].split_to(taken));
            written -= taken;
            if parts[first].is_empty() {
                first += 1;
            }
        }
    }
    Ok(())
}
