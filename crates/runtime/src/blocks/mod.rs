//! The blocks that configure the program itself.

use corten_component::Definition;

pub(crate) mod idle;
pub mod livedebugging;
pub mod logging;
pub mod tracing;

/// The configuration blocks that every program has, sorted by name.
pub const BLOCKS: &[Definition] = &[Definition::of::<logging::Logging>(), Definition::of::<tracing::Tracing>()];

/// The services that every program has and that a block configures, sorted by name.
pub const SERVICES: &[Definition] = &[Definition::of::<livedebugging::LiveDebugging>()];
