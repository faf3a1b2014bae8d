//! Tests of whole pipelines of the family.

mod process;
mod write;
