//! The command line as people see it: help, errors, exit codes, and a day with a controller whose elements are simulated.
//!
//! What is printed is kept in `snapshots/`; `cargo insta review` shows what a change does to it.

#![allow(clippy::unwrap_used, clippy::panic, reason = "a test fails by panicking")]

use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Output, Stdio};
use std::time::{Duration, Instant};

fn catena(arguments: &[&str]) -> Command {
    let mut command = Command::new(env!("CARGO_BIN_EXE_catena"));
    command.args(arguments).env_remove("RUST_LOG").stdin(Stdio::null());
    for name in ["CATENA_SOCKET", "CATENA_STATE", "CATENA_LAB", "NO_COLOR"] {
        command.env_remove(name);
    }
    command
}

fn printed(output: &Output) -> String {
    let text = |bytes: &[u8]| String::from_utf8(bytes.to_vec()).unwrap();
    format!("exit code {}\n{}{}", output.status.code().unwrap(), text(&output.stdout), text(&output.stderr))
}

/// Checks text, written below a name that is a file's.
fn validate(text: &str) -> String {
    let folder = tempfile::tempdir().unwrap();
    std::fs::write(folder.path().join("chain.yaml"), text).unwrap();
    let output = catena(&["validate", "-f", "chain.yaml"]).current_dir(folder.path()).output().unwrap();
    printed(&output)
}

#[test]
fn help() {
    insta::assert_snapshot!(printed(&catena(&["--help"]).output().unwrap()));
}

#[test]
fn every_command_shows_an_example() {
    let lab = ["run", "up", "exec", "down"].map(|name| vec!["lab", name]);
    let commands = [
        "validate", "plan", "apply", "delete", "get", "describe", "explain", "top", "trace", "verify",
        "status", "events", "serve",
    ];
    for command in commands.map(|name| vec![name]).into_iter().chain(lab) {
        let output = catena(&[&command[..], &["--help"]].concat()).output().unwrap();
        let text = printed(&output);
        let own = format!("catena {}", command.join(" "));
        let example = text.split_once("Example").map_or("", |(_, example)| example);
        assert!(example.contains(&own), "{own}: {text}");
    }
}

#[test]
fn help_of_apply() {
    insta::assert_snapshot!(printed(&catena(&["apply", "--help"]).output().unwrap()));
}

#[test]
fn all_mistakes_are_shown_at_once() {
    insta::assert_snapshot!(validate(
        "apiVersion: catena/v1alpha1\nkind: Chain\nmetadata: {name: web}\nspec:\n  tenat: acme\n  functions: [fw]\n\
         ---\napiVersion: catena/v1alpha1\nkind: Tenant\nmetadata: {name: acme}\nspec:\n  prefixes: [172.16.1.7/24]\n"
    ));
}

#[test]
fn a_name_that_nothing_has() {
    insta::assert_snapshot!(validate(
        "apiVersion: catena/v1alpha1\nkind: Tenant\nmetadata: {name: acme}\nspec: {prefixes: [172.16.1.0/24]}\n\
         ---\napiVersion: catena/v1alpha1\nkind: Chain\nmetadata: {name: web}\nspec: {tenant: acne, functions: [fw]}\n"
    ));
}

#[test]
fn exit_codes() {
    let folder = tempfile::tempdir().unwrap();
    let empty = folder.path().display().to_string();
    let socket = folder.path().join("no.sock").display().to_string();
    for (code, arguments) in [
        (0, vec!["--version"]),
        (1, vec!["validate", "-f", "/no/such/file.yaml"]),
        (1, vec!["validate", "-f", &empty]),
        (2, vec![]),
        (2, vec!["apply"]),
        (2, vec!["delete", "chain"]),
        (2, vec!["serve", "--listen", "0.0.0.0:80"]),
        (2, vec!["top", "--interval", "0"]),
        (3, vec!["--socket", &socket, "status"]),
    ] {
        let output = catena(&arguments).output().unwrap();
        assert_eq!(output.status.code(), Some(code), "{arguments:?}: {}", printed(&output));
    }
}

#[test]
fn without_a_daemon_the_way_out_is_named() {
    insta::assert_snapshot!(printed(
        &catena(&["--socket", "/no/such.sock", "get", "chains"]).output().unwrap()
    ));
}

