//! The components whose names begin with `otelcol.receiver.`.

pub mod filelog;
pub mod jaeger;
pub mod loki;
pub mod otlp;
pub mod prometheus;
pub mod zipkin;
