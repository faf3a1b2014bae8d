//! The policies: how they are written, and what they say of a trace.

use corten_component::Logger;
use corten_config::Arguments;
use corten_config::arguments::{CheckErrors, CheckStep};
use corten_otlp::{Arena, Data, Map, Span, Value};
use corten_ottl::{Context, EvalError, compile_conditions, for_each, parse_trace_state};
use corten_signal::regex::{GoRegex, Lossy};
use tokio::time::Instant;

use crate::identity::{Hasher, Recent};
use crate::statements::{AnyOf, ErrorMode, refuse};

/// A policy, and the settings of its type.
#[derive(Arguments, Clone, Debug, PartialEq)]
pub(super) struct PolicyArguments {
    /// Name, type and settings.
    #[flatten]
    pub(super) shared: SharedPolicy,
    /// Settings of `composite`: policies that share a number of spans a second.
    #[block]
    composite: Option<Composite>,
    /// Settings of `and`: samples what all of its policies sample.
    #[block(optional)]
    and: And,
    /// Settings of `not`: samples what its policy does not sample.
    #[block]
    not: Option<Not>,
    /// Settings of `drop`: drops what all of its policies sample, whatever other policies say.
    #[block(optional)]
    drop: Drop,
}

/// Name and type of a policy, and the settings of its type.
#[derive(Arguments, Clone, Debug, PartialEq)]
pub(super) struct SharedPolicy {
    /// Name of the policy.
    pub(super) name: String,
    /// Type of the policy: `always_sample`, `latency`, `numeric_attribute`, `probabilistic`, `status_code`,
    /// `string_attribute`, `rate_limiting`, `bytes_limiting`, `span_count`, `boolean_attribute`, `ottl_condition`,
    /// `trace_state` or `trace_flags`. A policy that is not part of another one can be `composite`, `and`, `not` or `drop`,
    /// and a part of a composite one `and`.
    #[arg(name = "type")]
    pub(super) kind: String,
    /// Settings of `latency`: samples traces that take long.
    #[block(optional)]
    latency: Latency,
    /// Settings of `numeric_attribute`: samples by a whole number.
    #[block(optional)]
    numeric_attribute: NumericAttribute,
    /// Settings of `probabilistic`: samples a part of all traces.
    #[block(optional)]
    probabilistic: Probabilistic,
    /// Settings of `status_code`: samples by how spans ended.
    #[block(optional)]
    status_code: StatusCode,
    /// Settings of `string_attribute`: samples by a text.
    #[block(optional)]
    string_attribute: StringAttribute,
    /// Settings of `rate_limiting`: samples so many spans a second.
    #[block(optional)]
    rate_limiting: RateLimiting,
    /// Settings of `bytes_limiting`: samples so many bytes a second.
    #[block(optional)]
    bytes_limiting: BytesLimiting,
    /// Settings of `span_count`: samples by how many spans there are.
    #[block(optional)]
    span_count: SpanCount,
    /// Settings of `boolean_attribute`: samples by a truth value.
    #[block(optional)]
    boolean_attribute: BooleanAttribute,
    /// Settings of `ottl_condition`: samples by conditions in OTTL.
    #[block]
    ottl_condition: Option<OttlCondition>,
    /// Settings of `trace_state`: samples by the W3C trace state.
    #[block(optional)]
    trace_state: TraceState,
}

/// Samples traces that take long: from the beginning of the first span to the end of the last one.
#[derive(Arguments, Clone, Debug, Default, PartialEq)]
pub(super) struct Latency {
    /// Samples traces that take longer than so many milliseconds.
    threshold_ms: i64,
    /// Does not sample traces that take longer than so many milliseconds. 0 sets no limit.
    #[arg(default = 0)]
    upper_threshold_ms: i64,
}

/// Samples traces by an attribute of a resource or span that is a whole number.
#[derive(Arguments, Clone, Debug, Default, PartialEq)]
pub(super) struct NumericAttribute {
    /// Name of the attribute.
    key: String,
    /// The least number that matches. 0 sets no limit.
    min_value: i64,
    /// The greatest number that matches. 0 sets no limit.
    max_value: i64,
    /// Whether traces are sampled in which nothing matches, instead of those in which something does.
    #[arg(default = false)]
    invert_match: bool,
}

/// Samples a part of all traces, the same everywhere: a hash of their ids decides.
#[derive(Arguments, Clone, Debug, Default, PartialEq)]
pub(super) struct Probabilistic {
    /// What goes into the hash before the id. Another one chooses other traces.
    #[arg(optional)]
    hash_salt: String,
    /// How many of a hundred traces are sampled.
    sampling_percentage: f64,
}

/// Samples traces that have a span which ended in one of some ways.
#[derive(Arguments, Clone, Debug, Default, PartialEq)]
pub(super) struct StatusCode {
    /// `OK`, `ERROR` or `UNSET`.
    status_codes: Vec<String>,
}

/// Samples traces by an attribute of a resource or span that is a text.
#[derive(Arguments, Clone, Debug, Default, PartialEq)]
pub(super) struct StringAttribute {
    /// Name of the attribute.
    key: String,
    /// Texts that match, or patterns of them. An empty text never matches.
    values: Vec<String>,
    /// Whether the values are regular expressions, which may match any part of the attribute.
    #[arg(default = false)]
    enabled_regex_matching: bool,
    /// For how many texts it is remembered whether a regular expression matched them; 0 is 128.
    #[arg(default = 0)]
    cache_max_size: i64,
    /// Whether traces are sampled in which nothing matches, instead of those in which something does.
    #[arg(default = false)]
    invert_match: bool,
}

