//! The server: accepts connections, and knows how many there are.

use std::sync::Arc;
use std::time::Duration;

use futures::future::join_all;
use socket2::{SockRef, TcpKeepalive};
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::{Semaphore, watch};
use tokio::task::{JoinHandle, JoinSet};

use crate::connection::{self, Client};
use crate::context::Context;

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
    gate: Gate,
    accepting: Vec<JoinHandle<()>>,
}

/// What connections must pass: shut, it closes all there are and lets none in.
#[derive(Clone, Debug)]
pub(crate) struct Gate {
    is_open: Arc<watch::Sender<bool>>,
}

impl Default for Gate {
    fn default() -> Self {
        Self { is_open: Arc::new(watch::Sender::new(true)) }
    }
}

impl Gate {
    pub(crate) fn shut(&self) {
        self.is_open.send_replace(false);
    }

    pub(crate) fn open(&self) {
        self.is_open.send_replace(true);
    }

    /// Waits until it is open, or shut. The sender is in the gate, so there is always an answer.
    async fn wait_for(&self, open: bool) {
        let mut is_open = self.is_open.subscribe();
        drop(is_open.wait_for(|is_open| *is_open == open).await);
    }
}

/// A socket that listens, and the zone that its clients are in, if it is the listener for a zone.
pub(crate) struct Listener {
    pub(crate) socket: TcpListener,
    pub(crate) zone: Option<String>,
}

/// What all listeners of a broker share.
#[derive(Clone)]
struct Shared {
    context: Arc<Context>,
    places: Arc<Semaphore>,
    gate: Gate,
    stop: watch::Receiver<bool>,
}

impl Server {
    /// Serves the connections of all listeners until stopped.
    pub(crate) fn start(listeners: Vec<Listener>, context: Arc<Context>) -> Self {
        let (stopping, stop) = watch::channel(false);
        let gate = Gate::default();
        let places = Arc::new(Semaphore::new(CONNECTIONS_MAX));
        let shared = Shared { context, places, gate: gate.clone(), stop };
        let accepting =
            listeners.into_iter().map(|it| tokio::spawn(accept(it, shared.clone()))).collect();
        Self { stopping, gate, accepting }
    }

    /// What its connections must pass.
    pub(crate) fn gate(&self) -> Gate {
        self.gate.clone()
    }

    /// Accepts no more and waits until what is in flight is answered.
    pub(crate) async fn stop(self) {
        self.stopping.send_replace(true);
        // The tasks end of themselves; if one panicked, there is nothing left to wait for.
        drop(join_all(self.accepting).await);
    }

    /// Closes everything at once.
    pub(crate) fn kill(self) {
        self.accepting.iter().for_each(JoinHandle::abort);
    }
}

async fn accept(listener: Listener, shared: Shared) {
    let Shared { context, places, gate, mut stop } = shared;
    let Listener { socket, zone } = listener;
    let mut connections = JoinSet::new();
    loop {
        while connections.try_join_next().is_some() {}
        let place = Arc::clone(&places).acquire_owned();
        let accepted = async {
            gate.wait_for(true).await;
            (place.await, socket.accept().await)
        };
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
        let (context, stop) = (Arc::clone(&context), stop.clone());
        let (client, gate) = (Client { peer, listener_zone: zone.clone() }, gate.clone());
        connections.spawn(async move {
            gate.wait_for(true).await;
            context.metrics.connections_opened.add(1);
            tokio::select! {
                biased;
                () = gate.wait_for(false) => {}
                () = connection::serve(stream, client, Arc::clone(&context), stop) => {}
            }
            context.metrics.connections_closed.add(1);
            drop(place);
        });
    }
    drop(socket);
    let drained = async { while connections.join_next().await.is_some() {} };
    if tokio::time::timeout(DRAIN_MAX, drained).await.is_err() {
        tracing::warn!("connections are closed with requests in flight");
    }
}

fn set_up(stream: &TcpStream) -> std::io::Result<()> {
    stream.set_nodelay(true)?;
    SockRef::from(stream).set_tcp_keepalive(&TcpKeepalive::new().with_time(KEEPALIVE))
}
