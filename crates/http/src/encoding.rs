//! What a client accepts: content codings and metric formats.

use std::io::Write as _;

use flate2::Compression;
use flate2::write::{GzEncoder, ZlibEncoder};
use http::{HeaderMap, HeaderValue, header};

/// Bodies that are smaller are sent as they are: compression would save less than it costs.
const COMPRESSED_BYTES_MIN: usize = 512;

/// A way to send a body in fewer bytes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Coding {
    Gzip,
    Deflate,
}

impl Coding {
    /// The best of the codings that a client accepts.
    pub(crate) fn accepted(headers: &HeaderMap) -> Option<Coding> {
        let mut best: Option<(f32, Coding)> = None;
        for (name, quality) in weighted(headers, &header::ACCEPT_ENCODING) {
            let coding = match name.to_ascii_lowercase().as_str() {
                "gzip" | "x-gzip" | "*" => Coding::Gzip,
                "deflate" => Coding::Deflate,
                _ => continue,
            };
            let better =
                |(other, chosen): (f32, Coding)| quality > other || (quality == other && chosen == Coding::Deflate);
            if quality > 0.0 && best.is_none_or(better) {
                best = Some((quality, coding));
            }
        }
        best.map(|(_, coding)| coding)
    }

    /// Whether a client accepts gzip at all: what is kept in that form only is sent so.
    pub(crate) fn accepts_gzip(headers: &HeaderMap) -> bool {
        let names = ["gzip", "x-gzip", "*"];
        weighted(headers, &header::ACCEPT_ENCODING)
            .iter()
            .any(|(name, quality)| *quality > 0.0 && names.contains(&name.to_ascii_lowercase().as_str()))
    }

    /// The name in headers.
    pub(crate) fn name(self) -> HeaderValue {
        HeaderValue::from_static(match self {
            Coding::Gzip => "gzip",
            Coding::Deflate => "deflate",
        })
    }

    /// The body in this coding.
    pub(crate) fn encode(self, body: &[u8]) -> std::io::Result<Vec<u8>> {
        let out = Vec::with_capacity(body.len() / 8);
        match self {
            Coding::Gzip => {
                let mut encoder = GzEncoder::new(out, Compression::fast());
                encoder.write_all(body)?;
                encoder.finish()
            }
            // In HTTP this is the zlib format (RFC 9110, 8.4.1.2).
            Coding::Deflate => {
                let mut encoder = ZlibEncoder::new(out, Compression::fast());
                encoder.write_all(body)?;
                encoder.finish()
            }
        }
    }
}

/// A body as it is to be sent, and the coding that it is in.
pub(crate) fn compressed(body: Vec<u8>, coding: Option<Coding>) -> (Vec<u8>, Option<Coding>) {
    let Some(coding) = coding.filter(|_| body.len() >= COMPRESSED_BYTES_MIN) else { return (body, None) };
    match coding.encode(&body) {
        Ok(shorter) => (shorter, Some(coding)),
        Err(_) => (body, None),
    }
}

/// A text format of metrics.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum MetricFormat {
    /// The Prometheus text format, version 0.0.4.
    Text,
    /// OpenMetrics, with the version that was asked for.
    OpenMetrics(&'static str),
}

impl MetricFormat {
    /// The best of the formats that a client accepts. One that accepts none gets the text format, which all read.
    pub(crate) fn accepted(headers: &HeaderMap) -> MetricFormat {
        let mut best: Option<(f32, MetricFormat)> = None;
        for (range, quality) in weighted(headers, &header::ACCEPT) {
            let mut parts = range.split(';').map(str::trim);
            let media = parts.next().unwrap_or_default().to_ascii_lowercase();
            let version = parts.find_map(|part| part.strip_prefix("version=")).map(|version| version.trim_matches('"'));
            let format = match (media.as_str(), version) {
                ("application/openmetrics-text", None | Some("1.0.0")) => MetricFormat::OpenMetrics("1.0.0"),
                ("application/openmetrics-text", Some("0.0.1")) => MetricFormat::OpenMetrics("0.0.1"),
                ("text/plain", None | Some("0.0.4")) | ("text/*" | "*/*", _) => MetricFormat::Text,
                _ => continue,
            };
            // Of equally good ones the first counts.
            if quality > 0.0 && best.is_none_or(|(other, _)| quality > other) {
                best = Some((quality, format));
            }
        }
        best.map_or(MetricFormat::Text, |(_, format)| format)
    }

    /// The content type.
    pub(crate) fn content_type(self) -> HeaderValue {
        HeaderValue::from_static(match self {
            MetricFormat::Text => "text/plain; version=0.0.4; charset=utf-8",
            MetricFormat::OpenMetrics("0.0.1") => "application/openmetrics-text; version=0.0.1; charset=utf-8",
            MetricFormat::OpenMetrics(_) => "application/openmetrics-text; version=1.0.0; charset=utf-8",
        })
    }
}

