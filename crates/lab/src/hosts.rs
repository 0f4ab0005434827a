//! What hosts do: setup commands, each to its end, and services, until the lab ends.

use std::fs::{self, File};
use std::io;
use std::os::unix::process::{CommandExt, ExitStatusExt};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, ExitStatus, Stdio};
use std::time::{Duration, Instant};

use catena_driver::netns::NetNs;
use catena_model::name::NodeName;
use catena_model::resource::{Host, Model};

use crate::network::Namespaces;
use crate::program::missing_in;
use crate::source::Sources;
use crate::{LabError, Progress, mounts};

/// How long the services of a host may take until they listen. Some never will (a packet capture, say): then this much
/// is lost, no more.
const LISTEN_WITHIN: Duration = Duration::from_secs(2);

/// How much of a log is shown with an error.
const LOG_END_LINES: usize = 20;

/// A service of a host, running.
#[derive(Debug)]
pub(crate) struct Service {
    pub host: NodeName,
    pub command: String,
    log: PathBuf,
    child: Child,
}

impl Service {
    pub fn pid(&self) -> u32 {
        self.child.id()
    }

    pub fn log_end(&self) -> String {
        let log = fs::read(&self.log).unwrap_or_default();
        let log = String::from_utf8_lossy(&log);
        let lines: Vec<&str> = log.trim_end().lines().collect();
        lines[lines.len().saturating_sub(LOG_END_LINES)..].join("\n")
    }
}

/// Sets up all hosts, then starts their services. Hosts do not wait for each other.
pub(crate) fn start(
    model: &Model,
    sources: &Sources,
    namespaces: &Namespaces,
    progress: &(dyn Fn(Progress) + Sync),
) -> Result<Vec<Service>, LabError> {
    std::thread::scope(|scope| {
        let started: Vec<_> = model
            .hosts
            .values()
            .map(|host| scope.spawn(move || start_host(host, sources, &namespaces[&host.name], progress)))
            .collect();
        let mut services = Vec::new();
        for host in started {
            match host.join() {
                Ok(of_host) => services.extend(of_host?),
                Err(panic) => std::panic::resume_unwind(panic),
            }
        }
        Ok(services)
    })
}

fn start_host(
    host: &Host,
    sources: &Sources,
    netns: &NetNs,
    progress: &(dyn Fn(Progress) + Sync),
) -> Result<Vec<Service>, LabError> {
    for command in &host.setup {
        progress(Progress::Setup { host: host.name.clone(), command: command.clone() });
        set_up(host, command, sources.folder(), netns, || sources.place_of(command))?;
    }
    let mut services = Vec::new();
    for (index, command) in host.services.iter().enumerate() {
        progress(Progress::Service { host: host.name.clone(), command: command.clone() });
        let log = Path::new(mounts::LOGS).join(format!("{}.{index}.log", host.name));
        services.push(serve(host, command, log, sources, netns)?);
    }
    await_listening(&mut services, sources, netns)?;
    Ok(services)
}

/// Runs a host's setup commands, each to its end, in `folder`. Its services are not started.
pub fn set_up_host(host: &Host, folder: &Path, netns: &NetNs) -> Result<(), LabError> {
    host.setup.iter().try_for_each(|command| set_up(host, command, folder, netns, || None))
}

/// `place` says where the command is written, for who is told that it failed.
fn set_up(
    host: &Host,
    command: &str,
    folder: &Path,
    netns: &NetNs,
    place: impl FnOnce() -> Option<String>,
) -> Result<(), LabError> {
    let mut shell = shell(command, folder);
    let output = netns.run(|| shell.output()).map_err(LabError::system("cannot start sh"))?;
    if output.status.success() {
        return Ok(());
    }
    let output_text = [output.stdout, output.stderr].concat();
    let output_text = String::from_utf8_lossy(&output_text);
    Err(missing_in(&output_text).unwrap_or_else(|| LabError::Setup {
        place: place(),
        host: host.name.clone(),
        command: command.to_owned(),
        status: in_words(output.status),
        output: output_text.trim_end().to_owned(),
    }))
}

fn serve(
    host: &Host,
    command: &str,
    log: PathBuf,
    sources: &Sources,
    netns: &NetNs,
) -> Result<Service, LabError> {
    let mut shell = shell(command, sources.folder());
    let child = netns.run(|| {
        let output = File::create(&log)?;
        // A group of its own: Ctrl-C is for the lab's command.
        shell.stdout(output.try_clone()?).stderr(output).process_group(0).spawn()
    });
    let child = child.map_err(LabError::system(format!("{}: cannot start `{command}`", host.name)))?;
    Ok(Service { host: host.name.clone(), command: command.to_owned(), log, child })
}

fn shell(command: &str, folder: &Path) -> Command {
    let mut shell = Command::new("sh");
    shell.args(["-c", command]).current_dir(folder).stdin(Stdio::null());
    shell
}

/// Waits until there are as many listening sockets as services.
fn await_listening(services: &mut [Service], sources: &Sources, netns: &NetNs) -> Result<(), LabError> {
    let begin = Instant::now();
    while !services.is_empty() && begin.elapsed() < LISTEN_WITHIN {
        for service in &mut *services {
            let ended = service.child.try_wait().map_err(LabError::system("cannot look after a service"))?;
            if let Some(status) = ended {
                return Err(ended_at_once(service, status, sources));
            }
        }
        let listening = netns.run(listening_sockets).map_err(LabError::system("cannot count sockets"))?;
        if listening >= services.len() {
            break;
        }
        std::thread::sleep(Duration::from_millis(10));
    }
    Ok(())
}

fn ended_at_once(service: &Service, status: ExitStatus, sources: &Sources) -> LabError {
    let log_end = service.log_end();
    missing_in(&log_end).unwrap_or_else(|| LabError::Service {
        place: sources.place_of(&service.command),
        host: service.host.clone(),
        command: service.command.clone(),
        status: in_words(status),
        log_end,
    })
}

/// How many sockets of this thread's namespace await connections (TCP) or datagrams (UDP).
fn listening_sockets() -> io::Result<usize> {
    // The fourth column of /proc/net/tcp is the state (include/net/tcp_states.h): 0A is LISTEN; 07, the state of a UDP
    // socket that is not connected.
    let tables = [("tcp", "0A"), ("tcp6", "0A"), ("udp", "07"), ("udp6", "07")];
    tables.iter().try_fold(0, |sum, (table, state)| {
        let sockets = match fs::read_to_string(format!("/proc/thread-self/net/{table}")) {
            Err(error) if error.kind() == io::ErrorKind::NotFound => String::new(),
            read => read?,
        };
        let states = sockets.lines().filter_map(|line| line.split_ascii_whitespace().nth(3));
        Ok(sum + states.filter(|found| found == state).count())
    })
}

pub(crate) fn in_words(status: ExitStatus) -> String {
    match (status.code(), status.signal()) {
        (Some(code), _) => format!("exit code {code}"),
        (None, Some(signal)) => format!("killed by signal {signal}"),
        (None, None) => "ended".to_owned(),
    }
}
