//! Why a command did not do what it was asked, what to do about it, and with which exit code it ends.

use std::error::Error;
use std::fmt::Write;
use std::path::PathBuf;
use std::process::ExitCode;

use catena_api::ListenError;
use catena_api::types::{Diagnostic, ErrorReport};
use catena_control::{StartError, UnknownTenant};
use catena_lab::LabError;
use catena_model::name::NameError;
use catena_render::RenderError;
use catena_replay::ReplayError;
use catena_store::StoreError;

use crate::commands::verify::{all_feared, all_violated};
use crate::output::{BAD, FAINT, STRONG, WARN, styled};

type Cause = Box<dyn Error + Send + Sync>;

#[derive(Debug, thiserror::Error)]
pub enum CliError {
    #[error("no controller answers at {}", .0.display())]
    NoDaemon(PathBuf),
    #[error("this user may not talk to the controller at {}", .0.display())]
    NotAllowed(PathBuf),
    #[error("the connection to the controller broke")]
    Connection(#[source] Cause),
    /// The controller, daemon or not, said no.
    #[error("{}", .0.error)]
    Refused(ErrorReport),
    #[error("not everything that was asked for is installed")]
    NotInstalled,
    #[error(transparent)]
    UnknownTenant(#[from] UnknownTenant),
    /// `--tenant` with something that it cannot choose from.
    #[error("{} cannot be listed by tenant", .0.as_deref().unwrap_or("resources"))]
    NoTenantOf(Option<String>),
    #[error("the terminal cannot be used")]
    Terminal(#[source] std::io::Error),
    #[error("the controller's answer was not understood")]
    Answer(#[source] Cause),
    /// What was written is not valid.
    #[error("{}", mistakes(.0.len()))]
    Invalid(Vec<Diagnostic>),
    /// It is valid, but the network that it describes lacks something.
    #[error("{}", listed(.0))]
    NotRendered(Vec<RenderError>),
    #[error("cannot read {}", path.display())]
    Read { path: PathBuf, source: std::io::Error },
    #[error("there is no .yaml file in {}", .0.display())]
    EmptyFolder(PathBuf),
    #[error("cannot print the answer")]
    Unprintable(#[source] Cause),
    #[error(transparent)]
    Store(#[from] StoreError),
    #[error("the controller cannot begin")]
    Start(#[from] StartError),
    #[error(transparent)]
    Listen(#[from] ListenError),
    #[error("cannot be told to stop by signals")]
    Signals(#[source] std::io::Error),
    #[error("cannot start the threads that this needs")]
    Runtime(#[source] std::io::Error),
    #[error(transparent)]
    Lab(LabError),
    #[error(transparent)]
    Replay(#[from] ReplayError),
    #[error("a lab cannot be called {name}: {reason}")]
    LabName { name: String, reason: NameError },
}

impl From<LabError> for CliError {
    /// Mistakes in a lab's files are shown as all others.
    fn from(error: LabError) -> Self {
        match error {
            LabError::Invalid(diagnostics) => Self::Invalid(diagnostics),
            other => Self::Lab(other),
        }
    }
}

impl CliError {
    pub fn unprintable(cause: impl Into<Cause>) -> Self {
        Self::Unprintable(cause.into())
    }

    pub fn exit_code(&self) -> ExitCode {
        match self {
            Self::NoDaemon(_) | Self::NotAllowed(_) | Self::Connection(_) => ExitCode::from(3),
            Self::NoTenantOf(_) | Self::Replay(_) => ExitCode::from(2),
            _ => ExitCode::FAILURE,
        }
    }

    /// The message for the person: what is wrong, why, and the way out.
    pub fn shown(&self) -> String {
        let mut text = String::new();
        for diagnostic in self.diagnostics() {
            text += &format!("{}\n\n", shown_diagnostic(diagnostic));
        }
        if let Self::Refused(report) = self
            && !(report.violations.is_empty() && report.undecided.is_empty())
        {
            let broken = all_violated(&report.violations) + &all_feared(&report.undecided);
            text += &format!("{}\n", broken.trim_start());
        }
        text += &format!("{}: {}", styled(BAD, "error"), styled(STRONG, self));
        let mut cause = self.source();
        while let Some(error) = cause {
            // Writing to a string does not fail.
            let _ = write!(text, ": {error}");
            cause = error.source();
        }
        text.push('\n');
        if let Some(help) = self.help() {
            text += &format!("  {}: {help}\n", styled(FAINT, "help"));
        }
        text
    }

    fn diagnostics(&self) -> &[Diagnostic] {
        match self {
            Self::Invalid(diagnostics) | Self::Start(StartError::Invalid(diagnostics)) => diagnostics,
            Self::Refused(report) => &report.diagnostics,
            _ => &[],
        }
    }

    fn help(&self) -> Option<String> {
        match self {
            Self::NoDaemon(_) => {
                Some("start it with `catena serve`, or do without a daemon: --local".to_owned())
            }
            Self::NotAllowed(_) => Some("run this as root, as the controller is".to_owned()),
            Self::Connection(_) => Some("see what `catena serve` logged last; then try again".to_owned()),
            Self::Answer(_) => Some("is `catena serve` of the same version as this program?".to_owned()),
            Self::NotInstalled => Some(
                "`catena serve` installs it as soon as it can be; `catena status` shows what is missing"
                    .to_owned(),
            ),
            Self::NoTenantOf(_) => {
                Some("--tenant is for `catena get counters` and `catena get drops`".to_owned())
            }
            Self::Terminal(_) => Some("print once instead: `catena top --once`".to_owned()),
            Self::Refused(report) => report.help.clone(),
            Self::Replay(ReplayError::NotRoot) => Some("run this again by sudo".to_owned()),
            Self::Replay(ReplayError::Lab(LabError::Setup { .. }) | ReplayError::NoFolder { .. }) => Some(
                "a host's setup commands are run in the copy, too, in the folder of its file, as it was named when it was \
                 applied: run this where it was applied"
                    .to_owned(),
            ),
            _ => None,
        }
    }
}

/// As it prints itself, with colours.
fn shown_diagnostic(diagnostic: &Diagnostic) -> String {
    let mut lines = Vec::new();
    for line in diagnostic.to_string().lines() {
        let trimmed = line.trim_start();
        lines.push(if let Some(message) = line.strip_prefix("error: ") {
            format!("{}: {}", styled(BAD, "error"), styled(STRONG, message))
        } else if trimmed.starts_with("-->") || trimmed.starts_with(":::") {
            styled(FAINT, line)
        } else if trimmed.starts_with("| ") && trimmed.contains(['^', '-']) {
            styled(WARN, line)
        } else {
            line.to_owned()
        });
    }
    lines.join("\n")
}

fn listed(errors: &[RenderError]) -> String {
    errors.iter().map(ToString::to_string).collect::<Vec<_>>().join("\n       ")
}

fn mistakes(number: usize) -> String {
    match number {
        1 => "one mistake was found".to_owned(),
        _ => format!("{number} mistakes were found"),
    }
}