/// The elements of a header with weights (RFC 9110, 12.4.2), each without its weight. A broken weight counts as none.
fn weighted(headers: &HeaderMap, name: &http::HeaderName) -> Vec<(String, f32)> {
    let values = headers.get_all(name).iter().filter_map(|value| value.to_str().ok());
    let element = |element: &str| {
        let mut quality = 1.0;
        let mut kept = Vec::new();
        for part in element.split(';').map(str::trim) {
            match part.strip_prefix("q=").or_else(|| part.strip_prefix("Q=")) {
                Some(weight) => quality = weight.trim().parse().unwrap_or(0.0_f32),
                None => kept.push(part),
            }
        }
        (kept.join(";"), if quality.is_finite() { quality.clamp(0.0, 1.0) } else { 0.0 })
    };
    values.flat_map(|value| value.split(',')).map(element).collect()
}

#[cfg(test)]
mod tests {
    use std::io::Read as _;

    use proptest::prelude::*;

    use super::*;

    fn headers(name: http::HeaderName, value: &str) -> HeaderMap {
        HeaderMap::from_iter([(name, HeaderValue::from_str(value).unwrap())])
    }

    #[test]
    fn a_coding_is_used_only_if_it_is_accepted() {
        for (value, expected) in [
            ("gzip, deflate, br, zstd", Some(Coding::Gzip)),
            ("deflate, gzip", Some(Coding::Gzip)),
            ("deflate", Some(Coding::Deflate)),
            ("deflate;q=1.0, gzip;q=0.5", Some(Coding::Deflate)),
            ("GZIP", Some(Coding::Gzip)),
            ("*", Some(Coding::Gzip)),
            ("gzip;q=0", None),
            ("gzip;q=nonsense", None),
            ("identity", None),
            ("", None),
        ] {
            assert_eq!(Coding::accepted(&headers(header::ACCEPT_ENCODING, value)), expected, "{value:?}");
        }
        assert_eq!(Coding::accepted(&HeaderMap::new()), None);
    }

    #[test]
    fn a_format_of_metrics_is_chosen_by_weight_and_then_by_place() {
        // What Prometheus 2 and 3 send.
        let prometheus = "application/openmetrics-text;version=1.0.0,application/openmetrics-text;version=0.0.1;q=0.75,\
                          text/plain;version=0.0.4;q=0.5,*/*;q=0.1";
        let with_protobuf = "application/vnd.google.protobuf;proto=io.prometheus.client.MetricFamily;\
                             encoding=delimited;q=0.7,application/openmetrics-text;version=1.0.0;\
                             escaping=allow-utf-8;q=0.6,text/plain;version=1.0.0;escaping=allow-utf-8;q=0.5,*/*;q=0.2";
        for (value, expected) in [
            (prometheus, MetricFormat::OpenMetrics("1.0.0")),
            (with_protobuf, MetricFormat::OpenMetrics("1.0.0")),
            ("application/openmetrics-text; version=0.0.1", MetricFormat::OpenMetrics("0.0.1")),
            ("application/openmetrics-text; version=\"1.0.0\"", MetricFormat::OpenMetrics("1.0.0")),
            ("application/openmetrics-text; version=9", MetricFormat::Text),
            ("text/plain;version=0.0.4;q=0.5,application/openmetrics-text;q=0.4", MetricFormat::Text),
            ("text/html", MetricFormat::Text),
            ("*/*", MetricFormat::Text),
            ("", MetricFormat::Text),
        ] {
            assert_eq!(MetricFormat::accepted(&headers(header::ACCEPT, value)), expected, "{value}");
        }
    }

    #[test]
    fn what_is_compressed_can_be_read_again() {
        let body = b"metric 1\n".repeat(100);
        let (gzip, coding) = compressed(body.clone(), Some(Coding::Gzip));
        assert!(coding == Some(Coding::Gzip) && gzip.len() < body.len());
        let mut read = Vec::new();
        flate2::read::GzDecoder::new(&gzip[..]).read_to_end(&mut read).unwrap();
        assert_eq!(read, body);
        let (deflate, _) = compressed(body.clone(), Some(Coding::Deflate));
        read.clear();
        flate2::read::ZlibDecoder::new(&deflate[..]).read_to_end(&mut read).unwrap();
        assert_eq!(read, body);
        assert_eq!(compressed(b"short".to_vec(), Some(Coding::Gzip)), (b"short".to_vec(), None));
    }

    proptest! {
        #[test]
        fn no_header_makes_a_choice_panic(value in "[ -~]{0,80}") {
            Coding::accepted(&headers(header::ACCEPT_ENCODING, &value));
            MetricFormat::accepted(&headers(header::ACCEPT, &value));
        }
    }
}
