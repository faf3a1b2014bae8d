//! `prometheus.exporter.static`.

use std::collections::HashMap;
use std::sync::Arc;

use bytes::Bytes;
use corten_component::{Component, Context, Error, HttpHandler};
use corten_config::Arguments;
use corten_config::arguments::CheckErrors;
use corten_config::schema::Stability;
use corten_signal::LabelsBuilder;
use corten_signal::flow::BoxFuture;
use corten_signal::labels::METRIC_NAME;
use corten_signal::metrics::MetricType;
use corten_wire::exposition::{
    ParseError, TextSink, is_legacy_label_name, is_legacy_metric_name, push_label, read_series, type_name,
    unescape_help,
};
use corten_wire::float::push_open_metrics_float;
use corten_wire::text::TextParser;
use http::{Request, Response};

use crate::exposition::{Format, Negotiated};
use crate::target::ExporterExports;

/// Exports metrics that are written in the configuration.
#[derive(Arguments, Clone, Debug, PartialEq)]
pub struct StaticArguments {
    /// The metrics in the Prometheus text format.
    text: String,
}

impl StaticArguments {
    fn check(&self) -> Result<(), CheckErrors> {
        Families::read(&self.text).map(drop).map_err(|error| CheckErrors::of(&["text"], refusal(&error)))
    }
}

fn refusal(error: &ParseError) -> String {
    format!("failed to parse prom text: text format parsing error in {error}")
}

/// The component.
pub struct StaticExporter;

/// What is to be served.
#[derive(Clone)]
pub struct Prepared {
    text: Bytes,
    open_metrics: Bytes,
}

impl Component for StaticExporter {
    const NAME: &'static str = "prometheus.exporter.static";
    const STABILITY: Stability = Stability::Experimental;
    type Arguments = StaticArguments;
    type Exports = ExporterExports;
    type Prepared = Prepared;

    async fn prepare(
        arguments: StaticArguments,
        cx: &Context<Self>,
        _: Option<&Self>,
    ) -> Result<(Prepared, ExporterExports), Error> {
        let families = Families::read(&arguments.text).map_err(|error| Error::new(refusal(&error)))?;
        let mut text = arguments.text;
        // The last line of the format has an end, too.
        if !text.is_empty() && !text.ends_with('\n') {
            text.push('\n');
        }
        let prepared = Prepared { text: text.into(), open_metrics: families.to_open_metrics().into() };
        Ok((prepared, ExporterExports::of(cx, "static", cx.id())?))
    }

    fn commit(_: Option<Self>, prepared: Prepared, cx: &Context<Self>) -> Self {
        cx.serve_http(Arc::new(prepared));
        StaticExporter
    }
}

impl HttpHandler for Prepared {
    fn handle(&self, request: Request<()>) -> BoxFuture<'_, Response<Bytes>> {
        let negotiated = Negotiated::of(request.headers(), true);
        let body = match negotiated.format {
            Format::Text => &self.text,
            Format::OpenMetrics0 | Format::OpenMetrics1 => &self.open_metrics,
        };
        let response = negotiated.answer(body.clone());
        Box::pin(async { response })
    }
}

/// The families of a text, in the order in which they first stand there.
#[derive(Default)]
struct Families {
    families: Vec<Family>,
    by_name: HashMap<String, usize>,
    /// Where the sample that follows belongs: the family, and its labels with the name.
    series: Option<(usize, LabelsBuilder)>,
    /// The family of the sample before.
    last: Option<usize>,
    /// What is wrong with a line that describes a family; a sink is not asked about those.
    error: Option<String>,
}

#[derive(Default)]
struct Family {
    name: String,
    help: Option<String>,
    metric_type: Option<MetricType>,
    samples: Vec<FamilySample>,
}

struct FamilySample {
    labels: LabelsBuilder,
    value: f64,
    timestamp_ms: Option<i64>,
}

impl Families {
    fn read(text: &str) -> Result<Self, ParseError> {
        let mut families = Families::default();
        for (number, line) in text.split('\n').enumerate() {
            families.read_line(line).map_err(|message| ParseError { line: number as u64 + 1, message })?;
        }
        Ok(families)
    }

