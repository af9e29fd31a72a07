//! What nodes say to each other.

use super::{lines, same_again};
use crate::fixture;
use drover_api::agent::{AgentMessage, LogQuery, MasterMessage, Protocols};
use drover_core::leader::session::{Answer, Heard, Session};
use drover_core::node::{Done, Effect, Input, Node, StartOutcome};
use drover_core::task::Usage;
use drover_core::time::Millis;
use drover_core::unit::{Assignment, Ledger, WantedTask};
use drover_pki::join::{JoinRequest, RenewRequest};
use drover_pki::{Authority, Identity, JoinToken, PeerIdentity};
use std::convert::Infallible;
use std::sync::OnceLock;

/// Messages in one input.
const MESSAGES_MAX: usize = 32;

/// An agent's messages, in one session with a leader that decides after each.
pub(super) fn agent_messages(bytes: &[u8]) {
    let mut state = fixture::cluster();
    let mut session = Session::new(fixture::agent(), Millis(1000), fixture::after(0));
    for (number, line) in lines(bytes).take(MESSAGES_MAX).enumerate() {
        let now = fixture::after(10 * (number as u64 + 1));
        let Some(message) = same_again::<AgentMessage>(line) else { return };
        let heard = match message {
            AgentMessage::Hello { protocol, oldest, info, .. } => {
                if Protocols::OURS.shared_with(Protocols::of_hello(protocol, oldest)).is_err() {
                    return;
                }
                Heard::Hello(info)
            }
            AgentMessage::Heartbeat => Heard::Heartbeat,
            AgentMessage::Statuses { statuses } => Heard::Statuses(statuses),
        };
        let Ok(answer) = session.hear(heard, &state, now) else { return };
        if let Answer::Propose(commands) = answer {
            // A status may be refused; that the agent is told so, and nothing panics, is what counts.
            let is_applied =
                commands.iter().map(|command| state.apply(command).result.is_ok()).fold(true, |all, one| all & one);
            if session.proposed(is_applied, &state).is_err() {
                return;
            }
        }
        fixture::lead(&mut state, now);
        session.applied(&state);
        for event in state.tasks.values() {
            assert!(!event.id.as_str().is_empty());
        }
    }
}

/// A leader's messages, to an agent that does what follows from them.
pub(super) fn master_messages(bytes: &[u8]) {
    let mut node = Node::new(Ledger::default(), fixture::facts(), "boot".into(), fixture::after(0));
    carry_out(&mut node, 0);
    for (number, line) in lines(bytes).take(MESSAGES_MAX).enumerate() {
        let at = 20 * (number as u64 + 1);
        let Some(message) = same_again::<MasterMessage>(line) else { return };
        let input = match message {
            MasterMessage::Welcome { heartbeat, masters, .. } => {
                let mut conversation = drover_core::node::Conversation::new(fixture::after(at).steady);
                conversation.welcomed(heartbeat, fixture::after(at).steady);
                assert!(conversation.due_at() >= fixture::after(at).steady, "nothing is due before it began");
                drop(masters);
                Input::Connected
            }
            MasterMessage::Assign { generation, full, tasks, removed } => {
                let tasks = tasks.into_iter().map(WantedTask::from).collect();
                Input::Assigned(Assignment { generation, full, tasks, removed })
            }
            MasterMessage::Acknowledge { statuses } => Input::Acknowledged(statuses),
            MasterMessage::OpenLogs { query, .. } => {
                check_query(query);
                continue;
            }
            MasterMessage::Ping | MasterMessage::Refused { .. } | MasterMessage::CloseStream { .. } => continue,
        };
        // An assignment that is older than the one held is left unheeded, which is its whole answer.
        let _heeded = node.take_in(input, fixture::after(at));
        carry_out(&mut node, at);
    }
}

/// Puts on record and carries out what follows, as systemd would if it did all that it is asked.
fn carry_out(node: &mut Node, at: u64) {
    for round in 0..8 {
        let now = fixture::after(at + round);
        node.turn(fixture::after(at + round + 10));
        let Ok(effects) = node.put_on_record(|records, _| {
            let text = drover_core::unit::ledger_text(records);
            let read = drover_core::unit::read_ledger(&text).expect("what is written can be read");
            assert_eq!((read.good, read.lines), (text.len(), records.len()), "all that is written is read");
            Ok::<_, Infallible>(())
        });
        if effects.is_empty() {
            break;
        }
        for effect in effects {
            if let Some(done) = done(effect) {
                let _heeded = node.take_in(Input::Done(done), now);
            }
        }
        node.take_statuses(now);
    }
}

fn done(effect: Effect) -> Option<Done> {
    Some(match effect {
        Effect::Connect => Done::Connected { began_at: 1, units: Vec::new() },
        Effect::Start { task, plan, .. } => {
            assert!(drover_core::unit::is_unit_of_a_task(&plan.name), "{:?} is no task's unit", plan.name);
            Done::Started { task, unit: plan.name, outcome: StartOutcome::Made }
        }
        Effect::Stop { unit, .. } | Effect::LetGo { unit, .. } => Done::Stopped { unit, outcome: Ok(()) },
        Effect::Observe { unit } => Done::Observed { unit, outcome: Ok(None) },
        Effect::Account { unit } => Done::Accounted { unit, usage: Usage { cpu_nanos: Some(1), mem_peak_bytes: None } },
        Effect::List => Done::Listed { units: Some(Vec::new()) },
        Effect::Investigate { task, unit, .. } => Done::Investigated { task, unit, evidence: None },
        Effect::Sweep { tasks, .. } => Done::Swept { tasks, are_gone: true },
    })
}

fn check_query(query: LogQuery) {
    let read = drover_agent::to_query(query);
    assert!(read.any_of.iter().all(|(field, _)| field.starts_with("DROVER_")), "only tasks' entries are read");
}

/// A machine that asks to become a node.
pub(super) fn join(bytes: &[u8]) {
    static AUTHORITY: OnceLock<Authority> = OnceLock::new();
    let authority = AUTHORITY.get_or_init(|| {
        drover_pki::install_crypto_provider();
        Authority::generate(uuid::Uuid::from_u128(1)).expect("an authority can be made")
    });
    same_again::<Identity>(bytes);
    if let Ok(wish) = serde_json::from_slice::<RenewRequest>(bytes) {
        certify(authority, drover_pki::Role::Agent, "n1", &wish.hosts, &wish.csr);
    }
    let Ok(wish) = serde_json::from_slice::<JoinRequest>(bytes) else { return };
    if let Ok(token) = wish.token.parse::<JoinToken>() {
        assert_eq!(token.to_string(), wish.token.trim(), "a token is what it is written as");
    }
    if let Some(advertise) = &wish.advertise {
        drover_pki::client::is_address(advertise);
    }
    certify(authority, wish.role, &wish.name, &wish.hosts, &wish.csr);
}

/// Whoever gets a certificate is, by it, who was asked for.
fn certify(authority: &Authority, role: drover_pki::Role, name: &str, hosts: &[String], csr: &str) {
    let peer = PeerIdentity { cluster: authority.cluster(), role, id: "7".into(), name: name.to_owned() };
    let Ok(pem) = authority.certify(&peer, hosts, csr) else { return };
    assert_eq!(drover_pki::identity::check_name(name), Ok(()), "a name that cannot be used has a certificate");
    let body: String = pem.lines().filter(|line| !line.starts_with("-----")).collect();
    assert!(!body.is_empty());
}
