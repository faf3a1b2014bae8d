//! The HTTP API of the program: state, reload, metrics, what components serve, and what the web interface reads.
//!
//! It knows the controller of the runtime and no component. It never changes what runs but through a reload.

mod api;
mod assets;
pub mod block;
mod encoding;
mod graphql;
mod hosts;
mod metrics;
mod path;
mod reload;
mod routes;
mod server;
mod support;
mod web;
mod zip;

use corten_component::Definition;

pub use block::{Config, Http};
pub use hosts::HostNames;
pub use metrics::{BuildInfo, Gatherer};
pub use reload::{Refusal, Reloader};
pub use routes::Peer;
pub use server::{Bound, Graphql, Server, ServerOptions, bind};

/// The blocks that configure services, sorted by name.
pub const BLOCKS: &[Definition] = &[Definition::of::<Http>()];