#[test]
fn colours_are_for_terminals_alone() {
    let output = catena(&["--socket", "/no/such.sock", "status"]).output().unwrap();
    assert!(!printed(&output).contains('\u{1b}'));
    let output =
        catena(&["--socket", "/no/such.sock", "status"]).env("CLICOLOR_FORCE", "1").output().unwrap();
    assert!(printed(&output).contains('\u{1b}'));
}

#[test]
fn only_root_builds_labs() {
    if !nix::unistd::Uid::effective().is_root() {
        let output = catena(&["lab", "run", "-f", "network.yaml"]).output().unwrap();
        assert!(printed(&output).contains("root"), "{}", printed(&output));
        return;
    }
    // As somebody who may do nothing.
    let mut command = catena(&["lab", "run", "-f", "network.yaml"]);
    std::os::unix::process::CommandExt::uid(&mut command, 65534);
    let output = command.output();
    // The build folder may be closed to that user; then there is nothing to see.
    if let Ok(output) = output {
        assert!(printed(&output).contains("root"), "{}", printed(&output));
    }
}

/// A daemon with the paper's network, its elements simulated, in a folder of its own.
struct Day {
    folder: tempfile::TempDir,
    daemon: Child,
}

impl Day {
    fn begin() -> Self {
        let folder = tempfile::tempdir().unwrap();
        let paper = Path::new(env!("CARGO_MANIFEST_DIR")).join("../../examples/paper");
        for name in ["network.yaml", "functions.yaml", "tenants.yaml", "chain.yaml"] {
            let text = std::fs::read_to_string(paper.join(name)).unwrap();
            std::fs::write(folder.path().join(name), simulated(&text)).unwrap();
        }
        let daemon = Self::command(folder.path(), &["serve"]).stderr(Stdio::null()).spawn().unwrap();
        let day = Self { folder, daemon };
        let start = Instant::now();
        while !day.socket().exists() {
            assert!(start.elapsed() < Duration::from_secs(20), "the daemon does not listen");
            std::thread::sleep(Duration::from_millis(10));
        }
        day
    }

    fn command(folder: &Path, arguments: &[&str]) -> Command {
        let mut command = catena(arguments);
        command.current_dir(folder).env("CATENA_SOCKET", "catena.sock").env("CATENA_STATE", "state");
        command
    }

    fn socket(&self) -> PathBuf {
        self.folder.path().join("catena.sock")
    }

    /// What a command prints, with its command line.
    fn says(&self, line: &str) -> String {
        let arguments: Vec<&str> = line.split_whitespace().collect();
        let output = Self::command(self.folder.path(), &arguments).output().unwrap();
        format!("$ catena {line}\n{}\n", printed(&output))
    }

    fn say_all(&self, lines: &[&str]) -> String {
        lines.iter().map(|line| self.says(line)).collect()
    }
}

impl Drop for Day {
    fn drop(&mut self) {
        self.daemon.kill().unwrap();
        self.daemon.wait().unwrap();
    }
}

fn simulated(text: &str) -> String {
    let line = |line: &str| match line.split_once("driver:") {
        Some((indent, _)) if indent.trim().is_empty() => format!("{indent}driver: simulated\n"),
        _ => format!("{line}\n"),
    };
    text.lines().map(line).collect()
}

#[test]
fn a_chain_is_planned_applied_shown_and_deleted() {
    let day = Day::begin();
    let inventory = day.says("apply -f network.yaml -f functions.yaml -f tenants.yaml");
    assert!(
        inventory
            .starts_with("$ catena apply -f network.yaml -f functions.yaml -f tenants.yaml\nexit code 0\n")
    );
    insta::assert_snapshot!(day.say_all(&[
        "plan -f chain.yaml",
        "apply -f chain.yaml",
        "apply -f chain.yaml",
        "get chains",
        "get chain acme-web -o yaml",
        "get functions",
        "describe chain acme-web",
        "describe function ips",
        "trace --from 172.16.1.10 --to 198.51.100.10 --port 80 --source-port 40000",
        "delete function ips",
        "delete chain acme-web --dry-run",
        "delete chain acme-web",
        "delete chain acme-web",
        "get chain acme-web",
        "get counters acme-web",
        "get nonsense",
        "get",
    ]));
}

