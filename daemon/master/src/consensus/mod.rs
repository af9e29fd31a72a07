//! Consensus: what the masters agree on, and the only module that knows how (openraft 0.9, hidden here).
//!
//! ```text
//! callers ─► propose ─► openraft core ─► log (drover-wal thread, disk)
//!                        │    ▲  │
//!           network ◄────┘    │  └─► machine ─► state, events, applied
//!              │              │
//!           other masters ─► serve
//! ```
//!
//! [`Consensus`] is a handle; clones share everything. Its tasks: openraft's own, the gatherer of proposals, the
//! one that confirms leadership, the one that watches who leads and the one that watches for the core's end. All
//! end with [`Consensus::shutdown`]. The queue of proposals is bounded; when it is full callers get
//! [`ProposeError::TooBusy`].
//!
//! Promises: a proposal answered with an index is on the disks of a majority and in this master's state; all
//! masters apply the same commands in the same order; nothing is written when nobody proposes.

mod types;

mod files;
mod wal;

mod log;
mod snapshot;

mod batch;
mod events;
mod machine;

mod network;
mod serve;

mod propose;

mod membership;

mod raise;

mod leadership;

mod inputs;

#[cfg(test)]
mod tests;

pub use events::{EventLog, Follower, Gap, Published};
pub use files::StoreError;
pub use inputs::{Frame, Held, Sealed, apply_entry, read_directory, seal, segment};
pub use leadership::{ConfirmError, Leadership};
pub use membership::{Member, MemberRole, MembershipError};
pub use network::Knows;
pub use propose::ProposeError;
pub use raise::RaiseError;

pub(crate) use membership::{Announcement, MEMBERS_PATH, Misdirected};
pub(crate) use network::PREFIX as RAFT_PREFIX;

use std::collections::BTreeMap;
use std::path::Path;
use std::sync::{Arc, Mutex};
use std::time::Duration;

use drover_core::state::{ClusterState, Command, TooNew};
use drover_pki::client::Body;
use drover_pki::{Credentials, PeerIdentity};
use hyper::body::Incoming;
use hyper::{Request, Response};
use openraft::error::InitializeError;
use openraft::error::RaftError;
use openraft::storage::RaftLogStorage;
use openraft::{Config, SnapshotPolicy};
use tokio::sync::{oneshot, watch};
use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;

use files::Owner;
use leadership::{Confirmer, JoinedMark, Resumed};
use machine::Machine;
use network::Network;
use propose::Proposer;
use snapshot::SnapshotDir;
use types::{MasterNode, Raft};

/// How long a snapshot may take to be sent and installed.
const SNAPSHOT_TIMEOUT: Duration = Duration::from_secs(600);

/// Entries that stay in the log behind a snapshot, for followers that are a little late.
const KEPT_BEHIND_SNAPSHOT: u64 = 1000;

/// How long to wait at the end for the log to be closed.
const CLOSE_PATIENCE: Duration = Duration::from_secs(5);

/// A master as others are told of it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Master {
    /// Its Raft node id.
    pub id: u64,
    /// Its name.
    pub name: String,
    /// Its cluster listener, `host:port`.
    pub address: String,
}

/// What consensus is told at start.
#[derive(Debug, Clone, Copy)]
pub struct Settings {
    /// How often a leader says that it is there.
    pub heartbeat_interval: Duration,
    /// Shortest silence before a follower stands for election; the longest is a third more.
    pub election_timeout: Duration,
    /// Log entries between two snapshots.
    pub snapshot_every: u64,
    /// Events kept for those who follow.
    pub events_buffered: usize,
    /// Bytes of commands that are proposed together, at most.
    pub proposal_bytes: usize,
}

impl Default for Settings {
    fn default() -> Self {
        Self {
            heartbeat_interval: Duration::from_millis(250),
            election_timeout: Duration::from_secs(1),
            snapshot_every: 10_000,
            events_buffered: 10_000,
            proposal_bytes: 16 << 20,
        }
    }
}