    /// Reads a line. The parser's own knowledge of lines before is of no use: a type holds for a family here.
    fn read_line(&mut self, line: &str) -> Result<(), String> {
        let mut feed = |text: &str| {
            let mut parser = TextParser::new();
            parser.feed(text.as_bytes(), self).and_then(|()| parser.finish(self)).map_err(|error| error.message)
        };
        let outcome = feed(line);
        // A time before 1970, which a target may not expose as text and which can be written nevertheless.
        if let (Err(_), Some((before, time))) = (&outcome, line.trim_end().rsplit_once([' ', '\t']))
            && let Some(digits) = time.strip_prefix('-')
            && !digits.is_empty()
            && digits.bytes().all(|byte| byte.is_ascii_digit())
            && feed(&format!("{before} {digits}")).is_ok()
        {
            let timestamp =
                self.last.and_then(|family| self.families[family].samples.last_mut()?.timestamp_ms.as_mut());
            if let Some(timestamp) = timestamp {
                *timestamp = -*timestamp;
            }
            return Ok(());
        }
        outcome?;
        self.error.take().map_or(Ok(()), Err)
    }

    /// The family of this name.
    fn family(&mut self, name: &str) -> usize {
        if let Some(known) = self.by_name.get(name) {
            return *known;
        }
        self.families.push(Family { name: name.to_owned(), ..Family::default() });
        self.by_name.insert(name.to_owned(), self.families.len() - 1);
        self.families.len() - 1
    }

    /// The family that a sample of this name belongs to: that of a histogram or summary, or one of its own name.
    fn family_of_sample(&mut self, name: &str) -> usize {
        for suffix in ["_bucket", "_sum", "_count"] {
            let Some(known) = name.strip_suffix(suffix).and_then(|stem| self.by_name.get(stem)) else { continue };
            match self.families[*known].metric_type {
                Some(MetricType::Histogram) => return *known,
                Some(MetricType::Summary) if suffix != "_bucket" => return *known,
                _ => {}
            }
        }
        self.family(name)
    }

    /// Notes a line that describes a family, which may stand there once.
    fn describe(&mut self, name: &[u8], describe: impl FnOnce(&mut Family) -> Result<(), String>) {
        let name = String::from_utf8_lossy(name).into_owned();
        let outcome = if is_legacy_metric_name(&name) {
            let family = self.family(&name);
            describe(&mut self.families[family])
        } else {
            Err(format!("invalid metric name {name:?}"))
        };
        if let Err(error) = outcome {
            self.error.get_or_insert(error);
        }
    }

    fn to_open_metrics(&self) -> String {
        let mut out = String::new();
        for family in &self.families {
            family.push_open_metrics(&mut out);
        }
        out.push_str("# EOF\n");
        out
    }
}

impl TextSink for Families {
    type Error = ParseError;

    fn recognise(&mut self, _: &[u8], _: MetricType) -> Option<usize> {
        None
    }

    fn series(&mut self, text: &[u8], _: MetricType) -> Result<(), ParseError> {
        let fail = |message: String| Err(ParseError { line: 0, message });
        let mut read = LabelsBuilder::new();
        // How values are written depends on the family, which the name tells.
        read_series(text, MetricType::Unknown, &mut read)?;
        let name = read.get(METRIC_NAME).unwrap_or_default();
        if !is_legacy_metric_name(name) {
            return fail(format!("invalid metric name {name:?}"));
        }
        let family = self.family_of_sample(name);
        let metric_type = self.families[family].metric_type.unwrap_or_default();
        let mut labels = LabelsBuilder::new();
        for (name, value) in read.iter() {
            if name != METRIC_NAME && !is_legacy_label_name(name) {
                return fail(format!("invalid label name {name:?}"));
            }
            if labels.get(name).is_some() {
                return fail(format!("duplicate label names for metric {:?}", self.families[family].name));
            }
            push_label(&mut labels, metric_type, name, value);
        }
        self.series = Some((family, labels));
        Ok(())
    }