#[test]
fn json_and_yaml_are_what_they_say() {
    let day = Day::begin();
    day.says("apply -f .");
    for line in [
        "get chains",
        "get counters",
        "status",
        "events",
        "explain acme-web",
        "plan",
        "trace --from 172.16.1.10 --to 198.51.100.10",
    ] {
        let json =
            Day::command(day.folder.path(), &line.split(' ').chain(["-o", "json"]).collect::<Vec<_>>())
                .output()
                .unwrap();
        assert!(json.status.success(), "{line}: {}", printed(&json));
        // `events` prints one JSON a line.
        let values = serde_json::Deserializer::from_slice(&json.stdout).into_iter::<serde_json::Value>();
        assert!(values.map(Result::unwrap).count() > 0, "{line}: {}", printed(&json));
        let yaml =
            Day::command(day.folder.path(), &line.split(' ').chain(["-o", "yaml"]).collect::<Vec<_>>())
                .output()
                .unwrap();
        assert!(yaml.status.success(), "{line}: {}", printed(&yaml));
    }
    // What `get -o yaml` prints can be applied.
    let yaml = Day::command(day.folder.path(), &["get", "chains", "-o", "yaml"]).output().unwrap();
    std::fs::write(day.folder.path().join("chain.yaml"), &yaml.stdout).unwrap();
    let again = day.says("apply -f chain.yaml");
    assert!(again.contains("nothing had to be installed"), "{again}");
}

#[test]
fn a_second_daemon_is_refused() {
    let day = Day::begin();
    let output = Day::command(day.folder.path(), &["serve"]).output().unwrap();
    assert_eq!(output.status.code(), Some(1), "{}", printed(&output));
    assert!(printed(&output).contains("already"), "{}", printed(&output));
    // The first one goes on.
    assert!(day.says("status").contains("exit code 0"));
}

#[test]
fn without_a_daemon_the_state_is_kept_between_commands() {
    let folder = tempfile::tempdir().unwrap();
    let state = folder.path().join("state").display().to_string();
    let tenant = folder.path().join("tenant.yaml");
    let text = "apiVersion: catena/v1alpha1\nkind: Tenant\nmetadata: {name: acme}\nspec: {prefixes: [172.16.1.0/24]}\n";
    std::fs::write(&tenant, text).unwrap();
    let local = |arguments: &[&str]| {
        let output = catena(&[&["--local", "--state", &state], arguments].concat()).output().unwrap();
        printed(&output)
    };
    // Who only looks leaves nothing behind.
    assert!(local(&["get", "tenants"]).contains("there are none"));
    assert!(local(&["plan", "-f", &tenant.display().to_string()]).contains("exit code 0"));
    assert!(!Path::new(&state).exists());
    assert!(local(&["apply", "-f", &tenant.display().to_string()]).contains("created"));
    let mode = |path: PathBuf| std::fs::metadata(path).unwrap().permissions().mode() & 0o777;
    assert_eq!(mode(PathBuf::from(&state)), 0o700);
    assert_eq!(mode(Path::new(&state).join("catena.redb")), 0o600);
    assert!(local(&["get", "tenants"]).contains("acme"));
    assert!(local(&["status"]).contains("no controller runs here"));
}

/// The paper's network, where the gateway does not know the way to the Internet: what passes a chain is lost there.
fn without_a_way_out(network: &str) -> String {
    let (before, gateway) = network.split_once("metadata: {name: gateway}").unwrap();
    let (spec, after) = gateway.split_once("---").unwrap();
    let lines = spec.lines().filter(|line| !line.contains("to: default"));
    format!("{before}metadata: {{name: gateway}}{}\n---{after}", lines.collect::<Vec<_>>().join("\n"))
}

