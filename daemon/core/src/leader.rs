//! The leader's whole mind: one pure function from the replicated state, what this leader has heard, and `now`, to the
//! commands to propose. The shell calls it when something was applied, when an agent was heard of for the first time, and at
//! [`Decision::wake_at`]; it calls again only after everything proposed has been applied or refused.
//!
//! ```text
//! liveness ─▶ scaling ─▶ runs ─▶ demands of the two layers ─▶ offers ⇄ answers ─▶ launches
//! ```

use crate::allocator::Books;
use crate::app::{App, PortDefinition};
use crate::app_spec;
use crate::framework::{Answer, Framework, Launch, Offer};
use crate::ids::{AgentId, AppId, FrameworkId, JobName, OfferId, Role, RunId, TaskId};
use crate::liveness;
use crate::matcher::{self, Against, Needs, PortWish, Rule, Spread};
use crate::resources::Scalars;
use crate::runs::{self, RunRequest};
use crate::sandbox;
use crate::scaling;
use crate::state::{ClusterState, Command};
use crate::task::Owner;
use crate::time::{Millis, Now, Timestamp};
use std::collections::{BTreeMap, BTreeSet};
use std::time::Duration;

pub mod pace;
pub mod session;

#[cfg(test)]
mod tests;

/// Launches proposed at once; the rest follow as soon as these are applied.
pub const LAUNCHES_MAX: usize = 512;

/// What a leader knows beside the replicated state.
#[derive(Debug, Clone)]
pub struct Knowledge {
    /// When it last heard from each agent, by the steady clock.
    pub heard: BTreeMap<AgentId, Duration>,
    /// Since when it leads and gets its turns, by the same. Nobody is silent for longer than that.
    pub leading_since: Duration,
    /// Silence after which an agent counts as unreachable.
    pub agent_timeout: Millis,
    /// What waited when it last decided, so that `since` is kept.
    pub waiting: BTreeMap<Request, Waiting>,
}

/// Something that asks for a place.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
pub enum Request {
    /// Instances of an app.
    App(AppId),
    /// A job's run.
    Run(RunId),
}

/// Why a request has not got its place: the answer to "why is it not running?".
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Waiting {
    /// Since when.
    pub since: Timestamp,
    /// How many tasks it still wants.
    pub count: u32,
    /// The job, when it is a run that waits.
    pub job: Option<JobName>,
    /// Back-off or retry delay: nothing is launched before.
    pub delayed_until: Option<Timestamp>,
    /// It waits until another run of its job is over.
    pub behind: bool,
    /// Each agent with every reason against it. Empty reasons: it fits now, and is about to be used.
    pub agents: BTreeMap<AgentId, Vec<Against>>,
}

/// What to do.
#[derive(Debug, Default)]
pub struct Decision {
    /// To propose, in this order.
    pub commands: Vec<Command>,
    /// When to decide again although nothing happens.
    pub wake_at: Option<Timestamp>,
    /// Who waits for what.
    pub waiting: BTreeMap<Request, Waiting>,
}

/// Decides everything there is to decide now. `new_id` gives unique text for each new task.
pub fn decide(state: &ClusterState, known: &Knowledge, now: Now, new_id: &mut dyn FnMut() -> String) -> Decision {
    let liveness = liveness::decide(state, &known.heard, known.leading_since, known.agent_timeout, now);
    let now = now.time;
    let scaling = scaling::decide(state, now);
    let runs = runs::decide(state, now);

    let mut demands = Demands::new(state);
    for (id, missing) in &scaling.missing {
        demands.add_app(&state.apps[id].app, *missing);
    }
    for request in runs.requests {
        demands.add_run(request);
    }
    let launches = demands.place(now, new_id);

    let mut waiting = demands.waiting();
    for (id, (count, until)) in &scaling.delayed {
        waiting.insert(Request::App(id.clone()), Waiting { delayed_until: Some(*until), ..Waiting::of(*count, None) });
    }
    for (id, job, until) in &runs.delayed {
        let delayed = Waiting { delayed_until: Some(*until), ..Waiting::of(1, Some(job.clone())) };
        waiting.insert(Request::Run(id.clone()), delayed);
    }
    for (id, job) in &runs.behind {
        waiting.insert(Request::Run(id.clone()), Waiting { behind: true, ..Waiting::of(1, Some(job.clone())) });
    }
    for (request, entry) in &mut waiting {
        entry.since = known.waiting.get(request).map_or(now, |before| before.since);
    }

    let mut commands = liveness.commands;
    commands.extend(scaling.commands);
    commands.extend(runs.commands);
    commands.extend(launches);
    commands.retain(|command| state.may_be_written(command));
    let wake_at = [liveness.wake_at, scaling.wake_at, runs.wake_at].into_iter().flatten().min();
    Decision { commands, wake_at, waiting }
}

