//! What receivers tell of who sends to them.

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::SystemTime;

use corten_component::log::rfc3339;
use corten_component::metrics::Counter;
use corten_component::{Component, Context, DebugInfo};
use corten_config::encode::Item;
use corten_otlp::RpcStatus;
use parking_lot::Mutex;

use crate::shown::{attr, block};

/// What a receiver tells. It goes on over a change of the arguments.
#[derive(Default)]
pub(crate) struct Shown {
    /// Listeners, and where they are to listen.
    listeners: Mutex<Vec<(&'static str, String)>>,
    /// By transport and signal.
    ways: Mutex<Vec<Arc<Told>>>,
}

/// What is told of the requests with telemetry of one signal over one transport.
#[derive(Debug)]
pub(super) struct Told {
    transport: String,
    signal: &'static str,
    requests: AtomicU64,
    accepted: Counter,
    refused: Counter,
    last: Mutex<Last>,
}

#[derive(Debug, Default)]
struct Last {
    accepted: Option<SystemTime>,
    refused: Option<(SystemTime, String)>,
}

/// How much of a refusal is kept, in bytes.
const REFUSAL_BYTES_MAX: usize = 1 << 10;

impl Shown {
    /// What is told by a component from now on.
    pub(crate) fn new<C: Component>(cx: &Context<C>) -> Arc<Self> {
        let shown = Arc::new(Shown::default());
        cx.show_debug_info(Arc::clone(&shown) as Arc<dyn DebugInfo>);
        shown
    }

    /// These listeners there are, each with its address.
    pub(crate) fn listen(&self, listeners: impl IntoIterator<Item = (&'static str, Option<String>)>) {
        let listeners = listeners.into_iter().filter_map(|(name, address)| Some((name, address?)));
        *self.listeners.lock() = listeners.collect();
    }

    /// What is told of a way, the same for each time.
    pub(super) fn told(
        &self,
        transport: &str,
        signal: &'static str,
        (accepted, refused): (Counter, Counter),
    ) -> Arc<Told> {
        let mut ways = self.ways.lock();
        if let Some(known) = ways.iter().find(|told| told.transport == transport && told.signal == signal) {
            return Arc::clone(known);
        }
        let told = Arc::new(Told {
            transport: transport.to_owned(),
            signal,
            requests: AtomicU64::new(0),
            accepted,
            refused,
            last: Mutex::default(),
        });
        ways.push(Arc::clone(&told));
        told
    }
}

impl Told {
    /// Counts a request of so many items, of which it is known now whether they got on, and if not, why.
    pub(super) fn count(&self, items: usize, refusal: Option<&RpcStatus>) {
        self.requests.fetch_add(1, Ordering::Relaxed);
        let now = SystemTime::now();
        match refusal {
            None => {
                self.accepted.add(items as u64);
                self.last.lock().accepted = Some(now);
            }
            Some(refusal) => {
                self.refused.add(items as u64);
                let mut text = refusal.message.clone();
                text.truncate(text.floor_char_boundary(REFUSAL_BYTES_MAX));
                self.last.lock().refused = Some((now, text));
            }
        }
    }

    fn item(&self) -> Option<Item> {
        let requests = self.requests.load(Ordering::Relaxed);
        if requests == 0 {
            return None;
        }
        let mut body = vec![
            attr("transport", self.transport.as_str()),
            attr("signal", self.signal),
            attr("requests", requests),
            attr("accepted_items", self.accepted.get()),
            attr("refused_items", self.refused.get()),
        ];
        let last = self.last.lock();
        if let Some(at) = last.accepted {
            body.push(attr("last_accepted_at", rfc3339(at)));
        }
        if let Some((at, why)) = &last.refused {
            body.push(attr("last_refused_at", rfc3339(*at)));
            body.push(attr("last_refusal", why.as_str()));
        }
        Some(block("requests", body))
    }
}

impl DebugInfo for Shown {
    fn debug_info(&self) -> Vec<Item> {
        let listeners = self.listeners.lock();
        let listeners = listeners
            .iter()
            .map(|(name, address)| block("listener", vec![attr("protocol", *name), attr("address", address.as_str())]));
        listeners.chain(self.ways.lock().iter().filter_map(|told| told.item())).collect()
    }
}
