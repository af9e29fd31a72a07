//! `drover masters`: the machines that decide.

use crate::client::{encode, understand};
use crate::exit::{Exit, Failure};
use crate::screen::{Listing, Mark, Table};
use crate::{Session, text};
use drover_api::drover::{Master, MasterRole, Masters, code};
use hyper::Method;
use serde_json::Value;

/// Not heard of for so long, a master is shown as silent.
const SILENT_MS: u64 = 5_000;

#[derive(Debug, clap::Subcommand)]
pub(crate) enum MastersCommand {
    /// All masters and what they do in consensus
    #[command(
        visible_alias = "ls",
        after_help = "\
Examples:
  drover masters list
  drover masters list -o json"
    )]
    List,
    /// Take a master out of the cluster for good
    #[command(
        visible_alias = "rm",
        after_help = "\
Examples:
  drover masters remove n3
  drover masters remove n3 --yes     without a question"
    )]
    Remove {
        /// Its name; here in full
        name: String,
        /// Do not ask
        #[arg(short, long)]
        yes: bool,
    },
}

/// `drover masters …`.
pub(crate) async fn run(session: &Session, command: MastersCommand) -> Result<Exit, Failure> {
    let path = "/drover/v1/masters";
    let answer = session.client.get(path).await?;
    match command {
        MastersCommand::List => show(session, path, answer),
        MastersCommand::Remove { name, yes } => {
            let masters: Masters = understand(path, answer)?;
            let Some(master) = masters.masters.iter().find(|master| master.name == name) else {
                let known: Vec<&str> = masters.masters.iter().map(|master| master.name.as_str()).collect();
                return Err(Failure::new(Exit::NotFound, format!("there is no master {name:?}"))
                    .because(format!("there are {}", known.join(", ")))
                    .try_this("drover masters list")
                    .code(code::NOT_FOUND));
            };
            let voters = masters.masters.iter().filter(|master| master.role != MasterRole::Learner).count();
            let left = if master.role == MasterRole::Learner { voters } else { voters - 1 };
            session.confirm(&format!("This takes master {name} out for good; {}", tolerance(left)), yes)?;
            let path = format!("/drover/v1/masters/{}/remove", encode(&name));
            let answer = session.client.send(Method::POST, &path, None).await?;
            session.screen.say(&format!("{name} is out"));
            show(session, &path, answer.body)
        }
    }
}

pub(crate) fn show(session: &Session, path: &str, answer: Value) -> Result<Exit, Failure> {
    let items = answer["masters"].as_array().cloned().unwrap_or_default();
    let masters: Masters = understand(path, answer)?;
    let screen = &session.screen;
    let listing = Listing {
        kind: "masters",
        names: masters.masters.iter().map(|master| master.name.clone()).collect(),
        table: table(&masters.masters),
        items: &items,
        empty: "No masters.",
    };
    screen.list(&listing)?;
    if !screen.is_for_programs() && screen.legend {
        let voters = masters.masters.iter().filter(|master| master.role != MasterRole::Learner).count();
        let version = match masters.version {
            0 => String::new(),
            version => format!("version {version}; "),
        };
        screen.say(&format!("term {}; {version}{}", masters.term, tolerance(voters)));
    }
    Ok(Exit::Ok)
}

/// What so many voting masters can bear.
fn tolerance(voters: usize) -> String {
    match voters.saturating_sub(1) / 2 {
        0 => format!("{} cannot lose any", text::count(voters as u64, "voting master")),
        n => format!("{} can lose {n}", text::count(voters as u64, "voting master")),
    }
}

/// The table of `masters list`.
fn table(masters: &[Master]) -> Table {
    let mut table = Table::new(&["MASTER", "ROLE", "ADDRESS", "LAG", "SEEN", "DROVER", "KNOWS", "ID"]);
    for master in masters {
        let is_silent = master.seen_ago_ms.is_some_and(|ms| ms > SILENT_MS);
        let (mark, role) = match master.role {
            MasterRole::Leader => (Mark::Good, "leader"),
            MasterRole::Follower if is_silent => (Mark::Bad, "silent"),
            MasterRole::Follower => (Mark::Good, "follower"),
            MasterRole::Learner => (Mark::Busy, "learner"),
        };
        table.row(
            Some(mark),
            vec![
                master.name.clone(),
                role.to_owned(),
                master.address.clone(),
                master.lag.map(|lag| lag.to_string()).unwrap_or_default(),
                master
                    .seen_ago_ms
                    .map(|ms| format!("{} ago", text::span_short(i64::try_from(ms).unwrap_or(i64::MAX))))
                    .unwrap_or_default(),
                master.release.clone().unwrap_or_default(),
                master.knows.map(|version| version.to_string()).unwrap_or_default(),
                master.id.to_string(),
            ],
        );
    }
    table
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::screen::tests::PLAIN;
    use serde_json::json;

    #[test]
    fn the_list_says_who_leads_and_who_lags() {
        let masters: Vec<Master> = serde_json::from_value(json!([
            {"id": 1, "name": "m1", "address": "m1:7071", "role": "follower", "lag": 0, "seenAgoMs": 120},
            {"id": 2, "name": "m2", "address": "m2:7071", "role": "leader", "knows": 2, "release": "0.2.0"},
            {"id": 3, "name": "m3", "address": "m3:7071", "role": "follower", "lag": 88, "seenAgoMs": 61000},
        ]))
        .unwrap();
        assert_eq!(
            table(&masters).render(PLAIN, true),
            "  MASTER  ROLE      ADDRESS  LAG  SEEN       DROVER  KNOWS  ID
● m1      follower  m1:7071  0    120ms ago  –       –      1
● m2      leader    m2:7071  –    –          0.2.0   2      2
× m3      silent    m3:7071  88   1min ago   –       –      3
"
        );
        assert_eq!(tolerance(1), "1 voting master cannot lose any");
        assert_eq!(tolerance(3), "3 voting masters can lose 1");
        assert_eq!(tolerance(2), "2 voting masters cannot lose any");
    }
}