impl Waiting {
    fn of(count: u32, job: Option<JobName>) -> Self {
        Self { since: Timestamp(0), count, job, delayed_until: None, behind: false, agents: BTreeMap::new() }
    }
}

/// The role whose share an app draws on. `*` means the app layer's own.
pub fn role_of_app(app: &App) -> Role {
    if app.role == Role::any() { Role::new("apps") } else { app.role.clone() }
}

/// The role whose share jobs draw on.
pub fn role_of_jobs() -> Role {
    Role::new("jobs")
}

/// One layer's wish for tasks of one kind.
struct Demand<'a> {
    request: Request,
    source: Source<'a>,
    framework: Framework,
    needs: Needs,
    spread: Spread,
    left: u32,
}

enum Source<'a> {
    App(&'a App),
    Run(RunRequest<'a>),
}

struct Demands<'a> {
    state: &'a ClusterState,
    books: Books,
    list: Vec<Demand<'a>>,
}

impl<'a> Demands<'a> {
    fn new(state: &'a ClusterState) -> Self {
        let mut books = Books::default();
        for (id, agent) in state.agents.iter().filter(|(_, agent)| agent.is_up()) {
            books.free.insert(id.clone(), state.free_on(agent));
            books.places.insert(id.clone(), agent.places(state.tasks_of_agent(id).count()));
            books.total = books.total.plus(agent.info.resources.total());
        }
        for task in state.tasks.values() {
            let role = match &task.spec.owner {
                Owner::App { app, .. } => state.apps.get(app).map_or_else(|| Role::new("apps"), |r| role_of_app(&r.app)),
                Owner::Run { .. } => role_of_jobs(),
            };
            let held: &mut Scalars = books.held.entry(role).or_default();
            *held = held.plus(task.allocation.total());
        }
        books.weights_milli = state.roles.iter().map(|(role, record)| (role.clone(), record.weight_milli)).collect();
        Self { state, books, list: Vec::new() }
    }

    fn add_app(&mut self, app: &'a App, count: u32) {
        let rules: Vec<Rule> = app.constraints.iter().map(Rule::new).collect();
        let wish = |port: &PortDefinition| if app.require_ports { PortWish::Fixed(port.port) } else { PortWish::Any };
        let live = self.state.tasks_of_app(&app.id).filter(|task| task.is_active());
        let placed = live.filter_map(|task| self.state.agents.get(&task.agent));
        let spread = Spread::new(&rules, self.state.agents.values().filter(|agent| agent.is_up()), placed);
        self.list.push(Demand {
            request: Request::App(app.id.clone()),
            source: Source::App(app),
            framework: Framework { id: FrameworkId::apps(), role: role_of_app(app) },
            needs: Needs {
                scalars: app.resources,
                ports: app.ports.iter().map(wish).collect(),
                constraints: rules,
                accepted_roles: app.accepted_roles.clone(),
                systemd_min: sandbox::systemd_needed(&app.properties),
            },
            spread,
            left: count,
        });
    }

    fn add_run(&mut self, request: RunRequest<'a>) {
        let rules: Vec<Rule> = request.job.constraints.iter().map(Rule::new).collect();
        let spread = Spread::new(&rules, self.state.agents.values().filter(|agent| agent.is_up()), std::iter::empty());
        self.list.push(Demand {
            request: Request::Run(request.run.id.clone()),
            source: Source::Run(request),
            framework: Framework { id: FrameworkId::jobs(), role: role_of_jobs() },
            needs: Needs {
                scalars: request.job.resources,
                ports: Vec::new(),
                constraints: rules,
                accepted_roles: BTreeSet::new(),
                systemd_min: sandbox::systemd_needed(&request.job.properties),
            },
            spread,
            left: 1,
        });
    }

