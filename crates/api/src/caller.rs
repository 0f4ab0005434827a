//! Who asks, as far as that can be known.

use std::net::SocketAddr;

use axum::extract::connect_info::Connected;
use axum::serve::IncomingStream;
use nix::unistd::{Uid, User};
use tokio::net::{TcpListener, UnixListener};

/// In the words that are put on record.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Caller(pub String);

impl Caller {
    /// Whoever runs this process.
    pub fn oneself() -> Self {
        Self::user(Uid::effective())
    }

    fn user(uid: Uid) -> Self {
        match User::from_uid(uid) {
            Ok(Some(user)) => Self(format!("{} (uid {uid})", user.name)),
            _ => Self(format!("uid {uid}")),
        }
    }
}

impl Connected<IncomingStream<'_, UnixListener>> for Caller {
    /// The kernel's word (`SO_PEERCRED`).
    fn connect_info(stream: IncomingStream<'_, UnixListener>) -> Self {
        match stream.io().peer_cred() {
            Ok(peer) => Self::user(Uid::from_raw(peer.uid())),
            Err(_) => Self("somebody on the unix socket".to_owned()),
        }
    }
}

impl Connected<IncomingStream<'_, TcpListener>> for Caller {
    /// Over TCP nobody is asked who they are.
    fn connect_info(stream: IncomingStream<'_, TcpListener>) -> Self {
        let address: &SocketAddr = stream.remote_addr();
        Self(format!("somebody at {address}"))
    }
}