/// Samples traces as long as they have no more than so many spans a second.
#[derive(Arguments, Clone, Debug, Default, PartialEq)]
pub(super) struct RateLimiting {
    /// How many spans a second are sampled.
    spans_per_second: i64,
    /// How many spans are sampled at once after a pause. 0 is twice as many as a second.
    #[arg(default = 0)]
    burst_capacity: i64,
}

/// Samples traces as long as they have no more than so many bytes a second, as they are sent.
#[derive(Arguments, Clone, Debug, Default, PartialEq)]
pub(super) struct BytesLimiting {
    /// How many bytes a second are sampled.
    bytes_per_second: i64,
    /// How many bytes are sampled at once after a pause. 0 is twice as many as a second.
    #[arg(default = 0)]
    burst_capacity: i64,
}

/// Samples traces by how many spans they have.
#[derive(Arguments, Clone, Debug, Default, PartialEq)]
pub(super) struct SpanCount {
    /// The least number of spans.
    min_spans: i32,
    /// The greatest number of spans. 0 sets no limit.
    #[arg(default = 0)]
    max_spans: i32,
}

/// Samples traces by an attribute of a resource or span that is a truth value.
#[derive(Arguments, Clone, Debug, Default, PartialEq)]
pub(super) struct BooleanAttribute {
    /// Name of the attribute.
    key: String,
    /// The value that matches.
    value: bool,
    /// Whether traces are sampled in which nothing matches, instead of those in which something does.
    #[arg(default = false)]
    invert_match: bool,
}

/// Samples traces in which a condition in OTTL is met.
#[derive(Arguments, Clone, Debug, PartialEq)]
pub(super) struct OttlCondition {
    /// What happens when a condition cannot be evaluated: with `ignore` the log says so and the condition is not met, with
    /// `silent` the log says nothing, with `propagate` the policy has no say in the trace.
    error_mode: ErrorMode,
    /// Conditions about spans.
    #[arg(optional)]
    span: Vec<String>,
    /// Conditions about events of spans.
    #[arg(optional)]
    spanevent: Vec<String>,
}

/// Samples traces by an entry of the W3C trace state of a span.
#[derive(Arguments, Clone, Debug, Default, PartialEq)]
pub(super) struct TraceState {
    /// Key of the entry.
    key: String,
    /// Values that match.
    values: Vec<String>,
}

/// Samples what all of its policies sample.
#[derive(Arguments, Clone, Debug, Default, PartialEq)]
pub(super) struct And {
    /// A policy that has to sample the trace.
    #[block(required)]
    and_sub_policy: Vec<SubPolicy>,
}

/// Samples what its policy does not sample.
#[derive(Arguments, Clone, Debug, PartialEq)]
pub(super) struct Not {
    /// The policy.
    #[block]
    not_sub_policy: SubPolicy,
}

/// Drops what all of its policies sample.
#[derive(Arguments, Clone, Debug, Default, PartialEq)]
pub(super) struct Drop {
    /// A policy that has to sample the trace.
    #[block(required)]
    drop_sub_policy: Vec<SubPolicy>,
}

/// Policies that share a number of spans a second. The first one that samples a trace decides: the trace is sampled if there
/// is room left in this second.
#[derive(Arguments, Clone, Debug, PartialEq)]
pub(super) struct Composite {
    /// How many spans a second each of the policies samples at most.
    max_total_spans_per_second: i64,
    /// Names of the policies. They have to be given, but policies are asked in the order of their blocks.
    policy_order: Vec<String>,
    /// A policy.
    #[block]
    composite_sub_policy: Vec<CompositeSubPolicy>,
    /// The part of the spans that a policy may sample. A policy without one samples nothing.
    #[block]
    rate_allocation: Vec<RateAllocation>,
}

/// The part of the spans that a policy may sample.
#[derive(Arguments, Clone, Debug, PartialEq)]
pub(super) struct RateAllocation {
    /// Name of the policy.
    policy: String,
    /// How many of a hundred spans. 0 is an equal part for each policy.
    percent: i64,
}

/// A policy that is part of another one.
#[derive(Arguments, Clone, Debug, PartialEq)]
pub(super) struct SubPolicy {
    /// Name, type and settings.
    #[flatten]
    shared: SharedPolicy,
}

/// A policy that is part of a composite one.
#[derive(Arguments, Clone, Debug, PartialEq)]
pub(super) struct CompositeSubPolicy {
    /// Name, type and settings.
    #[flatten]
    shared: SharedPolicy,
    /// Settings of `and`: samples what all of its policies sample.
    #[block(optional)]
    and: And,
}

impl SharedPolicy {
    fn check(&self) -> Result<(), CheckErrors> {
        self.policy(None).map(drop)
    }

