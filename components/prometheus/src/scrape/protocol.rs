//! The formats in which a target may answer, and how they are asked for.

use corten_config::StringEnum;

/// A format of an exposition.
#[derive(StringEnum, Clone, Copy, Debug, PartialEq, Eq)]
#[string_enum(refusal = refuse_protocol)]
pub(crate) enum Protocol {
    /// Delimited protocol buffers, the one format with native histograms.
    #[value(name = "PrometheusProto")]
    Protobuf,
    /// OpenMetrics 1.0.0.
    #[value(name = "OpenMetricsText1.0.0")]
    OpenMetrics100,
    /// OpenMetrics 0.0.1.
    #[value(name = "OpenMetricsText0.0.1")]
    OpenMetrics001,
    /// The Prometheus text format, version 1.0.0.
    #[value(name = "PrometheusText1.0.0")]
    Text100,
    /// The Prometheus text format, version 0.0.4.
    #[value(name = "PrometheusText0.0.4")]
    Text004,
}

fn refuse_protocol(text: &str) -> String {
    format!(
        "invalid scrape protocol {text:?}: unknown scrape protocol {text}, supported: [OpenMetricsText0.0.1 \
         OpenMetricsText1.0.0 PrometheusProto PrometheusText0.0.4 PrometheusText1.0.0]"
    )
}

impl Protocol {
    /// What is asked for unless the user says otherwise.
    pub(crate) const DEFAULT: [Protocol; 4] =
        [Protocol::OpenMetrics100, Protocol::OpenMetrics001, Protocol::Text100, Protocol::Text004];

    /// What is asked for where native histograms are wanted and the user says nothing else.
    pub(crate) const PROTOBUF_FIRST: [Protocol; 5] =
        [Protocol::Protobuf, Protocol::OpenMetrics100, Protocol::OpenMetrics001, Protocol::Text100, Protocol::Text004];

    /// The format that a `Content-Type` names. Versions and other parameters make no difference.
    pub(crate) fn of_content_type(content_type: &str) -> Option<Self> {
        let media = content_type.split(';').next().unwrap_or_default().trim();
        match media.to_ascii_lowercase().as_str() {
            "text/plain" => Some(Protocol::Text004),
            "application/openmetrics-text" => Some(Protocol::OpenMetrics100),
            "application/vnd.google.protobuf" => Some(Protocol::Protobuf),
            _ => None,
        }
    }

    fn media(self) -> &'static str {
        match self {
            Protocol::Protobuf => {
                "application/vnd.google.protobuf;proto=io.prometheus.client.MetricFamily;encoding=delimited"
            }
            Protocol::OpenMetrics100 => "application/openmetrics-text;version=1.0.0",
            Protocol::OpenMetrics001 => "application/openmetrics-text;version=0.0.1",
            Protocol::Text100 => "text/plain;version=1.0.0",
            Protocol::Text004 => "text/plain;version=0.0.4",
        }
    }
}

/// The `Accept` header for these formats, the first most wanted.
pub(crate) fn accept(protocols: &[Protocol], escaping: &str) -> String {
    // One more than there are formats: the weights stay the same whatever is left out of the end.
    let mut weight = 6;
    let mut out = String::new();
    for protocol in protocols {
        out.push_str(protocol.media());
        if matches!(protocol, Protocol::Text100 | Protocol::OpenMetrics100) {
            out.push_str(";escaping=");
            out.push_str(escaping);
        }
        out.push_str(&format!(";q=0.{weight},"));
        weight -= 1;
    }
    out.push_str(&format!("*/*;q=0.{weight}"));
    out
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_accept_header_is_that_of_the_reference() {
        assert_eq!(
            accept(&Protocol::DEFAULT, "underscores"),
            "application/openmetrics-text;version=1.0.0;escaping=underscores;q=0.6,application/openmetrics-text;\
             version=0.0.1;q=0.5,text/plain;version=1.0.0;escaping=underscores;q=0.4,text/plain;version=0.0.4;q=0.3,\
             */*;q=0.2"
        );
        let first = accept(&Protocol::PROTOBUF_FIRST, "allow-utf-8");
        assert!(first.starts_with(
            "application/vnd.google.protobuf;proto=io.prometheus.client.MetricFamily;encoding=delimited;q=0.6,"
        ));
        assert!(first.ends_with(";q=0.2,*/*;q=0.1"));
    }

    #[test]
    fn a_content_type_names_a_format_whatever_its_parameters() {
        for (text, want) in [
            ("text/plain; version=0.0.4; charset=utf-8", Some(Protocol::Text004)),
            ("Text/Plain", Some(Protocol::Text004)),
            ("application/openmetrics-text; version=0.0.1", Some(Protocol::OpenMetrics100)),
            ("application/vnd.google.protobuf; proto=x", Some(Protocol::Protobuf)),
            ("text/html", None),
            ("", None),
        ] {
            assert_eq!(Protocol::of_content_type(text), want, "{text}");
        }
    }
}
