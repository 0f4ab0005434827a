//! The API as its users meet it: in-process, over a unix socket, over loopback TCP.

#![allow(clippy::unwrap_used, clippy::panic, reason = "a test fails by panicking")]

use std::collections::BTreeSet;
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use axum::Router;
use axum::body::Body;
use axum::http::{Request, StatusCode, header};
use catena_api::types::{
    ApplyReport, ApplyRequest, CountersReport, DeleteRequest, ErrorReport, EventKind, EventReport,
    FunctionsReport, Outcome, Packet, Property, ResourceName, ResourceReport, SourceText, StatusReport,
    Timestamp, Trace, VerifiedNetwork, VerifyReport, Violation,
};
use catena_api::{BODY_LIMIT, ListenError, Listener, router, serve};
use catena_control::{Controller, Drivers, Settings};
use catena_driver::simulated::{Fault, SimulatedDriver, SimulatedElement};
use catena_driver::{Driver, DriverError};
use catena_model::name::NodeName;
use catena_model::resource::Element;
use catena_store::InMemory;
use catena_verify::End;
use http_body_util::BodyExt;
use serde::Serialize;
use serde::de::DeserializeOwned;
use tokio::io::{AsyncBufReadExt, AsyncReadExt, AsyncWriteExt, BufReader};
use tokio::net::{TcpStream, UnixStream};
use tokio::sync::oneshot;
use tower::ServiceExt;

/// Every element is simulated.
#[derive(Clone, Debug, Default)]
struct World(Arc<Mutex<std::collections::BTreeMap<NodeName, SimulatedElement>>>);

impl World {
    fn element(&self, name: &NodeName) -> SimulatedElement {
        let mut elements = self.0.lock().unwrap();
        elements.entry(name.clone()).or_insert_with(|| SimulatedElement::new(1)).clone()
    }

    async fn controller(&self) -> Controller {
        let store = Arc::new(InMemory::default());
        Controller::start(store, Arc::new(self.clone()), Settings::default()).await.unwrap()
    }
}

impl Drivers for World {
    fn for_element(&self, element: &Element) -> Result<Vec<Arc<dyn Driver>>, DriverError> {
        Ok(vec![Arc::new(SimulatedDriver::new(&self.element(&element.name)))])
    }
}

fn example(name: &str) -> SourceText {
    let path = format!("{}/../../examples/paper/{name}", env!("CARGO_MANIFEST_DIR"));
    SourceText { name: name.to_owned(), text: std::fs::read_to_string(path).unwrap() }
}

fn everything() -> ApplyRequest {
    let sources = ["network.yaml", "functions.yaml", "tenants.yaml", "chain.yaml"].map(example).to_vec();
    ApplyRequest { sources, ..ApplyRequest::default() }
}

async fn send(router: &Router, request: Request<Body>) -> (StatusCode, Vec<u8>) {
    let response = router.clone().oneshot(request).await.unwrap();
    let status = response.status();
    (status, response.into_body().collect().await.unwrap().to_bytes().to_vec())
}

async fn get<T: DeserializeOwned>(router: &Router, path: &str) -> Result<T, (StatusCode, Box<ErrorReport>)> {
    let (status, body) = send(router, Request::get(path).body(Body::empty()).unwrap()).await;
    read(status, &body)
}

async fn post<T: DeserializeOwned>(
    router: &Router,
    path: &str,
    body: &impl Serialize,
) -> Result<T, (StatusCode, Box<ErrorReport>)> {
    let body = Body::from(serde_json::to_vec(body).unwrap());
    let request = Request::post(path).header(header::CONTENT_TYPE, "application/json").body(body).unwrap();
    let (status, body) = send(router, request).await;
    read(status, &body)
}

fn read<T: DeserializeOwned>(status: StatusCode, body: &[u8]) -> Result<T, (StatusCode, Box<ErrorReport>)> {
    let text = String::from_utf8_lossy(body);
    if status.is_success() {
        Ok(serde_json::from_slice(body).unwrap_or_else(|error| panic!("{error}: {text}")))
    } else {
        Err((status, serde_json::from_slice(body).unwrap_or_else(|error| panic!("{status} {error}: {text}"))))
    }
}

async fn applied() -> (World, Router) {
    let world = World::default();
    let router = router(world.controller().await);
    let report: ApplyReport = post(&router, "/v1alpha1/apply", &everything()).await.unwrap();
    assert!(report.resources.iter().all(|change| change.outcome == Outcome::Created));
    (world, router)
}

