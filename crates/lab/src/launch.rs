//! The caller's side: starting a lab's first process in new namespaces, and ending it.

use std::ffi::OsString;
use std::io::{self, Read};
use std::os::unix::process::CommandExt;
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

use nix::errno::Errno;
use nix::sched::{CloneFlags, unshare};
use nix::sys::signal::{Signal, kill};
use nix::unistd::{Pid, Uid};

use crate::instructions::{Instructions, Life};
use crate::registry::{self, Process, Registration};
use crate::supervise::Supervisor;
use crate::{LabError, LabName, LabSpec};

/// How long the kernel may take to end a lab's processes.
const END_WITHIN: Duration = Duration::from_secs(10);

/// What the first process of a detached lab writes once the lab is up.
pub(crate) const UP: &[u8] = b"up\n";

/// Builds a lab, runs `command` in it, and gives back the command's exit code. The lab ends with the command or with this
/// process, whichever ends first and however.
///
/// What goes wrong in the lab is told by its first process on standard error ([`init()`](crate::init())); the exit code is
/// then that process's.
pub fn run(spec: &LabSpec, command: &[OsString]) -> Result<u8, LabError> {
    check_root()?;
    let parent = Process::current().map_err(LabError::system("cannot read /proc"))?;
    let instructions = Instructions {
        file: spec.file.clone(),
        env: spec.env.clone(),
        life: Life::Command { parent, command: command.to_vec() },
    };
    let supervisor = Supervisor::new().map_err(LabError::system("cannot handle signals"))?;
    let init = first_process(&instructions);
    // The first process dies with the thread that started it (PR_SET_PDEATHSIG, prctl(2)), so that thread waits for it.
    on_own_thread(|| {
        let mut init = start(init)?;
        let _registration = match &spec.name {
            Some(name) => Some(register(name, spec, &mut init)?),
            None => None,
        };
        supervisor.wait_for(init).map_err(LabError::system("cannot wait for the lab"))
    })
}

/// Builds a lab that stays up until [`down`], and gives back its name.
pub fn up(spec: &LabSpec) -> Result<LabName, LabError> {
    check_root()?;
    let name = match &spec.name {
        Some(name) => name.clone(),
        None => LabName::of_file(&spec.file)
            .map_err(|source| LabError::NoName { file: spec.file.clone(), source })?,
    };
    let instructions = Instructions { file: spec.file.clone(), env: spec.env.clone(), life: Life::Detached };
    let mut init = first_process(&instructions);
    init.stdin(Stdio::null()).stdout(Stdio::piped());
    let mut init = on_own_thread(|| start(init))?;
    let registration = register(&name, spec, &mut init)?;

    let mut told = Vec::new();
    if let Some(mut stdout) = init.stdout.take() {
        stdout.read_to_end(&mut told).map_err(LabError::system("cannot hear from the lab"))?;
    }
    if told != UP {
        end(&mut init);
        return Err(LabError::NotBuilt(name));
    }
    registration.keep();
    Ok(name)
}

/// Ends a lab. Afterwards nothing of it is left.
pub fn down(name: &LabName) -> Result<(), LabError> {
    check_root()?;
    let lab = registry::find(name)?.ok_or_else(|| LabError::NoLab(name.clone()))?;
    // Whatever else is in its PID namespace is ended by the kernel along with the first process.
    match kill(Pid::from_raw(lab.init.pid), Signal::SIGKILL) {
        Ok(()) | Err(Errno::ESRCH) => {}
        Err(error) => return Err(LabError::system("cannot end the lab's first process")(error)),
    }
    let asked = Instant::now();
    while lab.init.is_alive() {
        if asked.elapsed() > END_WITHIN {
            let error = io::Error::from(io::ErrorKind::TimedOut);
            return Err(LabError::system("the kernel does not end the lab's processes")(error));
        }
        std::thread::sleep(Duration::from_millis(5));
    }
    registry::remove(name);
    Ok(())
}

/// An error unless this process may make network namespaces.
pub fn check_root() -> Result<(), LabError> {
    if Uid::effective().is_root() { Ok(()) } else { Err(LabError::NotRoot) }
}

/// This executable again, as `lab init`. By way of /proc: also when the file was replaced by a newer one meanwhile.
fn first_process(instructions: &Instructions) -> Command {
    let mut command = Command::new("/proc/self/exe");
    command.arg0("catena-lab").args(["lab", "init"]).args(instructions.to_arguments());
    command
}

/// Starts a lab's first process: process 1 of a new PID namespace, in mount and network namespaces that this thread then
/// shares.
fn start(mut init: Command) -> Result<Child, LabError> {
    unshare(CloneFlags::CLONE_NEWPID | CloneFlags::CLONE_NEWNS | CloneFlags::CLONE_NEWNET)
        .map_err(LabError::system("cannot make namespaces; in a container, run it privileged"))?;
    init.spawn().map_err(LabError::system("cannot start the lab's first process"))
}

fn register(name: &LabName, spec: &LabSpec, init: &mut Child) -> Result<Registration, LabError> {
    let registered = Process::running(init.id().cast_signed())
        .map_err(|_| LabError::NotBuilt(name.clone()))
        .and_then(|process| Registration::new(name, &spec.file, process));
    if registered.is_err() {
        end(init);
    }
    registered
}

fn end(init: &mut Child) {
    if let Err(error) = init.kill().and_then(|()| init.wait()) {
        tracing::debug!(%error, "the lab's first process was gone already");
    }
}

/// A thread that left its namespaces is not given back to anybody.
pub(crate) fn on_own_thread<T: Send>(
    work: impl FnOnce() -> Result<T, LabError> + Send,
) -> Result<T, LabError> {
    std::thread::scope(|scope| match scope.spawn(work).join() {
        Ok(result) => result,
        Err(panic) => std::panic::resume_unwind(panic),
    })
}
