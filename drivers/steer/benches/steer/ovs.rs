//! Open vSwitch, with its datapath in userspace, as the hub of a chain: a process of our own, with nothing of the
//! machine's own Open vSwitch touched.

use std::os::fd::AsFd as _;
use std::os::unix::process::CommandExt as _;
use std::path::Path;
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

use anyhow::{Context as _, Result, ensure};
use nix::sched::{CloneFlags, setns};
use nix::sys::prctl::set_pdeathsig;
use nix::sys::signal::Signal;
use tempfile::TempDir;

use crate::chain::{Chain, Joint, NETWORK, Step};
use crate::figure::{Bar, Figure, Key};
use crate::flows;
use crate::line::{Line, Loss, Measurable as _};
use crate::pairs::{Effort, Pairs};
use crate::world::{Host, shown};

pub const VS_OVS: Key = Key {
    name: "vs_ovs_userspace",
    what: "chain of 3, engine ÷ Open vSwitch in userspace",
    unit: None,
    bar: Bar::AtLeast(5.0),
};

const SCHEMA: &str = "/usr/share/openvswitch/vswitch.ovsschema";
const FLOWS: usize = 1024;
const PATIENCE: Duration = Duration::from_secs(20);

/// Says why it cannot be measured here.
pub fn check() -> Result<()> {
    ensure!(
        Path::new(SCHEMA).exists(),
        "Open vSwitch is not installed (Debian, Ubuntu: apt-get install openvswitch-switch)"
    );
    Ok(())
}

pub fn measure(effort: Effort) -> Result<Figure> {
    check()?;
    let mut pairs = Pairs::default();
    let mut version = String::new();
    for _ in 0..effort.builds {
        let [ours, theirs] = [Chain::new(3, Joint::Hub)?, Chain::new(3, Joint::Hub)?];
        let engine = ours.start_engine()?;
        engine.put(ours.site(1, &[NETWORK.to_owned()])?)?;
        let switch = Switch::start(&theirs)?;
        let mut our_line = Line::new(&ours, flows::of_one_network(FLOWS), Loss::Forbidden)?;
        let mut their_line = Line::new(&theirs, flows::of_one_network(FLOWS), Loss::Expected)?;
        limit_to_best(&mut their_line, effort.slice)?;
        pairs.measure(effort, &mut our_line, &mut their_line)?;
        version = switch.version()?;
        engine.expect_no_drops()?;
    }
    Ok(Figure::ratio(VS_OVS, pairs).with("open_vswitch", version.trim()))
}

/// Offers as many packets as make the most of them arrive.
fn limit_to_best(line: &mut Line, slice: Duration) -> Result<()> {
    line.slice(slice)?;
    let flooded = line.slice(slice)?;
    let mut best = (flooded, None);
    for share in [0.9, 1.1, 1.4, 2.0] {
        let limit = Some(flooded * share);
        line.limit(limit);
        let rate = line.slice(slice)?;
        if rate > best.0 {
            best = (rate, limit);
        }
    }
    line.limit(best.1);
    Ok(())
}

/// The two daemons of a switch, on a chain's hub. They end with it, and it ends with us.
struct Switch {
    folder: TempDir,
    host: Host,
    daemons: Vec<Child>,
}

impl Switch {
    fn start(chain: &Chain) -> Result<Self> {
        let (host, steps) = chain.hub_steps()?;
        let mut switch = Self { folder: tempfile::tempdir()?, host: host.clone(), daemons: Vec::new() };
        switch.run(Command::new("ovsdb-tool").args(["create", "conf.db", SCHEMA]), "")?;
        switch.spawn(Command::new("ovsdb-server").args(["conf.db", "--remote=punix:db.sock"]))?;
        switch.wait_for("db.sock")?;
        switch.control("init")?;
        switch.spawn(Command::new("ovs-vswitchd").args(["unix:db.sock", "--disable-system"]))?;
        switch.control("add-br br0 -- set bridge br0 datapath_type=netdev fail-mode=secure")?;
        for step in &steps {
            switch.control(&format!("add-port br0 {}", step.from.name))?;
        }
        switch.wait_for("br0.mgmt")?;
        let flows: Vec<String> = steps.iter().map(flow).collect();
        switch.run(Command::new("ovs-ofctl").args(["add-flows", "unix:br0.mgmt", "-"]), &flows.join("\n"))?;
        Ok(switch)
    }

    fn version(&self) -> Result<String> {
        let output =
            Command::new("ovs-vswitchd").arg("--version").output().context("cannot run ovs-vswitchd")?;
        let text = String::from_utf8_lossy(&output.stdout);
        Ok(text.lines().next().unwrap_or_default().to_owned())
    }

    /// Runs `ovs-vsctl`, which waits until the daemon has done what it says.
    fn control(&self, words: &str) -> Result<()> {
        let mut command = Command::new("ovs-vsctl");
        command.args(["--db=unix:db.sock", "--timeout=20"]);
        if words == "init" {
            // There is no daemon yet to wait for.
            command.arg("--no-wait");
        }
        self.run(command.args(words.split(' ')), "")
    }

    fn run(&self, command: &mut Command, input: &str) -> Result<()> {
        self.host.feed(self.at_home(command), input)
    }

    fn spawn(&mut self, command: &mut Command) -> Result<()> {
        let command = self.at_home(command).args(["-vsyslog:off", "-vfile:off", "-vconsole:emer"]);
        let netns = self.host.netns.clone();
        // The daemon goes to its namespace by itself: it is told of the end of the thread that starts it, and that shall
        // be this one.
        let before = move || {
            setns(netns.as_fd(), CloneFlags::CLONE_NEWNET)?;
            Ok(set_pdeathsig(Signal::SIGKILL)?)
        };
        // SAFETY: only two system calls are made between fork and exec.
        let command = unsafe { command.pre_exec(before) };
        self.daemons
            .push(command.stdin(Stdio::null()).spawn().with_context(|| format!("cannot run {command:?}"))?);
        Ok(())
    }

    /// Everything of this switch's is in its own folder.
    fn at_home<'a>(&self, command: &'a mut Command) -> &'a mut Command {
        for folder in ["OVS_RUNDIR", "OVS_LOGDIR", "OVS_DBDIR", "OVS_SYSCONFDIR"] {
            command.env(folder, self.folder.path());
        }
        command.current_dir(self.folder.path())
    }

    fn wait_for(&self, file: &str) -> Result<()> {
        let start = Instant::now();
        while !self.folder.path().join(file).exists() {
            ensure!(start.elapsed() < PATIENCE, "Open vSwitch does not come up: it makes no {file}");
            std::thread::sleep(Duration::from_millis(10));
        }
        Ok(())
    }
}

impl Drop for Switch {
    fn drop(&mut self) {
        for mut daemon in self.daemons.drain(..).rev() {
            // One that has ended already is as good.
            let _ = daemon.kill();
            let _ = daemon.wait();
        }
    }
}

/// The OpenFlow rule for one step of the way.
fn flow(step: &Step<'_>) -> String {
    let Step { from, to, mac } = step;
    format!("in_port={},ip,actions=set_field:{}->eth_dst,output:{}", from.name, shown(*mac), to.name)
}
