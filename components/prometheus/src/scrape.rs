//! `prometheus.scrape`.

mod cache;
