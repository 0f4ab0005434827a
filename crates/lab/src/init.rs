//! The first process of a lab: it builds the lab, runs the command, and takes everything along when it ends.

use std::collections::BTreeMap;
use std::ffi::OsString;
use std::fs::File;
use std::io::{self, Write};
use std::process::{Command, ExitStatus};
use std::sync::mpsc::{self, RecvTimeoutError};
use std::time::{Duration, Instant};

use nix::sys::prctl::set_pdeathsig;
use nix::sys::signal::Signal;
use nix::sys::wait::{WaitPidFlag, WaitStatus, waitpid};
use nix::unistd::{Pid, dup2_stderr, dup2_stdout, setsid};
use signal_hook::consts::{SIGCHLD, SIGHUP, SIGINT, SIGTERM};
use signal_hook::iterator::Signals;

use crate::hosts::{self, Service, in_words};
use crate::instructions::{Instructions, Life};
use crate::launch::UP;
use crate::source::Sources;
use crate::supervise::{ENDING, exit_code, pass_on};
use crate::{LabError, Progress, mounts, network};

/// How long the command may take to end when it is asked to.
const END_WITHIN: Duration = Duration::from_secs(3);

/// The hidden `lab init`: what [`run`](crate::run) and [`up`](crate::up) start in the new namespaces. `arguments` are those
/// after `lab init`, as they are.
///
/// Gives back the exit code for the process, which must end then: the rest of the lab ends with it. `progress` is called from
/// several threads.
pub fn init(
    arguments: impl IntoIterator<Item = OsString>,
    progress: &(dyn Fn(Progress) + Sync),
) -> Result<u8, LabError> {
    let begin = Instant::now();
    let instructions = Instructions::from_arguments(arguments)?;
    if std::process::id() != 1 {
        return Err(LabError::NotForPeople);
    }
    bind_life(&instructions.life)?;
    // From here on a signal is a message. Process 1 is not ended by one that it does not handle (pid_namespaces(7)).
    let messages = listen_to_signals()?;

    mounts::make_own()?;
    let sources = Sources::read(&instructions.file)?;
    let builder = messages.sender.clone();
    std::thread::scope(|scope| {
        scope.spawn(|| {
            let built = build(&sources, progress);
            // Nobody listens any more only if the lab has been told to end.
            let _ = builder.send(Message::Built(built));
        });
        let services = match messages.await_built()? {
            Ok(services) => services,
            // Leaving the scope would wait for the builder; ending the process ends it.
            Err(signal) => std::process::exit(128 + signal),
        };
        progress(Progress::Ready { after: begin.elapsed() });
        let command = match &instructions.life {
            Life::Command { command, .. } => Some(start(command, &instructions.env)?),
            Life::Detached => {
                detach()?;
                None
            }
        };
        messages.serve(command, services, progress)
    })
}

/// Sees to it that the lab ends with whom it belongs to.
fn bind_life(life: &Life) -> Result<(), LabError> {
    match life {
        Life::Command { parent, .. } => {
            set_pdeathsig(Signal::SIGKILL).map_err(LabError::system("cannot bind the lab to its parent"))?;
            // It may have died before that; /proc is still the machine's.
            if parent.is_alive() { Ok(()) } else { Err(LabError::NotForPeople) }
        }
        // No terminal: nobody's Ctrl-C, nobody's hang-up.
        Life::Detached => setsid().map(drop).map_err(LabError::system("cannot leave the terminal")),
    }
}

fn build(sources: &Sources, progress: &(dyn Fn(Progress) + Sync)) -> Result<Vec<Service>, LabError> {
    let model = sources.model()?;
    progress(Progress::Read { nodes: model.elements.len() + model.hosts.len(), links: model.links.len() });
    let namespaces = network::build(&model)?;
    progress(Progress::Connected);
    hosts::start(&model, sources, &namespaces, progress)
}

fn start(command: &[OsString], env: &[(OsString, OsString)]) -> Result<u32, LabError> {
    let Some((program, arguments)) = command.split_first() else {
        return Err(LabError::NoCommand);
    };
    let child = Command::new(program).args(arguments).envs(env.iter().cloned()).spawn();
    child
        .map(|child| child.id())
        .map_err(|source| LabError::Command { command: program.to_string_lossy().into_owned(), source })
}

