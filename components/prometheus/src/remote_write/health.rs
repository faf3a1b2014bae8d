//! The health of a component that has many endpoints.

use std::collections::BTreeMap;
use std::sync::Arc;

use corten_component::{Context, Health};
use parking_lot::Mutex;

use super::RemoteWrite;
use super::endpoint::EndpointInfo;

/// The endpoints whose requests fail. The component is as bad as the worst of them.
#[derive(Default)]
pub(super) struct Failing(Mutex<FailingEndpoints>);

#[derive(Default)]
pub(super) struct FailingEndpoints {
    /// Name and URL of those that are in the configuration.
    pub(super) live: Vec<(String, String)>,
    pub(super) failing: BTreeMap<(String, String), Health>,
}

impl Failing {
    /// These are the endpoints of the configuration now.
    pub(super) fn keep(&self, infos: &[Arc<EndpointInfo>], cx: &Context<RemoteWrite>) {
        let mut state = self.0.lock();
        let state = &mut *state;
        state.live = infos.iter().map(|info| (info.remote_name.clone(), info.url.clone())).collect();
        let live = &state.live;
        state.failing.retain(|endpoint, _| live.contains(endpoint));
        cx.report_health(state.failing.values().next().cloned());
    }

    /// What the sender of an endpoint tells how it is.
    pub(super) fn reporter(
        self: &Arc<Self>,
        remote_name: &str,
        url: &str,
        cx: &Context<RemoteWrite>,
    ) -> Arc<dyn Fn(Option<Health>) + Send + Sync> {
        let (failing, context) = (Arc::clone(self), cx.clone());
        let endpoint = (remote_name.to_owned(), url.to_owned());
        Arc::new(move |health| {
            let mut state = failing.0.lock();
            match health {
                Some(health) if state.live.contains(&endpoint) => drop(state.failing.insert(endpoint.clone(), health)),
                _ => drop(state.failing.remove(&endpoint)),
            }
            context.report_health(state.failing.values().next().cloned());
        })
    }
}
