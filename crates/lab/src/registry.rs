//! Which labs there are on this machine: a file for each, with the process that it stands and falls with.

use std::fmt;
use std::fs;
use std::io;
use std::path::{Path, PathBuf};
use std::str::FromStr;
use std::time::SystemTime;

use serde::{Deserialize, Serialize};

use crate::{LabError, LabName};

/// Gone after a reboot, as the labs are.
const FOLDER: &str = "/run/catena-lab";

/// A process, told from a later one that was given the same number.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct Process {
    pub pid: i32,
    /// When it was started, in clock ticks after boot.
    pub started: u64,
}

impl Process {
    pub fn current() -> io::Result<Self> {
        Self::running(std::process::id().cast_signed())
    }

    /// The process that has this number now.
    pub fn running(pid: i32) -> io::Result<Self> {
        let stat = fs::read_to_string(format!("/proc/{pid}/stat"))?;
        // proc_pid_stat(5): field 2 is the name in parentheses and may contain anything, `started` is field 22, `state` 3.
        let mut fields = stat.rsplit_once(')').map_or("", |(_, rest)| rest).split_ascii_whitespace();
        let state = fields.next().unwrap_or("Z");
        let started = fields.nth(18).and_then(|field| field.parse().ok());
        match started {
            Some(started) if !matches!(state, "Z" | "X") => Ok(Self { pid, started }),
            _ => Err(io::ErrorKind::NotFound.into()),
        }
    }

    pub fn is_alive(&self) -> bool {
        Self::running(self.pid).is_ok_and(|found| found == *self)
    }
}

impl fmt::Display for Process {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}:{}", self.pid, self.started)
    }
}

impl FromStr for Process {
    type Err = std::num::ParseIntError;
    fn from_str(text: &str) -> Result<Self, Self::Err> {
        let (pid, started) = text.split_once(':').unwrap_or((text, ""));
        Ok(Self { pid: pid.parse()?, started: started.parse()? })
    }
}

/// A lab that has a name.
#[derive(Clone, Debug)]
pub struct RunningLab {
    pub name: LabName,
    /// What it was built from.
    pub file: PathBuf,
    pub since: SystemTime,
    /// Its first process, as the machine numbers it.
    pub pid: i32,
    pub(crate) init: Process,
}

#[derive(Serialize, Deserialize)]
struct Entry {
    file: PathBuf,
    init: Process,
}

/// The labs that have a name and are up, by name. Entries of labs that were killed are cleared away.
pub fn list() -> Result<Vec<RunningLab>, LabError> {
    let entries = match fs::read_dir(FOLDER) {
        Ok(entries) => entries,
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(Vec::new()),
        Err(error) => return Err(LabError::system(format!("cannot list {FOLDER}"))(error)),
    };
    let names = entries
        .flatten()
        .filter_map(|entry| Path::new(&entry.file_name()).file_stem()?.to_str()?.parse::<LabName>().ok());
    let mut labs = names.map(|name| find(&name)).collect::<Result<Vec<_>, _>>()?;
    labs.sort_by(|a, b| a.as_ref().map(|lab| &lab.name).cmp(&b.as_ref().map(|lab| &lab.name)));
    Ok(labs.into_iter().flatten().collect())
}

/// The lab of this name, if it is up.
pub(crate) fn find(name: &LabName) -> Result<Option<RunningLab>, LabError> {
    let path = path_of(name);
    let text = match fs::read_to_string(&path) {
        Ok(text) => text,
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(None),
        Err(error) => return Err(LabError::system(format!("cannot read {}", path.display()))(error)),
    };
    match serde_json::from_str::<Entry>(&text) {
        Ok(Entry { file, init }) if init.is_alive() => {
            let since = fs::metadata(&path).and_then(|metadata| metadata.modified());
            let since = since.unwrap_or_else(|_| SystemTime::now());
            Ok(Some(RunningLab { name: name.clone(), file, since, pid: init.pid, init }))
        }
        _ => {
            remove(name);
            Ok(None)
        }
    }
}

/// A name that was taken for a lab. Given back when dropped, unless [`keep`](Registration::keep) is called.
#[derive(Debug)]
pub(crate) struct Registration {
    name: LabName,
    kept: bool,
}

impl Registration {
    /// Takes the name. Written whole under another name first: nobody ever reads half of an entry.
    pub fn new(name: &LabName, file: &Path, init: Process) -> Result<Self, LabError> {
        let failed = |error| LabError::system(format!("cannot write below {FOLDER}"))(error);
        let file = std::path::absolute(file).unwrap_or_else(|_| file.to_owned());
        let text = serde_json::to_string(&Entry { file, init }).map_err(io::Error::from).map_err(failed)?;
        let draft = Path::new(FOLDER).join(format!(".{}", init.pid));
        fs::create_dir_all(FOLDER).and_then(|()| fs::write(&draft, text)).map_err(failed)?;
        // Of two that want one name, one gets it: a link is never made over something that is there.
        let mut taken = fs::hard_link(&draft, path_of(name));
        if taken.as_ref().is_err_and(|error| error.kind() == io::ErrorKind::AlreadyExists)
            && find(name).is_ok_and(|lab| lab.is_none())
        {
            taken = fs::hard_link(&draft, path_of(name));
        }
        let tidied = fs::remove_file(&draft);
        match taken {
            Err(error) if error.kind() == io::ErrorKind::AlreadyExists => Err(LabError::Taken(name.clone())),
            taken => {
                taken.and(tidied).map_err(failed)?;
                Ok(Self { name: name.clone(), kept: false })
            }
        }
    }

    /// The lab outlives this process.
    pub fn keep(mut self) {
        self.kept = true;
    }
}

impl Drop for Registration {
    fn drop(&mut self) {
        if !self.kept {
            remove(&self.name);
        }
    }
}

/// Forgets a lab. The folder goes with the last one; while there are others, removing it fails, as it should.
pub(crate) fn remove(name: &LabName) {
    if let Err(error) = fs::remove_file(path_of(name)) {
        tracing::debug!(%name, %error, "the lab's entry was gone already");
    }
    let _ = fs::remove_dir(FOLDER);
}

fn path_of(name: &LabName) -> PathBuf {
    Path::new(FOLDER).join(format!("{name}.json"))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_process_is_told_from_a_later_one_of_the_same_number() {
        let this = Process::current().unwrap();
        assert!(this.is_alive());
        assert!(!Process { started: this.started + 1, ..this }.is_alive());
        assert_eq!(this.to_string().parse(), Ok(this));
    }
}
