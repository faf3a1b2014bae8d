//! A sampler whose decisions a Jaeger server makes: `SamplingStrategyResponse` of Jaeger's `sampling.proto`, in JSON.

use std::collections::HashMap;
use std::fmt;
use std::sync::Arc;
use std::time::{Duration, Instant};

use arc_swap::ArcSwap;
use corten_component::trace::{Ratio, Sampler};
use corten_component::{Component, Context, Error, Logger, Task};
use corten_net::{Body, Client, ClientConfig, ClientOptions};
use http::{HeaderValue, Request, Uri};
use parking_lot::Mutex;
use serde_json::Value as Json;

use super::{JaegerRemote, SERVICE_NAME};

/// How long an answer may take, and how long it may be.
const ANSWER_WAIT_MAX: Duration = Duration::from_secs(10);
const ANSWER_BYTES_MAX: usize = 4 << 20;

/// Decides as the server said last.
#[derive(Clone)]
pub struct Remote(Arc<Asked>);

struct Asked {
    client: Client,
    uri: Uri,
    every: Duration,
    operations_max: usize,
    strategy: ArcSwap<Strategy>,
}

impl fmt::Debug for Remote {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Remote({})", self.0.uri)
    }
}

/// What the server said.
#[derive(Debug, Default)]
struct Strategy {
    by_operation: HashMap<String, Chance>,
    others: Chance,
}

/// How one operation is sampled.
#[derive(Debug, Default)]
struct Chance {
    ratio: Option<Ratio>,
    /// Traces that are kept in a second: all that are, or, beside a ratio, at least.
    rate: Option<Mutex<Bucket>>,
}

impl Chance {
    fn keeps(&self, trace_id: [u8; 16]) -> bool {
        self.ratio.is_some_and(|ratio| ratio.keeps(trace_id, ""))
            || self.rate.as_ref().is_some_and(|rate| rate.lock().take(Instant::now()))
    }
}

/// Fills with so many tokens a second.
#[derive(Debug)]
struct Bucket {
    per_second: f64,
    tokens: f64,
    at: Instant,
}

impl Bucket {
    fn new(per_second: f64) -> Self {
        Bucket { per_second, tokens: per_second.max(1.0), at: Instant::now() }
    }

    fn take(&mut self, now: Instant) -> bool {
        let filled = self.tokens + now.saturating_duration_since(self.at).as_secs_f64() * self.per_second;
        self.at = now;
        self.tokens = filled.min(self.per_second.max(1.0));
        let taken = self.tokens >= 1.0;
        if taken {
            self.tokens -= 1.0;
        }
        taken
    }
}

impl Sampler for Remote {
    fn keeps(&self, trace_id: [u8; 16], name: &str) -> bool {
        let strategy = self.0.strategy.load();
        strategy.by_operation.get(name).unwrap_or(&strategy.others).keeps(trace_id)
    }
}

impl Remote {
    /// Decides by the ratio until the server has answered.
    pub(super) async fn new<C: Component>(
        settings: &JaegerRemote,
        first: Ratio,
        cx: &Context<C>,
    ) -> Result<Self, Error> {
        let invalid = |error: &dyn fmt::Display| Error::new(error.to_string());
        let joint = if settings.url.contains('?') { '&' } else { '?' };
        let uri = format!("{}{joint}service={SERVICE_NAME}", settings.url).parse().map_err(|e| invalid(&e))?;
        let options = ClientOptions {
            user_agent: HeaderValue::from_str(&cx.services().user_agent).map_err(|e| invalid(&e))?,
            ..ClientOptions::default()
        };
        let client = Client::new(ClientConfig::default(), options).await.map_err(|e| invalid(&e))?;
        Ok(Remote(Arc::new(Asked {
            client,
            uri,
            every: settings.refresh_interval,
            operations_max: settings.max_operations,
            strategy: ArcSwap::from_pointee(Strategy {
                others: Chance { ratio: Some(first), rate: None },
                ..Strategy::default()
            }),
        })))
    }

    /// Asks again and again.
    pub(super) fn start<C: Component>(&self, cx: &Context<C>) -> Task {
        let (asked, logger) = (Arc::clone(&self.0), cx.logger().clone());
        cx.spawn("sampler", move |mut stop| {
            let (asked, logger) = (Arc::clone(&asked), logger.clone());
            async move {
                loop {
                    asked.refresh(&logger).await;
                    if !stop.sleep(asked.every).await {
                        return Ok(());
                    }
                }
            }
        })
    }
}

impl Asked {
    /// Asks once. While nothing can be learnt, what was said last counts.
    async fn refresh(&self, logger: &Logger) {
        let asked = tokio::time::timeout(ANSWER_WAIT_MAX, self.ask()).await;
        match asked.unwrap_or_else(|_| Err(format!("no answer within {} s", ANSWER_WAIT_MAX.as_secs()))) {
            Ok(strategy) => self.strategy.store(Arc::new(strategy)),
            Err(error) => {
                let fields = [("url", self.uri.to_string().into()), ("err", error.into())];
                logger.warn("failed to fetch the sampling strategy", &fields);
            }
        }
    }

