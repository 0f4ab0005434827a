//! Packets that show violations, sent for real in copies of networks: by `catena verify --replay`, and by what it is made of.
//! Needs root.

#![allow(clippy::unwrap_used, clippy::panic, reason = "a test fails by panicking")]

mod lab;

use std::collections::BTreeMap;
use std::fs;
use std::os::unix::fs::PermissionsExt;
use std::os::unix::process::CommandExt;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::time::{Duration, Instant};

use catena::linux::OfCopies;
use catena_model::base::BaseRouting;
use catena_model::forwarding::{ForwardingState, Object, OnFailure};
use catena_model::name::NodeName;
use catena_model::numbering::Numbering;
use catena_model::resource::{Attachment, Model, Source, load};
use catena_model::topology::Topology;
use catena_replay::{Outcome, Replayed, Replica, own_bpf_file_system};
use catena_verify::{Network, Property, Violation, verify};
use nix::sys::signal::{Signal, killpg};
use nix::unistd::Pid;
use serde_json::Value;
use tempfile::TempDir;

use lab::printed;

const EXAMPLES: &str = concat!(env!("CARGO_MANIFEST_DIR"), "/../../examples");

/// A copy of the paper's files, to be changed.
struct Files(TempDir);

impl Files {
    fn paper() -> Self {
        let folder = tempfile::tempdir().unwrap();
        let mut copy = Command::new("cp");
        copy.args(["-r", &format!("{EXAMPLES}/paper/.")]).arg(folder.path());
        assert!(copy.status().unwrap().success());
        fs::remove_file(folder.path().join("globex-chain.yaml")).unwrap();
        Self(folder)
    }

    fn path(&self) -> &Path {
        self.0.path()
    }

    fn edit(&self, name: &str, change: impl Fn(&str) -> String) {
        let path = self.path().join(name);
        let text = fs::read_to_string(&path).unwrap();
        let changed = change(&text);
        assert_ne!(changed, text, "nothing of {name} was changed");
        fs::write(path, changed).unwrap();
    }

    /// The gateway does not know the way to the Internet: what passes the chain is lost there.
    fn lose_the_way_out(&self) {
        self.edit("network.yaml", |network| network.replace("    - {to: default, via: 203.0.113.13}\n", ""));
    }

    fn verify(&self) -> Command {
        let mut command = Command::new(env!("CARGO_BIN_EXE_catena"));
        command.args(["verify", "--replay", "-f", "."]).current_dir(self.path());
        command.env_remove("RUST_LOG").stdin(Stdio::null());
        command
    }
}

#[test]
fn a_packet_that_is_lost_is_seen_to_be_lost() {
    let files = Files::paper();
    files.lose_the_way_out();
    let output = files.verify().output().unwrap();
    let said = printed(&output);
    assert_eq!(output.status.code(), Some(1), "{said}");
    assert!(said.contains("no-black-hole: chain acme-web"), "{said}");
    assert!(said.contains("replay: 1 of 1 packets went as predicted"), "{said}");
    let last = said.lines().rfind(|line| line.contains("gateway by sw")).unwrap();
    assert_eq!(last.matches("gateway by sw").count(), 2, "predicted, and seen: {said}");
}

/// What the verifier does not look into: a firewall that lets nothing pass.
#[test]
fn a_packet_that_goes_another_way_is_told() {
    let files = Files::paper();
    files.lose_the_way_out();
    files.edit("functions/fw.nft", |rules| rules.replace("policy accept", "policy drop"));
    let output = files.verify().args(["-o", "json"]).output().unwrap();
    assert_eq!(output.status.code(), Some(2), "{}", printed(&output));
    let answer: Value = serde_json::from_slice(&output.stdout).unwrap();
    assert_eq!(answer["verdict"], "violated");
    let packet = &answer["replay"]["packets"][0];
    assert_eq!(packet["outcome"], "otherwise");
    let ports = |which: &str| -> Vec<String> {
        let ports = packet[which]["ports"].as_array().unwrap().iter();
        ports.map(|arrival| arrival["node"].as_str().unwrap().to_owned()).collect()
    };
    assert_eq!(ports("predicted").last().unwrap(), "gateway");
    assert_eq!(ports("seen").last().unwrap(), "fw-1");
    let said = printed(&files.verify().output().unwrap());
    assert!(said.contains("it was to come to br-int by fw1-out, and came to nowhere"), "{said}");
}

#[test]
fn nothing_is_built_where_there_is_nothing_to_send() {
    let files = Files::paper();
    // Would fail, if the copy were built.
    files.edit("network.yaml", |network| network.replace("nft -f functions/fw.nft", "false"));
    let output = files.verify().output().unwrap();
    assert!(output.status.success(), "{}", printed(&output));
    assert!(printed(&output).contains("so none was sent"), "{}", printed(&output));
    files.lose_the_way_out();
    let output = files.verify().output().unwrap();
    assert_eq!(output.status.code(), Some(2), "{}", printed(&output));
    let said = printed(&output);
    assert!(said.contains("fw-1: the setup command `false` failed"), "{said}");
    assert!(said.contains("no-black-hole: chain acme-web"), "what holds is known all the same: {said}");
}