#[test]
fn what_would_break_a_promise_is_refused_and_shown() {
    let day = Day::begin();
    let network = std::fs::read_to_string(day.folder.path().join("network.yaml")).unwrap();
    std::fs::write(day.folder.path().join("lost.yaml"), without_a_way_out(&network)).unwrap();
    day.says("apply -f lost.yaml -f functions.yaml -f tenants.yaml");
    let whoever = format!("(uid {})", nix::unistd::Uid::effective());
    let day_of_refusals = day.say_all(&[
        "plan -f chain.yaml",
        "apply -f chain.yaml",
        "apply -f chain.yaml --allow no-black-holes",
        "get chains",
        "apply -f chain.yaml --allow no-black-hole --allow degraded",
    ]);
    insta::assert_snapshot!(day_of_refusals);
    let status = day.says("status");
    assert!(status.contains("given up") && status.contains("no-black-hole"), "{status}");
    assert!(status.contains(&whoever), "{status}");
    let repaired = day.says("apply -f network.yaml");
    assert!(repaired.contains("exit code 0") && repaired.contains("proven: 1 chain"), "{repaired}");
    assert!(!day.says("status").contains("given up"));
    assert!(day.says("events").contains("holdsAgain"));
}

/// What is told of a chain, once it has been verified, with how long ago taken out.
fn explained(day: &Day, line: &str) -> String {
    let start = Instant::now();
    loop {
        let said = day.says(line);
        if !said.contains("was not verified since") {
            let aged = |line: &str| match (line.split_once(" for "), line.starts_with("Proven")) {
                (Some((verdict, rest)), true) => {
                    format!("{verdict} for …{}", &rest[rest.find(',').unwrap()..])
                }
                _ => line.to_owned(),
            };
            return said.lines().map(aged).collect::<Vec<_>>().join("\n");
        }
        assert!(start.elapsed() < Duration::from_secs(20), "{said}");
        std::thread::sleep(Duration::from_millis(20));
    }
}

#[test]
fn a_chain_is_explained() {
    let day = Day::begin();
    let globex = "apiVersion: catena/v1alpha1\nkind: Chain\nmetadata: {name: globex-all}\nspec: {tenant: globex, functions: \
                  [web, ips]}\n";
    std::fs::write(day.folder.path().join("globex.yaml"), globex).unwrap();
    day.says("apply -f network.yaml -f functions.yaml -f tenants.yaml -f chain.yaml -f globex.yaml");
    let said =
        ["explain acme-web", "explain globex-all", "explain nothing"].map(|line| explained(&day, line));
    insta::assert_snapshot!(said.join("\n\n"));
    let status = day.says("status");
    assert!(status.contains("VERDICT") && status.contains("proven"), "{status}");
}

#[test]
fn verify_ends_with_what_it_found() {
    let day = Day::begin();
    let write = |name: &str, text: String| std::fs::write(day.folder.path().join(name), text).unwrap();
    let network = std::fs::read_to_string(day.folder.path().join("network.yaml")).unwrap();
    write("lost.yaml", without_a_way_out(&network));
    // Two ways that are equally good: nobody knows which one packets take.
    let way = "    - {to: default, via: 203.0.113.13}\n";
    let other = "    - {to: default, via: 10.23.0.1}\n";
    write("unclear.yaml", network.replace(way, &format!("{way}{other}")));
    for (code, verdict, network) in
        [(0, "proven: ", "network.yaml"), (1, "violated: ", "lost.yaml"), (2, "undecided: ", "unclear.yaml")]
    {
        let line = format!("verify -f {network} -f functions.yaml -f tenants.yaml -f chain.yaml");
        let said = day.says(&line);
        assert!(said.contains(&format!("exit code {code}\n{verdict}")), "{said}");
    }
    // Without a chain nothing is promised.
    let said = day.says("verify -f network.yaml -f functions.yaml -f tenants.yaml");
    assert!(
        said.contains("exit code 0\nnothing to prove: there is no chain here that promises anything\n"),
        "{said}"
    );
    assert!(!said.contains("proven") && !said.contains("but for"), "{said}");
    // Without files, the controller is asked.
    day.says("apply -f network.yaml -f functions.yaml -f tenants.yaml -f chain.yaml");
    let planned = day.says("plan -f unclear.yaml");
    assert!(planned.contains("exit code 0\n") && planned.contains("undecided: chain acme-web"), "{planned}");
    for line in ["verify", "verify --observed", "verify --observed --tenant acme -o json"] {
        assert!(day.says(line).contains("exit code 0\n"), "{}", day.says(line));
    }
}
