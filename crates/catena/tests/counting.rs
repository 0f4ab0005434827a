//! What the command line says of counters: `get drops`, `get functions`, `describe`, `status`, and `top` on a terminal and
//! elsewhere. The controller is in this process, and its elements are simulated, so that tests say what was counted.

#![allow(clippy::unwrap_used, clippy::panic, reason = "a test fails by panicking")]

use std::collections::BTreeMap;
use std::fs::File;
use std::io::{Read, Write};
use std::os::fd::AsRawFd;
use std::process::{Child, Command, Output, Stdio};
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};

use catena_api::Listener;
use catena_api::types::DropReason;
use catena_control::{Controller, Drivers, Request, Settings, Terms};
use catena_driver::simulated::{SimulatedDriver, SimulatedElement};
use catena_driver::{Counted, Counter, Driver, DriverError};
use catena_model::forwarding::{Direction, InstanceId, Object, PathId};
use catena_model::name::NodeName;
use catena_model::resource::{Element, Source};
use catena_store::InMemory;
use nix::pty::{OpenptyResult, Winsize, openpty};
use nix::sys::signal::{Signal, kill};
use nix::sys::termios::{LocalFlags, tcgetattr};
use nix::unistd::Pid;

#[derive(Clone, Debug, Default)]
struct World(Arc<Mutex<BTreeMap<NodeName, SimulatedElement>>>);

impl World {
    fn element(&self, name: &NodeName) -> SimulatedElement {
        let mut elements = self.0.lock().unwrap();
        elements.entry(name.clone()).or_insert_with(|| SimulatedElement::new(1)).clone()
    }
}

impl Drivers for World {
    fn for_element(&self, element: &Element) -> Result<Vec<Arc<dyn Driver>>, DriverError> {
        Ok(vec![Arc::new(SimulatedDriver::new(&self.element(&element.name)))])
    }
}

/// A controller with the paper's chain, served on a socket of its own, as long as this lives.
struct Served {
    folder: tempfile::TempDir,
    switch: SimulatedElement,
    path: PathId,
    _runtime: tokio::runtime::Runtime,
}

impl Served {
    fn begin() -> Self {
        let folder = tempfile::tempdir().unwrap();
        let socket = folder.path().join("catena.sock");
        let world = World::default();
        let runtime =
            tokio::runtime::Builder::new_multi_thread().worker_threads(1).enable_all().build().unwrap();
        let path = runtime.block_on(async {
            let store = Arc::new(InMemory::default());
            let controller =
                Controller::start(store, Arc::new(world.clone()), Settings::default()).await.unwrap();
            let sources = ["network.yaml", "functions.yaml", "tenants.yaml", "chain.yaml"].map(|name| {
                let path = format!("{}/../../examples/paper/{name}", env!("CARGO_MANIFEST_DIR"));
                Source::new(name, std::fs::read_to_string(path).unwrap())
            });
            controller.request(Request::Apply(sources.to_vec()), Terms::default()).await.unwrap();
            let path = controller.status().chains[0].sites[0].path;
            let listener = Listener::unix(&socket).unwrap();
            tokio::spawn(catena_api::serve(controller, vec![listener], std::future::pending()));
            path
        });
        let switch = world.element(&"br-int".parse().unwrap());
        Self { folder, switch, path, _runtime: runtime }
    }

    fn instance(&self, port: &str) -> InstanceId {
        let installed = self.switch.installed();
        let found = installed.iter().find_map(|object| match object {
            Object::Instance(instance) if instance.inside.port.as_str() == port => Some(instance.id),
            _ => None,
        });
        found.unwrap()
    }

    fn command(&self, line: &str) -> Command {
        let mut command = Command::new(env!("CARGO_BIN_EXE_catena"));
        command.args(line.split_whitespace()).stdin(Stdio::null());
        command.env("CATENA_SOCKET", self.folder.path().join("catena.sock"));
        for name in ["RUST_LOG", "CATENA_STATE", "CATENA_LAB", "NO_COLOR"] {
            command.env_remove(name);
        }
        command
    }