#[test]
fn who_is_not_root_is_told_so() {
    let files = Files::paper();
    files.lose_the_way_out();
    fs::set_permissions(files.path(), fs::Permissions::from_mode(0o755)).unwrap();
    // As somebody who may do nothing. The build folder may be closed to that user; then there is nothing to see.
    let Ok(output) = files.verify().uid(65534).output() else { return };
    let said = printed(&output);
    assert_eq!(output.status.code(), Some(2), "{said}");
    assert!(said.contains("takes root") && said.contains("no-black-hole: chain acme-web"), "{said}");
}

/// What `verify --observed --replay` says in a lab whose chain is installed, and where a foreign rule stands before ours: the
/// packets are sent in a copy, and the lab sees nothing of them.
fn replayed_with_a_rule_in_front(engine: &str) -> Value {
    const SCRIPT: &str = r#"
        "$CATENA" apply --local -f . > /dev/null
        ip -n access-a route add 198.51.100.64/26 via 203.0.113.1 table 100
        ip -n access-a rule add from 172.16.1.0/24 lookup 100 priority 100
        passed() { ip -n "$1" -s -j link show "$2" | tr -d ' \n' | grep -o '"rx":{"bytes":[0-9]*'; }
        before="$(passed access-a lan)"
        code=0
        "$CATENA" verify --local --observed --replay -o json || code=$?
        [ "$(passed access-a lan)" = "$before" ]
        [ "$(ls /run/netns | wc -l)" = "$NODES" ]
        exit "$code"
    "#;
    let files = Files::paper();
    files.edit("network.yaml", |network| {
        network.replace("{netns: access-a}", &format!("{{netns: access-a, engine: {engine}}}"))
    });
    let network = fs::read_to_string(files.path().join("network.yaml")).unwrap();
    let nodes = network.lines().filter(|line| ["kind: Element", "kind: Host"].contains(line)).count();
    let output = lab::run(files.path(), &format!("NODES={nodes}\n{SCRIPT}"));
    assert_eq!(output.status.code(), Some(1), "{}", printed(&output));
    let answer: Value = serde_json::from_slice(&output.stdout).unwrap();
    let packets = answer["replay"]["packets"].as_array().unwrap();
    assert_eq!(packets.len(), answer["violations"].as_array().unwrap().len());
    for packet in packets {
        assert_eq!(packet["outcome"], "asPredicted", "{packet:#}");
    }
    let seen = packets[0]["seen"]["ports"].as_array().unwrap();
    assert!(seen.iter().all(|arrival| arrival["node"] != "br-int"), "{seen:?}");
    answer
}

#[test]
fn what_is_installed_is_copied_with_what_others_have_done_to_it() {
    let shown = &replayed_with_a_rule_in_front("rules")["violations"][0];
    assert_eq!((&shown["property"], &shown["walk"]["kind"]), (&"no-bypass".into(), &Value::Null));
}

/// The rule gets only what the routing engine leaves to the kernel.
#[test]
fn a_packet_with_options_is_sent_as_such() {
    let shown = &replayed_with_a_rule_in_front("steer")["violations"][0];
    assert_eq!((&shown["property"], &shown["walk"]["kind"]), (&"no-bypass".into(), &"options".into()));
}

#[test]
fn what_nft_does_not_let_out_is_seen_to_be_dropped() {
    let shown = &replayed_with_a_rule_in_front("nft")["violations"][0];
    assert_eq!((&shown["property"], &shown["walk"]["kind"]), (&"no-black-hole".into(), &Value::Null));
}

#[test]
fn an_interrupt_leaves_nothing_behind() {
    let files = Files::paper();
    files.lose_the_way_out();
    files.edit("network.yaml", |network| {
        network.replace("nft -f functions/fw.nft", "'readlink /proc/self/ns/net > netns; exec sleep 60'")
    });
    let mut verify = files.verify().process_group(0).spawn().unwrap();
    let started = Instant::now();
    let netns = loop {
        let named = fs::read_to_string(files.path().join("netns")).unwrap_or_default();
        if named.ends_with('\n') {
            break named.trim().to_owned();
        }
        assert!(started.elapsed() < Duration::from_secs(20), "the copy is not built");
        std::thread::sleep(Duration::from_millis(10));
    };
    assert!(is_used(&netns));
    // As Ctrl-C on a terminal does.
    killpg(Pid::from_raw(verify.id().cast_signed()), Signal::SIGINT).unwrap();
    assert!(!verify.wait().unwrap().success());
    assert!(!is_used(&netns), "somebody is still in a namespace of the copy");
}

