//! `loki.secretfilter`.

mod rules_table;
mod scan;
mod toml;

use std::collections::HashMap;
use std::ops::Range;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{Duration, Instant};

use aho_corasick::{AhoCorasick, MatchKind};
use corten_component::metrics::{Counter, Summary, Vector};
use corten_component::{Component, Context, Error};
use corten_config::schema::Stability;
use corten_config::{Arguments, CheckErrors, Exports};
use corten_signal::flow::BoxFuture;
use corten_signal::ledger::Row;
use corten_signal::regex::Lossy;
use corten_signal::{
    Consume, ConsumeError, EntriesBuilder, Fanout, Inlet, LabelsBuilder, Logs, LogsBatch, Receiver, Stream,
};
use parking_lot::Mutex;
use sha1::{Digest, Sha1};

use self::scan::{Finding, Scanner, Scratch};
use crate::forward::fanout;

/// Text that is looked at before others get their turn.
const TURN_BYTES: usize = 256 << 10;

/// Scratches that are kept.
const SCRATCHES_MAX: usize = 4;

/// Masks secrets in log lines.
///
/// Secrets are found with the rules of `gitleaks_config`, a file as gitleaks reads it, or with those that are built in, whose ids
/// are those of gitleaks. All occurrences of a secret in its line are masked: with `redact_with`, or so that its first characters
/// remain. A line that takes longer than `processing_timeout` is masked as a whole, or dropped.
#[derive(Arguments, Clone, Debug, PartialEq)]
pub struct SecretFilterArguments {
    /// Where to send the entries.
    forward_to: Vec<Receiver<Logs>>,
    /// The label whose value `loki_secretfilter_secrets_redacted_by_category_total` has as `origin`.
    #[arg(default = "")]
    origin_label: String,
    /// What to put in place of a secret. `$SECRET_NAME` is the id of the rule, `$SECRET_HASH` the SHA-1 of the secret. Empty, a
    /// part of the secret is left out, as `redact_percent` says.
    #[arg(default = "")]
    redact_with: String,
    /// How many percent of a secret to leave out, from its end; 100 puts `REDACTED` in its place. What is not from 1 to 100 is
    /// taken for 80.
    #[arg(default = 80)]
    redact_percent: u64,
    /// A file with rules in the format of gitleaks.
    #[arg(default = "")]
    gitleaks_config: String,
    /// The share of entries that are looked at, from 0 to 1; the rest goes on as it is.
    #[arg(default = 1.0)]
    rate: f64,
    /// How long an entry may take; `0s` for any time.
    #[arg(default = "0s")]
    processing_timeout: Duration,
    /// Drop entries that take too long, rather than mask them as a whole.
    #[arg(default = false)]
    drop_on_timeout: bool,
    /// Set the label `secretfilter` to `timed-out` on entries that take too long.
    #[arg(default = false)]
    label_timed_out: bool,
}

impl SecretFilterArguments {
    fn check(&self) -> Result<(), CheckErrors> {
        let mut errors = CheckErrors::new();
        if !(0.0..=1.0).contains(&self.rate) {
            let text = "secretfilter: Sampling Rate must be between 0.0 and 1.0, received";
            errors.push(&["rate"], format!("{text} {}", self.rate));
        }
        errors.into_result()
    }
}

/// What others can refer to.
#[derive(Exports, Clone, Debug, PartialEq)]
pub struct SecretFilterExports {
    /// Takes the entries in which secrets are masked.
    receiver: Receiver<Logs>,
}

/// The component.
pub struct SecretFilter {
    inlet: Arc<Inlet<Logs>>,
}

/// What is to be put in place.
pub struct Prepared {
    inlet: Arc<Inlet<Logs>>,
    arguments: SecretFilterArguments,
    scanner: Scanner,
}

impl Component for SecretFilter {
    const NAME: &'static str = "loki.secretfilter";
    const STABILITY: Stability = Stability::PublicPreview;
    type Arguments = SecretFilterArguments;
    type Exports = SecretFilterExports;
    type Prepared = Prepared;

    async fn prepare(
        arguments: SecretFilterArguments,
        cx: &Context<Self>,
        current: Option<&Self>,
    ) -> Result<(Prepared, SecretFilterExports), Error> {
        let path = arguments.gitleaks_config.clone();
        let making = tokio::task::spawn_blocking(move || scanner(&path));
        let scanner = making.await.map_err(|error| Error::new(error.to_string()))?;
        let scanner = scanner.map_err(|error| Error::new(format!("failed to create gitleaks detector: {error}")))?;
        let inlet = current.map_or_else(|| Arc::new(Inlet::of(cx.ledger())), |current| Arc::clone(&current.inlet));
        let exports = SecretFilterExports { receiver: inlet.receiver() };
        Ok((Prepared { inlet, arguments, scanner }, exports))
    }

