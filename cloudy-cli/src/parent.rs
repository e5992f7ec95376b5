//! A slave that another process started, and that does not outlive it.

/// Returns once the process that holds the other end of stdin is gone, however it ended.
#[cfg(unix)]
pub(crate) async fn gone() {
    use std::os::fd::AsFd;

    use tokio::io::AsyncReadExt;
    use tokio::net::unix::pipe::Receiver;

    let stdin = std::io::stdin().as_fd().try_clone_to_owned();
    let Ok(mut pipe) = stdin.and_then(Receiver::from_owned_fd) else {
        // Not a pipe: nobody is to be watched.
        return std::future::pending().await;
    };
    let mut ignored = [0; 64];
    while pipe.read(&mut ignored).await.is_ok_and(|length| length > 0) {}
}

/// Elsewhere the parent's own cleaning up has to do.
#[cfg(not(unix))]
pub(crate) async fn gone() {
    std::future::pending().await
}
