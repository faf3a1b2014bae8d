//! The components whose names begin with `prometheus.exporter.`.

mod exposition;
pub mod self_;
pub mod static_;
mod target;

use corten_component::Definition;

/// The components of the family.
pub const COMPONENTS: &[Definition] =
    &[Definition::of::<self_::SelfExporter>(), Definition::of::<static_::StaticExporter>()];