fn named(kind: &str, name: &str) -> DeleteRequest {
    let resources = vec![ResourceName { kind: kind.to_owned(), name: name.to_owned() }];
    DeleteRequest { resources, ..DeleteRequest::default() }
}

#[tokio::test]
async fn every_question_has_its_answer() {
    let (_world, router) = applied().await;
    let status: StatusReport = get(&router, "/v1alpha1/status").await.unwrap();
    assert!(status.converged && status.chains.len() == 1 && status.elements.len() == 7, "{status:#?}");

    let all: Vec<ResourceReport> = get(&router, "/v1alpha1/resources").await.unwrap();
    let links: Vec<ResourceReport> = get(&router, "/v1alpha1/resources/links").await.unwrap();
    assert!(!links.is_empty() && links.len() < all.len());
    let fw: ResourceReport = get(&router, "/v1alpha1/resources/sf/fw").await.unwrap();
    assert_eq!(
        (fw.document["kind"].as_str(), fw.source.as_str()),
        (Some("ServiceFunction"), "functions.yaml")
    );
    assert!(fw.text.contains("name: fw") && fw.line > 0);

    let counters: CountersReport = get(&router, "/v1alpha1/counters").await.unwrap();
    assert_eq!(counters, CountersReport::default());
    let functions: FunctionsReport = get(&router, "/v1alpha1/functions").await.unwrap();
    assert_eq!(functions.functions.len(), 3);

    let packet = Packet {
        source: "172.16.1.10".parse().unwrap(),
        destination: "198.51.100.10".parse().unwrap(),
        protocol: "tcp".parse().unwrap(),
        source_port: 40_000,
        destination_port: 80,
        dscp: Default::default(),
    };
    let trace: Trace = post(&router, "/v1alpha1/trace", &packet).await.unwrap();
    let functions = trace.request.functions();
    assert_eq!((functions.first(), functions.len()), (Some(&"fw-1"), 3));

    let report: ApplyReport = post(&router, "/v1alpha1/delete", &named("chains", "acme-web")).await.unwrap();
    assert_eq!(report.resources[0].outcome, Outcome::Deleted);
    assert!(!report.plan.0.is_empty());
}

/// The paper's network, where the gateway does not know the way to the Internet: what passes a chain is lost there.
fn without_a_way_out() -> SourceText {
    let mut network = example("network.yaml");
    network.text = network.text.replace("    - {to: default, via: 203.0.113.13}\n", "");
    assert_ne!(network, example("network.yaml"));
    network
}

#[tokio::test]
async fn what_would_break_a_promise_is_a_conflict_that_shows_a_packet() {
    let router = router(World::default().controller().await);
    let refused = |result: Result<ApplyReport, (StatusCode, Box<ErrorReport>)>| {
        let (status, report) = result.unwrap_err();
        assert_eq!(status, StatusCode::CONFLICT, "{report:?}");
        let Violation { property, chain, walk, .. } = &report.violations[0];
        assert_eq!((*property, chain.as_str()), (Property::NoBlackHole, "acme-web"));
        assert!(matches!(&walk.end, End::Dropped { node, .. } if node.as_str() == "gateway"), "{walk:?}");
        assert_eq!(walk.functions().len(), 3);
        assert!(report.help.unwrap().contains("--allow no-black-hole"));
    };
    let given_up = async || -> Vec<(Property, String)> {
        let status: StatusReport = get(&router, "/v1alpha1/status").await.unwrap();
        let all = status.given_up.into_iter();
        all.map(|given_up| (given_up.promise.property, given_up.by)).collect()
    };
    let sources = vec![without_a_way_out(), example("functions.yaml"), example("tenants.yaml")];
    let inventory = ApplyRequest { sources, ..ApplyRequest::default() };
    let _: ApplyReport = post(&router, "/v1alpha1/apply", &inventory).await.unwrap();
    let chain = ApplyRequest { sources: vec![example("chain.yaml")], ..ApplyRequest::default() };
    for dry_run in [true, false] {
        refused(post(&router, "/v1alpha1/apply", &ApplyRequest { dry_run, ..chain.clone() }).await);
    }
    let of_chains: Vec<ResourceReport> = get(&router, "/v1alpha1/resources/chains").await.unwrap();
    assert_eq!((of_chains, given_up().await), (Vec::new(), Vec::new()), "nothing was touched");

    // Who asked in this process is on record, and when; until it holds again.
    let before = Timestamp::now();
    let allow = BTreeSet::from([Property::NoBlackHole]);
    let allowed = ApplyRequest { allow, ..chain };
    let report: ApplyReport = post(&router, "/v1alpha1/apply", &allowed).await.unwrap();
    assert!(report.given_up.iter().all(|given_up| given_up.at >= before && !given_up.by.is_empty()));
    let recorded: Vec<(Property, String)> =
        report.given_up.into_iter().map(|given_up| (given_up.promise.property, given_up.by)).collect();
    assert!(!recorded.is_empty());
    assert_eq!(given_up().await, recorded);
    let repaired = ApplyRequest { sources: vec![example("network.yaml")], ..ApplyRequest::default() };
    let _: ApplyReport = post(&router, "/v1alpha1/apply", &repaired).await.unwrap();
    assert_eq!(given_up().await, []);

    // Breaking what held is refused whatever breaks it.
    let broken = ApplyRequest { sources: vec![without_a_way_out()], ..ApplyRequest::default() };
    refused(post(&router, "/v1alpha1/apply", &broken).await);
}

