//! What passes without faults, passes untouched.

use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::task;

use super::*;

/// Reads exactly what is expected, so that a test fails on the first byte that differs in place.
async fn expect(stream: &mut TcpStream, text: &str) {
    let mut found = vec![0; text.len()];
    stream.read_exact(&mut found).await.unwrap();
    assert_eq!(String::from_utf8(found).unwrap(), text);
}

#[tokio::test]
async fn requests_and_replies_pass_byte_for_byte() {
    let upstream = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let proxy = FaultProxy::start(upstream.local_addr().unwrap(), 1);
    let mut client = TcpStream::connect(proxy.address()).await.unwrap();
    let request = "PUT /b/a%2fb//%20~+/../c?x-id=PutObject&&b=%E4&a HTTP/1.1\r\n\
                   HOST: s3.Example.com:9\r\n\
                   x-amz-meta-b: two  spaces\r\n\
                   Authorization: AWS4-HMAC-SHA256 Credential=a/b, SignedHeaders=host, \
                   Signature=c\r\n\
                   X-Amz-Meta-a: 1\r\n\
                   content-length: 5\r\n\
                   aCCept-Encoding: identity\r\n\r\nhello";
    let reply =
        "HTTP/1.1 200 Quite Fine\r\nX-amz-B: 1\r\nETag: \"e\"\r\nContent-Length: 2\r\n\r\nok";

    client.write_all(request.as_bytes()).await.unwrap();
    let (mut upstream, _) = upstream.accept().await.unwrap();
    expect(&mut upstream, request).await;
    upstream.write_all(reply.as_bytes()).await.unwrap();
    expect(&mut client, reply).await;

    // Both connections go on: the same again, and a reply without a body to a HEAD.
    client.write_all(request.as_bytes()).await.unwrap();
    expect(&mut upstream, request).await;
    upstream.write_all(reply.as_bytes()).await.unwrap();
    expect(&mut client, reply).await;
    let head = "HEAD /b/k HTTP/1.1\r\nhost: h\r\n\r\n";
    let size = "HTTP/1.1 200 OK\r\nContent-Length: 77\r\n\r\n";
    client.write_all(head.as_bytes()).await.unwrap();
    expect(&mut upstream, head).await;
    upstream.write_all(size.as_bytes()).await.unwrap();
    expect(&mut client, size).await;
    client.write_all(head.as_bytes()).await.unwrap();
    expect(&mut upstream, head).await;
}

#[tokio::test]
async fn a_client_that_waits_to_be_told_to_continue_is_told() {
    let store = Store::obliging().await;
    let proxy = FaultProxy::start(store.address, 1);
    let mut client = TcpStream::connect(proxy.address()).await.unwrap();
    let head = "PUT /b/k HTTP/1.1\r\nhost: h\r\nexpect: 100-continue\r\ncontent-length: 5\r\n\r\n";
    client.write_all(head.as_bytes()).await.unwrap();
    expect(&mut client, "HTTP/1.1 100 Continue\r\n\r\n").await;
    client.write_all(b"hello").await.unwrap();
    expect(&mut client, "HTTP/1.1 200 OK\r\n").await;
    store.has_seen(&["PUT /b/k"]).await;
    assert_eq!(proxy.counts()["PutObject"].request_bytes, 5);
}

#[tokio::test]
async fn chunked_bodies_pass_both_ways() {
    let upstream = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let proxy = FaultProxy::start(upstream.local_addr().unwrap(), 1);
    let mut client = TcpStream::connect(proxy.address()).await.unwrap();
    let head = "PUT /b/k HTTP/1.1\r\nhost: h\r\ntransfer-encoding: chunked\r\n\r\n";
    client.write_all(format!("{head}2\r\nhe\r\n3\r\nllo\r\n0\r\n\r\n").as_bytes()).await.unwrap();
    let (mut upstream, _) = upstream.accept().await.unwrap();
    expect(&mut upstream, &format!("{head}5\r\nhello\r\n0\r\n\r\n")).await;
    let head = "HTTP/1.1 200 OK\r\ntransfer-encoding: chunked\r\n\r\n";
    upstream.write_all(format!("{head}1\r\no\r\n1\r\nk\r\n0\r\n\r\n").as_bytes()).await.unwrap();
    expect(&mut client, &format!("{head}2\r\nok\r\n0\r\n\r\n")).await;
}

