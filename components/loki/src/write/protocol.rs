//! Push requests, and what is made of the answers.

use std::sync::Arc;
use std::time::{SystemTime, UNIX_EPOCH};

use bytes::Bytes;
use corten_component::{Field, Logger};
use corten_net::retry_after;
use corten_queue::{Counts, Record, Totals};
use corten_sink::{Event, Lost, Protocol, SendSettings, Verdict, totals_of};
use corten_wire::loki_push::{check, halve};
use corten_wire::snappy::{self, Compressor};
use http::header::{CONTENT_ENCODING, CONTENT_TYPE, HeaderName};
use http::request::Builder;
use http::response::Parts;
use http::{HeaderMap, HeaderValue, Request, StatusCode};

use super::group::Tenant;
use super::metrics::{INGESTER_ERROR, RATE_LIMITED, SharedMetrics};

/// The header that names the tenant.
const TENANT_HEADER: HeaderName = HeaderName::from_static("x-scope-orgid");

/// What of the settings only the push protocol looks at.
#[derive(Clone, Debug)]
pub(super) struct Own {
    /// Host and port, for metrics.
    pub(super) host: String,
    /// The tenant of entries that do not name one.
    pub(super) tenant_id: String,
    pub(super) retry_on_429: bool,
    /// Headers of the configuration, without those that every request has.
    pub(super) headers: HeaderMap,
    pub(super) installation_id: HeaderValue,
}

/// How requests are made to an endpoint.
pub(super) type Settings = SendSettings<Own>;

/// The push protocol towards one endpoint.
pub(super) struct PushProtocol {
    pub(super) metrics: Arc<SharedMetrics>,
    pub(super) logger: Logger,
}

fn tenant(records: &[Record]) -> &Tenant {
    const NONE: &Tenant = &None;
    records.first().map_or(NONE, |record| &record.tenant)
}

fn tenant_name<'a>(settings: &'a Settings, records: &'a [Record]) -> &'a str {
    tenant(records).as_deref().unwrap_or(&settings.own.tenant_id)
}

/// The body of a request made of records that are pieces of one.
fn body_of(records: &[Record]) -> Bytes {
    let raw_len = records.iter().map(|record| u64::from(record.raw_len)).sum();
    Bytes::from(snappy::join(raw_len, records.iter().map(|record| record.body.as_ref())))
}

impl Protocol for PushProtocol {
    type Settings = Own;

    const HALVES: bool = true;
    const UNANSWERED: &'static str = INGESTER_ERROR;

    fn body(&self, records: &[Record]) -> Option<Bytes> {
        Some(body_of(records))
    }

    fn request(&self, settings: &Settings, records: &[Record], _: u64) -> Builder {
        let own = &settings.own;
        let mut request = Request::post(&settings.uri)
            .header(CONTENT_TYPE, "application/x-protobuf")
            .header(CONTENT_ENCODING, "snappy")
            .header("X-Agent-Id", &own.installation_id)
            .header("X-Alloy-Id", &own.installation_id);
        let tenant = tenant_name(settings, records);
        if !tenant.is_empty() {
            request = request.header(TENANT_HEADER, tenant);
        }
        for (name, value) in &own.headers {
            if tenant.is_empty() || name != TENANT_HEADER {
                request = request.header(name, value);
            }
        }
        request
    }

    fn judge(&self, settings: &Settings, records: &[Record], head: &Parts, text: &str) -> Verdict {
        if head.status.is_success() {
            return Verdict::Taken(None);
        }
        let all = totals_of(records);
        let line = text.lines().next().unwrap_or_default();
        // The number stands there twice in the reference, too.
        let error = format!("server returned HTTP status {} ({}): {line}", head.status, head.status.as_u16());
        let lost = |reason, totals| Lost { reason, totals };
        match meaning(head.status, text) {
            Meaning::RateLimited if !settings.own.retry_on_429 => Verdict::Refused(lost(RATE_LIMITED, all), error),
            Meaning::RateLimited => {
                let after = retry_after(&head.headers, SystemTime::now());
                Verdict::Again { after, reason: RATE_LIMITED, error }
            }
            Meaning::Failed => {
                let after = retry_after(&head.headers, SystemTime::now());
                Verdict::Again { after, reason: INGESTER_ERROR, error }
            }
            Meaning::TooLarge => Verdict::TooLarge(lost(INGESTER_ERROR, all), error),
            Meaning::Refused => Verdict::Refused(lost(INGESTER_ERROR, all), error),
            Meaning::TakenButFor(entries) => {
                let entries = entries.clamp(1, all.samples.max(1));
                let bytes = (all.bytes as f64 * entries as f64 / all.samples.max(1) as f64) as u64;
                let fields = [
                    ("host", Field::from(&settings.own.host)),
                    ("tenant", Field::from(tenant_name(settings, records))),
                    ("entries", Field::from(all.samples)),
                    ("rejected", Field::from(entries)),
                    ("error", Field::from(&error)),
                ];
                self.logger.warn("entries of a batch were rejected, the others were taken", &fields);
                Verdict::Taken(Some(lost(INGESTER_ERROR, Totals { samples: entries, bytes, ..Totals::default() })))
            }
        }
    }