    fn commit(_: Option<Self>, prepared: Prepared, cx: &Context<Self>) -> Self {
        let Prepared { inlet, arguments, scanner } = prepared;
        inlet.attach(Arc::new(Stage {
            scanner,
            forward: fanout(cx, arguments.forward_to.clone()),
            row: Arc::clone(cx.ledger().row_of::<Logs>()),
            arguments,
            metrics: FilterMetrics::new(cx),
            scratches: Mutex::default(),
            random: AtomicU64::new(Instant::now().elapsed().as_nanos() as u64 ^ 0x9e37_79b9_7f4a_7c15),
        }));
        SecretFilter { inlet }
    }

    async fn drain(self, _: &Context<Self>) {
        self.inlet.close();
    }
}

fn scanner(path: &str) -> Result<Scanner, String> {
    if path.is_empty() {
        return toml::builtin();
    }
    let told = |error: std::io::Error| format!("read gitleaks config: open {path}: {error}");
    if std::fs::metadata(path).map_err(told)?.len() > toml::FILE_BYTES_MAX {
        return Err(format!("read gitleaks config: {path} is too large"));
    }
    let text = std::fs::read(path).map_err(told)?;
    let text = String::from_utf8(text).map_err(|_| format!("read gitleaks config: {path} is not UTF-8"))?;
    toml::read(&text)
}

struct FilterMetrics {
    redacted: Counter,
    by_category: Vector<Counter>,
    duration: Summary,
    bypassed: Counter,
    timed_out: Counter,
    dropped: Counter,
}

impl FilterMetrics {
    fn new(cx: &Context<SecretFilter>) -> Self {
        let registry = cx.metrics();
        FilterMetrics {
            redacted: registry.counter(
                "loki_secretfilter_secrets_redacted_total",
                "Total number of secrets that have been redacted.",
            ),
            by_category: registry.counters(
                "loki_secretfilter_secrets_redacted_by_category_total",
                "Number of secrets redacted, partitioned by rule name and origin label value.",
                &["rule", "origin"],
            ),
            duration: registry
                .summaries(
                    "loki_secretfilter_processing_duration_seconds",
                    "Summary of the time taken to process and redact logs in seconds.",
                    &[],
                    &[0.5, 0.9, 0.99],
                )
                .with(&[]),
            bypassed: registry.counter(
                "loki_secretfilter_entries_bypassed_total",
                "Total number of entries forwarded without processing due to sampling.",
            ),
            timed_out: registry.counter(
                "loki_secretfilter_lines_timed_out_total",
                "Total number of log lines that exceeded the processing timeout, regardless of whether they were dropped or forwarded unredacted.",
            ),
            dropped: registry.counter(
                "loki_secretfilter_lines_dropped_total",
                "Total number of log lines dropped due to processing timeout.",
            ),
        }
    }
}

struct Stage {
    scanner: Scanner,
    forward: Fanout<Logs>,
    row: Arc<Row>,
    arguments: SecretFilterArguments,
    metrics: FilterMetrics,
    scratches: Mutex<Vec<Work>>,
    random: AtomicU64,
}

/// What is used again from batch to batch.
#[derive(Default)]
struct Work {
    lossy: Lossy,
    scratch: Scratch,
    found: Vec<Finding>,
}

/// What becomes of a line.
#[derive(Debug, PartialEq)]
enum Verdict {
    /// It stays as it is.
    Keep,
    /// It is this now.
    Masked(Vec<u8>),
    /// It took too long, and is this now.
    Late(Vec<u8>),
    Drop,
}

impl Consume<Logs> for Stage {
    fn consume(&self, batch: LogsBatch) -> BoxFuture<'_, Result<(), ConsumeError>> {
        Box::pin(async move {
            let before = batch.entries.len();
            let batch = self.filtered(batch).await;
            let mut pass = self.row.pass();
            pass.dropped("timeout", before - batch.entries.len());
            pass.end(self.forward.consume(batch).await)
        })
    }
}

