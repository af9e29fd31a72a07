//! Writers: each sends one small write, waits until it is acknowledged, and sends the next. The same code drives both
//! clusters; what differs is the request, and that etcd speaks gRPC over HTTP/2 where drover's clients speak HTTP/1.1.
//!
//! A write to drover redefines a job through Chronos' API; a write to etcd puts a value under a key. Each client has a job,
//! or a key, of its own. Both carry about 256 bytes.

use anyhow::{Context, bail, ensure};
use bytes::{BufMut, Bytes, BytesMut};
use clap::ValueEnum;
use http_body_util::{BodyExt, Full};
use hyper::client::conn::{http1, http2};
use hyper::{Request, Response, StatusCode};
use hyper_util::rt::{TokioExecutor, TokioIo};
use std::time::{Duration, Instant};
use tokio::net::TcpStream;
use tokio::task::JoinSet;

/// Bytes that a write carries.
const WRITE_BYTES: usize = 256;

/// Writes before this are not counted.
const WARM_UP: Duration = Duration::from_millis(500);

/// Whom to write to.
#[derive(Debug, Clone, Copy, ValueEnum)]
enum Peer {
    /// Jobs, through Chronos' API.
    Drover,
    /// Puts, through gRPC.
    Etcd,
}

#[derive(Debug, clap::Args)]
pub(crate) struct Options {
    /// Which kind of cluster it is.
    #[arg(long)]
    to: Peer,
    /// Where its leader answers clients, `host:port`.
    #[arg(long)]
    address: String,
    /// Writers at once.
    #[arg(long)]
    clients: usize,
    /// Connections that the writers share (gRPC only); without it each has its own.
    #[arg(long)]
    connections: Option<usize>,
    /// For how long, after a warm-up of half a second.
    #[arg(long)]
    seconds: f64,
}

/// Runs the writers; the rate of acknowledged writes, and how long they took.
pub(crate) fn run(options: &Options) -> anyhow::Result<serde_json::Value> {
    // One thread: what the clients cost is the same on both sides, and leaves the other cores to the servers.
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().context("the runtime cannot start")?;
    runtime.block_on(write_all(options))
}

async fn write_all(options: &Options) -> anyhow::Result<serde_json::Value> {
    let mut shared = Vec::new();
    for _ in 0..options.connections.unwrap_or(0) {
        shared.push(Connection::open(options.to, &options.address).await?);
    }
    let mut connections = Vec::new();
    for client in 0..options.clients {
        connections.push(match shared.get(client % shared.len().max(1)) {
            Some(connection) => connection.share()?,
            None => Connection::open(options.to, &options.address).await?,
        });
    }
    let from = Instant::now() + WARM_UP;
    let until = from + Duration::from_secs_f64(options.seconds);
    let mut writers = JoinSet::new();
    for (client, connection) in connections.into_iter().enumerate() {
        writers.spawn(write(connection, options.address.clone(), client, from, until));
    }
    let mut took_us = Vec::new();
    while let Some(ended) = writers.join_next().await {
        took_us.extend(ended.context("a writer panicked")??);
    }
    ensure!(!took_us.is_empty(), "nothing was acknowledged within {} s", options.seconds);
    took_us.sort_unstable();
    let at = |share: f64| took_us[((took_us.len() - 1) as f64 * share) as usize];
    Ok(serde_json::json!({
        "rate": took_us.len() as f64 / options.seconds,
        "p50_us": at(0.50),
        "p99_us": at(0.99),
        "max_us": at(1.0),
        "client_cpu_seconds": cpu_seconds(),
    }))
}

/// One writer. What each write took that began and ended within the time, in microseconds.
async fn write(
    mut connection: Connection,
    address: String,
    client: usize,
    from: Instant,
    until: Instant,
) -> anyhow::Result<Vec<u32>> {
    let mut took = Vec::new();
    for number in 0u64.. {
        let began = Instant::now();
        if began >= until {
            break;
        }
        connection.write(&address, client, number).await?;
        let ended = Instant::now();
        if began >= from && ended <= until {
            took.push(u32::try_from((ended - began).as_micros()).unwrap_or(u32::MAX));
        }
    }
    Ok(took)
}

enum Connection {
    Drover(http1::SendRequest<Full<Bytes>>),
    Etcd(http2::SendRequest<Full<Bytes>>),
}

impl Connection {
    async fn open(to: Peer, address: &str) -> anyhow::Result<Self> {
        let tcp = TcpStream::connect(address).await.with_context(|| format!("{address} cannot be reached"))?;
        tcp.set_nodelay(true).context("Nagle's algorithm cannot be switched off")?;
        let io = TokioIo::new(tcp);
        // The drivers end with the connections; what breaks one is told to the request that meets it.
        Ok(match to {
            Peer::Drover => {
                let (sender, driver) = http1::handshake(io).await.context("no HTTP/1.1")?;
                tokio::spawn(driver);
                Self::Drover(sender)
            }
            Peer::Etcd => {
                let (sender, driver) = http2::handshake(TokioExecutor::new(), io).await.context("no HTTP/2")?;
                tokio::spawn(driver);
                Self::Etcd(sender)
            }
        })
    }

