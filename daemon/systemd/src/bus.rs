//! Calls to a systemd manager.

use crate::changes::{Changes, Shared, patch_of, pump};
use crate::names::{UNITS_NAMESPACE, path_of};
use crate::value::{self, Properties, to_variant};
use drover_core::ids::TaskId;
use drover_core::sandbox::Manager;
use drover_core::task::Usage;
use drover_core::unit::{FIELD_TASK, ListedUnit, ObservedUnit, PropertyValue, StartRefusal, UnitPlan};
use serde::Serialize;
use std::num::NonZeroUsize;
use std::sync::Arc;
use std::time::Duration;
use zbus::connection::Builder;
use zbus::message::Message;
use zbus::{Connection, DBusError, DynamicType, MessageStream, OwnedObjectPath, OwnedVariant, Variant};

pub(crate) const SYSTEMD: &str = "org.freedesktop.systemd1";
const MANAGER_PATH: &str = "/org/freedesktop/systemd1";
const MANAGER: &str = "org.freedesktop.systemd1.Manager";
const UNIT: &str = "org.freedesktop.systemd1.Unit";
const SERVICE: &str = "org.freedesktop.systemd1.Service";
const PROPERTIES: &str = "org.freedesktop.DBus.Properties";
const BUS: &str = "org.freedesktop.DBus";

/// PID 1 answers nothing while it reads its configuration anew, which with thousands of units takes seconds.
const CALL_TIMEOUT: Duration = Duration::from_secs(60);

/// Messages zbus holds for the pump. The pump never waits for anybody, so this covers a pause of the whole process.
const QUEUE: NonZeroUsize = NonZeroUsize::new(65_536).expect("not zero");

/// Why a call failed.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// There is no bus.
    #[error("the {bus} bus cannot be reached")]
    NoBus {
        /// Which.
        bus: &'static str,
        /// Why.
        #[source]
        source: zbus::Error,
    },
    /// The bus broke, or systemd is not on it, or did not answer in time: whether the call had an effect is not known.
    #[error("systemd did not answer {call}")]
    NoAnswer {
        /// The call.
        call: &'static str,
        /// Why; `None` when the wait for a unit job was cut off.
        #[source]
        source: Option<zbus::Error>,
    },
    /// systemd said no.
    #[error("systemd refused {call}: {message} ({name})")]
    Refused {
        /// The call.
        call: &'static str,
        /// D-Bus error name.
        name: String,
        /// In systemd's words.
        message: String,
    },
    /// The answer has another shape than documented.
    #[error("systemd's answer to {call} cannot be read")]
    Answer {
        /// The call.
        call: &'static str,
        /// Why.
        #[source]
        source: zbus::Error,
    },
}

impl Error {
    /// Whether systemd says that it has no such unit.
    pub fn is_no_such_unit(&self) -> bool {
        matches!(self, Error::Refused { name, .. } if name == "org.freedesktop.systemd1.NoSuchUnit"
            || name == "org.freedesktop.DBus.Error.UnknownObject")
    }

    /// What a refused start says about the unit; `None` when nothing is known, or the name is taken.
    pub fn start_refusal(&self) -> Option<StartRefusal> {
        let Error::Refused { name, message, .. } = self else { return None };
        let last = name.rsplit('.').next().unwrap_or(name);
        match last {
            "UnitExists" => None,
            // What it says of a description it does not take; the same task would be refused again.
            "InvalidArgs" | "PropertyReadOnly" | "UnknownProperty" | "BadUnitSetting" | "InvalidSignature" | "ENXIO"
            | "EINVAL" | "EBADMSG" | "E2BIG" | "EOPNOTSUPP" | "NotSupported" => {
                Some(StartRefusal::Description(format!("{message} ({last})")))
            }
            // Out of memory, going down, not allowed: the node's trouble, not the task's.
            _ => Some(StartRefusal::Resources(format!("{message} ({last})"))),
        }
    }
}

/// How a unit job ended: systemd's `done`, `failed`, `canceled`, `timeout`, `dependency`, `skipped`.
pub type JobEnd = String;

/// What became of a start.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Started {
    /// systemd took it, and the start's unit job ended like this.
    Job(JobEnd),
    /// There is a unit of that name: it was started before.
    Exists,
}

/// A connection to a manager. Clones share it.
#[derive(Clone, Debug)]
pub struct Systemd {
    connection: Connection,
    shared: Arc<Shared>,
}

