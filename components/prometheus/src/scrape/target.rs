//! The loop that scrapes one target.

use std::sync::Arc;
use std::time::{Duration, Instant, SystemTime, UNIX_EPOCH};

use bytes::Bytes;
use corten_signal::labels::METRIC_NAME;
use corten_signal::{BlockBuilder, Fanout, LabelsBuilder, Metrics, MetricsBatch, Sample, SeriesBlock, SeriesPart};
use corten_wire::text::TextParser;
use http_body_util::BodyExt as _;

use super::cache::{ExpositionError, Scraped, SeriesCache, SeriesRules};

type HttpClient = hyper_util::client::legacy::Client<
    hyper_util::client::legacy::connect::HttpConnector,
    http_body_util::Empty<Bytes>,
>;

/// The series that a scrape makes itself, in the order in which they are sent.
const REPORT_SERIES: [&str; 5] = [
    "up",
    "scrape_duration_seconds",
    "scrape_samples_scraped",
    "scrape_samples_post_metric_relabeling",
    "scrape_series_added",
];

/// Scrapes one target again and again.
pub struct TargetLoop {
    uri: http::Uri,
    client: HttpClient,
    cache: SeriesCache,
    report: Arc<SeriesBlock>,
    interval: Duration,
    timeout: Duration,
    fanout: Fanout<Metrics>,
}

impl TargetLoop {
    /// A loop over a target with these public labels.
    pub fn new(
        uri: http::Uri,
        client: HttpClient,
        labels: LabelsBuilder,
        interval: Duration,
        seed: u64,
        fanout: Fanout<Metrics>,
    ) -> Self {
        let mut block = BlockBuilder::new();
        for name in REPORT_SERIES {
            let mut series = labels.clone();
            series.set(METRIC_NAME, name);
            let _ = block.push(&mut series);
        }
        let rules = SeriesRules { honor_timestamps: true, ..SeriesRules::default() };
        TargetLoop {
            uri,
            client,
            cache: SeriesCache::new(seed, labels, rules),
            report: block.finish(true),
            interval,
            timeout: interval.min(Duration::from_secs(10)),
            fanout,
        }
    }

    /// Scrapes for ever, first after `offset`.
    pub async fn run(mut self, offset: Duration) {
        let mut ticks = tokio::time::interval_at(tokio::time::Instant::now() + offset, self.interval);
        ticks.set_missed_tick_behavior(tokio::time::MissedTickBehavior::Skip);
        loop {
            ticks.tick().await;
            self.scrape().await;
        }
    }

    async fn scrape(&mut self) {
        let now_ms = SystemTime::now().duration_since(UNIX_EPOCH).map_or(0, |d| d.as_millis() as i64);
        let started = Instant::now();
        self.cache.begin(now_ms);
        let fetched = tokio::time::timeout(self.timeout, fetch(&self.client, &self.uri, &mut self.cache)).await;
        let elapsed = started.elapsed();
        let (up, scraped) = match fetched {
            Ok(Ok(())) if !self.cache.is_over_limit() => (1.0, self.cache.succeed()),
            _ => (0.0, self.cache.fail()),
        };
        let Scraped { mut parts, scraped, added, .. } = scraped;
        let values = [up, elapsed.as_secs_f64(), scraped as f64, scraped as f64, added as f64];
        let samples =
            values.iter().enumerate().map(|(i, value)| Sample { value: *value, index: i as u32, offset_ms: 0 }).collect();
        parts.push(SeriesPart::of_samples(Arc::clone(&self.report), now_ms, samples));
        let _ = self.fanout.consume(Arc::new(MetricsBatch { parts })).await;
    }
}

async fn fetch(client: &HttpClient, uri: &http::Uri, cache: &mut SeriesCache) -> Result<(), ExpositionError> {
    let failed = |e: &dyn std::fmt::Display| ExpositionError::Series(e.to_string());
    let response = client.get(uri.clone()).await.map_err(|e| failed(&e))?;
    if response.status() != http::StatusCode::OK {
        return Err(failed(&format!("server returned HTTP status {}", response.status())));
    }
    let mut body = response.into_body();
    let mut parser = TextParser::new();
    while let Some(frame) = body.frame().await {
        let frame = frame.map_err(|e| failed(&e))?;
        if let Some(piece) = frame.data_ref() {
            parser.feed(piece, cache)?;
        }
    }
    parser.finish(cache)
}
