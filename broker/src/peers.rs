//! The way to other brokers: one connection each, over which messages go and nothing comes back,
//! and some more for questions, each of which is free again when its answer has come.
//!
//! A message that can't be sent at once is dropped: see `odradek_storage::peer`. Connections are to
//! the port that clients use, and a message is framed like a request of an API that no client has.

use std::collections::BTreeMap;
use std::fmt;
use std::io;
use std::sync::{Mutex, PoisonError};
use std::time::Duration;

use async_trait::async_trait;
use bytes::{BufMut, Bytes, BytesMut};
use odradek_protocol::frame::peer_frame;
use odradek_storage::command::Endpoint;
use odradek_storage::peer::blocks::{ANSWER_BYTES_MAX, BlockAnswer};
use odradek_storage::peer::{PeerLink, PeerMessage};
use odradek_storage::port::PortError;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;
use tokio::sync::mpsc;
use tokio::time::{Instant, sleep, timeout};

/// Messages that may wait for one broker.
const QUEUE_MAX: usize = 256;

/// How long a connection may take to open, and a message to be taken.
const SEND_MAX: Duration = Duration::from_secs(1);

/// Pause after a broker could not be reached.
const RETRY_INTERVAL: Duration = Duration::from_secs(1);

/// A broker that nothing was said to for this long is forgotten.
const IDLE_MAX: Duration = Duration::from_secs(60);

/// Connections that wait for a question to be asked over them, for each broker.
const IDLE_CONNECTIONS_MAX: usize = 8;

/// Connections to other brokers.
#[derive(Default)]
pub(crate) struct Peers {
    queues: Mutex<BTreeMap<(String, u16), mpsc::Sender<Bytes>>>,
    idle: Mutex<BTreeMap<(String, u16), Vec<Idle>>>,
}

/// A connection over which nothing is under way.
struct Idle {
    stream: TcpStream,
    since: Instant,
}

#[async_trait]
impl PeerLink for Peers {
    fn send(&self, endpoint: &Endpoint, message: PeerMessage) {
        let key = (endpoint.host.clone(), endpoint.port);
        let mut queues = self.queues.lock().unwrap_or_else(PoisonError::into_inner);
        queues.retain(|_, queue| !queue.is_closed());
        let queue = queues.entry(key).or_insert_with(|| {
            let (queue, messages) = mpsc::channel(QUEUE_MAX);
            tokio::spawn(deliver(endpoint.clone(), messages));
            queue
        });
        // Full: the other does not keep up, and the news is soon old.
        drop(queue.try_send(message.encode()));
    }

    async fn ask(
        &self,
        endpoint: &Endpoint,
        question: PeerMessage,
    ) -> Result<BlockAnswer, PortError> {
        let question = peer_frame(&question.encode());
        let doubted = Doubted { peers: self, endpoint, is_well: false };
        let asked = match self.take(endpoint) {
            // It may have been closed meanwhile.
            Some(stream) => ask(stream, &question).await.ok(),
            None => None,
        };
        let (stream, answer) = match asked {
            Some(asked) => asked,
            None => {
                let stream = connect(endpoint).await.map_err(PortError::determinate)?;
                ask(stream, &question).await.map_err(PortError::indeterminate)?
            }
        };
        let answer = BlockAnswer::decode(answer).map_err(PortError::indeterminate)?;
        doubted.clear();
        self.give_back(endpoint, stream);
        Ok(answer)
    }
}

/// A broker that was asked something and has not answered yet. If nobody waits for that any more,
/// other connections to it are as good as this one.
struct Doubted<'a> {
    peers: &'a Peers,
    endpoint: &'a Endpoint,
    is_well: bool,
}

impl Doubted<'_> {
    fn clear(mut self) {
        self.is_well = true;
    }
}

impl Drop for Doubted<'_> {
    fn drop(&mut self) {
        if !self.is_well {
            let mut idle = self.peers.idle.lock().unwrap_or_else(PoisonError::into_inner);
            idle.remove(&(self.endpoint.host.clone(), self.endpoint.port));
        }
    }
}

impl Peers {
    /// An open connection to a broker, if there is one that is not in use.
    fn take(&self, endpoint: &Endpoint) -> Option<TcpStream> {
        let mut idle = self.idle.lock().unwrap_or_else(PoisonError::into_inner);
        idle.retain(|_, streams| {
            streams.retain(|it| it.since.elapsed() < IDLE_MAX);
            !streams.is_empty()
        });
        let streams = idle.get_mut(&(endpoint.host.clone(), endpoint.port))?;
        streams.pop().map(|it| it.stream)
    }

    fn give_back(&self, endpoint: &Endpoint, stream: TcpStream) {
        let mut idle = self.idle.lock().unwrap_or_else(PoisonError::into_inner);
        let streams = idle.entry((endpoint.host.clone(), endpoint.port)).or_default();
        if streams.len() < IDLE_CONNECTIONS_MAX {
            streams.push(Idle { stream, since: Instant::now() });
        }
    }
}

/// Asks a question, and gives the connection back with the answer, which begins behind its length.
async fn ask(mut stream: TcpStream, question: &Bytes) -> io::Result<(TcpStream, Bytes)> {
    stream.write_all(question).await?;
    let length = usize::try_from(stream.read_u32().await?).unwrap_or(usize::MAX);
    if length > ANSWER_BYTES_MAX {
        return Err(io::Error::other(format!("an answer of {length} bytes")));
    }
    let mut answer = BytesMut::with_capacity(length).limit(length);
    while answer.has_remaining_mut() {
        if stream.read_buf(&mut answer).await? == 0 {
            return Err(io::ErrorKind::UnexpectedEof.into());
        }
    }
    Ok((stream, answer.into_inner().freeze()))
}

