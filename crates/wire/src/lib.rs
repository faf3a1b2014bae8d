//! Bytes to signals and back.

pub mod exposition;
pub mod float;
pub mod histogram;
pub mod open_metrics;
pub mod remote_write;
pub mod snappy;
pub mod text;