impl Systemd {
    /// Connects, and subscribes to what happens. Everything that happens from here on is in the [`Changes`]; list the units
    /// after this returns, and nothing falls between.
    ///
    /// # Errors
    /// There is no bus, or systemd is not on it.
    pub async fn connect(manager: Manager) -> Result<(Self, Changes), Error> {
        let (bus, builder) = match manager {
            Manager::System => ("system", Builder::system()),
            Manager::User => ("session", Builder::session()),
        };
        let connection = builder
            .max_queued(QUEUE)
            .method_timeout(CALL_TIMEOUT)
            .build()
            .await
            .map_err(|source| Error::NoBus { bus, source })?;
        let (shared, changes) = Shared::new();
        tokio::spawn(pump(MessageStream::from(&connection), shared.clone()));
        let systemd = Self { connection, shared };
        systemd.subscribe().await?;
        Ok((systemd, changes))
    }

    async fn subscribe(&self) -> Result<(), Error> {
        for rule in [
            format!(
                "type='signal',sender='{SYSTEMD}',interface='{PROPERTIES}',member='PropertiesChanged',path_namespace='{UNITS_NAMESPACE}'"
            ),
            format!("type='signal',sender='{SYSTEMD}',interface='{MANAGER}',member='JobRemoved'"),
            format!("type='signal',sender='{SYSTEMD}',interface='{MANAGER}',member='UnitNew'"),
            format!("type='signal',sender='{SYSTEMD}',interface='{MANAGER}',member='UnitRemoved'"),
            format!("type='signal',sender='{SYSTEMD}',interface='{MANAGER}',member='Reloading'"),
            format!("type='signal',sender='{BUS}',interface='{BUS}',member='NameOwnerChanged',arg0='{SYSTEMD}'"),
        ] {
            self.call_on(BUS, "/org/freedesktop/DBus", BUS, "AddMatch", &(rule.as_str(),)).await?;
        }
        self.resubscribe().await
    }

    /// Asks systemd for signals again, after it left the bus and came back.
    ///
    /// # Errors
    /// As every call.
    pub async fn resubscribe(&self) -> Result<(), Error> {
        match self.manager("Subscribe", &()).await {
            Err(Error::Refused { name, .. }) if name == "org.freedesktop.systemd1.AlreadySubscribed" => Ok(()),
            other => other.map(drop),
        }
    }

    /// systemd's version, as in `252.36-1`.
    ///
    /// # Errors
    /// As every call.
    pub async fn version(&self) -> Result<String, Error> {
        let call = "Get Version";
        let value = self.get(call, MANAGER_PATH, MANAGER, "Version").await?;
        String::try_from(value).map_err(|source| Error::Answer { call, source })
    }

    /// When this run of the manager began, microseconds since 1970 by the clock of then: another moment after each reboot, the
    /// same across daemon-reexec.
    ///
    /// # Errors
    /// As every call.
    pub async fn began_at(&self) -> Result<u64, Error> {
        let call = "Get UserspaceTimestamp";
        let value = self.get(call, MANAGER_PATH, MANAGER, "UserspaceTimestamp").await?;
        u64::try_from(value).map_err(|source| Error::Answer { call, source })
    }

    /// Starts a transient unit and waits until its start is through. The name is a fence: of two starts one gets
    /// [`Started::Exists`], whoever made the first.
    ///
    /// # Errors
    /// Refused: systemd does not take the description. No answer: the unit may or may not be there.
    pub async fn start(&self, plan: &UnitPlan) -> Result<Started, Error> {
        let call = "StartTransientUnit";
        match self.start_transient(call, &plan.name, &plan.properties).await {
            Ok(end) => Ok(Started::Job(end)),
            Err(Error::Refused { name, .. }) if name == "org.freedesktop.systemd1.UnitExists" => Ok(Started::Exists),
            Err(error) => Err(error),
        }
    }

