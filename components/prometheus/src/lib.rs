//! The components whose names begin with `prometheus.`, but for the exporters.

pub mod remote_write;
pub mod scrape;