    /// Makes the policy; nothing if its type is none of those that can be part of others.
    fn policy(&self, logger: Option<&Logger>) -> Result<Option<Policy>, CheckErrors> {
        let refused = |block: &'static str, what: &str| {
            let what = format!("failed to create policy evaluator for {:?}: {what}", self.name);
            Err(CheckErrors::of(&[block, "type"], what))
        };
        Ok(Some(match &*self.kind {
            "always_sample" => Policy::Always,
            "latency" => Policy::Latency(self.latency.clone()),
            "numeric_attribute" => {
                let NumericAttribute { key, min_value, max_value, invert_match } = self.numeric_attribute.clone();
                if (min_value, max_value) == (0, 0) {
                    return refused("numeric_attribute", "At least one of minValue or maxValue must be set");
                }
                let or = |bound: i64, otherwise| if bound == 0 { otherwise } else { bound };
                let range = or(min_value, i64::MIN)..=or(max_value, i64::MAX);
                Policy::Attribute { key: key.into_bytes(), matcher: Matcher::Number(range), invert: invert_match }
            }
            "probabilistic" => {
                let salt = &*self.probabilistic.hash_salt;
                let salt = if salt.is_empty() { "default-hash-seed" } else { salt };
                Policy::Probabilistic {
                    salted: fnv(FNV_OFFSET, salt.as_bytes()),
                    threshold: threshold(self.probabilistic.sampling_percentage / 100.0),
                }
            }
            "status_code" => {
                let names = &self.status_code.status_codes;
                if names.is_empty() {
                    return refused("status_code", "expected at least one status code to filter on");
                }
                let mut codes = Vec::new();
                for name in names {
                    match ["UNSET", "OK", "ERROR"].iter().position(|known| known == name) {
                        Some(code) => codes.push(code as i32),
                        None => {
                            let what = format!("unknown status code {name:?}, supported: OK, ERROR, UNSET");
                            return refused("status_code", &what);
                        }
                    }
                }
                Policy::StatusCode(codes)
            }
            "string_attribute" => {
                let StringAttribute { key, values, enabled_regex_matching, cache_max_size, invert_match } =
                    self.string_attribute.clone();
                let matcher = if enabled_regex_matching {
                    let mut patterns = Vec::new();
                    for value in &values {
                        match GoRegex::new(value) {
                            Ok(pattern) => patterns.push(pattern),
                            Err(error) => {
                                return refused("string_attribute", &format!("invalid regex `{value}`: {error}"));
                            }
                        }
                    }
                    let known_max = usize::try_from(cache_max_size).ok().filter(|max| *max > 0).unwrap_or(128);
                    Matcher::Pattern {
                        patterns,
                        known: Recent::default(),
                        known_max,
                        hasher: Hasher::default(),
                        lossy: Lossy::new(),
                    }
                } else {
                    Matcher::Text(values.into_iter().filter(|value| !value.is_empty()).collect())
                };
                Policy::Attribute { key: key.into_bytes(), matcher, invert: invert_match }
            }
            "rate_limiting" => {
                let RateLimiting { spans_per_second, burst_capacity } = self.rate_limiting;
                Policy::Spans(Bucket::new(spans_per_second, burst_capacity))
            }
            "bytes_limiting" => {
                let BytesLimiting { bytes_per_second, burst_capacity } = self.bytes_limiting;
                Policy::Bytes(Bucket::new(bytes_per_second, burst_capacity))
            }
            "span_count" => Policy::SpanCount(self.span_count.clone()),
            "boolean_attribute" => {
                let BooleanAttribute { key, value, invert_match } = self.boolean_attribute.clone();
                Policy::Attribute { key: key.into_bytes(), matcher: Matcher::Bool(value), invert: invert_match }
            }
            "ottl_condition" => return self.ottl(logger).map(Some),
            "trace_state" => {
                let TraceState { key, mut values } = self.trace_state.clone();
                values.retain(|value| !value.is_empty() && key.len() + value.len() < 256);
                Policy::TraceState { key: key.into_bytes(), values }
            }
            "trace_flags" => Policy::TraceFlags,
            _ => return Ok(None),
        }))
    }

    fn ottl(&self, logger: Option<&Logger>) -> Result<Policy, CheckErrors> {
        let mut errors = CheckErrors::new();
        let settings = self.ottl_condition.as_ref().filter(|all| !all.span.is_empty() || !all.spanevent.is_empty());
        let Some(OttlCondition { error_mode, span, spanevent }) = settings else {
            let what = "expected at least one OTTL condition to filter on";
            let what = format!("failed to create policy evaluator for {:?}: {what}", self.name);
            return Err(CheckErrors::of(&["ottl_condition", "type"], what));
        };
        let mut of = |context, list, conditions: &[String]| match compile_conditions(context, conditions) {
            Ok(_) if conditions.is_empty() => None,
            Ok(conditions) => Some(AnyOf::new(conditions, *error_mode, logger)),
            Err(mistakes) => {
                refuse(&mut errors, "ottl_condition", &mistakes, |_| vec![CheckStep::Field(list)]);
                None
            }
        };
        let spans = of(Context::Span, "span", span);
        let events = of(Context::SpanEvent, "spanevent", spanevent);
        errors.into_result().map(|()| Policy::Ottl([spans, events]))
    }

    fn unknown(&self) -> CheckErrors {
        let what = format!("unknown sampling policy type {}", self.kind);
        CheckErrors::of(&["type"], format!("failed to create policy evaluator for {:?}: {what}", self.name))
    }

    /// Refuses a type that is none of those that can be part of others, nor one of some further ones.
    fn check_type(&self, further: &[&str]) -> Result<(), CheckErrors> {
        let known = TYPES.contains(&&*self.kind) || further.contains(&&*self.kind);
        if known { Ok(()) } else { Err(self.unknown()) }
    }
}

/// The types that can be part of others.
const TYPES: &[&str] = &[
    "always_sample",
    "boolean_attribute",
    "bytes_limiting",
    "latency",
    "numeric_attribute",
    "ottl_condition",
    "probabilistic",
    "rate_limiting",
    "span_count",
    "status_code",
    "string_attribute",
    "trace_flags",
    "trace_state",
];

impl PolicyArguments {
    fn check(&self) -> Result<(), CheckErrors> {
        if self.shared.name.is_empty() {
            return Err(CheckErrors::of(&["name"], "policy name cannot be empty"));
        }
        if self.shared.kind == "not" && self.not.is_none() {
            let what =
                format!("failed to create policy evaluator for {:?}: unknown sampling policy type ", self.shared.name);
            return Err(CheckErrors::of(&["not", "type"], what));
        }
        self.shared.check_type(&["composite", "and", "not", "drop"])
    }

