//! The HTTP API of the program: state, reload, metrics, what components serve, and what the web interface reads.
//!
//! It knows the controller of the runtime and no component. It never changes what runs but through a reload.

pub mod block;
mod encoding;
mod metrics;
mod page;
mod path;
mod reload;
mod routes;
mod server;
mod web;

use corten_component::Definition;

pub use block::{Config, Http};
pub use metrics::{BuildInfo, Gatherer};
pub use reload::Reloader;
pub use routes::Peer;
pub use server::{Bound, Server, ServerOptions, bind};

/// The blocks that configure services, sorted by name.
pub const BLOCKS: &[Definition] = &[Definition::of::<Http>()];
