//! Tests of whole pipelines of the family.

mod api;
mod clients;
mod file;
mod journal;
mod process;
mod syslog;
mod write;
