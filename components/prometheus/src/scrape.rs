//! `prometheus.scrape`.

mod cache;
mod target;

pub use target::TargetLoop;