#[tokio::test]
async fn what_was_verified_can_be_had_whole() {
    let (_world, router) = applied().await;
    for query in ["", "?observed=true"] {
        let report: VerifyReport = get(&router, &format!("/v1alpha1/verify{query}")).await.unwrap();
        let network: VerifiedNetwork =
            get(&router, &format!("/v1alpha1/verify/network{query}")).await.unwrap();
        assert_eq!(network.report, report);
        let busy = network.state.elements.values().filter(|state| !state.is_empty()).count();
        assert_eq!((network.resources.len() > 20, busy), (true, 6));
    }
}

#[tokio::test]
async fn a_dry_run_changes_nothing() {
    let world = World::default();
    let router = router(world.controller().await);
    let request = ApplyRequest { dry_run: true, ..everything() };
    let report: ApplyReport = post(&router, "/v1alpha1/apply", &request).await.unwrap();
    assert!(report.dry_run && !report.plan.0.is_empty());
    let all: Vec<ResourceReport> = get(&router, "/v1alpha1/resources").await.unwrap();
    assert_eq!(all, []);
}

#[tokio::test]
async fn errors_say_what_to_do() {
    let (world, router) = applied().await;
    let expect = |result: Result<serde_json::Value, (StatusCode, Box<ErrorReport>)>, expected: StatusCode| {
        let (status, report) = result.unwrap_err();
        assert_eq!(status, expected, "{report:?}");
        assert!(!report.error.is_empty() && report.help.is_some(), "{report:?}");
        report
    };
    expect(get(&router, "/v1alpha1/resources/elephants").await, StatusCode::NOT_FOUND);
    expect(get(&router, "/v1alpha1/resources/chains/none").await, StatusCode::NOT_FOUND);
    expect(get(&router, "/v1alpha1/nothing").await, StatusCode::NOT_FOUND);
    expect(get(&router, "/v1alpha1/apply").await, StatusCode::METHOD_NOT_ALLOWED);
    expect(get(&router, "/v1alpha1/events?folow=true").await, StatusCode::BAD_REQUEST);
    let request = serde_json::json!({"sources": [], "dry_run": true});
    expect(post(&router, "/v1alpha1/apply", &request).await, StatusCode::BAD_REQUEST);
    expect(
        post(&router, "/v1alpha1/delete", &named("elephant", "x")).await,
        StatusCode::UNPROCESSABLE_ENTITY,
    );

    let report = expect(post(&router, "/v1alpha1/delete", &named("sf", "fw")).await, StatusCode::CONFLICT);
    assert_eq!(report.diagnostics[0].labels[0].source, "chain.yaml");

    let mut bad = example("chain.yaml");
    bad.text = bad.text.replace("functions: [fw,", "functions: [fv,");
    let request = ApplyRequest { sources: vec![bad], ..ApplyRequest::default() };
    let report = expect(post(&router, "/v1alpha1/apply", &request).await, StatusCode::UNPROCESSABLE_ENTITY);
    let label = &report.diagnostics[0].labels[0];
    assert_eq!(label.source, "chain.yaml");
    assert_eq!(&label.excerpt[label.column - 1..][..label.length], "fv");

    let mut edited = example("chain.yaml");
    edited.text = edited.text.replace("[fw, ips, web]", "[ips, fw, web]");
    let request = ApplyRequest { sources: vec![edited], ..ApplyRequest::default() };
    world.element(&"br-int".parse().unwrap()).fail(0, Fault::Refuse);
    let report = expect(post(&router, "/v1alpha1/apply", &request).await, StatusCode::INTERNAL_SERVER_ERROR);
    assert!(report.error.contains("everything was rolled back"), "{report:?}");
    world.element(&"br-int".parse().unwrap()).cut_off();
    expect(post(&router, "/v1alpha1/apply", &request).await, StatusCode::SERVICE_UNAVAILABLE);
}

