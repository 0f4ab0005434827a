//! `serve`: the controller as a daemon.

use catena_api::Listener;
use catena_control::Mode;
use tokio::signal::unix::{SignalKind, signal};

use crate::arguments::{Connection, Serve};
use crate::drivers;
use crate::error::CliError;

/// Answers until it is told to stop. What is installed stays installed.
pub async fn serve(connection: &Connection, arguments: &Serve) -> Result<(), CliError> {
    // Before anything is touched: another controller may be there.
    let mut listeners = vec![Listener::unix(&connection.socket)?];
    if let Some(address) = arguments.listen {
        listeners.push(Listener::tcp(address, arguments.allow_host.iter().cloned()).await?);
    }
    let mut terminate = signal(SignalKind::terminate()).map_err(CliError::Signals)?;
    let mut interrupt = signal(SignalKind::interrupt()).map_err(CliError::Signals)?;
    let controller =
        drivers::once_free(async || drivers::controller(&connection.state, Mode::Control).await).await?;
    for address in listeners.iter().filter_map(Listener::tcp_address) {
        tracing::info!(%address, "answering over TCP");
    }
    tracing::info!(socket = %connection.socket.display(), state = %connection.state.display(), "answering");
    let told_to_stop = async {
        tokio::select! {
            _ = terminate.recv() => {}
            _ = interrupt.recv() => {}
        }
        tracing::info!("stopping; what is installed stays installed");
    };
    catena_api::serve(controller, listeners, told_to_stop).await;
    Ok(())
}
