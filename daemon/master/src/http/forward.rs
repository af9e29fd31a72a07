//! Hands a request to the leader over the cluster listener, and its answer, streamed, back to the client.

use super::Dialect;
use drover_pki::Credentials;
use drover_pki::client::{Body, ClusterClient};
use drover_pki::tls::Expect;
use http_body_util::BodyExt;
use hyper::body::Incoming;
use hyper::header::{CONNECTION, HOST, TRANSFER_ENCODING};
use hyper::{Request, Response, StatusCode, Uri};
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

    pub(crate) async fn forward(&self, leader: &str, request: Request<Incoming>, dialect: Dialect) -> Response<Body> {
        let (mut head, body) = request.into_parts();
        let path = head.uri.path_and_query().map_or("/", |path| path.as_str());
        let target = format!("https://{leader}{FORWARD_PREFIX}{path}");
        let Ok(uri) = target.parse::<Uri>() else {
            return dialect.refuse(StatusCode::BAD_REQUEST, "the request's path cannot be handed to the leader", "");
        };
        head.uri = uri;
        for hop_by_hop in [HOST, CONNECTION, TRANSFER_ENCODING] {
            head.headers.remove(hop_by_hop);
        }
        let request = Request::from_parts(head, body.map_err(Into::into).boxed_unsync());
        match self.client(leader).send(request).await {
            Ok(response) => {
                let (mut head, body) = response.into_parts();
                head.headers.remove(CONNECTION);
                head.version = hyper::Version::HTTP_11;
                Response::from_parts(head, body.map_err(Into::into).boxed_unsync())
            }
            Err(error) => {
                let why = format!("the leader at {leader} does not answer: {error}");
                dialect.refuse(StatusCode::BAD_GATEWAY, &why, "try again in a few seconds: another master will lead by then")
            }
        }
    }
}
