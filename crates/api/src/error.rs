//! Errors as answers: a status and an [`ErrorReport`].

use axum::Json;
use axum::extract::rejection::{JsonRejection, QueryRejection};
use axum::http::StatusCode;
use axum::response::{IntoResponse, Response};
use catena_control::{ApplyError, Refusal, ResourceId, UnknownTenant, chain_of};
use catena_model::resource::UnknownKind;

use crate::types::ErrorReport;

/// Why a request has no better answer.
#[derive(Debug)]
pub enum ApiError {
    Malformed(JsonRejection),
    Query(QueryRejection),
    UnknownKind {
        status: StatusCode,
        error: UnknownKind,
    },
    NoResource(ResourceId),
    NoTenant(UnknownTenant),
    NoPath,
    NoMethod,
    /// A name that stands in the `Host` header and is not this machine's.
    ForeignHost(String),
    Apply(ApplyError),
}

impl ApiError {
    fn status(&self) -> StatusCode {
        match self {
            Self::Malformed(JsonRejection::JsonDataError(_)) | Self::Query(_) => StatusCode::BAD_REQUEST,
            Self::Malformed(rejection) => rejection.status(),
            Self::UnknownKind { status, .. } => *status,
            Self::NoResource(_) | Self::NoTenant(_) | Self::NoPath => StatusCode::NOT_FOUND,
            Self::NoMethod => StatusCode::METHOD_NOT_ALLOWED,
            Self::ForeignHost(_) => StatusCode::FORBIDDEN,
            Self::Apply(error) => apply_status(error),
        }
    }

    fn report(&self) -> ErrorReport {
        let (error, help) = match self {
            Self::Malformed(rejection) => {
                (rejection.body_text(), "send JSON of the form that the API describes")
            }
            Self::Query(rejection) => (rejection.body_text(), "write ?follow=true, ?after=ID, or nothing"),
            Self::UnknownKind { error, .. } => (error.to_string(), "use one of these kinds"),
            Self::NoResource(id) => (format!("there is no {id}"), "`catena get` shows what there is"),
            Self::NoTenant(error) => (error.to_string(), "`catena get tenants` shows what there is"),
            Self::NoPath => {
                ("there is nothing at this path".to_owned(), "paths begin with /v1alpha1/, but for /metrics")
            }
            Self::NoMethod => {
                ("this path takes another method".to_owned(), "use GET to read, POST to change or to trace")
            }
            Self::ForeignHost(name) => (
                format!("this API is not served to those who ask for the host {name:?}"),
                "ask for it by an address, as localhost, or start it with `catena serve --allow-host NAME`",
            ),
            Self::Apply(error) => {
                let Refusal { violations, undecided } = error.refusal().cloned().unwrap_or_default();
                return ErrorReport {
                    error: chain_of(error),
                    help: error.help(),
                    diagnostics: error.diagnostics().to_vec(),
                    violations,
                    undecided,
                };
            }
        };
        ErrorReport {
            error,
            help: Some(help.to_owned()),
            diagnostics: Vec::new(),
            violations: Vec::new(),
            undecided: Vec::new(),
        }
    }
}

fn apply_status(error: &ApplyError) -> StatusCode {
    match error {
        ApplyError::Invalid(_) => StatusCode::UNPROCESSABLE_ENTITY,
        ApplyError::StillNeeded(_) | ApplyError::DriverInUse { .. } | ApplyError::Violates(_) => {
            StatusCode::CONFLICT
        }
        ApplyError::Refused { source, .. } if source.is_transient() => StatusCode::SERVICE_UNAVAILABLE,
        ApplyError::Refused { .. } => StatusCode::CONFLICT,
        ApplyError::Unreachable { .. } | ApplyError::Stopped => StatusCode::SERVICE_UNAVAILABLE,
        ApplyError::Failed { .. } | ApplyError::Store(_) | ApplyError::Internal(_) => {
            StatusCode::INTERNAL_SERVER_ERROR
        }
    }
}

impl IntoResponse for ApiError {
    fn into_response(self) -> Response {
        (self.status(), Json(self.report())).into_response()
    }
}

impl From<JsonRejection> for ApiError {
    fn from(rejection: JsonRejection) -> Self {
        Self::Malformed(rejection)
    }
}

impl From<QueryRejection> for ApiError {
    fn from(rejection: QueryRejection) -> Self {
        Self::Query(rejection)
    }
}

impl From<UnknownTenant> for ApiError {
    fn from(error: UnknownTenant) -> Self {
        Self::NoTenant(error)
    }
}

impl From<ApplyError> for ApiError {
    fn from(error: ApplyError) -> Self {
        Self::Apply(error)
    }
}

#[cfg(test)]
mod tests {
    use catena_model::forwarding::Direction;
    use catena_verify::{Property, Undecided};

    use super::*;

    #[test]
    fn what_may_be_broken_is_a_conflict_too() {
        let undecided = Undecided {
            property: Some(Property::SameWayBack),
            chain: "web".parse().unwrap(),
            site: "hq".parse().unwrap(),
            direction: Direction::Down,
            what: "replies may pass another instance".to_owned(),
            entry: None,
            walk: None,
        };
        let refusal = Refusal { undecided: vec![undecided.clone()], ..Refusal::default() };
        let error = ApiError::from(ApplyError::Violates(refusal));
        assert_eq!(error.status(), StatusCode::CONFLICT);
        let report = error.report();
        assert_eq!((report.violations, report.undecided), (Vec::new(), vec![undecided]));
        assert!(report.help.unwrap().contains("--allow same-way-back"));
    }

    #[test]
    fn a_mistake_of_ours_is_said_to_be_one() {
        let error = ApiError::from(ApplyError::Internal("index out of bounds".to_owned()));
        assert_eq!(error.status(), StatusCode::INTERNAL_SERVER_ERROR);
        let report = error.report();
        assert!(report.error.contains("index out of bounds; nothing was touched"), "{report:?}");
        assert!(report.help.unwrap().contains("mistake in Catena"));
    }
}
