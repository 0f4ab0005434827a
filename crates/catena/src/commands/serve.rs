//! `serve`: the controller as a daemon.

use std::fs::{self, DirBuilder};
use std::io::{Error, ErrorKind};
use std::net::SocketAddr;
use std::os::unix::fs::{DirBuilderExt, PermissionsExt};
use std::path::Path;
use std::time::Duration;

use axum::Router;
use tokio::net::{TcpListener, UnixListener, UnixStream};
use tokio::signal::unix::{SignalKind, signal};
use tokio::sync::watch;
use tokio::time::timeout;

use crate::arguments::{Connection, Serve};
use crate::drivers;
use crate::error::CliError;

/// How long answers may take that were begun before it was told to stop.
const GRACE: Duration = Duration::from_secs(1);

/// Answers until it is told to stop. What is installed stays installed.
pub async fn serve(connection: &Connection, arguments: &Serve) -> Result<(), CliError> {
    let router = drivers::router(&connection.state).await?;
    let socket = listen_on_socket(&connection.socket).await?;
    tracing::info!(socket = %connection.socket.display(), state = %connection.state.display(), "answering");
    let (stop, stopped) = watch::channel(());
    let tcp = match arguments.listen {
        Some(address) => Some(serve_tcp(address, router.clone(), stopped.clone()).await?),
        None => None,
    };
    let unix = tokio::spawn(axum::serve(socket, router).with_graceful_shutdown(until(stopped)).into_future());
    told_to_stop().await.map_err(CliError::Serve)?;
    tracing::info!("stopping; what is installed stays installed");
    // Everybody who waits is told by the channel's end.
    drop(stop);
    for answering in [Some(unix), tcp].into_iter().flatten() {
        // Who follows events would follow them for ever.
        if let Ok(ended) = timeout(GRACE, answering).await {
            ended.map_err(Error::other).and_then(|result| result).map_err(CliError::Serve)?;
        }
    }
    // Somebody may have taken it away already.
    let _ = fs::remove_file(&connection.socket);
    Ok(())
}

type Answering = tokio::task::JoinHandle<Result<(), Error>>;

async fn serve_tcp(
    address: SocketAddr,
    router: Router,
    stopped: watch::Receiver<()>,
) -> Result<Answering, CliError> {
    let listener = TcpListener::bind(address)
        .await
        .map_err(|source| CliError::Listen { at: address.to_string(), source })?;
    tracing::info!(%address, "answering here too");
    Ok(tokio::spawn(axum::serve(listener, router).with_graceful_shutdown(until(stopped)).into_future()))
}

/// The socket of a controller that crashed is taken over; that of one that runs is not.
async fn listen_on_socket(path: &Path) -> Result<UnixListener, CliError> {
    let failed = |source| CliError::Listen { at: path.display().to_string(), source };
    if let Some(folder) = path.parent() {
        // For the owner alone, as the socket is: whoever can connect can reprogram the network.
        DirBuilder::new().recursive(true).mode(0o700).create(folder).map_err(failed)?;
    }
    if UnixStream::connect(path).await.is_ok() {
        return Err(CliError::Running(path.to_owned()));
    }
    match fs::remove_file(path) {
        Err(error) if error.kind() != ErrorKind::NotFound => return Err(failed(error)),
        _ => {}
    }
    let listener = UnixListener::bind(path).map_err(failed)?;
    fs::set_permissions(path, fs::Permissions::from_mode(0o600)).map_err(failed)?;
    Ok(listener)
}

async fn told_to_stop() -> Result<(), Error> {
    let mut terminate = signal(SignalKind::terminate())?;
    let mut interrupt = signal(SignalKind::interrupt())?;
    tokio::select! {
        _ = terminate.recv() => Ok(()),
        _ = interrupt.recv() => Ok(()),
    }
}

async fn until(mut stopped: watch::Receiver<()>) {
    // An error says that the sender is gone: that is what is waited for.
    while stopped.changed().await.is_ok() {}
}
