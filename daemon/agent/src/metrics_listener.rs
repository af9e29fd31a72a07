//! `/metrics` of an agent, over HTTP/1.1: the one thing that an agent listens for, on the loopback address unless told
//! otherwise. It serves numbers, decides nothing, and takes few connections at once.

use crate::config::MetricsListen;
use crate::metrics;
use anyhow::Context;
use bytes::Bytes;
use drover_telemetry::Format;
use http_body_util::Full;
use hyper::body::Incoming;
use hyper::header::{ACCEPT, ALLOW, CONTENT_TYPE, HeaderValue};
use hyper::server::conn::http1;
use hyper::service::service_fn;
use hyper::{Method, Request, Response, StatusCode};
use hyper_util::rt::{TokioIo, TokioTimer};
use std::convert::Infallible;
use std::sync::Arc;
use std::time::Duration;
use tokio::net::TcpListener;
use tokio::sync::Semaphore;
use tokio_util::sync::CancellationToken;
use tracing::{debug, info, warn};

/// Connections at once; further ones are closed.
const CONNECTIONS_MAX: usize = 32;

/// A connection lasts so long at most: a scrape is one request.
const LIFE: Duration = Duration::from_secs(60);

/// Opens the listener, if there is to be one. The default address may be another agent's on the same machine: then this one
/// goes without, and says so.
///
/// # Errors
/// The configured address cannot be listened on.
pub(crate) async fn open(listen: &MetricsListen) -> anyhow::Result<Option<TcpListener>> {
    let (address, is_default) = match listen {
        MetricsListen::Off => return Ok(None),
        MetricsListen::Default(address) => (address, true),
        MetricsListen::At(address) => (address, false),
    };
    match TcpListener::bind(address).await {
        Ok(listener) => {
            info!(%address, "metrics are at http://{address}/metrics");
            Ok(Some(listener))
        }
        Err(error) if is_default => {
            warn!(%address, %error, "no metrics: the default address cannot be listened on; set [agent] metrics_listen");
            Ok(None)
        }
        Err(error) => Err(error).with_context(|| format!("cannot listen for scrapes on {address} ([agent] metrics_listen)")),
    }
}

/// Answers scrapes until shut down.
pub(crate) async fn run(listener: TcpListener, shutdown: CancellationToken) {
    let places = Arc::new(Semaphore::new(CONNECTIONS_MAX));
    loop {
        let stream = tokio::select! {
            () = shutdown.cancelled() => return,
            accepted = listener.accept() => match accepted {
                Ok((stream, _)) => stream,
                Err(error) => {
                    // Out of descriptors, most likely: accepting again at once would spin.
                    warn!(%error, "connection not accepted");
                    tokio::time::sleep(Duration::from_millis(100)).await;
                    continue;
                }
            },
        };
        let Ok(place) = Arc::clone(&places).try_acquire_owned() else { continue };
        let shutdown = shutdown.clone();
        tokio::spawn(async move {
            let mut server = http1::Builder::new();
            server.timer(TokioTimer::new()).header_read_timeout(Duration::from_secs(10)).max_buf_size(16 << 10);
            let connection = server.serve_connection(
                TokioIo::new(stream),
                service_fn(|request: Request<Incoming>| async move { Ok::<_, Infallible>(answer(&request)) }),
            );
            tokio::select! {
                ended = tokio::time::timeout(LIFE, connection) => if let Ok(Err(error)) = ended {
                    debug!(%error, "connection ended");
                },
                () = shutdown.cancelled() => {}
            }
            drop(place);
        });
    }
}

fn answer(request: &Request<Incoming>) -> Response<Full<Bytes>> {
    let text = |status: StatusCode, body: String, kind: &'static str| {
        let mut response = Response::new(Full::new(Bytes::from(body)));
        *response.status_mut() = status;
        response.headers_mut().insert(CONTENT_TYPE, HeaderValue::from_static(kind));
        response
    };
    let plain = "text/plain; charset=utf-8";
    if request.uri().path() != "/metrics" {
        return text(StatusCode::NOT_FOUND, "an agent answers /metrics only\n".to_owned(), plain);
    }
    if !matches!(*request.method(), Method::GET | Method::HEAD) {
        let mut refused = text(StatusCode::METHOD_NOT_ALLOWED, "metrics are read with GET\n".to_owned(), plain);
        refused.headers_mut().insert(ALLOW, HeaderValue::from_static("GET, HEAD"));
        return refused;
    }
    let format = Format::accepted(request.headers().get(ACCEPT).and_then(|accept| accept.to_str().ok()).unwrap_or_default());
    text(StatusCode::OK, metrics::page(format), format.content_type())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn two_agents_on_one_machine_do_not_trip_over_the_default() {
        let first = open(&MetricsListen::At("127.0.0.1:0".parse().unwrap())).await.unwrap().unwrap();
        let taken = first.local_addr().unwrap();
        assert!(open(&MetricsListen::Default(taken)).await.unwrap().is_none(), "goes without");
        let error = open(&MetricsListen::At(taken)).await.unwrap_err().to_string();
        assert!(error.contains("[agent] metrics_listen"), "{error}");
        assert!(open(&MetricsListen::Off).await.unwrap().is_none());
    }
}
