//! The components whose names begin with `otelcol.`.

pub mod auth;
pub mod connector;
mod exponential;
pub mod exporter;
pub mod filtering;
pub mod flow;
mod identity;
mod logfmt;
mod metrics;
mod periodic;
mod process;
pub mod processor;
pub mod receiver;
mod resend;
mod server;
mod shown;
mod statements;
pub mod storage;
#[cfg(test)]
mod testing;
pub mod tls;
mod translate;

use corten_component::Definition;

/// The components of the family.
pub const COMPONENTS: &[Definition] = &[
    Definition::of::<auth::basic::BasicAuth>(),
    Definition::of::<auth::bearer::BearerAuth>(),
    Definition::of::<auth::headers::HeadersAuth>(),
    Definition::of::<auth::oauth2::OAuth2Auth>(),
    Definition::of::<auth::sigv4::SigV4Auth>(),
    Definition::of::<connector::count::CountConnector>(),
    Definition::of::<connector::host_info::HostInfoConnector>(),
    Definition::of::<connector::servicegraph::ServiceGraphConnector>(),
    Definition::of::<connector::spanlogs::SpanLogsConnector>(),
    Definition::of::<connector::spanmetrics::SpanMetricsConnector>(),
    Definition::of::<exporter::debug::DebugExporter>(),
    Definition::of::<exporter::file::FileExporter>(),
    Definition::of::<exporter::loadbalancing::LoadBalancingExporter>(),
    Definition::of::<exporter::loki::LokiExporter>(),
    Definition::of::<exporter::otlp::OtlpExporter>(),
    Definition::of::<exporter::otlphttp::OtlpHttpExporter>(),
    Definition::of::<exporter::prometheus::PrometheusExporter>(),
    Definition::of::<processor::attributes::AttributesProcessor>(),
    Definition::of::<processor::batch::BatchProcessor>(),
    Definition::of::<processor::cumulativetodelta::CumulativeToDeltaProcessor>(),
    Definition::of::<processor::deltatocumulative::DeltaToCumulativeProcessor>(),
    Definition::of::<processor::filter::FilterProcessor>(),
    Definition::of::<processor::groupbyattrs::GroupByAttrsProcessor>(),
    Definition::of::<processor::interval::IntervalProcessor>(),
    Definition::of::<processor::memory_limiter::MemoryLimiter>(),
    Definition::of::<processor::metric_start_time::MetricStartTimeProcessor>(),
    Definition::of::<processor::probabilistic_sampler::ProbabilisticSampler>(),
    Definition::of::<processor::redaction::RedactionProcessor>(),
    Definition::of::<processor::resourcedetection::ResourceDetectionProcessor>(),
    Definition::of::<processor::span::SpanProcessor>(),
    Definition::of::<processor::tail_sampling::TailSamplingProcessor>(),
    Definition::of::<processor::transform::TransformProcessor>(),
    Definition::of::<receiver::filelog::Filelog>(),
    Definition::of::<receiver::jaeger::JaegerReceiver>(),
    Definition::of::<receiver::loki::LokiReceiver>(),
    Definition::of::<receiver::otlp::OtlpReceiver>(),
    Definition::of::<receiver::prometheus::PrometheusReceiver>(),
    Definition::of::<receiver::zipkin::ZipkinReceiver>(),
    Definition::of::<storage::file::FileStorage>(),
];
