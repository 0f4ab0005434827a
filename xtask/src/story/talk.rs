//! A connection that goes on for as long as a chapter needs it, in packets of exact sizes: HTTP requests on one TCP
//! connection, each sent once the answer to the one before it is complete.
//!
//! The client is this very program, run on a user's host as `xtask talk …`.

use std::collections::BTreeSet;
use std::io::{BufRead, BufReader, Write};
use std::net::{SocketAddr, TcpStream};
use std::process::{Child, Stdio};
use std::time::{Duration, Instant};

use anyhow::{Context, Result, bail, ensure};
use clap::Args;

use crate::story::capture::Captures;
use crate::story::node;
use crate::workspace;

#[derive(Args, Clone, Debug)]
pub struct Talk {
    pub server: SocketAddr,
    /// So many bytes are sent, and asked for, in one packet each if they fit
    #[arg(long, value_delimiter = ',')]
    pub sizes: Vec<usize>,
    /// Begin anew with the first size until so many milliseconds have passed
    #[arg(long, default_value_t = 0)]
    pub milliseconds: u64,
}

/// Longer than any repair may take.
const PATIENCE: Duration = Duration::from_secs(10);
/// Between the requests of a talk that goes on for a time.
const PAUSE: Duration = Duration::from_millis(10);

/// What a client says in the end.
#[derive(Clone, Copy, Debug)]
pub struct Said {
    pub messages: u64,
    /// The client's port.
    pub port: u16,
}

pub fn run(talk: &Talk) -> Result<()> {
    // In the namespace of the client's host. Else an answer that is some milliseconds late is asked for by sending the last
    // piece once more (RFC 8985 section 7), and looks like a loss. What is lost is sent again by timeout, and still found.
    std::fs::write("/proc/sys/net/ipv4/tcp_early_retrans", "0")
        .context("cannot switch off tail loss probes")?;
    let said = talk.hold()?;
    println!("{} {}", said.messages, said.port);
    Ok(())
}

impl Talk {
    fn hold(&self) -> Result<Said> {
        let connection = TcpStream::connect_timeout(&self.server, PATIENCE)
            .with_context(|| format!("cannot connect to {}", self.server))?;
        connection.set_nodelay(true)?;
        connection.set_read_timeout(Some(PATIENCE))?;
        let mut said = Said { messages: 0, port: connection.local_addr()?.port() };
        let mut connection = BufReader::new(connection);
        let end = Instant::now() + Duration::from_millis(self.milliseconds);
        loop {
            for size in &self.sizes {
                exchange(&mut connection, *size)
                    .with_context(|| format!("the connection broke after {} messages", said.messages))?;
                said.messages += 1;
            }
            if Instant::now() >= end {
                return Ok(said);
            }
            std::thread::sleep(PAUSE);
        }
    }
}

/// Sends `size` bytes and has as many sent.
fn exchange(connection: &mut BufReader<TcpStream>, size: usize) -> Result<()> {
    let head = format!("POST / HTTP/1.1\r\nHost: internet\r\nContent-Length: {size}\r\n\r\n");
    connection.get_mut().write_all(head.as_bytes())?;
    // A write of its own, so a packet of its own.
    connection.get_mut().write_all(&body(size))?;
    answer(connection)?;
    let head = format!("GET /bytes/{size} HTTP/1.1\r\nHost: internet\r\n\r\n");
    connection.get_mut().write_all(head.as_bytes())?;
    ensure!(answer(connection)? == body(size), "{size} bytes came as others");
    Ok(())
}

/// What the server's `/bytes/SIZE` is.
fn body(size: usize) -> Vec<u8> {
    (0..size).map(|at| (at % 251) as u8).collect()
}

/// Reads an answer (RFC 9112) and gives back its body.
fn answer(connection: &mut impl BufRead) -> Result<Vec<u8>> {
    let mut length = None;
    let mut line = String::new();
    connection.read_line(&mut line)?;
    ensure!(line.starts_with("HTTP/1.1 200"), "the server answers `{}`", line.trim_end());
    loop {
        line.clear();
        connection.read_line(&mut line)?;
        match line.trim_end().split_once(": ") {
            None => break,
            Some((name, value)) if name.eq_ignore_ascii_case("content-length") => {
                length = Some(value.parse()?)
            }
            Some(_) => {}
        }
    }
    let mut body = vec![0; length.context("the answer has no length")?];
    connection.read_exact(&mut body)?;
    Ok(body)
}

/// A client at work on a user's host.
pub struct Client(Child);

impl Client {
    pub fn start(user: &str, talk: &Talk) -> Result<Self> {
        let this = workspace::own_program()?;
        let sizes: Vec<String> = talk.sizes.iter().map(ToString::to_string).collect();
        let mut client = node::on(user, &this.to_string_lossy());
        client.args(["talk", &talk.server.to_string(), "--sizes", &sizes.join(",")]);
        client.args(["--milliseconds", &talk.milliseconds.to_string()]);
        client.stdin(Stdio::null()).stdout(Stdio::piped()).stderr(Stdio::piped());
        Ok(Self(client.spawn().with_context(|| format!("cannot start a client on {user}"))?))
    }

    /// Waits until it has said all.
    pub fn wait(self) -> Result<Said> {
        let output = self.0.wait_with_output().context("cannot wait for the client")?;
        if !output.status.success() {
            bail!("{}", String::from_utf8_lossy(&output.stderr).trim());
        }
        let text = String::from_utf8_lossy(&output.stdout).into_owned();
        let (messages, port) = text.trim().split_once(' ').context("the client says nothing")?;
        Ok(Said { messages: messages.parse()?, port: port.parse()? })
    }
}

/// A client that talks to the server, and captures at both ends.
pub struct Watched {
    client: Client,
    captures: Captures,
}

impl Watched {
    pub fn start(user: &str, talk: &Talk) -> Result<Self> {
        let captures = Captures::start(&[(user, "eth0"), ("internet", "eth0")], "tcp")?;
        Ok(Self { client: Client::start(user, talk)?, captures })
    }

    /// Waits until all is said; fails if anything had to be sent twice because it was lost.
    pub fn wait(self) -> Result<Said> {
        let said = self.client.wait()?;
        let mut sent = BTreeSet::new();
        for (place, packets) in self.captures.stop()? {
            // What each end sends, as it leaves there.
            let from_server = place == "internet";
            for tcp in packets.iter().filter_map(|captured| captured.packet.tcp()) {
                let own = if from_server { tcp.destination_port } else { tcp.source_port };
                if own == said.port && tcp.data > 0 {
                    let new = sent.insert((from_server, tcp.sequence));
                    ensure!(new, "{place} sent {} bytes of {} again", tcp.data, tcp.sequence);
                }
            }
        }
        ensure!(!sent.is_empty(), "no packet of the connection was captured");
        Ok(said)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_answer_is_read_to_its_end_and_no_further() {
        let mut text: &[u8] =
            b"HTTP/1.1 200 OK\r\nServer: x\r\ncontent-length: 3\r\n\r\nabcHTTP/1.1 404 Not\r\n\r\n";
        assert_eq!(answer(&mut text).unwrap(), b"abc");
        assert!(answer(&mut text).unwrap_err().to_string().contains("404"));
    }
}
