//! How batches are handed from component to component.

use std::any::Any;
use std::fmt;
use std::pin::Pin;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use arc_swap::ArcSwapOption;
use corten_config::decode::CapsuleType;
use corten_config::schema::CapsuleInfo;
use corten_config::value::Capsule;
use tokio::sync::Notify;

use crate::acks::Acks;
use crate::ledger::{Kind, Ledger, Row};
use crate::tap::Look;

/// A kind of telemetry.
pub trait Signal: Send + Sync + Sized + 'static {
    /// What is handed on at once. Cloning is cheap: the content is shared.
    type Batch: Clone + Send + Sync + fmt::Debug + 'static;
    /// The signal's name, in lower case.
    const NAME: &'static str;
    /// How a receiver of the signal is named in diagnostics and on reference pages.
    const RECEIVER: &'static CapsuleInfo;
    /// What its items are counted as.
    const KIND: Kind;
    /// How many items a batch holds.
    fn items(batch: &Self::Batch) -> usize;
    /// How much memory a batch keeps, in bytes, about.
    fn bytes(batch: &Self::Batch) -> usize;
    /// How many bytes go over an edge with a batch, about. Called once an edge and batch: it must not look at each item
    /// for longer than a sum takes.
    fn weight(batch: &Self::Batch) -> usize {
        Self::bytes(batch)
    }
    /// Shows the items of a batch one after the other, until `look` says that it has seen enough.
    fn show(batch: &Self::Batch, look: &mut Look<'_>);
    /// Who wants to know what becomes of a batch, where the signal has that.
    fn acks(batch: &mut Self::Batch) -> Option<&mut Acks> {
        let _ = batch;
        None
    }
    /// What becomes of a batch that nobody wants, because its receiver leads nowhere.
    fn unwanted(batch: Self::Batch) {
        drop(batch);
    }
}

/// A future without a type of its own.
pub type BoxFuture<'a, T> = Pin<Box<dyn Future<Output = T> + Send + 'a>>;

/// Takes batches of a signal.
pub trait Consume<S: Signal>: Send + Sync + 'static {
    /// Takes a batch. `Ok` is acceptance, and the wait for it is the back-pressure.
    fn consume(&self, batch: S::Batch) -> BoxFuture<'_, Result<(), ConsumeError>>;

    /// Whether anything is ever taken. What is not wired for a signal takes nothing, and says so each time.
    fn takes_anything(&self) -> bool {
        true
    }

    /// Whether it looks at where a batch comes from, or hands batches to somebody who does. Whoever makes batches need
    /// not find that out for others.
    fn wants_origin(&self) -> bool {
        false
    }
}

/// Why a batch was not taken, in terms of what its producer is to do.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum ConsumeError {
    /// Try again, after this long if it says so.
    Retry {
        /// How long to wait.
        after: Option<Duration>,
        /// Why.
        reason: String,
    },
    /// The batch, or a part of it, will never be taken.
    Refused {
        /// Why.
        reason: String,
    },
    /// The component is gone.
    Exited {
        /// The id of the component.
        component: String,
    },
}

impl fmt::Display for ConsumeError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            ConsumeError::Retry { reason, .. } | ConsumeError::Refused { reason } => f.write_str(reason),
            ConsumeError::Exited { component } => write!(f, "{component} has exited"),
        }
    }
}

impl std::error::Error for ConsumeError {}

/// How long a caller waits for the first stage of an inlet.
const FIRST_ATTACH_WAIT_MAX: Duration = Duration::from_secs(10);

struct Stage<S: Signal>(Arc<dyn Consume<S>>);

struct Core<S: Signal> {
    component: Arc<str>,
    /// Where the component counts what it takes.
    row: Option<Arc<Row>>,
    stage: ArcSwapOption<Stage<S>>,
    closed: AtomicBool,
    changed: Notify,
}

/// The inside of a component's entrance: what runs behind a [`Receiver`] is put in place here.
pub struct Inlet<S: Signal>(Arc<Core<S>>);

impl<S: Signal> Inlet<S> {
    /// An entrance that does not take anything yet, and keeps no books.
    pub fn new(component: impl Into<Arc<str>>) -> Self {
        Self::with(component.into(), None)
    }

    /// The entrance of a component that does not take anything yet. What it takes is counted.
    pub fn of(ledger: &Ledger) -> Self {
        Self::with(Arc::clone(ledger.component()), Some(Arc::clone(ledger.row_of::<S>())))
    }

    fn with(component: Arc<str>, row: Option<Arc<Row>>) -> Self {
        Inlet(Arc::new(Core {
            component,
            row,
            stage: ArcSwapOption::empty(),
            closed: AtomicBool::new(false),
            changed: Notify::new(),
        }))
    }

    /// The handle to give to others. All handles of an inlet are equal, and outlive reloads.
    pub fn receiver(&self) -> Receiver<S> {
        Receiver(Some(Arc::clone(&self.0)))
    }

    /// Puts a stage in place. Batches in flight finish where they entered.
    pub fn attach(&self, stage: Arc<dyn Consume<S>>) {
        self.0.stage.store(Some(Arc::new(Stage(stage))));
        self.0.changed.notify_waiters();
    }

    /// Takes nothing any more: whoever sends is told that the component has exited.
    pub fn close(&self) {
        self.0.closed.store(true, Ordering::Release);
        self.0.stage.store(None);
        self.0.changed.notify_waiters();
    }
}

/// A handle to a component's entrance. Its identity is the component's: two handles are equal when they lead to the
/// same inlet.
///
/// A receiver can lead nowhere: that is what `null` is in a configuration, and what a component exports that was not
/// evaluated yet. It takes everything and does nothing with it.
pub struct Receiver<S: Signal>(Option<Arc<Core<S>>>);

