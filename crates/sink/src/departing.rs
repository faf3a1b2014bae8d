//! Senders that end: their endpoint is gone, or sends from elsewhere.

use std::fmt;
use std::sync::{Arc, Weak};
use std::time::Duration;

use corten_component::{Field, Logger};
use corten_queue::{Queue, Reader};
use tokio::sync::watch;
use tokio::task::{JoinHandle, JoinSet};

/// How long what waits is still sent when the program ends or an endpoint goes, as long as the peer takes it.
pub const FLUSH_WAIT_MAX: Duration = Duration::from_secs(60);

/// A sender that ends once it has sent what waits for it.
pub struct Departing {
    /// What names the endpoint's place in the queue.
    pub identity: String,
    /// Its place in the queue.
    pub reader: Reader,
    /// Tells the sender to try nothing again.
    pub ending: watch::Sender<bool>,
    /// The sender.
    pub handle: JoinHandle<()>,
    /// Whether the endpoint is still in the configuration. What waits for one that is not is sent only for a while.
    pub stays: bool,
    /// What to do when it has ended.
    pub gone: Option<Box<dyn FnOnce() + Send>>,
}

impl fmt::Debug for Departing {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Departing").field("identity", &self.identity).finish_non_exhaustive()
    }
}

/// Something that is being ended in the background.
#[derive(Debug)]
pub struct Leaving {
    /// All stops: what was not sent waits for the next start.
    pub stop: watch::Sender<bool>,
    /// The task that sees to it.
    pub handle: JoinHandle<()>,
}

/// Waits for batches in flight, which finish where they entered; not for ever, and not while all stops.
pub async fn finished(stage: &Weak<dyn Send + Sync>, stopped: &mut watch::Receiver<bool>) {
    let end = tokio::time::Instant::now() + FLUSH_WAIT_MAX;
    while stage.strong_count() > 0 && tokio::time::Instant::now() < end && !*stopped.borrow() {
        tokio::time::sleep(Duration::from_millis(10)).await;
    }
}

impl Departing {
    /// Waits until the sender has sent what waits for it; until it has had its time, if the endpoint is gone; or until all
    /// stops.
    pub async fn depart(mut self, mut stopped: watch::Receiver<bool>, logger: &Logger) {
        let has_had_its_time = async {
            match self.stays {
                true => std::future::pending().await,
                false => tokio::time::sleep(FLUSH_WAIT_MAX).await,
            }
        };
        tokio::select! {
            _ = &mut self.handle => {}
            () = has_had_its_time => {}
            _ = stopped.wait_for(|stop| *stop) => {}
        }
        self.ending.send_replace(true);
        if !self.handle.is_finished() && tokio::time::timeout(FLUSH_WAIT_MAX, &mut self.handle).await.is_err() {
            self.handle.abort();
        }
        let left = self.reader.lag().pending;
        if !self.stays && !*stopped.borrow() && left.records > 0 {
            let fields = [("endpoint", Field::from(&self.identity)), ("count", Field::from(left.items()))];
            logger.warn("an endpoint is gone; what it did not take in time is dropped", &fields);
        }
        if let Some(gone) = self.gone {
            gone();
        }
    }
}

/// Ends senders whose queue goes on without them. If they leave it now, what was taken before is for them: by `stage`.
/// `forget` gets those whose place in the queue is not needed any more.
pub fn leave_lane(
    queue: Queue,
    senders: Vec<Departing>,
    leave_now: bool,
    stage: Weak<dyn Send + Sync>,
    forget: impl Fn(&str, &Reader) + Send + Sync + 'static,
    logger: Logger,
) -> Leaving {
    let (stop, mut stopped) = watch::channel(false);
    let forget = Arc::new(forget);
    let handle = tokio::spawn(async move {
        finished(&stage, &mut stopped).await;
        let senders = senders.into_iter().map(|departing| {
            let (queue, stopped) = (queue.clone(), stopped.clone());
            let (forget, logger) = (Arc::clone(&forget), logger.clone());
            async move {
                let reader = departing.reader.clone();
                let identity = departing.identity.clone();
                if leave_now {
                    reader.end_at(queue.end());
                    reader.flush();
                }
                departing.depart(stopped.clone(), &logger).await;
                let waits_for_the_next_start = *stopped.borrow() && reader.lag().pending.records > 0;
                if !waits_for_the_next_start {
                    forget(&identity, &reader);
                }
            }
        });
        let mut set: JoinSet<()> = senders.collect();
        while set.join_next().await.is_some() {}
    });
    Leaving { stop, handle }
}