    /// Makes the policy.
    pub(super) fn policy(&self, logger: &Logger) -> Result<Policy, CheckErrors> {
        match (&*self.shared.kind, &self.not, &self.composite) {
            ("and", ..) => self.and.policy(logger),
            ("drop", ..) => all(&self.drop.drop_sub_policy, logger).map(Policy::Drop),
            ("not", Some(not), _) => Ok(Policy::Not(Box::new(not.not_sub_policy.policy(logger)?))),
            ("composite", _, Some(composite)) => composite.policy(logger),
            // Without settings nothing is left for any of no policies.
            ("composite", _, None) => Ok(Policy::Composite(Shares::default())),
            _ => self.shared.policy(Some(logger))?.ok_or_else(|| self.shared.unknown()),
        }
    }
}

impl SubPolicy {
    fn check(&self) -> Result<(), CheckErrors> {
        self.shared.check_type(&[])
    }

    fn policy(&self, logger: &Logger) -> Result<Policy, CheckErrors> {
        self.shared.policy(Some(logger))?.ok_or_else(|| self.shared.unknown())
    }
}

fn all(policies: &[SubPolicy], logger: &Logger) -> Result<Vec<Policy>, CheckErrors> {
    policies.iter().map(|policy| policy.policy(logger)).collect()
}

impl And {
    fn policy(&self, logger: &Logger) -> Result<Policy, CheckErrors> {
        all(&self.and_sub_policy, logger).map(Policy::And)
    }
}

impl CompositeSubPolicy {
    fn check(&self) -> Result<(), CheckErrors> {
        self.shared.check_type(&["and"])
    }

    fn policy(&self, logger: &Logger) -> Result<Policy, CheckErrors> {
        match &*self.shared.kind {
            "and" => self.and.policy(logger),
            _ => self.shared.policy(Some(logger))?.ok_or_else(|| self.shared.unknown()),
        }
    }
}

impl Composite {
    fn policy(&self, logger: &Logger) -> Result<Policy, CheckErrors> {
        let total = self.max_total_spans_per_second;
        let policies = &self.composite_sub_policy;
        let share = |name: &str| {
            let allocation = self.rate_allocation.iter().rev().find(|allocation| allocation.policy == name);
            match allocation.map(|allocation| allocation.percent) {
                None => 0,
                Some(percent) if percent > 0 => (percent as f64 / 100.0 * total as f64) as i64,
                Some(_) => (total as f64 / policies.len() as f64) as i64,
            }
        };
        let shares = policies.iter().map(|policy| {
            Ok(Share { policy: policy.policy(logger)?, spans_max: share(&policy.shared.name).min(total), spans: 0 })
        });
        Ok(Policy::Composite(Shares { shares: shares.collect::<Result<_, CheckErrors>>()?, ..Shares::default() }))
    }
}

/// A trace, to be decided about.
pub(super) struct Seen<'a> {
    pub(super) id: [u8; 16],
    pub(super) data: &'a mut Data<Span>,
    pub(super) spans: u64,
    /// As it is sent.
    pub(super) bytes: u64,
    pub(super) now: Instant,
}

/// What a policy says of a trace.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Vote {
    Sampled,
    NotSampled,
    Dropped,
}

impl Vote {
    fn of(sampled: bool) -> Self {
        if sampled { Vote::Sampled } else { Vote::NotSampled }
    }
}

/// A policy that is ready to be asked.
#[derive(Debug)]
pub(super) enum Policy {
    Always,
    Latency(Latency),
    Attribute {
        key: Vec<u8>,
        matcher: Matcher,
        invert: bool,
    },
    Probabilistic {
        /// The hash of what comes before the id.
        salted: u64,
        threshold: u64,
    },
    StatusCode(Vec<i32>),
    Spans(Bucket),
    Bytes(Bucket),
    SpanCount(SpanCount),
    /// Conditions about spans, and about their events.
    Ottl([Option<AnyOf>; 2]),
    TraceState {
        key: Vec<u8>,
        values: Vec<String>,
    },
    TraceFlags,
    And(Vec<Policy>),
    Not(Box<Policy>),
    Drop(Vec<Policy>),
    Composite(Shares),
}

impl Policy {
    /// Asks for a vote.
    ///
    /// # Errors
    ///
    /// A condition could not be evaluated.
    pub(super) fn vote(&mut self, seen: &mut Seen<'_>) -> Result<Vote, EvalError> {
        Ok(match self {
            Policy::Always => Vote::Sampled,
            Policy::Latency(latency) => Vote::of(latency.is_met(seen.data)),
            Policy::Attribute { key, matcher, invert } => Vote::of(
                any_attribute(seen.data, key, |arena, value, of_span| matcher.matches(arena, value, of_span))
                    != *invert,
            ),
            Policy::Probabilistic { salted, threshold } => Vote::of(fnv(*salted, &seen.id) <= *threshold),
            Policy::StatusCode(codes) => Vote::of(any_span(seen.data, |_, span| codes.contains(&span.status.code))),
            Policy::Spans(bucket) => Vote::of(bucket.takes(seen.spans, seen.now)),
            Policy::Bytes(bucket) => Vote::of(bucket.takes(seen.bytes, seen.now)),
            Policy::SpanCount(SpanCount { min_spans, max_spans }) => {
                let spans = i64::try_from(seen.spans).unwrap_or(i64::MAX);
                Vote::of(spans >= i64::from(*min_spans) && (*max_spans == 0 || spans <= i64::from(*max_spans)))
            }
            Policy::Ottl(conditions) => {
                for conditions in conditions.iter().flatten() {
                    let mut met = false;
                    let walked = for_each(seen.data, conditions.context(), None, |item| {
                        met = conditions.holds(item)?;
                        // The first item that meets a condition ends it.
                        if met { Err("met".into()) } else { Ok(()) }
                    });
                    if met {
                        return Ok(Vote::Sampled);
                    }
                    walked?;
                }
                Vote::NotSampled
            }
            Policy::TraceState { key, values } => Vote::of(any_span(seen.data, |arena, span| {
                let entries = parse_trace_state(arena.bytes(span.trace_state)).unwrap_or_default();
                let found = entries.iter().find(|(known, _)| *known == &key[..]);
                found.is_some_and(|(_, value)| values.iter().any(|wanted| wanted.as_bytes() == *value))
            })),
            Policy::TraceFlags => Vote::of(any_span(seen.data, |_, span| span.flags & 1 != 0)),
            Policy::And(policies) => Vote::of(all_sample(policies, seen)?),
            Policy::Not(policy) => match policy.vote(seen)? {
                Vote::Sampled => Vote::NotSampled,
                Vote::NotSampled => Vote::Sampled,
                Vote::Dropped => Vote::Dropped,
            },
            Policy::Drop(policies) => match all_sample(policies, seen)? {
                true => Vote::Dropped,
                false => Vote::NotSampled,
            },
            Policy::Composite(shares) => Vote::of(shares.sample(seen)?),
        })
    }
}

