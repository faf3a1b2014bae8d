//! A batch as text, for people to read: in the older text format or in OpenMetrics.
//!
//! Of each series the last sample is shown, and its type is untyped: a batch need not know more. Native histograms are
//! shown by their count and sum. Names that need quotes are shown with underscores, which is what exporters make of them
//! for readers that know only the older names.

use std::collections::BTreeMap;

use corten_signal::labels::METRIC_NAME;
use corten_signal::metrics::{Exemplar, Histogram, HistogramCounts};
use corten_signal::{Labels, MetricsBatch};

use crate::exposition::{is_legacy_metric_name, push_escaped, push_escaped_help};
use crate::float::{go_float, push_open_metrics_float};

/// The format of a text.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum TextFormat {
    /// The older text format, version 0.0.4.
    #[default]
    Prometheus,
    /// OpenMetrics 1.0, without the line that ends a body.
    OpenMetrics,
}

/// What is shown of a series.
#[derive(Default)]
struct Series<'a> {
    sample: Option<(f64, i64)>,
    histogram: Option<&'a Histogram>,
    exemplar: Option<&'a Exemplar>,
}

#[derive(Default)]
struct Family<'a> {
    help: Option<&'a str>,
    /// The series by their labels without the name.
    series: BTreeMap<Vec<(&'a str, &'a str)>, Series<'a>>,
}

/// Writes a batch as text: families by name, series by labels.
pub fn encode_batch(batch: &MetricsBatch, format: TextFormat) -> String {
    let mut families: BTreeMap<&str, Family<'_>> = BTreeMap::new();
    for part in &batch.parts {
        for sample in &part.samples {
            if let Some(series) = series_of(&mut families, part.block.labels(sample.index)) {
                series.sample = Some((sample.value, part.timestamp_ms(sample)));
            }
        }
        for sample in &part.histograms {
            if let Some(series) = series_of(&mut families, part.block.labels(sample.index)) {
                series.histogram = Some(&sample.histogram);
            }
        }
        for exemplar in &part.exemplars {
            if let Some(series) = series_of(&mut families, part.block.labels(exemplar.index)) {
                series.exemplar = Some(exemplar);
            }
        }
        for known in &part.metadata {
            if let Some(name) = part.block.labels(known.index).get(METRIC_NAME) {
                families.entry(name).or_default().help = Some(&known.metadata.help);
            }
        }
    }
    let mut writer = Writer { out: Vec::new(), format };
    for (name, family) in &families {
        writer.family(&escape_name(name), family);
    }
    String::from_utf8_lossy(&writer.out).into_owned()
}

fn series_of<'f, 'a>(
    families: &'f mut BTreeMap<&'a str, Family<'a>>,
    labels: Labels<'a>,
) -> Option<&'f mut Series<'a>> {
    let name = labels.get(METRIC_NAME)?;
    let others = labels.iter().filter(|(name, _)| *name != METRIC_NAME).collect();
    Some(families.entry(name).or_default().series.entry(others).or_default())
}

/// The name of a metric as it is written for readers that know only the older names.
fn escape_name(name: &str) -> String {
    if is_legacy_metric_name(name) {
        return name.to_owned();
    }
    let is_legacy =
        |at: usize, c: char| c.is_ascii_alphabetic() || c == '_' || c == ':' || (c.is_ascii_digit() && at > 0);
    name.char_indices().map(|(at, c)| if is_legacy(at, c) { c } else { '_' }).collect()
}

/// The name of a label, in which a colon is no older character.
fn escape_label(name: &str) -> String {
    escape_name(name).replace(':', "_")
}

struct Writer {
    out: Vec<u8>,
    format: TextFormat,
}

