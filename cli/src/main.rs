//! `drover`, the client. It speaks the public HTTP API of any master and nothing else, but for `cluster init` and `node join`, which
//! write an identity's files on this machine.
//!
//! One file per noun holds its arguments, its requests and its tables. Below them: [`wait`] (until a change has come about), [`names`]
//! (what people type), [`client`] and [`stream`] (HTTP), [`screen`] and [`text`] (what people see), [`exit`] (how it ends).

mod exit;

mod text;

mod screen;

mod stream;

mod client;

mod names;

mod why;

mod wait;

mod documents;

mod status;

mod apps;

mod jobs;

mod tasks;

mod nodes;

mod masters;

mod logs;

mod events;

mod apply;

mod token;

mod cluster;

mod generate;

use clap::{Args, Parser, Subcommand};
use client::Client;
use exit::{Exit, Failure};
use screen::{ColorChoice, Format, Screen, Tint};
use std::process::ExitCode;

/// Runs apps and jobs on a cluster of systemd machines.
///
/// Without a command: the state of the cluster on one screen.
#[derive(Debug, Parser)]
#[command(
    name = "drover",
    version,
    disable_help_subcommand = false,
    infer_subcommands = false,
    after_help = "\
Examples:
  drover apps deploy -f web.toml     create or change an app, and wait until it is up
  drover why /web                    why is it not running?

Exit codes: drover exit-codes"
)]
struct Cli {
    #[command(flatten)]
    options: Options,
    #[command(subcommand)]
    command: Option<Command>,
}

/// Options of every command.
#[derive(Debug, Args)]
struct Options {
    /// Masters' API addresses, tried in turn
    #[arg(long, global = true, env = "DROVER_ADDR", value_name = "URL[,URL…]", default_value = client::ADDRESS_DEFAULT, help_heading = "Everywhere")]
    addr: String,
    /// Output format
    #[arg(short, long, global = true, env = "DROVER_OUTPUT", value_enum, default_value = "table", help_heading = "Everywhere")]
    output: Format,
    /// Colours
    #[arg(long, global = true, value_enum, value_name = "WHEN", default_value = "auto", help_heading = "Everywhere")]
    color: ColorChoice,
    /// Read what the master that is asked knows, though it may be out of date; works without a leader
    #[arg(long, global = true, help_heading = "Everywhere")]
    stale: bool,
    /// Tables without headings
    #[arg(long, global = true, help_heading = "Everywhere")]
    no_legend: bool,
}

#[derive(Debug, Subcommand)]
enum Command {
    /// The cluster on one screen; or one thing with its last log lines
    Status(status::StatusArgs),
    /// Apps: kept running, N instances
    #[command(subcommand, visible_alias = "app")]
    Apps(apps::AppsCommand),
    /// Jobs: run on a schedule or after other jobs
    #[command(subcommand, visible_alias = "job")]
    Jobs(jobs::JobsCommand),
    /// Tasks: the units that run now
    #[command(subcommand, visible_alias = "task")]
    Tasks(tasks::TasksCommand),
    /// Journal of apps, jobs, runs, tasks and nodes, from all machines in one stream
    #[command(visible_alias = "log")]
    Logs(logs::LogsArgs),
    /// Why it is not running, or where it has no place
    Why(why::WhyArgs),
    /// Make the cluster what files say, and wait until it is
    Apply(apply::ApplyArgs),
    /// What happens in the cluster
    #[command(visible_alias = "event")]
    Events(events::EventsArgs),
    /// Machines that run tasks
    #[command(subcommand, visible_alias = "node")]
    Nodes(nodes::NodesCommand),
    /// Machines that decide
    #[command(subcommand, visible_alias = "master")]
    Masters(masters::MastersCommand),
    /// Join tokens for new machines
    #[command(subcommand, visible_alias = "tokens")]
    Token(token::TokenCommand),
    /// Make a new cluster, or raise the version of one
    #[command(subcommand)]
    Cluster(cluster::ClusterCommand),
    /// What the exit codes mean
    #[command(after_help = exit::TABLE)]
    ExitCodes,
    /// Completions for a shell
    Completion(generate::CompletionArgs),
    /// Man pages, one for each command
    #[command(hide = true)]
    ManPages(generate::ManPagesArgs),
}

/// What every command works with.
#[derive(Debug)]
struct Session {
    client: Client,
    screen: Screen,
}

