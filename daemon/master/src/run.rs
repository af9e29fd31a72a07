//! The master's life: open the identity and the log, listen, lead when elected, stop in reverse.

use crate::agents::Agents;
use crate::api_listener;
use crate::board::Board;
use crate::cluster_listener::{ClusterListener, Handler};
use crate::config::MasterConfig;
use crate::consensus::{Consensus, Settings};
use crate::doors::Doors;
use crate::http::forward::FORWARD_PREFIX;
use crate::http::{self, Api, Origin};
use crate::leader_loop::LeaderLoop;
use crate::metrics;
use anyhow::{Context, bail};
use drover_api::agent::{SESSION_PATH, STREAMS_PATH};
use drover_core::ids::AgentId;
use drover_pki::client::Body;
use drover_pki::{Credentials, PeerIdentity, Role};
use hyper::body::Incoming;
use hyper::{Request, Response, StatusCode, Uri};
use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;
use tokio::net::TcpListener;
use tokio::sync::watch;
use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;
use tracing::info;

/// Runs a master until `shutdown`; sets `ready` once it listens and takes part. Feeds systemd's watchdog for as long as its
/// state can be read.
///
/// # Errors
/// There is no usable identity (see `drover cluster init`, `drover node join`), the log or a listener cannot be opened, or
/// consensus can go on no more (a full or broken disk). What was acknowledged is safe in each case.
pub async fn run(config: MasterConfig, ready: watch::Sender<bool>, shutdown: CancellationToken) -> anyhow::Result<()> {
    let mut credentials = Credentials::load(&config.data_dir, Role::Master)?;
    check_identity(&config, &mut credentials)?;
    let settings = Settings {
        heartbeat_interval: config.heartbeat_interval,
        election_timeout: config.election_timeout,
        snapshot_every: config.snapshot_every,
        events_buffered: config.limits.events_buffered,
        proposal_bytes: config.limits.proposal,
    };
    let consensus = Consensus::start(settings, &mut credentials, &config.data_dir.join("master/raft")).await?;
    let served = serve(config, credentials, consensus.clone(), ready, shutdown).await;
    consensus.shutdown().await;
    served
}

/// The name is in the certificate; the address may move.
fn check_identity(config: &MasterConfig, credentials: &mut Credentials) -> anyhow::Result<()> {
    let identity = &credentials.identity;
    if identity.name != config.name {
        bail!(
            "the configuration calls this node {:?}, but its certificate is for {:?}: set name = {:?}, or join anew under the other name",
            config.name,
            identity.name,
            identity.name
        );
    }
    if identity.advertise.as_deref() != Some(config.advertise.as_str()) {
        credentials.update_identity(|identity| identity.advertise = Some(config.advertise.clone()))?;
    }
    Ok(())
}

async fn serve(
    config: MasterConfig,
    credentials: Credentials,
    consensus: Consensus,
    ready: watch::Sender<bool>,
    shutdown: CancellationToken,
) -> anyhow::Result<()> {
    let config = Arc::new(config);
    let agents = Arc::new(Agents::new(config.agent_heartbeat, config.limits.agent_message, config.limits.agents));
    let board = Arc::new(Board::default());
    let api = Arc::new(Api::new(
        consensus.clone(),
        Arc::clone(&agents),
        Arc::clone(&board),
        Arc::clone(&config),
        credentials.clone(),
    ));
    let api_socket = listen(config.api_listen, "the API", "api_listen").await?;
    let cluster_socket = listen(config.cluster_listen, "other nodes", "cluster_listen").await?;

    let tasks = TaskTracker::new();
    let stop = shutdown.child_token();
    let handler: Handler = {
        let (api, agents, consensus) = (Arc::clone(&api), Arc::clone(&agents), consensus.clone());
        Arc::new(move |peer, request| Box::pin(route(Arc::clone(&api), Arc::clone(&agents), consensus.clone(), peer, request)))
    };
    let limits = config.limits;
    let doors = Doors::new("cluster", limits.cluster_connections, limits.cluster_connections_per_peer);
    let cluster_listener = ClusterListener::new(consensus.clone(), credentials, handler, doors)?;
    tasks.spawn(cluster_listener.run(cluster_socket, stop.clone()));
    tasks.spawn(api_listener::run(api_socket, api, stop.clone()));
    tasks.spawn(metrics::count_leaders(consensus.clone(), stop.clone()));
    let leader = LeaderLoop { consensus: consensus.clone(), agents, board, config: Arc::clone(&config) };
    tasks.spawn(leader.run(stop.clone()));
    tasks.close();
    info!(api = %config.api_listen, cluster = %config.cluster_listen, advertise = %config.advertise, "master {} is up", config.name);
    ready.send_replace(true);

    let mut fatal = consensus.fatal();
    let ended = tokio::select! {
        () = shutdown.cancelled() => Ok(()),
        reason = fatal.wait_for(Option::is_some) => match reason {
            Ok(reason) => Err(anyhow::anyhow!("consensus cannot go on: {}", reason.as_deref().unwrap_or_default())),
            Err(_) => Err(anyhow::anyhow!("consensus ended")),
        },
        () = feed_watchdog(&consensus) => Ok(()),
    };
    stop.cancel();
    tasks.wait().await;
    ended
}

/// Tells systemd that this runtime turns and nobody sits on the state. Never ends.
async fn feed_watchdog(consensus: &Consensus) {
    let mut tick = tokio::time::interval(Duration::from_secs(1));
    loop {
        tick.tick().await;
        consensus.read(|_| ());
        if let Err(error) = sd_notify::notify(false, &[sd_notify::NotifyState::Watchdog]) {
            tracing::debug!(%error, "systemd not notified, ignoring");
        }
    }
}

async fn listen(address: SocketAddr, whom: &str, key: &str) -> anyhow::Result<TcpListener> {
    TcpListener::bind(address).await.with_context(|| format!("cannot listen for {whom} on {address} ([master] {key})"))
}

/// What the cluster listener does not answer itself: agents' sessions and streams, and requests of clients that another
/// master took.
async fn route(
    api: Arc<Api>,
    agents: Arc<Agents>,
    consensus: Consensus,
    peer: PeerIdentity,
    mut request: Request<Incoming>,
) -> Response<Body> {
    let path = request.uri().path().to_owned();
    match peer.role {
        Role::Agent if path == SESSION_PATH => agents.serve(&consensus, AgentId::new(peer.id), request),
        Role::Agent => match path.strip_prefix(STREAMS_PATH) {
            Some(stream) => agents.accept_stream(stream, request.into_body()).await,
            None => http::empty(StatusCode::NOT_FOUND),
        },
        Role::Master => match without_prefix(request.uri()) {
            Some(uri) => {
                *request.uri_mut() = uri;
                api.serve(request, Origin::Master).await
            }
            None => http::empty(StatusCode::NOT_FOUND),
        },
    }
}

/// The client's own path and query.
fn without_prefix(uri: &Uri) -> Option<Uri> {
    uri.path_and_query()?.as_str().strip_prefix(FORWARD_PREFIX)?.parse().ok()
}
