//! The listener of the HTTP API: HTTP/1.1 and HTTP/2 without TLS, bound to the loopback address unless told otherwise.
//!
//! A connection ends with its client, at shutdown, or when it is of no use to its client any more ([`watch`]). One too many
//! is answered 503 before it has asked, so that its client knows.

mod watch;

use crate::config::Limits;
use crate::doors::{Doors, Full};
use crate::http::{Api, Origin};
use crate::metrics;
use drover_api::drover::{PROBLEM_JSON, Problem, code};
use hyper::service::service_fn;
use hyper_util::rt::{TokioExecutor, TokioIo, TokioTimer};
use hyper_util::server::conn::auto;
use std::convert::Infallible;
use std::sync::Arc;
use std::time::Duration;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::Semaphore;
use tokio_util::sync::CancellationToken;
use tracing::{debug, warn};
use watch::{Activity, Patience};

/// Requests at once on one HTTP/2 connection.
const STREAMS_MAX: u32 = 128;

/// Bytes of answers that HTTP/2 may hold for one request.
const SEND_BUFFER: usize = 64 << 10;

/// An HTTP/2 client is asked for a sign of life this often.
const PING_INTERVAL: Duration = Duration::from_secs(30);

/// How long connections may take to end at shutdown. Event streams never end by themselves.
const DRAIN_PATIENCE: Duration = Duration::from_secs(2);

/// Connections being turned away at once; further ones are closed without a word.
const TURNED_AWAY_MAX: usize = 64;

/// Accepts until shut down. Connections under way end with their current request.
pub(crate) async fn run(listener: TcpListener, api: Arc<Api>, shutdown: CancellationToken) {
    let limits = api.config.limits;
    let doors = Doors::new("api", limits.connections, limits.connections_per_peer);
    let turned_away = Arc::new(Semaphore::new(TURNED_AWAY_MAX));
    loop {
        let (stream, peer) = tokio::select! {
            () = shutdown.cancelled() => return,
            accepted = listener.accept() => match accepted {
                Ok(accepted) => accepted,
                Err(error) => {
                    // Out of descriptors, most likely: accepting again at once would spin.
                    warn!(%error, "connection not accepted");
                    tokio::time::sleep(Duration::from_millis(100)).await;
                    continue;
                }
            },
        };
        let place = match doors.enter(peer.ip()) {
            Ok(place) => place,
            Err(full) => {
                if let Ok(turn) = Arc::clone(&turned_away).try_acquire_owned() {
                    tokio::spawn(async move {
                        turn_away(stream, full).await;
                        drop(turn);
                    });
                }
                continue;
            }
        };
        let (api, shutdown) = (Arc::clone(&api), shutdown.clone());
        tokio::spawn(async move {
            serve(stream, api, &limits, shutdown).await;
            drop(place);
        });
    }
}

async fn serve(stream: TcpStream, api: Arc<Api>, limits: &Limits, shutdown: CancellationToken) {
    if let Err(error) = stream.set_nodelay(true) {
        debug!(%error, "TCP_NODELAY not set, ignoring");
    }
    let patience = Patience { first: limits.head_timeout, idle: limits.idle_timeout, stall: limits.stall_timeout };
    let activity = Activity::new(patience);
    let watched = activity.clone();
    let service = service_fn(move |request| {
        let (api, in_flight) = (Arc::clone(&api), watched.begin());
        async move { Ok::<_, Infallible>(api.serve(request, Origin::Client).await.map(|body| in_flight.watch(body))) }
    });
    let mut server = auto::Builder::new(TokioExecutor::new());
    server
        .http1()
        .timer(TokioTimer::new())
        .header_read_timeout(limits.head_timeout)
        .max_headers(limits.headers)
        .max_buf_size(limits.head)
        .keep_alive(true);
    server
        .http2()
        .timer(TokioTimer::new())
        .keep_alive_interval(PING_INTERVAL)
        .max_header_list_size(u32::try_from(limits.head).unwrap_or(u32::MAX))
        .max_concurrent_streams(STREAMS_MAX)
        .max_send_buf_size(SEND_BUFFER);
    let connection = server.serve_connection_with_upgrades(TokioIo::new(stream), service);
    tokio::pin!(connection);
    let ended = tokio::select! {
        ended = connection.as_mut() => ended,
        why = activity.over() => {
            metrics::CONNECTIONS_ENDED.inc([why]);
            debug!(why, "connection is of no use to its client, closing it");
            Ok(())
        }
        () = shutdown.cancelled() => {
            connection.as_mut().graceful_shutdown();
            tokio::time::timeout(DRAIN_PATIENCE, connection).await.unwrap_or(Ok(()))
        }
    };
    if let Err(error) = ended {
        debug!(%error, "connection ended");
    }
}

/// Says why, and goes on reading for a moment: closing at once would take the answer away from a client that is still
/// sending.
async fn turn_away(mut stream: TcpStream, full: Full) {
    let problem = Problem {
        error: "this master has as many connections as it takes".to_owned(),
        because: Some(format!("[master.limits] {} is reached", full.key())),
        remedy: Some("try again in a moment, or ask another master".to_owned()),
        code: code::LIMIT.to_owned(),
        ..Problem::default()
    };
    let body = serde_json::to_string(&problem).expect("plain data encodes");
    let answer = format!(
        "HTTP/1.1 503 Service Unavailable\r\nContent-Type: {PROBLEM_JSON}\r\nContent-Length: {}\r\nRetry-After: 1\r\n\
         Connection: close\r\n\r\n{body}",
        body.len()
    );
    let said = async {
        stream.write_all(answer.as_bytes()).await?;
        stream.shutdown().await?;
        let mut rest = [0; 4096];
        while stream.read(&mut rest).await? > 0 {}
        Ok::<_, std::io::Error>(())
    };
    // A client that is gone, or goes on sending, was told.
    let _told = tokio::time::timeout(Duration::from_secs(1), said).await;
}
