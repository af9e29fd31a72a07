//! Masters over real TLS on the loopback address, in one process; also used by the tests of consensus.

use std::net::SocketAddr;
use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

use drover_core::ids::Role as FrameworkRole;
use drover_core::state::{ClusterState, Command, JoinToken as TokenRecord, NodeRole};
use drover_core::time::Timestamp;
use drover_pki::client::{self, ClientError, ClusterClient};
use drover_pki::join::{JoinError, Wish, join, renew};
use drover_pki::tls::Expect;
use drover_pki::{Credentials, JoinToken, Role, directory};
use hyper::{Request, Response, StatusCode};
use tokio::net::TcpListener;
use tokio::task::JoinHandle;
use tokio_util::sync::CancellationToken;

use super::{ClusterListener, Handler};
use crate::clock;
use crate::consensus::{Consensus, Member, MemberRole, Settings, StartError};
use crate::doors::Doors;

/// Long enough for anything on a busy machine; nothing here should come near it.
const PATIENCE: Duration = Duration::from_secs(60);

pub(crate) const SETTINGS: Settings = Settings {
    heartbeat_interval: Duration::from_millis(100),
    election_timeout: Duration::from_millis(600),
    snapshot_every: 10_000,
    events_buffered: 1000,
    proposal_bytes: 16 << 20,
};

/// Waits for something, and says what for if it does not come.
pub(crate) async fn soon<T>(what: &str, future: impl Future<Output = T>) -> T {
    match tokio::time::timeout(PATIENCE, future).await {
        Ok(value) => value,
        Err(_) => panic!("waited in vain: {what}"),
    }
}

/// A machine with a master on it, running or not.
pub(crate) struct Machine {
    pub(crate) data_dir: tempfile::TempDir,
    pub(crate) address: SocketAddr,
    pub(crate) settings: Settings,
    running: Option<Running>,
}

struct Running {
    consensus: Consensus,
    shutdown: CancellationToken,
    listening: JoinHandle<()>,
}

impl Machine {
    async fn new(settings: Settings) -> Self {
        // The port is free again when the listener is dropped, and nobody else is likely to get it at once.
        let address = TcpListener::bind("127.0.0.1:0").await.unwrap().local_addr().unwrap();
        Self { data_dir: tempfile::tempdir().unwrap(), address, settings, running: None }
    }

    /// The first master of a new cluster, leading.
    pub(crate) async fn found(name: &str, settings: Settings) -> Self {
        let mut machine = Self::new(settings).await;
        directory::init_cluster(machine.data_dir.path(), name, &machine.address.to_string(), false).unwrap();
        machine.start().await.unwrap();
        machine.leads().await;
        machine
    }

    /// A further master, let in with a token through any other.
    pub(crate) async fn join(through: &Machine, token: &JoinToken, name: &str) -> Self {
        let mut machine = Self::new(through.settings).await;
        let advertise = machine.address.to_string();
        let wish = Wish { data_dir: machine.data_dir.path(), role: Role::Master, name, advertise: Some(&advertise) };
        join(token, &through.address.to_string(), wish).await.unwrap();
        machine.start().await.unwrap();
        let is_voter = |members: &[Member]| members.iter().any(|m| m.name == name && m.role == MemberRole::Follower);
        soon("a new master becomes a voter", machine.consensus().members_are(is_voter)).await;
        machine
    }

    pub(crate) async fn start(&mut self) -> Result<(), StartError> {
        let mut credentials = Credentials::load(self.data_dir.path(), Role::Master)?;
        let consensus = Consensus::start(self.settings, &mut credentials, &self.raft_dir()).await?;
        let handler: Handler = Arc::new(|peer, request| {
            Box::pin(async move {
                assert_eq!(request.extensions().get(), Some(&peer));
                Response::new(client::full(format!("{} asks for {}", peer.role, request.uri().path())))
            })
        });
        let listener = ClusterListener::new(consensus.clone(), credentials, handler, Doors::new("test", 1000, 1000))?;
        let socket = TcpListener::bind(self.address).await.unwrap();
        let shutdown = CancellationToken::new();
        let listening = tokio::spawn(listener.run(socket, shutdown.clone()));
        self.running = Some(Running { consensus, shutdown, listening });
        Ok(())
    }

    pub(crate) async fn stop(&mut self) {
        let Running { consensus, shutdown, listening } = self.running.take().unwrap();
        shutdown.cancel();
        consensus.shutdown().await;
        soon("the listener ends", listening).await.unwrap();
    }

    /// Takes another address, as a machine does whose configuration says so.
    pub(crate) async fn move_away(&mut self) {
        self.address = TcpListener::bind("127.0.0.1:0").await.unwrap().local_addr().unwrap();
        let advertise = Some(self.address.to_string());
        self.credentials().update_identity(|identity| identity.advertise = advertise).unwrap();
    }