    fn says(&self, line: &str) -> String {
        let output = self.command(line).output().unwrap();
        assert!(output.status.success(), "{line}: {}", printed(&output));
        printed(&output)
    }

    /// Through fw-1 on the way up so many in and out, and drops of two kinds.
    fn count(&self, into: u64, out: u64) {
        let (path, instance, direction) = (self.path, self.instance("fw1-in"), Direction::Up);
        self.switch.set_counters(vec![
            counter(Counted::Hop { path, position: 0, instance, direction }, into),
            counter(Counted::Returned { instance, direction }, out),
            counter(Counted::Exit { path, direction }, out),
            counter(Counted::Dropped { path: Some(path), reason: DropReason::Fragment }, into / 100),
            counter(Counted::Dropped { path: None, reason: DropReason::Malformed }, 1),
        ]);
    }
}

fn counter(of: Counted, packets: u64) -> Counter {
    Counter { of, packets, bytes: packets * 100 }
}

fn printed(output: &Output) -> String {
    let text = |bytes: &[u8]| String::from_utf8(bytes.to_vec()).unwrap();
    text(&output.stdout) + &text(&output.stderr)
}

/// The cells of the line that begins so.
fn line<'a>(text: &'a str, begin: &str) -> Vec<&'a str> {
    let found = text.lines().find(|line| line.trim_start().starts_with(begin));
    let found = found.unwrap_or_else(|| panic!("no line begins with {begin}:\n{text}"));
    found.split("  ").map(str::trim).filter(|cell| !cell.is_empty()).collect()
}

#[test]
fn drops_are_told_by_reason_and_in_words() {
    let served = Served::begin();
    assert_eq!(served.says("get drops"), "nothing has been dropped\n");
    served.count(1000, 990);
    let all = served.says("get drops");
    assert_eq!(
        line(&all, "br-int    acme-web"),
        ["br-int", "acme-web acme-hq generation 1", "fragment", "10", "1000", DropReason::Fragment.meaning()]
    );
    assert_eq!(line(&all, "br-int    (no path)")[2..4], ["malformed", "1"]);

    let of_chain = served.says("get drops acme-web");
    assert!(of_chain.contains("fragment") && !of_chain.contains("malformed"), "{of_chain}");
    assert!(served.says("get drops --tenant acme").contains("fragment"));
    assert_eq!(served.says("get drops --tenant globex"), "nothing has been dropped\n");
    let json = served.command("get drops -o json").output().unwrap();
    let json: serde_json::Value = serde_json::from_slice(&json.stdout).unwrap();
    assert_eq!((&json[0]["reason"], &json[0]["packets"]), (&"fragment".into(), &10.into()));
    assert!(served.says("describe chain acme-web").contains(DropReason::Fragment.meaning()));
    assert!(served.says("describe element br-int").contains(DropReason::Malformed.meaning()));

    for (line, code) in
        [("get drops nosuch", 1), ("get drops --tenant nosuch", 1), ("get chains --tenant acme", 2)]
    {
        let output = served.command(line).output().unwrap();
        assert_eq!(output.status.code(), Some(code), "{line}: {}", printed(&output));
    }
    let help = served.says("get --help");
    assert!(DropReason::ALL.iter().all(|reason| help.contains(reason.word())), "{help}");
}

#[test]
fn functions_are_told_with_what_went_in_and_came_out() {
    let served = Served::begin();
    served.count(1000, 990);
    let all = served.says("get functions");
    assert_eq!(line(&all, "fw "), ["fw", "l3", "fw-1", "acme-web", "1000", "990", "10", "0"]);
    let one = served.says("describe function fw");
    assert_eq!(line(&one, "chains:"), ["chains: acme-web (hop 1)"]);
    assert_eq!(line(&one, "fw-1")[..8], ["fw-1", "br-int", "up", "up", "1000", "990", "10", "0"],);
    let sentence =
        "10 packets went in to fw-1 on the way up and did not come out: dropped by the function, or lost";
    assert!(one.contains(sentence), "{one}");
}

