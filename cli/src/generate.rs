//! Completions and man pages, out of the description of the command line itself. For packagings, and for people who have none.

use crate::client::own_code;
use crate::exit::{Exit, Failure};
use crate::{Cli, Session};
use clap::CommandFactory;
use clap_complete::Shell;
use std::path::PathBuf;

#[derive(Debug, clap::Args)]
#[command(after_help = "\
Examples:
  drover completion bash > /usr/share/bash-completion/completions/drover
  drover completion fish > ~/.config/fish/completions/drover.fish")]
pub(crate) struct CompletionArgs {
    /// For which shell
    #[arg(value_enum)]
    shell: Shell,
}

#[derive(Debug, clap::Args)]
#[command(after_help = "\
Examples:
  drover man-pages /usr/share/man/man1
  drover man-pages . && man ./drover-apps-deploy.1")]
pub(crate) struct ManPagesArgs {
    /// The directory to write to; it must be there
    directory: PathBuf,
}

/// `drover completion SHELL`.
pub(crate) fn completion(session: &Session, args: &CompletionArgs) -> Result<Exit, Failure> {
    let mut script = Vec::new();
    clap_complete::generate(args.shell, &mut Cli::command(), "drover", &mut script);
    session.screen.print(&String::from_utf8_lossy(&script))?;
    Ok(Exit::Ok)
}

/// `drover man-pages DIRECTORY`.
pub(crate) fn man_pages(session: &Session, args: &ManPagesArgs) -> Result<Exit, Failure> {
    clap_mangen::generate_to(Cli::command(), &args.directory).map_err(|error| {
        Failure::new(Exit::Failed, format!("the man pages cannot be written to {}", args.directory.display()))
            .caused_by(&error)
            .code(own_code::BAD_FILE)
    })?;
    session.screen.say(&format!("man pages are in {}", args.directory.display()));
    Ok(Exit::Ok)
}
