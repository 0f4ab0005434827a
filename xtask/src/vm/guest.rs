//! In the virtual machine: this program is init, and all there is.

use std::fs::{File, OpenOptions};
use std::io::Write;
use std::process::{Command, Stdio};
use std::time::{Duration, Instant};

use anyhow::{Context, Result, bail};
use nix::kmod::{ModuleInitFlags, finit_module};
use nix::mount::{MsFlags, mount};
use nix::sys::reboot::{RebootMode, reboot};

use super::lines;
use super::report::Line;
use super::steps::{self, Step};
use crate::test::{Tally, counted, skipped};

/// Where this program is.
pub const INIT: &str = "/init";
/// Where it is written what to do.
pub const STEPS: &str = "/steps";
/// For the kernel: where to print (errors alone); to end when something goes wrong; to spare an emulated machine what
/// costs time, which is waiting for RCU whenever a namespace goes, and the defences of real processors; and what to start,
/// with which argument.
pub const KERNEL_ARGUMENTS: &str = "console=ttyS0 loglevel=4 oops=panic panic=-1 rcupdate.rcu_expedited=1 \
                                    mitigations=off rdinit=/init -- guest";
/// Where results go.
const RESULTS: &str = "/dev/ttyS1";

/// A test program that takes longer hangs. Emulated, loading the steering engine alone takes seconds.
const PATIENCE: Duration = Duration::from_secs(20 * 60);

/// What a kernel may lack without a test failing here: tcx came with Linux 6.6.
const MAY_LACK: &str = "no tcx";

const FILE_SYSTEMS: [(&str, &str); 6] = [
    ("proc", "/proc"),
    ("sysfs", "/sys"),
    ("devtmpfs", "/dev"),
    ("bpf", "/sys/fs/bpf"),
    ("tmpfs", "/run"),
    ("tmpfs", "/tmp"),
];

/// Where the test program of this name is.
pub fn test_path(name: &str) -> String {
    format!("/tests/{name}")
}

/// Does what is to be done, and ends the machine.
pub fn run() -> Result<()> {
    if std::process::id() != 1 {
        bail!("this is for the virtual machine of `cargo xtask test --vm`");
    }
    set_up()?;
    let results =
        OpenOptions::new().write(true).open(RESULTS).with_context(|| format!("cannot open {RESULTS}"))?;
    let last = match follow_steps(&results) {
        Ok(()) => Line::Done,
        Err(error) => Line::Stopped(format!("{error:#}")),
    };
    tell(&results, &last)?;
    // Closing waits until all has been sent (termios(3), tty_ioctl(4)).
    drop(results);
    reboot(RebootMode::RB_AUTOBOOT).context("cannot end the machine").map(drop)
}

/// What tests take for granted on any machine.
fn set_up() -> Result<()> {
    for (kind, place) in FILE_SYSTEMS {
        std::fs::create_dir_all(place).with_context(|| format!("cannot make {place}"))?;
        mount(Some(kind), place, Some(kind), MsFlags::empty(), None::<&str>)
            .with_context(|| format!("cannot mount {kind} at {place}"))?;
    }
    // udev makes it elsewhere; `nft -f -` opens it.
    std::os::unix::fs::symlink("/proc/self/fd/0", "/dev/stdin").context("cannot make /dev/stdin")?;
    let up = Command::new("/bin/ip").args(["link", "set", "lo", "up"]).status();
    match up.context("cannot run ip")?.success() {
        true => Ok(()),
        false => bail!("cannot set lo up"),
    }
}

fn follow_steps(results: &File) -> Result<()> {
    let written = std::fs::read_to_string(STEPS).with_context(|| format!("cannot read {STEPS}"))?;
    for step in steps::read(&written)? {
        match step {
            Step::Load(path) => load(&path)?,
            Step::Test(name, arguments) => {
                let tally = test(&name, &arguments)?;
                tell(results, &Line::Tested { name, tally })?;
            }
        }
    }
    Ok(())
}

fn load(path: &str) -> Result<()> {
    let module = File::open(path).with_context(|| format!("cannot open {path}"))?;
    finit_module(&module, c"", ModuleInitFlags::empty()).with_context(|| format!("cannot load {path}"))
}

/// Runs a test program, shows what it prints, and counts.
fn test(name: &str, arguments: &[String]) -> Result<Tally> {
    println!("\n     Running {name}");
    let start = Instant::now();
    let (output, input) = std::io::pipe().context("cannot make a pipe")?;
    let errors = input.try_clone().context("cannot make a pipe")?;
    let mut running = Command::new(test_path(name))
        .args(arguments)
        .env("PATH", "/bin")
        .env("RUST_BACKTRACE", "0")
        .stdin(Stdio::null())
        .stdout(input)
        .stderr(errors)
        .spawn()
        .with_context(|| format!("cannot run {name}"))?;
    let mut tally = Tally::default();
    let in_time = lines::hear(output, PATIENCE, |line| {
        println!("{line}");
        tally.add(counted(line).unwrap_or_default());
        if skipped(line).is_some_and(|why| !why.contains(MAY_LACK)) {
            println!("this kernel must not lack that: counted as a failure");
            tally.failed += 1;
        }
    });
    if !in_time {
        println!("still running after {} s: ended", PATIENCE.as_secs());
        // It may have ended just now.
        let _ = running.kill();
    }
    let status = running.wait().context("cannot wait for a test program")?;
    if !status.success() && tally.failed == 0 {
        println!("{name}: {status}");
        tally.failed = 1;
    }
    println!("     {name} took {} s", start.elapsed().as_secs());
    Ok(tally)
}

fn tell(mut results: &File, line: &Line) -> Result<()> {
    writeln!(results, "{line}").with_context(|| format!("cannot write to {RESULTS}"))
}
