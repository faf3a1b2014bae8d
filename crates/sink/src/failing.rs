//! The health of a component that has many endpoints.

use std::collections::BTreeMap;
use std::sync::Arc;

use corten_component::{Health, HealthBoard};
use parking_lot::Mutex;

/// The endpoints whose requests fail, by what names them. The component is as bad as the worst of them.
#[derive(Debug)]
pub struct Failing<K> {
    board: Arc<HealthBoard>,
    state: Mutex<Endpoints<K>>,
}

#[derive(Debug)]
struct Endpoints<K> {
    /// Those that are in the configuration.
    live: Vec<K>,
    failing: BTreeMap<K, Health>,
}

impl<K: Ord + Clone + Send + Sync + 'static> Failing<K> {
    /// No endpoint yet; the component's health stands on this board.
    pub fn new(board: Arc<HealthBoard>) -> Arc<Self> {
        Arc::new(Failing { board, state: Mutex::new(Endpoints { live: Vec::new(), failing: BTreeMap::new() }) })
    }

    /// These are the endpoints of the configuration now.
    pub fn keep(&self, live: Vec<K>) {
        let mut state = self.state.lock();
        let state = &mut *state;
        state.live = live;
        let live = &state.live;
        state.failing.retain(|endpoint, _| live.contains(endpoint));
        self.board.set_reported(state.failing.values().next().cloned());
    }

    /// What the sender of an endpoint tells how it is.
    pub fn reporter(self: &Arc<Self>, endpoint: K) -> Arc<dyn Fn(Option<Health>) + Send + Sync> {
        let failing = Arc::clone(self);
        Arc::new(move |health| failing.report(&endpoint, health))
    }

    fn report(&self, endpoint: &K, health: Option<Health>) {
        let mut state = self.state.lock();
        match health {
            Some(health) if state.live.contains(endpoint) => drop(state.failing.insert(endpoint.clone(), health)),
            _ => drop(state.failing.remove(endpoint)),
        }
        self.board.set_reported(state.failing.values().next().cloned());
    }
}
