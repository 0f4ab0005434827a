//! A sign of life while something takes longer than a second.

use std::io::{IsTerminal, Write, stderr};
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::mpsc::{RecvTimeoutError, Sender, channel};
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

/// Whether something is being waited for already.
static SHOWING: AtomicBool = AtomicBool::new(false);

/// Says what is being waited for, until dropped. On a terminal one line counts the seconds and vanishes at the end;
/// elsewhere, such as in a log, a line appears now and then. While one does, those within it are silent.
pub struct Waiting {
    /// Dropped first: that ends the thread.
    done: Option<Sender<()>>,
    thread: Option<JoinHandle<()>>,
}

impl Waiting {
    const LOG_EVERY: u64 = 15;

    pub fn for_(what: &str) -> Self {
        if SHOWING.swap(true, Ordering::AcqRel) {
            return Self { done: None, thread: None };
        }
        let (done, ended) = channel::<()>();
        let what = what.to_owned();
        let thread = std::thread::spawn(move || {
            let start = Instant::now();
            let terminal = stderr().is_terminal();
            let mut shown = false;
            while ended.recv_timeout(Duration::from_secs(1)) == Err(RecvTimeoutError::Timeout) {
                let seconds = start.elapsed().as_secs();
                if terminal {
                    eprint!("\r\x1b[2K  … {what} ({seconds} s)");
                    shown = true;
                } else if seconds == 1 || seconds.is_multiple_of(Self::LOG_EVERY) {
                    eprintln!("  … {what} ({seconds} s)");
                }
            }
            if shown {
                eprint!("\r\x1b[2K");
            }
            // Nothing depends on it: it is only for the eye.
            let _ = stderr().flush();
        });
        Self { done: Some(done), thread: Some(thread) }
    }
}

impl Drop for Waiting {
    fn drop(&mut self) {
        self.done = None;
        if let Some(thread) = self.thread.take() {
            SHOWING.store(false, Ordering::Release);
            // A panic in there would have cost nothing but the sign of life.
            let _ = thread.join();
        }
    }
}
