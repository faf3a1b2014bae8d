//! `sink`: a receiver of remote write 1 that counts what arrives and proves that nothing is missing.
//!
//! Two proofs. Each page ends with `bench_seq`, so that a scrape that got lost, came twice or came late shows as a
//! hole, a repetition or a step back. And all samples of a scrape carry its timestamp, so that in each second of
//! timestamps there must be as many samples as there were scrapes, times the series of a page: a sample lost within a
//! scrape shows there.

use std::{
    collections::BTreeMap,
    sync::{Arc, Mutex, MutexGuard, PoisonError},
    time::{Duration, Instant, SystemTime, UNIX_EPOCH},
};

use http_body_util::{BodyExt, Limited};
use hyper::{
    Method, Request, StatusCode,
    body::Incoming,
    header::{CONTENT_ENCODING, CONTENT_TYPE},
};
use serde::{Deserialize, Serialize};
use tokio::net::TcpListener;

use crate::{
    args::{Args, parse_duration},
    error::{Context, Error, Result},
    exposition::{PREFIX, SEQUENCE},
    http::{self, Answer},
    target::Listening,
    wire::{self, STALE_BITS, WireError},
};

/// The largest body that is taken.
pub(crate) const BODY_BYTES_MAX: usize = 64 << 20;

/// The largest request after decompression.
const REQUEST_BYTES_MAX: usize = 512 << 20;

/// Numbers of targets that are followed; others are counted as invalid.
const TARGETS_MAX: usize = 100_000;

/// Sequence numbers that are followed for each target; others are counted as invalid.
const SEQUENCE_MAX: u64 = 1 << 20;

/// Seconds of timestamps that are kept apart; after that the oldest are forgotten.
const SECONDS_MAX: usize = 86_400;

/// Buckets of delay to a doubling: neighbours differ by 1.1 %, which is less than any difference that is looked for.
const DELAY_BUCKETS_DOUBLING: usize = 64;

/// Buckets of the delay between a sample's timestamp and its arrival, from 1 ms to about 70 min.
const DELAY_BUCKETS: usize = 22 * DELAY_BUCKETS_DOUBLING;

/// What is answered from a moment on.
#[derive(Clone, Copy, Debug, PartialEq)]
struct Step {
    /// Since the first request.
    after: Duration,
    status: StatusCode,
    delay: Duration,
}

/// The settings of the command.
#[derive(Debug)]
pub(crate) struct Settings {
    listen: String,
    script: Vec<Step>,
}

impl Settings {
    /// Takes the settings from the command line.
    pub(crate) fn take(args: &mut Args) -> Result<Self> {
        let listen = args.text("--listen")?.unwrap_or_else(|| "127.0.0.1:0".to_owned());
        let status = parse_status(&args.parsed("--status", "204".to_owned())?)?;
        let delay = args.duration("--delay")?.unwrap_or_default();
        let mut script = vec![Step { after: Duration::ZERO, status, delay }];
        if let Some(text) = args.text("--script")? {
            script.extend(parse_script(&text)?);
        }
        script.sort_by_key(|step| step.after);
        Ok(Self { listen, script })
    }
}

/// Reads `10s:503,40s:204:50ms`: from 10 s on 503, from 40 s on 204 after 50 ms.
fn parse_script(text: &str) -> Result<Vec<Step>> {
    text.split(',')
        .map(|step| {
            let bad = || Error::new(format!("option --script: {step:?} is not <after>:<status>[:<delay>]"));
            let mut parts = step.split(':');
            let after = parts.next().and_then(parse_duration).ok_or_else(bad)?;
            let status = parse_status(parts.next().ok_or_else(bad)?)?;
            let delay = parts.next().map_or(Some(Duration::ZERO), parse_duration).ok_or_else(bad)?;
            if parts.next().is_some() { Err(bad()) } else { Ok(Step { after, status, delay }) }
        })
        .collect()
}

fn parse_status(text: &str) -> Result<StatusCode> {
    StatusCode::from_bytes(text.as_bytes()).context(format!("{text:?} is not a status"))
}

