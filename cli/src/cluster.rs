//! `drover cluster init` and `drover node join`, the two commands that write files on this machine, the identity of a node; and
//! `drover cluster raise-version`.

use crate::client::understand;
use crate::exit::{Exit, Failure};
use crate::screen::Mark;
use crate::token::RoleChoice;
use crate::{Session, masters};
use drover_api::drover::{Masters, RaiseRequest};
use drover_pki::directory::{self, Error as DirectoryError};
use drover_pki::join::{self, JoinError, Wish};
use drover_pki::{Identity, JoinToken, Role};
use hyper::Method;
use serde_json::json;
use std::path::{Path, PathBuf};

/// Where droverd looks for its identity.
const DATA_DIR_DEFAULT: &str = "/var/lib/droverd";
/// Where masters and agents reach a master.
const CLUSTER_PORT: u16 = 7071;

#[derive(Debug, clap::Subcommand)]
pub(crate) enum ClusterCommand {
    /// Make a new cluster of which this machine is the first master
    #[command(after_help = "\
Writes the cluster's certificate authority and this machine's identity below the data directory; droverd does the rest.

Examples:
  drover cluster init
  drover cluster init --name n1 --advertise n1.example.org:7071 --agent")]
    Init {
        /// Where droverd keeps its data
        #[arg(long, value_name = "DIR", default_value = DATA_DIR_DEFAULT)]
        data_dir: PathBuf,
        /// This machine's name in the cluster [default: the host name]
        #[arg(long)]
        name: Option<String>,
        /// Where other machines reach this one [default: NAME:7071]
        #[arg(long, value_name = "HOST:PORT")]
        advertise: Option<String>,
        /// This machine runs tasks as well
        #[arg(long)]
        agent: bool,
    },
    /// Let the masters write what only their newer drover can read
    #[command(after_help = "\
To be done once every master runs the newer drover and going back is not wanted any more. Refused while a master does not know the
version or cannot be asked.

Examples:
  drover cluster raise-version
  drover cluster raise-version --to 2 --yes     without a question")]
    RaiseVersion {
        /// The version [default: the newest that a master knows]
        #[arg(long)]
        to: Option<u32>,
        /// Do not ask
        #[arg(short, long)]
        yes: bool,
    },
}

/// Arguments of `drover node join`.
#[derive(Debug, clap::Args)]
pub(crate) struct JoinArgs {
    /// The token, as `drover token create` printed it
    #[arg(
        long,
        env = "DROVER_TOKEN",
        hide_env_values = true,
        required_unless_present = "token_file",
        conflicts_with = "token_file"
    )]
    token: Option<String>,
    /// A file with the token; better, since every user of this machine can read command lines
    #[arg(long, value_name = "FILE")]
    token_file: Option<PathBuf>,
    /// Any master's cluster address
    #[arg(long, value_name = "HOST:PORT")]
    master: String,
    /// What this machine will be
    #[arg(long, value_enum, default_value = "agent")]
    role: RoleChoice,
    /// Where droverd keeps its data
    #[arg(long, value_name = "DIR", default_value = DATA_DIR_DEFAULT)]
    data_dir: PathBuf,
    /// This machine's name in the cluster [default: the host name]
    #[arg(long)]
    name: Option<String>,
    /// Where other machines reach this one; of a master [default: NAME:7071]
    #[arg(long, value_name = "HOST:PORT")]
    advertise: Option<String>,
}

/// `drover cluster …`.
pub(crate) async fn run(session: &Session, command: ClusterCommand) -> Result<Exit, Failure> {
    match command {
        ClusterCommand::Init { data_dir, name, advertise, agent } => init(session, &data_dir, name, advertise, agent),
        ClusterCommand::RaiseVersion { to, yes } => raise_version(session, to, yes).await,
    }
}

async fn raise_version(session: &Session, to: Option<u32>, yes: bool) -> Result<Exit, Failure> {
    let before: Masters = session.client.read("/drover/v1/masters").await?;
    let newest = before.masters.iter().filter_map(|master| master.knows).max();
    let to = to.or(newest).unwrap_or(before.version);
    if to > before.version {
        let what = format!(
            "This raises the cluster from version {} to {to} for good; a drover that does not know {to} cannot be a master then",
            before.version
        );
        session.confirm(&what, yes)?;
    }
    let path = "/drover/v1/version/raise";
    let request = json!(RaiseRequest { to: Some(to) });
    let answer = session.client.send(Method::POST, path, Some(&request)).await?;
    let after: Masters = understand(path, answer.body.clone())?;
    session.screen.say(&match after.version == before.version {
        true => format!("the cluster is at version {} already", after.version),
        false => format!("the cluster is at version {}", after.version),
    });
    masters::show(session, path, answer.body)
}

fn init(
    session: &Session,
    data_dir: &Path,
    name: Option<String>,
    advertise: Option<String>,
    agent: bool,
) -> Result<Exit, Failure> {
    let name = name.map_or_else(host_name, Ok)?;
    let advertise = advertise.map_or_else(|| Ok(format!("{name}:{CLUSTER_PORT}")), |text| with_port(&text))?;
    let identity = directory::init_cluster(data_dir, &name, &advertise, agent).map_err(|error| directory_failure(&error))?;
    let roles = if agent { "master and agent" } else { "master" };
    let dir = directory::pki_dir(data_dir, Role::Master);
    tell(session, &identity, &dir, &format!("is {roles} of the new cluster {}", identity.cluster))?;
    session.screen.hint("next: systemctl start droverd-master; then, for each further machine: drover token create");
    Ok(Exit::Ok)
}