#[test]
fn status_tells_of_functions_that_give_nothing_back() {
    let served = Served::begin();
    let quiet = served.says("status");
    assert!(!quiet.contains("comes out") && !quiet.contains("dropped"), "{quiet}");
    served.count(1000, 0);
    let status = served.says("status");
    assert!(status.contains("nothing comes out of fw-1"), "{status}");
    assert!(status.contains("dropped so far: 11 packets"), "{status}");
}

#[test]
fn what_cannot_be_read_is_said() {
    let served = Served::begin();
    served.switch.cut_off();
    let text = served.says("get drops");
    assert!(text.contains("the counters of br-int could not be read"), "{text}");
    assert!(line(&served.says("describe function fw"), "fw-1").contains(&"?"));
}

#[test]
fn top_measures_once_where_there_is_no_terminal() {
    let served = Served::begin();
    served.count(1000, 1000);
    let before = Instant::now();
    let mut command = served.command("top --interval 1.5 -o json");
    let measuring = command.stdout(Stdio::piped()).spawn().unwrap();
    std::thread::sleep(Duration::from_millis(750));
    served.count(4000, 3400);
    let output = measuring.wait_with_output().unwrap();
    assert!(before.elapsed() >= Duration::from_millis(1500));
    let rates: serde_json::Value = serde_json::from_slice(&output.stdout).unwrap();
    let seconds = rates["seconds"].as_f64().unwrap();
    assert!(seconds >= 1.5, "{rates:#}");
    let packets = |rate: &serde_json::Value| (rate["packetsPerSecond"].as_f64().unwrap() * seconds).round();
    let chain = &rates["chains"][0];
    assert_eq!(
        (packets(&chain["upIn"]), packets(&chain["upOut"]), packets(&chain["dropped"])),
        (3000.0, 2400.0, 30.0)
    );
    assert_eq!(packets(&rates["hops"][0]["up"]), 3000.0);
    assert_eq!(packets(&rates["instances"][0]["upOut"]), 2400.0);
    assert_eq!(rates["drops"][0]["reason"], "fragment");

    let table = served.says("top --once --interval 0.1");
    for title in ["Chains", "Hops", "Instances", "Drops"] {
        assert!(table.lines().any(|line| line == title), "{table}");
    }
    let table = served.says("top drops --once --interval 0.1");
    assert!(table.contains("Drops") && !table.contains("Chains"), "{table}");
    assert!(!table.contains('\u{1b}'), "{table:?}");
}

#[test]
fn top_without_a_controller_says_so_and_touches_no_terminal() {
    let terminal = Terminal::open(30);
    let mut command = Command::new(env!("CARGO_BIN_EXE_catena"));
    command.args(["--socket", "/no/such.sock", "top"]);
    let mut top = terminal.start(command);
    assert_eq!(top.wait().unwrap().code(), Some(3));
    let seen = terminal.seen();
    assert!(seen.contains("no controller answers") && !seen.contains(ENTERED), "{seen:?}");
}

const ENTERED: &str = "\u{1b}[?1049h";
const LEFT: &str = "\u{1b}[?1049l";
const SHOWN: &str = "\u{1b}[?25h";

/// A terminal with a program on it, from the person's side.
struct Terminal {
    screen: File,
    keyboard: File,
    program_side: File,
    seen: Arc<Mutex<String>>,
}

impl Terminal {
    fn open(rows: u16) -> Self {
        let size = Winsize { ws_row: rows, ws_col: 200, ws_xpixel: 0, ws_ypixel: 0 };
        let OpenptyResult { master, slave } = openpty(&size, None).unwrap();
        let screen = File::from(master);
        let keyboard = screen.try_clone().unwrap();
        let seen = Arc::new(Mutex::new(String::new()));
        let (mut reader, into) = (screen.try_clone().unwrap(), Arc::clone(&seen));
        std::thread::spawn(move || {
            let mut bytes = [0; 4096];
            while let Ok(length @ 1..) = reader.read(&mut bytes) {
                into.lock().unwrap().push_str(&String::from_utf8_lossy(&bytes[..length]));
            }
        });
        Self { screen, keyboard, program_side: File::from(slave), seen }
    }

