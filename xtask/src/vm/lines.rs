//! Listening to a program that may never end.

use std::io::{BufRead, BufReader, Read};
use std::sync::mpsc::{RecvTimeoutError, channel};
use std::time::{Duration, Instant};

/// Hands over what a program prints, line by line, until it has no more to say. Says whether that was in time.
pub fn hear(output: impl Read + Send + 'static, patience: Duration, mut each: impl FnMut(&str)) -> bool {
    let deadline = Instant::now() + patience;
    let (says, heard) = channel();
    // Ends with the output, or with this process: reading cannot be interrupted.
    std::thread::spawn(move || {
        let mut output = BufReader::new(output);
        let mut line = Vec::new();
        while output.read_until(b'\n', &mut line).is_ok_and(|count| count > 0) {
            let text = String::from_utf8_lossy(&line).trim_end().to_owned();
            if says.send(text).is_err() {
                return;
            }
            line.clear();
        }
    });
    loop {
        match heard.recv_timeout(deadline.saturating_duration_since(Instant::now())) {
            Ok(line) => each(&line),
            Err(RecvTimeoutError::Disconnected) => return true,
            Err(RecvTimeoutError::Timeout) => return false,
        }
    }
}

#[cfg(test)]
mod tests {
    use std::io::Write;

    use super::*;

    #[test]
    fn lines_are_handed_over_until_the_end() {
        let mut lines = Vec::new();
        let output: &[u8] = b"one\r\n\xfftwo\nthree";
        assert!(hear(output, Duration::from_secs(60), |line| lines.push(line.to_owned())));
        assert_eq!(lines, ["one", "\u{fffd}two", "three"]);
    }

    #[test]
    fn nobody_waits_for_ever() {
        let (output, mut input) = std::io::pipe().unwrap();
        input.write_all(b"hello\n").unwrap();
        let mut lines = 0;
        assert!(!hear(output, Duration::from_millis(200), |_| lines += 1));
        assert_eq!(lines, 1);
    }
}
