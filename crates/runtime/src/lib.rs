//! Scopes, graph, evaluation and reload.
//!
//! This crate drives components without knowing any: it never depends on a family.

pub mod blocks;
pub mod controller;
pub mod graph;
pub mod references;
mod scope;
pub mod source;

pub use controller::{Controller, LoadError, Node, Options};
pub use graph::{Catalog, NodeKind, Permissions, plan, validate};
pub use source::{Source, SourceError};
