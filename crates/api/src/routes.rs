//! Which path leads to which question, and how its answer is made.

use std::convert::Infallible;
use std::time::Instant;

use axum::body::{Body, Bytes};
use axum::extract::rejection::{JsonRejection, QueryRejection};
use axum::extract::{ConnectInfo, DefaultBodyLimit, Path, Query, State};
use axum::http::{StatusCode, header};
use axum::response::{IntoResponse, Response};
use axum::routing::{MethodFilter, MethodRouter, on};
use axum::{Extension, Json, Router};
use catena_control::{Controller, Follower, Request, ResourceId, Terms};
use catena_model::name::TenantName;
use catena_model::resource::{ResourceKind, Source};
use catena_verify::Trace;
use futures::{Stream, stream};
use serde::Deserialize;
use tokio::sync::watch;

use crate::caller::Caller;
use crate::error::ApiError;
use crate::metrics::{self, Operation, RequestDurations};
use crate::types::{
    ApplyReport, ApplyRequest, CountersReport, DeleteRequest, EventReport, Explanation, FunctionsReport,
    Packet, ResourceReport, SourceText, StatusReport, VerifiedNetwork, VerifyReport,
};

/// Ten thousand tenants in one file have room in it.
pub const BODY_LIMIT: usize = 64 << 20;

/// All paths, with their handlers. The crate's documentation lists the same.
const ROUTES: [Route; 14] = [
    Route(MethodFilter::POST, "/v1alpha1/apply", |method| on(method, apply)),
    Route(MethodFilter::POST, "/v1alpha1/delete", |method| on(method, delete)),
    Route(MethodFilter::GET, "/v1alpha1/resources", |method| on(method, all_resources)),
    Route(MethodFilter::GET, "/v1alpha1/resources/{kind}", |method| on(method, resources)),
    Route(MethodFilter::GET, "/v1alpha1/resources/{kind}/{name}", |method| on(method, resource)),
    Route(MethodFilter::GET, "/v1alpha1/status", |method| on(method, status)),
    Route(MethodFilter::GET, "/v1alpha1/counters", |method| on(method, counters)),
    Route(MethodFilter::GET, "/v1alpha1/functions", |method| on(method, functions)),
    Route(MethodFilter::GET, "/v1alpha1/events", |method| on(method, events)),
    Route(MethodFilter::POST, "/v1alpha1/trace", |method| on(method, trace)),
    Route(MethodFilter::GET, "/v1alpha1/verify", |method| on(method, verify)),
    Route(MethodFilter::GET, "/v1alpha1/verify/network", |method| on(method, verified_network)),
    Route(MethodFilter::GET, "/v1alpha1/explain/{chain}", |method| on(method, explain)),
    Route(MethodFilter::GET, "/metrics", |method| on(method, metrics)),
];

