//! The way to other brokers: one connection each, over which messages go and nothing comes back.
//!
//! A message that can't be sent at once is dropped: see `odradek_storage::peer`. The connection is
//! to the port that clients use, and a message is framed like a request of an API that no client
//! has.

use std::collections::BTreeMap;
use std::fmt;
use std::sync::{Mutex, PoisonError};
use std::time::Duration;

use bytes::Bytes;
use odradek_protocol::frame::peer_frame;
use odradek_storage::command::Endpoint;
use odradek_storage::peer::{PeerLink, PeerMessage};
use tokio::io::AsyncWriteExt;
use tokio::net::TcpStream;
use tokio::sync::mpsc;
use tokio::time::{sleep, timeout};

/// Messages that may wait for one broker.
const QUEUE_MAX: usize = 256;

/// How long a connection may take to open, and a message to be taken.
const SEND_MAX: Duration = Duration::from_secs(1);

/// Pause after a broker could not be reached.
const RETRY_INTERVAL: Duration = Duration::from_secs(1);

/// A broker that nothing was said to for this long is forgotten.
const IDLE_MAX: Duration = Duration::from_secs(60);

/// Connections to other brokers.
#[derive(Default)]
pub(crate) struct Peers {
    queues: Mutex<BTreeMap<(String, u16), mpsc::Sender<Bytes>>>,
}

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
) -> std::io::Result<()> {
    let open = match stream.take() {
        Some(open) => open,
        None => {
            let open = TcpStream::connect((endpoint.host.as_str(), endpoint.port)).await?;
            open.set_nodelay(true)?;
            open
        }
    };
    let open = stream.insert(open);
    open.write_all(&peer_frame(message)).await
}

impl fmt::Debug for Peers {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Peers").finish_non_exhaustive()
    }
}
