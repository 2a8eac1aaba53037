//! Where connections come from: sockets, or pipes inside a process.

use std::future::pending;
use std::io;
use std::net::{Ipv4Addr, SocketAddr};
use std::time::Duration;

use socket2::{SockRef, TcpKeepalive};
use tokio::io::{AsyncRead, AsyncWrite, DuplexStream, ReadHalf, WriteHalf, split};
use tokio::net::tcp::{OwnedReadHalf, OwnedWriteHalf};
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::mpsc;

/// Silence after which a peer is asked whether it still lives.
const KEEPALIVE: Duration = Duration::from_secs(60);

/// Lets connections in.
pub(crate) trait Entrance: Send + 'static {
    /// What comes from a client.
    type Read: AsyncRead + Send + Unpin + 'static;
    /// What goes to it.
    type Write: AsyncWrite + Send + Unpin + 'static;

    /// Waits for the next connection; its halves, and where it comes from.
    fn accept(&mut self) -> impl Future<Output = io::Result<Accepted<Self>>> + Send;
}

/// A connection: its two halves, and where it comes from.
pub(crate) type Accepted<E> = ((<E as Entrance>::Read, <E as Entrance>::Write), SocketAddr);

impl Entrance for TcpListener {
    type Read = OwnedReadHalf;
    type Write = OwnedWriteHalf;

    async fn accept(&mut self) -> io::Result<Accepted<Self>> {
        let (stream, peer) = Self::accept(self).await?;
        if let Err(error) = set_up(&stream) {
            tracing::debug!(%peer, %error, "socket options can't be set");
        }
        Ok((stream.into_split(), peer))
    }
}

/// Pipes that somebody in this process holds the other ends of.
pub(crate) struct Pipes(pub(crate) mpsc::Receiver<DuplexStream>);

impl Entrance for Pipes {
    type Read = ReadHalf<DuplexStream>;
    type Write = WriteHalf<DuplexStream>;

    async fn accept(&mut self) -> io::Result<Accepted<Self>> {
        let Some(pipe) = self.0.recv().await else { return pending().await };
        Ok((split(pipe), SocketAddr::from((Ipv4Addr::LOCALHOST, 0))))
    }
}

fn set_up(stream: &TcpStream) -> io::Result<()> {
    stream.set_nodelay(true)?;
    SockRef::from(stream).set_tcp_keepalive(&TcpKeepalive::new().with_time(KEEPALIVE))
}
