//! The server: accepts connections, and knows how many there are.

use std::sync::Arc;
use std::time::Duration;

use futures::future::join_all;
use tokio::sync::Semaphore;
use tokio::task::{JoinHandle, JoinSet};

use crate::connection::{self, Client};
use crate::context::Context;
use crate::crowds::Crowds;
use crate::entrance::Entrance;
use crate::switch::Switch;

/// Most connections at once. Further ones wait to be accepted.
const CONNECTIONS_MAX: usize = 20_000;

/// Pause after an accept that failed, say for want of file descriptors.
const ACCEPT_PAUSE: Duration = Duration::from_millis(100);

/// How long connections may take to answer what is in flight when the server stops.
const DRAIN_MAX: Duration = Duration::from_secs(10);

/// A running server.
pub(crate) struct Server {
    stopping: Switch,
    gate: Gate,
    accepting: Vec<JoinHandle<()>>,
}

/// What connections must pass: shut, it closes all there are and lets none in.
#[derive(Clone, Debug, Default)]
pub(crate) struct Gate {
    shut: Switch,
}

impl Gate {
    pub(crate) fn shut(&self) {
        self.shut.turn(true);
    }

    pub(crate) fn open(&self) {
        self.shut.turn(false);
    }

    async fn wait_until_open(&self) {
        self.shut.wait_for(false).await;
    }

    async fn wait_until_shut(&self) {
        self.shut.wait_for(true).await;
    }
}

/// Where clients come in, and the zone that they are in, if it is the listener for a zone.
pub(crate) struct Listener<E> {
    pub(crate) entrance: E,
    pub(crate) zone: Option<String>,
}

/// What all listeners of a broker share.
#[derive(Clone)]
struct Shared {
    context: Arc<Context>,
    places: Arc<Semaphore>,
    crowds: Crowds,
    gate: Gate,
    stop: Switch,
}

impl Server {
    /// Serves the connections of all listeners until stopped.
    pub(crate) fn start<E: Entrance>(listeners: Vec<Listener<E>>, context: Arc<Context>) -> Self {
        let stopping = Switch::default();
        let gate = Gate::default();
        let places = Arc::new(Semaphore::new(CONNECTIONS_MAX));
        let (crowds, gate_of_all, stop) = (Crowds::default(), gate.clone(), stopping.clone());
        let shared = Shared { context, places, crowds, gate: gate_of_all, stop };
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
        self.stopping.turn(true);
        // The tasks end of themselves; if one panicked, there is nothing left to wait for.
        drop(join_all(self.accepting).await);
    }

    /// Closes everything at once.
    pub(crate) fn kill(self) {
        self.accepting.iter().for_each(JoinHandle::abort);
    }
}

async fn accept(listener: Listener<impl Entrance>, shared: Shared) {
    let Shared { context, places, crowds, gate, stop } = shared;
    let Listener { mut entrance, zone } = listener;
    let mut connections = JoinSet::new();
    loop {
        while connections.try_join_next().is_some() {}
        let place = Arc::clone(&places).acquire_owned();
        let accepted = async {
            gate.wait_until_open().await;
            (place.await, entrance.accept().await)
        };
        let (place, accepted) = tokio::select! {
            biased;
            () = stop.wait_for(true) => break,
            accepted = accepted => accepted,
        };
        let (halves, peer) = match accepted {
            Ok(accepted) => accepted,
            Err(error) => {
                tracing::warn!(%error, "connection can't be accepted");
                tokio::time::sleep(ACCEPT_PAUSE).await;
                continue;
            }
        };
        let most = context.broker_configs().max_connections_per_ip;
        let Some(visit) = crowds.enter(peer.ip(), most) else {
            tracing::debug!(%peer, most, "too many connections from one address");
            continue;
        };
        let (context, stop) = (Arc::clone(&context), stop.clone());
        let (client, gate) = (Client { peer, listener_zone: zone.clone() }, gate.clone());
        connections.spawn(async move {
            gate.wait_until_open().await;
            context.metrics.connections_opened.add(1);
            tokio::select! {
                biased;
                () = gate.wait_until_shut() => {}
                () = connection::serve(halves, client, Arc::clone(&context), stop) => {}
            }
            context.metrics.connections_closed.add(1);
            drop((place, visit));
        });
    }
    drop(entrance);
    let drained = async { while connections.join_next().await.is_some() {} };
    if tokio::time::timeout(DRAIN_MAX, drained).await.is_err() {
        tracing::warn!("connections are closed with requests in flight");
    }
}