    async fn start_transient(
        &self,
        call: &'static str,
        unit: &str,
        properties: &[(String, PropertyValue)],
    ) -> Result<JobEnd, Error> {
        let properties: Vec<(&str, Variant<'_>)> =
            properties.iter().map(|(name, value)| (name.as_str(), to_variant(value))).collect();
        let none: Vec<(&str, Vec<(&str, Variant<'_>)>)> = Vec::new();
        self.run_job(call, unit, &(unit, "fail", properties, none)).await
    }

    /// Asks systemd to stop a unit and waits until it has. One that an operator froze is thawed first: 252 does that by itself,
    /// 257 refuses to stop it.
    ///
    /// # Errors
    /// Refused with [`Error::is_no_such_unit`] when it is not there.
    pub async fn stop(&self, unit: &str) -> Result<JobEnd, Error> {
        let end = self.run_job("StopUnit", unit, &(unit, "replace")).await?;
        if end == "done" || !self.is_frozen(unit).await? {
            return Ok(end);
        }
        self.manager("ThawUnit", &(unit,)).await?;
        self.run_job("StopUnit", unit, &(unit, "replace")).await
    }

    async fn is_frozen(&self, unit: &str) -> Result<bool, Error> {
        let state = self.get("Get FreezerState", &path_of(unit), UNIT, "FreezerState").await?;
        Ok(String::try_from(state).is_ok_and(|state| state == "frozen"))
    }

    /// Lets a failed unit go.
    ///
    /// # Errors
    /// As every call.
    pub async fn reset_failed(&self, unit: &str) -> Result<(), Error> {
        self.manager("ResetFailedUnit", &(unit,)).await.map(drop)
    }

    /// Sends a signal to all processes of a unit.
    ///
    /// # Errors
    /// As every call.
    pub async fn kill(&self, unit: &str, signal: i32) -> Result<(), Error> {
        self.manager("KillUnit", &(unit, "all", signal)).await.map(drop)
    }

    /// The loaded units whose name matches a shell pattern.
    ///
    /// # Errors
    /// As every call.
    pub async fn list(&self, pattern: &str) -> Result<Vec<ListedUnit>, Error> {
        let call = "ListUnitsByPatterns";
        let reply = self.manager(call, &(Vec::<&str>::new(), vec![pattern])).await?;
        listed(&reply).map_err(|source| Error::Answer { call, source })
    }

    /// Everything about one unit; `None` when systemd does not have it.
    ///
    /// # Errors
    /// As every call.
    pub async fn observe(&self, unit: &str) -> Result<Option<ObservedUnit>, Error> {
        let path = path_of(unit);
        let general = match self.get_all("GetAll Unit", &path, UNIT).await {
            Ok(general) => general,
            Err(error) if error.is_no_such_unit() => return Ok(None),
            Err(error) => return Err(error),
        };
        // Asking for an object by name makes systemd look for a unit file; that there is none is an answer.
        if value::text(&general, "LoadState") == Some("not-found") {
            return Ok(None);
        }
        let service = match self.get_all("GetAll Service", &path, SERVICE).await {
            Ok(service) => service,
            Err(error) if error.is_no_such_unit() => return Ok(None),
            Err(error) => return Err(error),
        };
        Ok(Some(observed(unit, &general, &service)))
    }

    /// What a unit has used, as far as systemd still knows.
    ///
    /// # Errors
    /// As every call.
    pub async fn usage(&self, unit: &str) -> Result<Usage, Error> {
        let path = path_of(unit);
        let one = async |name: &'static str| match self.get("Get usage", &path, SERVICE, name).await {
            Ok(value) => Ok(u64::try_from(value).ok().filter(|number| *number != u64::MAX)),
            // MemoryPeak came with 254; a unit may be gone.
            Err(Error::Refused { .. }) => Ok(None),
            Err(error) => Err(error),
        };
        Ok(Usage { cpu_nanos: one("CPUUsageNSec").await?, mem_peak_bytes: one("MemoryPeak").await? })
    }

    /// Removes state directories (relative to where the manager keeps them), whoever owns what is in them.
    ///
    /// systemd does it, on behalf of a unit that has these directories and never runs: nothing here may have the
    /// privilege, and no program for it need be on the node.
    ///
    /// # Errors
    /// As every call. What was not removed stays.
    pub async fn remove_state_directories(&self, unit: &str, slice: &str, directories: Vec<String>) -> Result<(), Error> {
        let call = "StartTransientUnit to clean";
        let properties = vec![
            ("Description", Variant::from("drover: directories of ended tasks")),
            ("Slice", Variant::from(slice)),
            ("Type", Variant::from("oneshot")),
            ("CollectMode", Variant::from("inactive-or-failed")),
            ("StateDirectory", Variant::from(directories)),
            ("ExecStart", Variant::from(vec![("/bin/sh", vec!["/bin/sh", "-c", ":"], false)])),
            // Never true: the unit is there without having run.
            ("Conditions", Variant::from(vec![("ConditionPathExists", false, true, "/")])),
            // Otherwise it would be collected before it can be cleaned.
            ("AddRef", Variant::from(true)),
        ];
        let none: Vec<(&str, Vec<(&str, Variant<'_>)>)> = Vec::new();
        self.run_job(call, unit, &(unit, "fail", properties, none)).await?;
        let cleaned = self.manager("CleanUnit", &(unit, vec!["state"])).await;
        // Without the reference it is collected as soon as the cleaning is over.
        let released = self.manager("UnrefUnit", &(unit,)).await;
        cleaned.and(released).map(drop)
    }

    /// Makes a call that queues a unit job for `unit`, and waits for that job's end.
    async fn run_job<B: Serialize + DynamicType>(&self, call: &'static str, unit: &str, body: &B) -> Result<JobEnd, Error> {
        // Before the call: reply and JobRemoved come by different ways, in any order.
        let mut jobs = self.shared.await_jobs_of(unit);
        let member = call.split(' ').next().unwrap_or(call);
        let reply = self.call_on(SYSTEMD, MANAGER_PATH, MANAGER, member, body).await.map_err(|error| named(error, call))?;
        let job: OwnedObjectPath = reply.body().deserialize().map_err(|source| Error::Answer { call, source })?;
        loop {
            match jobs.recv().await {
                Some((ended, result)) if ended == job.as_str() => return Ok(result),
                Some(_) => {}
                None => return Err(Error::NoAnswer { call, source: None }),
            }
        }
    }

    async fn get(&self, call: &'static str, path: &str, interface: &str, name: &str) -> Result<OwnedVariant, Error> {
        let reply =
            self.call_on(SYSTEMD, path, PROPERTIES, "Get", &(interface, name)).await.map_err(|error| named(error, call))?;
        reply.body().deserialize().map_err(|source| Error::Answer { call, source })
    }

    async fn get_all(&self, call: &'static str, path: &str, interface: &str) -> Result<Properties, Error> {
        let reply =
            self.call_on(SYSTEMD, path, PROPERTIES, "GetAll", &(interface,)).await.map_err(|error| named(error, call))?;
        reply.body().deserialize().map_err(|source| Error::Answer { call, source })
    }

    async fn manager<B: Serialize + DynamicType>(&self, member: &'static str, body: &B) -> Result<Message, Error> {
        self.call_on(SYSTEMD, MANAGER_PATH, MANAGER, member, body).await.map_err(|error| named(error, member))
    }

    async fn call_on<B: Serialize + DynamicType>(
        &self,
        destination: &str,
        path: &str,
        interface: &str,
        member: &str,
        body: &B,
    ) -> Result<Message, Error> {
        let answer = self.connection.call_method(Some(destination), path, Some(interface), member, body).await;
        answer.map_err(|error| classify("a call", error))
    }
}

/// The units in an answer to ListUnitsByPatterns.
pub(crate) fn listed(reply: &Message) -> zbus::Result<Vec<ListedUnit>> {
    type Row = (String, String, String, String, String, String, OwnedObjectPath, u32, String, OwnedObjectPath);
    let body = reply.body();
    let rows: Vec<Row> = body.deserialize()?;
    let listed =
        rows.into_iter().filter(|row| row.2 != "not-found").map(|row| ListedUnit { name: row.0, active: row.3, sub: row.4 });
    Ok(listed.collect())
}

/// A unit by all the properties of its two interfaces.
pub(crate) fn observed(unit: &str, general: &Properties, service: &Properties) -> ObservedUnit {
    let mut observed = ObservedUnit {
        name: unit.to_owned(),
        is_loaded: true,
        task: value::journal_field(service, FIELD_TASK).map(TaskId::new),
        slice: value::text(service, "Slice").unwrap_or_default().to_owned(),
        usage: Some(Usage { cpu_nanos: known(service, "CPUUsageNSec"), mem_peak_bytes: known(service, "MemoryPeak") }),
        ..ObservedUnit::default()
    };
    patch_of(general).apply_to(&mut observed);
    patch_of(service).apply_to(&mut observed);
    observed
}

/// A counter systemd keeps, unless it does not.
fn known(properties: &Properties, name: &str) -> Option<u64> {
    value::u64(properties, name).filter(|number| *number != u64::MAX)
}

fn named(error: Error, call: &'static str) -> Error {
    match error {
        Error::NoAnswer { source, .. } => Error::NoAnswer { call, source },
        Error::Refused { name, message, .. } => Error::Refused { call, name, message },
        other => other,
    }
}

fn classify(call: &'static str, error: zbus::Error) -> Error {
    let refused = |name: &str, message: Option<&str>| Error::Refused {
        call,
        name: name.to_owned(),
        message: message.unwrap_or("no explanation").to_owned(),
    };
    match &error {
        zbus::Error::MethodError(name, message, _) => refused(name.as_str(), message.as_deref()),
        zbus::Error::FDO(fdo) => match fdo.name().as_str() {
            // The bus speaking for a systemd that is not there, or too busy.
            "org.freedesktop.DBus.Error.ServiceUnknown"
            | "org.freedesktop.DBus.Error.NameHasNoOwner"
            | "org.freedesktop.DBus.Error.NoReply"
            | "org.freedesktop.DBus.Error.Timeout"
            | "org.freedesktop.DBus.Error.TimedOut"
            | "org.freedesktop.DBus.Error.Disconnected"
            | "org.freedesktop.DBus.Error.NoServer"
            | "org.freedesktop.zbus.Error" => Error::NoAnswer { call, source: Some(error) },
            name => refused(name, fdo.description()),
        },
        _ => Error::NoAnswer { call, source: Some(error) },
    }
}
