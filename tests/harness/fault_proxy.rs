//! A proxy between a broker and its store that loses, repeats, delays and refuses requests.
//!
//! Stands before an S3 or a DynamoDB server and speaks HTTP/1.1. It reads a request whole, throws
//! the dice (`faults`), and delivers it with the path, the headers and the body as they came,
//! because a signature covers them. What happens is counted (`meter`). The same things can be told
//! to it from outside, over HTTP (`admin`); that is what the binary `fault_proxy` is for.
//!
//! A request that was read is in the hands of the network: it takes its course even if its client
//! gives up, as late and doubtful as the faults make it.
//!
//! ```no_run
//! # async fn scenario(store: std::net::SocketAddr) {
//! use odradek_tests::fault_proxy::{Chance, FaultProxy, Faults};
//! let proxy = FaultProxy::start(store, 42);
//! proxy.set_faults(Faults { reply_lost: Chance::once("PutItem"), ..Faults::default() });
//! // … a broker appends through proxy.address() …
//! assert_eq!(proxy.counts()["PutItem"].faults, 1);
//! # }
//! ```

mod admin;
mod faults;
mod meter;
mod operation;
mod reply;
#[cfg(test)]
mod tests;
mod upstream;

use std::collections::BTreeMap;
use std::io;
use std::net::SocketAddr;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use bytes::Bytes;
use http_body_util::{BodyExt as _, LengthLimitError, Limited};
use hyper::body::{Body as _, Incoming};
use hyper::server::conn::http1;
use hyper::service::service_fn;
use hyper::{Request, Response};
use hyper_util::rt::TokioIo;
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::{oneshot, watch};
use tokio::task::JoinSet;
use tokio::time;

pub use self::faults::{Chance, Faults};
use self::faults::{Dice, Fate, Throw};
pub use self::meter::Count;
use self::meter::Meter;
use self::operation::{Operation, Refusal, answer};
use self::reply::{CutShort, ReplyBody, corrupted};
use self::upstream::Upstream;

/// Bytes that the body of a request or a reply may have.
const BODY_BYTES_MAX: usize = 128 << 20;

/// How long the proxy accepts nobody after it could not, for want of file descriptors perhaps.
const ACCEPT_PAUSE: Duration = Duration::from_millis(20);

/// A running proxy. It ends with this value, and so do its connections and what they carry.
#[derive(Debug)]
pub struct FaultProxy {
    address: SocketAddr,
    proxy: Arc<Proxy>,
}

impl FaultProxy {
    /// Starts a proxy before `upstream` on a free port of 127.0.0.1. Nothing goes wrong on it until
    /// [`Self::set_faults`]; after that, `seed` decides.
    ///
    /// # Panics
    ///
    /// If called outside of a runtime, or if there is no free port.
    pub fn start(upstream: SocketAddr, seed: u64) -> Self {
        Self::listen(SocketAddr::from(([127, 0, 0, 1], 0)), upstream, seed).unwrap()
    }

    /// As [`Self::start`], at an address of choice.
    ///
    /// # Errors
    ///
    /// The address is taken, or not ours.
    ///
    /// # Panics
    ///
    /// If called outside of a runtime.
    pub fn listen(listen: SocketAddr, upstream: SocketAddr, seed: u64) -> io::Result<Self> {
        let listener = std::net::TcpListener::bind(listen)?;
        listener.set_nonblocking(true)?;
        let listener = TcpListener::from_std(listener)?;
        let address = listener.local_addr()?;
        let proxy = Arc::new(Proxy {
            upstream: Upstream::new(upstream),
            dice: Mutex::new(Dice::new(seed)),
            faults: watch::Sender::new(Faults::default()),
            meter: Meter::default(),
            tasks: Mutex::new(JoinSet::new()),
        });
        proxy.spawn(Arc::clone(&proxy).accept(listener));
        Ok(Self { address, proxy })
    }

