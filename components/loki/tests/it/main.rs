//! Tests of whole pipelines of the family.

mod api;
mod process;
mod syslog;
mod write;
