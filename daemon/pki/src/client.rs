//! The client side of the cluster listener: one kept HTTP/2 connection to one master, made when needed.
//!
//! Used by agents for their session with the leader, by masters to forward requests and to carry Raft, and by
//! a joining node. A connection that broke is made anew by the next request; requests are never repeated here,
//! because only the caller knows which ones may be.

use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use http_body_util::{BodyExt, Full, LengthLimitError, Limited};
use hyper::body::Incoming;
use hyper::client::conn::http2::{self, SendRequest};
use hyper::{Request, Response};
use hyper_util::rt::{TokioExecutor, TokioIo, TokioTimer};
use rustls::ClientConfig;
use rustls_pki_types::{IpAddr, ServerName};
use tokio::net::TcpStream;
use tokio::sync::Mutex;
use tokio_rustls::TlsConnector;

use crate::directory::host_of;
use crate::tls::{self, Expect};
use crate::{Credentials, JoinToken};

/// What goes wrong in a body while it is produced.
pub type BodyError = Box<dyn std::error::Error + Send + Sync>;

/// The body of a request to, or an answer of, the cluster listener.
pub type Body = http_body_util::combinators::UnsyncBoxBody<Bytes, BodyError>;

/// A body with this content.
pub fn full(content: impl Into<Bytes>) -> Body {
    Full::new(content.into()).map_err(|never| match never {}).boxed_unsync()
}

/// A body without content.
pub fn empty() -> Body {
    full(Bytes::new())
}

/// How long a connection may take to be made, TLS included.
const CONNECT_TIMEOUT: Duration = Duration::from_secs(5);

/// A connection is asked for a sign of life this often, also when nothing else is going on…
const PING_INTERVAL: Duration = Duration::from_secs(5);

/// …and given up when it stays silent for so long. Together they bound how long a vanished peer (no FIN, no
/// RST) is taken for alive.
const PING_TIMEOUT: Duration = Duration::from_secs(5);

/// Why a master could not be asked.
#[derive(Debug, thiserror::Error)]
pub enum ClientError {
    /// Not `host:port`.
    #[error("{0:?} is not an address: write host:port")]
    BadAddress(String),
    /// Nobody answers there.
    #[error("{address} cannot be reached")]
    Unreachable {
        /// The address dialled.
        address: String,
        /// Why.
        #[source]
        source: std::io::Error,
    },
    /// Somebody answers, and is not who it should be, or does not take us for who we are.
    #[error("{address} refused TLS, or is not a master of this cluster")]
    Handshake {
        /// The address dialled.
        address: String,
        /// Why.
        #[source]
        source: std::io::Error,
    },
    /// Nothing happened for too long.
    #[error("{address} did not answer in time")]
    Timeout {
        /// The address dialled.
        address: String,
    },
    /// The connection broke before the answer was there.
    #[error("the connection to {address} broke")]
    Broken {
        /// The address dialled.
        address: String,
        /// Why.
        #[source]
        source: hyper::Error,
    },
    /// The answer's body could not be read.
    #[error("the answer of {address} could not be read")]
    Answer {
        /// The address dialled.
        address: String,
        /// Why.
        #[source]
        source: BodyError,
    },
    /// The answer is longer than the caller wants.
    #[error("the answer of {address} is too long")]
    TooLong {
        /// The address dialled.
        address: String,
    },
}

/// One master, and the kept connection to it. Clones share the connection.
#[derive(Clone)]
pub struct ClusterClient {
    inner: Arc<Inner>,
}

struct Inner {
    address: String,
    tls: Arc<ClientConfig>,
    connection: Mutex<Option<SendRequest<Body>>>,
}

impl ClusterClient {
    /// A client of the master at `address` (`host:port`). Does not connect yet.
    pub fn new(credentials: &Credentials, address: impl Into<String>, expect: Expect) -> Self {
        Self::with_tls(address, tls::client_config(credentials, expect))
    }

    /// A client of the master at `address`, for a node that has a token only.
    pub fn joining(token: &JoinToken, address: impl Into<String>) -> Self {
        Self::with_tls(address, tls::joining_config(token))
    }

    fn with_tls(address: impl Into<String>, tls: Arc<ClientConfig>) -> Self {
        Self { inner: Arc::new(Inner { address: address.into(), tls, connection: Mutex::new(None) }) }
    }

    /// The address it dials.
    pub fn address(&self) -> &str {
        &self.inner.address
    }

