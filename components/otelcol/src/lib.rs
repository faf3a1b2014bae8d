//! The components whose names begin with `otelcol.`.

pub mod flow;
mod metrics;
pub mod processor;

use corten_component::Definition;

/// The components of the family.
pub const COMPONENTS: &[Definition] = &[Definition::of::<processor::batch::BatchProcessor>()];
