//! The components whose names begin with `otelcol.storage.`.

pub mod file;
