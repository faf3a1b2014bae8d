//! Receivers that do not only take what they are sent.

use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;

use corten_signal::flow::BoxFuture;
use corten_signal::ledger::Row;
use corten_signal::{Consume, ConsumeError, Ledger, Signal};
use proptest::prelude::*;

/// What a receiver does with a batch.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Deed {
    /// Takes it.
    Take,
    /// Will never take it.
    Refuse,
    /// Asks for it again.
    Busy,
    /// Says that its component is gone.
    Exited,
    /// Takes it after three seconds, when it is served apart from others.
    Late,
    /// Never answers.
    Hang,
    /// Panics.
    Panic,
}

impl Deed {
    /// Up to 16 of them, more than half of which take the batch.
    pub fn some() -> impl Strategy<Value = Vec<Deed>> {
        let deed = prop_oneof![
            8 => Just(Deed::Take),
            1 => Just(Deed::Refuse),
            2 => Just(Deed::Busy),
            1 => Just(Deed::Exited),
            1 => Just(Deed::Late),
            1 => Just(Deed::Hang),
            1 => Just(Deed::Panic),
        ];
        proptest::collection::vec(deed, 0..16)
    }
}

/// A sink that does one thing after the other, whatever the signals, and takes everything in the end.
#[derive(Clone, Debug)]
pub struct Fickle {
    deeds: Arc<[Deed]>,
    at: Arc<AtomicUsize>,
    row: Option<Arc<Row>>,
}

impl Fickle {
    /// A sink without books.
    pub fn new(deeds: &[Deed]) -> Self {
        Fickle { deeds: deeds.into(), at: Arc::default(), row: None }
    }

    /// The same sink, for a signal that it counts in these books.
    pub fn counting<S: Signal>(&self, ledger: &Ledger) -> Arc<Self> {
        Arc::new(Fickle { row: Some(Arc::clone(ledger.row_of::<S>())), ..self.clone() })
    }
}

impl<S: Signal> Consume<S> for Fickle {
    fn consume(&self, mut batch: S::Batch) -> BoxFuture<'_, Result<(), ConsumeError>> {
        let deed = self.deeds.get(self.at.fetch_add(1, Ordering::Relaxed)).copied().unwrap_or(Deed::Take);
        Box::pin(async move {
            match deed {
                Deed::Take => {}
                Deed::Refuse => return Err(ConsumeError::Refused { reason: "no".to_owned() }),
                Deed::Busy => return Err(ConsumeError::Retry { after: None, reason: "busy".to_owned() }),
                Deed::Exited => return Err(ConsumeError::Exited { component: "sink".to_owned() }),
                Deed::Late => tokio::time::sleep(Duration::from_secs(3)).await,
                Deed::Hang => std::future::pending().await,
                Deed::Panic => panic!("a deed"),
            }
            if let Some(row) = &self.row {
                row.out(S::items(&batch));
            }
            if let Some(acks) = S::acks(&mut batch) {
                std::mem::take(acks).safe();
            }
            Ok(())
        })
    }
}