    /// Sends one request, over a new connection if there is none. The request's URI needs only a path.
    ///
    /// Waits for the head of the answer for as long as it takes; dropping the future cancels the request.
    pub async fn send(&self, mut request: Request<Body>) -> Result<Response<Incoming>, ClientError> {
        // HTTP/2 wants scheme and authority; who is meant was settled by TLS.
        let path = request.uri().path_and_query().map_or("/", |path| path.as_str());
        *request.uri_mut() = hyper::Uri::builder()
            .scheme("https")
            .authority(self.inner.address.as_str())
            .path_and_query(path)
            .build()
            .map_err(|_| ClientError::BadAddress(self.inner.address.clone()))?;
        let mut sender = self.sender().await?;
        sender.send_request(request).await.map_err(|source| ClientError::Broken { address: self.inner.address.clone(), source })
    }

    /// Sends one request and reads the whole answer, of at most `limit` bytes.
    pub async fn call(&self, request: Request<Body>, limit: usize) -> Result<Response<Bytes>, ClientError> {
        let (head, body) = self.send(request).await?.into_parts();
        let body = Limited::new(body, limit).collect().await.map_err(|source| {
            let address = self.inner.address.clone();
            match source.is::<LengthLimitError>() {
                true => ClientError::TooLong { address },
                false => ClientError::Answer { address, source },
            }
        })?;
        Ok(Response::from_parts(head, body.to_bytes()))
    }

    /// Forgets the connection, so that the next request makes a new one. For callers who waited too long.
    pub async fn disconnect(&self) {
        self.inner.connection.lock().await.take();
    }

    async fn sender(&self) -> Result<SendRequest<Body>, ClientError> {
        // Held while connecting: whoever asks meanwhile wants that same connection.
        let mut slot = self.inner.connection.lock().await;
        if let Some(sender) = slot.as_ref().filter(|sender| !sender.is_closed()) {
            return Ok(sender.clone());
        }
        *slot = None;
        let address = || self.inner.address.clone();
        let sender = tokio::time::timeout(CONNECT_TIMEOUT, self.connect())
            .await
            .map_err(|_| ClientError::Timeout { address: address() })??;
        *slot = Some(sender.clone());
        Ok(sender)
    }

    async fn connect(&self) -> Result<SendRequest<Body>, ClientError> {
        let address = || self.inner.address.clone();
        let name = server_name(&self.inner.address).ok_or_else(|| ClientError::BadAddress(address()))?;
        let tcp = TcpStream::connect(&self.inner.address)
            .await
            .map_err(|source| ClientError::Unreachable { address: address(), source })?;
        if let Err(error) = tcp.set_nodelay(true) {
            tracing::debug!(%error, "cannot switch off Nagle's algorithm, ignoring");
        }
        let stream = TlsConnector::from(self.inner.tls.clone())
            .connect(name, tcp)
            .await
            .map_err(|source| ClientError::Handshake { address: address(), source })?;
        let (sender, connection) = http2::Builder::new(TokioExecutor::new())
            .timer(TokioTimer::new())
            .adaptive_window(true)
            .keep_alive_interval(PING_INTERVAL)
            .keep_alive_timeout(PING_TIMEOUT)
            .keep_alive_while_idle(true)
            .handshake(TokioIo::new(stream))
            .await
            .map_err(|source| ClientError::Broken { address: address(), source })?;
        let address = address();
        tokio::spawn(async move {
            if let Err(error) = connection.await {
                tracing::debug!(%address, error = &error as &dyn std::error::Error, "connection ended");
            }
        });
        Ok(sender)
    }
}

impl std::fmt::Debug for ClusterClient {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("ClusterClient").field("address", &self.inner.address).finish_non_exhaustive()
    }
}

/// Whether a text is `host:port`, with a host that TLS takes for one and a port that is a number.
pub fn is_address(text: &str) -> bool {
    let port = text.rsplit_once(':').and_then(|(_, port)| port.parse::<u16>().ok());
    port.is_some_and(|port| port != 0) && server_name(text).is_some()
}

/// What goes into the handshake as server name. Nobody compares it, but it must be well formed.
fn server_name(address: &str) -> Option<ServerName<'static>> {
    let host = host_of(address)?;
    if let Ok(address) = host.parse::<std::net::IpAddr>() {
        return Some(ServerName::IpAddress(IpAddr::from(address)));
    }
    ServerName::try_from(host).ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn addresses() {
        for good in ["n1:7071", "10.0.0.1:1", "[::1]:7071", "n1.example.org:7071"] {
            assert!(server_name(good).is_some() && is_address(good), "{good}");
        }
        for bad in ["", "n1", ":7071", "a b:1"] {
            assert!(server_name(bad).is_none() && !is_address(bad), "{bad}");
        }
        for bad in ["n1:", "n1:0", "n1:x", "n1:70710"] {
            assert!(!is_address(bad), "{bad}");
        }
    }
}