impl Writer {
    fn family(&mut self, name: &str, family: &Family<'_>) {
        let is_shown = |s: &Series<'_>| s.sample.is_some() || s.histogram.is_some();
        if !family.series.values().any(is_shown) {
            return;
        }
        if let Some(help) = family.help {
            self.text(&format!("# HELP {name} "));
            match self.format {
                TextFormat::Prometheus => push_escaped_help(&mut self.out, help),
                TextFormat::OpenMetrics => push_escaped(&mut self.out, help),
            }
            self.text("\n");
        }
        let metric_type = match self.format {
            _ if family.series.values().any(|s| s.histogram.is_some()) => "histogram",
            TextFormat::Prometheus => "untyped",
            TextFormat::OpenMetrics => "unknown",
        };
        self.text(&format!("# TYPE {name} {metric_type}\n"));
        for (labels, series) in &family.series {
            if let Some((value, timestamp_ms)) = series.sample {
                self.series(name, "", labels, None);
                self.float(value);
                self.time(timestamp_ms);
                self.end_line(series.exemplar);
            }
            if let Some(histogram) = series.histogram {
                self.series(name, "_bucket", labels, Some("+Inf"));
                self.count(histogram);
                self.end_line(series.exemplar);
                self.series(name, "_sum", labels, None);
                self.float(histogram.sum);
                self.end_line(None);
                self.series(name, "_count", labels, None);
                self.count(histogram);
                self.end_line(None);
            }
        }
    }

    fn text(&mut self, text: &str) {
        self.out.extend_from_slice(text.as_bytes());
    }

    /// A series and the space behind it.
    fn series(&mut self, name: &str, suffix: &str, labels: &[(&str, &str)], bound: Option<&str>) {
        self.text(name);
        self.text(suffix);
        self.labels(labels.iter().copied().chain(bound.map(|bound| ("le", bound))));
        self.text(" ");
    }