    fn halve(&self, record: &Record) -> Option<[Record; 2]> {
        let raw = snappy::decompress(&body_of(std::slice::from_ref(record)), record.raw_len as usize).ok()?;
        let mut compressor = Compressor::new();
        let [first, second] = halve(&raw)?.map(|raw| {
            let entries = check(&raw).ok()?;
            Some(Record {
                counts: Counts::samples(entries as u32),
                raw_len: raw.len() as u32,
                body: Bytes::from(compressor.piece(&raw)),
                ..record.clone()
            })
        });
        Some([first?, second?])
    }

    fn count(&self, settings: &Settings, records: &[Record], event: Event<'_>) {
        let own = &settings.own;
        let tenant = tenant(records);
        let metrics = || self.metrics.of(&own.host, tenant, &own.tenant_id);
        match event {
            Event::Attempt { number: 0, bytes } => metrics().request_size.observe(bytes as f64),
            Event::Attempt { .. } => metrics().retries.inc(),
            Event::Answered { took, head } => {
                let status = head.map(|head| head.status.as_u16());
                self.metrics.request(status, &own.host, tenant, &own.tenant_id, took.as_secs_f64());
            }
            Event::Taken { bytes, lost } => {
                let metrics = metrics();
                let lost_of = |of: fn(&Totals) -> u64| lost.map_or(0, |lost| of(&lost.totals));
                metrics.sent_bytes.add((bytes as u64).saturating_sub(lost_of(|totals| totals.bytes)));
                let entries = totals_of(records).samples;
                metrics.sent_entries.add(entries.saturating_sub(lost_of(|totals| totals.samples)));
                let now_ms = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default().as_millis() as i64;
                for record in records {
                    let seconds = (now_ms - record.created_ms).max(0) as f64 / 1e3;
                    metrics.latency.observe_many(seconds, u64::from(record.counts.samples));
                }
                if let Some(lost) = lost {
                    self.metrics.dropped_of(&own.host, tenant, &own.tenant_id, lost.reason, &lost.totals);
                }
            }
            Event::Dropped(lost) => {
                self.metrics.dropped_of(&own.host, tenant, &own.tenant_id, lost.reason, &lost.totals);
            }
        }
    }

    fn warn(&self, settings: &Settings, records: &[Record], error: &str) {
        self.say(Logger::warn, "error sending batch, will retry", settings, records, error);
    }

    fn refuse(&self, settings: &Settings, records: &[Record], error: &str) {
        let text = "final error sending batch, no retries left, dropping data";
        self.say(Logger::error, text, settings, records, error);
    }
}

impl PushProtocol {
    fn say(
        &self,
        say: fn(&Logger, &str, &[(&str, Field)]),
        text: &str,
        settings: &Settings,
        records: &[Record],
        error: &str,
    ) {
        let fields = [
            ("host", Field::from(&settings.own.host)),
            ("tenant", Field::from(tenant_name(settings, records))),
            ("count", Field::from(totals_of(records).samples)),
            ("error", Field::from(error)),
        ];
        say(&self.logger, text, &fields);
    }
}

/// What an answer that is no success means.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Meaning {
    /// There is too much at present.
    RateLimited,
    /// It is worth another try.
    Failed,
    /// Nothing was taken; less at a time, or what is not bad of it, may be.
    TooLarge,
    /// Nothing was taken, and never will be.
    Refused,
    /// Some entries were rejected, as far as the answer says how many, and the others taken.
    TakenButFor(u64),
}

/// What a peer says that could not read a request, or finds it too large.
const WHOLE: &[&str] = &[
    "larger than max",
    "larger than the max",
    "too large",
    // The labels of one stream cannot be read: nothing of the request is taken, also of the other streams.
    "couldn't parse labels",
    "couldn't parse push request",
    "cannot parse",
    "can't parse",
    "could not parse",
    "unmarshal",
    "proto:",
    "snappy:",
    "corrupt input",
    "unexpected eof",
];

