//! A job as a client defines it.

use super::error::{Error, Faults};
use super::read::{At, member};
use drover_core::app::{Constraint, Operator};
use drover_core::ids::JobName;
use drover_core::job::{EPSILON_DEFAULT, JOB_RESOURCES_DEFAULT, Job, RETRIES_DEFAULT, RETRY_DELAY_DEFAULT, Trigger};
use drover_core::resources::Scalars;
use drover_core::runs::with_arguments;
use drover_core::schedule::{self, Part};
use drover_core::task::Program;
use drover_core::time::{Millis, Timestamp};
use drover_core::{matcher, sandbox};
use serde_json::{Map, Value};
use std::collections::{BTreeMap, BTreeSet};

/// The schedule of a job that is posted without one: once, now.
pub const SCHEDULE_WHEN_MISSING: &str = "R1//PT24H";

/// Attempts beyond the first: more than anybody means.
const RETRIES_MAX: u32 = 10_000;

/// Longest time of a run in seconds: more than anybody means.
const COMPLETION_SECONDS_MAX: u32 = 3_153_600_000;

/// Longest command: the kernel takes 128 KiB in one piece, the final zero byte included.
const COMMAND_BYTES_MAX: usize = 128 * 1024 - 1;

/// Most CPUs of a run.
const CPUS_MAX: f64 = 1_000_000.0;

/// Most memory or disk of a run in MiB: a pebibyte.
const MEBIBYTES_MAX: f64 = 1_073_741_824.0;

/// What is posted where.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Kind {
    /// `/iso8601`: a job with a schedule.
    Scheduled,
    /// `/dependency`: a job after others.
    Dependent,
}

/// Members that mean something drover does not do (yet); blank they ask for nothing and pass.
const NOT_HONOURED: [(&str, &str); 8] = [
    ("container", "drover runs jobs as systemd units, not in containers, so far"),
    ("executor", "drover has no custom executors"),
    ("executorFlags", "drover has no custom executors"),
    ("taskInfoData", "drover has no custom executors"),
    ("uris", "drover does not download files for a job so far: do it in the command"),
    ("fetch", "drover does not download files for a job so far: do it in the command"),
    ("async", "drover sees a run end with its process; jobs that end by a callback are not supported"),
    ("dataProcessingJobType", "drover does not count processed elements"),
];

/// Reads a job. What the server maintains (counts and dates) is not taken from the client. `now` is what an empty start means.
///
/// # Errors
/// Not JSON, or every fault of the definition.
pub fn read_job(body: &[u8], kind: Kind, now: Timestamp) -> Result<Job, Error> {
    let document: Value = serde_json::from_slice(body).map_err(|error| Error::NotJson(error.to_string()))?;
    let Value::Object(object) = &document else {
        return Err(Error::NotJson("it is JSON of another kind".into()));
    };
    let mut faults = Faults::default();
    let job = Reader { object, faults: &mut faults }.job(kind, now);
    match job {
        Some(job) if faults.is_empty() => Ok(job),
        _ => Err(Error::Invalid(faults)),
    }
}

struct Reader<'a, 'f> {
    object: &'a Map<String, Value>,
    faults: &'f mut Faults,
}

