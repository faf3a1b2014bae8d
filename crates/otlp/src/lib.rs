//! The signals of OpenTelemetry: traces, metrics and logs in OTLP 1.9.
//!
//! Bytes come first. What was received is looked at once, to full depth, and stays the message it was: batches are joined
//! by putting messages one after the other, cut between their records, and sent as they are. Only a component that reads
//! or changes records decodes them, once, and the next one finds them decoded.

pub mod arena;
mod batch;
mod by_trace;
mod consumer;
mod context;
mod data;
mod export;
mod json;
mod logs;
pub mod metrics;
mod proto;
mod schema;
mod shown;
mod split;
pub mod traces;
mod walk;

pub use arena::{Arena, List, Map, Pair, Text, Value};
pub use batch::{Batch, Edit};
pub use by_trace::TracePart;
pub use consumer::{Consumer, OtlpLogs, OtlpMetrics, OtlpSignal, Traces};
pub use context::{AuthData, Metadata, RequestContext};
pub use data::{Data, OfResource, OfScope, Record, Resource, Scope};
pub use export::{PartialSuccess, RpcStatus};
pub use logs::LogRecord;
pub use metrics::Metric;
pub use proto::Malformed;
pub use traces::Span;
pub use walk::MESSAGE_BYTES_MAX;