impl Stage {
    async fn filtered(&self, batch: LogsBatch) -> LogsBatch {
        let mut work = self.scratches.lock().pop().unwrap_or_default();
        let mut turn = 0;
        // What is not to stay as it is, in order.
        let mut changed = Vec::new();
        let mut index = 0;
        for (stream, entries) in batch.entries.parts() {
            for entry in entries {
                let line = batch.entries.line(entry);
                let verdict = self.look_at(line, stream, &mut work);
                if verdict != Verdict::Keep {
                    changed.push((index, verdict));
                }
                index += 1;
                turn += line.len();
                if turn >= TURN_BYTES {
                    turn = 0;
                    tokio::task::yield_now().await;
                }
            }
        }
        let mut scratches = self.scratches.lock();
        if scratches.len() < SCRATCHES_MAX {
            scratches.push(work);
        }
        drop(scratches);
        if changed.is_empty() { batch } else { self.rebuilt(batch, changed) }
    }

    /// The batch with other lines in some places.
    fn rebuilt(&self, batch: LogsBatch, changed: Vec<(usize, Verdict)>) -> LogsBatch {
        let before = &batch.entries;
        let mut builder = EntriesBuilder::new();
        let sharing = builder.share_text(before.text());
        let mut changed = changed.into_iter().peekable();
        let mut index = 0;
        for (stream, entries) in before.parts() {
            let mut late = None;
            for entry in entries {
                let verdict = changed.next_if(|(at, _)| *at == index).map_or(Verdict::Keep, |(_, verdict)| verdict);
                index += 1;
                let (line, stream) = match verdict {
                    Verdict::Drop => continue,
                    Verdict::Keep => {
                        let part = builder.stream(stream);
                        builder.push_entry(part, before, &sharing, entry);
                        continue;
                    }
                    Verdict::Masked(line) => (line, stream),
                    Verdict::Late(line) => (line, &*late.get_or_insert_with(|| self.late_stream(stream))),
                };
                let part = builder.stream(stream);
                let line = builder.own(&line);
                builder.push(part, entry.timestamp_ns, line);
                for (name, value) in before.metadata_spans(entry) {
                    let name = builder.carry(before, &sharing, *name);
                    let value = builder.carry(before, &sharing, *value);
                    builder.push_metadata(name, value);
                }
            }
        }
        let entries = builder.finish(before.created_ms());
        batch.with(entries)
    }

    /// The stream of entries that took too long.
    fn late_stream(&self, stream: &Stream) -> Stream {
        if !self.arguments.label_timed_out {
            return stream.clone();
        }
        let mut labels = LabelsBuilder::new();
        stream.labels().iter().for_each(|(name, value)| labels.push(name, value));
        labels.remove("secretfilter");
        labels.push("secretfilter", "timed-out");
        Stream::new(&mut labels).unwrap_or_else(|_| stream.clone())
    }

    fn look_at(&self, line: &[u8], stream: &Stream, work: &mut Work) -> Verdict {
        let Stage { arguments, metrics, scanner, .. } = self;
        if arguments.rate < 1.0 && self.chance() >= arguments.rate {
            metrics.bypassed.inc();
            return Verdict::Keep;
        }
        let began = Instant::now();
        let limit = arguments.processing_timeout;
        let until = (!limit.is_zero()).then(|| began + limit);
        let (text, offsets) = work.lossy.text(line);
        let scanned = scanner.scan(text, until, &mut work.scratch, &mut work.found);
        if scanned.is_err() {
            metrics.duration.observe(began.elapsed().as_secs_f64());
            metrics.timed_out.inc();
            if arguments.drop_on_timeout {
                metrics.dropped.inc();
                return Verdict::Drop;
            }
            // Nobody knows what the rest of the line holds.
            return Verdict::Late(self.whole(line));
        }
        if work.found.is_empty() {
            metrics.duration.observe(began.elapsed().as_secs_f64());
            return Verdict::Keep;
        }
        let origin = match arguments.origin_label.as_str() {
            "" => "",
            label => stream.labels().get(label).unwrap_or_default(),
        };
        let mut secrets: HashMap<&[u8], usize> = HashMap::new();
        for (at, finding) in work.found.iter().enumerate() {
            // Of several findings of one secret the first counts.
            secrets.entry(&line[offsets.range(finding.secret.clone())]).or_insert(at);
            metrics.redacted.inc();
            metrics.by_category.with(&[&*scanner.rules[finding.rule].id, origin]).inc();
        }
        let found = work.found.iter().map(|finding| offsets.range(finding.secret.clone()));
        let Some(spans) = spans(line, &secrets, found) else {
            metrics.duration.observe(began.elapsed().as_secs_f64());
            return Verdict::Masked(self.whole(line));
        };
        let masked = masked(line, spans, |at, secret| self.replacement(&scanner.rules[work.found[at].rule].id, secret));
        metrics.duration.observe(began.elapsed().as_secs_f64());
        Verdict::Masked(masked)
    }