    pub(crate) fn raft_dir(&self) -> std::path::PathBuf {
        self.data_dir.path().join("master/raft")
    }

    pub(crate) fn credentials(&self) -> Credentials {
        Credentials::load(self.data_dir.path(), Role::Master).unwrap()
    }

    pub(crate) fn consensus(&self) -> &Consensus {
        &self.running.as_ref().unwrap().consensus
    }

    pub(crate) fn state(&self) -> ClusterState {
        self.consensus().read(ClusterState::clone)
    }

    pub(crate) async fn leads(&self) {
        let mut leadership = self.consensus().leadership();
        soon("this master leads", leadership.wait_for(|leadership| leadership.is_me)).await.unwrap();
    }

    pub(crate) async fn has_applied(&self, index: u64) {
        let mut applied = self.consensus().applied();
        soon("an entry is applied", applied.wait_for(|applied| *applied >= index)).await.unwrap();
    }

    pub(crate) async fn token(&self, role: NodeRole, expires_at: Timestamp, uses_left: u32) -> JoinToken {
        let token = JoinToken::generate(self.credentials().authority());
        let record = TokenRecord { role, expires_at, uses_left };
        let put = Command::PutJoinToken { hash: token.hash(), token: record, at: clock::now() };
        self.consensus().propose(put).await.unwrap();
        token
    }

    /// A client without a kept connection.
    pub(crate) fn client(&self, credentials: &Credentials) -> ClusterClient {
        ClusterClient::new(credentials, self.address.to_string(), Expect::AnyMaster)
    }
}

/// Waits until one of the running masters leads, and returns its place.
pub(crate) async fn leader(machines: &[Machine]) -> usize {
    let running = machines.iter().enumerate().filter(|(_, machine)| machine.running.is_some());
    let waiting = running.map(|(at, machine)| {
        Box::pin(async move {
            machine.consensus().leadership().wait_for(|leadership| leadership.is_me).await.unwrap();
            at
        })
    });
    soon("somebody leads", futures_util::future::select_all(waiting)).await.0
}

/// Three masters, of which the first led to begin with.
pub(crate) async fn three(settings: Settings) -> Vec<Machine> {
    let first = Machine::found("n1", settings).await;
    let token = first.token(NodeRole::Master, Timestamp(i64::MAX), 2).await;
    let second = Machine::join(&first, &token, "n2").await;
    // Through a follower, which hands the request on.
    let third = Machine::join(&second, &token, "n3").await;
    vec![first, second, third]
}

/// A command that changes the state in a way that can be counted.
pub(crate) fn weight(weight_milli: u64) -> Command {
    let role = FrameworkRole::new(format!("role-{}", weight_milli % 50));
    Command::SetRoleWeight { role, weight_milli, at: Timestamp(weight_milli as i64) }
}

async fn join_as(machine: &Machine, token: &JoinToken, role: Role, dir: &Path) -> Result<Credentials, JoinError> {
    let advertise = (role == Role::Master).then_some("127.0.0.1:9");
    let wish = Wish { data_dir: dir, role, name: "newcomer", advertise };
    soon("an answer to a join", join(token, &machine.address.to_string(), wish)).await?;
    Ok(Credentials::load(dir, role).unwrap())
}

#[tokio::test(flavor = "multi_thread")]
async fn a_token_lets_in_as_often_and_as_long_as_it_says() {
    let master = Machine::found("n1", SETTINGS).await;
    let dir = tempfile::tempdir().unwrap();
    let at = |name: &str| dir.path().join(name);
    let refused = |result: Result<Credentials, JoinError>, why: &str| {
        let error = result.expect_err("must be refused").to_string();
        assert!(error.contains(why), "{error}");
    };

    let token = master.token(NodeRole::Agent, Timestamp(i64::MAX), 2).await;
    let first = join_as(&master, &token, Role::Agent, &at("1")).await.unwrap();
    let second = join_as(&master, &token, Role::Agent, &at("2")).await.unwrap();
    assert_ne!(first.identity.id, second.identity.id);
    assert_eq!(first.identity.peers, [master.address.to_string()]);
    assert!(!first.dir().join("ca.key").exists(), "an agent must not be able to let others in");
    refused(join_as(&master, &token, Role::Agent, &at("3")).await, "unknown or used up");

    let expired = master.token(NodeRole::Agent, Timestamp(1), 1).await;
    refused(join_as(&master, &expired, Role::Agent, &at("4")).await, "expired");
    let for_agents = master.token(NodeRole::Agent, Timestamp(i64::MAX), 1).await;
    refused(join_as(&master, &for_agents, Role::Master, &at("5")).await, "other role");
    let unknown = JoinToken::generate(master.credentials().authority());
    refused(join_as(&master, &unknown, Role::Agent, &at("6")).await, "unknown");

    let other = Machine::found("n1", SETTINGS).await;
    let foreign = other.token(NodeRole::Agent, Timestamp(i64::MAX), 1).await;
    let error = join_as(&master, &foreign, Role::Agent, &at("7")).await.unwrap_err();
    assert!(matches!(error, JoinError::Client(ClientError::Handshake { .. })), "{error}");

    refused(join_as(&master, &for_agents, Role::Agent, &at("1")).await, "already holds an identity");
    for refused in 3..=7 {
        assert!(!at(&refused.to_string()).exists(), "a refused node keeps nothing");
    }
    join_as(&master, &for_agents, Role::Agent, &at("8")).await.unwrap();
}

