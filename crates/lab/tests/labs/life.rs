//! How labs begin and end.

use std::fs;
use std::io::{BufRead, BufReader};
use std::os::unix::process::CommandExt;
use std::path::{Path, PathBuf};
use std::process::{Child, Stdio};
use std::time::{Duration, Instant};

use catena_lab::{LabError, LabName, LabSpec, down, exec, list, up};
use libtest_mimic::{Failed, Trial};
use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;
use tempfile::TempDir;

use crate::{ensure, lab_run, stdout, succeeds, told};

pub fn trials() -> Vec<Trial> {
    let mut trials = vec![
        Trial::test("a_network_of_three_is_connected", a_network_of_three_is_connected),
        Trial::test("services_listen_when_the_command_starts", services_listen_when_the_command_starts),
        Trial::test("the_exit_code_is_the_commands", the_exit_code_is_the_commands),
        Trial::test("labs_of_one_file_stand_side_by_side", labs_of_one_file_stand_side_by_side),
        Trial::test(
            "run_is_the_machines_but_for_what_is_the_labs",
            run_is_the_machines_but_for_what_is_the_labs,
        ),
        Trial::test(
            "a_daemon_in_a_lab_can_listen_on_a_loopback_address",
            a_daemon_in_a_lab_can_listen_on_a_loopback_address,
        ),
        Trial::test("an_element_may_be_the_labs_own_namespace", an_element_may_be_the_labs_own_namespace),
        Trial::test("a_failing_setup_is_named", a_failing_setup_is_named),
        Trial::test(
            "a_missing_program_is_named_with_its_package",
            a_missing_program_is_named_with_its_package,
        ),
        Trial::test("a_service_that_dies_is_named_with_its_log", a_service_that_dies_is_named_with_its_log),
        Trial::test("a_mistake_in_the_network_is_named", a_mistake_in_the_network_is_named),
        Trial::test("a_lab_stays_up_until_it_is_taken_down", a_lab_stays_up_until_it_is_taken_down),
        Trial::test("a_lab_that_fails_to_come_up_leaves_nothing", a_lab_that_fails_to_come_up_leaves_nothing),
        Trial::test("a_signal_while_it_is_built_ends_a_lab", a_signal_while_it_is_built_ends_a_lab),
    ];
    for signal in [Signal::SIGKILL, Signal::SIGTERM, Signal::SIGINT, Signal::SIGHUP] {
        let trial = move || a_lab_ends_whole(signal);
        trials.push(Trial::test(format!("a_lab_ends_whole_by_{}", signal.as_str().to_lowercase()), trial));
    }
    trials
}

/// left ── middle ── right, where `middle` forwards.
const THREE: &str = r#"
apiVersion: catena/v1alpha1
kind: Host
metadata: {name: left}
spec: {routes: [{to: default, via: 10.0.1.1}, {to: default, via: "2001:db8:1::1"}]}
---
apiVersion: catena/v1alpha1
kind: Element
metadata: {name: middle}
spec: {role: router, driver: {linux: {netns: middle}}}
---
apiVersion: catena/v1alpha1
kind: Link
metadata: {name: a}
spec:
  ends:
    - {node: left, port: eth0, addresses: [10.0.1.2/24, "2001:db8:1::2/64"]}
    - {node: middle, port: a, addresses: [10.0.1.1/24, "2001:db8:1::1/64"]}
---
apiVersion: catena/v1alpha1
kind: Link
metadata: {name: b}
spec:
  mtu: 1400
  ends:
    - {node: middle, port: b, addresses: [10.0.2.1/24, "2001:db8:2::1/64"]}
    - {node: right, port: eth0, addresses: [10.0.2.2/24, "2001:db8:2::2/64"]}
---
apiVersion: catena/v1alpha1
kind: Host
metadata: {name: right}
spec:
  routes: [{to: default, via: 10.0.2.1}, {to: default, via: "2001:db8:2::1"}]
"#;

/// A network file with more in `right`'s spec.
fn three(right: &str) -> Result<(TempDir, PathBuf), Failed> {
    let folder = tempfile::tempdir()?;
    let file = folder.path().join("three.yaml");
    fs::write(&file, format!("{THREE}{right}"))?;
    Ok((folder, file))
}

