//! The components whose names begin with `prometheus.`, but for the exporters.

pub mod scrape;