/// What `GET /stats` answers; all counts since the start.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(default)]
pub(crate) struct Stats {
    /// Requests that were taken.
    pub(crate) requests: u64,
    /// Of these, the ones with at least one sample.
    pub(crate) sample_requests: u64,
    /// Requests that were answered with an error because the script says so.
    pub(crate) refused: u64,
    /// Requests in another protocol or compression, with which newer agents try their luck first.
    pub(crate) unsupported: u64,
    /// Requests that are no remote write 1.
    pub(crate) malformed: u64,
    /// Why the last one was not.
    pub(crate) malformed_last: String,
    /// Bytes of the taken bodies as they came.
    pub(crate) wire_bytes: u64,
    /// Of these, the ones of requests with samples.
    pub(crate) sample_wire_bytes: u64,
    /// Bytes of the taken requests after decompression.
    pub(crate) decoded_bytes: u64,
    /// Series of the requests, counted each time.
    pub(crate) series: u64,
    /// All samples: payload, stale markers and the agent's own.
    pub(crate) samples: u64,
    /// Samples of what the targets served.
    pub(crate) payload: u64,
    /// Stale markers of any series.
    pub(crate) stale: u64,
    /// Samples that the agent added, such as `up`.
    pub(crate) automatic: u64,
    /// Exemplars.
    pub(crate) exemplars: u64,
    /// Native histograms.
    pub(crate) histograms: u64,
    /// Metadata entries.
    pub(crate) metadata: u64,
    /// Targets of which at least one scrape arrived.
    pub(crate) targets_seen: u64,
    /// Scrapes that arrived.
    pub(crate) scrapes: u64,
    /// Scrapes that are missing before a later one that arrived.
    pub(crate) lost: u64,
    /// Scrapes that arrived again.
    pub(crate) duplicate: u64,
    /// Scrapes that arrived after a later one.
    pub(crate) out_of_order: u64,
    /// Sequence numbers that cannot be.
    pub(crate) invalid_sequences: u64,
    /// How many samples of the targets took how long from timestamp to arrival, by `delay_bucket`.
    pub(crate) delay: Vec<u64>,
}

/// What arrived with timestamps within one second.
#[derive(Clone, Copy, Debug, Default, PartialEq, Serialize, Deserialize)]
pub(crate) struct Second {
    /// Samples of what the targets served.
    pub(crate) payload: u64,
    /// Scrapes.
    pub(crate) scrapes: u64,
}

/// The bucket of a delay.
fn delay_bucket(delay_ms: u64) -> usize {
    let delay = (delay_ms.max(1)) as f64;
    ((delay.log2() * DELAY_BUCKETS_DOUBLING as f64).ceil() as usize).min(DELAY_BUCKETS - 1)
}

/// A percentile of the delays counted between two moments, as the upper bound of its bucket in milliseconds.
pub(crate) fn delay_percentile(before: &[u64], after: &[u64], share: f64) -> Option<f64> {
    let counts: Vec<u64> = after
        .iter()
        .enumerate()
        .map(|(bucket, count)| count.saturating_sub(before.get(bucket).copied().unwrap_or(0)))
        .collect();
    let total: u64 = counts.iter().sum();
    if total == 0 {
        return None;
    }
    let wanted = ((total as f64 * share).ceil() as u64).max(1);
    let mut seen = 0;
    let bucket = counts.iter().position(|count| {
        seen += count;
        seen >= wanted
    })?;
    Some((bucket as f64 / DELAY_BUCKETS_DOUBLING as f64).exp2())
}

/// The sequence numbers of one target that arrived.
#[derive(Debug, Default)]
pub(crate) struct Track {
    seen: Vec<u64>,
    highest: u64,
}

/// What an arrival means.
#[derive(Clone, Copy, Debug, PartialEq)]
pub(crate) enum Arrival {
    /// New; so many numbers below it are missing now that were not before.
    Next { skipped: u64 },
    /// New, and it fills a hole.
    Late,
    /// It came before.
    Again,
    /// Not a number that is given.
    Invalid,
}

impl Track {
    /// Whether no number has arrived.
    pub(crate) fn is_empty(&self) -> bool {
        self.highest == 0
    }