fn all_sample(policies: &mut [Policy], seen: &mut Seen<'_>) -> Result<bool, EvalError> {
    for policy in policies {
        if policy.vote(seen)? != Vote::Sampled {
            return Ok(false);
        }
    }
    Ok(true)
}

fn any_span(data: &Data<Span>, mut is_met: impl FnMut(&Arena, &Span) -> bool) -> bool {
    data.scopes().flat_map(|(_, of)| &of.records).any(|span| is_met(&data.arena, span))
}

/// Whether a resource or span has the attribute with a value that matches.
fn any_attribute(data: &Data<Span>, key: &[u8], mut matches: impl FnMut(&Arena, Value, bool) -> bool) -> bool {
    let arena = &data.arena;
    let mut matching = |map: Map, of_span| arena.get(map, key).is_some_and(|value| matches(arena, value, of_span));
    data.resources.iter().any(|of| {
        matching(of.resource.attributes, false)
            || of.scopes.iter().flat_map(|of| &of.records).any(|span| matching(span.attributes, true))
    })
}

impl Latency {
    /// Whether the time that passes is as long as it has to be: after each of the spans it is looked at anew.
    fn is_met(&self, data: &Data<Span>) -> bool {
        let (mut first, mut last) = (0, 0);
        any_span(data, |_, span| {
            if first == 0 || span.start_time_ns < first {
                first = span.start_time_ns;
            }
            if last == 0 || span.end_time_ns > last {
                last = span.end_time_ns;
            }
            let took_ms = (last as i64).saturating_sub(first as i64) / 1_000_000;
            took_ms > self.threshold_ms && (self.upper_threshold_ms == 0 || took_ms <= self.upper_threshold_ms)
        })
    }
}

/// Which values of an attribute match. What is of another type counts as 0, `false` and the empty text, as it does for the
/// collector.
#[derive(Debug)]
pub(super) enum Matcher {
    Number(std::ops::RangeInclusive<i64>),
    Bool(bool),
    Text(Vec<String>),
    Pattern {
        patterns: Vec<GoRegex>,
        /// Which texts matched lately.
        known: Recent<bool>,
        known_max: usize,
        hasher: Hasher,
        lossy: Lossy,
    },
}

impl Matcher {
    fn matches(&mut self, arena: &Arena, value: Value, of_span: bool) -> bool {
        match self {
            Matcher::Number(range) => range.contains(&if let Value::Int(value) = value { value } else { 0 }),
            Matcher::Bool(wanted) => matches!(value, Value::Bool(true)) == *wanted,
            Matcher::Text(texts) => {
                let text = text(arena, value);
                texts.iter().any(|wanted| wanted.as_bytes() == text)
            }
            Matcher::Pattern { patterns, known, known_max, hasher, lossy } => {
                let text = text(arena, value);
                if text.is_empty() && of_span {
                    return false;
                }
                hasher.clear();
                hasher.text(text);
                let hash = hasher.finish();
                if let Some(matches) = known.get(hash) {
                    return *matches;
                }
                let matches = patterns.iter().any(|pattern| pattern.is_match_bytes(text, lossy));
                known.insert(hash, matches, *known_max);
                matches
            }
        }
    }
}

fn text(arena: &Arena, value: Value) -> &[u8] {
    if let Value::Str(text) = value { arena.bytes(text) } else { b"" }
}

/// Lets so much through, as time passes.
#[derive(Debug)]
pub(super) struct Bucket {
    per_second: f64,
    max: i64,
    left: f64,
    at: Option<Instant>,
}

impl Bucket {
    fn new(per_second: i64, burst: i64) -> Self {
        let max = if burst > 0 { burst } else { per_second.saturating_mul(2) };
        Bucket { per_second: per_second.max(0) as f64, max, left: max as f64, at: None }
    }

    fn takes(&mut self, count: u64, now: Instant) -> bool {
        let passed = self.at.map_or(0.0, |at| now.duration_since(at).as_secs_f64());
        let left = (self.left + passed * self.per_second).min(self.max as f64) - count as f64;
        let takes = left >= 0.0;
        if takes {
            (self.left, self.at) = (left, Some(now));
        }
        takes
    }
}

/// Policies that share a number of spans a second.
#[derive(Debug, Default)]
pub(super) struct Shares {
    shares: Vec<Share>,
    /// When the second began that spans are counted in.
    second: Option<Instant>,
}

#[derive(Debug)]
struct Share {
    policy: Policy,
    spans_max: i64,
    spans: i64,
}

