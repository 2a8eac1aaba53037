//! The listener for those who watch: three pages over HTTP, for whoever can reach its address.
//!
//! - `/metrics`: the page of metrics.
//! - `/healthz`: the process answers. A broker that must not go on ends by itself.
//! - `/readyz`: this broker follows the log and is not about to stop, so that clients may be sent
//!   to it.

use std::convert::Infallible;
use std::sync::{Arc, Weak};
use std::time::Duration;

use bytes::Bytes;
use http_body_util::Full;
use hyper::body::Incoming;
use hyper::header::{ALLOW, CONTENT_TYPE, HeaderValue};
use hyper::server::conn::http1;
use hyper::service::service_fn;
use hyper::{Method, Request, Response, StatusCode};
use hyper_util::rt::{TokioIo, TokioTimer};
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::Semaphore;
use tokio::task::JoinSet;

use super::{listing, page};
use crate::context::Context;

/// Most connections at once. Further ones wait to be accepted.
const CONNECTIONS_MAX: usize = 16;

/// A connection on which no request comes is closed after this.
const IDLE_MAX: Duration = Duration::from_secs(60);

/// Pause after an accept that failed.
const ACCEPT_PAUSE: Duration = Duration::from_millis(100);

/// A broker that has not seen the tail of the log for so long does not follow it.
const TAIL_AGE_MAX: Duration = Duration::from_secs(15);

/// Serves the pages as long as the broker lives.
pub(crate) async fn serve(socket: TcpListener, context: Weak<Context>) {
    let places = Arc::new(Semaphore::new(CONNECTIONS_MAX));
    let mut connections = JoinSet::new();
    loop {
        while connections.try_join_next().is_some() {}
        let place = Arc::clone(&places).acquire_owned().await;
        match socket.accept().await {
            Ok((stream, _)) => {
                let context = Weak::clone(&context);
                connections.spawn(async move {
                    connection(stream, context).await;
                    drop(place);
                });
            }
            Err(error) => {
                tracing::warn!(%error, "connection for metrics can't be accepted");
                tokio::time::sleep(ACCEPT_PAUSE).await;
            }
        }
    }
}

async fn connection(stream: TcpStream, context: Weak<Context>) {
    let service = service_fn(|request: Request<Incoming>| {
        let response = answer(request.method(), request.uri().path(), &context);
        std::future::ready(Ok::<_, Infallible>(response))
    });
    let served = http1::Builder::new()
        .timer(TokioTimer::new())
        .header_read_timeout(IDLE_MAX)
        .serve_connection(TokioIo::new(stream), service);
    if let Err(error) = served.await {
        tracing::debug!(%error, "connection for metrics closed");
    }
}

fn answer(method: &Method, path: &str, context: &Weak<Context>) -> Response<Full<Bytes>> {
    if method != Method::GET {
        let mut response = text(StatusCode::METHOD_NOT_ALLOWED, "use GET\n".to_owned());
        response.headers_mut().insert(ALLOW, HeaderValue::from_static("GET"));
        return response;
    }
    let Some(context) = context.upgrade() else {
        return text(StatusCode::SERVICE_UNAVAILABLE, "the broker is gone\n".to_owned());
    };
    match path {
        "/metrics" => {
            let mut response = text(StatusCode::OK, listing::page(&context));
            let kind = HeaderValue::from_static(page::CONTENT_TYPE);
            response.headers_mut().insert(CONTENT_TYPE, kind);
            response
        }
        "/healthz" => text(StatusCode::OK, "ok\n".to_owned()),
        "/readyz" => match unready(&context) {
            None => text(StatusCode::OK, "ok\n".to_owned()),
            Some(why) => text(StatusCode::SERVICE_UNAVAILABLE, format!("{why}\n")),
        },
        _ => text(StatusCode::NOT_FOUND, "there are /metrics, /healthz and /readyz\n".to_owned()),
    }
}

/// Why no client should be sent here, if there is a reason.
fn unready(context: &Context) -> Option<String> {
    if context.is_leaving() {
        return Some("this broker is about to stop".to_owned());
    }
    match context.machine().progress().tail_reached {
        Some(age) if age <= TAIL_AGE_MAX => None,
        Some(age) => Some(format!("the tail of the log was not seen for {} s", age.as_secs())),
        None => Some("the tail of the log was never seen".to_owned()),
    }
}

fn text(status: StatusCode, text: String) -> Response<Full<Bytes>> {
    let mut response = Response::new(Full::new(Bytes::from(text)));
    *response.status_mut() = status;
    let kind = HeaderValue::from_static("text/plain; charset=utf-8");
    response.headers_mut().insert(CONTENT_TYPE, kind);
    response
}
