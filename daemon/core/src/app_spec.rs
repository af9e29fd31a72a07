//! What to run for one instance of an app: its environment, as Marathon promises it to tasks, and the rest of the task's
//! description. Called when an instance is placed; the result never changes afterwards.

use crate::app::{App, KILL_GRACE_DEFAULT};
use crate::ids::TaskId;
use crate::task::{Owner, TaskSpec};
use std::collections::BTreeMap;

/// Labels with longer keys or values are left out of the environment, as Marathon does.
const LABEL_BYTES_MAX: usize = 512;

/// Describes the instance `task` of `app`, which got `ports` on `host`. `ports` are in the order of the app's own.
pub fn task_spec(app: &App, task: &TaskId, ports: &[u16], host: &str) -> TaskSpec {
    let mut env = BTreeMap::new();
    port_variables(app, ports, &mut env);
    app_variables(app, &mut env);
    env.insert("HOST".to_owned(), host.to_owned());
    env.insert("MESOS_TASK_ID".to_owned(), task.to_string());
    env.extend(app.env.clone());
    TaskSpec {
        owner: Owner::App { app: app.id.clone(), version: app.version },
        program: app.program.clone(),
        user: app.user.clone(),
        env,
        resources: app.resources,
        kill_grace: app.kill_grace.unwrap_or(KILL_GRACE_DEFAULT),
        run_time_max: None,
        properties: app.properties.clone(),
    }
}

fn port_variables(app: &App, ports: &[u16], env: &mut BTreeMap<String, String>) {
    let Some(first) = ports.first() else { return };
    let all: Vec<String> = ports.iter().map(u16::to_string).collect();
    env.insert("PORT".to_owned(), first.to_string());
    env.insert("PORTS".to_owned(), all.join(","));
    for (index, port) in ports.iter().enumerate() {
        env.insert(format!("PORT{index}"), port.to_string());
        env.insert(format!("PORT_{port}"), port.to_string());
        if let Some(name) = app.ports.get(index).and_then(|definition| definition.name.as_deref()) {
            // A hyphen of the name stays a hyphen, as in Marathon. No shell can read that, and some take it out of the
            // environment, so there is a second one with `_`.
            env.insert(format!("PORT_{}", name.to_ascii_uppercase()), port.to_string());
            env.insert(format!("PORT_{}", variable_part(name)), port.to_string());
        }
    }
}

fn app_variables(app: &App, env: &mut BTreeMap<String, String>) {
    let mut set = |name: &str, value: String| env.insert(name.to_owned(), value);
    set("MARATHON_APP_ID", app.id.to_string());
    set("MARATHON_APP_VERSION", app.version.to_string());
    set("MARATHON_APP_ENFORCE_GROUP_ROLE", "FALSE".to_owned());
    let resources = app.resources;
    set("MARATHON_APP_RESOURCE_CPUS", format!("{:?}", resources.cpus_milli as f64 / 1000.0));
    set("MARATHON_APP_RESOURCE_MEM", mebibytes(resources.mem_bytes));
    set("MARATHON_APP_RESOURCE_DISK", mebibytes(resources.disk_bytes));
    set("MARATHON_APP_RESOURCE_GPUS", resources.gpus.to_string());
    let mut keys = Vec::new();
    for (key, value) in &app.labels {
        if key.len() >= LABEL_BYTES_MAX || value.len() >= LABEL_BYTES_MAX || value.contains('\0') {
            continue;
        }
        let key = variable_part(key);
        env.insert(format!("MARATHON_APP_LABEL_{key}"), value.clone());
        if !keys.contains(&key) {
            keys.push(key);
        }
    }
    env.insert("MARATHON_APP_LABELS".to_owned(), keys.join(" "));
}

/// `32.0`, `0.5`: the amount in MiB with at least one fraction digit, which is how Marathon's JVM prints it.
fn mebibytes(bytes: u64) -> String {
    format!("{:?}", bytes as f64 / f64::from(1 << 20))
}

/// Upper case, every run of other characters than letters, digits and `_` one `_`.
fn variable_part(text: &str) -> String {
    let mut part = String::with_capacity(text.len());
    let mut in_run = false;
    for c in text.chars() {
        if c.is_ascii_alphanumeric() || c == '_' {
            part.push(c.to_ascii_uppercase());
            in_run = false;
        } else if !in_run {
            part.push('_');
            in_run = true;
        }
    }
    part
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::app::PortDefinition;
    use crate::ids::AppId;
    use crate::task::Program;
    use crate::time::Timestamp;

    fn app(id: &str) -> App {
        let mut app = App::new(AppId::parse(id).unwrap(), Program::Shell("sleep 600".into()));
        app.resources.cpus_milli = 100;
        app.resources.mem_bytes = 32 << 20;
        app
    }

    fn port(port: u16, name: Option<&str>) -> PortDefinition {
        PortDefinition { port, protocol: "tcp".into(), name: name.map(str::to_owned), labels: BTreeMap::new() }
    }

    #[test]
    fn an_instance_is_told_what_marathon_tells_it() {
        let mut web = app("/prod/web");
        web.version = Timestamp(1_704_103_200_000);
        web.ports = vec![port(10000, Some("http-api")), port(10001, None)];
        web.labels =
            [("HAPROXY_0_VHOST".into(), "a.b".into()), ("a..é b".into(), "x".into()), ("big".into(), "y".repeat(512))].into();
        web.env = [("HOST".into(), "mine".into()), ("GREETING".into(), "hello".into())].into();
        let spec = task_spec(&web, &TaskId::new("prod_web.1"), &[31005, 31002], "n1");
        let env: Vec<String> = spec.env.iter().map(|(name, value)| format!("{name}={value}")).collect();
        assert_eq!(
            env,
            [
                "GREETING=hello",
                "HOST=mine",
                "MARATHON_APP_ENFORCE_GROUP_ROLE=FALSE",
                "MARATHON_APP_ID=/prod/web",
                "MARATHON_APP_LABELS=HAPROXY_0_VHOST A_B",
                "MARATHON_APP_LABEL_A_B=x",
                "MARATHON_APP_LABEL_HAPROXY_0_VHOST=a.b",
                "MARATHON_APP_RESOURCE_CPUS=0.1",
                "MARATHON_APP_RESOURCE_DISK=0.0",
                "MARATHON_APP_RESOURCE_GPUS=0",
                "MARATHON_APP_RESOURCE_MEM=32.0",
                "MARATHON_APP_VERSION=2024-01-01T10:00:00.000Z",
                "MESOS_TASK_ID=prod_web.1",
                "PORT=31005",
                "PORT0=31005",
                "PORT1=31002",
                "PORTS=31005,31002",
                "PORT_31002=31002",
                "PORT_31005=31005",
                "PORT_HTTP-API=31005",
                "PORT_HTTP_API=31005",
            ]
        );
        assert_eq!(crate::sandbox::check_env(&spec.env), []);
        assert_eq!(spec.kill_grace, KILL_GRACE_DEFAULT);
    }

    #[test]
    fn no_ports_no_port_variables() {
        let spec = task_spec(&app("/a"), &TaskId::new("a.1"), &[], "n1");
        assert!(!spec.env.keys().any(|name| name.starts_with("PORT")), "{:?}", spec.env);
    }
}