    async fn ask(&self) -> Result<Strategy, String> {
        let request = Request::get(&self.uri).body(Body::empty()).map_err(|error| error.to_string())?;
        let response = self.client.request(request).await.map_err(|error| error.to_string())?;
        let status = response.status();
        if !status.is_success() {
            return Err(format!("the server answered {status}"));
        }
        let body = response.into_body().read(ANSWER_BYTES_MAX).await.map_err(|error| error.to_string())?;
        Strategy::read(&body, self.operations_max)
    }
}

impl Strategy {
    fn read(json: &[u8], operations_max: usize) -> Result<Self, String> {
        let json: Json = serde_json::from_slice(json).map_err(|error| error.to_string())?;
        let number = |json: &Json| json.as_f64().filter(|number| *number >= 0.0);
        if let Some(operations) = json.get("operationSampling").filter(|found| found.is_object()) {
            let least = number(&operations["defaultLowerBoundTracesPerSecond"]).unwrap_or_default();
            let chance = |ratio: f64| Chance {
                ratio: Some(Ratio::new(ratio)),
                rate: (least > 0.0).then(|| Mutex::new(Bucket::new(least))),
            };
            let others = number(&operations["defaultSamplingProbability"])
                .ok_or("operationSampling has no defaultSamplingProbability")?;
            let listed = operations["perOperationStrategies"].as_array().map_or(&[][..], Vec::as_slice);
            let by_operation = listed.iter().take(operations_max).filter_map(|of| {
                let ratio = number(&of["probabilisticSampling"]["samplingRate"])?;
                Some((of["operation"].as_str()?.to_owned(), chance(ratio)))
            });
            return Ok(Strategy { by_operation: by_operation.collect(), others: chance(others) });
        }
        let others = if let Some(rate) = number(&json["rateLimitingSampling"]["maxTracesPerSecond"]) {
            Chance { ratio: None, rate: Some(Mutex::new(Bucket::new(rate))) }
        } else if let Some(ratio) = number(&json["probabilisticSampling"]["samplingRate"]) {
            Chance { ratio: Some(Ratio::new(ratio)), rate: None }
        } else {
            return Err("the answer has neither probabilisticSampling nor rateLimitingSampling".to_owned());
        };
        Ok(Strategy { others, ..Strategy::default() })
    }
}

#[cfg(test)]
mod tests {
    use proptest::proptest;

    use super::*;

    fn kept(chance: &Chance) -> usize {
        (0..100_u8).filter(|n| chance.keeps([n.wrapping_mul(163); 16])).count()
    }

    #[test]
    fn a_server_decides_for_all_or_for_operations() {
        let all = Strategy::read(br#"{"strategyType":"PROBABILISTIC","probabilisticSampling":{"samplingRate":1}}"#, 10)
            .unwrap();
        assert_eq!((all.by_operation.len(), kept(&all.others)), (0, 100));
        let operations = br#"{"operationSampling":{"defaultSamplingProbability":0,"defaultLowerBoundTracesPerSecond":0,
            "perOperationStrategies":[{"operation":"HTTP GET","probabilisticSampling":{"samplingRate":1}},
                {"operation":"HTTP POST","probabilisticSampling":{"samplingRate":1}}]}}"#;
        let by = Strategy::read(operations, 10).unwrap();
        assert_eq!((by.by_operation.len(), kept(&by.others), kept(&by.by_operation["HTTP GET"])), (2, 0, 100));
        assert_eq!(Strategy::read(operations, 1).unwrap().by_operation.len(), 1);
    }

    #[test]
    fn a_rate_is_kept_and_not_more() {
        let json = br#"{"strategyType":1,"rateLimitingSampling":{"maxTracesPerSecond":3}}"#;
        let strategy = Strategy::read(json, 10).unwrap();
        assert!((3..=4).contains(&kept(&strategy.others)));
        let mut bucket = Bucket::new(2.0);
        let now = Instant::now();
        assert!(bucket.take(now) && bucket.take(now) && !bucket.take(now));
        assert!(bucket.take(now + Duration::from_millis(600)));
    }

    #[test]
    fn what_is_no_strategy_says_so() {
        for json in ["", "{}", "[]", r#"{"operationSampling":{}}"#, r#"{"probabilisticSampling":{"samplingRate":-1}}"#]
        {
            assert!(Strategy::read(json.as_bytes(), 10).is_err(), "{json}");
        }
    }

    proptest! {
        #[test]
        fn no_answer_makes_it_panic(text in "[\\[\\]{}\":,a-zA-Z0-9.-]{0,80}") {
            let _ = Strategy::read(text.as_bytes(), 2);
        }
    }
}
