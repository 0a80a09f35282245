//! Runs blocking work beside the async runtime's own threads.

/// Runs blocking work and returns its result. A panic of the work continues in the caller.
pub async fn blocking<T: Send + 'static>(work: impl FnOnce() -> T + Send + 'static) -> T {
    match tokio::task::spawn_blocking(work).await {
        Ok(value) => value,
        Err(error) => match error.try_into_panic() {
            Ok(panic) => std::panic::resume_unwind(panic),
            // Happens only while the whole tokio runtime shuts down: nothing is left to receive the result.
            Err(_) => std::future::pending().await,
        },
    }
}
