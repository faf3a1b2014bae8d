//! The components whose names begin with `otelcol.processor.`.

pub mod attributes;
#[cfg(test)]
mod balance;
pub mod batch;
pub mod cumulativetodelta;
pub mod deltatocumulative;
pub mod filter;
pub mod groupbyattrs;
pub mod interval;
pub mod memory_limiter;
pub mod metric_start_time;
pub mod probabilistic_sampler;
pub mod redaction;
pub mod resourcedetection;
pub mod span;
pub mod tail_sampling;
mod tracking;
pub mod transform;
