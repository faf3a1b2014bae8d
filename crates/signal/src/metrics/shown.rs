//! How samples, histograms and exemplars look.

use std::fmt::Write as _;

use super::{Exemplar, Histogram, HistogramCounts, MetricsBatch, is_stale};
use crate::labels::Labels;
use crate::tap::{Fields, Item, Look, push_quoted};

pub(super) fn show(batch: &MetricsBatch, look: &mut Look<'_>) {
    for part in &batch.parts {
        let item = |index: u32, timestamp_ms: i64, what: What<'_>, look: &mut Look<'_>| {
            look(&Shown { labels: part.block.labels(index), timestamp_ms, what })
        };
        let samples = part
            .samples
            .iter()
            .all(|sample| item(sample.index, part.timestamp_ms(sample), What::Sample(sample.value), look));
        let more = samples
            && part
                .histograms
                .iter()
                .all(|sample| item(sample.index, sample.timestamp_ms, What::Histogram(&sample.histogram), look))
            && part
                .exemplars
                .iter()
                .all(|exemplar| item(exemplar.index, exemplar.timestamp_ms, What::Exemplar(exemplar), look));
        if !more {
            return;
        }
    }
}

enum What<'b> {
    Sample(f64),
    Histogram(&'b Histogram),
    Exemplar(&'b Exemplar),
}

struct Shown<'b> {
    labels: Labels<'b>,
    timestamp_ms: i64,
    what: What<'b>,
}

/// A float as Prometheus writes it.
fn float(value: f64) -> String {
    match value {
        _ if is_stale(value) => "stale".to_owned(),
        _ if value.is_nan() => "NaN".to_owned(),
        f64::INFINITY => "+Inf".to_owned(),
        f64::NEG_INFINITY => "-Inf".to_owned(),
        _ => value.to_string(),
    }
}

fn write_labels<'a>(out: &mut String, labels: impl Iterator<Item = (&'a str, &'a str)>) {
    out.push('{');
    for (at, (name, value)) in labels.enumerate() {
        if at > 0 {
            out.push_str(", ");
        }
        out.push_str(name);
        out.push('=');
        push_quoted(out, value);
    }
    out.push('}');
}

fn count(histogram: &Histogram) -> f64 {
    match &histogram.counts {
        HistogramCounts::Int { count, .. } => *count as f64,
        HistogramCounts::Float { count, .. } => *count,
    }
}

impl Shown<'_> {
    fn exemplar_labels(&self) -> &[(Box<str>, Box<str>)] {
        match self.what {
            What::Exemplar(exemplar) => &exemplar.labels,
            _ => &[],
        }
    }
}

