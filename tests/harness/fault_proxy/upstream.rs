//! The way to the store: connections that are kept and used again.
//!
//! Sends each request once at most. A request that fails after its first byte is never sent again
//! from here: that would be a fault nobody asked for.

use std::net::SocketAddr;
use std::sync::{Mutex, PoisonError};

use bytes::Bytes;
use http_body_util::{BodyExt as _, Full, Limited};
use hyper::client::conn::http1::{self, SendRequest};
use hyper::{Request, Response};
use hyper_util::rt::TokioIo;
use tokio::net::TcpStream;

use super::BODY_BYTES_MAX;

/// Connections kept for the next request.
const IDLE_MAX: usize = 128;

/// The server that the proxy stands before.
#[derive(Debug)]
pub(super) struct Upstream {
    address: SocketAddr,
    idle: Mutex<Vec<SendRequest<Full<Bytes>>>>,
}

impl Upstream {
    pub(super) fn new(address: SocketAddr) -> Self {
        Self { address, idle: Mutex::new(Vec::new()) }
    }

    /// Sends the request as it is, and returns the whole reply.
    ///
    /// # Errors
    ///
    /// The server cannot be reached, or went away before it had answered.
    pub(super) async fn send(&self, request: Request<Bytes>) -> anyhow::Result<Response<Bytes>> {
        let mut request = request.map(Full::new);
        loop {
            let (mut connection, was_kept) = match self.kept().await {
                Some(connection) => (connection, true),
                None => (self.connect().await?, false),
            };
            let reply = match connection.try_send_request(request).await {
                Ok(reply) => reply,
                Err(mut error) => match error.take_message() {
                    // The server had closed a connection that we kept.
                    Some(unsent) if was_kept => {
                        request = unsent;
                        continue;
                    }
                    _ => return Err(error.into_error().into()),
                },
            };
            let (head, body) = reply.into_parts();
            let body = match Limited::new(body, BODY_BYTES_MAX).collect().await {
                Ok(body) => body.to_bytes(),
                Err(error) => return Err(anyhow::anyhow!(error)),
            };
            self.keep(connection);
            return Ok(Response::from_parts(head, body));
        }
    }

    /// A connection that was used before and is still open.
    async fn kept(&self) -> Option<SendRequest<Full<Bytes>>> {
        while let Some(mut kept) = self.take() {
            if kept.ready().await.is_ok() {
                return Some(kept);
            }
        }
        None
    }

    async fn connect(&self) -> anyhow::Result<SendRequest<Full<Bytes>>> {
        let stream = TcpStream::connect(self.address).await?;
        stream.set_nodelay(true)?;
        let (sender, connection) = http1::Builder::new()
            .preserve_header_case(true)
            .handshake(TokioIo::new(stream))
            .await?;
        tokio::spawn(async move {
            // Whoever waits for a reply on it learns of its end.
            connection.await.ok();
        });
        Ok(sender)
    }

    /// Waits until the server's end of every kept connection has been noticed.
    #[cfg(test)]
    pub(super) async fn kept_are_closed(&self) {
        let is_closed = || {
            let idle = self.idle.lock().unwrap_or_else(PoisonError::into_inner);
            idle.iter().all(SendRequest::is_closed)
        };
        while !is_closed() {
            tokio::task::yield_now().await;
        }
    }

    fn take(&self) -> Option<SendRequest<Full<Bytes>>> {
        self.idle.lock().unwrap_or_else(PoisonError::into_inner).pop()
    }

    fn keep(&self, connection: SendRequest<Full<Bytes>>) {
        let mut idle = self.idle.lock().unwrap_or_else(PoisonError::into_inner);
        if idle.len() < IDLE_MAX && !connection.is_closed() {
            idle.push(connection);
        }
    }
}
