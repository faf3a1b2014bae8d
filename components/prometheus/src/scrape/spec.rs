//! From a target of the configuration to what is scraped.

use std::time::Duration;

use corten_signal::LabelsBuilder;
use corten_signal::target::Target;
use http::Uri;
use xxhash_rust::xxh3::Xxh3;

/// What the arguments give to every target that does not say otherwise.
#[derive(Clone, Debug, PartialEq)]
pub(crate) struct TargetDefaults {
    pub(crate) job: String,
    pub(crate) scheme: String,
    pub(crate) metrics_path: String,
    pub(crate) params: Vec<(String, Vec<String>)>,
    pub(crate) interval: Duration,
    pub(crate) timeout: Duration,
    pub(crate) native_histograms: bool,
    pub(crate) classic_histograms: bool,
    pub(crate) convert_to_nhcb: bool,
}

/// A target that can be scraped.
#[derive(Clone, Debug)]
pub(crate) struct TargetSpec {
    /// Of all labels but the `__meta_` ones, and of the URL: two targets of one identity are one.
    pub(crate) identity: u128,
    /// The labels that stand on samples, sorted.
    pub(crate) labels: LabelsBuilder,
    /// The target as it was found.
    pub(crate) discovered: Target,
    pub(crate) uri: Uri,
    pub(crate) interval: Duration,
    pub(crate) timeout: Duration,
    pub(crate) native_histograms: bool,
    pub(crate) classic_histograms: bool,
    pub(crate) convert_to_nhcb: bool,
}

const INTERVAL: &str = "__scrape_interval__";
const TIMEOUT: &str = "__scrape_timeout__";
const NATIVE: &str = "__scrape_native_histograms__";
const CLASSIC: &str = "__always_scrape_classic_histograms__";
const CONVERT: &str = "__convert_classic_histograms_to_nhcb__";
const PARAM: &str = "__param_";

impl TargetSpec {
    /// What a target of the configuration means.
    ///
    /// # Errors
    ///
    /// Why it cannot be scraped; the other targets can.
    pub(crate) fn new(target: &Target, defaults: &TargetDefaults) -> Result<Self, String> {
        let mut labels = LabelsBuilder::new();
        for (name, value) in target.iter() {
            if !name.starts_with("__meta_") && !value.is_empty() {
                labels.push(name, value);
            }
        }
        let get = |labels: &LabelsBuilder, name: &str| labels.get(name).filter(|v| !v.is_empty()).map(str::to_owned);
        for (name, value) in
            [("job", &defaults.job), ("__scheme__", &defaults.scheme), ("__metrics_path__", &defaults.metrics_path)]
        {
            if get(&labels, name).is_none() {
                labels.set(name, value);
            }
        }
        let address = get(&labels, "__address__").ok_or("no address")?;
        if address.contains('/') {
            return Err(format!("{address:?} is not a valid hostname"));
        }
        if get(&labels, "instance").is_none() {
            labels.set("instance", &address);
        }
        let interval = match get(&labels, INTERVAL) {
            Some(text) => parse_span(&text).map_err(|e| format!("error parsing scrape interval: {e}"))?,
            None => defaults.interval,
        };
        if interval.is_zero() {
            return Err("scrape interval cannot be 0".to_owned());
        }
        let timeout = match get(&labels, TIMEOUT) {
            Some(text) => parse_span(&text).map_err(|e| format!("error parsing scrape timeout: {e}"))?,
            None => defaults.timeout,
        };
        if timeout.is_zero() {
            return Err("scrape timeout cannot be 0".to_owned());
        }
        if timeout > interval {
            return Err(format!(
                "scrape timeout cannot be greater than scrape interval ({:?} > {:?})",
                get(&labels, TIMEOUT).unwrap_or_else(|| format_span(timeout)),
                get(&labels, INTERVAL).unwrap_or_else(|| format_span(interval)),
            ));
        }
        let flag = |name: &str, default: bool| match get(&labels, name) {
            Some(text) => parse_bool(&text).ok_or_else(|| {
                let what = name.trim_matches('_').replace('_', " ");
                format!("error parsing {what}: strconv.ParseBool: parsing {text:?}: invalid syntax")
            }),
            None => Ok(default),
        };
        let native_histograms = flag(NATIVE, defaults.native_histograms)?;
        let classic_histograms = flag(CLASSIC, defaults.classic_histograms)?;
        let convert_to_nhcb = flag(CONVERT, defaults.convert_to_nhcb)?;
        let uri = uri_of(&labels, &address, &defaults.params)?;
        let mut hash = Xxh3::new();
        let mut sorted: Vec<(&str, &str)> = labels.iter().collect();
        sorted.sort_unstable();
        for (name, value) in sorted {
            for part in [name, value] {
                hash.update(part.as_bytes());
                hash.update(&[0xff]);
            }
        }
        hash.update(uri.to_string().as_bytes());
        labels.retain(|name, value| !name.starts_with("__") && !value.is_empty());
        Ok(TargetSpec {
            identity: hash.digest128(),
            labels,
            discovered: target.clone(),
            uri,
            interval,
            timeout,
            native_histograms,
            classic_histograms,
            convert_to_nhcb,
        })
    }
}

