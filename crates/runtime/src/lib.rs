//! Scopes, graph, evaluation and reload.
//!
//! This crate drives components without knowing any: it never depends on a family.

pub mod blocks;
mod books;
pub mod controller;
pub mod graph;
mod loads;
mod plan;
pub mod references;
mod scope;
mod shown;
pub mod source;

pub use controller::{Controller, LoadError, Node, Options};
pub use graph::{Catalog, NodeKind, Permissions, Role, plan, validate};
pub use loads::{LastLoad, LoadedBy};
pub use plan::{ArgumentChange, PlannedChange, ReloadPlan};
pub use source::{Source, SourceError};
