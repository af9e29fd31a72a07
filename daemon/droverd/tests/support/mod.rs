//! A real `droverd master` on the loopback address, and a client that speaks plain HTTP/1.1 so that it can misbehave.

#![allow(dead_code, reason = "each test binary uses a part of this")]

use serde_json::Value;
use std::net::SocketAddr;
use std::path::Path;
use std::process::{Child, Command, Stdio};
use std::time::Duration;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpListener, TcpSocket, TcpStream};

/// Long enough for anything on a busy machine; nothing here should come near it.
pub(crate) const PATIENCE: Duration = Duration::from_secs(60);

/// A master that leads a cluster of its own. Ended when dropped.
pub(crate) struct Master {
    pub(crate) api: SocketAddr,
    pub(crate) cluster: SocketAddr,
    pub(crate) data_dir: tempfile::TempDir,
    process: Child,
}

impl Drop for Master {
    fn drop(&mut self) {
        // It may have ended by itself, which the test has noticed then.
        let _gone = self.process.kill();
        let _status = self.process.wait();
    }
}

async fn free_address() -> SocketAddr {
    // Free again when the listener is dropped, and nobody else is likely to get it at once.
    TcpListener::bind("127.0.0.1:0").await.unwrap().local_addr().unwrap()
}

impl Master {
    /// Starts one with these lines in `[master.limits]` and waits until it leads.
    pub(crate) async fn start(limits: &str) -> Self {
        let data_dir = tempfile::tempdir().unwrap();
        let (api, cluster) = (free_address().await, free_address().await);
        drover_pki::install_crypto_provider();
        drover_pki::directory::init_cluster(data_dir.path(), "m1", &cluster.to_string(), false).unwrap();
        let config = data_dir.path().join("drover.toml");
        let text = format!(
            "name = \"m1\"\ndata_dir = {:?}\n[master]\napi_listen = \"{api}\"\ncluster_listen = \"{cluster}\"\n\
             advertise = \"{cluster}\"\n[master.limits]\n{limits}\n",
            data_dir.path()
        );
        std::fs::write(&config, text).unwrap();
        let master = Self { api, cluster, process: spawn(&config), data_dir };
        eventually("the master leads", async || {
            let reply = master.try_ask("GET /drover/v1/status", &[], b"").await?;
            (reply.status == 200 && reply.json()["leader"].is_object()).then_some(())
        })
        .await;
        master
    }

    pub(crate) async fn connect(&self) -> TcpStream {
        TcpStream::connect(self.api).await.unwrap()
    }

    /// A connection that comes from another address of this machine.
    pub(crate) async fn connect_from(&self, source: &str) -> TcpStream {
        let socket = TcpSocket::new_v4().unwrap();
        socket.bind(format!("{source}:0").parse().unwrap()).unwrap();
        socket.connect(self.api).await.unwrap()
    }

    /// One request on a connection of its own.
    pub(crate) async fn ask(&self, line: &str, headers: &[&str], body: &[u8]) -> Reply {
        self.try_ask(line, headers, body).await.unwrap_or_else(|| panic!("{line} is not answered"))
    }

    /// JSON, posted or put.
    pub(crate) async fn send(&self, line: &str, body: Value) -> Reply {
        self.ask(line, &["Content-Type: application/json"], body.to_string().as_bytes()).await
    }

    async fn try_ask(&self, line: &str, headers: &[&str], body: &[u8]) -> Option<Reply> {
        let mut stream = TcpStream::connect(self.api).await.ok()?;
        stream.write_all(&request(line, headers, body)).await.ok()?;
        Reply::read(&mut stream).await
    }

    /// The value of a series in the master's metrics; 0 when it is not there yet.
    pub(crate) async fn metric(&self, series: &str) -> f64 {
        let page = self.ask("GET /metrics", &[], b"").await.text();
        let value = page.lines().find_map(|line| line.strip_prefix(series)?.strip_prefix(' ')?.parse().ok());
        value.unwrap_or(0.0)
    }
}

fn spawn(config: &Path) -> Child {
    let mut command = Command::new(env!("CARGO_BIN_EXE_droverd"));
    command.arg("master").arg("--config").arg(config).env_remove("NOTIFY_SOCKET").env_remove("JOURNAL_STREAM");
    command.stdin(Stdio::null()).spawn().unwrap()
}

/// The bytes of a request that closes its connection.
pub(crate) fn request(line: &str, headers: &[&str], body: &[u8]) -> Vec<u8> {
    let mut text = format!("{line} HTTP/1.1\r\nHost: m1\r\nConnection: close\r\nContent-Length: {}\r\n", body.len());
    for header in headers {
        text.push_str(header);
        text.push_str("\r\n");
    }
    text.push_str("\r\n");
    [text.as_bytes(), body].concat()
}

/// An answer.
#[derive(Debug)]
pub(crate) struct Reply {
    pub(crate) status: u16,
    pub(crate) head: String,
    pub(crate) body: Vec<u8>,
}

impl Reply {
    /// Reads until the other side closes. `None` if it did so without a word.
    pub(crate) async fn read(stream: &mut TcpStream) -> Option<Self> {
        let mut bytes = Vec::new();
        // What came before a reset counts.
        let _end = soon("the answer ends", stream.read_to_end(&mut bytes)).await;
        Self::parse(&bytes)
    }

    pub(crate) fn parse(bytes: &[u8]) -> Option<Self> {
        let end = bytes.windows(4).position(|window| window == b"\r\n\r\n")?;
        let head = String::from_utf8_lossy(&bytes[..end]).into_owned();
        let status = head.split(' ').nth(1)?.parse().ok()?;
        Some(Self { status, head, body: bytes[end + 4..].to_vec() })
    }

    pub(crate) fn text(&self) -> String {
        String::from_utf8_lossy(&self.body).into_owned()
    }

    pub(crate) fn json(&self) -> Value {
        serde_json::from_slice(&self.body).unwrap_or(Value::Null)
    }

    pub(crate) fn header(&self, name: &str) -> Option<&str> {
        let lines = self.head.lines().skip(1).filter_map(|line| line.split_once(':'));
        lines.filter(|(key, _)| key.eq_ignore_ascii_case(name)).map(|(_, value)| value.trim()).next()
    }
}

/// Waits for something, and says what for if it does not come.
pub(crate) async fn soon<T>(what: &str, future: impl Future<Output = T>) -> T {
    match tokio::time::timeout(PATIENCE, future).await {
        Ok(value) => value,
        Err(_) => panic!("waited in vain: {what}"),
    }
}

/// Looks again and again until there is an answer.
pub(crate) async fn eventually<T>(what: &str, mut look: impl AsyncFnMut() -> Option<T>) -> T {
    soon(what, async {
        loop {
            if let Some(found) = look().await {
                return found;
            }
            tokio::time::sleep(Duration::from_millis(20)).await;
        }
    })
    .await
}