    /// Where clients of the store connect to.
    pub fn address(&self) -> SocketAddr {
        self.address
    }

    /// Replaces all faults. Requests that were read before keep the fate they have.
    ///
    /// # Panics
    ///
    /// If a probability is not in `0..=1`, or a fault has a chance but no extent.
    pub fn set_faults(&self, faults: Faults) {
        self.proxy.set_faults(faults).unwrap();
    }

    /// What the requests amount to, by the name of the operation.
    pub fn counts(&self) -> BTreeMap<String, Count> {
        self.proxy.meter.counts()
    }

    /// Begins to count anew.
    pub fn reset_counts(&self) {
        self.proxy.meter.reset();
    }
}

impl Drop for FaultProxy {
    fn drop(&mut self) {
        self.proxy.tasks.lock().unwrap_or_else(PoisonError::into_inner).abort_all();
    }
}

/// What all connections share.
#[derive(Debug)]
struct Proxy {
    upstream: Upstream,
    dice: Mutex<Dice>,
    /// What is set, for those who wait for a switch to change.
    faults: watch::Sender<Faults>,
    meter: Meter,
    /// The listener, the connections, and the requests on their way.
    tasks: Mutex<JoinSet<()>>,
}

impl Proxy {
    fn spawn(&self, task: impl Future<Output = ()> + Send + 'static) {
        let mut tasks = self.tasks.lock().unwrap_or_else(PoisonError::into_inner);
        while tasks.try_join_next().is_some() {}
        tasks.spawn(task);
    }

    fn set_faults(&self, faults: Faults) -> Result<(), String> {
        faults.check()?;
        self.dice.lock().unwrap_or_else(PoisonError::into_inner).load(faults.clone());
        self.faults.send_replace(faults);
        Ok(())
    }

    async fn accept(self: Arc<Self>, listener: TcpListener) {
        loop {
            match listener.accept().await {
                Ok((stream, _)) => self.spawn(Arc::clone(&self).serve(stream)),
                Err(_) => time::sleep(ACCEPT_PAUSE).await,
            }
        }
    }

    /// Serves one connection until its client or an outage ends it.
    async fn serve(self: Arc<Self>, stream: TcpStream) {
        if stream.set_nodelay(true).is_err() {
            return;
        }
        let is_admin = AtomicBool::new(false);
        let service = service_fn(|request| self.answer(request, &is_admin));
        let connection = http1::Builder::new()
            .preserve_header_case(true)
            .auto_date_header(false)
            .serve_connection(TokioIo::new(stream), service);
        let mut faults = self.faults.subscribe();
        let cut = async {
            // NB: only an outage that begins now cuts. A connection made in the middle of one may
            // be there to end it, so it is turned away when it asks for something else.
            while faults.changed().await.is_ok() {
                if faults.borrow_and_update().outage && !is_admin.load(Ordering::Relaxed) {
                    return;
                }
            }
        };
        tokio::select! {
            biased;
            () = cut => {}
            // An error is a client that left or that we dropped.
            _ = connection => {}
        }
    }

    /// Answers a request, or drops its connection with an error.
    async fn answer(
        self: &Arc<Self>,
        request: Request<Incoming>,
        is_admin: &AtomicBool,
    ) -> io::Result<Response<ReplyBody>> {
        let command = request.uri().path().strip_prefix(admin::PREFIX).map(str::to_owned);
        is_admin.fetch_or(command.is_some(), Ordering::Relaxed);
        if command.is_none() && self.faults.borrow().outage {
            return Err(dropped());
        }
        let (head, body) = request.into_parts();
        let over = || answer(413, "text/plain", format_args!("over {BODY_BYTES_MAX} bytes"));
        let declared = usize::try_from(body.size_hint().lower()).unwrap_or(usize::MAX);
        if declared > BODY_BYTES_MAX {
            return Ok(over().map(ReplyBody::whole));
        }
        let body = match Limited::new(body, BODY_BYTES_MAX).collect().await {
            Ok(body) => body.to_bytes(),
            Err(error) if error.is::<LengthLimitError>() => return Ok(over().map(ReplyBody::whole)),
            Err(_) => return Err(dropped()),
        };
        let reply = match command {
            Some(command) => admin::obey(self, &head.method, &command, &body),
            None => {
                let (reply_to, reply) = oneshot::channel();
                let proxy = Arc::clone(self);
                self.spawn(async move {
                    let reply = proxy.carry(Request::from_parts(head, body)).await;
                    // The client may have left.
                    reply.map(|reply| reply_to.send(reply).ok());
                });
                reply.await.map_err(|_| dropped())?
            }
        };
        Ok(ReplyBody::of(reply))
    }