/// Why consensus could not be started.
#[derive(Debug, thiserror::Error)]
pub enum StartError {
    /// The log directory.
    #[error(transparent)]
    Store(#[from] StoreError),
    /// The identity's directory.
    #[error(transparent)]
    Identity(#[from] drover_pki::Error),
    /// Not a master's.
    #[error("consensus needs a master's identity with an advertised address, and got that of {0}")]
    NotAMaster(PeerIdentity),
    /// Times that make no sense together.
    #[error("the Raft times do not fit together")]
    Settings(#[from] openraft::ConfigError),
    /// openraft refused.
    #[error("consensus cannot start")]
    Core(#[source] Box<dyn std::error::Error + Send + Sync>),
}

/// Numbers for metrics.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Numbers {
    /// The term this master knows.
    pub term: u64,
    /// The last entry in the log.
    pub last_log_index: Option<u64>,
    /// The last entry applied.
    pub applied_index: Option<u64>,
    /// The last entry in the newest snapshot.
    pub snapshot_index: Option<u64>,
    /// The last entry that was purged from the log.
    pub purged_index: Option<u64>,
    /// Milliseconds since a majority last answered this leader.
    pub quorum_seen_ago_ms: Option<u64>,
}

/// The handle; clones share everything.
#[derive(Clone)]
pub struct Consensus {
    inner: Arc<Inner>,
}

struct Inner {
    me: Master,
    credentials: Credentials,
    raft: Raft,
    network: Network,
    shared: Arc<machine::Shared>,
    proposer: Proposer,
    confirmer: Confirmer,
    leadership: watch::Receiver<Leadership>,
    fatal: watch::Receiver<Option<String>>,
    membership: tokio::sync::Mutex<()>,
    /// A master that did not answer for so long counts as one that does not.
    silence: Duration,
    stop: CancellationToken,
    tracker: TaskTracker,
    /// Told when other masters write what this drover cannot read.
    left_behind: watch::Sender<Option<TooNew>>,
    log_closed: Mutex<Option<oneshot::Receiver<()>>>,
}

impl std::fmt::Debug for Consensus {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Consensus").field("me", &self.inner.me).finish_non_exhaustive()
    }
}

impl Consensus {
    /// Opens the log in `dir`, making it at the very first start, and takes part.
    ///
    /// A master that made its cluster begins it alone; any other waits until the leader takes it in, for which its
    /// cluster listener has to run. `credentials` learns that this identity has a log from now on.
    pub async fn start(settings: Settings, credentials: &mut Credentials, dir: &Path) -> Result<Self, StartError> {
        let config = raft_config(&settings, credentials)?;
        let identity = &credentials.identity;
        let (Some(id), Some(address)) = (identity.master_id(), identity.advertise.clone()) else {
            return Err(StartError::NotAMaster(identity.peer()));
        };
        let me = Master { id, name: identity.name.clone(), address };
        let owner = Owner { cluster: identity.cluster, node: id };
        let lock = take_dir(dir, owner, credentials)?;

        let (opening_log, opening_snapshot) = (dir.to_owned(), dir.to_owned());
        let opened = tokio::task::spawn_blocking(move || -> Result<_, StoreError> {
            let snapshots = SnapshotDir::open(&opening_snapshot, owner.cluster)?;
            Ok((log::open(&opening_log, owner, lock, wal::SEGMENT_BYTES)?, snapshots))
        });
        let ((mut log, log_closed), (snapshots, newest)) =
            opened.await.map_err(|error| StartError::Core(Box::new(error)))??;
        let (machine, shared) = Machine::new(snapshots, newest, settings.events_buffered);
        let resumed = Resumed::of(
            log.read_vote().await.map_err(|error| StartError::Core(Box::new(error)))?,
            log.get_log_state().await.map_err(|error| StartError::Core(Box::new(error)))?.last_log_id,
            id,
        );
        let network = Network::new(id, credentials.clone());
        let raft = Raft::new(id, Arc::new(config), network.clone(), log, machine)
            .await
            .map_err(|error| StartError::Core(Box::new(error)))?;
        if credentials.identity.founder {
            begin_cluster(&raft, &me).await?;
        }

        let stop = CancellationToken::new();
        let tracker = TaskTracker::new();
        let proposer = Proposer::start(raft.clone(), shared.clone(), settings.proposal_bytes, &tracker, stop.clone());
        let confirmer = Confirmer::start(raft.clone(), resumed, settings.election_timeout * 2, &tracker, stop.clone());
        let joined = JoinedMark::new(dir, owner);
        let leadership = leadership::watch(&raft, &network, &settings, resumed, joined, &tracker, stop.clone());
        let left_behind = watch::Sender::new(None);
        let fatal = leadership::watch_fatal(&raft, left_behind.subscribe(), &tracker, stop.clone());
        leadership::warn_if_removed(network.removed(), &tracker, stop.clone());
        let inner = Inner {
            me,
            credentials: credentials.clone(),
            raft,
            network,
            shared,
            proposer,
            confirmer,
            leadership,
            fatal,
            membership: tokio::sync::Mutex::new(()),
            silence: settings.election_timeout * 2,
            stop,
            tracker,
            left_behind,
            log_closed: Mutex::new(Some(log_closed)),
        };
        Ok(Self { inner: Arc::new(inner) })
    }

    /// This master.
    pub fn me(&self) -> &Master {
        &self.inner.me
    }

    /// Proposes one command, and returns the index of its entry once it is applied here.
    pub async fn propose(&self, command: Command) -> Result<u64, ProposeError> {
        self.propose_all(vec![command]).await.pop().unwrap_or(Err(ProposeError::Unavailable))
    }

    /// Proposes commands that land in one entry, one after the other; each has its own result.
    pub async fn propose_all(&self, commands: Vec<Command>) -> Vec<Result<u64, ProposeError>> {
        self.inner.proposer.propose(commands).await
    }

    /// Looks at the state as this master knows it. `apply` waits meanwhile: look, do not linger.
    pub fn read<T>(&self, look: impl FnOnce(&ClusterState) -> T) -> T {
        look(&self.inner.shared.read())
    }

    /// A copy of the state as this master knows it, with the index of the last entry in it.
    pub fn copy(&self) -> (u64, ClusterState) {
        self.inner.shared.copy()
    }

    /// What happens, for those who follow.
    pub fn events(&self) -> &EventLog {
        &self.inner.shared.events
    }

    /// The index of the last entry applied here.
    pub fn applied(&self) -> watch::Receiver<u64> {
        self.inner.shared.applied.subscribe()
    }

    /// Who leads, as far as this master knows.
    pub fn leadership(&self) -> watch::Receiver<Leadership> {
        self.inner.leadership.clone()
    }

    /// Makes sure that this master leads at this moment and knows everything that was acknowledged before: what is
    /// read after it is as fresh as can be. Returns the index up to which that is. Costs a round to a majority;
    /// callers at the same time share one.
    pub async fn confirm_leadership(&self) -> Result<u64, ConfirmError> {
        self.inner.confirmer.confirm().await
    }

    /// Says why once consensus can go on no more; the process should end then, with that reason.
    pub fn fatal(&self) -> watch::Receiver<Option<String>> {
        self.inner.fatal.clone()
    }

    /// Whether this master was a member and is not any more.
    pub fn removed(&self) -> watch::Receiver<bool> {
        self.inner.network.removed()
    }

    /// Numbers for metrics.
    pub fn numbers(&self) -> Numbers {
        let metrics = self.inner.raft.metrics();
        let known = metrics.borrow();
        Numbers {
            term: known.current_term,
            last_log_index: known.last_log_index,
            applied_index: known.last_applied.map(|id| id.index),
            snapshot_index: known.snapshot.map(|id| id.index),
            purged_index: known.purged.map(|id| id.index),
            quorum_seen_ago_ms: known.millis_since_quorum_ack,
        }
    }

    /// Answers a request under [`RAFT_PREFIX`] of a master that TLS has identified.
    pub(crate) async fn serve(&self, sender: &PeerIdentity, request: Request<Incoming>) -> Response<Body> {
        serve::serve(&self.inner.raft, &self.inner.left_behind, sender, request).await
    }

    /// Makes a snapshot now.
    #[cfg(test)]
    pub(crate) async fn snapshot(&self) {
        self.inner.raft.trigger().snapshot().await.expect("the core runs");
    }

    /// Stops taking part, and returns when the log is closed.
    pub async fn shutdown(&self) {
        self.inner.stop.cancel();
        if let Err(error) = self.inner.raft.shutdown().await {
            tracing::warn!(%error, "consensus did not end as it should");
        }
        self.inner.tracker.close();
        self.inner.tracker.wait().await;
        let closed = self.inner.log_closed.lock().expect("nothing panics while it holds this").take();
        if let Some(closed) = closed
            && tokio::time::timeout(CLOSE_PATIENCE, closed).await.is_err()
        {
            tracing::warn!("the log is still in use after the end of consensus");
        }
    }
}

/// Takes the directory for this process and makes sure that there is a log in it: this master's, or a new one if
/// this master never had one.
fn take_dir(dir: &Path, owner: Owner, credentials: &mut Credentials) -> Result<std::fs::File, StartError> {
    files::create_dir(dir)?;
    let lock = wal::lock(dir)?;
    if !log::exists(dir, owner)? {
        if credentials.identity.started {
            return Err(StoreError::Lost { dir: dir.to_owned() }.into());
        }
        log::create(dir, owner)?;
    }
    // After the log, so that a crash in between is no lost log; before the first vote, so that a lost one is told.
    credentials.update_identity(|identity| identity.started = true)?;
    Ok(lock)
}

async fn begin_cluster(raft: &Raft, me: &Master) -> Result<(), StartError> {
    let node = MasterNode { name: me.name.clone(), address: me.address.clone() };
    match raft.initialize(BTreeMap::from([(me.id, node)])).await {
        Ok(()) => tracing::info!(master = %me.name, "a new cluster begins"),
        // Every start but the first.
        Err(RaftError::APIError(InitializeError::NotAllowed(_))) => {}
        Err(error) => return Err(StartError::Core(Box::new(error))),
    }
    Ok(())
}

#[allow(deprecated, reason = "`send_snapshot_timeout` has to be written to avoid openraft's default, which runs clap")]
fn raft_config(settings: &Settings, credentials: &Credentials) -> Result<Config, openraft::ConfigError> {
    let millis = |duration: Duration| u64::try_from(duration.as_millis()).unwrap_or(u64::MAX);
    let config = Config {
        cluster_name: credentials.identity.cluster.to_string(),
        // A follower of openraft's waits out a lease of `max`, and then between `min` and `max` more: together the silence
        // that was asked for, and a third of it at most on top.
        election_timeout_min: millis(settings.election_timeout / 3),
        election_timeout_max: millis(settings.election_timeout * 2 / 3),
        heartbeat_interval: millis(settings.heartbeat_interval),
        install_snapshot_timeout: millis(SNAPSHOT_TIMEOUT),
        send_snapshot_timeout: 0,
        max_payload_entries: 300,
        // Has to be more than lies between two snapshots, or a snapshot would not end the lag.
        replication_lag_threshold: settings.snapshot_every.saturating_mul(2),
        snapshot_policy: SnapshotPolicy::LogsSinceLast(settings.snapshot_every),
        snapshot_max_chunk_size: 3 << 20,
        max_in_snapshot_log_to_keep: KEPT_BEHIND_SNAPSHOT.min(settings.snapshot_every),
        purge_batch_size: 1,
        enable_tick: true,
        enable_heartbeat: true,
        enable_elect: true,
    };
    config.validate()
}
