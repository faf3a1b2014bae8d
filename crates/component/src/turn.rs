//! Who may speak for a component.
//!
//! A task that was asked to stop may still be about to export what it found under settings that are no longer those of the
//! component. Each commit takes a turn of its own, and what is said in an earlier one is not heard.

use std::fmt;
use std::sync::Arc;

use parking_lot::Mutex;

use crate::context::Context;
use crate::definition::Component;
use crate::health::Health;

/// The right to export and to report health on behalf of one set of arguments, until a later turn is taken.
pub struct Turn<C> {
    cx: Context<C>,
    number: u64,
    latest: Arc<Mutex<u64>>,
}

impl<C> Clone for Turn<C> {
    fn clone(&self) -> Self {
        Turn { cx: self.cx.clone(), number: self.number, latest: Arc::clone(&self.latest) }
    }
}

impl<C> fmt::Debug for Turn<C> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Turn").field("number", &self.number).finish_non_exhaustive()
    }
}

impl<C: Component> Turn<C> {
    /// The turn of a component's first commit.
    pub fn first(cx: &Context<C>) -> Self {
        Turn { cx: cx.clone(), number: 0, latest: Arc::default() }
    }

    /// The turn of the next commit. From here on this one is over.
    #[must_use]
    pub fn next(&self) -> Self {
        let mut latest = self.latest.lock();
        *latest += 1;
        Turn { cx: self.cx.clone(), number: *latest, latest: Arc::clone(&self.latest) }
    }

    /// Exports, unless the turn is over; whether it was heard.
    pub fn export(&self, exports: &C::Exports) -> bool {
        self.speak(|cx| cx.export(exports))
    }

    /// Reports health, unless the turn is over; whether it was heard.
    pub fn report_health(&self, health: Option<Health>) -> bool {
        self.speak(|cx| cx.report_health(health))
    }

    /// Does something that may not happen once the turn is over; whether it did. No other turn is taken meanwhile, so it
    /// has to be short.
    pub fn speak(&self, say: impl FnOnce(&Context<C>)) -> bool {
        let latest = self.latest.lock();
        let mine = *latest == self.number;
        if mine {
            say(&self.cx);
        }
        mine
    }
}