    fn sample(&mut self, value: f64, timestamp_ms: Option<i64>) -> Result<(), ParseError> {
        if let Some((family, labels)) = self.series.take() {
            self.families[family].samples.push(FamilySample { labels, value, timestamp_ms });
            self.last = Some(family);
        }
        Ok(())
    }

    fn family_type(&mut self, name: &[u8], metric_type: MetricType) {
        self.describe(name, |family| {
            if family.metric_type.is_some() || !family.samples.is_empty() {
                let name = &family.name;
                return Err(format!("second TYPE line for metric name {name:?}, or TYPE reported after samples"));
            }
            family.metric_type = Some(metric_type);
            Ok(())
        });
    }

    fn family_help(&mut self, name: &[u8], help: &[u8]) {
        self.describe(name, |family| {
            if family.help.is_some() {
                return Err(format!("second HELP line for metric name {:?}", family.name));
            }
            family.help = Some(unescape_help(&String::from_utf8_lossy(help)).into_owned());
            Ok(())
        });
    }
}

impl Family {
    fn push_open_metrics(&self, out: &mut String) {
        if self.samples.is_empty() {
            return;
        }
        let metric_type = self.metric_type.unwrap_or_default();
        // A counter's family is named without the suffix, and its samples have one.
        let is_counter = metric_type == MetricType::Counter;
        let stem = if is_counter { self.name.strip_suffix("_total").unwrap_or(&self.name) } else { &self.name };
        if let Some(help) = &self.help {
            out.extend(["# HELP ", stem, " "]);
            push_escaped(out, help);
            out.push('\n');
        }
        out.extend(["# TYPE ", stem, " ", type_name(metric_type), "\n"]);
        for sample in self.in_groups() {
            let name = sample.labels.get(METRIC_NAME).unwrap_or_default();
            let suffix = name.strip_prefix(self.name.as_str()).unwrap_or_default();
            out.extend([stem, if is_counter { "_total" } else { suffix }]);
            push_labels(out, &sample.labels);
            out.push(' ');
            // What counts in buckets and beside them is a whole number.
            let counts = matches!(suffix, "_bucket" | "_count");
            if counts && sample.value >= 0.0 && sample.value.fract() == 0.0 && sample.value < 9e15 {
                out.push_str(&(sample.value as u64).to_string());
            } else {
                push_open_metrics_float(out, sample.value);
            }
            if let Some(timestamp_ms) = sample.timestamp_ms {
                out.push(' ');
                push_open_metrics_float(out, timestamp_ms as f64 / 1000.0);
            }
            out.push('\n');
        }
    }

    /// The samples, those of one histogram or summary together, by where the first of them stands.
    fn in_groups(&self) -> Vec<&FamilySample> {
        let mut groups: HashMap<Vec<(&str, &str)>, usize> = HashMap::new();
        let of_group = |name: &str| {
            let part = match self.metric_type {
                Some(MetricType::Histogram) => "le",
                Some(MetricType::Summary) => "quantile",
                _ => "",
            };
            name != part && name != METRIC_NAME
        };
        let mut numbered = Vec::with_capacity(self.samples.len());
        for sample in &self.samples {
            let mut key: Vec<_> = sample.labels.iter().filter(|(name, _)| of_group(name)).collect();
            key.sort_unstable();
            let next = groups.len();
            numbered.push((*groups.entry(key).or_insert(next), sample));
        }
        numbered.sort_by_key(|(group, _)| *group);
        numbered.into_iter().map(|(_, sample)| sample).collect()
    }
}

fn push_labels(out: &mut String, labels: &LabelsBuilder) {
    let mut separator = '{';
    for (name, value) in labels.iter().filter(|(name, _)| *name != METRIC_NAME) {
        out.push(separator);
        out.extend([name, "=\""]);
        push_escaped(out, value);
        out.push('"');
        separator = ',';
    }
    if separator == ',' {
        out.push('}');
    }
}

/// Escapes a text as OpenMetrics has it for labels and for help.
fn push_escaped(out: &mut String, text: &str) {
    for c in text.chars() {
        match c {
            '\\' => out.push_str("\\\\"),
            '"' => out.push_str("\\\""),
            '\n' => out.push_str("\\n"),
            c => out.push(c),
        }
    }
}

