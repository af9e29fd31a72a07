//! `/v2/queue`: instances that have no place yet, and what stands in their way.

use super::Time;
use super::app::App;
use super::embed::Embed;
use drover_core::leader::{Request, Waiting};
use drover_core::matcher::Against;
use drover_core::state::ClusterState;
use drover_core::time::Timestamp;
use serde::Serialize;
use std::collections::BTreeMap;

/// The queue.
#[derive(Debug, Clone, Serialize)]
pub struct Queue<'a> {
    queue: Vec<Entry<'a>>,
}

#[derive(Debug, Clone, Serialize)]
#[serde(rename_all = "camelCase")]
struct Entry<'a> {
    count: u32,
    delay: Delay,
    since: Time,
    processed_offers_summary: Summary,
    #[serde(skip_serializing_if = "Option::is_none")]
    last_unused_offers: Option<Vec<UnusedOffer>>,
    app: App<'a>,
}

#[derive(Debug, Clone, Copy, Serialize)]
#[serde(rename_all = "camelCase")]
struct Delay {
    time_left_seconds: u64,
    /// Not held back by back-off: it waits for a node that fits.
    overdue: bool,
}

#[derive(Debug, Clone, Serialize)]
#[serde(rename_all = "camelCase")]
struct Summary {
    processed_offers_count: usize,
    unused_offers_count: usize,
    #[serde(skip_serializing_if = "Option::is_none")]
    last_unused_offer_at: Option<Time>,
    reject_summary_last_offers: Vec<Rejections>,
    reject_summary_launch_attempt: Vec<Rejections>,
}

#[derive(Debug, Clone, Copy, Serialize)]
struct Rejections {
    reason: &'static str,
    declined: usize,
    processed: usize,
}

#[derive(Debug, Clone, Serialize)]
struct UnusedOffer {
    offer: OfferedAgent,
    reason: Vec<&'static str>,
    timestamp: Time,
}

#[derive(Debug, Clone, Serialize)]
#[serde(rename_all = "camelCase")]
struct OfferedAgent {
    id: String,
    hostname: String,
    agent_id: String,
    resources: [(); 0],
    attributes: [(); 0],
}

/// Marathon's reasons, in the order of its funnel: an offer is charged to the first that applies.
const FUNNEL: [&str; 10] = [
    "UnfulfilledRole",
    "UnfulfilledConstraint",
    "NoCorrespondingReservationFound",
    "AgentMaintenance",
    "InsufficientCpus",
    "InsufficientMemory",
    "InsufficientDisk",
    "InsufficientGpus",
    "InsufficientPorts",
    "DeclinedScarceResources",
];

impl<'a> Queue<'a> {
    /// Renders what the leader remembers of the apps that wait.
    pub fn of(state: &'a ClusterState, waiting: &BTreeMap<Request, Waiting>, embed: QueueEmbed, now: Timestamp) -> Self {
        let entries = waiting.iter().filter_map(|(request, waiting)| {
            let Request::App(id) = request else { return None };
            let record = state.apps.get(id)?;
            let left = waiting.delayed_until.map_or(0, |until| until.since(now).0.div_ceil(1000));
            Some(Entry {
                count: waiting.count,
                delay: Delay { time_left_seconds: left, overdue: left == 0 },
                since: Time(waiting.since),
                processed_offers_summary: Summary::of(waiting, now),
                last_unused_offers: embed.last_unused_offers.then(|| unused_offers(state, waiting, now)),
                app: App::definition(&record.app, &Embed::default()),
            })
        });
        Self { queue: entries.collect() }
    }
}

/// `embed` of the queue.
#[derive(Debug, Clone, Copy, Default)]
pub struct QueueEmbed {
    /// `lastUnusedOffers`.
    pub last_unused_offers: bool,
}

impl Summary {
    /// drover keeps the present picture only, so both summaries show it: each node once.
    fn of(waiting: &Waiting, now: Timestamp) -> Self {
        let refused: Vec<Vec<&'static str>> =
            waiting.agents.values().filter(|why| !why.is_empty()).map(|why| reasons(why)).collect();
        let mut processed = waiting.agents.len();
        let mut funnel = Vec::with_capacity(FUNNEL.len());
        for reason in FUNNEL {
            let declined = refused.iter().filter(|reasons| reasons.first() == Some(&reason)).count();
            funnel.push(Rejections { reason, declined, processed });
            processed -= declined;
        }
        Self {
            processed_offers_count: waiting.agents.len(),
            unused_offers_count: refused.len(),
            last_unused_offer_at: (!refused.is_empty()).then_some(Time(now)),
            reject_summary_last_offers: funnel.clone(),
            reject_summary_launch_attempt: funnel,
        }
    }
}

fn unused_offers(state: &ClusterState, waiting: &Waiting, now: Timestamp) -> Vec<UnusedOffer> {
    let refused = waiting.agents.iter().filter(|(_, why)| !why.is_empty());
    refused
        .map(|(id, why)| UnusedOffer {
            offer: OfferedAgent {
                id: format!("{id}-present"),
                hostname: state.agents.get(id).map(|agent| agent.info.host.clone()).unwrap_or_default(),
                agent_id: id.to_string(),
                resources: [],
                attributes: [],
            },
            reason: reasons(why),
            timestamp: Time(now),
        })
        .collect()
}

/// The reasons against one node in Marathon's words, in the order of its funnel.
fn reasons(why: &[Against]) -> Vec<&'static str> {
    let word = |against: &Against| match against {
        // An agent that does not answer makes no offer; the nearest Marathon has is one that is being worked on.
        Against::Unreachable | Against::Tasks { .. } => "AgentMaintenance",
        Against::Role { .. } => "UnfulfilledRole",
        Against::Constraint { .. } | Against::Systemd { .. } => "UnfulfilledConstraint",
        Against::Cpus { .. } => "InsufficientCpus",
        Against::Memory { .. } => "InsufficientMemory",
        Against::Disk { .. } => "InsufficientDisk",
        Against::Gpus { .. } => "InsufficientGpus",
        Against::Ports { .. } => "InsufficientPorts",
    };
    let mut words: Vec<&'static str> = why.iter().map(word).collect();
    words.sort_by_key(|word| FUNNEL.iter().position(|reason| reason == word));
    words.dedup();
    words
}
