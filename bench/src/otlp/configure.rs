//! How each subject is told to take OTLP and to send it on, all in one place.

use std::{fmt::Write as _, net::SocketAddr, path::Path};

use super::{Load, Work, message::Signal, sink::RENAMED};
use crate::{
    error::{Error, Result},
    subject::{Kind, LIVE_VIEW, Launch, Subject, free_address, run_ours, utf8},
};

/// What a subject shall do in one run.
#[derive(Debug)]
pub(crate) struct OtlpJob<'a> {
    /// A fresh directory for configuration and data.
    pub(crate) dir: &'a Path,
    /// What comes, and what is done with it.
    pub(crate) load: &'a Load,
    /// Where it listens for OTLP over HTTP, or over gRPC where that is what comes.
    pub(crate) listen: SocketAddr,
    /// Where it sends.
    pub(crate) sink: SocketAddr,
    /// Whether somebody may look at what passes; only for ours.
    pub(crate) live_view: bool,
}

/// Writes the configuration and gives the command line.
pub(crate) fn prepare(subject: &Subject, job: &OtlpJob<'_>) -> Result<Launch> {
    let mut launch = match subject.kind {
        Kind::CortenRun => {
            let mut ours = run_ours(job.dir, &alloy(job))?;
            // Some of the processors are not yet stable where they come from.
            ours.args.push("--stability.level=experimental".to_owned());
            ours
        }
        Kind::Rotel => Launch { args: rotel(job)?, ready: None },
        _ => return Err(Error::new(format!("{} takes no OTLP", subject.name))),
    };
    launch.args.extend(subject.extra.iter().cloned());
    Ok(launch)
}

/// The configuration of ours.
fn alloy(job: &OtlpJob<'_>) -> String {
    let OtlpJob { load, listen, sink, .. } = job;
    let signal = load.signal.name();
    let protocol = if load.work == Work::Grpc { "grpc" } else { "http" };
    let (first, between) = match load.work {
        Work::Gzip | Work::Plain | Work::Grpc => ("otelcol.processor.batch.bench.input", String::new()),
        Work::Rename => (
            "otelcol.processor.attributes.bench.input",
            format!(
                "otelcol.processor.attributes \"bench\" {{\n\
                 \taction {{\n\t\tkey = \"{RENAMED}\"\n\t\tfrom_attribute = \"http.route\"\n\t\taction = \"insert\"\n\t}}\n\n\
                 \taction {{\n\t\tkey = \"http.route\"\n\t\taction = \"delete\"\n\t}}\n\n\
                 \toutput {{\n\t\t{signal} = [otelcol.processor.batch.bench.input]\n\t}}\n}}\n\n"
            ),
        ),
        Work::Filter => (
            "otelcol.processor.filter.bench.input",
            format!(
                "otelcol.processor.filter \"bench\" {{\n\
                 \tlogs {{\n\t\tlog_record = [`attributes[\"log.level\"] == \"DEBUG\"`]\n\t}}\n\n\
                 \toutput {{\n\t\t{signal} = [otelcol.processor.batch.bench.input]\n\t}}\n}}\n\n"
            ),
        ),
        Work::SpanMetrics => (
            "otelcol.connector.spanmetrics.bench.input",
            "otelcol.connector.spanmetrics \"bench\" {\n\
             \tdimension {\n\t\tname = \"http.request.method\"\n\t}\n\n\
             \tdimension {\n\t\tname = \"http.route\"\n\t}\n\n\
             \tdimension {\n\t\tname = \"http.response.status_code\"\n\t}\n\n\
             \tdimension {\n\t\tname = \"server.address\"\n\t}\n\n\
             \thistogram {\n\t\texplicit { }\n\t}\n\n\tmetrics_flush_interval = \"10s\"\n\n\
             \toutput {\n\t\tmetrics = [otelcol.exporter.otlphttp.bench.input]\n\t}\n}\n\n"
                .to_owned(),
        ),
        Work::RemoteWrite => (
            "otelcol.exporter.prometheus.bench.input",
            format!(
                "otelcol.exporter.prometheus \"bench\" {{\n\tforward_to = [prometheus.remote_write.bench.receiver]\n}}\n\n\
                 prometheus.remote_write \"bench\" {{\n\tendpoint {{\n\t\turl = \"http://{sink}/api/v1/write\"\n\t}}\n}}\n"
            ),
        ),
    };
    let live_view = if job.live_view { LIVE_VIEW } else { "" };
    let mut text = format!(
        "{live_view}otelcol.receiver.otlp \"bench\" {{\n\
         \t{protocol} {{\n\t\tendpoint = \"{listen}\"\n\t}}\n\n\toutput {{\n\t\t{signal} = [{first}]\n\t}}\n}}\n\n{between}"
    );
    if load.work == Work::RemoteWrite {
        return text;
    }
    let (kind, endpoint) = match load.work {
        Work::Grpc => ("otlp", sink.to_string()),
        _ => ("otlphttp", format!("http://{sink}")),
    };
    let out = if load.work == Work::SpanMetrics { "metrics" } else { signal };
    // Writing to a string cannot fail.
    if load.work != Work::SpanMetrics {
        let _ = write!(
            text,
            "otelcol.processor.batch \"bench\" {{\n\toutput {{\n\t\t{out} = [otelcol.exporter.{kind}.bench.input]\n\t}}\n}}\n\n"
        );
    }
    let compression = if load.work == Work::Gzip { "gzip" } else { "none" };
    let tls = if kind == "otlp" { "\n\n\t\ttls {\n\t\t\tinsecure = true\n\t\t}" } else { "" };
    let _ = write!(
        text,
        "otelcol.exporter.{kind} \"bench\" {{\n\tclient {{\n\t\tendpoint = \"{endpoint}\"\n\t\tcompression = \"{compression}\"{tls}\n\t}}\n}}\n"
    );
    text
}

/// The command line of rotel, which has no file: OTLP over HTTP in and out, its own batches, gzip.
fn rotel(job: &OtlpJob<'_>) -> Result<Vec<String>> {
    let unused = free_address()?;
    let (http, grpc) = if job.load.work == Work::Grpc { (unused, job.listen) } else { (job.listen, unused) };
    Ok(vec![
        "start".to_owned(),
        format!("--pid-file={}", utf8(&job.dir.join("rotel.pid"))?),
        format!("--otlp-http-endpoint={http}"),
        format!("--otlp-grpc-endpoint={grpc}"),
        "--exporter=otlp".to_owned(),
        format!("--otlp-exporter-endpoint=http://{}", job.sink),
        "--otlp-exporter-protocol=http".to_owned(),
    ])
}

/// What a peer does, whatever ours does: it moves logs, or spans where ours counts those.
pub(crate) fn of_peer(load: &Load) -> Load {
    let signal = if load.signal == Signal::Traces { Signal::Traces } else { Signal::Logs };
    Load { signal, work: Work::Gzip, ..*load }
}
