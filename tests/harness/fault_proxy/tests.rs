//! What the proxy promises, against a store of a few lines that sees everything.

mod dice;
mod faults;
mod meter;
mod passage;

use std::convert::Infallible;
use std::net::SocketAddr;
use std::sync::Arc;

use bytes::Bytes;
use http_body_util::{BodyExt as _, Full};
use hyper::client::conn::http1::{self, SendRequest};
use hyper::service::service_fn;
use hyper::{Method, Request, Response, StatusCode};
use hyper_util::rt::TokioIo;
use serde_json::Value;
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::watch;

use super::operation::answer;
use super::{FaultProxy, Faults};

/// What a store answers, which has been asked for so much, the present request included.
type Behaviour = fn(&[String]) -> Response<Bytes>;

/// A store that remembers what it was asked.
struct Store {
    address: SocketAddr,
    seen: Arc<watch::Sender<Vec<String>>>,
    connections: Arc<watch::Sender<usize>>,
}

impl Store {
    async fn start(behaviour: Behaviour) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let address = listener.local_addr().unwrap();
        let seen = Arc::new(watch::Sender::new(Vec::new()));
        let connections = Arc::new(watch::Sender::new(0));
        let store = Self { address, seen, connections };
        let (seen, connections) = (Arc::clone(&store.seen), Arc::clone(&store.connections));
        tokio::spawn(async move {
            loop {
                let (stream, _) = listener.accept().await.unwrap();
                connections.send_modify(|connections| *connections += 1);
                tokio::spawn(serve(stream, Arc::clone(&seen), behaviour));
            }
        });
        store
    }

    /// A store that answers everything with "done".
    async fn obliging() -> Self {
        Self::start(|_| answer(200, "text/plain", "done")).await
    }

    /// Waits until the store has been asked for `what` and nothing else.
    async fn has_seen(&self, what: &[&str]) {
        self.seen.subscribe().wait_for(|seen| seen.len() >= what.len()).await.unwrap();
        assert_eq!(*self.seen.borrow(), what);
    }
}

async fn serve(stream: TcpStream, seen: Arc<watch::Sender<Vec<String>>>, behaviour: Behaviour) {
    let service = service_fn(|request: Request<hyper::body::Incoming>| {
        let seen = Arc::clone(&seen);
        async move {
            let line = format!("{} {}", request.method(), request.uri());
            request.into_body().collect().await.unwrap();
            seen.send_modify(|seen| seen.push(line));
            Ok::<_, Infallible>(behaviour(&seen.borrow()).map(Full::new))
        }
    });
    let connection = hyper::server::conn::http1::Builder::new();
    connection.serve_connection(TokioIo::new(stream), service).await.ok();
}

/// One connection of a client, which knows of no retries.
struct Client(SendRequest<Full<Bytes>>);

impl Client {
    async fn connect(address: SocketAddr) -> Self {
        let stream = TcpStream::connect(address).await.unwrap();
        let (sender, connection) = http1::handshake(TokioIo::new(stream)).await.unwrap();
        tokio::spawn(connection);
        Self(sender)
    }

    async fn ask(&mut self, request: Request<Bytes>) -> hyper::Result<Response<Bytes>> {
        self.0.ready().await?;
        let (head, body) = self.0.send_request(request.map(Full::new)).await?.into_parts();
        Ok(Response::from_parts(head, body.collect().await?.to_bytes()))
    }
}

/// Asks once, over a connection of its own.
async fn ask(address: SocketAddr, request: Request<Bytes>) -> hyper::Result<Response<Bytes>> {
    Client::connect(address).await.ask(request).await
}

fn request(method: Method, path: &str, body: &str) -> Request<Bytes> {
    Request::builder()
        .method(method)
        .uri(path)
        .header("host", "store")
        .body(Bytes::from(body.to_owned()))
        .unwrap()
}

fn put(path: &str) -> Request<Bytes> {
    request(Method::PUT, path, "bytes")
}

fn get(path: &str) -> Request<Bytes> {
    request(Method::GET, path, "")
}

fn dynamodb(operation: &str, body: &Value) -> Request<Bytes> {
    let mut request = request(Method::POST, "/", &body.to_string());
    let target = format!("DynamoDB_20120810.{operation}").parse().unwrap();
    request.headers_mut().insert("x-amz-target", target);
    request
}