/// A method, a path, and what answers there.
struct Route(MethodFilter, &'static str, fn(MethodFilter) -> MethodRouter<Api>);

/// What the handlers have at hand.
#[derive(Clone, Debug)]
pub(crate) struct Api {
    pub controller: Controller,
    durations: RequestDurations,
    /// Becomes true when the server stops: answers that have no end, end then.
    stopping: watch::Receiver<bool>,
}

impl Api {
    pub fn new(controller: Controller, stopping: watch::Receiver<bool>) -> Self {
        Self { controller, durations: RequestDurations::default(), stopping }
    }

    /// Has the controller do what is asked, and keeps how long that took.
    async fn request(
        &self,
        operation: Operation,
        request: Request,
        terms: Terms,
    ) -> Result<Json<ApplyReport>, ApiError> {
        let (begun, dry_run) = (Instant::now(), terms.dry_run);
        let result = self.controller.request(request, terms).await;
        if !dry_run {
            self.durations.observe(operation, result.is_ok(), begun.elapsed());
        }
        Ok(Json(result?))
    }
}

/// The API of a controller, to be called or served.
pub fn router(controller: Controller) -> Router {
    // Nobody stops it: it ends with its last user.
    let (_, stopping) = watch::channel(false);
    stoppable_router(Api::new(controller, stopping))
}

pub(crate) fn stoppable_router(api: Api) -> Router {
    let mut router = Router::new();
    for Route(method, path, handler) in ROUTES {
        router = router.route(path, handler(method).fallback(no_method));
    }
    router.fallback(no_path).layer(DefaultBodyLimit::max(BODY_LIMIT)).with_state(api)
}

async fn apply(
    State(api): State<Api>,
    caller: Option<Extension<ConnectInfo<Caller>>>,
    request: Result<Json<ApplyRequest>, JsonRejection>,
) -> Result<Json<ApplyReport>, ApiError> {
    let Json(ApplyRequest { sources, dry_run, allow }) = request?;
    let request = Request::Apply(sources.into_iter().map(source).collect());
    api.request(Operation::Apply, request, Terms { dry_run, allow, by: name_of(caller) }).await
}

async fn delete(
    State(api): State<Api>,
    caller: Option<Extension<ConnectInfo<Caller>>>,
    request: Result<Json<DeleteRequest>, JsonRejection>,
) -> Result<Json<ApplyReport>, ApiError> {
    let Json(DeleteRequest { sources, resources, dry_run, allow }) = request?;
    let mut named = Vec::new();
    for resource in resources {
        let kind = kind(&resource.kind, StatusCode::UNPROCESSABLE_ENTITY)?;
        named.push(ResourceId { kind, name: resource.name });
    }
    let sources = sources.into_iter().map(source).collect();
    let request = Request::Delete { sources, resources: named };
    api.request(Operation::Delete, request, Terms { dry_run, allow, by: name_of(caller) }).await
}

/// Without a connection it is this very process that asks.
fn name_of(caller: Option<Extension<ConnectInfo<Caller>>>) -> String {
    caller.map_or_else(Caller::oneself, |Extension(ConnectInfo(caller))| caller).0
}

async fn all_resources(State(api): State<Api>) -> Json<Vec<ResourceReport>> {
    Json(api.controller.resources(None))
}

async fn resources(
    State(api): State<Api>,
    Path(name): Path<String>,
) -> Result<Json<Vec<ResourceReport>>, ApiError> {
    let kind = kind(&name, StatusCode::NOT_FOUND)?;
    Ok(Json(api.controller.resources(Some(kind))))
}

async fn resource(
    State(api): State<Api>,
    Path((kind_name, name)): Path<(String, String)>,
) -> Result<Json<ResourceReport>, ApiError> {
    let id = ResourceId { kind: kind(&kind_name, StatusCode::NOT_FOUND)?, name };
    let found = api.controller.resource(&id);
    found.map(Json).ok_or(ApiError::NoResource(id))
}

async fn status(State(api): State<Api>) -> Json<StatusReport> {
    Json(api.controller.status())
}

async fn counters(State(api): State<Api>) -> Json<CountersReport> {
    Json(api.controller.counters().await)
}

async fn functions(State(api): State<Api>) -> Json<FunctionsReport> {
    Json(api.controller.functions().await)
}

#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
struct EventsQuery {
    #[serde(default)]
    follow: bool,
    /// Only events with a higher id.
    #[serde(default)]
    after: u64,
}

async fn events(
    State(api): State<Api>,
    query: Result<Query<EventsQuery>, QueryRejection>,
) -> Result<Response, ApiError> {
    let Query(EventsQuery { follow, after }) = query?;
    let body = if follow {
        Body::from_stream(following(api.controller.follow(after), api.stopping))
    } else {
        let events = api.controller.events();
        Body::from(events.iter().filter(|event| event.id > after).map(line).collect::<String>())
    };
    Ok(([(header::CONTENT_TYPE, "application/x-ndjson")], body).into_response())
}

/// Events as they come, until the server stops.
fn following(
    follower: Follower,
    stopping: watch::Receiver<bool>,
) -> impl Stream<Item = Result<Bytes, Infallible>> {
    stream::unfold((follower, stopping), async |(mut follower, mut stopping)| {
        let stopped = async |stopping: &mut watch::Receiver<bool>| {
            if stopping.wait_for(|stopping| *stopping).await.is_err() {
                std::future::pending::<()>().await;
            }
        };
        tokio::select! {
            event = follower.next() => Some((Ok(Bytes::from(line(&event))), (follower, stopping))),
            () = stopped(&mut stopping) => None,
        }
    })
}

async fn trace(
    State(api): State<Api>,
    packet: Result<Json<Packet>, JsonRejection>,
) -> Result<Json<Trace>, ApiError> {
    let Json(packet) = packet?;
    Ok(Json(api.controller.trace(packet).await))
}

#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
struct VerifyQuery {
    /// What is installed, rather than what is to be.
    #[serde(default)]
    observed: bool,
    tenant: Option<TenantName>,
}

async fn verify(
    State(api): State<Api>,
    query: Result<Query<VerifyQuery>, QueryRejection>,
) -> Result<Json<VerifyReport>, ApiError> {
    let Query(VerifyQuery { observed, tenant }) = query?;
    Ok(Json(api.controller.verify(tenant, observed).await?))
}

async fn verified_network(
    State(api): State<Api>,
    query: Result<Query<VerifyQuery>, QueryRejection>,
) -> Result<Json<VerifiedNetwork>, ApiError> {
    let Query(VerifyQuery { observed, tenant }) = query?;
    Ok(Json(api.controller.verified(tenant, observed).await?))
}

async fn explain(State(api): State<Api>, Path(name): Path<String>) -> Result<Json<Explanation>, ApiError> {
    let found = name.parse().ok().and_then(|name| api.controller.explain(&name));
    found.map(Json).ok_or(ApiError::NoResource(ResourceId { kind: ResourceKind::Chain, name }))
}

async fn metrics(State(api): State<Api>) -> Response {
    let counters = api.controller.counters().await;
    let text = metrics::text(&counters, &api.controller, &api.durations);
    ([(header::CONTENT_TYPE, metrics::CONTENT_TYPE)], text).into_response()
}

async fn no_path() -> ApiError {
    ApiError::NoPath
}

async fn no_method() -> ApiError {
    ApiError::NoMethod
}

fn source(SourceText { name, text }: SourceText) -> Source {
    Source::new(name, text)
}

fn kind(name: &str, status: StatusCode) -> Result<ResourceKind, ApiError> {
    name.parse().map_err(|error| ApiError::UnknownKind { status, error })
}

/// One JSON object and an end of line (<https://github.com/ndjson/ndjson-spec>).
fn line(event: &EventReport) -> String {
    // An event is of texts and numbers; it always has a form in JSON.
    serde_json::to_string(event).map(|json| json + "\n").unwrap_or_default()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_route_is_documented_and_every_documented_route_is_there() {
        let documentation = include_str!("lib.rs");
        let rows = documentation.lines().filter_map(|line| line.strip_prefix("//! | "));
        let mut documented: Vec<String> = rows
            .filter_map(|row| {
                let mut cells = row.split('|').map(|cell| cell.trim().trim_matches('`'));
                Some(format!("{} {}", cells.next()?, cells.next()?))
            })
            .filter(|route| route.contains(" /"))
            .collect();
        let method = |filter| if filter == MethodFilter::POST { "POST" } else { "GET" };
        let routes = ROUTES.iter().map(|Route(filter, path, _)| format!("{} {path}", method(*filter)));
        let mut routes: Vec<String> = routes.collect();
        documented.sort_unstable();
        routes.sort_unstable();
        assert_eq!(documented, routes);
    }
}
