//! Why a request was not done, and what became of it.

use std::collections::BTreeSet;
use std::fmt;

use catena_driver::DriverError;
use catena_model::name::{NodeName, TenantName};
use catena_model::resource::Diagnostic;
use catena_model::resource::Model;
use catena_plan::Phase;
use catena_store::StoreError;
use catena_verify::{Property, Undecided, Violation};

use crate::report::Promise;

/// The controller cannot remember, or not recall.
#[derive(Debug, thiserror::Error)]
pub enum RecordError {
    #[error(transparent)]
    Store(#[from] StoreError),
    #[error("this controller only looks")]
    OnlyLooking,
    #[error(
        "the record {key} is not readable: restore the store from a backup, or move it away to begin anew"
    )]
    Damaged {
        key: String,
        #[source]
        source: serde_json::Error,
    },
}

/// The controller cannot begin.
#[derive(Debug, thiserror::Error)]
pub enum StartError {
    #[error("cannot read what was stored")]
    Records(#[from] RecordError),
    /// Stored by another version, most likely.
    #[error(
        "the resources in the store are not valid in this version; what is installed stays as it is: start the version \
         that stored them, or move the store away and apply the resources anew"
    )]
    Invalid(Vec<Diagnostic>),
}

/// A request was not done. Unless it says otherwise, nothing was touched.
#[derive(Debug, thiserror::Error)]
pub enum ApplyError {
    #[error("{}; nothing was touched", mistakes(.0))]
    Invalid(Vec<Diagnostic>),
    #[error("other resources need what is to be deleted; nothing was touched")]
    StillNeeded(Vec<Diagnostic>),
    #[error("the driver of element {element} cannot change while chains use it; nothing was touched")]
    DriverInUse { element: NodeName },
    #[error("element {element} cannot be reached ({why}); nothing was touched")]
    Unreachable { element: NodeName, why: String },
    #[error("element {element} cannot take the change; nothing was touched")]
    Refused {
        element: NodeName,
        #[source]
        source: DriverError,
    },
    /// What chains promise would not hold any more.
    #[error("the change would break {0}; nothing was touched")]
    Violates(Refusal),
    /// A mistake of ours.
    #[error("what becomes of the change cannot be found out: {0}; nothing was touched")]
    Internal(String),
    #[error("element {element} failed to {phase}; {rollback}")]
    Failed {
        element: NodeName,
        phase: Phase,
        rollback: Rollback,
        #[source]
        source: StepError,
    },
    #[error("cannot remember the change; nothing was touched")]
    Store(#[source] RecordError),
    #[error("the controller is stopping")]
    Stopped,
}

impl ApplyError {
    /// What to do about it.
    pub fn help(&self) -> Option<String> {
        let help = match self {
            Self::Invalid(_) => "correct what the diagnostics name, and apply again",
            Self::StillNeeded(_) => "delete those that need it in the same request, or change them first",
            Self::DriverInUse { .. } => {
                "delete the chains that use the element, change its driver, apply the chains again"
            }
            Self::Violates(refusal) => return Some(refusal.way_out()),
            Self::Internal(_) => {
                "this is a mistake in Catena: report it, with the resources and what the controller logged"
            }
            Self::Unreachable { .. } => "make its namespace, or whatever else is not there, then apply again",
            Self::Refused { source, .. } if source.is_transient() => "try again",
            Self::Refused { .. } => "change what the element lacks, or the resources",
            Self::Failed { rollback: Rollback::Whole, .. } => "remove the cause, and apply again",
            Self::Failed { rollback: Rollback::Partial(_), .. } => {
                "what could not be rolled back is tried again all the time; `catena status` shows it"
            }
            Self::Failed { rollback: Rollback::Unrecorded { .. }, .. } => {
                "see to the store's file and disk, and apply what you want before the controller is started again"
            }
            Self::Store(_) => "see to the store's file and disk, and apply again",
            Self::Stopped => "start the controller again",
        };
        Some(help.to_owned())
    }

    /// What would not hold any more.
    pub fn refusal(&self) -> Option<&Refusal> {
        match self {
            Self::Violates(refusal) => Some(refusal),
            _ => None,
        }
    }

    pub(crate) fn internal(why: String) -> Self {
        Self::Internal(why)
    }