async fn connect(endpoint: &Endpoint) -> io::Result<TcpStream> {
    let stream = TcpStream::connect((endpoint.host.as_str(), endpoint.port)).await?;
    stream.set_nodelay(true)?;
    Ok(stream)
}

/// Sends what is queued for one broker, until there is nothing to say to it any more.
async fn deliver(endpoint: Endpoint, mut messages: mpsc::Receiver<Bytes>) {
    let mut stream = None;
    while let Ok(Some(message)) = timeout(IDLE_MAX, messages.recv()).await {
        let sent = timeout(SEND_MAX, send(&mut stream, &endpoint, &message)).await;
        if let Ok(Ok(())) = sent {
            continue;
        }
        tracing::debug!(%endpoint, "a peer can't be reached");
        stream = None;
        sleep(RETRY_INTERVAL).await;
        while messages.try_recv().is_ok() {}
    }
}

async fn send(
    stream: &mut Option<TcpStream>,
    endpoint: &Endpoint,
    message: &Bytes,
) -> io::Result<()> {
    let open = match stream.take() {
        Some(open) => open,
        None => connect(endpoint).await?,
    };
    let open = stream.insert(open);
    open.write_all(&peer_frame(message)).await
}

impl fmt::Debug for Peers {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Peers").finish_non_exhaustive()
    }
}

#[cfg(test)]
mod tests {
    use odradek_protocol::frame::{LENGTH_BYTES, peer_message};
    use odradek_protocol::id::{TopicId, TopicPartition};
    use odradek_storage::command::Incarnation;
    use odradek_storage::lsn::Lsn;
    use odradek_storage::peer::News;
    use odradek_storage::peer::blocks::{BlockAddress, GivenBlock};
    use odradek_storage::segment::SegmentId;
    use tokio::net::TcpListener;
    use uuid::Uuid;

    use super::*;

    const SEGMENT: SegmentId =
        SegmentId { began: Lsn::FIRST, incarnation: Incarnation(8), counter: 2 };

    fn answer() -> BlockAnswer {
        let content = Bytes::from_static(b"content");
        BlockAnswer { blocks: vec![GivenBlock { segment: SEGMENT, position: 900, content }] }
    }

    fn question() -> PeerMessage {
        let address = BlockAddress {
            segment: SEGMENT,
            segment_bytes: 4000,
            position: 900,
            stored_bytes: 77,
            owner: TopicPartition { topic: TopicId(Uuid::from_u128(3)), partition: 12 },
        };
        PeerMessage { to: Incarnation(1), from: Incarnation(2), news: News::Ask(vec![address]) }
    }

    /// Takes connections one after the other, and over each as many questions as there are answers
    /// for it; then closes it.
    async fn serve(listener: TcpListener, connections: Vec<Vec<Vec<u8>>>) {
        for answers in connections {
            let (mut stream, _) = listener.accept().await.unwrap();
            for answer in answers {
                let length = usize::try_from(stream.read_u32().await.unwrap()).unwrap();
                let mut frame = vec![0; length];
                stream.read_exact(&mut frame).await.unwrap();
                let message = peer_message(&frame.into()).unwrap();
                assert_eq!(PeerMessage::decode(&message), Ok(question()));
                stream.write_all(&answer).await.unwrap();
            }
        }
    }

    async fn asked(connections: Vec<Vec<Vec<u8>>>, times: usize) -> Vec<Option<BlockAnswer>> {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let at = listener.local_addr().unwrap();
        let endpoint = Endpoint { host: at.ip().to_string(), port: at.port() };
        let serving = tokio::spawn(serve(listener, connections));
        let peers = Peers::default();
        let mut answers = Vec::new();
        for _ in 0..times {
            answers.push(peers.ask(&endpoint, question()).await.ok());
        }
        serving.abort();
        answers
    }

    #[tokio::test]
    async fn a_connection_is_used_again_and_another_opened_when_it_was_closed() {
        let bytes = answer().encode().concat();
        assert!(bytes.len() > LENGTH_BYTES);
        let connections = vec![vec![bytes.clone(), bytes.clone()], vec![bytes]];
        assert_eq!(asked(connections, 3).await, vec![Some(answer()); 3]);
    }

    #[tokio::test]
    async fn an_answer_that_is_none_is_an_error() {
        let good = answer().encode().concat();
        let mut damaged = good.clone();
        damaged[LENGTH_BYTES + 9] ^= 1;
        let long = u32::try_from(ANSWER_BYTES_MAX + 1).unwrap().to_be_bytes().to_vec();
        let cut = good[..good.len() - 1].to_vec();
        for bad in [damaged, long, cut, Vec::new()] {
            assert_eq!(asked(vec![vec![bad.clone()]], 1).await, [None], "{bad:?}");
        }
    }

    #[tokio::test]
    async fn connections_to_one_that_was_not_waited_for_are_not_used_again() {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let at = listener.local_addr().unwrap();
        let endpoint = Endpoint { host: at.ip().to_string(), port: at.port() };
        let peers = Peers::default();
        for _ in 0..3 {
            peers.give_back(&endpoint, connect(&endpoint).await.unwrap());
        }
        assert!(peers.take(&endpoint).is_some());
        let hurried = timeout(Duration::from_millis(1), peers.ask(&endpoint, question()));
        assert!(hurried.await.is_err());
        assert!(peers.take(&endpoint).is_none());
    }
}
