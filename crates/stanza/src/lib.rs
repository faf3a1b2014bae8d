//! The operators of stanza: what configurations written for the collector's log receivers say about how entries are
//! parsed, changed and sent on, compiled once and run over entries.
//!
//! A [`Pipeline`] is built of what a configuration says, [`Value`]s, and takes [`Entry`]s. It knows no files and no
//! transport. [`expr`] is the language of its conditions.

mod build;
mod entry;
pub mod expr;
mod field;
mod json;
mod operators;
mod pipeline;
mod time;
mod value;

pub use build::BuildError;
pub use entry::{Entry, SEVERITY_NAMES};
pub use expr::{ExprError, Program, Template};
pub use field::{Field, FieldError, Root};
pub use pipeline::{Counts, Failure, OnError, Output, Pipeline};
pub use time::{TimeReader, now};
pub use value::{Map, Text, Value};