#[tokio::test]
async fn bodies_are_json_and_not_endless() {
    let router = router(World::default().controller().await);
    let request = |body: Vec<u8>| Request::post("/v1alpha1/apply").body(Body::from(body)).unwrap();
    let (status, _) = send(&router, request(b"{}".to_vec())).await;
    assert_eq!(status, StatusCode::UNSUPPORTED_MEDIA_TYPE);

    let status = async |body: Vec<u8>| {
        let request = Request::post("/v1alpha1/apply").header(header::CONTENT_TYPE, "application/json");
        send(&router, request.body(Body::from(body)).unwrap()).await.0
    };
    // What fits is read, and found to be no JSON; that much would not fit if the limit were axum's own.
    assert_eq!(status(vec![b'x'; 3 << 20]).await, StatusCode::BAD_REQUEST);
    assert_eq!(status(vec![b'x'; BODY_LIMIT + 1]).await, StatusCode::PAYLOAD_TOO_LARGE);
}

#[tokio::test]
async fn events_are_lines_of_json() {
    let (_world, router) = applied().await;
    let lines = async |query: &str| -> Vec<EventReport> {
        let path = format!("/v1alpha1/events{query}");
        let (status, body) = send(&router, Request::get(path).body(Body::empty()).unwrap()).await;
        assert_eq!(status, StatusCode::OK);
        let text = String::from_utf8(body).unwrap();
        text.lines().map(|line| serde_json::from_str(line).unwrap()).collect()
    };
    let all = lines("").await;
    assert_eq!(
        all.iter().map(|event| event.kind).collect::<Vec<_>>(),
        [EventKind::Started, EventKind::Applied]
    );
    assert_eq!(lines(&format!("?after={}", all[0].id)).await, all[1..]);
}

/// A served controller, until it is stopped.
struct Server {
    stop: oneshot::Sender<()>,
    served: tokio::task::JoinHandle<()>,
}

impl Server {
    async fn start(listeners: Vec<Listener>) -> Self {
        let controller = World::default().controller().await;
        let (stop, stopped) = oneshot::channel::<()>();
        let stopped = async move { drop(stopped.await) };
        Self { stop, served: tokio::spawn(serve(controller, listeners, stopped)) }
    }

    async fn stop(self) {
        self.stop.send(()).unwrap();
        tokio::time::timeout(Duration::from_secs(5), self.served).await.unwrap().unwrap();
    }
}

fn socket_in(directory: &tempfile::TempDir) -> PathBuf {
    directory.path().join("run").join("catena.sock")
}

async fn ask_status(stream: &mut (impl AsyncReadExt + AsyncWriteExt + Unpin)) -> String {
    ask_status_of(stream, "localhost").await
}

async fn ask_status_of(stream: &mut (impl AsyncReadExt + AsyncWriteExt + Unpin), host: &str) -> String {
    let request = format!("GET /v1alpha1/status HTTP/1.1\r\nhost: {host}\r\nconnection: close\r\n\r\n");
    stream.write_all(request.as_bytes()).await.unwrap();
    let mut answer = String::new();
    stream.read_to_string(&mut answer).await.unwrap();
    answer
}

#[tokio::test]
async fn sockets_answer() {
    let directory = tempfile::tempdir().unwrap();
    let path = socket_in(&directory);
    let tcp = Listener::tcp("127.0.0.1:0".parse().unwrap(), []).await.unwrap();
    let address = tcp.tcp_address().unwrap();
    let server = Server::start(vec![Listener::unix(&path).unwrap(), tcp]).await;
    let answer = ask_status(&mut UnixStream::connect(&path).await.unwrap()).await;
    assert!(answer.starts_with("HTTP/1.1 200") && answer.contains("\"converged\":true"), "{answer}");
    let answer = ask_status(&mut TcpStream::connect(address).await.unwrap()).await;
    assert!(answer.starts_with("HTTP/1.1 200"), "{answer}");
    server.stop().await;
}

