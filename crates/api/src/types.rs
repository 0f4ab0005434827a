//! The JSON of the API: what is asked, what is answered. Names are camelCase; fields are only ever added.

use std::collections::BTreeSet;

use serde::{Deserialize, Serialize};

pub use catena_control::report::*;
pub use catena_model::packet::Packet;
pub use catena_model::resource::Diagnostic;
pub use catena_verify::{Property, Report as VerifyReport, Trace, Undecided, Violation};

/// A YAML file: its name, as the person who sends it knows it, and its text.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct SourceText {
    pub name: String,
    pub text: String,
}

/// `POST /v1alpha1/apply` → [`ApplyReport`].
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct ApplyRequest {
    pub sources: Vec<SourceText>,
    /// Say what would be done, and do nothing.
    #[serde(default)]
    pub dry_run: bool,
    /// What chains promise and this may break; that is put on record with who asks.
    #[serde(default)]
    pub allow: BTreeSet<Property>,
}

/// `POST /v1alpha1/delete` → [`ApplyReport`]: the resources that stand in the sources, and those that are named.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct DeleteRequest {
    #[serde(default)]
    pub sources: Vec<SourceText>,
    #[serde(default)]
    pub resources: Vec<ResourceName>,
    #[serde(default)]
    pub dry_run: bool,
    /// As in [`ApplyRequest`].
    #[serde(default)]
    pub allow: BTreeSet<Property>,
}

#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct ResourceName {
    /// As written in the file, in any case: `Chain`, `chain`, `chains`.
    pub kind: String,
    pub name: String,
}

/// Every answer that is not a success.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct ErrorReport {
    /// What went wrong.
    pub error: String,
    /// What to do about it.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub help: Option<String>,
    /// With status 422: what is wrong with the sources, and where.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub diagnostics: Vec<Diagnostic>,
    /// With status 409: what chains promise and the change would break, each with a packet that shows it.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub violations: Vec<Violation>,
    /// The same, for which no packet was found that shows it; each has its `property`.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub undecided: Vec<Undecided>,
}