    /// Counts a number in.
    pub(crate) fn arrive(&mut self, sequence: u64) -> Arrival {
        if sequence == 0 || sequence > SEQUENCE_MAX {
            return Arrival::Invalid;
        }
        let (word, bit) = ((sequence / 64) as usize, 1_u64 << (sequence % 64));
        if self.seen.len() <= word {
            self.seen.resize(word + 1, 0);
        }
        if self.seen[word] & bit != 0 {
            return Arrival::Again;
        }
        self.seen[word] |= bit;
        if sequence < self.highest {
            return Arrival::Late;
        }
        let skipped = sequence - self.highest - 1;
        self.highest = sequence;
        Arrival::Next { skipped }
    }
}

/// All that is counted.
#[derive(Debug, Default)]
pub(crate) struct Counts {
    stats: Stats,
    tracks: Vec<Track>,
    seconds: BTreeMap<i64, Second>,
}

impl Counts {
    /// Counts a decompressed request.
    ///
    /// The request is walked twice, so that one that is damaged near its end counts for nothing.
    fn request(&mut self, request: &[u8], wire_bytes: usize, now_ms: i64) -> std::result::Result<(), WireError> {
        wire::walk(request, |series| series.label("__name__").and_then(|_| series.contents(|_| ())).map(|_| ()))?;

        let samples_before = self.stats.samples;
        // Samples of one scrape come one after another: the second and the bucket are looked up when they change.
        let mut second = (i64::MIN, Second::default());
        let mut delay = (i64::MIN, 0);
        self.stats.delay.resize(DELAY_BUCKETS, 0);
        let metadata = wire::walk(request, |series| {
            let name = series.label("__name__")?;
            let payload = name.starts_with(PREFIX.as_bytes());
            let sequence_of =
                if name == SEQUENCE.as_bytes() { Some(target_number(series.label("target")?)) } else { None };
            let (exemplars, histograms) = series.contents(|sample| {
                self.stats.samples += 1;
                if sample.bits == STALE_BITS {
                    self.stats.stale += 1;
                    return;
                }
                if !payload {
                    self.stats.automatic += 1;
                    return;
                }
                self.stats.payload += 1;
                let at = sample.timestamp_ms.div_euclid(1000);
                if at != second.0 {
                    self.add_second(second);
                    second = (at, Second::default());
                }
                second.1.payload += 1;
                if sample.timestamp_ms != delay.0 {
                    let delay_ms = now_ms.saturating_sub(sample.timestamp_ms);
                    delay = (sample.timestamp_ms, delay_bucket(u64::try_from(delay_ms).unwrap_or(0)));
                }
                self.stats.delay[delay.1] += 1;
                if let Some(target) = sequence_of {
                    second.1.scrapes += 1;
                    self.sequence(target, f64::from_bits(sample.bits));
                }
            })?;
            self.stats.series += 1;
            self.stats.exemplars += exemplars;
            self.stats.histograms += histograms;
            Ok(())
        })?;
        self.add_second(second);
        self.stats.metadata += metadata;
        self.stats.requests += 1;
        self.stats.wire_bytes += wire_bytes as u64;
        self.stats.decoded_bytes += request.len() as u64;
        if self.stats.samples > samples_before {
            self.stats.sample_requests += 1;
            self.stats.sample_wire_bytes += wire_bytes as u64;
        }
        Ok(())
    }

    fn add_second(&mut self, (at, add): (i64, Second)) {
        if add.payload == 0 {
            return;
        }
        let second = self.seconds.entry(at).or_default();
        second.payload += add.payload;
        second.scrapes += add.scrapes;
        if self.seconds.len() > SECONDS_MAX {
            self.seconds.pop_first();
        }
    }

    fn sequence(&mut self, target: Option<usize>, value: f64) {
        let Some(target) = target else {
            self.stats.invalid_sequences += 1;
            return;
        };
        if self.tracks.len() <= target {
            self.tracks.resize_with(target + 1, Track::default);
        }
        let track = &mut self.tracks[target];
        let first = track.is_empty();
        // A value that is no whole number is none that the target gave; the cast saturates.
        let sequence = if value.fract() == 0.0 { value as u64 } else { 0 };
        let stats = &mut self.stats;
        match track.arrive(sequence) {
            Arrival::Next { skipped } => {
                stats.lost += skipped;
                stats.scrapes += 1;
                stats.targets_seen += u64::from(first);
            }
            Arrival::Late => {
                stats.lost -= 1;
                stats.scrapes += 1;
                stats.out_of_order += 1;
            }
            Arrival::Again => stats.duplicate += 1,
            Arrival::Invalid => stats.invalid_sequences += 1,
        }
    }
}