/// `drover node join`.
pub(crate) async fn join(session: &Session, args: JoinArgs) -> Result<Exit, Failure> {
    let text = match (&args.token, &args.token_file) {
        (Some(token), _) => token.clone(),
        (None, Some(file)) => std::fs::read_to_string(file).map_err(|error| {
            Failure::new(Exit::Usage, format!("the token cannot be read from {}", file.display())).caused_by(&error)
        })?,
        (None, None) => unreachable!("clap asks for one of the two"),
    };
    let token: JoinToken =
        text.parse().map_err(|error: drover_pki::token::MalformedToken| Failure::new(Exit::Usage, error.to_string()))?;
    let name = args.name.clone().map_or_else(host_name, Ok)?;
    let role = match args.role {
        RoleChoice::Agent => Role::Agent,
        RoleChoice::Master => Role::Master,
    };
    let advertise = match (role, &args.advertise) {
        (Role::Master, None) => Some(format!("{name}:{CLUSTER_PORT}")),
        (_, Some(text)) => Some(with_port(text)?),
        (Role::Agent, None) => None,
    };
    let master = with_port(&args.master)?;
    let wish = Wish { data_dir: &args.data_dir, role, name: &name, advertise: advertise.as_deref() };
    let identity = join::join(&token, &master, wish).await.map_err(|error| join_failure(&error))?;
    let dir = directory::pki_dir(&args.data_dir, role);
    tell(session, &identity, &dir, &format!("is {role} of cluster {}", identity.cluster))?;
    session.screen.hint(&format!("next: systemctl start droverd-{role}"));
    Ok(Exit::Ok)
}

fn tell(session: &Session, identity: &Identity, dir: &Path, what: &str) -> Result<(), Failure> {
    let value = json!({
        "apiVersion": "drover/v1",
        "cluster": identity.cluster.to_string(),
        "name": identity.name,
        "id": identity.id,
        "role": identity.role.to_string(),
        "advertise": identity.advertise,
        "directory": dir.display().to_string(),
    });
    session.screen.object(&value, &identity.name, || {
        let mut text = format!("{} {} {what}\n", session.screen.out.mark(Mark::Good), identity.name);
        if let Some(advertise) = &identity.advertise {
            text.push_str(&format!("  reached at {advertise}\n"));
        }
        text.push_str(&format!("  identity in {}\n", dir.display()));
        text
    })
}

/// The host name, without its domain as `hostname` prints it.
fn host_name() -> Result<String, Failure> {
    let unknown =
        || Failure::new(Exit::Usage, "this machine has no usable host name").try_this("the same again with --name NAME");
    let text = std::fs::read_to_string("/proc/sys/kernel/hostname").map_err(|error| unknown().caused_by(&error))?;
    let name = text.trim();
    if name.is_empty() || name == "(none)" || name == "localhost" { Err(unknown()) } else { Ok(name.to_owned()) }
}

/// `n1` becomes `n1:7071`; `n1:80` stays.
fn with_port(text: &str) -> Result<String, Failure> {
    let bad = || Failure::new(Exit::Usage, format!("{text:?} is no address: write HOST:PORT"));
    let text = text.trim();
    if text.is_empty() || text.contains("://") || text.contains('/') || text.contains(char::is_whitespace) {
        return Err(bad());
    }
    let is_bare_v6 = text.matches(':').count() > 1 && !text.starts_with('[');
    if is_bare_v6 {
        return Ok(format!("[{text}]:{CLUSTER_PORT}"));
    }
    match text.rsplit_once(':') {
        Some((_, port)) if !port.ends_with(']') => port.parse::<u16>().map(|_| text.to_owned()).map_err(|_| bad()),
        _ => Ok(format!("{text}:{CLUSTER_PORT}")),
    }
}

fn directory_failure(error: &DirectoryError) -> Failure {
    let exit = match error {
        DirectoryError::Io { source, .. } if source.kind() == std::io::ErrorKind::PermissionDenied => Exit::NotPermitted,
        DirectoryError::Name(_) | DirectoryError::Authority(_) => Exit::Usage,
        _ => Exit::Failed,
    };
    let failure = Failure::new(exit, "this machine got no identity").caused_by(error);
    if exit == Exit::NotPermitted { failure.try_this("the same again as root (sudo)") } else { failure }
}

fn join_failure(error: &JoinError) -> Failure {
    match error {
        JoinError::Directory(error) => directory_failure(error),
        JoinError::Name(error) => Failure::new(Exit::Usage, error.to_string()),
        JoinError::Client(error) => Failure::new(Exit::Unavailable, "the master could not be asked")
            .caused_by(error)
            .try_this("drover masters list   # on a master: the address to join by"),
        JoinError::Refused(why) => Failure::new(Exit::NotPermitted, "the cluster did not let this machine in")
            .because(why)
            .try_this("drover token create   # on a master"),
        other => Failure::new(Exit::Failed, "this machine could not join").caused_by(other),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn addresses_get_the_cluster_port() {
        for (text, expect) in [
            ("n1", Some("n1:7071")),
            ("n1:80", Some("n1:80")),
            ("10.0.0.1", Some("10.0.0.1:7071")),
            ("[::1]", Some("[::1]:7071")),
            ("[::1]:80", Some("[::1]:80")),
            ("fd00::1", Some("[fd00::1]:7071")),
            ("http://n1", None),
            ("n1:x", None),
            ("", None),
        ] {
            assert_eq!(with_port(text).ok().as_deref(), expect, "{text:?}");
        }
    }
}
