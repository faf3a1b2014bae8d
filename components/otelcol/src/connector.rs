//! The components whose names begin with `otelcol.connector.`.

pub mod count;
mod durations;
pub mod host_info;
pub mod servicegraph;
pub mod spanlogs;
pub mod spanmetrics;
mod traces_to_metrics;