/// Tells `up` that the lab is up, and goes on writing into the lab's own log.
fn detach() -> Result<(), LabError> {
    let told = io::stdout().write_all(UP).and_then(|()| io::stdout().flush());
    told.map_err(LabError::system("`lab up` is gone"))?;
    let redirected = File::create(format!("{}/init.log", mounts::LOGS)).and_then(|log| {
        dup2_stdout(&log)?;
        dup2_stderr(&log)?;
        Ok(())
    });
    redirected.map_err(LabError::system("cannot write the lab's log"))
}

/// What the first process waits for.
enum Message {
    Built(Result<Vec<Service>, LabError>),
    Signal(i32),
}

struct Messages {
    sender: mpsc::Sender<Message>,
    receiver: mpsc::Receiver<Message>,
}

fn listen_to_signals() -> Result<Messages, LabError> {
    let signals = Signals::new([SIGHUP, SIGINT, SIGTERM, SIGCHLD]);
    let mut signals = signals.map_err(LabError::system("cannot handle signals"))?;
    let (sender, receiver) = mpsc::channel();
    let messages = Messages { sender: sender.clone(), receiver };
    std::thread::spawn(move || {
        for signal in signals.forever() {
            if sender.send(Message::Signal(signal)).is_err() {
                return;
            }
        }
    });
    Ok(messages)
}

impl Messages {
    /// The services of the lab, or the signal by which the building of it was ended.
    fn await_built(&self) -> Result<Result<Vec<Service>, i32>, LabError> {
        loop {
            match self.receiver.recv() {
                Ok(Message::Built(built)) => return built.map(Ok),
                Ok(Message::Signal(signal)) if ENDING.contains(&signal) => return Ok(Err(signal)),
                // The builder waits for its children itself.
                Ok(Message::Signal(_)) => {}
                Err(mpsc::RecvError) => return Ok(Err(SIGTERM)),
            }
        }
    }

    /// Waits for all that ends in the lab, until the command does or the lab is told to end. Gives back the exit code.
    fn serve(
        &self,
        command: Option<u32>,
        services: Vec<Service>,
        progress: &(dyn Fn(Progress) + Sync),
    ) -> Result<u8, LabError> {
        let mut services: BTreeMap<u32, Service> =
            services.into_iter().map(|service| (service.pid(), service)).collect();
        let mut ending: Option<(i32, Instant)> = None;
        loop {
            // First: what ended while nobody looked.
            while let Some((pid, status)) = reap()? {
                if Some(pid) == command {
                    return Ok(exit_code(status));
                }
                if let Some(service) = services.remove(&pid) {
                    progress(Progress::ServiceEnded {
                        log_end: service.log_end(),
                        status: in_words(status),
                        host: service.host,
                        command: service.command,
                    });
                }
            }
            let message = match ending {
                None => self.receiver.recv().map_err(|_| RecvTimeoutError::Disconnected),
                Some((_, until)) => {
                    self.receiver.recv_timeout(until.saturating_duration_since(Instant::now()))
                }
            };
            let Ok(Message::Signal(signal)) = message else {
                let signal = ending.map_or(SIGTERM, |(signal, _)| signal);
                return Ok(exit_code_of(signal));
            };
            match command {
                _ if !ENDING.contains(&signal) => {}
                None => return Ok(exit_code_of(signal)),
                Some(command) => {
                    pass_on(signal, command);
                    // Ctrl-C may mean something else to it than "end".
                    if signal != SIGINT {
                        ending.get_or_insert((signal, Instant::now() + END_WITHIN));
                    }
                }
            }
        }
    }
}

/// One process that ended: our own child, or an orphan, which process 1 inherits.
fn reap() -> Result<Option<(u32, ExitStatus)>, LabError> {
    use std::os::unix::process::ExitStatusExt;
    loop {
        let (pid, status) = match waitpid(None::<Pid>, Some(WaitPidFlag::WNOHANG)) {
            Ok(WaitStatus::Exited(pid, code)) => (pid, (code & 0xff) << 8),
            Ok(WaitStatus::Signaled(pid, signal, _)) => (pid, signal as i32),
            Ok(WaitStatus::StillAlive) | Err(nix::errno::Errno::ECHILD) => return Ok(None),
            Ok(_) | Err(nix::errno::Errno::EINTR) => continue,
            Err(error) => return Err(LabError::system("cannot wait for processes")(error)),
        };
        return Ok(Some((pid.as_raw().cast_unsigned(), ExitStatus::from_raw(status))));
    }
}

fn exit_code_of(signal: i32) -> u8 {
    u8::try_from(128 + signal).unwrap_or(u8::MAX)
}