fn a_network_of_three_is_connected() -> Result<(), Failed> {
    let (_folder, file) = three("")?;
    let script = "
        on left ping -c 1 -W 5 10.0.2.2
        on left ping -c 1 -W 5 2001:db8:2::2
        on right ip -oneline link show eth0
        on left cat /proc/sys/net/ipv4/ip_forward /proc/sys/net/ipv4/conf/eth0/rp_filter
        on middle cat /proc/sys/net/ipv4/ip_forward /proc/sys/net/ipv6/conf/a/forwarding";
    let output = succeeds(&file, script)?;
    ensure(output.matches(" 0% packet loss").count() == 2, &output)?;
    ensure(output.contains("mtu 1400"), &output)?;
    ensure(output.ends_with("0\n0\n1\n1\n"), &output)
}

/// A server that takes its time until it listens.
const SERVICES: &str = r#"
  services:
    - exec python3 -c "import socket, time; time.sleep(0.3); s = socket.create_server(('', 8080)); time.sleep(1000)"
"#;

fn services_listen_when_the_command_starts() -> Result<(), Failed> {
    let (_folder, file) = three(SERVICES)?;
    let script = r#"on left python3 -c "import socket; socket.create_connection(('10.0.2.2', 8080), 1)""#;
    succeeds(&file, script).map(drop)
}

fn the_exit_code_is_the_commands() -> Result<(), Failed> {
    let (_folder, file) = three("")?;
    for (script, code) in [("exit 0", 0), ("exit 7", 7), ("kill -USR1 $$", 128 + 10)] {
        let output = lab_run(&file, script).output()?;
        ensure(output.status.code() == Some(code), told(&output))?;
    }
    Ok(())
}

fn labs_of_one_file_stand_side_by_side() -> Result<(), Failed> {
    let (_folder, file) = three("")?;
    // Each waits until the other is there: they can only both succeed at the same time.
    let meeting = tempfile::tempdir()?;
    let script = |me: &str, other: &str| {
        let place = meeting.path().display();
        format!(
            "on left ip link set eth0 alias {me}
            echo {me} > /run/catena/who
            touch {place}/{me}
            for _ in $(seq 500); do test -e {place}/{other} && break; sleep 0.02; done
            test -e {place}/{other}
            on left ping -c 1 -W 5 10.0.2.2
            on left ip link show eth0 | grep -q 'alias {me}'
            grep -qx {me} /run/catena/who"
        )
    };
    std::thread::scope(|scope| {
        let one = scope.spawn(|| succeeds(&file, &script("one", "two")));
        let two = succeeds(&file, &script("two", "one"));
        let one = one.join().map_err(|_| "panicked")?;
        one.and(two).map(drop)
    })
}

fn run_is_the_machines_but_for_what_is_the_labs() -> Result<(), Failed> {
    let (_folder, file) = three("")?;
    let shared = tempfile::Builder::new().prefix("catena-lab-test-").tempdir_in("/run")?;
    fs::write(shared.path().join("file"), "here")?;
    let script = format!(
        "cat {}/file; ls /run/netns; ls -A /run/catena-lab /sys/fs/bpf 2>&1",
        shared.path().display()
    );
    let output = lab_run(&file, &script).output()?;
    ensure(stdout(&output).starts_with("hereleft\nmiddle\nright\n"), told(&output))?;
    ensure(stdout(&output).contains("/run/catena-lab': No such file"), told(&output))
}

fn a_daemon_in_a_lab_can_listen_on_a_loopback_address() -> Result<(), Failed> {
    let (_folder, file) = three("")?;
    succeeds(&file, "ping -c 1 -W 5 127.0.0.1").map(drop)
}

fn an_element_may_be_the_labs_own_namespace() -> Result<(), Failed> {
    let (_folder, file) = three("")?;
    fs::write(&file, fs::read_to_string(&file)?.replace("{linux: {netns: middle}}", "{linux: {}}"))?;
    let output =
        succeeds(&file, "ping -c 1 -W 5 10.0.1.2; on left ping -c 1 -W 5 10.0.2.2; on middle ip -br link")?;
    ensure(output.matches(" 0% packet loss").count() == 2 && output.contains("lo "), &output)
}