#[tokio::test(flavor = "multi_thread")]
async fn everybody_gets_what_their_certificate_entitles_to() {
    let master = Machine::found("n1", SETTINGS).await;
    let dir = tempfile::tempdir().unwrap();
    let token = master.token(NodeRole::Agent, Timestamp(i64::MAX), 1).await;
    let agent = join_as(&master, &token, Role::Agent, dir.path()).await.unwrap();
    let as_agent = master.client(&agent);
    let as_master = master.client(&master.credentials());
    let as_nobody = ClusterClient::joining(&token, master.address.to_string());
    let ask = async |client: &ClusterClient, path: &str| {
        let request = Request::post(path).body(client::full("{}")).unwrap();
        let answer = soon("an answer", client.call(request, 1 << 16)).await.unwrap();
        (answer.status(), String::from_utf8(answer.body().to_vec()).unwrap())
    };

    assert_eq!(ask(&as_agent, "/agent/v1/session").await, (StatusCode::OK, "agent asks for /agent/v1/session".into()));
    assert_eq!(ask(&as_master, "/api/v2/apps").await, (StatusCode::OK, "master asks for /api/v2/apps".into()));
    for (client, path) in [
        (&as_agent, "/api/v2/apps"),
        (&as_agent, "/raft/v1/vote"),
        (&as_agent, "/cluster/v1/members"),
        (&as_agent, "/agent"),
        (&as_master, "/agent/v1/session"),
        (&as_nobody, "/agent/v1/session"),
        (&as_nobody, "/api/v2/apps"),
        (&as_nobody, "/raft/v1/append"),
        (&as_nobody, "/renew/v1"),
    ] {
        let (status, body) = ask(client, path).await;
        assert_eq!(status, StatusCode::FORBIDDEN, "{path}: {body}");
    }
    for (path, expected) in [("/raft/v1/vote", StatusCode::BAD_REQUEST), ("/raft/v1/else", StatusCode::NOT_FOUND)] {
        assert_eq!(ask(&as_master, path).await.0, expected);
    }
    assert_eq!(ask(&as_nobody, "/join/v1").await.0, StatusCode::BAD_REQUEST);

    let renewed = renew(&agent, &as_agent).await.unwrap();
    assert_eq!(renewed.identity, agent.identity);
    assert_eq!(ask(&master.client(&renewed), "/agent/v1/session").await.0, StatusCode::OK);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_client_talks_to_no_master_but_the_one_it_means() {
    let master = Machine::found("n1", SETTINGS).await;
    let other = Machine::found("n1", SETTINGS).await;
    let call = async |credentials: &Credentials, expect: Expect| {
        let client = ClusterClient::new(credentials, master.address.to_string(), expect);
        soon("an answer", client.call(Request::get("/api").body(client::empty()).unwrap(), 1000)).await
    };
    let id = master.credentials().identity.master_id().unwrap();
    assert!(call(&master.credentials(), Expect::Master(id)).await.is_ok());
    assert!(matches!(call(&master.credentials(), Expect::Master(id + 1)).await, Err(ClientError::Handshake { .. })));
    assert!(matches!(call(&other.credentials(), Expect::AnyMaster).await, Err(ClientError::Handshake { .. })));
}

#[tokio::test(flavor = "multi_thread")]
async fn a_connection_that_broke_is_made_anew() {
    let mut master = Machine::found("n1", SETTINGS).await;
    let client = master.client(&master.credentials());
    let ask = async || client.call(Request::get("/api").body(client::empty()).unwrap(), 1000).await;
    assert!(soon("an answer", ask()).await.is_ok());
    master.stop().await;
    assert!(soon("a failure", ask()).await.is_err());
    master.start().await.unwrap();
    assert!(soon("an answer", ask()).await.is_ok());
}
