//! Several masters over real TLS: what consensus promises, seen from outside.

use std::sync::Arc;
use std::time::Duration;

use drover_core::ids::TaskId;
use drover_core::state::{ClusterVersion, Command, NodeRole, Refusal, STATE_VERSION};
use drover_core::time::Timestamp;
use drover_pki::Role;
use drover_pki::join::{Wish, join};

use super::*;
use crate::cluster_listener::tests::{Machine, SETTINGS, leader, soon, three, weight};

fn impossible() -> Command {
    Command::KillTask { task: TaskId::new("there-is-none"), why: "a test".into(), at: Timestamp(0) }
}

/// Waits until all masters have applied an entry, and checks that they agree.
async fn agree(machines: &[Machine], index: u64) {
    for machine in machines {
        machine.has_applied(index).await;
    }
    for machine in &machines[1..] {
        assert_eq!(machine.state(), machines[0].state());
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn writes_survive_the_loss_of_the_leader_and_of_everybody() {
    let mut machines = three(SETTINGS).await;
    let first = leader(&machines).await;
    let index = machines[first].consensus().propose(weight(1)).await.unwrap();
    agree(&machines, index).await;

    machines[first].stop().await;
    let second = leader(&machines).await;
    assert_ne!(second, first);
    let index = machines[second].consensus().propose(weight(2)).await.unwrap();
    machines[first].start().await.unwrap();
    agree(&machines, index).await;

    let before = machines[0].state();
    for machine in &mut machines {
        machine.stop().await;
    }
    for machine in &mut machines {
        machine.start().await.unwrap();
    }
    let third = leader(&machines).await;
    assert_eq!(machines[third].state(), before, "a leader knows everything that was acknowledged");
    let index = machines[third].consensus().propose(weight(3)).await.unwrap();
    agree(&machines, index).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_leader_that_restarts_within_its_term_knows_what_it_acknowledged() {
    // Long enough that nobody stands for election meanwhile.
    let settings = Settings { election_timeout: SETTINGS.election_timeout * 20, ..SETTINGS };
    let mut machines = three(settings).await;
    let leading = leader(&machines).await;
    let term = machines[leading].consensus().numbers().term;
    let mut index = 0;
    for at in 0..50 {
        index = machines[leading].consensus().propose(weight(at)).await.unwrap();
    }
    machines[leading].stop().await;
    machines[leading].start().await.unwrap();
    machines[leading].leads().await;
    let consensus = machines[leading].consensus();
    let known = *consensus.applied().borrow();
    assert_eq!(consensus.numbers().term, term, "nobody else was elected, or this shows nothing");
    assert!(known >= index, "it leads, knows entries up to {known}, and acknowledged {index}");
    let confirmed = consensus.confirm_leadership().await.unwrap();
    assert!(confirmed >= index, "confirmed up to {confirmed}, acknowledged up to {index}");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_follower_says_who_leads_and_a_minority_decides_nothing() {
    let mut machines = three(SETTINGS).await;
    let leading = leader(&machines).await;
    let leading_me = machines[leading].consensus().me().clone();
    let other = (leading + 1) % 3;
    let follower = machines[other].consensus();
    soon("the follower knows", follower.leadership().wait_for(|known| known.leader.is_some())).await.unwrap();
    let not_leader = ProposeError::NotLeader { leader: Some(leading_me.clone()) };
    assert_eq!(follower.propose(weight(1)).await, Err(not_leader));
    assert_eq!(follower.confirm_leadership().await, Err(ConfirmError::NotLeader { leader: Some(leading_me) }));
    assert!(machines[leading].consensus().confirm_leadership().await.is_ok());

    for at in [(leading + 1) % 3, (leading + 2) % 3] {
        machines[at].stop().await;
    }
    assert_eq!(machines[leading].consensus().confirm_leadership().await, Err(ConfirmError::NoQuorum));
    let mut leadership = machines[leading].consensus().leadership();
    let given_up = leadership.wait_for(|leadership| !leadership.is_me);
    soon("a leader without followers does not call itself one", given_up).await.unwrap();
    let (late, index) = {
        let consensus = machines[leading].consensus().clone();
        let late = tokio::spawn(async move { consensus.propose(weight(2)).await });
        machines[other].start().await.unwrap();
        // Whoever leads now, the cluster goes on.
        let leading = leader(&machines).await;
        (late, soon("a write", machines[leading].consensus().propose(weight(3))).await)
    };
    // What was proposed without a majority may have happened or not, but its caller was not told that it did not.
    let late = soon("an answer", late).await.unwrap();
    assert!(!matches!(late, Err(ProposeError::Refused(_) | ProposeError::TooBusy | ProposeError::TooLarge { .. })), "{late:?}");
    if let Ok(index) = index {
        machines[leading].has_applied(index).await;
        machines[other].has_applied(index).await;
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn everyone_gets_the_result_of_their_own_command() {
    let machine = Arc::new(Machine::found("n1", SETTINGS).await);
    let before = machine.consensus().numbers().last_log_index.unwrap();
    let callers: Vec<_> = (0..100u64)
        .map(|caller| {
            let machine = machine.clone();
            tokio::spawn(async move {
                for round in 0..10 {
                    let commands = vec![weight(caller), impossible(), weight(caller + round)];
                    let results = machine.consensus().propose_all(commands).await;
                    let index = *results[0].as_ref().unwrap();
                    assert_eq!(results[2], Ok(index), "a group lands in one entry");
                    assert!(matches!(&results[1], Err(ProposeError::Refused(Refusal::NotFound(_)))), "{:?}", results[1]);
                }
            })
        })
        .collect();
    for caller in callers {
        soon("all results", caller).await.unwrap();
    }
    let entries = machine.consensus().numbers().last_log_index.unwrap() - before;
    assert!(entries <= 500, "1000 proposals took {entries} entries");
    assert_eq!(machine.consensus().propose_all(Vec::new()).await, []);
    let large = Command::KillTask { task: TaskId::new("t"), why: "x".repeat(20 << 20), at: Timestamp(0) };
    assert!(matches!(machine.consensus().propose(large).await, Err(ProposeError::TooLarge { .. })));
}

#[tokio::test(flavor = "multi_thread")]
async fn a_follower_far_behind_gets_a_snapshot() {
    let settings = Settings { snapshot_every: 50, ..SETTINGS };
    let mut machines = three(settings).await;
    let leading = leader(&machines).await;
    let absent = (leading + 1) % 3;
    let seen = *machines[absent].consensus().applied().borrow();
    machines[absent].stop().await;
    let mut index = 0;
    for at in 0..300 {
        index = machines[leading].consensus().propose(weight(at)).await.unwrap();
    }
    let purged = machines[leading].consensus().numbers().purged_index.expect("the log was purged");
    assert!(purged > seen, "purged up to {purged}, seen up to {seen}");

    machines[absent].start().await.unwrap();
    agree(&machines, index).await;
    let mut follower = machines[absent].consensus().events().follow_after(seen);
    assert!(follower.try_next().is_err(), "what a snapshot skipped was never told");

    // The snapshot is what this master starts from, and the log goes on behind it.
    machines[absent].stop().await;
    let index = machines[leading].consensus().propose(weight(7)).await.unwrap();
    machines[absent].start().await.unwrap();
    agree(&machines, index).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn masters_come_and_go_while_the_cluster_runs() {
    let mut machines = three(SETTINGS).await;
    let leading = leader(&machines).await;
    let names: Vec<String> = machines.iter().map(|machine| machine.consensus().me().name.clone()).collect();
    let gone = (leading + 1) % 3;
    let consensus = machines[leading].consensus().clone();
    assert_eq!(consensus.remove_master("nobody").await, Err(MembershipError::Unknown("nobody".into())));
    let me = consensus.me().clone();
    let taken = consensus.add_master(1, &me.name, "elsewhere:1", STATE_VERSION).await;
    assert!(matches!(taken, Err(MembershipError::Taken { .. })), "{taken:?}");

    consensus.remove_master(&names[gone]).await.unwrap();
    let members: Vec<_> = consensus.members().into_iter().map(|member| member.name).collect();
    assert_eq!(members.len(), 2);
    assert!(!members.contains(&names[gone]));
    let mut removed = machines[gone].consensus().removed();
    soon("a removed master is told", removed.wait_for(|removed| *removed)).await.unwrap();
    // It does not come back by itself…
    machines[gone].stop().await;
    machines[gone].start().await.unwrap();
    let mut removed = machines[gone].consensus().removed();
    soon("a removed master is told again", removed.wait_for(|removed| *removed)).await.unwrap();
    assert_eq!(consensus.members().len(), 2);
    // …and its machine does with a new token, as another master.
    let old = machines.remove(gone);
    let token = machines.iter().find(|machine| machine.consensus().me() == &me).unwrap();
    let token = token.token(NodeRole::Master, Timestamp(i64::MAX), 1).await;
    let again = Machine::join(&machines[0], &token, &names[gone]).await;
    drop(old);
    machines.push(again);
    let index = consensus.propose(weight(1)).await.unwrap();
    agree(&machines, index).await;

    // The leader itself can go.
    let leading = leader(&machines).await;
    let name = machines[leading].consensus().me().name.clone();
    machines[leading].consensus().remove_master(&name).await.unwrap();
    let mut former = machines.remove(leading);
    former.stop().await;
    let leading = leader(&machines).await;
    let index = machines[leading].consensus().propose(weight(2)).await.unwrap();
    agree(&machines, index).await;
    // With one of two gone, the other cannot be left alone with a dead one.
    machines[1 - leading].stop().await;
    let survivor = machines[leading].consensus();
    let alone = machines[leading].consensus().me().name.clone();
    let silence = SETTINGS.election_timeout * 2;
    soon("the silence of the other is noticed", async {
        let is_silent = |member: Member| member.seen_ago_ms.is_some_and(|ago| u128::from(ago) > silence.as_millis());
        while !survivor.members().into_iter().any(is_silent) {
            tokio::time::sleep(SETTINGS.heartbeat_interval).await;
        }
    })
    .await;
    assert_eq!(survivor.remove_master(&alone).await, Err(MembershipError::Majority { left: 1, answering: 0 }));
}

#[tokio::test(flavor = "multi_thread")]
async fn who_wants_in_while_nobody_leads_waits_for_the_next_leader() {
    let mut machines = three(SETTINGS).await;
    let leading = leader(&machines).await;
    let token = machines[leading].token(NodeRole::Agent, Timestamp(i64::MAX), 1).await;
    let (asked, away) = ((leading + 1) % 3, (leading + 2) % 3);
    machines[leading].stop().await;
    machines[away].stop().await;
    let mut leadership = machines[asked].consensus().leadership();
    soon("nobody leads", leadership.wait_for(|known| known.leader.is_none())).await.unwrap();
    let (place, address) = (tempfile::tempdir().unwrap(), machines[asked].address.to_string());
    let wish = Wish { data_dir: place.path(), role: Role::Agent, name: "a1", advertise: None };
    let (identity, started) = tokio::join!(join(&token, &address, wish), machines[away].start());
    started.unwrap();
    let identity = identity.unwrap();
    assert_eq!(identity.name, "a1");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_master_may_move() {
    let mut machines = three(SETTINGS).await;
    let leading = leader(&machines).await;
    for moving in [(leading + 1) % 3, leading] {
        machines[moving].stop().await;
        machines[moving].move_away().await;
        machines[moving].start().await.unwrap();
        let address = machines[moving].address.to_string();
        let knows = |members: &[Member]| members.iter().any(|member| member.address == address);
        for machine in &machines {
            soon("all know the new address", machine.consensus().members_are(knows)).await;
        }
    }
    let leading = leader(&machines).await;
    let index = machines[leading].consensus().propose(weight(1)).await.unwrap();
    agree(&machines, index).await;

    let mut alone = Machine::found("n1", SETTINGS).await;
    alone.stop().await;
    alone.move_away().await;
    alone.start().await.unwrap();
    let address = alone.address.to_string();
    soon("the only master moved", alone.consensus().members_are(|members| members[0].address == address)).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn an_idle_cluster_writes_nothing() {
    let machines = three(SETTINGS).await;
    let leading = leader(&machines).await;
    let index = machines[leading].consensus().propose(weight(1)).await.unwrap();
    agree(&machines, index).await;
    let modified = || {
        let entries = machines.iter().flat_map(|machine| std::fs::read_dir(machine.raft_dir()).unwrap());
        entries.map(|entry| entry.unwrap().metadata().unwrap().modified().unwrap()).max().unwrap()
    };
    let before = modified();
    // Time has to pass: that is what is tested.
    tokio::time::sleep(SETTINGS.heartbeat_interval * 20).await;
    assert_eq!(modified(), before);
    assert_eq!(*machines[leading].consensus().applied().borrow(), index);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_lost_or_foreign_log_is_refused() {
    let mut machine = Machine::found("n1", SETTINGS).await;
    machine.stop().await;
    std::fs::rename(machine.raft_dir(), machine.data_dir.path().join("elsewhere")).unwrap();
    let error = machine.start().await.unwrap_err();
    assert!(matches!(&error, StartError::Store(StoreError::Lost { .. })), "{error}");

    let mut other = Machine::found("n2", SETTINGS).await;
    other.stop().await;
    std::fs::remove_dir_all(machine.raft_dir()).unwrap();
    std::fs::rename(other.raft_dir(), machine.raft_dir()).unwrap();
    let error = machine.start().await.unwrap_err();
    assert!(matches!(&error, StartError::Store(StoreError::Foreign { .. })), "{error}");

    std::fs::remove_dir_all(machine.raft_dir()).unwrap();
    std::fs::rename(machine.data_dir.path().join("elsewhere"), machine.raft_dir()).unwrap();
    machine.start().await.unwrap();
    let error = Consensus::start(SETTINGS, &mut machine.credentials(), &machine.raft_dir()).await.unwrap_err();
    assert!(matches!(&error, StartError::Store(StoreError::Locked { .. })), "{error}");
    machine.leads().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_version_is_raised_once_every_master_knows_it() {
    let mut machines = three(SETTINGS).await;
    let leading = leader(&machines).await;
    let absent = (leading + 1) % 3;
    let consensus = machines[leading].consensus().clone();
    let other = machines[absent].consensus().raise_version(None, Timestamp(0)).await;
    assert!(matches!(other, Err(RaiseError::NotLeader { .. })), "{other:?}");
    let next = STATE_VERSION + 1;
    let faults = async || match consensus.raise_version(Some(next), Timestamp(0)).await {
        Err(RaiseError::Masters { to, faults }) if to == next => faults,
        other => panic!("{other:?}"),
    };
    let told = faults().await;
    assert_eq!(told.len(), 3, "everybody's at once: {told:?}");
    assert!(told.iter().all(|(_, why)| why.contains("install the newer drover there")), "{told:?}");

    let name = machines[absent].consensus().me().name.clone();
    machines[absent].stop().await;
    let told = faults().await;
    let silent: Vec<&String> = told.iter().filter(|(_, why)| why.contains("does not answer")).map(|(name, _)| name).collect();
    assert_eq!(silent, [&name], "{told:?}");
    machines[absent].start().await.unwrap();
    let knows = |members: &[Member]| members.iter().all(|member| member.knows.as_ref() == Some(&Knows::ours()));
    soon("everybody is heard again", async {
        while !knows(&consensus.members()) {
            tokio::time::sleep(SETTINGS.heartbeat_interval).await;
        }
    })
    .await;

    assert_eq!(consensus.raise_version(None, Timestamp(0)).await, Ok(STATE_VERSION), "the newest that is known");
    assert_eq!(consensus.read(|state| state.version), ClusterVersion(STATE_VERSION));
    let lower = consensus.raise_version(Some(0), Timestamp(0)).await;
    assert_eq!(lower, Err(RaiseError::Lower { at: STATE_VERSION, to: 0 }));
    let too_old = consensus.add_master(1, "n9", "n9:7071", STATE_VERSION - 1).await;
    let expected = MembershipError::TooOld { name: "n9".into(), knows: STATE_VERSION - 1, version: STATE_VERSION };
    assert_eq!(too_old, Err(expected));
}

#[tokio::test(flavor = "multi_thread")]
async fn a_master_goes_no_further_than_it_can_read() {
    let mut machine = Machine::found("n1", SETTINGS).await;
    let before = machine.state();
    let raise = Command::RaiseVersion { to: ClusterVersion(STATE_VERSION + 1), at: Timestamp(0) };
    // As another master would have proposed it that knows the next version.
    assert_eq!(machine.consensus().propose(raise).await, Err(ProposeError::Unavailable));
    let end = async |machine: &Machine| {
        let mut fatal = machine.consensus().fatal();
        soon("the end", fatal.wait_for(Option::is_some)).await.unwrap().clone().unwrap()
    };
    let first = end(&machine).await;
    assert_eq!(machine.state(), before, "nothing of it was taken for applied");
    machine.stop().await;
    // It may notice while it starts, or just after.
    let again = match machine.start().await {
        Ok(()) => end(&machine).await,
        Err(error) => format!("{error:?}"),
    };
    for why in [first, again] {
        assert!(why.contains("cannot be followed beyond entry") && why.contains("install the newer drover"), "{why}");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_master_that_is_sent_what_it_cannot_read_keeps_none_of_it_and_stops() {
    let machine = Machine::found("n1", SETTINGS).await;
    let (me, last) = (machine.consensus().me().id, machine.consensus().numbers().last_log_index);
    let message = format!(
        r#"{{"vote":{{"leader_id":{{"term":9,"node_id":{me}}},"committed":true}},"prev_log_id":null,"leader_commit":null,"entries":[
            {{"log_id":{{"leader_id":{{"term":9,"node_id":{me}}},"index":0}},"payload":{{"Normal":{{"version":{},"commands":[]}}}}}}]}}"#,
        STATE_VERSION + 1
    );
    let request = hyper::Request::post("/raft/v1/append").body(drover_pki::client::full(message)).unwrap();
    let client = machine.client(&machine.credentials());
    let answer = soon("an answer", client.call(request, 1 << 16)).await.unwrap();
    let text = String::from_utf8_lossy(answer.body());
    assert!(answer.status() == 400 && text.contains("install the newer drover"), "{text}");
    let mut fatal = machine.consensus().fatal();
    let why = soon("the end", fatal.wait_for(Option::is_some)).await.unwrap().clone().unwrap();
    assert!(why.contains("cannot follow the others") && why.contains("install the newer drover"), "{why}");
    assert_eq!(machine.consensus().numbers().last_log_index, last);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_disk_that_fails_ends_consensus_and_says_why() {
    let machine = Machine::found("n1", SETTINGS).await;
    let mut fatal = machine.consensus().fatal();
    assert_eq!(*fatal.borrow(), None);
    // Nothing can be moved over a directory with something in it.
    std::fs::create_dir_all(machine.raft_dir().join("snapshot/in the way")).unwrap();
    machine.consensus().snapshot().await;
    let why = soon("the end", fatal.wait_for(Option::is_some)).await.unwrap().clone().unwrap();
    assert!(why.contains("cannot replace") && why.contains("directory"), "{why}");
    assert_eq!(machine.consensus().propose(weight(1)).await, Err(ProposeError::Unavailable));
}

#[tokio::test(flavor = "multi_thread")]
async fn what_was_acknowledged_is_there_after_a_torn_write() {
    let mut machine = Machine::found("n1", SETTINGS).await;
    for at in 0..20 {
        machine.consensus().propose(weight(at)).await.unwrap();
    }
    let before = machine.state();
    machine.stop().await;
    let newest = std::fs::read_dir(machine.raft_dir()).unwrap().map(|entry| entry.unwrap().path());
    let segment = newest.filter(|path| path.to_string_lossy().contains("wal-")).max().unwrap();
    let mut bytes = std::fs::read(&segment).unwrap();
    bytes.extend_from_slice(&[0xff, b'd', b'w', 0xfe, b'E', 0, 0, 0, 200, 0, 0, 0, 1, 2, 3, 4, b'h', b'a', b'l', b'f']);
    std::fs::write(&segment, bytes).unwrap();
    machine.start().await.unwrap();
    machine.leads().await;
    assert_eq!(machine.state(), before);
}

#[tokio::test(flavor = "multi_thread")]
async fn only_a_masters_identity_takes_part() {
    let dir = tempfile::tempdir().unwrap();
    drover_pki::directory::init_cluster(dir.path(), "n1", "127.0.0.1:1", true).unwrap();
    let mut agent = drover_pki::Credentials::load(dir.path(), Role::Agent).unwrap();
    let error = Consensus::start(SETTINGS, &mut agent, &dir.path().join("raft")).await.unwrap_err();
    assert!(matches!(error, StartError::NotAMaster(_)));
    assert!(!dir.path().join("raft").exists());
    let settings = Settings { election_timeout: Duration::from_millis(1), ..SETTINGS };
    let mut master = drover_pki::Credentials::load(dir.path(), Role::Master).unwrap();
    let error = Consensus::start(settings, &mut master, &dir.path().join("raft")).await.unwrap_err();
    assert!(matches!(error, StartError::Settings(_)));
}
