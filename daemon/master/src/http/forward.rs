//! Hands a request to the leader over the cluster listener, and its answer, streamed, back to the client.

use bytes::Bytes;
use drover_pki::Credentials;
use drover_pki::client::{self, Body, ClientError, ClusterClient};
use drover_pki::tls::Expect;
use http_body_util::BodyExt;
use hyper::header::{CONNECTION, CONTENT_LENGTH, HOST, TRANSFER_ENCODING};
use hyper::http::request::Parts;
use hyper::{Request, Response};
use std::collections::HashMap;
use std::sync::{Arc, Mutex};

/// Prefix under which a master hands a client's request to the leader.
pub(crate) const FORWARD_PREFIX: &str = "/api";

/// Connections to other masters, one each.
pub(crate) struct Forwarder {
    credentials: Credentials,
    clients: Mutex<HashMap<String, Arc<ClusterClient>>>,
}

impl Forwarder {
    pub(crate) fn new(credentials: Credentials) -> Self {
        Self { credentials, clients: Mutex::default() }
    }

    fn client(&self, address: &str) -> Arc<ClusterClient> {
        let mut clients = self.clients.lock().expect("nobody panics while holding the clients");
        let make = || Arc::new(ClusterClient::new(&self.credentials, address, Expect::AnyMaster));
        Arc::clone(clients.entry(address.to_owned()).or_insert_with(make))
    }

    /// Sends the request to the leader and returns its answer, whose body goes on streaming. Waits as long as it takes: the
    /// caller gives up when somebody else leads.
    pub(crate) async fn forward(&self, leader: &str, head: &Parts, body: &Bytes) -> Result<Response<Body>, ClientError> {
        let path = head.uri.path_and_query().map_or("/", |path| path.as_str());
        let mut request = Request::new(client::full(body.clone()));
        *request.method_mut() = head.method.clone();
        *request.uri_mut() = format!("{FORWARD_PREFIX}{path}").parse().expect("a path behind a prefix is a path");
        *request.headers_mut() = head.headers.clone();
        for not_for_the_next in [HOST, CONNECTION, TRANSFER_ENCODING, CONTENT_LENGTH] {
            request.headers_mut().remove(not_for_the_next);
        }
        let (mut head, body) = self.client(leader).send(request).await?.into_parts();
        head.headers.remove(CONNECTION);
        head.version = hyper::Version::HTTP_11;
        Ok(Response::from_parts(head, body.map_err(Into::into).boxed_unsync()))
    }

    /// Forgets the connection to a master that does not answer any more.
    pub(crate) fn forget(&self, leader: &str) {
        self.clients.lock().expect("nobody panics while holding the clients").remove(leader);
    }
}

/// Whether the request certainly never left this master.
pub(crate) fn was_not_sent(error: &ClientError) -> bool {
    matches!(error, ClientError::Unreachable { .. } | ClientError::Timeout { .. } | ClientError::BadAddress(_))
}
