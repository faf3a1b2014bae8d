//! Bytes to signals and back.

pub mod exposition;
pub mod float;
pub mod histogram;
mod intake;
pub mod loki_push;
pub mod nhcb;
pub mod open_metrics;
pub mod proto;
pub mod protobuf_exposition;
pub mod remote_write;
pub mod remote_write2;
pub mod snappy;
pub mod text;
pub mod text_encode;
