//! Waiting for a child that has the person's attention: signals meant for it reach it, its exit status becomes ours.

use std::fs::File;
use std::io;
use std::os::unix::process::ExitStatusExt;
use std::process::{Child, ExitStatus};

use nix::sys::signal::{Signal, kill};
use nix::unistd::{Pid, getpgrp, tcgetpgrp};
use signal_hook::consts::{SIGCHLD, SIGHUP, SIGINT, SIGTERM};
use signal_hook::iterator::Signals;

/// Signals by which people and machines ask a process to end.
pub(crate) const ENDING: [i32; 3] = [SIGHUP, SIGINT, SIGTERM];

/// The signals to be passed on. Made before the child is started: from then on none is lost.
pub(crate) struct Supervisor(Signals);

impl Supervisor {
    pub fn new() -> io::Result<Self> {
        Signals::new([SIGHUP, SIGINT, SIGTERM, SIGCHLD]).map(Self)
    }

    pub fn wait_for(mut self, mut child: Child) -> io::Result<u8> {
        // It may have ended before the first signal was awaited; its SIGCHLD is kept all the same.
        for signal in self.0.forever() {
            if signal == SIGCHLD {
                if let Some(status) = child.try_wait()? {
                    return Ok(exit_code(status));
                }
            } else if signal != SIGINT || !terminal_sends_to_all() {
                pass_on(signal, child.id());
            }
        }
        child.wait().map(exit_code)
    }
}

/// Ctrl-C reaches the whole foreground process group, so the child as well: passed on, it would come twice, which some
/// programs take for "at once".
fn terminal_sends_to_all() -> bool {
    File::open("/dev/tty").is_ok_and(|terminal| tcgetpgrp(&terminal) == Ok(getpgrp()))
}

/// Sends a signal to a child that has not been waited for, so that the number is still its own.
pub(crate) fn pass_on(signal: i32, child: u32) {
    let sent = Signal::try_from(signal).and_then(|signal| kill(Pid::from_raw(child.cast_signed()), signal));
    if let Err(error) = sent {
        tracing::debug!(child, signal, %error, "a signal was not passed on");
    }
}

/// As shells give it: 128 and the signal's number for a process that was killed.
pub(crate) fn exit_code(status: ExitStatus) -> u8 {
    let code = status.code().or_else(|| status.signal().map(|signal| 128 + signal));
    code.and_then(|code| u8::try_from(code).ok()).unwrap_or(u8::MAX)
}
