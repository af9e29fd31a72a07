//! How a command ends: its exit code and, when it did not work, what is told on standard error.
//!
//! ```text
//! error: app '/web' is not there
//! because: the cluster has no app whose name begins with it
//! try: drover apps list
//! code: D1004
//! ```

use drover_api::drover::Problem;
use std::fmt;
use std::process::ExitCode;

/// Exit codes, the same for every command.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Exit {
    /// Done.
    Ok,
    /// It did not work.
    Failed,
    /// The command line, or a file it names, is wrong.
    Usage,
    /// What was asked about is not active.
    NotActive,
    /// There is no such thing, or the name is ambiguous.
    NotFound,
    /// No node can take it.
    CannotPlace,
    /// A deployment failed or was cancelled.
    DeploymentFailed,
    /// No leader, or no master at all.
    Unavailable,
    /// Not allowed.
    NotPermitted,
    /// Waited for too long.
    TimedOut,
    /// ^C while waiting; what was begun goes on.
    Detached,
    /// The code of the process that was waited for.
    Process(u8),
}

/// The codes with their meaning, for `drover help exit-codes`.
pub(crate) const TABLE: &str = "  0  done; `status NAME`: it is active
  1  it did not work
  2  the command line, or a file it names, is wrong; or it must be confirmed with --yes
  3  `status NAME`: it is not active
  4  there is no such app, job, task or node, or the name is ambiguous
  5  no node can take it
  6  the deployment failed or was cancelled
 69  no leader, or no master can be reached
 77  not allowed
124  not done in time; what was begun goes on
130  ended by ^C; what was begun goes on

`jobs run --wait` and `logs -f` of a task or a run exit with the code of its process (128 + N for signal N).";

impl Exit {
    /// The number.
    pub(crate) fn code(self) -> u8 {
        match self {
            Self::Ok => 0,
            Self::Failed => 1,
            Self::Usage => 2,
            Self::NotActive => 3,
            Self::NotFound => 4,
            Self::CannotPlace => 5,
            Self::DeploymentFailed => 6,
            Self::Unavailable => 69,
            Self::NotPermitted => 77,
            Self::TimedOut => 124,
            Self::Detached => 130,
            Self::Process(code) => code,
        }
    }
}

impl From<Exit> for ExitCode {
    fn from(exit: Exit) -> Self {
        ExitCode::from(exit.code())
    }
}

/// Why a command did not work.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Failure {
    /// Exit code.
    pub(crate) exit: Exit,
    /// What did not work. Empty when there is nobody left to tell.
    pub(crate) error: String,
    /// The evidence, a line each.
    pub(crate) because: Vec<String>,
    /// One command that helps.
    pub(crate) remedy: Option<String>,
    /// Names this kind of failure for good.
    pub(crate) code: Option<String>,
}

impl Failure {
    /// A failure with this text.
    pub(crate) fn new(exit: Exit, error: impl Into<String>) -> Self {
        Self { exit, error: error.into(), because: Vec::new(), remedy: None, code: None }
    }

    /// Whoever read standard output has gone: end without a word.
    pub(crate) fn nobody_reads() -> Self {
        Self::new(Exit::Failed, "")
    }

    /// The same with one more line of evidence.
    #[must_use]
    pub(crate) fn because(mut self, line: impl fmt::Display) -> Self {
        self.because.push(line.to_string());
        self
    }

    /// The same with the error and all its causes as evidence.
    #[must_use]
    pub(crate) fn caused_by(self, error: &dyn std::error::Error) -> Self {
        let mut text = error.to_string();
        let mut source = error.source();
        while let Some(cause) = source {
            let cause_text = cause.to_string();
            // Some libraries repeat the cause in their own text.
            if !text.contains(&cause_text) {
                text.push_str(": ");
                text.push_str(&cause_text);
            }
            source = cause.source();
        }
        self.because(text)
    }

    /// The same with a command that helps.
    #[must_use]
    pub(crate) fn try_this(mut self, remedy: impl Into<String>) -> Self {
        self.remedy = Some(remedy.into());
        self
    }

    /// The same with a code.
    #[must_use]
    pub(crate) fn code(mut self, code: &str) -> Self {
        self.code = Some(code.to_owned());
        self
    }

    /// Whether asking again a moment later may work.
    pub(crate) fn is_transient(&self) -> bool {
        self.exit == Exit::Unavailable
    }

    /// The lines for standard error.
    pub(crate) fn render(&self, red: impl Fn(&str) -> String) -> String {
        if self.error.is_empty() {
            return String::new();
        }
        let mut text = format!("{} {}\n", red("error:"), self.error);
        for line in &self.because {
            text.push_str(&format!("because: {line}\n"));
        }
        if let Some(remedy) = &self.remedy {
            text.push_str(&format!("try: {remedy}\n"));
        }
        if let Some(code) = &self.code {
            text.push_str(&format!("code: {code}\n"));
        }
        text
    }
}

impl From<(Exit, Problem)> for Failure {
    fn from((exit, problem): (Exit, Problem)) -> Self {
        let mut failure = Self::new(exit, problem.error);
        failure.because.extend(problem.because);
        failure.because.extend(problem.faults.iter().map(|fault| format!("{}: {}", fault.path, fault.message)));
        failure.remedy = problem.remedy;
        failure.code = Some(problem.code).filter(|code| !code.is_empty());
        failure
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_failure_names_error_cause_remedy_and_code() {
        let failure =
            Failure::new(Exit::NotFound, "no app '/x'").because("there are 3").try_this("drover apps list").code("D1004");
        assert_eq!(
            failure.render(str::to_owned),
            "error: no app '/x'\nbecause: there are 3\ntry: drover apps list\ncode: D1004\n"
        );
        assert_eq!(Failure::nobody_reads().render(str::to_owned), "");
    }

    #[test]
    fn every_code_is_in_the_table() {
        for exit in [
            Exit::Ok,
            Exit::Failed,
            Exit::Usage,
            Exit::NotActive,
            Exit::NotFound,
            Exit::CannotPlace,
            Exit::DeploymentFailed,
            Exit::Unavailable,
            Exit::NotPermitted,
            Exit::TimedOut,
            Exit::Detached,
        ] {
            assert!(TABLE.lines().any(|line| line.starts_with(&format!("{:>3}  ", exit.code()))), "{exit:?}");
        }
    }
}
