//! The real binary, as its user runs it.

mod commands;
mod load;
mod signals;
mod support;
mod tls;