/// Whether some process is in a network namespace, or keeps it open.
fn is_used(netns: &str) -> bool {
    let links = |process: &Path| {
        let open = fs::read_dir(process.join("fd")).into_iter().flatten().flatten().map(|entry| entry.path());
        open.chain([process.join("ns/net")]).collect::<Vec<PathBuf>>()
    };
    let processes = fs::read_dir("/proc").unwrap().flatten().map(|entry| entry.path());
    let mut used = processes.flat_map(|process| links(&process));
    used.any(|link| fs::read_link(link).is_ok_and(|target| target.as_os_str() == netns))
}

/// A network as it stands in files, to be damaged.
struct World {
    model: Model,
    topology: Topology,
    state: ForwardingState,
    base: BTreeMap<NodeName, BaseRouting>,
    numbering: Numbering,
}

impl World {
    fn of(files: &[&str]) -> Self {
        let source =
            |name: &&str| Source::new(*name, fs::read_to_string(format!("{EXAMPLES}/{name}")).unwrap());
        let model = load(&files.iter().map(source).collect::<Vec<_>>()).unwrap();
        let mut numbering = Numbering::default();
        let state = catena_render::render(&model, &mut numbering).unwrap();
        Self { topology: Topology::of(&model), model, state, base: BTreeMap::new(), numbering }
    }

    fn change(&mut self, element: &str, change: impl Fn(&mut Object)) {
        let state = self.state.elements.get_mut(&element.parse::<NodeName>().unwrap()).unwrap();
        for mut object in state.iter().cloned().collect::<Vec<_>>() {
            state.remove(&object.key());
            change(&mut object);
            state.insert(object);
        }
    }

    fn violations(&self) -> Vec<Violation> {
        let Self { model, topology, state, base, numbering } = self;
        verify(&Network { model, topology, state, base, numbering }, None).violations
    }

    /// What becomes of the packets of all violations, in a copy.
    fn replay(self) -> (Vec<Violation>, Vec<Replayed>) {
        let violations = self.violations();
        let folder = PathBuf::from(format!("{EXAMPLES}/paper"));
        let folders = self.model.hosts.keys().map(|host| (host.clone(), folder.clone())).collect();
        let replayed = std::thread::scope(|scope| {
            let copy = scope.spawn(|| {
                let pins = own_bpf_file_system().unwrap();
                let runtime = tokio::runtime::Builder::new_multi_thread().enable_all().build().unwrap();
                runtime.block_on(async {
                    let model = self.model.clone();
                    let mut replica = Replica::build(model, &folders, &pins, OfCopies).await.unwrap();
                    replica.install(&self.state).await.unwrap();
                    assert_eq!(replica.adopt(&self.base).await.unwrap(), Vec::<String>::new());
                    catena_replay::replay(&mut replica, &violations).await.unwrap()
                })
            });
            copy.join().unwrap()
        });
        (violations, replayed)
    }
}

fn assert_as_predicted(violations: &[Violation], replayed: &[Replayed]) {
    assert!(!violations.is_empty() && violations.len() == replayed.len());
    for (violation, replayed) in violations.iter().zip(replayed) {
        assert_eq!(
            replayed.outcome,
            Outcome::AsPredicted,
            "{violation}\n{:#?}\n{replayed:#?}",
            violation.walk
        );
    }
}

const PAPER: [&str; 4] =
    ["paper/network.yaml", "paper/functions.yaml", "paper/tenants.yaml", "paper/chain.yaml"];

/// The packet is sent while the function is down, and goes round it.
#[test]
fn a_way_that_takes_a_failure_is_taken_when_something_has_failed() {
    let mut world = World::of(&PAPER);
    world.change("br-int", |object| {
        if let Object::Path(path) = object {
            path.hops[0].on_failure = OnFailure::Skip;
        }
    });
    let (violations, replayed) = world.replay();
    assert!(violations.iter().all(|violation| violation.property == Property::Degraded));
    assert!(violations.iter().all(|violation| !violation.losses.is_empty()));
    assert_as_predicted(&violations, &replayed);
    let seen = replayed[0].seen.as_ref().unwrap();
    assert!(!seen.ports.iter().any(|arrival| arrival.node.as_str() == "fw-1"), "{seen:?}");
}

/// Where the customer's own device is at the far end of the tunnel, packets enter in the tunnel's outer ones.
#[test]
fn a_packet_that_enters_by_a_tunnel_comes_out_of_one() {
    let mut world = World::of(&PAPER);
    for site in world.model.sites.values_mut() {
        if let Attachment::Gre(gre) = &mut site.attachment {
            gre.customer.element = None;
        }
    }
    world.state = catena_render::render(&world.model, &mut world.numbering).unwrap();
    let state = world.state.elements.get_mut(&"edge".parse::<NodeName>().unwrap()).unwrap();
    let upward = |object: &&Object| matches!(object, Object::Rule(rule) if rule.selector.from.is_some());
    for rule in state.iter().filter(upward).cloned().collect::<Vec<_>>() {
        state.remove(&rule.key());
    }
    let (violations, replayed) = world.replay();
    assert!(violations.iter().any(|violation| violation.entry.tunnel.is_some()));
    assert_as_predicted(&violations, &replayed);
}
