//! Other people's programs that labs are built with.

use std::io::{self, Write};
use std::process::{Command, Output, Stdio};

use crate::LabError;

/// Programs that networks are commonly built with, and the packages of Debian and Ubuntu that they are in.
const PACKAGES: [(&str, &str); 20] = [
    ("bridge", "iproute2"),
    ("bpftool", "bpftool"),
    ("conntrack", "conntrack"),
    ("curl", "curl"),
    ("ethtool", "ethtool"),
    ("ip", "iproute2"),
    ("ip6tables", "iptables"),
    ("iperf3", "iperf3"),
    ("iptables", "iptables"),
    ("modprobe", "kmod"),
    ("nc", "netcat-openbsd"),
    ("nft", "nftables"),
    ("ping", "iputils-ping"),
    ("python3", "python3"),
    ("socat", "socat"),
    ("ss", "iproute2"),
    ("suricata", "suricata"),
    ("sysctl", "procps"),
    ("tc", "iproute2"),
    ("tcpdump", "tcpdump"),
];

/// The package of Debian and Ubuntu that `program` is in, for programs that networks are commonly built with.
pub fn debian_package(program: &str) -> Option<&'static str> {
    PACKAGES.iter().find(|(name, _)| *name == program).map(|(_, package)| *package)
}

/// Runs a program to its end and gives it `input` to read. What it inherits is the namespace of this thread.
pub fn feed(program: &str, arguments: &[&str], input: &str) -> Result<Output, LabError> {
    let mut command = Command::new(program);
    command.args(arguments).stdin(Stdio::piped()).stdout(Stdio::piped()).stderr(Stdio::piped());
    let mut child = command.spawn().map_err(|error| not_started(program, error))?;
    if let Some(mut stdin) = child.stdin.take() {
        // A program that ends before it has read everything says why itself.
        match stdin.write_all(input.as_bytes()) {
            Err(error) if error.kind() != io::ErrorKind::BrokenPipe => {
                return Err(LabError::system(format!("cannot write to {program}"))(error));
            }
            _ => {}
        }
    }
    child.wait_with_output().map_err(LabError::system(format!("cannot wait for {program}")))
}

pub(crate) fn not_started(program: &str, error: io::Error) -> LabError {
    match error.kind() {
        io::ErrorKind::NotFound => not_installed(program),
        _ => LabError::system(format!("cannot start {program}"))(error),
    }
}

/// What a shell says, with exit status 127, about a program that there is not: `sh: 1: nft: not found` (dash, busybox) or
/// `nft: command not found` (bash).
pub(crate) fn missing_in(output: &str) -> Option<LabError> {
    let program = output.lines().find_map(|line| {
        let line = line.strip_suffix(": not found").or_else(|| line.strip_suffix(": command not found"))?;
        line.rsplit(": ").next()
    })?;
    Some(not_installed(program))
}

fn not_installed(program: &str) -> LabError {
    LabError::NotInstalled { program: program.to_owned(), package: debian_package(program) }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_package_of_a_missing_program_is_named() {
        for output in ["sh: 1: nft: not found\n", "fw.sh: line 3: nft: command not found"] {
            let error = missing_in(output).unwrap().to_string();
            assert_eq!(error, "nft is not installed; on Debian and Ubuntu: apt-get install nftables");
        }
        assert!(missing_in("sh: 1: cannot open fw.nft: No such file").is_none());
    }
}
