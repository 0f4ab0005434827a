//! The emulated machine.

use std::os::unix::process::CommandExt;
use std::path::Path;
use std::process::{Child, Command, Stdio};
use std::time::Duration;

use anyhow::{Context, Result, bail};
use nix::sys::prctl;
use nix::sys::signal::Signal;

use super::{guest, lines};
use crate::command;

pub struct Machine<'a> {
    pub kernel: &'a Path,
    pub initramfs: &'a Path,
    /// Where it writes what it found out.
    pub results: &'a Path,
}

impl Machine<'_> {
    /// Beyond this, something hangs. The guest gives each test program a time of its own, which is shorter.
    const PATIENCE: Duration = Duration::from_secs(60 * 60);
    const MEMORY_MIB: u32 = 1024;
    /// What the kernel says when it is at its end.
    const PANIC: &'static str = "Kernel panic - not syncing";

    /// Runs it to its end, shows what it prints, and gives back what it has told.
    pub fn run(&self) -> Result<String> {
        // Of an earlier run, if this one does not get as far as writing its own.
        std::fs::write(self.results, "")
            .with_context(|| format!("cannot write {}", self.results.display()))?;
        let mut qemu = self.command();
        let mut running =
            Running(qemu.spawn().with_context(|| format!("cannot run `{}`", command::shown(&qemu)))?);
        let output = running.0.stdout.take().context("qemu has no output")?;
        let mut panic = None;
        let in_time = lines::hear(output, Self::PATIENCE, |line| {
            println!("{line}");
            if let Some(at) = line.find(Self::PANIC) {
                panic = Some(line[at..].to_owned());
            }
        });
        if !in_time {
            bail!(
                "the virtual machine was still running after {} minutes: ended",
                Self::PATIENCE.as_secs() / 60
            );
        }
        let status = running.0.wait().context("cannot wait for qemu")?;
        if let Some(panic) = panic {
            bail!("the virtual machine's kernel failed: {panic}");
        }
        if !status.success() {
            bail!("`{}` failed ({status})", command::shown(&qemu));
        }
        std::fs::read_to_string(self.results)
            .with_context(|| format!("cannot read {}", self.results.display()))
    }

    fn command(&self) -> Command {
        let mut qemu = Command::new("qemu-system-x86_64");
        // Emulated, so it runs where there is no virtualisation, such as in a virtual machine.
        qemu.args(["-accel", "tcg", "-cpu", "max", "-smp", "2", "-m"]).arg(Self::MEMORY_MIB.to_string());
        qemu.args(["-nodefaults", "-display", "none", "-no-reboot", "-serial", "stdio", "-serial"]);
        qemu.arg(format!("file:{}", self.results.display()));
        qemu.arg("-kernel").arg(self.kernel).arg("-initrd").arg(self.initramfs);
        qemu.arg("-append").arg(guest::KERNEL_ARGUMENTS);
        qemu.stdin(Stdio::null()).stdout(Stdio::piped());
        // SAFETY: prctl(2) alone is called between fork and exec, and allocates nothing.
        unsafe {
            qemu.pre_exec(|| Ok(prctl::set_pdeathsig(Signal::SIGKILL)?));
        }
        qemu
    }
}

/// Ended when dropped; should this process be killed, the kernel does it.
struct Running(Child);

impl Drop for Running {
    fn drop(&mut self) {
        // Neither fails for a child of ours that has ended already.
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}
