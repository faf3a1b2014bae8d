//! Bytes to signals and back.

pub mod docker_stream;
pub mod exposition;
pub mod firehose;
pub mod float;
pub mod gelf;
mod go_json;
pub mod histogram;
mod intake;
pub mod jaeger;
pub mod logplex;
pub mod loki_json;
pub mod loki_push;
pub mod nhcb;
pub mod open_metrics;
pub mod proto;
pub mod protobuf_exposition;
pub mod remote_write;
pub mod remote_write2;
pub mod snappy;
pub mod syslog;
pub mod text;
pub mod text_encode;
mod thrift;
pub mod zipkin;