/// What a peer says of entries or streams that it rejected. It takes the others of the request.
const ENTRIES: &[&str] = &[
    "ignored, reason",
    "total ignored",
    "at least one label pair",
    "max entry size",
    "has timestamp too old",
    "has timestamp too new",
    "entry too far behind",
    "out of order",
    "label names; limit",
    "has label name too long",
    "has label value too long",
    "has duplicate label name",
    "error parsing labels",
    "structured metadata",
    "missing required labels",
];

/// What a peer says of structured metadata that it cannot name. It takes nothing of the request, however often it is sent.
const UNNAMED: &[&str] = &["label name is empty", "normalization for label name"];

fn meaning(status: StatusCode, text: &str) -> Meaning {
    let lower = text.to_ascii_lowercase();
    let says = |words: &[&str]| words.iter().any(|words| lower.contains(words));
    match status {
        StatusCode::PAYLOAD_TOO_LARGE => Meaning::TooLarge,
        StatusCode::TOO_MANY_REQUESTS => Meaning::RateLimited,
        StatusCode::INTERNAL_SERVER_ERROR if says(&["larger than max"]) || says(UNNAMED) => Meaning::TooLarge,
        _ if status.is_server_error() => Meaning::Failed,
        StatusCode::BAD_REQUEST if says(ENTRIES) => Meaning::TakenButFor(ignored(&lower)),
        StatusCode::BAD_REQUEST if says(WHOLE) => Meaning::TooLarge,
        _ => Meaning::Refused,
    }
}

/// The sum of what an answer says was ignored, `total ignored: 3 out of 10` for each stream; at least 1.
fn ignored(lower: &str) -> u64 {
    let numbers = lower.split("total ignored: ").skip(1).filter_map(|rest| {
        let end = rest.find(|c: char| !c.is_ascii_digit()).unwrap_or(rest.len());
        rest[..end].parse::<u64>().ok()
    });
    numbers.fold(0, u64::saturating_add).max(1)
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    proptest! {
        #[test]
        fn whatever_an_answer_says_it_means_something(status in 100u16..600, text in "(total ignored: [0-9]{0,30}|[ -~é]{0,20}){0,6}") {
            let status = StatusCode::from_u16(status).unwrap();
            match meaning(status, &text) {
                Meaning::TakenButFor(entries) => assert!(entries > 0 && status == StatusCode::BAD_REQUEST),
                Meaning::Failed => assert!(status.is_server_error()),
                _ => {}
            }
        }
    }

    #[test]
    fn an_answer_that_names_entries_is_not_about_the_request() {
        let meaning = |status: u16, text| meaning(StatusCode::from_u16(status).unwrap(), text);
        for (status, text, means) in [
            (413, "request entity too large", Meaning::TooLarge),
            (429, "Ingestion rate limit exceeded for user fake", Meaning::RateLimited),
            (500, "internal", Meaning::Failed),
            (503, "", Meaning::Failed),
            (
                500,
                "rpc error: code = ResourceExhausted desc = trying to send message larger than max (9 vs. 4)",
                Meaning::TooLarge,
            ),
            (400, "couldn't parse push request: proto: illegal wireType 7", Meaning::TooLarge),
            (400, "received message larger than max (9 vs 4)", Meaning::TooLarge),
            (400, "snappy: corrupt input", Meaning::TooLarge),
            (400, "couldn't parse labels: 1:4: parse error: unexpected IDENTIFIER", Meaning::TooLarge),
            (500, "label name is empty", Meaning::TooLarge),
            (500, "normalization for label name \"é\" resulted in invalid name \"_\"", Meaning::TooLarge),
            (
                400,
                "1 errors like: max entry size '9' bytes exceeded for stream '{}'; 2 errors like: entry for stream '{}' \
                 has timestamp too new: x",
                Meaning::TakenButFor(1),
            ),
            (
                400,
                "entry with timestamp 2020-01-01 00:00:00 +0000 UTC ignored, reason: 'entry too far behind',\nuser \
                 'fake', total ignored: 3 out of 10 for stream: {a=\"b\"}\nuser 'fake', total ignored: 4 out of 5",
                Meaning::TakenButFor(7),
            ),
            (
                400,
                "entry for stream '{a=\"b\"}' has timestamp too old: 2020-01-01T00:00:00Z, oldest acceptable is: x",
                Meaning::TakenButFor(1),
            ),
            (400, "error at least one label pair is required per stream", Meaning::TakenButFor(1)),
            (400, "Max entry size '256000' bytes exceeded for stream '{}'", Meaning::TakenButFor(1)),
            (400, "who knows", Meaning::Refused),
            (401, "no org id", Meaning::Refused),
            (404, "", Meaning::Refused),
        ] {
            assert_eq!(meaning(status, text), means, "{status} {text}");
        }
        assert_eq!(ignored(&format!("total ignored: {} total ignored: 9", u64::MAX)), u64::MAX);
    }
}
