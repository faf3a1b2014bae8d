//! The real binary, as its user runs it.

mod api;
mod bundle;
mod commands;
mod docs;
mod graphql;
mod http;
mod invalid;
mod load;
mod loki;
mod otlp;
mod peers;
mod signals;
mod support;
mod tls;
mod torture;
mod ui;
