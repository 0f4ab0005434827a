//! Real packets: TCP and UDP between namespaces, from sockets of this process.

use std::io::{self, Read, Write};
use std::net::{Shutdown, SocketAddr, TcpListener, TcpStream, UdpSocket};
use std::thread::JoinHandle;
use std::time::Duration;

use catena_driver::netns::NetNs;

/// Nothing on one machine takes longer.
const PATIENCE: Duration = Duration::from_secs(2);

/// Answers every TCP connection with what it sends, in a namespace, until dropped.
pub struct Echo {
    address: SocketAddr,
    netns: NetNs,
    serving: Option<JoinHandle<()>>,
}

impl Echo {
    pub fn serve(netns: &NetNs, address: &str) -> Self {
        let address: SocketAddr = address.parse().unwrap();
        let listener = netns.run(|| TcpListener::bind(address)).unwrap();
        let serving = std::thread::spawn(move || {
            for stream in listener.incoming() {
                let Ok(stream) = stream else { return };
                // A connection from the address itself is the end.
                if stream.peer_addr().is_ok_and(|peer| peer.ip() == address.ip()) {
                    return;
                }
                std::thread::spawn(move || echo(&stream));
            }
        });
        Self { address, netns: netns.clone(), serving: Some(serving) }
    }
}

impl Drop for Echo {
    fn drop(&mut self) {
        let last = self.netns.run(|| TcpStream::connect_timeout(&self.address, PATIENCE));
        if let (Ok(_), Some(serving)) = (last, self.serving.take()) {
            let _ = serving.join();
        }
    }
}

fn echo(stream: &TcpStream) {
    let mut buffer = vec![0; 1 << 16];
    let (mut from, mut to) = (stream, stream);
    while let Ok(count) = from.read(&mut buffer) {
        if count == 0 || to.write_all(&buffer[..count]).is_err() {
            break;
        }
    }
    let _ = stream.shutdown(Shutdown::Write);
}

/// A TCP connection from a namespace.
pub fn connect(netns: &NetNs, to: &str) -> io::Result<TcpStream> {
    let to: SocketAddr = to.parse().unwrap();
    let stream = netns.run(|| TcpStream::connect_timeout(&to, PATIENCE))?;
    stream.set_read_timeout(Some(PATIENCE))?;
    stream.set_write_timeout(Some(PATIENCE))?;
    Ok(stream)
}

/// Sends bytes to an [`Echo`], and expects them back.
pub fn exchange(stream: &mut TcpStream, count: usize) -> io::Result<()> {
    let sent: Vec<u8> = (0..count).map(|at| (at * 7 % 251) as u8).collect();
    let mut writer = stream.try_clone()?;
    let bytes = sent.clone();
    let writing = std::thread::spawn(move || writer.write_all(&bytes));
    let mut back = vec![0; count];
    stream.read_exact(&mut back)?;
    writing.join().unwrap()?;
    if back == sent { Ok(()) } else { Err(io::Error::other("other bytes came back")) }
}

/// One connection with `count` bytes each way.
pub fn fetch(netns: &NetNs, to: &str, count: usize) -> io::Result<()> {
    exchange(&mut connect(netns, to)?, count)
}

/// Sends one datagram; gives what arrives.
pub fn datagram(from: &NetNs, to: &NetNs, address: &str, payload: &[u8]) -> io::Result<Vec<u8>> {
    let address: SocketAddr = address.parse().unwrap();
    let receiver = loop {
        match to.run(|| UdpSocket::bind(address)) {
            // The last one's descriptor lives on for a moment in what another test is just starting.
            Err(error) if error.kind() == io::ErrorKind::AddrInUse => std::thread::yield_now(),
            bound => break bound?,
        }
    };
    receiver.set_read_timeout(Some(PATIENCE))?;
    let any = if address.is_ipv4() { "0.0.0.0:0" } else { "[::]:0" };
    from.run(|| UdpSocket::bind(any))?.send_to(payload, address)?;
    let mut buffer = vec![0; 1 << 16];
    let count = receiver.recv(&mut buffer)?;
    buffer.truncate(count);
    Ok(buffer)
}