#[tokio::test]
async fn connections_are_used_again_on_both_sides() {
    let store = Store::obliging().await;
    let proxy = FaultProxy::start(store.address, 1);
    let mut client = Client::connect(proxy.address()).await;
    for _ in 0..5 {
        assert_eq!(client.ask(put("/b/k")).await.unwrap().body(), "done");
    }
    assert_eq!(*store.connections.borrow(), 1);
}

#[tokio::test]
async fn a_kept_connection_that_the_store_closed_costs_no_request() {
    let upstream = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let proxy = FaultProxy::start(upstream.local_addr().unwrap(), 1);
    let mut client = Client::connect(proxy.address()).await;
    for _ in 0..3 {
        let asked = client.ask(get("/b/k"));
        let answered = async {
            let (mut stream, _) = upstream.accept().await.unwrap();
            expect(&mut stream, "GET /b/k HTTP/1.1\r\nhost: store\r\n\r\n").await;
            stream.write_all(b"HTTP/1.1 200 OK\r\ncontent-length: 0\r\n\r\n").await.unwrap();
            stream
        };
        let (reply, stream) = tokio::join!(asked, answered);
        assert_eq!(reply.unwrap().status(), 200);
        drop(stream);
        proxy.proxy.upstream.kept_are_closed().await;
    }
}

#[tokio::test]
async fn a_store_that_is_down_looks_like_a_lost_connection() {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let proxy = FaultProxy::start(listener.local_addr().unwrap(), 1);
    drop(listener);
    ask(proxy.address(), get("/b/k")).await.unwrap_err();
    assert_eq!(proxy.counts()["GetObject"].delivered, 0);
}

#[tokio::test]
async fn a_body_over_the_limit_is_refused() {
    let store = Store::obliging().await;
    let proxy = FaultProxy::start(store.address, 1);
    let mut client = TcpStream::connect(proxy.address()).await.unwrap();
    let head = format!(
        "PUT /b/k HTTP/1.1\r\nhost: h\r\ncontent-length: {}\r\n\r\n",
        super::super::BODY_BYTES_MAX + 1
    );
    client.write_all(head.as_bytes()).await.unwrap();
    expect(&mut client, "HTTP/1.1 413 ").await;
    assert!(store.seen.borrow().is_empty());
}

#[tokio::test]
async fn a_request_that_was_read_is_delivered_though_its_client_leaves() {
    let store = Store::obliging().await;
    let proxy = FaultProxy::start(store.address, 1);
    proxy.set_faults(Faults { black_hole: true, ..Faults::default() });
    let address = proxy.address();
    let client = task::spawn(async move { ask(address, put("/b/k")).await });
    while proxy.counts().is_empty() {
        task::yield_now().await;
    }
    client.abort();
    assert!(client.await.unwrap_err().is_cancelled());
    assert!(store.seen.borrow().is_empty());
    proxy.set_faults(Faults::default());
    store.has_seen(&["PUT /b/k"]).await;
}

#[tokio::test]
async fn a_proxy_that_is_dropped_closes_its_port_and_its_connections() {
    let store = Store::obliging().await;
    let proxy = FaultProxy::start(store.address, 1);
    let address = proxy.address();
    let mut client = Client::connect(address).await;
    client.ask(put("/b/k")).await.unwrap();
    drop(proxy);
    client.ask(put("/b/k")).await.unwrap_err();
    while TcpStream::connect(address).await.is_ok() {
        task::yield_now().await;
    }
}
