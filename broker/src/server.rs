//! The server: accepts connections, and knows how many there are.

use std::sync::Arc;
use std::time::Duration;

use socket2::{SockRef, TcpKeepalive};
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::{Semaphore, watch};
use tokio::task::{JoinHandle, JoinSet};

use crate::connection;
use crate::context::Context;
use crate::memory::MemoryBudget;

/// Most connections at once. Further ones wait to be accepted.
const CONNECTIONS_MAX: usize = 20_000;

/// Pause after an accept that failed, say for want of file descriptors.
const ACCEPT_PAUSE: Duration = Duration::from_millis(100);

/// Silence after which a peer is asked whether it still lives.
const KEEPALIVE: Duration = Duration::from_secs(60);

/// How long connections may take to answer what is in flight when the server stops.
const DRAIN_MAX: Duration = Duration::from_secs(10);

/// A running server.
pub(crate) struct Server {
    stopping: watch::Sender<bool>,
    accepting: JoinHandle<()>,
}

impl Server {
    /// Serves the connections of `listener` until stopped.
    pub(crate) fn start(listener: TcpListener, context: Arc<Context>) -> Self {
        let (stopping, stop) = watch::channel(false);
        Self { stopping, accepting: tokio::spawn(accept(listener, context, stop)) }
    }

    /// Accepts no more and waits until what is in flight is answered.
    pub(crate) async fn stop(self) {
        self.stopping.send_replace(true);
        // The task ends of itself; if it panicked, there is nothing left to wait for.
        drop(self.accepting.await);
    }

    /// Closes everything at once.
    pub(crate) fn kill(self) {
        self.accepting.abort();
    }
}

async fn accept(listener: TcpListener, context: Arc<Context>, mut stop: watch::Receiver<bool>) {
    let memory = MemoryBudget::new(context.config.memory_bytes);
    let places = Arc::new(Semaphore::new(CONNECTIONS_MAX));
    let mut connections = JoinSet::new();
    loop {
        while connections.try_join_next().is_some() {}
        let place = Arc::clone(&places).acquire_owned();
        let accepted = async { (place.await, listener.accept().await) };
        let (place, accepted) = tokio::select! {
            biased;
            _ = stop.wait_for(|stop| *stop) => break,
            accepted = accepted => accepted,
        };
        let (stream, peer) = match accepted {
            Ok(accepted) => accepted,
            Err(error) => {
                tracing::warn!(%error, "connection can't be accepted");
                tokio::time::sleep(ACCEPT_PAUSE).await;
                continue;
            }
        };
        if let Err(error) = set_up(&stream) {
            tracing::debug!(%peer, %error, "socket options can't be set");
        }
        let (context, memory, stop) = (Arc::clone(&context), memory.clone(), stop.clone());
        connections.spawn(async move {
            connection::serve(stream, peer, context, memory, stop).await;
            drop(place);
        });
    }
    drop(listener);
    let drained = async { while connections.join_next().await.is_some() {} };
    if tokio::time::timeout(DRAIN_MAX, drained).await.is_err() {
        tracing::warn!("connections are closed with requests in flight");
    }
}

fn set_up(stream: &TcpStream) -> std::io::Result<()> {
    stream.set_nodelay(true)?;
    SockRef::from(stream).set_tcp_keepalive(&TcpKeepalive::new().with_time(KEEPALIVE))
}
