//! Serving the API on sockets.

use std::fs;
use std::io;
use std::net::SocketAddr;
use std::os::fd::AsFd;
use std::os::unix::fs::{FileTypeExt, MetadataExt, PermissionsExt};
use std::os::unix::net::UnixStream;
use std::path::{Path, PathBuf};
use std::time::Duration;

use axum::middleware::from_fn_with_state;
use catena_control::Controller;
use futures::future::{BoxFuture, FutureExt, join_all};
use tokio::net::{TcpListener, UnixListener, UnixSocket};
use tokio::sync::watch;

use crate::caller::Caller;
use crate::host::{OwnNames, refuse_foreign};
use crate::routes::{Api, stoppable_router};

/// How long requests that are being answered may take once the server is to stop.
const GRACE: Duration = Duration::from_secs(10);

/// Why the API cannot be reached at a place.
#[derive(Debug, thiserror::Error)]
pub enum ListenError {
    #[error("a controller is listening at {} already: talk to it, or stop it first", .0.display())]
    InUse(PathBuf),
    #[error("{} is there and is no socket: give another path, or move it away", .0.display())]
    NotASocket(PathBuf),
    #[error(
        "{0} can be reached from other machines, and the API asks nobody who they are: listen on 127.0.0.1 or ::1"
    )]
    NotLoopback(SocketAddr),
    #[error("cannot listen at {place}: choose a place that this user may use")]
    Io {
        place: String,
        #[source]
        source: io::Error,
    },
}

/// A place where the API can be reached.
#[derive(Debug)]
pub enum Listener {
    Unix(BoundSocket),
    Tcp { listener: TcpListener, names: OwnNames },
}

impl Listener {
    /// A unix socket that the present user alone can use. What a controller that was killed has left there is replaced.
    pub fn unix(path: impl Into<PathBuf>) -> Result<Self, ListenError> {
        BoundSocket::bind(path.into()).map(Self::Unix)
    }

    /// A loopback address. Requests are answered whose `Host` is an address, `localhost`, the machine's own name or one of
    /// `names`; others, such as a browser sends that was led here by a name that is not ours, with 403.
    pub async fn tcp(
        address: SocketAddr,
        names: impl IntoIterator<Item = String>,
    ) -> Result<Self, ListenError> {
        if !address.ip().is_loopback() {
            return Err(ListenError::NotLoopback(address));
        }
        let listener = TcpListener::bind(address)
            .await
            .map_err(|source| ListenError::Io { place: address.to_string(), source })?;
        Ok(Self::Tcp { listener, names: OwnNames::and(names) })
    }

    /// Where it listens on TCP, if it does.
    pub fn tcp_address(&self) -> Option<SocketAddr> {
        match self {
            Self::Unix(_) => None,
            Self::Tcp { listener, .. } => listener.local_addr().ok(),
        }
    }
}

/// Serves the API at all these places until `stop` resolves, and then until the requests that are being answered have
/// their answers.
pub async fn serve(controller: Controller, listeners: Vec<Listener>, stop: impl Future<Output = ()>) {
    let (stopping, stopped) = watch::channel(false);
    let router = stoppable_router(Api::new(controller, stopped.clone()));
    let mut sockets = Vec::new();
    let mut servers: Vec<BoxFuture<io::Result<()>>> = Vec::new();
    for listener in listeners {
        let stopped = until(stopped.clone());
        servers.push(match listener {
            Listener::Tcp { listener, names } => {
                let router = router.clone().layer(from_fn_with_state(names, refuse_foreign));
                let router = router.into_make_service_with_connect_info::<Caller>();
                axum::serve(listener, router).with_graceful_shutdown(stopped).into_future().boxed()
            }
            Listener::Unix(BoundSocket { listener, file }) => {
                sockets.push(file);
                let router = router.clone().into_make_service_with_connect_info::<Caller>();
                axum::serve(listener, router).with_graceful_shutdown(stopped).into_future().boxed()
            }
        });
    }
    let mut servers = tokio::spawn(join_all(servers));
    tokio::select! {
        () = stop => {
            stopping.send_replace(true);
            // Those that hang are cut off with the process.
            if tokio::time::timeout(GRACE, &mut servers).await.is_err() {
                servers.abort();
            }
        }
        _ = &mut servers => {}
    }
    // Now nobody finds a socket without a controller.
    drop(sockets);
}

async fn until(mut stopped: watch::Receiver<bool>) {
    // Without a sender the server is gone already.
    let _ = stopped.wait_for(|stopped| *stopped).await;
}

/// A listening unix socket with its file.
#[derive(Debug)]
pub struct BoundSocket {
    listener: UnixListener,
    file: SocketFile,
}

/// Removes the socket's file when it is dropped, unless it is another's by then.
#[derive(Debug)]
struct SocketFile {
    path: PathBuf,
    inode: u64,
}

impl BoundSocket {
    fn bind(path: PathBuf) -> Result<Self, ListenError> {
        refuse_if_taken(&path)?;
        let io = |source| ListenError::Io { place: path.display().to_string(), source };
        if let Some(directory) = path.parent() {
            fs::create_dir_all(directory).map_err(io)?;
        }
        // Under another name at first, as there may be one that was left over; then it takes that one's place.
        let name = path.file_name().unwrap_or_default().to_string_lossy();
        let temporary = path.with_file_name(format!(".{name}.{}", std::process::id()));
        let placed = listen_alone(&temporary).and_then(|listener| {
            fs::rename(&temporary, &path)?;
            Ok((listener, fs::metadata(&path)?.ino()))
        });
        match placed {
            Ok((listener, inode)) => Ok(Self { listener, file: SocketFile { path, inode } }),
            Err(error) => {
                // The error says more than what becomes of the temporary name.
                let _ = fs::remove_file(&temporary);
                Err(io(error))
            }
        }
    }
}

/// Listens at `path`, where nobody but the present user can connect at any moment: a socket's file gets the mode that the
/// socket had before it was bound (`unix_bind_bsd` in net/unix/af_unix.c). A umask would be the whole process's.
fn listen_alone(path: &Path) -> io::Result<UnixListener> {
    /// As many as `UnixListener::bind` lets wait.
    const BACKLOG: u32 = 1024;
    let socket = UnixSocket::new_stream()?;
    let file = fs::File::from(socket.as_fd().try_clone_to_owned()?);
    file.set_permissions(fs::Permissions::from_mode(0o600))?;
    socket.bind(path)?;
    socket.listen(BACKLOG)
}

/// A socket that somebody answers at is taken; one where nobody does was left by a process that was killed.
fn refuse_if_taken(path: &Path) -> Result<(), ListenError> {
    match fs::symlink_metadata(path) {
        Err(_) => Ok(()),
        Ok(metadata) if !metadata.file_type().is_socket() => Err(ListenError::NotASocket(path.to_owned())),
        Ok(_) => match UnixStream::connect(path) {
            Err(error) if error.kind() == io::ErrorKind::ConnectionRefused => Ok(()),
            // Also if we may not connect: then it is somebody else's.
            _ => Err(ListenError::InUse(path.to_owned())),
        },
    }
}

impl Drop for SocketFile {
    fn drop(&mut self) {
        if fs::metadata(&self.path).is_ok_and(|metadata| metadata.ino() == self.inode) {
            // If it cannot be removed, the next controller replaces it.
            let _ = fs::remove_file(&self.path);
        }
    }
}