fn a_failing_setup_is_named() -> Result<(), Failed> {
    let (folder, file) = three("  setup:\n    - echo fine\n    - echo because >&2; ls; exit 3\n")?;
    fs::write(folder.path().join("its-folder"), "")?;
    let output = lab_run(&file, "echo started").output()?;
    let line = fs::read_to_string(&file)?.lines().count();
    let told = told(&output);
    ensure(output.status.code() == Some(2) && !told.contains("started"), &told)?;
    let command = "right: the setup command `echo because >&2; ls; exit 3` failed (exit code 3)";
    ensure(told.contains(&format!("three.yaml:{line}: {command}")), &told)?;
    ensure(told.contains("    its-folder\n") && told.contains("    because\n"), &told)
}

fn a_missing_program_is_named_with_its_package() -> Result<(), Failed> {
    for place in ["setup", "services"] {
        let (_folder, file) = three(&format!("  {place}: [\"PATH=/nowhere; nft -f x\"]\n"))?;
        let output = lab_run(&file, "echo started").output()?;
        let told = told(&output);
        ensure(told.contains("nft is not installed") && told.contains("apt-get install nftables"), &told)?;
    }
    Ok(())
}

fn a_service_that_dies_is_named_with_its_log() -> Result<(), Failed> {
    let (_folder, file) = three("  services: [echo no such port; exit 5]\n")?;
    let output = lab_run(&file, "echo started").output()?;
    let told = told(&output);
    ensure(output.status.code() == Some(2) && !told.contains("started"), &told)?;
    let message =
        "right: the service `echo no such port; exit 5` ended at once (exit code 5)\n    no such port\n";
    ensure(told.contains(message), &told)
}

fn a_mistake_in_the_network_is_named() -> Result<(), Failed> {
    let (_folder, file) = three("  setpu: [true]\n")?;
    let output = lab_run(&file, "echo started").output()?;
    let told = told(&output);
    ensure(told.contains("three.yaml:") && told.contains("setpu") && !told.contains("started"), &told)
}

fn a_lab_stays_up_until_it_is_taken_down() -> Result<(), Failed> {
    let (_folder, file) = three("")?;
    let name: LabName = format!("test-{}", std::process::id()).parse()?;
    let marker = Marker::new("up");
    let env = vec![marker.variable()];
    let spec = LabSpec { file, name: Some(name.clone()), env: Vec::new() };
    ensure(up(&spec)? == name, "another name")?;
    let taken_down = Deferred(&name);
    ensure(matches!(up(&spec), Err(LabError::Taken(_))), "up twice")?;
    ensure(list()?.iter().any(|lab| lab.name == name), "not listed")?;

    let left = "left".parse()?;
    let words = |text: &str| text.split(' ').map(Into::into).collect::<Vec<_>>();
    ensure(exec(&name, Some(&left), &env, &words("ping -q -c 1 -W 5 10.0.2.2"))? == 0, "no ping")?;
    ensure(exec(&name, None, &env, &words("test -e /run/netns/left"))? == 0, "not its mounts")?;
    ensure(exec(&name, None, &env, &words("ping -q -c 1 -W 5 10.0.2.2"))? != 0, "pinged from nowhere")?;
    let nowhere = exec(&name, Some(&"nowhere".parse()?), &env, &words("true"));
    ensure(matches!(nowhere, Err(LabError::NoNode { .. })), "a node that does not exist")?;
    // What was left running in it goes with it.
    let leave = ["sh", "-c", "sleep 1000 & sleep 1000 &"].map(Into::into);
    ensure(exec(&name, Some(&left), &env, &leave)? == 0, "cannot start")?;
    ensure(marker.processes().len() == 2, "they do not run")?;

    drop(taken_down);
    marker.await_gone()?;
    ensure(!list()?.iter().any(|lab| lab.name == name), "still listed")?;
    let gone = exec(&name, None, &env, &words("true"));
    ensure(matches!(gone, Err(LabError::NoLab(_))), "still there")
}

struct Deferred<'a>(&'a LabName);

impl Drop for Deferred<'_> {
    fn drop(&mut self) {
        if let Err(error) = down(self.0) {
            eprintln!("{error}");
        }
    }
}

fn a_lab_that_fails_to_come_up_leaves_nothing() -> Result<(), Failed> {
    let (_folder, file) = three("  setup: [\"exit 3\"]\n")?;
    let name: LabName = format!("fails-{}", std::process::id()).parse()?;
    let failed = up(&LabSpec { file, name: Some(name.clone()), env: Vec::new() });
    ensure(matches!(failed, Err(LabError::NotBuilt(_))), "it came up")?;
    ensure(matches!(down(&name), Err(LabError::NoLab(_))), "something is left")
}