impl Item for Shown<'_> {
    fn any_text(&self, accept: &mut dyn FnMut(&[u8]) -> bool) -> bool {
        self.labels.iter().any(|(name, value)| accept(name.as_bytes()) || accept(value.as_bytes()))
            || self.exemplar_labels().iter().any(|(name, value)| accept(name.as_bytes()) || accept(value.as_bytes()))
    }

    fn field(&self, name: &str) -> Option<String> {
        if let Some(value) = self.labels.get(name) {
            return Some(value.to_owned());
        }
        if let Some((_, value)) = self.exemplar_labels().iter().find(|(known, _)| **known == *name) {
            return Some(value.to_string());
        }
        match (name, &self.what) {
            ("value", What::Sample(value)) => Some(float(*value)),
            ("value", What::Exemplar(exemplar)) => Some(float(exemplar.value)),
            _ => None,
        }
    }

    fn text(&self) -> String {
        let mut out = String::with_capacity(2 * self.labels.as_encoded().len() + 64);
        out.push_str(self.labels.get("__name__").unwrap_or_default());
        write_labels(&mut out, self.labels.iter().filter(|(name, _)| *name != "__name__"));
        let _ = match &self.what {
            What::Sample(value) => write!(out, " {}", float(*value)),
            What::Histogram(histogram) => {
                write!(out, " histogram count={} sum={}", float(count(histogram)), float(histogram.sum))
            }
            What::Exemplar(exemplar) => {
                let labels = exemplar.labels.iter().map(|(name, value)| (&**name, &**value));
                out.push_str(" exemplar ");
                write_labels(&mut out, labels);
                write!(out, " {}", float(exemplar.value))
            }
        };
        let _ = write!(out, " @{}", self.timestamp_ms);
        out
    }

    fn fields(&self, out: &mut Fields<'_>) {
        out.members(|out| {
            out.object("labels", |out| self.labels.iter().for_each(|(name, value)| out.text(name, value)));
            out.number("timestamp_ms", self.timestamp_ms);
            match &self.what {
                What::Sample(value) => out.text("value", &float(*value)),
                What::Histogram(histogram) => out.object("histogram", |out| {
                    let spans = histogram.positive_spans.iter().chain(&histogram.negative_spans);
                    out.number("buckets", spans.map(|span| i64::from(span.length)).sum());
                    out.text("count", &float(count(histogram)));
                    out.number("schema", histogram.schema.into());
                    out.text("sum", &float(histogram.sum));
                    out.text("zero_threshold", &float(histogram.zero_threshold));
                }),
                What::Exemplar(exemplar) => out.object("exemplar", |out| {
                    out.object("labels", |out| exemplar.labels.iter().for_each(|(name, value)| out.text(name, value)));
                    out.text("value", &float(exemplar.value));
                }),
            }
        });
    }
}

#[cfg(test)]
mod tests {
    use super::super::{Metrics, STALE_NAN, Sample, SeriesPart};
    use super::*;
    use crate::flow::Signal;
    use crate::labels::LabelsBuilder;
    use crate::series::BlockBuilder;
    use crate::tap::tests::structure;
    use std::sync::Arc;

    #[test]
    fn samples_and_exemplars_are_shown_until_enough_was_seen() {
        let (mut block, mut labels) = (BlockBuilder::new(), LabelsBuilder::new());
        labels.push("__name__", "up");
        labels.push("job", "a\"b");
        let index = block.push(&mut labels).unwrap();
        let sample = |value| Sample { value, index, offset_ms: 5 };
        let mut part = SeriesPart::of_samples(block.finish(false), 1000, vec![sample(1.5), sample(STALE_NAN)]);
        part.exemplars.push(Exemplar {
            index,
            timestamp_ms: 7,
            value: 2.0,
            labels: vec![("trace_id".into(), "x".into())],
        });
        let batch = Arc::new(MetricsBatch::of(vec![part]));
        let seen = |enough: usize| {
            let mut seen = Vec::new();
            Metrics::show(&batch, &mut |item: &dyn Item| {
                seen.push((item.text(), structure(item)));
                seen.len() < enough
            });
            seen
        };
        let all = seen(9);
        let texts: Vec<&str> = all.iter().map(|(text, _)| text.as_str()).collect();
        assert_eq!(
            texts,
            [
                r#"up{job="a\"b"} 1.5 @1005"#,
                r#"up{job="a\"b"} stale @1005"#,
                r#"up{job="a\"b"} exemplar {trace_id="x"} 2 @7"#,
            ]
        );
        assert_eq!(
            all[0].1,
            serde_json::json!({"labels": {"__name__": "up", "job": "a\"b"}, "timestamp_ms": 1005, "value": "1.5"})
        );
        assert_eq!(seen(2).len(), 2);
        Metrics::show(&batch, &mut |item: &dyn Item| {
            assert_eq!(item.field("job").as_deref(), Some("a\"b"));
            assert!(item.any_text(&mut |text| text == b"up"));
            let is_exemplar = item.text().contains("exemplar");
            assert_eq!(item.field("trace_id").is_some_and(|id| id == "x"), is_exemplar);
            assert_eq!(item.any_text(&mut |text| text == b"x"), is_exemplar);
            true
        });
    }
}