impl<S: Signal> Receiver<S> {
    /// The receiver that leads nowhere.
    pub const NOWHERE: Self = Receiver(None);

    /// Whether it leads somewhere.
    pub fn leads_somewhere(&self) -> bool {
        self.0.is_some()
    }

    /// The component that takes the batches; empty where there is none.
    pub fn component(&self) -> &str {
        self.0.as_ref().map_or("", |core| &core.component)
    }

    pub(crate) fn component_arc(&self) -> Arc<str> {
        self.0.as_ref().map_or_else(|| Arc::from(""), |core| Arc::clone(&core.component))
    }

    /// Where the component counts what it takes.
    pub(crate) fn row(&self) -> Option<&Arc<Row>> {
        self.0.as_ref()?.row.as_ref()
    }

    /// Whether the component may take anything, as far as that is known.
    pub fn takes_anything(&self) -> bool {
        self.0.as_ref().is_none_or(|core| core.stage.load().as_ref().is_none_or(|stage| stage.0.takes_anything()))
    }

    /// Whether somebody behind it looks at where a batch comes from.
    pub fn wants_origin(&self) -> bool {
        self.0.as_ref().is_some_and(|core| core.stage.load().as_ref().is_some_and(|stage| stage.0.wants_origin()))
    }

    /// Hands a batch to the component. Before the component has its first stage the caller waits, up to ten seconds.
    ///
    /// # Errors
    ///
    /// What the component answers; [`ConsumeError::Exited`] when it is gone.
    pub async fn consume(&self, batch: S::Batch) -> Result<(), ConsumeError> {
        let Some(core) = &self.0 else {
            S::unwanted(batch);
            return Ok(());
        };
        let items = if core.row.is_some() { S::items(&batch) } else { 0 };
        let stage = match core.stage.load_full() {
            Some(stage) => stage,
            None => match tokio::time::timeout(FIRST_ATTACH_WAIT_MAX, core.wait_for_stage()).await {
                Ok(Some(stage)) => stage,
                Ok(None) => return Err(ConsumeError::Exited { component: core.component.to_string() }),
                Err(_) => {
                    return Err(ConsumeError::Retry {
                        after: None,
                        reason: format!("{} does not take anything yet", core.component),
                    });
                }
            },
        };
        stage.0.consume(batch).await?;
        if let Some(row) = &core.row {
            row.taken(items);
        }
        Ok(())
    }
}

impl<S: Signal> Core<S> {
    async fn wait_for_stage(&self) -> Option<Arc<Stage<S>>> {
        loop {
            let changed = self.changed.notified();
            tokio::pin!(changed);
            changed.as_mut().enable();
            if let Some(stage) = self.stage.load_full() {
                return Some(stage);
            }
            if self.closed.load(Ordering::Acquire) {
                return None;
            }
            changed.await;
        }
    }
}

impl<S: Signal> Clone for Receiver<S> {
    fn clone(&self) -> Self {
        Receiver(self.0.clone())
    }
}

impl<S: Signal> PartialEq for Receiver<S> {
    fn eq(&self, other: &Self) -> bool {
        match (&self.0, &other.0) {
            (Some(a), Some(b)) => Arc::ptr_eq(a, b),
            (None, None) => true,
            _ => false,
        }
    }
}

impl<S: Signal> Eq for Receiver<S> {}

impl<S: Signal> fmt::Debug for Receiver<S> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Receiver<{}>({})", S::NAME, self.component())
    }
}

impl<S: Signal> Capsule for Receiver<S> {
    fn type_name(&self) -> &'static str {
        S::RECEIVER.type_name
    }

    fn equals(&self, other: &dyn Capsule) -> bool {
        other.as_any().downcast_ref::<Self>() == Some(self)
    }

    fn as_any(&self) -> &dyn Any {
        self
    }
}

impl<S: Signal> CapsuleType for Receiver<S> {
    const INFO: &'static CapsuleInfo = S::RECEIVER;

    fn null() -> Option<Self> {
        Some(Receiver::NOWHERE)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::metrics::{Metrics, MetricsBatch};
    use std::sync::atomic::AtomicUsize;

    #[derive(Default)]
    struct Count(AtomicUsize);

    impl Consume<Metrics> for Count {
        fn consume(&self, _: Arc<MetricsBatch>) -> BoxFuture<'_, Result<(), ConsumeError>> {
            self.0.fetch_add(1, Ordering::Relaxed);
            Box::pin(async { Ok(()) })
        }
    }

    #[tokio::test(start_paused = true)]
    async fn a_batch_waits_for_the_first_stage() {
        let inlet = Inlet::<Metrics>::new("prometheus.echo.a");
        let receiver = inlet.receiver();
        let count = Arc::new(Count::default());
        let (sent, ()) = tokio::join!(receiver.consume(Arc::default()), async {
            tokio::time::sleep(Duration::from_secs(1)).await;
            inlet.attach(count.clone());
        });
        assert_eq!(sent, Ok(()));
        assert_eq!(count.0.load(Ordering::Relaxed), 1);
    }

    #[tokio::test(start_paused = true)]
    async fn the_wait_for_the_first_stage_is_bounded() {
        let inlet = Inlet::<Metrics>::new("prometheus.echo.a");
        assert!(matches!(inlet.receiver().consume(Arc::default()).await, Err(ConsumeError::Retry { .. })));
    }

    #[tokio::test]
    async fn a_closed_inlet_says_that_the_component_has_exited() {
        let inlet = Inlet::<Metrics>::new("prometheus.echo.a");
        inlet.attach(Arc::new(Count::default()));
        inlet.close();
        let error = inlet.receiver().consume(Arc::default()).await.unwrap_err();
        assert_eq!(error.to_string(), "prometheus.echo.a has exited");
    }
}