    fn labels<'a>(&mut self, labels: impl Iterator<Item = (&'a str, &'a str)>) {
        let mut separator = "{";
        for (name, value) in labels {
            self.text(separator);
            self.text(&escape_label(name));
            self.text("=\"");
            push_escaped(&mut self.out, value);
            self.text("\"");
            separator = ",";
        }
        if separator == "," {
            self.text("}");
        }
    }

    fn float(&mut self, value: f64) {
        let text = match self.format {
            TextFormat::Prometheus if value == 0.0 => "0".to_owned(),
            TextFormat::Prometheus => go_float(value),
            TextFormat::OpenMetrics => {
                let mut text = String::new();
                push_open_metrics_float(&mut text, value);
                text
            }
        };
        self.text(&text);
    }

    fn count(&mut self, histogram: &Histogram) {
        match (&histogram.counts, self.format) {
            (HistogramCounts::Int { count, .. }, TextFormat::OpenMetrics) => self.text(&count.to_string()),
            (HistogramCounts::Int { count, .. }, TextFormat::Prometheus) => self.float(*count as f64),
            (HistogramCounts::Float { count, .. }, _) => self.float(*count),
        }
    }

    /// The time of a sample. One of 0 or before says nothing.
    fn time(&mut self, timestamp_ms: i64) {
        if timestamp_ms <= 0 {
            return;
        }
        self.text(" ");
        match self.format {
            TextFormat::Prometheus => self.text(&timestamp_ms.to_string()),
            TextFormat::OpenMetrics => self.float(timestamp_ms as f64 / 1000.0),
        }
    }

    fn end_line(&mut self, exemplar: Option<&Exemplar>) {
        if let Some(exemplar) = exemplar
            && self.format == TextFormat::OpenMetrics
        {
            self.text(" # ");
            self.labels(exemplar.labels.iter().map(|(name, value)| (&**name, &**value)));
            if exemplar.labels.is_empty() {
                self.text("{}");
            }
            self.text(" ");
            self.float(exemplar.value);
            self.time(exemplar.timestamp_ms);
        }
        self.text("\n");
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::exposition::testing::Record;
    use crate::histogram::testing::{float, int};
    use crate::intake::testing::block;
    use crate::open_metrics::OpenMetricsParser;
    use crate::text::TextParser;
    use corten_signal::metrics::{HistogramSample, Metadata, SeriesMetadata};
    use corten_signal::{Sample, SeriesPart};
    use proptest::prelude::*;
    use std::sync::Arc;

    fn batch() -> MetricsBatch {
        let block = block(&[
            &[("__name__", "up"), ("b", "x\"\\\n"), ("a", "1")],
            &[("__name__", "up")],
            &[("__name__", "h"), ("a", "1")],
            &[("__name__", "my.metric"), ("1.x", "y")],
            &[("a", "without a name")],
        ]);
        let sample = |index: u32, value: f64, offset_ms: i32| Sample { index, value, offset_ms };
        let samples = vec![
            sample(0, 1.0, 5),
            sample(0, 2e6, 6),
            sample(1, 0.5, -1000),
            sample(3, f64::NAN, 1),
            sample(4, 1.0, 1),
        ];
        let mut part = SeriesPart::of_samples(block, 1000, samples);
        let histogram =
            |histogram: Histogram| HistogramSample { index: 2, timestamp_ms: 5, histogram: Arc::new(histogram) };
        part.histograms = vec![histogram(float(0, &[(0, 1)], &[1.5])), histogram(int(0, &[(0, 1)], &[3]))];
        let exemplar =
            |index: u32| Exemplar { index, timestamp_ms: 1500, value: 0.5, labels: vec![("id".into(), "x".into())] };
        part.exemplars = vec![exemplar(0), exemplar(2)];
        let known = Metadata { help: "says\n\"yes\"".to_owned(), ..Metadata::default() };
        part.metadata = vec![SeriesMetadata { index: 0, metadata: Arc::new(known) }];
        MetricsBatch::of(vec![part])
    }

    #[test]
    fn a_batch_is_shown_in_the_text_format() {
        let want = r#"# TYPE h histogram
h_bucket{a="1",le="+Inf"} 3
h_sum{a="1"} 1
h_count{a="1"} 3
# TYPE my_metric untyped
my_metric{__x="y"} NaN 1001
# HELP up says\n"yes"
# TYPE up untyped
up 0.5
up{a="1",b="x\"\\\n"} 2e+06 1006
"#;
        assert_eq!(encode_batch(&batch(), TextFormat::Prometheus), want);
    }

    #[test]
    fn a_batch_is_shown_as_open_metrics() {
        let want = r##"# TYPE h histogram
h_bucket{a="1",le="+Inf"} 3 # {id="x"} 0.5 1.5
h_sum{a="1"} 1.0
h_count{a="1"} 3
# TYPE my_metric unknown
my_metric{__x="y"} NaN 1.001
# HELP up says\n\"yes\"
# TYPE up unknown
up 0.5
up{a="1",b="x\"\\\n"} 2e+06 1.006 # {id="x"} 0.5 1.5
"##;
        assert_eq!(encode_batch(&batch(), TextFormat::OpenMetrics), want);
    }

    #[test]
    fn an_empty_batch_is_an_empty_text() {
        assert_eq!(encode_batch(&MetricsBatch::default(), TextFormat::Prometheus), "");
    }

    proptest! {
        #[test]
        fn what_is_shown_can_be_parsed(name in "\\PC{1,9}", label in "\\PC{1,9}", value in "\\PC{0,9}|[\"\\\\\n]{0,5}", number: f64, time in 1i64..1_000_000) {
            prop_assume!(label != METRIC_NAME);
            let block = block(&[&[(METRIC_NAME, &name), (&label, &value)]]);
            let samples = vec![Sample { value: number, index: 0, offset_ms: 0 }];
            let batch = MetricsBatch::of(vec![SeriesPart::of_samples(block, time, samples)]);
            let name = escape_name(&name);
            let label = if value.is_empty() { String::new() } else { format!(" {}={value}", escape_label(&label)) };
            let line = format!("__name__={name}{label} {number} @{time}").replace(" -0 ", " 0 ");
            let mut record = Record::default();
            let mut parser = TextParser::new();
            parser.feed(encode_batch(&batch, TextFormat::Prometheus).as_bytes(), &mut record).unwrap();
            prop_assert_eq!(record.lines.last(), Some(&line));
            let mut record = Record::default();
            let mut parser = OpenMetricsParser::new(false);
            parser.feed(encode_batch(&batch, TextFormat::OpenMetrics).as_bytes(), &mut record).unwrap();
            let shown = record.lines.last().unwrap().rsplit_once('@').unwrap();
            // The seconds of the format are floats, so that a millisecond may get lost.
            prop_assert!((shown.1.parse::<i64>().unwrap() - time).abs() <= 1);
            prop_assert_eq!(shown.0, line.rsplit_once('@').unwrap().0);
        }
    }
}