impl Shares {
    fn sample(&mut self, seen: &mut Seen<'_>) -> Result<bool, EvalError> {
        let passed = self.second.map(|second| seen.now.duration_since(second).as_secs());
        if passed != Some(0) {
            self.second = Some(seen.now);
            self.shares.iter_mut().for_each(|share| share.spans = 0);
        }
        for share in &mut self.shares {
            if share.policy.vote(seen)? != Vote::Sampled {
                continue;
            }
            let spans = share.spans.saturating_add(i64::try_from(seen.spans).unwrap_or(i64::MAX));
            let room = spans <= share.spans_max;
            if room {
                share.spans = spans;
            }
            return Ok(room);
        }
        Ok(false)
    }
}

const FNV_OFFSET: u64 = 0xcbf2_9ce4_8422_2325;
const FNV_PRIME: u64 = 0x0000_0100_0000_01b3;

/// FNV-1a of 64 bits, going on from a hash.
fn fnv(hash: u64, bytes: &[u8]) -> u64 {
    bytes.iter().fold(hash, |hash, byte| (hash ^ u64::from(*byte)).wrapping_mul(FNV_PRIME))
}

/// The part of all hashes that a ratio is: the product with the largest one, rounded to 64 bits and then cut off.
fn threshold(ratio: f64) -> u64 {
    if ratio.is_nan() || ratio <= 0.0 {
        return 0;
    }
    if ratio >= 1.0 {
        return u64::MAX;
    }
    let bits = ratio.to_bits();
    let (exponent, fraction) = ((bits >> 52) as i32, bits & ((1 << 52) - 1));
    // The ratio is `digits * 2^-below`.
    let (digits, mut below) = if exponent == 0 { (fraction, 1074) } else { (fraction | 1 << 52, 1075 - exponent) };
    let mut product = u128::from(digits) * u128::from(u64::MAX);
    let excess = (128 - product.leading_zeros()).saturating_sub(64);
    if excess > 0 {
        let (rest, half) = (product & ((1 << excess) - 1), 1 << (excess - 1));
        product >>= excess;
        product += u128::from(rest > half || (rest == half && product & 1 == 1));
        below -= excess as i32;
    }
    match u32::try_from(below) {
        Ok(below) => product.checked_shr(below).unwrap_or(0) as u64,
        // No ratio below 1 gets here.
        Err(_) => u64::MAX,
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use corten_config::decode::{DecodeContext, decode};
    use corten_config::schema::Stability;
    use corten_syntax::{Stmt, parse};
    use corten_testkit::{host, otlp};

    use super::*;

    #[test]
    fn thresholds_are_those_of_the_collector() {
        for (percentage, expected) in [
            (0.0, 0),
            (-1.0, 0),
            (0.0001, 18_446_744_073_709),
            (0.1, 18_446_744_073_709_551),
            (1.0, 184_467_440_737_095_519),
            (3.3, 608_742_554_432_415_231),
            (10.0, 1_844_674_407_370_955_263),
            (25.0, 4_611_686_018_427_387_903),
            (33.333, 6_148_853_202_089_604_095),
            (50.0, 9_223_372_036_854_775_807),
            (66.6, 12_285_531_553_090_559_999),
            (75.0, 13_835_058_055_282_163_711),
            (90.0, 16_602_069_666_338_596_863),
            (99.9, 18_428_297_329_635_844_095),
            (99.999_999_9, 18_446_744_055_262_808_063),
            (99.999_999_999_999_99, 18_446_744_073_709_549_567),
            (100.0, u64::MAX),
            (150.0, u64::MAX),
            (1e-300, 0),
            (1e-18, 0),
        ] {
            assert_eq!(threshold(percentage / 100.0), expected, "{percentage}");
        }
    }

    #[test]
    fn hashes_are_those_of_the_collector() {
        for (salt, number, expected) in [
            ("default-hash-seed", 0, 16_255_020_402_063_706_981),
            ("default-hash-seed", 1, 10_563_168_903_149_119_879),
            ("default-hash-seed", 2, 9_192_036_500_787_996_541),
            ("salt", 0, 7_359_444_889_901_319_017),
            ("salt", 2, 297_023_938_579_252_609),
        ] {
            let mut id = [0; 16];
            (id[0], id[15]) = (number, 200 + number);
            assert_eq!(fnv(fnv(FNV_OFFSET, salt.as_bytes()), &id), expected, "{salt} {number}");
        }
    }

    fn decoded(body: &str) -> Result<PolicyArguments, String> {
        let parsed = parse("test", &format!("policy {{\nname = \"p\"\n{body}\n}}"));
        assert!(parsed.diagnostics.is_empty(), "{}", parsed.diagnostics);
        let [Stmt::Block(block)] = &*parsed.file.body else { panic!("one block") };
        let cx = DecodeContext { scope: &(), minimum: Stability::GenerallyAvailable };
        decode::<PolicyArguments>(block, &cx).map(|decoded| decoded.value).map_err(|errors| errors.to_string())
    }

    fn policy(body: &str) -> Policy {
        let world = host("otelcol.processor.tail_sampling.a");
        let arguments = decoded(body).unwrap_or_else(|error| panic!("{body}: {error}"));
        arguments.policy(world.context::<super::super::TailSamplingProcessor>().logger()).unwrap()
    }

    const TRACE: &str = r#"{"resourceSpans":[
        {"resource":{"attributes":[{"key":"service","value":{"stringValue":"shop"}},{"key":"n","value":{"intValue":"7"}}]},
         "scopeSpans":[{"spans":[
            {"name":"a","startTimeUnixNano":"1000000000","endTimeUnixNano":"1100000000","traceState":"k=v,l=w","flags":1,
             "attributes":[{"key":"ok","value":{"boolValue":true}},{"key":"code","value":{"intValue":"500"}}],"status":{"code":1}},
            {"name":"b","startTimeUnixNano":"1050000000","endTimeUnixNano":"1300000000","status":{"code":2},
             "events":[{"name":"exception"}],"attributes":[{"key":"path","value":{"stringValue":"/health"}}]}]}]},
        {"resource":{},"scopeSpans":[{"spans":[{"name":"c","startTimeUnixNano":"1100000000","endTimeUnixNano":"1200000000","traceState":"bad state"}]}]}]}"#;

    /// What a policy says of the trace.
    fn votes(policy: &mut Policy, now: Instant) -> Result<Vote, String> {
        let mut data = otlp::<Span>(TRACE).take_data().remove(0);
        let id = std::array::from_fn(|at| if at == 15 { 200 } else { 0 });
        policy.vote(&mut Seen { id, data: &mut data, spans: 3, bytes: 1000, now }).map_err(|error| error.to_string())
    }

    fn sampled(body: &str) -> bool {
        votes(&mut policy(body), Instant::now()) == Ok(Vote::Sampled)
    }

    #[test]
    fn each_type_of_policy_decides_by_what_it_is_about() {
        let attribute =
            |kind: &str, key: &str, rest: &str| format!("type = \"{kind}\"\n{kind} {{\nkey = \"{key}\"\n{rest}\n}}");
        let number = |key, rest: &str| attribute("numeric_attribute", key, rest);
        let text = |key, rest: &str| attribute("string_attribute", key, rest);
        let truth = |key, rest: &str| attribute("boolean_attribute", key, rest);
        for (body, expected) in [
            ("type = \"always_sample\"".to_owned(), true),
            // The trace takes 300 ms.
            ("type = \"latency\"\nlatency { threshold_ms = 299 }".into(), true),
            ("type = \"latency\"\nlatency { threshold_ms = 300 }".into(), false),
            ("type = \"latency\"\nlatency {\nthreshold_ms = 200\nupper_threshold_ms = 300\n}".into(), true),
            ("type = \"latency\"\nlatency {\nthreshold_ms = 200\nupper_threshold_ms = 250\n}".into(), false),
            // After the first span it has taken 100 ms.
            ("type = \"latency\"\nlatency {\nthreshold_ms = 50\nupper_threshold_ms = 200\n}".into(), true),
            (number("n", "min_value = 7\nmax_value = 7"), true),
            (number("code", "min_value = 400\nmax_value = 0"), true),
            (number("code", "min_value = 501\nmax_value = 0"), false),
            (number("code", "min_value = 0\nmax_value = 499"), false),
            (number("code", "min_value = 500\nmax_value = 599\ninvert_match = true"), false),
            (number("none", "min_value = 500\nmax_value = 599\ninvert_match = true"), true),
            // What is no whole number counts as 0.
            (number("path", "min_value = -1\nmax_value = 1"), true),
            ("type = \"probabilistic\"\nprobabilistic { sampling_percentage = 100 }".into(), true),
            ("type = \"probabilistic\"\nprobabilistic { sampling_percentage = 50 }".into(), false),
            ("type = \"probabilistic\"\nprobabilistic {\nsampling_percentage = 50\nhash_salt = \"salt\"\n}".into(), true),
            ("type = \"probabilistic\"".into(), false),
            ("type = \"status_code\"\nstatus_code { status_codes = [\"ERROR\"] }".into(), true),
            ("type = \"status_code\"\nstatus_code { status_codes = [\"OK\", \"UNSET\"] }".into(), true),
            (text("service", "values = [\"x\", \"shop\"]"), true),
            (text("service", "values = [\"sho\", \"\"]"), false),
            (text("path", "values = [\"^/h\"]\nenabled_regex_matching = true\ncache_max_size = 1"), true),
            (text("path", "values = [\"h$\"]\nenabled_regex_matching = true\ninvert_match = true"), false),
            // A resource's attribute that is no text counts as an empty one.
            (text("n", "values = [\"^$\"]\nenabled_regex_matching = true"), true),
            (text("code", "values = [\"^$\"]\nenabled_regex_matching = true"), false),
            (text("none", "values = [\"a\"]\ninvert_match = true"), true),
            ("type = \"span_count\"\nspan_count { min_spans = 3 }".into(), true),
            ("type = \"span_count\"\nspan_count { min_spans = 4 }".into(), false),
            ("type = \"span_count\"\nspan_count {\nmin_spans = 1\nmax_spans = 2\n}".into(), false),
            (truth("ok", "value = true"), true),
            (truth("ok", "value = false"), false),
            (truth("path", "value = false"), true),
            (truth("ok", "value = true\ninvert_match = true"), false),
            (truth("none", "value = true\ninvert_match = true"), true),
            ("type = \"trace_state\"\ntrace_state {\nkey = \"l\"\nvalues = [\"v\", \"w\"]\n}".into(), true),
            ("type = \"trace_state\"\ntrace_state {\nkey = \"k\"\nvalues = [\"w\"]\n}".into(), false),
            ("type = \"trace_flags\"".into(), true),
            (
                "type = \"ottl_condition\"\nottl_condition {\nerror_mode = \"ignore\"\nspan = [`name == \"z\"`, `span.name == \"c\"`]\n}".into(),
                true,
            ),
            (
                "type = \"ottl_condition\"\nottl_condition {\nerror_mode = \"ignore\"\nspanevent = [`name == \"exception\"`]\n}".into(),
                true,
            ),
            (
                "type = \"ottl_condition\"\nottl_condition {\nerror_mode = \"silent\"\nspan = [`Int(name) / 0 == 1`]\n}".into(),
                false,
            ),
        ] {
            assert_eq!(sampled(&body), expected, "{body}");
        }
    }

    #[test]
    fn a_condition_that_fails_is_an_error_if_that_is_wanted() {
        let body = "type = \"ottl_condition\"\nottl_condition {\nerror_mode = \"propagate\"\nspan = [`Int(\"1\") / 0 == 1`]\n}";
        let error = votes(&mut policy(body), Instant::now()).unwrap_err();
        assert_eq!(error, "failed to eval condition: Int(\"1\") / 0 == 1, attempted to divide by 0");
    }

    #[test]
    fn policies_are_made_of_others() {
        let yes = |block| format!("{block} {{\nname = \"yes\"\ntype = \"always_sample\"\n}}");
        let no = |block| format!("{block} {{\nname = \"no\"\ntype = \"probabilistic\"\n}}");
        for (body, expected) in [
            (
                format!("type = \"and\"\nand {{\n{}\n{}\n}}", yes("and_sub_policy"), yes("and_sub_policy")),
                Vote::Sampled,
            ),
            (
                format!("type = \"and\"\nand {{\n{}\n{}\n}}", yes("and_sub_policy"), no("and_sub_policy")),
                Vote::NotSampled,
            ),
            (format!("type = \"not\"\nnot {{\n{}\n}}", yes("not_sub_policy")), Vote::NotSampled),
            (format!("type = \"not\"\nnot {{\n{}\n}}", no("not_sub_policy")), Vote::Sampled),
            (format!("type = \"drop\"\ndrop {{\n{}\n}}", yes("drop_sub_policy")), Vote::Dropped),
            (
                format!("type = \"drop\"\ndrop {{\n{}\n{}\n}}", yes("drop_sub_policy"), no("drop_sub_policy")),
                Vote::NotSampled,
            ),
        ] {
            assert_eq!(votes(&mut policy(&body), Instant::now()), Ok(expected), "{body}");
        }
    }

    #[test]
    fn composite_policies_share_the_spans_of_a_second() {
        let composite = |first: &str| {
            format!(
                r#"type = "composite"
                composite {{
                    max_total_spans_per_second = 20
                    policy_order = ["b", "a"]
                    composite_sub_policy {{ name = "first"
                        type = "{first}" }}
                    composite_sub_policy {{ name = "a"
                        type = "and"
                        and {{ and_sub_policy {{ name = "x"
                            type = "always_sample" }} }} }}
                    composite_sub_policy {{ name = "b"
                        type = "always_sample" }}
                    rate_allocation {{ policy = "a"
                        percent = 40 }}
                    rate_allocation {{ policy = "b"
                        percent = 0 }}
                }}"#
            )
        };
        let begin = Instant::now();
        let at = |ms| begin + Duration::from_millis(ms);
        // The first policy that samples the trace decides, and it may not sample anything.
        assert_eq!(votes(&mut policy(&composite("always_sample")), begin), Ok(Vote::NotSampled));
        let mut shares = policy(&composite("probabilistic"));
        // 40 % of 20 spans are two traces of 3.
        let found: Vec<_> = [0, 1, 2, 999, 1000, 1001].map(|ms| votes(&mut shares, at(ms)).unwrap()).into();
        use Vote::{NotSampled as No, Sampled as Yes};
        assert_eq!(found, [Yes, Yes, No, No, Yes, Yes]);
    }

    #[test]
    fn limits_let_so_much_through_as_time_passes() {
        let begin = Instant::now();
        let at = |ms| begin + Duration::from_millis(ms);
        // Traces of 3 spans and 1000 bytes.
        let mut spans = policy("type = \"rate_limiting\"\nrate_limiting { spans_per_second = 3 }");
        let found: Vec<_> =
            [0, 0, 0, 999, 1001, 1002, 60_000, 60_000, 60_000].map(|ms| votes(&mut spans, at(ms)).unwrap()).into();
        use Vote::{NotSampled as No, Sampled as Yes};
        assert_eq!(found, [Yes, Yes, No, No, Yes, No, Yes, Yes, No]);
        for (burst, expected) in [("", Yes), ("burst_capacity = 999", No)] {
            let mut bytes =
                policy(&format!("type = \"bytes_limiting\"\nbytes_limiting {{\nbytes_per_second = 500\n{burst}\n}}"));
            assert_eq!(votes(&mut bytes, begin), Ok(expected));
        }
    }

    #[test]
    fn mistakes_are_refused() {
        let failed = "failed to create policy evaluator for \"p\": ";
        for (body, expected) in [
            ("type = \"latenci\"", "test:3:1: FAILED unknown sampling policy type latenci"),
            ("type = \"status_code\"", "expected at least one status code to filter on"),
            (
                "type = \"status_code\"\nstatus_code { status_codes = [\"error\"] }",
                "test:4:1: FAILED unknown status code \"error\", supported: OK, ERROR, UNSET",
            ),
            ("type = \"numeric_attribute\"", "FAILED At least one of minValue or maxValue must be set"),
            (
                "type = \"string_attribute\"\nstring_attribute {\nkey = \"a\"\nvalues = [\"(\"]\nenabled_regex_matching = true\n}",
                "FAILED invalid regex `(`",
            ),
            ("type = \"ottl_condition\"", "FAILED expected at least one OTTL condition to filter on"),
            (
                "type = \"ottl_condition\"\nottl_condition {\nerror_mode = \"ignore\"\nspan = [`true`, `nope == 1`]\n}",
                "test:6:18: column 1 of `nope == 1`",
            ),
            (
                "type = \"and\"\nand {\nand_sub_policy {\nname = \"q\"\ntype = \"not\"\n}\n}",
                "test:7:1: failed to create policy evaluator for \"q\": unknown sampling policy type not",
            ),
            ("type = \"not\"", "FAILED unknown sampling policy type "),
        ] {
            let error = decoded(body).unwrap_err();
            assert!(error.contains(&expected.replace("FAILED ", failed)), "{body}: {error}");
        }
        // Settings of another type do not count.
        assert!(decoded("type = \"always_sample\"\nstatus_code { status_codes = [\"error\"] }").is_ok());
    }
}