    pub fn diagnostics(&self) -> &[Diagnostic] {
        match self {
            Self::Invalid(diagnostics) | Self::StillNeeded(diagnostics) => diagnostics,
            _ => &[],
        }
    }
}

/// What a change would break.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Refusal {
    /// Each with a packet that shows it.
    pub violations: Vec<Violation>,
    /// What it may break, though no packet was found that shows it. Each has its property.
    pub undecided: Vec<Undecided>,
}

impl Refusal {
    fn promises(&self) -> impl Iterator<Item = Promise> {
        let broken = self.violations.iter().map(Promise::broken_by);
        broken.chain(self.undecided.iter().filter_map(Promise::feared_by))
    }

    /// What gives all of it up.
    pub(crate) fn flags(&self) -> String {
        let properties: BTreeSet<Property> = self.promises().map(|promise| promise.property).collect();
        let flags: Vec<String> = properties.iter().map(|property| format!("--allow {property}")).collect();
        flags.join(" ")
    }

    fn way_out(&self) -> String {
        let flags = self.flags();
        format!("change it so that it holds, or give it up, which is put on record: `{flags}`")
    }
}

impl fmt::Display for Refusal {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let mut promises = self.promises();
        let Some(first) = promises.next() else { return Ok(()) };
        match promises.count() {
            0 => write!(f, "{first}"),
            1 => write!(f, "{first}, and one promise more"),
            more => write!(f, "{first}, and {more} promises more"),
        }
    }
}

/// Nothing can be said of a tenant that there is not.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("there is no tenant {name}; {}", those_there_are(known))]
pub struct UnknownTenant {
    pub name: TenantName,
    pub known: Vec<TenantName>,
}

impl UnknownTenant {
    /// An error if a tenant is asked for that `model` does not have.
    pub fn refuse(model: &Model, tenant: Option<&TenantName>) -> Result<(), Self> {
        match tenant {
            Some(name) if !model.tenants.contains_key(name) => {
                Err(Self { name: name.clone(), known: model.tenants.keys().cloned().collect() })
            }
            _ => Ok(()),
        }
    }
}

/// What became of the part that had been done.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Rollback {
    Whole,
    /// These elements are not as they were before; they are repaired as soon as they can be.
    Partial(Vec<(NodeName, String)>),
    /// The store still has the new resources: the next controller on it would make the change.
    Unrecorded {
        why: String,
    },
}

impl fmt::Display for Rollback {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Rollback::Whole => f.write_str("everything was rolled back"),
            Rollback::Unrecorded { why } => {
                write!(f, "it was rolled back, but this cannot be remembered ({why})")
            }
            Rollback::Partial(elements) => {
                f.write_str("it was rolled back but for ")?;
                for (index, (element, why)) in elements.iter().enumerate() {
                    let comma = if index == 0 { "" } else { ", " };
                    write!(f, "{comma}{element} ({why})")?;
                }
                Ok(())
            }
        }
    }
}

/// Why a step was not done.
#[derive(Debug, thiserror::Error)]
pub enum StepError {
    #[error(transparent)]
    Driver(#[from] DriverError),
    #[error("what was installed is not there when read back: {missing}")]
    NotConfirmed { missing: String },
}

/// The text of an error and of all that caused it, on one line.
pub fn chain_of(error: &dyn std::error::Error) -> String {
    let causes = std::iter::successors(error.source(), |cause| cause.source());
    let mut text = error.to_string();
    for cause in causes {
        text.push_str(": ");
        text.push_str(&cause.to_string());
    }
    text
}

fn those_there_are(known: &[TenantName]) -> String {
    const SHOWN: usize = 10;
    let names: Vec<&str> = known.iter().take(SHOWN).map(TenantName::as_str).collect();
    match known.len().saturating_sub(SHOWN) {
        _ if names.is_empty() => "there is none at all".to_owned(),
        0 => format!("there are {}", names.join(", ")),
        more => format!("there are {} and {more} more", names.join(", ")),
    }
}

fn mistakes(diagnostics: &[Diagnostic]) -> String {
    match diagnostics.len() {
        1 => "there is a mistake in what was given".to_owned(),
        several => format!("there are {several} mistakes in what was given"),
    }
}