fn target_number(label: &[u8]) -> Option<usize> {
    let number = std::str::from_utf8(label).ok()?.parse().ok()?;
    (number < TARGETS_MAX).then_some(number)
}

#[derive(Debug)]
struct State {
    script: Vec<Step>,
    first: Mutex<Option<Instant>>,
    counts: Mutex<Counts>,
}

/// Receives until the process ends; `ready` is told the address.
pub(crate) async fn run(settings: Settings, ready: impl FnOnce(&Listening) -> Result<()>) -> Result<()> {
    let listener =
        TcpListener::bind(&settings.listen).await.context(format!("cannot listen on {}", settings.listen))?;
    let address = listener.local_addr().context("cannot read the listener's address")?;
    let state = Arc::new(State { script: settings.script, first: Mutex::default(), counts: Mutex::default() });
    ready(&Listening { address })?;
    http::serve(listener, move |request| {
        let state = Arc::clone(&state);
        async move { state.answer(request).await }
    })
    .await;
    Ok(())
}

impl State {
    async fn answer(&self, request: Request<Incoming>) -> Answer {
        match (request.method(), request.uri().path()) {
            (&Method::POST, "/api/v1/write") => self.write(request).await,
            (&Method::GET, "/stats") => http::json(&lock(&self.counts).stats),
            (&Method::GET, "/seconds") => http::json(&lock(&self.counts).seconds),
            _ => http::text(StatusCode::NOT_FOUND, "only /api/v1/write, /stats and /seconds\n"),
        }
    }

    async fn write(&self, request: Request<Incoming>) -> Answer {
        let header = |name| request.headers().get(name).map(|value| value.as_bytes().to_ascii_lowercase());
        let encoding = header(CONTENT_ENCODING).unwrap_or_default();
        let second_version =
            header(CONTENT_TYPE).is_some_and(|value| value.windows(24).any(|part| part == b"io.prometheus.write.v2.r"));
        if encoding != b"snappy" || second_version {
            lock(&self.counts).stats.unsupported += 1;
            return http::text(StatusCode::UNSUPPORTED_MEDIA_TYPE, "only remote write 1 with snappy\n");
        }
        let body = match Limited::new(request.into_body(), BODY_BYTES_MAX).collect().await {
            Ok(body) => body.to_bytes(),
            Err(error) => return self.malformed(format!("cannot read the body: {error}")),
        };
        let step = self.step();
        if !step.delay.is_zero() {
            tokio::time::sleep(step.delay).await;
        }
        if !step.status.is_success() {
            lock(&self.counts).stats.refused += 1;
            return http::text(step.status, "the script says so\n");
        }
        match decompress(&body) {
            Err(error) => self.malformed(error),
            Ok(decoded) => {
                let counted = lock(&self.counts).request(&decoded, body.len(), now_ms());
                match counted {
                    Ok(()) => http::text(step.status, ""),
                    Err(error) => self.malformed(error.to_string()),
                }
            }
        }
    }

    fn malformed(&self, why: String) -> Answer {
        let mut counts = lock(&self.counts);
        counts.stats.malformed += 1;
        counts.stats.malformed_last.clone_from(&why);
        http::text(StatusCode::BAD_REQUEST, why)
    }

    /// The step of the script that holds now.
    fn step(&self) -> Step {
        let elapsed = lock(&self.first).get_or_insert_with(Instant::now).elapsed();
        let begun = self.script.partition_point(|step| step.after <= elapsed);
        // The first step begins at zero, so that at least one has begun.
        self.script[begun - 1]
    }
}

/// Undoes one block of snappy, within the limit.
pub(crate) fn decompress(body: &[u8]) -> std::result::Result<Vec<u8>, String> {
    let length = snap::raw::decompress_len(body).map_err(|error| error.to_string())?;
    if length > REQUEST_BYTES_MAX {
        return Err(format!("request of {length} bytes is larger than {REQUEST_BYTES_MAX}"));
    }
    snap::raw::Decoder::new().decompress_vec(body).map_err(|error| error.to_string())
}