#[tokio::test]
async fn over_tcp_only_own_names_are_answered() {
    let directory = tempfile::tempdir().unwrap();
    let path = socket_in(&directory);
    let tcp = Listener::tcp("127.0.0.1:0".parse().unwrap(), ["ours.example".to_owned()]).await.unwrap();
    let address = tcp.tcp_address().unwrap();
    let server = Server::start(vec![Listener::unix(&path).unwrap(), tcp]).await;
    let ask = async |host: &str| ask_status_of(&mut TcpStream::connect(address).await.unwrap(), host).await;
    for host in [address.to_string().as_str(), "localhost:8642", "ours.example"] {
        let answer = ask(host).await;
        assert!(answer.starts_with("HTTP/1.1 200"), "{host}: {answer}");
    }
    let answer = ask("evil.example:8642").await;
    assert!(answer.starts_with("HTTP/1.1 403") && answer.contains("--allow-host"), "{answer}");
    assert!(!answer.contains("converged"), "{answer}");
    // No browser gets to a unix socket.
    let answer = ask_status_of(&mut UnixStream::connect(&path).await.unwrap(), "evil.example").await;
    assert!(answer.starts_with("HTTP/1.1 200"), "{answer}");
    server.stop().await;
}

#[tokio::test]
async fn the_socket_is_its_owners_alone_and_goes_with_the_server() {
    let directory = tempfile::tempdir().unwrap();
    let path = socket_in(&directory);
    let server = Server::start(vec![Listener::unix(&path).unwrap()]).await;
    let mode = std::fs::metadata(&path).unwrap().permissions().mode();
    assert_eq!(mode & 0o777, 0o600);
    server.stop().await;
    assert_eq!(files(path.parent().unwrap()), Vec::<String>::new());
}

fn files(directory: &Path) -> Vec<String> {
    let names = std::fs::read_dir(directory).unwrap();
    names.map(|entry| entry.unwrap().file_name().into_string().unwrap()).collect()
}

#[tokio::test]
async fn one_socket_has_one_controller() {
    let directory = tempfile::tempdir().unwrap();
    let path = socket_in(&directory);
    let server = Server::start(vec![Listener::unix(&path).unwrap()]).await;
    let error = Listener::unix(&path).unwrap_err();
    assert!(matches!(&error, ListenError::InUse(at) if *at == path), "{error:?}");
    let answer = ask_status(&mut UnixStream::connect(&path).await.unwrap()).await;
    assert!(answer.starts_with("HTTP/1.1 200"), "the first still answers: {answer}");
    server.stop().await;
}

#[tokio::test]
async fn a_socket_that_was_left_over_is_replaced() {
    let directory = tempfile::tempdir().unwrap();
    let path = directory.path().join("catena.sock");
    // Who is killed does not remove it.
    drop(std::os::unix::net::UnixListener::bind(&path).unwrap());
    let server = Server::start(vec![Listener::unix(&path).unwrap()]).await;
    let answer = ask_status(&mut UnixStream::connect(&path).await.unwrap()).await;
    assert!(answer.starts_with("HTTP/1.1 200"), "{answer}");
    server.stop().await;
}

#[tokio::test]
async fn a_file_that_is_no_socket_is_left_alone() {
    let directory = tempfile::tempdir().unwrap();
    let path = directory.path().join("notes");
    std::fs::write(&path, "notes").unwrap();
    let error = Listener::unix(&path).unwrap_err();
    assert!(matches!(error, ListenError::NotASocket(_)), "{error:?}");
    assert_eq!(std::fs::read_to_string(&path).unwrap(), "notes");
}

#[tokio::test]
async fn other_machines_are_not_served() {
    let error = Listener::tcp("0.0.0.0:0".parse().unwrap(), []).await.unwrap_err();
    assert!(matches!(error, ListenError::NotLoopback(_)), "{error:?}");
}

#[tokio::test]
async fn who_follows_events_is_told_and_let_go() {
    let directory = tempfile::tempdir().unwrap();
    let path = socket_in(&directory);
    let server = Server::start(vec![Listener::unix(&path).unwrap()]).await;
    let stream = UnixStream::connect(&path).await.unwrap();
    let (reader, mut writer) = stream.into_split();
    let request = "GET /v1alpha1/events?follow=true HTTP/1.1\r\nhost: catena\r\n\r\n";
    writer.write_all(request.as_bytes()).await.unwrap();
    let mut lines = BufReader::new(reader).lines();
    let started = async {
        while let Some(line) = lines.next_line().await.unwrap() {
            if line.contains("\"kind\":\"started\"") {
                return;
            }
        }
        panic!("the events have ended");
    };
    tokio::time::timeout(Duration::from_secs(5), started).await.unwrap();
    // The stream has no end of its own, and does not keep the server from stopping.
    server.stop().await;
}