fn uri_of(labels: &LabelsBuilder, address: &str, params: &[(String, Vec<String>)]) -> Result<Uri, String> {
    let scheme = labels.get("__scheme__").unwrap_or("http");
    let path = labels.get("__metrics_path__").unwrap_or("/metrics");
    let mut params: Vec<(String, Vec<String>)> = params.to_vec();
    // A label without a value is none.
    for (name, value) in labels.iter().filter(|(_, value)| !value.is_empty()) {
        let Some(name) = name.strip_prefix(PARAM).filter(|name| !name.is_empty()) else { continue };
        match params.iter_mut().find(|(have, _)| have == name) {
            Some((_, values)) if values.is_empty() => values.push(value.to_owned()),
            Some((_, values)) => value.clone_into(&mut values[0]),
            None => params.push((name.to_owned(), vec![value.to_owned()])),
        }
    }
    params.sort();
    let mut url =
        url::Url::parse(&format!("{scheme}://{address}")).map_err(|e| format!("invalid address {address:?}: {e}"))?;
    // A path may bring a query of its own.
    let (path, query) = path.split_once('?').map_or((path, None), |(path, query)| (path, Some(query)));
    url.set_path(path);
    url.set_query(query.filter(|query| !query.is_empty()));
    if params.iter().any(|(_, values)| !values.is_empty()) {
        let mut pairs = url.query_pairs_mut();
        for (name, values) in &params {
            for value in values {
                pairs.append_pair(name, value);
            }
        }
    }
    url.as_str().parse().map_err(|e| format!("invalid URL: {e}"))
}

/// The units of a span of time and their milliseconds.
const UNITS: [(&str, u64); 7] = [
    ("y", 365 * 24 * 3_600_000),
    ("w", 7 * 24 * 3_600_000),
    ("d", 24 * 3_600_000),
    ("h", 3_600_000),
    ("m", 60_000),
    ("s", 1_000),
    ("ms", 1),
];

/// Writes a span of time as Prometheus does: years and weeks only where nothing is left over.
fn format_span(span: Duration) -> String {
    let mut left = u64::try_from(span.as_millis()).unwrap_or(u64::MAX);
    let mut out = String::new();
    for (at, (unit, ms)) in UNITS.iter().enumerate() {
        let count = left / ms;
        if count > 0 && (at > 1 || left.is_multiple_of(*ms)) {
            out.push_str(&format!("{count}{unit}"));
            left -= count * ms;
        }
    }
    if out.is_empty() { "0s".to_owned() } else { out }
}

/// Reads a span of time as Prometheus writes it: `1m30s`, units from `y` to `ms`, whole numbers, each unit once, in order.
pub(crate) fn parse_span(text: &str) -> Result<Duration, String> {
    let invalid = || format!("not a valid duration string: {text:?}");
    match text {
        "" => return Err("empty duration string".to_owned()),
        "0" => return Ok(Duration::ZERO),
        _ => {}
    }
    let mut rest = text;
    let mut total_ms = 0u64;
    let mut next_unit = 0;
    while !rest.is_empty() {
        let digits = rest.bytes().take_while(u8::is_ascii_digit).count();
        let letters = rest[digits..].bytes().take_while(u8::is_ascii_alphabetic).count();
        let number: u64 = rest[..digits].parse().map_err(|_| invalid())?;
        let unit = &rest[digits..digits + letters];
        let at = UNITS.iter().position(|(name, _)| *name == unit).filter(|at| *at >= next_unit).ok_or_else(invalid)?;
        let ms = number.checked_mul(UNITS[at].1).and_then(|ms| total_ms.checked_add(ms));
        total_ms = ms.filter(|ms| *ms <= i64::MAX as u64 / 1_000_000).ok_or("duration out of range")?;
        next_unit = at + 1;
        rest = &rest[digits + letters..];
    }
    Ok(Duration::from_millis(total_ms))
}