impl Session {
    /// Asks before something is destroyed. Without a terminal only `--yes` will do.
    fn confirm(&self, what: &str, yes: bool) -> Result<(), Failure> {
        use std::io::Write;
        if yes {
            return Ok(());
        }
        if !self.screen.interactive {
            return Err(Failure::new(Exit::Usage, format!("{what} needs to be confirmed"))
                .because("there is no terminal to ask on")
                .try_this("the same again with --yes")
                .code(client::own_code::UNCONFIRMED));
        }
        let mut answer = String::new();
        let asked = write!(std::io::stderr(), "{what}. Go on? [y/N] ")
            .and_then(|()| std::io::stderr().flush())
            .and_then(|()| std::io::stdin().read_line(&mut answer));
        match asked {
            Ok(_) if matches!(answer.trim().to_lowercase().as_str(), "y" | "yes") => Ok(()),
            Ok(_) => Err(Failure::new(Exit::Failed, "not confirmed; nothing was changed")),
            Err(error) => Err(Failure::new(Exit::Failed, "the answer could not be read").caused_by(&error)),
        }
    }
}

fn main() -> ExitCode {
    let cli = Cli::parse();
    let screen = Screen::new(cli.options.output, cli.options.color, !cli.options.no_legend);
    let err = screen.err;
    let runtime =
        tokio::runtime::Builder::new_current_thread().enable_all().build().expect("the kernel gives an epoll and a timer");
    match runtime.block_on(run(cli, screen)) {
        Ok(exit) => exit.into(),
        Err(failure) => {
            let text = failure.render(|word| err.paint(Tint::Red, word));
            if !text.is_empty() {
                eprint!("{text}");
            }
            failure.exit.into()
        }
    }
}

async fn run(cli: Cli, screen: Screen) -> Result<Exit, Failure> {
    let session = Session { client: Client::new(&cli.options.addr, cli.options.stale)?, screen };
    let session = &session;
    match cli.command {
        None => status::overview(session).await,
        Some(Command::Status(args)) => status::run(session, args).await,
        Some(Command::Apps(command)) => apps::run(session, command).await,
        Some(Command::Jobs(command)) => jobs::run(session, command).await,
        Some(Command::Tasks(command)) => tasks::run(session, command).await,
        Some(Command::Logs(args)) => logs::run(session, args).await,
        Some(Command::Why(args)) => why::run(session, args).await,
        Some(Command::Apply(args)) => apply::run(session, args).await,
        Some(Command::Events(args)) => events::run(session, args).await,
        Some(Command::Nodes(command)) => nodes::run(session, command).await,
        Some(Command::Masters(command)) => masters::run(session, command).await,
        Some(Command::Token(command)) => token::run(session, command).await,
        Some(Command::Cluster(command)) => cluster::run(session, command).await,
        Some(Command::Completion(args)) => generate::completion(session, &args),
        Some(Command::ManPages(args)) => generate::man_pages(session, &args),
        Some(Command::ExitCodes) => {
            session.screen.print(&format!("{}\n", exit::TABLE))?;
            Ok(Exit::Ok)
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use clap::CommandFactory;

    #[test]
    fn the_command_line_is_sound() {
        Cli::command().debug_assert();
    }

    #[test]
    fn singular_and_plural_are_the_same() {
        for (words, expect) in [
            ("drover apps list", "Apps"),
            ("drover app ls", "Apps"),
            ("drover node list", "Nodes"),
            ("drover node join --token x --master n1:7071", "Nodes"),
            ("drover job run etl --wait -- --day 21", "Jobs"),
            ("drover log -f /web -n 5", "Logs"),
            ("drover task kill x --scale", "Tasks"),
            ("drover tokens create --role master", "Token"),
        ] {
            let cli = Cli::try_parse_from(words.split(' ')).unwrap_or_else(|error| panic!("{words}: {error}"));
            let shown = format!("{:?}", cli.command.expect("a command"));
            assert!(shown.starts_with(expect), "{words}: {shown}");
        }
    }

    #[test]
    fn options_stand_before_and_behind() {
        for words in ["drover -o json --addr n1 apps list", "drover apps list --addr n1 -o json"] {
            let cli = Cli::try_parse_from(words.split(' ')).unwrap();
            assert_eq!((cli.options.output, cli.options.addr.as_str()), (Format::Json, "n1"), "{words}");
        }
        assert!(Cli::try_parse_from(["drover", "apps", "scale"]).is_err());
        assert!(Cli::try_parse_from(["drover", "-o", "xml"]).is_err());
    }

    #[test]
    fn every_command_shows_two_examples() {
        fn check(command: &clap::Command, path: &str) {
            let help = command.get_after_help().map(ToString::to_string).unwrap_or_default();
            if command.get_subcommands().next().is_none() && command.get_name() != "exit-codes" {
                let examples = help.lines().filter(|line| line.starts_with("  drover ")).count();
                assert!(examples >= 2, "{path}: {examples} examples");
            }
            for sub in command.get_subcommands() {
                check(sub, &format!("{path} {}", sub.get_name()));
            }
        }
        check(&Cli::command(), "drover");
    }
}