    fn start(&self, mut command: Command) -> Child {
        let side = || Stdio::from(self.program_side.try_clone().unwrap());
        command.env("TERM", "xterm-256color").stdin(side()).stdout(side()).stderr(side()).spawn().unwrap()
    }

    fn seen(&self) -> String {
        // What the program wrote last may still be on its way.
        std::thread::sleep(Duration::from_millis(100));
        self.seen.lock().unwrap().clone()
    }

    fn wait_for(&self, text: &str) {
        let start = Instant::now();
        while !self.seen.lock().unwrap().contains(text) {
            assert!(start.elapsed() < Duration::from_secs(20), "no {text:?} in {:?}", self.seen());
            std::thread::sleep(Duration::from_millis(20));
        }
    }

    fn press(&mut self, keys: &str) {
        self.keyboard.write_all(keys.as_bytes()).unwrap();
    }

    fn resize(&self, rows: u16, program: &Child) {
        let size = Winsize { ws_row: rows, ws_col: 200, ws_xpixel: 0, ws_ypixel: 0 };
        // SAFETY: the descriptor is open, and the kernel only reads the size.
        let result = unsafe { nix::libc::ioctl(self.screen.as_raw_fd(), nix::libc::TIOCSWINSZ, &size) };
        assert_eq!(result, 0);
        // It has no controlling terminal, so nobody else tells it.
        kill(Pid::from_raw(program.id() as i32), Signal::SIGWINCH).unwrap();
    }

    /// Lines are edited and echoed, as a shell expects it.
    fn is_cooked(&self) -> bool {
        let flags = tcgetattr(&self.program_side).unwrap().local_flags;
        flags.contains(LocalFlags::ICANON | LocalFlags::ECHO | LocalFlags::ISIG)
    }

    fn assert_given_back(&self) {
        let seen = self.seen();
        assert!(self.is_cooked());
        let left = seen.rfind(LEFT).unwrap_or_else(|| panic!("the screen was not left: {seen:?}"));
        assert!(seen.contains(SHOWN) && !seen[left..].contains("Chains"), "{seen:?}");
    }
}

#[test]
fn top_on_a_terminal_obeys_keys_and_gives_the_terminal_back() {
    let served = Served::begin();
    served.count(1000, 1000);
    let mut terminal = Terminal::open(50);
    assert!(terminal.is_cooked());
    let mut top = terminal.start(served.command("top --interval 0.2"));
    terminal.wait_for("acme-web");
    assert!(!terminal.is_cooked());
    assert!(terminal.seen().contains(ENTERED));
    assert!(!terminal.seen().contains("more lines"));
    terminal.resize(9, &top);
    terminal.wait_for("more lines");
    terminal.press("d");
    terminal.wait_for("by drops");
    terminal.press("q");
    assert!(top.wait().unwrap().success());
    terminal.assert_given_back();
}

#[test]
fn top_gives_the_terminal_back_when_it_is_ended() {
    let served = Served::begin();
    for end in [None, Some(Signal::SIGTERM), Some(Signal::SIGINT)] {
        let mut terminal = Terminal::open(50);
        let mut top = terminal.start(served.command("top --interval 0.2"));
        terminal.wait_for("Chains");
        match end {
            // Control-C, as a terminal sends it while it edits no lines.
            None => terminal.press("\u{3}"),
            Some(signal) => kill(Pid::from_raw(top.id() as i32), signal).unwrap(),
        }
        assert!(top.wait().unwrap().success(), "{end:?}");
        terminal.assert_given_back();
    }
}