    /// Rounds of offers and answers until nobody wants or nobody can.
    fn place(&mut self, now: Timestamp, new_id: &mut dyn FnMut() -> String) -> Vec<Command> {
        let mut commands = Vec::new();
        while commands.len() < LAUNCHES_MAX {
            let mut open: Vec<Framework> = Vec::new();
            for demand in self.list.iter().filter(|demand| demand.left > 0) {
                if !open.contains(&demand.framework) {
                    open.push(demand.framework.clone());
                }
            }
            let offers = if open.is_empty() { Vec::new() } else { self.books.offer_round(&open) };
            if offers.is_empty() {
                break;
            }
            for framework in &open {
                let mine: Vec<&Offer> =
                    offers.iter().filter(|o| o.framework == framework.id && o.role == framework.role).collect();
                for answer in self.answer(framework, &mine, new_id) {
                    let offer_named =
                        |id: &OfferId| mine.iter().copied().find(|o| o.id == *id).expect("answers name its offers");
                    match answer {
                        Answer::Decline { offer } => self.books.decline(offer_named(&offer)),
                        Answer::Accept { offer, launches } => {
                            for launch in launches {
                                self.books.accept(offer_named(&offer), &launch.allocation);
                                commands.push(Command::LaunchTask { launch: Box::new(launch), at: now });
                            }
                        }
                    }
                }
            }
        }
        commands
    }

    /// A layer's answers to its offers: at most one launch per offer and round, its demands taking turns, so that
    /// instances spread and no demand starves another.
    fn answer(&mut self, framework: &Framework, offers: &[&Offer], new_id: &mut dyn FnMut() -> String) -> Vec<Answer> {
        let mut answers = Vec::new();
        let mut used: BTreeSet<OfferId> = BTreeSet::new();
        let mut progress = true;
        while progress {
            progress = false;
            for demand in self.list.iter_mut().filter(|d| d.left > 0 && d.framework == *framework) {
                let unused = offers.iter().copied().filter(|offer| !used.contains(&offer.id));
                let id = new_id();
                let chosen = matcher::choose(&demand.needs, &demand.spread, &self.state.agents, unused, seed(&id));
                let Some((offer, allocation)) = chosen else { continue };
                let agent = &self.state.agents[&offer.agent];
                let (task, spec) = match &demand.source {
                    Source::App(app) => {
                        let task = TaskId::of_app(&app.id, &id);
                        let spec = app_spec::task_spec(app, &task, &allocation.ports, &agent.info.host);
                        (task, spec)
                    }
                    Source::Run(request) => (request.task(), request.spec_on(&agent.info.host)),
                };
                demand.left -= 1;
                demand.spread.add(&demand.needs.constraints, agent);
                used.insert(offer.id.clone());
                let launch = Launch { task, agent: offer.agent.clone(), allocation, spec };
                answers.push(Answer::Accept { offer: offer.id.clone(), launches: vec![launch] });
                progress = true;
            }
        }
        let unused = offers.iter().filter(|offer| !used.contains(&offer.id));
        answers.extend(unused.map(|offer| Answer::Decline { offer: offer.id.clone() }));
        answers
    }

    /// What is left over, with every node's reasons.
    fn waiting(&self) -> BTreeMap<Request, Waiting> {
        let waits = self.list.iter().filter(|demand| demand.left > 0).map(|demand| {
            let agents = self.state.agents.iter().map(|(id, agent)| {
                let free = self.books.free.get(id).cloned().unwrap_or_else(|| agent.info.resources.clone());
                let free = free.visible_to(&demand.framework.role);
                let places = self.books.places.get(id).copied().unwrap_or(1);
                (id.clone(), matcher::against(&demand.needs, &demand.spread, agent, &free, places))
            });
            let job = match &demand.source {
                Source::App(_) => None,
                Source::Run(request) => Some(request.job.name.clone()),
            };
            (demand.request.clone(), Waiting { agents: agents.collect(), ..Waiting::of(demand.left, job) })
        });
        waits.collect()
    }
}

/// A number out of random text, to vary which ports are picked.
fn seed(text: &str) -> u64 {
    text.bytes().fold(0xcbf2_9ce4_8422_2325, |hash, byte| (hash ^ u64::from(byte)).wrapping_mul(0x0100_0000_01b3))
}
