//! The components whose names begin with `prometheus.`, but for the exporters.

pub mod echo;
pub mod receive_http;
pub mod relabel;
pub mod remote_write;
pub mod scrape;

use corten_component::Definition;

/// The components of the family.
pub const COMPONENTS: &[Definition] = &[
    Definition::of::<echo::Echo>(),
    Definition::of::<receive_http::ReceiveHttp>(),
    Definition::of::<relabel::Relabel>(),
    Definition::of::<remote_write::RemoteWrite>(),
    Definition::of::<scrape::Scrape>(),
];
