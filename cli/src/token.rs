//! `drover token`: what a new machine needs to get in.

use crate::client::understand;
use crate::exit::{Exit, Failure};
use crate::{Session, text};
use clap::ValueEnum;
use drover_api::drover::{NodeRole, Token, TokenRequest};
use hyper::Method;
use std::time::Duration;

#[derive(Debug, clap::Subcommand)]
pub(crate) enum TokenCommand {
    /// Make a join token and print it on one line
    #[command(after_help = "\
The token alone goes to standard output. Whoever has it can let a machine in: hand it over as you would a password.

Examples:
  drover token create
  drover token create --role master --ttl 10min > token")]
    Create {
        /// What the joining machine will be
        #[arg(long, value_enum, default_value = "agent")]
        role: RoleChoice,
        /// How long it is good for
        #[arg(long, value_name = "SPAN", default_value = "1h", value_parser = text::parse_span)]
        ttl: Duration,
        /// How many machines may use it
        #[arg(long, value_name = "N", default_value = "1", value_parser = clap::value_parser!(u32).range(1..))]
        uses: u32,
    },
}

/// What a machine can be.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub(crate) enum RoleChoice {
    /// Runs tasks
    Agent,
    /// Takes part in decisions
    Master,
}

/// `drover token create`.
pub(crate) async fn run(session: &Session, command: TokenCommand) -> Result<Exit, Failure> {
    let TokenCommand::Create { role, ttl, uses } = command;
    let (role, role_word) = match role {
        RoleChoice::Agent => (NodeRole::Agent, "agent"),
        RoleChoice::Master => (NodeRole::Master, "master"),
    };
    if ttl.as_secs() == 0 {
        return Err(
            Failure::new(Exit::Usage, "a token must be good for a second at least").try_this("drover token create --ttl 1h")
        );
    }
    let request = TokenRequest { role, ttl_seconds: ttl.as_secs(), uses };
    let body = serde_json::to_value(&request).expect("a request is plain data");
    let path = "/drover/v1/tokens";
    let answer = session.client.send(Method::POST, path, Some(&body)).await?;
    let token: Token = understand(path, answer.body.clone())?;
    let screen = &session.screen;
    screen.object(&answer.body, &token.token, || format!("{}\n", token.token))?;
    let until = text::instant(token.expires_at, &screen.zone);
    screen.say(&format!("good for {} of role {role_word} until {until}", text::count(uses.into(), "machine")));
    screen
        .hint(&format!("next, on the new machine: drover node join --role {role_word} --master MASTER:7071 --token-file FILE"));
    Ok(Exit::Ok)
}