/// However `lab run` ends, its command, its services, and what these left behind end with it.
fn a_lab_ends_whole(signal: Signal) -> Result<(), Failed> {
    let marker = Marker::new(signal.as_str());
    let (_folder, file) = three("  services: [sleep 1000, \"setsid sleep 1000 & exec sleep 1000\"]\n")?;
    let mut lab = start(&file, "sleep 1000 & setsid sleep 1000 & echo ready; sleep 1000", &marker)?;
    let before = machine()?;
    ensure(marker.processes().len() >= 8, format!("too few processes: {:?}", marker.processes()))?;
    let process = lab.id().cast_signed();
    // Ctrl-C is for the whole foreground group: a shell waits to see whether what it runs takes it, too.
    kill(Pid::from_raw(if signal == Signal::SIGINT { -process } else { process }), signal)?;
    let status = lab.wait()?;
    marker.await_gone()?;
    if signal != Signal::SIGKILL {
        ensure(status.code() == Some(128 + signal as i32), format!("{status}"))?;
    }
    let after = machine()?;
    ensure(before == after, format!("before: {before:#?}\nafter: {after:#?}"))
}

fn a_signal_while_it_is_built_ends_a_lab() -> Result<(), Failed> {
    let marker = Marker::new("building");
    let (folder, file) = three("  setup: [touch begun; sleep 1000]\n")?;
    let mut lab = marked(&file, "true", &marker).spawn()?;
    let begun = folder.path().join("begun");
    await_that(|| begun.exists(), "the setup never began")?;
    kill(Pid::from_raw(lab.id().cast_signed()), Signal::SIGTERM)?;
    ensure(lab.wait()?.code() == Some(143), "ended otherwise")?;
    marker.await_gone()
}

/// Starts a lab and waits until its command says something.
fn start(file: &Path, script: &str, marker: &Marker) -> Result<Child, Failed> {
    let mut lab = marked(file, script, marker).stdout(Stdio::piped()).spawn()?;
    let stdout = lab.stdout.take().ok_or("no output")?;
    let mut said = String::new();
    BufReader::new(stdout).read_line(&mut said)?;
    ensure(said == "ready\n", said)?;
    Ok(lab)
}

fn marked(file: &Path, script: &str, marker: &Marker) -> std::process::Command {
    let (name, value) = marker.variable();
    let mut lab = lab_run(file, script);
    lab.env(name, value).stderr(Stdio::null()).process_group(0);
    lab
}

/// What of the machine a lab might change: its mounts, and what lies in the folders that labs have of their own. Named
/// namespaces of others come and go meanwhile; those of the labs have these names.
fn machine() -> Result<(String, Vec<bool>), Failed> {
    let mounts = fs::read_to_string("/proc/self/mounts")?;
    let mounts = mounts.lines().filter(|line| line.contains("catena") || line.contains("/left"));
    let places = ["/run/netns/left", "/run/netns/middle", "/run/catena/lab"];
    Ok((mounts.collect(), places.iter().map(|place| Path::new(place).exists()).collect()))
}

/// An environment variable by which the processes of one lab are found, whatever they are.
struct Marker(String);

impl Marker {
    fn new(what: &str) -> Self {
        Self(format!("{what}-{}", std::process::id()))
    }

    fn variable(&self) -> (std::ffi::OsString, std::ffi::OsString) {
        ("CATENA_LAB_TEST".into(), self.0.clone().into())
    }

    fn processes(&self) -> Vec<String> {
        let sought = format!("CATENA_LAB_TEST={}", self.0);
        let processes = fs::read_dir("/proc").into_iter().flatten().flatten().map(|entry| entry.path());
        let marked = processes.filter(|process| {
            let environment = fs::read(process.join("environ")).unwrap_or_default();
            environment.split(|byte| *byte == 0).any(|variable| variable == sought.as_bytes())
        });
        marked.map(|process| fs::read_to_string(process.join("cmdline")).unwrap_or_default()).collect()
    }

    fn await_gone(&self) -> Result<(), Failed> {
        await_that(|| self.processes().is_empty(), "processes are left")
    }
}

fn await_that(condition: impl Fn() -> bool, otherwise: &str) -> Result<(), Failed> {
    let begin = Instant::now();
    while !condition() {
        ensure(begin.elapsed() < Duration::from_secs(10), otherwise)?;
        std::thread::sleep(Duration::from_millis(5));
    }
    Ok(())
}
