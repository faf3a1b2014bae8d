//! The tasks of a component.
//!
//! A task is asked to stop, it is not dropped in the middle of its work: it looks at its [`Stop`] between units of work.
//! A task that panics or fails is its component's health, and is started again after a while.

use std::future::Future;
use std::panic::AssertUnwindSafe;
use std::sync::Arc;
use std::time::Duration;

use futures_util::FutureExt as _;
use tokio::sync::watch;
use tokio::task::JoinHandle;

use crate::health::{Health, HealthBoard, HealthState};
use crate::log::Logger;

/// How long a task that was asked to stop may go on before it is aborted.
pub const STOP_WAIT_MAX: Duration = Duration::from_secs(60);

/// The waits before a task that ended badly is started again: doubling from the first to the second.
const RESTART_WAIT_MIN: Duration = Duration::from_millis(500);
const RESTART_WAIT_MAX: Duration = Duration::from_secs(60);

/// Tells a task that it is to stop.
#[derive(Clone, Debug)]
pub struct Stop(watch::Receiver<bool>);

impl Stop {
    /// A pair: what asks for the stop, and what is asked.
    pub fn pair() -> (Stopper, Stop) {
        let (sender, receiver) = watch::channel(false);
        (Stopper(sender), Stop(receiver))
    }

    /// Whether the task is to stop.
    pub fn is_set(&self) -> bool {
        *self.0.borrow()
    }

    /// Waits until the task is to stop.
    pub async fn wait(&mut self) {
        // Whoever could ask is gone: that asks, too.
        let _ = self.0.wait_for(|stop| *stop).await;
    }

    /// Waits for a span of time; whether it passed without the task being asked to stop.
    pub async fn sleep(&mut self, duration: Duration) -> bool {
        tokio::time::timeout(duration, self.wait()).await.is_err()
    }
}

/// Asks a task to stop.
#[derive(Debug)]
pub struct Stopper(watch::Sender<bool>);

impl Stopper {
    /// Asks.
    pub fn stop(&self) {
        self.0.send_replace(true);
    }
}

/// A running task. It is asked to stop when this is dropped.
#[derive(Debug)]
pub struct Task {
    name: String,
    stopper: Stopper,
    handle: Option<JoinHandle<()>>,
    logger: Logger,
}

impl Task {
    /// Starts a task; it is started again when it fails or panics. `run` makes the future anew each time.
    pub fn spawn<F, T>(name: impl Into<String>, health: Arc<HealthBoard>, logger: Logger, run: F) -> Self
    where
        F: Fn(Stop) -> T + Send + 'static,
        T: Future<Output = Result<(), String>> + Send + 'static,
    {
        let name = name.into();
        let (stopper, stop) = Stop::pair();
        let task = name.clone();
        let log = logger.clone();
        let handle = tokio::spawn(async move { supervise(&task, &health, &log, stop, run).await });
        Task { name, stopper, handle: Some(handle), logger }
    }

    /// Asks the task to stop and does not wait for it.
    pub fn ask_to_stop(&self) {
        self.stopper.stop();
    }

    /// Asks the task to stop and waits until it has, up to a limit; then it is aborted.
    pub async fn stop(mut self) {
        self.stopper.stop();
        let Some(mut handle) = self.handle.take() else { return };
        if tokio::time::timeout(STOP_WAIT_MAX, &mut handle).await.is_err() {
            handle.abort();
            self.logger.warn("task did not stop in time and was aborted", &[("task", (&self.name).into())]);
        }
    }
}

impl Drop for Task {
    fn drop(&mut self) {
        self.stopper.stop();
    }
}

async fn supervise<F, T>(name: &str, health: &HealthBoard, logger: &Logger, mut stop: Stop, run: F)
where
    F: Fn(Stop) -> T,
    T: Future<Output = Result<(), String>>,
{
    let mut wait = RESTART_WAIT_MIN;
    loop {
        let error = match AssertUnwindSafe(run(stop.clone())).catch_unwind().await {
            Ok(Ok(())) => return,
            Ok(Err(error)) => error,
            Err(panic) => format!("task panicked: {}", panic_text(&*panic)),
        };
        if stop.is_set() {
            return;
        }
        logger.error(
            "task failed and is started again",
            &[("task", name.into()), ("err", (&error).into()), ("after", wait.into())],
        );
        health.set_reported(Some(Health::now(HealthState::Unhealthy, format!("{name}: {error}"))));
        if !stop.sleep(wait).await {
            return;
        }
        wait = (wait * 2).min(RESTART_WAIT_MAX);
        health.set_reported(None);
    }
}

/// The message of a panic.
pub fn panic_text(panic: &(dyn std::any::Any + Send)) -> String {
    let text = panic.downcast_ref::<&str>().map(|s| (*s).to_owned());
    text.or_else(|| panic.downcast_ref::<String>().cloned()).unwrap_or_else(|| "no message".to_owned())
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::log::LogSink;
    use std::sync::atomic::{AtomicUsize, Ordering};

    fn board() -> Arc<HealthBoard> {
        let board = HealthBoard::new("component created");
        board.set_evaluation(Health::now(HealthState::Healthy, "component evaluated"));
        Arc::new(board)
    }

    #[tokio::test(start_paused = true)]
    async fn a_task_that_panics_is_the_components_health_and_starts_again() {
        let (sink, _) = LogSink::memory();
        let board = board();
        let starts = Arc::new(AtomicUsize::new(0));
        let counted = Arc::clone(&starts);
        let task = Task::spawn("reader", Arc::clone(&board), Logger::new(sink), move |mut stop| {
            let start = counted.fetch_add(1, Ordering::Relaxed);
            async move {
                assert!(start > 0, "the first time goes wrong");
                stop.wait().await;
                Ok(())
            }
        });
        tokio::time::sleep(Duration::from_millis(1)).await;
        assert_eq!(board.current().message, "reader: task panicked: the first time goes wrong");
        tokio::time::sleep(RESTART_WAIT_MIN).await;
        assert_eq!((starts.load(Ordering::Relaxed), board.current().state), (2, HealthState::Healthy));
        task.stop().await;
    }

    #[tokio::test(start_paused = true)]
    async fn a_task_that_does_not_stop_is_aborted() {
        let (sink, lines) = LogSink::memory();
        let task = Task::spawn("deaf", board(), Logger::new(sink), |_| std::future::pending());
        task.stop().await;
        assert!(String::from_utf8_lossy(&lines.lock()).contains("task did not stop in time"));
    }
}