fn now_ms() -> i64 {
    let since = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
    i64::try_from(since.as_millis()).unwrap_or(i64::MAX)
}

/// Counts are whole after each request, so that a panic elsewhere does not spoil them.
pub(crate) fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;
    use tokio::{
        io::{AsyncReadExt, AsyncWriteExt},
        net::TcpStream,
    };

    use super::*;
    use crate::wire::write;

    fn scrape(target: usize, sequence: u64, at_ms: i64, extra: usize) -> Vec<Vec<u8>> {
        let number = target.to_string();
        let mut all = vec![write::series(&[("__name__", "up"), ("job", "bench")], &[(1.0, at_ms)])];
        for index in 0..extra {
            let index = index.to_string();
            all.push(write::series(&[("__name__", "bench_a_total"), ("i", &index)], &[(2.0, at_ms)]));
        }
        all.push(write::series(&[("__name__", "bench_seq"), ("target", &number)], &[(sequence as f64, at_ms)]));
        all
    }

    fn count(counts: &mut Counts, all: &[Vec<u8>]) {
        counts.request(&write::request(all), 10, 1_000_100).unwrap();
    }

    #[test]
    fn payload_stale_markers_and_the_agents_own_samples_are_kept_apart() {
        let mut counts = Counts::default();
        let mut all = scrape(3, 1, 1_000_000, 5);
        all.push(write::series(&[("__name__", "bench_gone")], &[(f64::from_bits(STALE_BITS), 1_000_000)]));
        all.push(write::series(&[("__name__", "bench_nan")], &[(f64::NAN, 1_000_000)]));
        count(&mut counts, &all);
        let stats = &counts.stats;
        assert_eq!((stats.samples, stats.payload, stats.stale, stats.automatic), (9, 7, 1, 1));
        assert_eq!((stats.series, stats.requests, stats.sample_requests), (9, 1, 1));
        assert_eq!((stats.targets_seen, stats.scrapes, stats.lost), (1, 1, 0));
        assert_eq!(counts.seconds[&1000], Second { payload: 7, scrapes: 1 });
        assert_eq!(stats.delay.iter().sum::<u64>(), stats.payload);
        assert_eq!(stats.delay[delay_bucket(100)], 7);
    }

    #[test]
    fn holes_repetitions_and_steps_back_are_seen() {
        let mut counts = Counts::default();
        for sequence in [1, 2, 5, 4, 4, 6] {
            count(&mut counts, &scrape(0, sequence, 1_000_000, 0));
        }
        let stats = &counts.stats;
        assert_eq!((stats.scrapes, stats.lost, stats.duplicate, stats.out_of_order), (5, 1, 1, 1));
        // A first number above one means that what came before is missing.
        count(&mut counts, &scrape(1, 3, 1_000_000, 0));
        assert_eq!((counts.stats.lost, counts.stats.targets_seen), (3, 2));
        for bad in [f64::NAN, -1.0, 0.0, 1.5, 1e300] {
            let series = write::series(&[("__name__", "bench_seq"), ("target", "0")], &[(bad, 1)]);
            count(&mut counts, &[series]);
        }
        count(&mut counts, &[write::series(&[("__name__", "bench_seq"), ("target", "x")], &[(1.0, 1)])]);
        assert_eq!(counts.stats.invalid_sequences, 6);
    }

    #[test]
    fn a_damaged_request_counts_for_nothing() {
        let mut counts = Counts::default();
        let whole = write::request(&scrape(0, 1, 1_000_000, 4));
        assert_eq!(counts.request(&whole[..whole.len() - 1], 10, 0), Err(WireError::Truncated));
        assert_eq!(counts.stats, Stats::default());
        assert!(counts.seconds.is_empty());
    }

    #[test]
    fn percentiles_are_of_what_came_between_two_moments() {
        let mut before = vec![0; DELAY_BUCKETS];
        before[delay_bucket(60_000)] = 50;
        let mut after = before.clone();
        after[delay_bucket(100)] += 98;
        after[delay_bucket(2000)] += 2;
        let p = |share| delay_percentile(&before, &after, share).unwrap();
        assert!((100.0..101.2).contains(&p(0.5)), "{}", p(0.5));
        assert!((2000.0..2023.0).contains(&p(0.99)), "{}", p(0.99));
        assert_eq!(delay_percentile(&after, &after, 0.5), None);
        assert_eq!(delay_bucket(u64::MAX), DELAY_BUCKETS - 1);
    }

    #[test]
    fn a_script_is_a_list_of_moments() {
        let steps = parse_script("10s:503,1m:204:50ms").unwrap();
        assert_eq!(
            steps[0],
            Step { after: Duration::from_secs(10), status: StatusCode::SERVICE_UNAVAILABLE, delay: Duration::ZERO }
        );
        assert_eq!(steps[1].delay, Duration::from_millis(50));
        for bad in ["", "10s", "10s:abc", "10s:204:x", "10s:204:1s:1s", "x:204"] {
            assert!(parse_script(bad).is_err(), "{bad}");
        }
    }

    async fn post(address: std::net::SocketAddr, encoding: &str, body: &[u8]) -> u16 {
        let mut stream = TcpStream::connect(address).await.unwrap();
        let head = format!(
            "POST /api/v1/write HTTP/1.0\r\nHost: x\r\nContent-Encoding: {encoding}\r\nContent-Length: {}\r\n\r\n",
            body.len()
        );
        stream.write_all(&[head.as_bytes(), body].concat()).await.unwrap();
        let mut answer = Vec::new();
        stream.read_to_end(&mut answer).await.unwrap();
        http::status(&answer).unwrap()
    }

    async fn start(line: &str) -> std::net::SocketAddr {
        let settings = Settings::take(&mut Args::new(line.split_whitespace().map(str::to_owned))).unwrap();
        let (send, receive) = tokio::sync::oneshot::channel();
        tokio::spawn(run(settings, move |listening| {
            send.send(listening.address).map_err(|_| Error::new("nobody waits"))
        }));
        receive.await.unwrap()
    }

    #[tokio::test]
    async fn requests_are_taken_counted_and_refused_over_http() {
        let address = start("").await;
        let body = snap::raw::Encoder::new().compress_vec(&write::request(&scrape(0, 1, 1_000_000, 9))).unwrap();
        assert_eq!(post(address, "snappy", &body).await, 204);
        assert_eq!(post(address, "zstd", &body).await, 415);
        assert_eq!(post(address, "snappy", b"\xff\xff\xff\xff\x7f").await, 400);
        assert_eq!(post(address, "snappy", b"garbage").await, 400);
        let stats: Stats = http::get_json(address, "/stats").await.unwrap();
        assert_eq!((stats.requests, stats.unsupported, stats.malformed), (1, 1, 2));
        assert_eq!((stats.payload, stats.samples), (10, 11));
        assert_eq!(stats.wire_bytes, body.len() as u64);
        let seconds: BTreeMap<i64, Second> = http::get_json(address, "/seconds").await.unwrap();
        assert_eq!(seconds, BTreeMap::from([(1000, Second { payload: 10, scrapes: 1 })]));
    }

    #[tokio::test]
    async fn a_scripted_refusal_is_answered_and_not_counted() {
        let address = start("--status 503").await;
        assert_eq!(post(address, "snappy", b"").await, 503);
        let stats: Stats = http::get_json(address, "/stats").await.unwrap();
        assert_eq!((stats.refused, stats.requests), (1, 0));
    }

    proptest! {
        #[test]
        fn no_body_makes_the_sink_panic(bytes in proptest::collection::vec(any::<u8>(), 0..300)) {
            let mut counts = Counts::default();
            if let Ok(decoded) = decompress(&bytes) {
                let _ = counts.request(&decoded, bytes.len(), 0);
            }
            let _ = counts.request(&bytes, 0, 0);
        }

        #[test]
        fn any_order_of_arrival_without_loss_ends_with_nothing_lost(order in Just((1..100_u64).collect::<Vec<_>>()).prop_shuffle()) {
            let mut counts = Counts::default();
            for sequence in order {
                counts.sequence(Some(0), sequence as f64);
            }
            prop_assert_eq!((counts.stats.lost, counts.stats.scrapes, counts.stats.duplicate), (0, 99, 0));
        }
    }
}
