//! What the user of a process tells it by signals.

use std::io;

/// A signal.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Signal {
    /// Load the configuration again.
    Reload,
    /// End; with the status that a shell gives a process that died of the signal.
    Stop {
        /// The status.
        exit_status: i32,
    },
}

/// The signals that the process listens to. From when they are made on, none of them ends the process by itself.
#[derive(Debug)]
pub struct Signals {
    #[cfg(unix)]
    reload: tokio::signal::unix::Signal,
    #[cfg(unix)]
    interrupt: tokio::signal::unix::Signal,
    #[cfg(unix)]
    terminate: tokio::signal::unix::Signal,
}

impl Signals {
    /// Starts to listen. Must be called within a tokio runtime with its I/O driver on.
    ///
    /// # Errors
    ///
    /// The system refuses to install a handler.
    pub fn new() -> io::Result<Self> {
        #[cfg(unix)]
        {
            use tokio::signal::unix::{SignalKind, signal};
            Ok(Signals {
                reload: signal(SignalKind::hangup())?,
                interrupt: signal(SignalKind::interrupt())?,
                terminate: signal(SignalKind::terminate())?,
            })
        }
        #[cfg(not(unix))]
        {
            Ok(Signals {})
        }
    }

    /// The next signal. Several of a kind that come before anybody asks are one.
    pub async fn next(&mut self) -> Signal {
        #[cfg(unix)]
        {
            tokio::select! {
                _ = self.terminate.recv() => Signal::Stop { exit_status: 128 + 15 },
                _ = self.interrupt.recv() => Signal::Stop { exit_status: 128 + 2 },
                _ = self.reload.recv() => Signal::Reload,
            }
        }
        #[cfg(not(unix))]
        {
            // A process that cannot listen to this one ends by it, as it would have anyway.
            let _ = tokio::signal::ctrl_c().await;
            Signal::Stop { exit_status: 130 }
        }
    }
}
