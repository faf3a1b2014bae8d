//! The components whose names begin with `otelcol.processor.`.

pub mod batch;
