//! What of the program's own API goes into a support bundle.

use std::time::{Duration, Instant};

use super::component::Arrivals;
use super::{Own, balance, config};

/// How long it may take to ask all components.
const COMPONENTS_WAIT: Duration = Duration::from_secs(5);

impl Own {
    /// What there is and what goes where, as JSON.
    pub(crate) fn graph_text(&self) -> String {
        self.graph().to_string()
    }

    /// The books of all components, as JSON.
    pub(crate) fn balance_text(&self) -> String {
        balance::balance(&self.controller, true).to_string()
    }

    /// How the last load went, as JSON.
    pub(crate) fn last_load_text(&self) -> String {
        let load = self.controller.last_load().borrow().clone();
        load.map_or_else(|| "null".to_owned(), |load| config::last_load(&self.controller, &load).to_string())
    }

    /// All components and blocks with all that is known of each, as JSON: as many as are told within a time and fit into a
    /// number of bytes. The last element says how many were left out.
    pub(crate) async fn components_text(&self, bytes_max: usize) -> String {
        let started = Instant::now();
        let (mut out, mut left_out) = ("[".to_owned(), 0);
        let nodes = self.controller.nodes();
        let arrivals = Arrivals::of(&nodes);
        for node in &nodes {
            if started.elapsed() > COMPONENTS_WAIT {
                left_out += 1;
                continue;
            }
            let text = self.component(node, &arrivals).await.to_string();
            if out.len() + text.len() + 64 > bytes_max {
                left_out += 1;
                continue;
            }
            out.push_str(&text);
            out.push_str(",\n");
        }
        out.push_str(&format!("{{\"leftOut\":{left_out}}}]"));
        out
    }
}