/// Reads a boolean as Go's `strconv.ParseBool` does.
fn parse_bool(text: &str) -> Option<bool> {
    match text {
        "1" | "t" | "T" | "TRUE" | "true" | "True" => Some(true),
        "0" | "f" | "F" | "FALSE" | "false" | "False" => Some(false),
        _ => None,
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn defaults() -> TargetDefaults {
        TargetDefaults {
            job: "prometheus.scrape.default".into(),
            scheme: "http".into(),
            metrics_path: "/metrics".into(),
            params: vec![("match".into(), vec!["a b".into(), "c".into()])],
            interval: Duration::from_secs(60),
            timeout: Duration::from_secs(10),
            native_histograms: false,
            classic_histograms: false,
            convert_to_nhcb: false,
        }
    }

    fn spec(labels: &[(&str, &str)]) -> Result<TargetSpec, String> {
        TargetSpec::new(&Target::new(labels.iter().copied()).unwrap(), &defaults())
    }

    fn labels(spec: &TargetSpec) -> Vec<(&str, &str)> {
        let mut labels: Vec<_> = spec.labels.iter().collect();
        labels.sort_unstable();
        labels
    }

    #[test]
    fn arguments_fill_what_a_target_does_not_say() {
        let spec = spec(&[("__address__", "h:1"), ("__meta_x", "y"), ("__tmp", "z"), ("team", "t")]).unwrap();
        assert_eq!(labels(&spec), [("instance", "h:1"), ("job", "prometheus.scrape.default"), ("team", "t")]);
        assert_eq!(spec.uri, "http://h:1/metrics?match=a+b&match=c");
        assert_eq!((spec.interval.as_secs(), spec.timeout.as_secs()), (60, 10));
    }

    #[test]
    fn labels_of_a_target_win_over_arguments() {
        let spec = spec(&[
            ("__address__", "h"),
            ("__scheme__", "https"),
            ("__metrics_path__", "/p?q=1"),
            ("__param_match", "x"),
            ("__param_new", "n"),
            ("__scrape_interval__", "1m30s"),
            ("__scrape_timeout__", "500ms"),
            ("__scrape_native_histograms__", "T"),
            ("job", "integrations/unix"),
            ("instance", "i"),
        ])
        .unwrap();
        assert_eq!(spec.uri, "https://h/p?q=1&match=x&match=c&new=n");
        assert_eq!((spec.interval, spec.timeout), (Duration::from_secs(90), Duration::from_millis(500)));
        assert_eq!(labels(&spec), [("instance", "i"), ("job", "integrations/unix")]);
        assert!(spec.native_histograms);
    }

    #[test]
    fn a_parameter_without_a_value_leaves_that_of_the_arguments() {
        let spec = spec(&[("__address__", "h"), ("__param_match", ""), ("__param_new", "")]).unwrap();
        assert_eq!(spec.uri, "http://h/metrics?match=a+b&match=c");
    }

    #[test]
    fn spans_are_written_as_prometheus_writes_them() {
        for text in ["1m", "1h30m", "1d", "1d1h", "1y", "500ms", "1m1s1ms", "0s", "2w", "15d"] {
            assert_eq!(format_span(parse_span(text).unwrap()), text);
        }
    }

    #[test]
    fn a_target_that_cannot_be_scraped_says_why() {
        for (labels, want) in [
            (&[("job", "j")][..], "no address"),
            (&[("__address__", "")][..], "no address"),
            (&[("__address__", "h/p")][..], "\"h/p\" is not a valid hostname"),
            (&[("__address__", "h"), ("__scrape_interval__", "0")][..], "scrape interval cannot be 0"),
            (
                &[("__address__", "h"), ("__scrape_interval__", "1.5s")][..],
                "error parsing scrape interval: not a valid duration string: \"1.5s\"",
            ),
            (
                &[("__address__", "h"), ("__scrape_timeout__", "2m")][..],
                r#"scrape timeout cannot be greater than scrape interval ("2m" > "1m")"#,
            ),
            (
                &[("__address__", "h"), ("__scrape_native_histograms__", "yes")][..],
                r#"error parsing scrape native histograms: strconv.ParseBool: parsing "yes": invalid syntax"#,
            ),
        ] {
            assert_eq!(spec(labels).unwrap_err(), want);
        }
    }

    #[test]
    fn meta_labels_make_no_difference_to_the_identity() {
        let a = spec(&[("__address__", "h"), ("__meta_a", "1")]).unwrap();
        let b = spec(&[("__address__", "h"), ("__meta_a", "2")]).unwrap();
        let c = spec(&[("__address__", "h"), ("__tmp", "2")]).unwrap();
        assert_eq!(a.identity, b.identity);
        assert_ne!(a.identity, c.identity);
    }

    #[test]
    fn spans_are_read_as_prometheus_writes_them() {
        for (text, want) in
            [("15s", Some(15_000)), ("1h30m", Some(5_400_000)), ("0", Some(0)), ("1d1ms", Some(86_400_001))]
        {
            assert_eq!(parse_span(text).ok().map(|d| d.as_millis()), want);
        }
        for text in ["", "15", "s", "1s1m", "1s1s", "-1s", "1 s", "99999999999y"] {
            assert!(parse_span(text).is_err(), "{text}");
        }
    }

    proptest! {
        #[test]
        fn no_labels_make_it_panic(labels in proptest::collection::btree_map("(__address__|__param_a|__metrics_path__|__scheme__|[a-z]{1,3})", "\\PC{0,12}", 0..6)) {
            let labels: Vec<(&str, &str)> = labels.iter().map(|(n, v)| (n.as_str(), v.as_str())).collect();
            let _ = spec(&labels);
        }
    }
}
