//! How exporters answer a scrape: which format the client wants.

use bytes::Bytes;
use http::{HeaderMap, HeaderValue, Response, header};

/// A format of metrics.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Format {
    /// The Prometheus text format, version 0.0.4.
    Text,
    /// OpenMetrics 0.0.1.
    OpenMetrics0,
    /// OpenMetrics 1.0.0.
    OpenMetrics1,
}

/// The format of an answer, and how names are escaped in it that not every reader knows.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Negotiated {
    pub(crate) format: Format,
    escaping: &'static str,
}

/// The schemes of escaping that a client may ask for. The names that are exported here are valid in all of them.
const ESCAPINGS: [&str; 4] = ["allow-utf-8", "underscores", "dots", "values"];

impl Negotiated {
    /// What suits a client best: the first format, by weight and then by place, that is known. One that wants none of
    /// them gets the text format, which all read.
    pub(crate) fn of(headers: &HeaderMap, open_metrics: bool) -> Self {
        let accept = headers.get(header::ACCEPT).and_then(|value| value.to_str().ok()).unwrap_or_default();
        let mut ranges: Vec<Range<'_>> = accept.split(',').filter_map(Range::read).collect();
        ranges.sort_by(|a, b| b.weight.total_cmp(&a.weight));
        let mut escaping = ESCAPINGS[1];
        for range in ranges {
            if let Some(known) = ESCAPINGS.into_iter().find(|known| range.escaping == Some(known)) {
                escaping = known;
            }
            let format = match (range.media.as_str(), range.version) {
                ("application/openmetrics-text", Some("1.0.0")) if open_metrics => Format::OpenMetrics1,
                ("application/openmetrics-text", None | Some("0.0.1")) if open_metrics => Format::OpenMetrics0,
                ("text/plain", None | Some("0.0.4")) => Format::Text,
                _ => continue,
            };
            return Negotiated { format, escaping };
        }
        Negotiated { format: Format::Text, escaping }
    }

    /// An answer in this format.
    pub(crate) fn answer(self, body: impl Into<Bytes>) -> Response<Bytes> {
        let media = match self.format {
            Format::Text => "text/plain; version=0.0.4; charset=utf-8",
            Format::OpenMetrics0 => "application/openmetrics-text; version=0.0.1; charset=utf-8",
            Format::OpenMetrics1 => "application/openmetrics-text; version=1.0.0; charset=utf-8",
        };
        let mut response = Response::new(body.into());
        if let Ok(value) = HeaderValue::from_str(&format!("{media}; escaping={}", self.escaping)) {
            response.headers_mut().insert(header::CONTENT_TYPE, value);
        }
        response
    }
}

/// An element of an `Accept` header.
struct Range<'a> {
    media: String,
    weight: f32,
    version: Option<&'a str>,
    escaping: Option<&'a str>,
}

impl<'a> Range<'a> {
    /// Nothing where the client does not want it. A weight that is no number counts as 0.
    fn read(element: &'a str) -> Option<Self> {
        let mut parts = element.split(';').map(str::trim);
        let media = parts.next().filter(|media| !media.is_empty())?.to_ascii_lowercase();
        let mut range = Range { media, weight: 1.0, version: None, escaping: None };
        for (name, value) in parts.filter_map(|part| part.split_once('=')) {
            let value = value.trim().trim_matches('"');
            match name.trim().to_ascii_lowercase().as_str() {
                "q" => range.weight = value.parse().ok().filter(|weight: &f32| weight.is_finite()).unwrap_or(0.0),
                "version" => range.version = Some(value),
                "escaping" => range.escaping = Some(value),
                _ => {}
            }
        }
        (range.weight > 0.0).then_some(range)
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn negotiated(accept: &str, open_metrics: bool) -> String {
        let mut headers = HeaderMap::new();
        headers.insert(header::ACCEPT, HeaderValue::from_str(accept).unwrap());
        let response = Negotiated::of(&headers, open_metrics).answer("");
        response.headers()[header::CONTENT_TYPE].to_str().unwrap().to_owned()
    }

    #[test]
    fn the_format_is_chosen_by_weight_and_then_by_place() {
        let scrape = "application/openmetrics-text;version=1.0.0;escaping=underscores;q=0.6,\
                      application/openmetrics-text;version=0.0.1;q=0.5,text/plain;version=1.0.0;escaping=dots;q=0.4,\
                      text/plain;version=0.0.4;q=0.3,*/*;q=0.2";
        let protobuf = "application/vnd.google.protobuf;proto=io.prometheus.client.MetricFamily;encoding=delimited;\
                        q=0.6,text/plain;version=0.0.4;escaping=allow-utf-8;q=0.2,*/*;q=0.1";
        let text = "text/plain; version=0.0.4; charset=utf-8; escaping=";
        let open_metrics = "application/openmetrics-text; version=";
        for (accept, without, with) in [
            ("", "underscores", ""),
            ("*/*", "underscores", ""),
            ("text/html", "underscores", ""),
            ("text/plain", "underscores", ""),
            ("Text/Plain ; Version=0.0.4", "underscores", ""),
            (protobuf, "allow-utf-8", ""),
            // The scheme is the last that was read before the format, as in the reference.
            (scrape, "dots", "1.0.0; charset=utf-8; escaping=underscores"),
            ("application/openmetrics-text", "underscores", "0.0.1; charset=utf-8; escaping=underscores"),
            (
                "application/openmetrics-text;version=\"1.0.0\"",
                "underscores",
                "1.0.0; charset=utf-8; escaping=underscores",
            ),
            ("application/openmetrics-text;version=2.0.0", "underscores", ""),
            ("text/plain;q=0.5,application/openmetrics-text;q=0.4", "underscores", ""),
            ("text/plain;q=0,application/openmetrics-text;q=x", "underscores", ""),
            ("text/plain;escaping=values", "values", ""),
            ("text/plain;escaping=unheard-of", "underscores", ""),
        ] {
            assert_eq!(negotiated(accept, false), format!("{text}{without}"), "{accept}");
            let expected = if with.is_empty() { format!("{text}{without}") } else { format!("{open_metrics}{with}") };
            assert_eq!(negotiated(accept, true), expected, "{accept}");
        }
    }

    proptest! {
        #[test]
        fn no_header_makes_a_choice_panic(accept in "[ -~]{0,80}") {
            negotiated(&accept, true);
        }
    }
}