    /// What stands in for a line that is masked as a whole.
    fn whole(&self, line: &[u8]) -> Vec<u8> {
        match self.arguments.redact_with.is_empty() {
            true => b"REDACTED".to_vec(),
            false => self.replacement("processing-timeout", line),
        }
    }

    /// What stands in for a secret.
    fn replacement(&self, rule: &str, secret: &[u8]) -> Vec<u8> {
        let with = &self.arguments.redact_with;
        if !with.is_empty() {
            let hash = corten_golang::hex(&Sha1::digest(secret));
            return with.replace("$SECRET_NAME", rule).replace("$SECRET_HASH", &hash).into_bytes();
        }
        let percent = match self.arguments.redact_percent {
            percent @ 1..=100 => percent,
            _ => 80,
        };
        if percent == 100 {
            return b"REDACTED".to_vec();
        }
        let kept = (secret.len() as f64 * (100 - percent) as f64 / 100.0).round_ties_even() as usize;
        [&secret[..kept.min(secret.len())], b"..."].concat()
    }

    /// A number from 0 to just under 1, by chance.
    fn chance(&self) -> f64 {
        let random = self.random.fetch_add(0x9e37_79b9_7f4a_7c15, Ordering::Relaxed);
        let random = (random ^ (random >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        let random = (random ^ (random >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        ((random ^ (random >> 31)) >> 11) as f64 / (1_u64 << 53) as f64
    }
}

/// So many secrets are looked for one by one.
const ONE_BY_ONE_MAX: usize = 16;

/// The most different secrets of a line. With more, it is masked as a whole.
const SECRETS_MAX: usize = 10_000;

/// Where secrets stand in a line, each with its finding: all their occurrences, and what was found itself. Nothing if there are
/// too many.
fn spans(
    line: &[u8],
    secrets: &HashMap<&[u8], usize>,
    found: impl Iterator<Item = Range<usize>>,
) -> Option<Vec<(Range<usize>, usize)>> {
    let mut spans = Vec::new();
    if secrets.len() <= ONE_BY_ONE_MAX {
        for (secret, at) in secrets.iter().filter(|(secret, _)| !secret.is_empty()) {
            spans.extend(memchr::memmem::find_iter(line, secret).map(|start| (start..start + secret.len(), *at)));
        }
    } else if secrets.len() <= SECRETS_MAX {
        let (texts, places): (Vec<&[u8]>, Vec<usize>) = secrets.iter().filter(|(secret, _)| !secret.is_empty()).unzip();
        let all = AhoCorasick::builder().match_kind(MatchKind::LeftmostLongest).build(texts).ok()?;
        spans.extend(all.find_iter(line).map(|hit| (hit.range(), places[hit.pattern().as_usize()])));
    } else {
        return None;
    }
    spans.extend(found.filter_map(|range| Some((range.clone(), *secrets.get(&line[range])?))));
    Some(spans)
}

/// A line with other text in some places, each of which a finding gave. Places that lie over each other are one: a secret
/// must not show because a part of it is another one. Its finding is that of the longest.
fn masked(
    line: &[u8],
    mut spans: Vec<(Range<usize>, usize)>,
    mut with: impl FnMut(usize, &[u8]) -> Vec<u8>,
) -> Vec<u8> {
    spans.sort_by_key(|(span, at)| (span.start, std::cmp::Reverse(span.end), *at));
    let mut out = Vec::with_capacity(line.len());
    let mut copied = 0;
    let mut spans = spans.into_iter().peekable();
    while let Some((first, at)) = spans.next() {
        let (mut all, mut longest, mut finding) = (first.clone(), first.len(), at);
        while let Some((next, at)) = spans.next_if(|(next, _)| next.start < all.end) {
            all.end = all.end.max(next.end);
            if next.len() > longest {
                (longest, finding) = (next.len(), at);
            }
        }
        out.extend_from_slice(&line[copied..all.start]);
        out.extend_from_slice(&with(finding, &line[all.clone()]));
        copied = all.end;
    }
    out.extend_from_slice(&line[copied..]);
    out
}

#[cfg(test)]
mod tests;