    fn share(&self) -> anyhow::Result<Self> {
        match self {
            Self::Drover(_) => bail!("HTTP/1.1 connections cannot be shared by writers"),
            Self::Etcd(sender) => Ok(Self::Etcd(sender.clone())),
        }
    }

    /// Returns when the write was acknowledged; anything else is an error.
    async fn write(&mut self, address: &str, client: usize, number: u64) -> anyhow::Result<()> {
        match self {
            Self::Drover(sender) => {
                let request = Request::post("/v1/scheduler/iso8601")
                    .header("host", address)
                    .header("content-type", "application/json")
                    .body(Full::new(job(client, number)))?;
                sender.ready().await?;
                let answer = sender.send_request(request).await?;
                let status = answer.status();
                let body = answer.into_body().collect().await?.to_bytes();
                ensure!(status == StatusCode::NO_CONTENT, "drover said {status}: {}", String::from_utf8_lossy(&body));
            }
            Self::Etcd(sender) => {
                let request = Request::post(format!("http://{address}/etcdserverpb.KV/Put"))
                    .header("content-type", "application/grpc")
                    .header("te", "trailers")
                    .body(Full::new(put(client, number)))?;
                sender.ready().await?;
                check_grpc(sender.send_request(request).await?).await?;
            }
        }
        Ok(())
    }
}

async fn check_grpc(answer: Response<hyper::body::Incoming>) -> anyhow::Result<()> {
    let (head, body) = answer.into_parts();
    let body = body.collect().await?;
    // An answer without a message has its status in the head.
    let status = body.trailers().and_then(|trailers| trailers.get("grpc-status")).or_else(|| head.headers.get("grpc-status"));
    ensure!(
        head.status == StatusCode::OK && status.is_some_and(|status| status == "0"),
        "etcd said {} {:?} {:?}",
        head.status,
        head.headers,
        body.trailers()
    );
    Ok(())
}

/// The definition of a job that never fires while it is measured.
fn job(client: usize, number: u64) -> Bytes {
    let definition = |pad: usize| {
        format!(
            "{{\"name\":\"bench-{client:04}\",\"schedule\":\"R/2099-01-01T00:00:00Z/P1D\",\"command\":\"exec /usr/bin/report --number {number:010} {}\",\"cpus\":0.1,\"mem\":16,\"disabled\":true}}",
            "x".repeat(pad)
        )
    };
    definition(WRITE_BYTES.saturating_sub(definition(0).len())).into()
}

/// A gRPC message with a `PutRequest{key = 1, value = 2}` of etcd's rpc.proto.
fn put(client: usize, number: u64) -> Bytes {
    let key = format!("/jobs/bench-{client:04}");
    let value = format!("{number:0width$}", width = WRITE_BYTES - key.len());
    let mut message = BytesMut::new();
    for (field, bytes) in [(1u8, key.as_bytes()), (2, value.as_bytes())] {
        message.put_u8(field << 3 | 2);
        put_varint(&mut message, bytes.len());
        message.put_slice(bytes);
    }
    let mut framed = BytesMut::with_capacity(message.len() + 5);
    // Not compressed, then the length.
    framed.put_u8(0);
    framed.put_u32(u32::try_from(message.len()).expect("a small message"));
    framed.put_slice(&message);
    framed.freeze()
}

fn put_varint(buffer: &mut BytesMut, mut number: usize) {
    while number >= 0x80 {
        buffer.put_u8((number & 0x7f) as u8 | 0x80);
        number >>= 7;
    }
    buffer.put_u8(number as u8);
}

/// What this process has used so far.
fn cpu_seconds() -> Option<f64> {
    // The only thread is the first one; its first number is nanoseconds on a processor.
    let text = std::fs::read_to_string("/proc/self/schedstat").ok()?;
    text.split_whitespace().next()?.parse::<f64>().ok().map(|nanos| nanos / 1e9)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn writes_carry_what_they_say() {
        assert_eq!(job(7, 123).len(), WRITE_BYTES);
        serde_json::from_slice::<serde_json::Value>(&job(255, u64::MAX)).expect("a job is JSON");
        let message = put(7, 123);
        // Field 1 with the key, field 2 with the value and a length of two bytes.
        assert_eq!(message[..7], [0, 0, 0, 1, 5, 0x0a, 16]);
        assert_eq!(message[7..23], *b"/jobs/bench-0007");
        assert_eq!(message[23..26], [0x12, 0xf0, 0x01]);
        assert_eq!(message.len(), 5 + 2 + 16 + 3 + 240);
    }
}
