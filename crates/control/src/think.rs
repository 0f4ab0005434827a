//! Thinking: the work of the processor alone.

use std::any::Any;

use tokio::task::JoinError;

/// Works on a thread of its own what may take long: the core's other tasks go on meanwhile.
pub async fn think<T: Send + 'static>(work: impl FnOnce() -> T + Send + 'static) -> T {
    match tokio::task::spawn_blocking(work).await {
        Ok(result) => result,
        Err(error) => std::panic::resume_unwind(panic_of(error).await),
    }
}

/// The same, for who must not fall with what it asked for. An error is the message of the panic.
pub async fn attempt<T: Send + 'static>(work: impl FnOnce() -> T + Send + 'static) -> Result<T, String> {
    match tokio::task::spawn_blocking(work).await {
        Ok(result) => Ok(result),
        Err(error) => Err(message_of(panic_of(error).await.as_ref())),
    }
}

/// Never, if the runtime is shutting down, and this task with it.
async fn panic_of(error: JoinError) -> Box<dyn Any + Send> {
    match error.try_into_panic() {
        Ok(panic) => panic,
        Err(_) => std::future::pending().await,
    }
}

fn message_of(panic: &(dyn Any + Send)) -> String {
    let text = panic.downcast_ref::<&str>().map(|text| (*text).to_owned());
    text.or_else(|| panic.downcast_ref::<String>().cloned()).unwrap_or_else(|| "it panicked".to_owned())
}