    /// Takes a request through its fate. Without a reply, its client loses the connection.
    async fn carry(self: Arc<Self>, request: Request<Bytes>) -> Option<Response<Bytes>> {
        let (head, body) = request.into_parts();
        let operation = Operation::of(&head);
        let service = operation.service;
        let method = head.method.clone();
        let request = Request::from_parts(head, body);

        let Throw { fate, there, back } =
            self.dice.lock().unwrap_or_else(PoisonError::into_inner).throw(&operation.name);
        let is_delayed = !(there + back).is_zero();
        self.meter.arrived(&operation, request.body().len(), fate != Fate::Delivered || is_delayed);
        self.out_of_the_black_hole().await;
        time::sleep(there).await;

        let reply = match fate {
            Fate::Delivered => self.deliver(&operation, request).await,
            Fate::Throttled => Some(Refusal::Throttled.answer(service, &method)),
            Fate::ErrorBefore => Some(Refusal::InternalError.answer(service, &method)),
            Fate::ErrorAfter => {
                self.deliver(&operation, request).await?;
                Some(Refusal::InternalError.answer(service, &method))
            }
            Fate::ReplyLost => {
                self.deliver(&operation, request).await?;
                None
            }
            Fate::Late(after) => {
                let proxy = Arc::clone(&self);
                self.spawn(async move {
                    time::sleep(after).await;
                    proxy.deliver(&operation, request).await;
                });
                None
            }
            Fate::Duplicate => {
                let reply = self.deliver(&operation, request.clone()).await;
                self.deliver(&operation, request).await;
                reply
            }
            Fate::SecondReply => {
                self.deliver(&operation, request.clone()).await;
                self.deliver(&operation, request).await
            }
            Fate::Conflict => Some(Refusal::Conflict.answer(service, &method)),
            Fate::NotFound => Some(Refusal::NotFound.answer(service, &method)),
            Fate::Corrupted(at) => {
                self.deliver(&operation, request).await.map(|reply| corrupted(reply, at))
            }
            Fate::Truncated(share) => {
                let mut reply = self.deliver(&operation, request).await?;
                reply.extensions_mut().insert(CutShort(share));
                Some(reply)
            }
        };
        time::sleep(back).await;
        self.out_of_the_black_hole().await;
        reply
    }

    /// Has the upstream answer the request. `None` if it could not be reached, or broke off.
    async fn deliver(
        &self,
        operation: &Operation,
        request: Request<Bytes>,
    ) -> Option<Response<Bytes>> {
        let body = request.body().clone();
        match self.upstream.send(request).await {
            Ok(reply) => {
                self.meter.answered(operation, &body, &reply);
                Some(reply)
            }
            Err(error) => {
                tracing::debug!(operation = %operation.name, %error, "upstream unanswered");
                None
            }
        }
    }

    async fn out_of_the_black_hole(&self) {
        let mut faults = self.faults.subscribe();
        faults.wait_for(|faults| !faults.black_hole).await.expect("the sender is in self");
    }
}

/// What makes hyper close a connection without a reply.
fn dropped() -> io::Error {
    io::ErrorKind::ConnectionAborted.into()
}
