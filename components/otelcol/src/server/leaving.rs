//! Servers that are wanted no more.

use corten_component::Task;
use tokio::sync::watch;

/// Servers that are wanted no more and still answer what came to them, within their limits. They listen no longer.
#[derive(Default)]
pub(crate) struct Leaving(watch::Sender<usize>);

impl Leaving {
    /// Lets a server end.
    pub(crate) fn add(&self, server: Option<impl Into<Task>>) {
        let Some(server) = server else { return };
        let (task, left): (Task, _) = (server.into(), self.0.clone());
        // At once: nothing else tells it that nobody changes its arguments any more.
        task.ask_to_stop();
        left.send_modify(|count| *count += 1);
        tokio::spawn(async move {
            task.stop().await;
            left.send_modify(|count| *count -= 1);
        });
    }

    /// Waits until all have ended.
    pub(crate) async fn gone(&self) {
        // The sender is here.
        let _ = self.0.subscribe().wait_for(|count| *count == 0).await;
    }
}