#[cfg(test)]
mod tests {
    use corten_component::Definition;
    use corten_testkit::{Unit, World, host, labels};
    use corten_wire::open_metrics::OpenMetricsParser;
    use proptest::prelude::*;

    use super::*;

    const STATIC: Definition = Definition::of::<StaticExporter>();

    const TEXT: &str = r#"
# HELP http_requests_total The "total" number of\nrequests.
# TYPE http_requests_total counter
http_requests_total{method="post",code="200"} 1027 1395066363000
http_requests_total{method="post",code="400"}    3 1395066363000

# A comment:
msdos_file_access_time_seconds{path="C:\\DIR\\FILE.TXT",error="Cannot find file:\n\"FILE.TXT\""} 1.458255915e9
something_weird{problem="division by zero"} +Inf -3982045

# TYPE latency_seconds histogram
latency_seconds_bucket{path="/",le="0.05"} 24054
latency_seconds_bucket{path="/b",le="+Inf"} 2
latency_seconds_bucket{path="/",le="1"} 133988
latency_seconds_sum{path="/"} 53423
latency_seconds_count{path="/"} 133988
latency_seconds_sum{path="/b"} 0.5

# TYPE rpc_seconds summary
rpc_seconds{quantile="0.5"} 4773
rpc_seconds_count 2693
# TYPE temperature gauge
temperature 7
# TYPE lonely gauge
"#;

    const OPEN_METRICS: &str = r#"# HELP http_requests The \"total\" number of\nrequests.
# TYPE http_requests counter
http_requests_total{method="post",code="200"} 1027.0 1.395066363e+09
http_requests_total{method="post",code="400"} 3.0 1.395066363e+09
# TYPE msdos_file_access_time_seconds unknown
msdos_file_access_time_seconds{path="C:\\DIR\\FILE.TXT",error="Cannot find file:\n\"FILE.TXT\""} 1.458255915e+09
# TYPE something_weird unknown
something_weird{problem="division by zero"} +Inf -3982.045
# TYPE latency_seconds histogram
latency_seconds_bucket{path="/",le="0.05"} 24054
latency_seconds_bucket{path="/",le="1.0"} 133988
latency_seconds_sum{path="/"} 53423.0
latency_seconds_count{path="/"} 133988
latency_seconds_bucket{path="/b",le="+Inf"} 2
latency_seconds_sum{path="/b"} 0.5
# TYPE rpc_seconds summary
rpc_seconds{quantile="0.5"} 4773.0
rpc_seconds_count 2693
# TYPE temperature gauge
temperature 7.0
# EOF
"#;

    async fn start(text: &str) -> Result<Unit, String> {
        Unit::start(host("prometheus.exporter.static.a"), &STATIC, &format!("text = `{text}`")).await
    }

    async fn get(world: &World, accept: &str) -> (String, String) {
        let handler = world.host().handler.lock().clone().expect("it answers requests");
        let response = handler.handle(Request::get("/metrics").header("accept", accept).body(()).unwrap()).await;
        let content_type = response.headers()["content-type"].to_str().unwrap().to_owned();
        (content_type, String::from_utf8(response.body().to_vec()).unwrap())
    }

    #[tokio::test]
    async fn the_text_is_served_as_it_is_and_as_open_metrics() {
        let unit = start(TEXT).await.unwrap();
        let (content_type, body) = get(&unit.world, "text/plain").await;
        assert_eq!(content_type, "text/plain; version=0.0.4; charset=utf-8; escaping=underscores");
        assert_eq!(body, TEXT);
        let (content_type, body) = get(&unit.world, "application/openmetrics-text;version=1.0.0").await;
        assert_eq!(content_type, "application/openmetrics-text; version=1.0.0; charset=utf-8; escaping=underscores");
        assert_eq!(body, OPEN_METRICS);
    }

