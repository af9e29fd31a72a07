//! Letting nodes in, and giving them newer certificates.
//!
//! A certificate is made first and handed out only once the replicated log has used the token up, so that a token
//! for one node never lets in two, whichever masters they ask and whoever leads meanwhile.

use std::time::Duration;

use drover_core::state::{Command, NodeRole, Refusal};
use drover_core::time::Timestamp;
use drover_pki::authority::AuthorityError;
use drover_pki::client::{self, Body, ClusterClient};
use drover_pki::join::{JOIN_PATH, JoinRequest, JoinResponse, RenewRequest, RenewResponse};
use drover_pki::tls::Expect;
use drover_pki::{Identity, JoinToken, PeerIdentity, Role, random_master_id};
use hyper::body::{Bytes, Incoming};
use hyper::header::HeaderName;
use hyper::{Request, Response, StatusCode};

use super::{BODY_LIMIT, ClusterListener, Refused, json, parse, read, read_body};
use crate::clock;
use crate::consensus::{Master, ProposeError};

/// How long a machine that wants in waits for a leader.
const LEADER_PATIENCE: Duration = Duration::from_secs(5);

/// Marks a request that a master handed on: it is not handed on again.
const HANDED_ON: HeaderName = HeaderName::from_static("drover-handed-on");

pub(super) async fn admit(listener: &ClusterListener, request: Request<Incoming>) -> Response<Body> {
    let may_hand_on = !request.headers().contains_key(HANDED_ON);
    let admitted = async {
        let body = read_body(request).await?;
        let wish: JoinRequest = parse(&body)?;
        match leader_of(listener).await {
            Some(leader) if leader.id == listener.consensus.me().id => certify(listener, wish).await,
            Some(leader) if may_hand_on => hand_on(listener, &leader, body).await,
            _ => Err(Refused::unavailable("no master leads at the moment", "")),
        }
    };
    admitted.await.unwrap_or_else(Response::from)
}

/// Who leads; waits for somebody who does, because masters that come and go leave nobody for a moment.
async fn leader_of(listener: &ClusterListener) -> Option<Master> {
    let mut leadership = listener.consensus.leadership();
    let known = leadership.wait_for(|leadership| leadership.leader.is_some());
    let known = tokio::time::timeout(LEADER_PATIENCE, known).await.ok()?.ok()?;
    known.leader.clone()
}

async fn hand_on(listener: &ClusterListener, leader: &Master, body: Bytes) -> Result<Response<Body>, Refused> {
    let client = ClusterClient::new(&listener.credentials, leader.address.clone(), Expect::Master(leader.id));
    let request = Request::post(JOIN_PATH).header(HANDED_ON, "1").body(client::full(body));
    let request = request.expect("a constant path makes a request");
    let answer = client.call(request, BODY_LIMIT).await;
    let answer = answer.map_err(|error| Refused::unavailable("the leader cannot be asked", &error.to_string()))?;
    Ok(answer.map(client::full))
}

async fn certify(listener: &ClusterListener, wish: JoinRequest) -> Result<Response<Body>, Refused> {
    let token: JoinToken = wish.token.parse().map_err(|error| Refused::forbidden(&format!("{error}"), ""))?;
    if !token.names_authority(listener.authority.certificate()) {
        let because = format!("the token is for another cluster than {}", listener.authority.cluster());
        return Err(Refused::forbidden("the token is not for this cluster", &because));
    }
    let members = listener.consensus.members();
    let (role, id) = match wish.role {
        Role::Agent => (NodeRole::Agent, uuid::Uuid::new_v4().to_string()),
        Role::Master => {
            let Some(advertise) = wish.advertise.as_deref().filter(|address| client::is_address(address)) else {
                let error = "a master needs an address under which the others reach it";
                return Err(Refused::bad_request(error, "").remedy("drover node join --role master --advertise HOST:7071"));
            };
            let taken = members.iter().find(|member| member.name == wish.name || member.address == advertise);
            if let Some(taken) = taken {
                let error = format!("there is a master {} at {} already", taken.name, taken.address);
                let remedy = format!("drover masters remove {}", taken.name);
                return Err(Refused::new(StatusCode::CONFLICT, drover_api::drover::code::CONFLICT, &error, "").remedy(&remedy));
            }
            (NodeRole::Master, random_master_id().to_string())
        }
    };
    let identity = Identity {
        format: Identity::FORMAT,
        cluster: listener.authority.cluster(),
        role: wish.role,
        id,
        name: wish.name,
        advertise: wish.advertise.filter(|_| wish.role == Role::Master),
        peers: members.into_iter().map(|member| member.address).collect(),
        founder: false,
        started: false,
    };
    let certificate = sign(listener, &identity.peer(), &wish.hosts, &wish.csr)?;
    let ca_key = (wish.role == Role::Master).then(|| listener.authority.key_pem());
    let answer = JoinResponse { ca: listener.authority.certificate_pem().to_owned(), certificate, identity, ca_key };

    use_token(listener, &token, role, clock::now()).await?;
    tracing::info!(name = %answer.identity.name, role = %answer.identity.role, id = %answer.identity.id, "a node was let in");
    Ok(json(StatusCode::OK, &answer))
}

async fn use_token(listener: &ClusterListener, token: &JoinToken, role: NodeRole, at: Timestamp) -> Result<(), Refused> {
    match listener.consensus.propose(Command::UseJoinToken { hash: token.hash(), role, at }).await {
        Ok(_) => Ok(()),
        Err(ProposeError::Refused(Refusal::BadToken(why))) => Err(Refused::forbidden(&why, "")),
        Err(ProposeError::Refused(refusal)) => Err(Refused::forbidden(&refusal.to_string(), "")),
        Err(error) => Err(Refused::unavailable("the node was not let in", &error.to_string())),
    }
}

pub(super) async fn renew(listener: &ClusterListener, peer: &PeerIdentity, request: Request<Incoming>) -> Response<Body> {
    let renewed = async {
        let wish: RenewRequest = read(request).await?;
        let certificate = sign(listener, peer, &wish.hosts, &wish.csr)?;
        tracing::info!(name = %peer.name, role = %peer.role, id = %peer.id, "a node's certificate was renewed");
        Ok::<_, Refused>(json(StatusCode::OK, &RenewResponse { certificate }))
    };
    renewed.await.unwrap_or_else(Response::from)
}

fn sign(listener: &ClusterListener, peer: &PeerIdentity, hosts: &[String], csr: &str) -> Result<String, Refused> {
    listener.authority.certify(peer, hosts, csr).map_err(|error| match error {
        AuthorityError::Certificate(cause) => {
            tracing::error!(error = &cause as &dyn std::error::Error, "a certificate could not be made");
            let code = drover_api::drover::code::INTERNAL;
            Refused::new(StatusCode::INTERNAL_SERVER_ERROR, code, "the certificate could not be made", "")
        }
        error => Refused::bad_request("the node cannot have this certificate", &error.to_string()),
    })
}