impl<'a> Reader<'a, '_> {
    fn job(&mut self, kind: Kind, now: Timestamp) -> Option<Job> {
        for (name, why) in NOT_HONOURED {
            if let Some(at) = self.member(name).filter(|at| !at.is_blank()) {
                at.fault(self.faults, format!("is not supported: {why}"));
            }
        }
        let name = self.name();
        let trigger = match kind {
            Kind::Scheduled => self.schedule(now),
            Kind::Dependent => self.parents(name.as_ref()),
        };
        let arguments = self.member("arguments").and_then(|at| at.texts(self.faults)).unwrap_or_default();
        let program = self.program(&arguments);
        let user = self.text("runAsUser").filter(|user| !user.is_empty());
        let properties = self.properties(user.as_deref());
        let retries = self.member("retries").and_then(|at| at.whole(self.faults, RETRIES_MAX)).unwrap_or(RETRIES_DEFAULT);
        let retry_delay = self.duration("retryDelay").unwrap_or(RETRY_DELAY_DEFAULT);
        let epsilon = self.duration("epsilon").unwrap_or(EPSILON_DEFAULT);
        let resources = self.resources();
        let [disabled, concurrent, soft_error, high_priority] =
            ["disabled", "concurrent", "softError", "highPriority"].map(|name| self.boolean(name, false));
        let env = self.env();
        let constraints = self.constraints();
        let run_time_max = self.run_time_max();
        let [owner, owner_name, description] =
            ["owner", "ownerName", "description"].map(|name| self.text(name).unwrap_or_default());
        // Everything has been looked at by now, so that no fault hides another.
        Some(Job {
            name: name?,
            trigger: trigger?,
            program: program?,
            arguments,
            retries,
            retry_delay,
            epsilon,
            resources,
            disabled,
            concurrent,
            soft_error,
            high_priority,
            user,
            env,
            constraints,
            run_time_max,
            properties,
            owner,
            owner_name,
            description,
            changed_at: Timestamp(0),
        })
    }

    fn member(&self, name: &str) -> Option<At<'a>> {
        member(self.object, "", name)
    }

    fn text(&mut self, name: &str) -> Option<String> {
        self.member(name).and_then(|at| at.text(self.faults))
    }

    fn boolean(&mut self, name: &str, default: bool) -> bool {
        self.member(name).and_then(|at| at.boolean(self.faults)).unwrap_or(default)
    }

    fn name(&mut self) -> Option<JobName> {
        let Some(at) = self.member("name") else {
            self.faults.push("/name", "must be given");
            return None;
        };
        let name = at.text(self.faults)?;
        JobName::parse(&name).map_err(|bad| at.fault(self.faults, bad.0)).ok()
    }

    fn schedule(&mut self, now: Timestamp) -> Option<Trigger> {
        if let Some(at) = self.member("parents").filter(|at| !at.is_blank()) {
            at.fault(self.faults, "makes this a dependent job: post it to /dependency, without a schedule");
        }
        let text = match self.member("schedule") {
            Some(at) => at.text(self.faults)?,
            None => SCHEDULE_WHEN_MISSING.to_owned(),
        };
        // Listings of Chronos show a missing zone as the four letters null, and are posted back.
        let zone = self.text("scheduleTimeZone").filter(|zone| zone != "null").unwrap_or_default();
        match schedule::parse(&text, &zone, now) {
            Ok(schedule) => Some(Trigger::Schedule(schedule)),
            Err(all) => {
                for fault in all {
                    match fault.part {
                        Part::Zone => self.faults.push("/scheduleTimeZone", fault.why),
                        Part::Form => self.faults.push("/schedule", fault.why),
                        part => self.faults.push("/schedule", format!("{part}: {}", fault.why)),
                    }
                }
                None
            }
        }
    }

    fn parents(&mut self, own: Option<&JobName>) -> Option<Trigger> {
        if let Some(at) = self.member("schedule").filter(|at| !at.is_blank()) {
            at.fault(self.faults, "must not be given for a dependent job: its parents say when it runs");
        }
        let Some(at) = self.member("parents").filter(|at| !at.is_blank()) else {
            self.faults.push("/parents", "must name at least one job");
            return None;
        };
        let mut parents = BTreeSet::new();
        for item in at.list(self.faults)? {
            let Some(text) = item.text(self.faults) else { continue };
            match JobName::parse(&text) {
                Ok(parent) if Some(&parent) == own => item.fault(self.faults, "must not be the job itself"),
                Ok(parent) => drop(parents.insert(parent)),
                Err(bad) => item.fault(self.faults, bad.0),
            }
        }
        Some(Trigger::Parents(parents))
    }

    fn program(&mut self, arguments: &[String]) -> Option<Program> {
        let shell = self.boolean("shell", true);
        let Some(at) = self.member("command").filter(|at| !at.is_blank()) else {
            self.faults.push("/command", "must not be empty");
            return None;
        };
        let command = at.text(self.faults)?;
        if ["http://", "https://", "ftp://"].iter().any(|scheme| command.starts_with(scheme)) {
            at.fault(self.faults, "must not be an address: drover does not download files for a job so far");
        }
        if command.len() + arguments.iter().map(|argument| argument.len() + 1).sum::<usize>() > COMMAND_BYTES_MAX {
            at.fault(
                self.faults,
                format!("must have at most {COMMAND_BYTES_MAX} bytes, arguments included: the kernel takes no more"),
            );
        }
        let program = if shell { Program::Shell(command) } else { Program::Argv(vec![command]) };
        Some(with_arguments(&program, arguments))
    }

    fn duration(&mut self, name: &str) -> Option<Millis> {
        let at = self.member(name)?;
        let text = at.text(self.faults).filter(|text| !text.is_empty())?;
        schedule::parse_duration(&text).map_err(|why| at.fault(self.faults, why)).ok()
    }

    fn run_time_max(&mut self) -> Option<Millis> {
        let seconds = self.member("maxCompletionTime")?.whole(self.faults, COMPLETION_SECONDS_MAX)?;
        (seconds > 0).then(|| Millis::from_secs(seconds.into()))
    }

    /// Zero or nothing is the default.
    fn resources(&mut self) -> Scalars {
        let mut resources = JOB_RESOURCES_DEFAULT;
        let mut read = |name: &str, unit: f64, max: f64, field: &mut u64| {
            let Some(at) = self.member(name) else { return };
            let Some(number) = at.number(self.faults) else { return };
            if !(0.0..=max).contains(&number) {
                at.fault(self.faults, format!("must be from 0 to {max}"));
            } else if number > 0.0 {
                *field = ((number * unit).round() as u64).max(1);
            }
        };
        const MIB: f64 = (1u32 << 20) as f64;
        read("cpus", 1000.0, CPUS_MAX, &mut resources.cpus_milli);
        read("mem", MIB, MEBIBYTES_MAX, &mut resources.mem_bytes);
        read("disk", MIB, MEBIBYTES_MAX, &mut resources.disk_bytes);
        resources
    }

    fn env(&mut self) -> BTreeMap<String, String> {
        let mut env = BTreeMap::new();
        let Some(list) = self.member("environmentVariables").and_then(|at| at.list(self.faults)) else { return env };
        for item in list {
            let Some(object) = item.object(self.faults) else { continue };
            let Some(name) = member(object, &item.path, "name") else {
                item.fault(self.faults, "must have a name");
                continue;
            };
            let Some(name) = name.text(self.faults) else { continue };
            let value = member(object, &item.path, "value").and_then(|at| at.text(self.faults)).unwrap_or_default();
            for fault in sandbox::check_env(&[(name.clone(), value.clone())].into()) {
                item.fault(self.faults, fault.why);
            }
            env.insert(name, value);
        }
        env
    }

    fn constraints(&mut self) -> Vec<Constraint> {
        let list = self.member("constraints").and_then(|at| at.list(self.faults)).unwrap_or_default();
        list.iter().filter_map(|item| self.constraint(item)).collect()
    }

    fn constraint(&mut self, at: &At<'_>) -> Option<Constraint> {
        let words = at.texts(self.faults)?;
        let [field, operator, value] = words.as_slice() else {
            at.fault(self.faults, "must have three parts: attribute, operator, value");
            return None;
        };
        let operator = match operator.to_ascii_uppercase().as_str() {
            "EQUALS" => Operator::Is,
            "LIKE" => Operator::Like,
            "UNLIKE" => Operator::Unlike,
            _ => {
                at.fault(self.faults, format!("must have the operator EQUALS, LIKE or UNLIKE, not '{operator}'"));
                return None;
            }
        };
        if operator != Operator::Is
            && let Err(error) = matcher::compile(value)
        {
            let line = error.to_string().lines().last().unwrap_or_default().trim_start_matches("error: ").to_owned();
            at.fault(self.faults, format!("'{value}' is not a regular expression: {line}"));
            return None;
        }
        Some(Constraint { field: field.clone(), operator, value: Some(value.clone()) })
    }

    fn properties(&mut self, user: Option<&str>) -> BTreeMap<String, String> {
        let properties = self.member("unit").and_then(|at| at.text_map(self.faults)).unwrap_or_default();
        for fault in sandbox::check_with_user(&properties, user) {
            let is_user = !properties.contains_key(&fault.property);
            let path = if is_user { "/runAsUser".to_owned() } else { format!("/unit/{}", fault.property) };
            self.faults.push(&path, fault.why);
        }
        properties
    }
}
