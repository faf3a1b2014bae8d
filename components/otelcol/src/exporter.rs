//! The components whose names begin with `otelcol.exporter.`.

pub mod compression;
mod cookies;
mod counted;
pub mod debug;
mod ends;
pub mod file;
pub mod grpc_client;
pub mod http_client;
pub mod loadbalancing;
pub mod loki;
pub mod otlp;
pub mod otlphttp;
pub mod prometheus;
pub mod queue;
mod rejected;
pub mod retry;
mod sending;
#[cfg(test)]
mod testing;