    #[tokio::test]
    async fn the_instance_is_the_component() {
        let unit = start("").await.unwrap();
        let targets = unit.world.exports()[0].field("targets").unwrap();
        let expected = "instance=prometheus.exporter.static.a job=integrations/static";
        assert!(labels(&targets)[0].ends_with(expected), "{:?}", labels(&targets));
        assert_eq!(get(&unit.world, "*/*").await.1, "");
        assert_eq!(get(&unit.world, "application/openmetrics-text").await.1, "# EOF\n");
    }

    #[tokio::test]
    async fn another_text_is_served_at_once() {
        let mut unit = start("up 1").await.unwrap();
        assert_eq!(get(&unit.world, "").await.1, "up 1\n");
        unit.update("text = `up 2\n`").await.unwrap();
        assert_eq!(get(&unit.world, "").await.1, "up 2\n");
        assert!(unit.update("text = `up up`").await.is_err());
        assert_eq!(get(&unit.world, "").await.1, "up 2\n");
    }

    #[tokio::test]
    async fn a_text_that_is_broken_is_refused_at_load() {
        for (text, expected) in [
            ("up 1 -\n", "error in line 1: expected timestamp"),
            ("up -\n", "error in line 1: "),
            ("up 1 2 3\n", "failed to parse prom text: text format parsing error in line 1: "),
            ("up 1\nup{a=\"1\",a=\"2\"} 1", "duplicate label names for metric \"up\""),
            ("up 1\n{\"a.b\"} 1", "invalid metric name \"a.b\""),
            ("up{\"a.b\"=\"1\"} 1", "invalid label name \"a.b\""),
            ("# TYPE \"a.b\" gauge\n", "line 1: invalid metric name \"a.b\""),
            (
                "up 1\n\n# TYPE up gauge",
                "line 3: second TYPE line for metric name \"up\", or TYPE reported after samples",
            ),
            ("# TYPE up gauge\n# TYPE up gauge\n", "line 2: second TYPE line for metric name \"up\""),
            ("# HELP up a\n# HELP up b\n", "line 2: second HELP line for metric name \"up\""),
            ("# TYPE up info\n", "invalid metric type"),
        ] {
            let error = start(text).await.unwrap_err();
            assert!(error.contains(expected), "{text}: {error}");
        }
    }

    /// Counts what a parser finds.
    #[derive(Default)]
    struct Count(usize);

    impl TextSink for Count {
        type Error = ParseError;

        fn recognise(&mut self, _: &[u8], _: MetricType) -> Option<usize> {
            None
        }

        fn series(&mut self, _: &[u8], _: MetricType) -> Result<(), ParseError> {
            Ok(())
        }

        fn sample(&mut self, _: f64, _: Option<i64>) -> Result<(), ParseError> {
            self.0 += 1;
            Ok(())
        }
    }

    fn line() -> impl Strategy<Value = String> {
        let name = "(a|b|c)(_total|_bucket|_sum|_count)?";
        let labels = "(|[{]le=\"(1|0.5|x)\"[}]|[{]x=\"[ab\"\\\\n]{0,3}\",quantile=\"1\"[}])";
        prop_oneof![
            (name, labels, "(1|0.5|NaN|-Inf|1e20)( [0-9]{1,13})?").prop_map(|(n, l, v)| format!("{n}{l} {v}")),
            (name, "(counter|gauge|histogram|summary|untyped)").prop_map(|(n, t)| format!("# TYPE {n} {t}")),
            (name, "[a-z\\\\n\"]{0,5}").prop_map(|(n, help)| format!("# HELP {n} {help}")),
            "\\PC{0,10}",
        ]
    }

    proptest! {
        #[test]
        fn what_is_read_is_open_metrics_with_as_many_samples(lines in proptest::collection::vec(line(), 0..12)) {
            if let Ok(families) = Families::read(&lines.join("\n")) {
                let text = families.to_open_metrics();
                let (mut parser, mut count) = (OpenMetricsParser::new(false), Count::default());
                let parsed = parser.feed(text.as_bytes(), &mut count).and_then(|()| parser.finish(&mut count));
                prop_assert_eq!(parsed, Ok(()), "{}", text);
                prop_assert_eq!(count.0, families.families.iter().map(|family| family.samples.len()).sum::<usize>());
            }
        }
    }
}
