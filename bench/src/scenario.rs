//! The scenarios, written out.

use std::time::Duration;

use crate::{
    logs::{Load, configure::Parse, lines::Shape},
    otlp::{self, Work, message::Signal},
};

/// Scrape to remote write at a fixed rate.
#[derive(Clone, Copy, Debug, PartialEq)]
pub(crate) struct Pipeline {
    /// Targets.
    pub(crate) targets: usize,
    /// Series of each target.
    pub(crate) series: usize,
    /// How often each target is scraped.
    pub(crate) interval: Duration,
    /// Share of the series that are replaced at each scrape.
    pub(crate) churn: f64,
    /// Whether samples pass five relabel rules, none of which drops one.
    pub(crate) relabel: bool,
}

impl Pipeline {
    /// Samples that are to arrive in a second.
    pub(crate) fn rate(&self) -> f64 {
        (self.targets * self.series) as f64 / self.interval.as_secs_f64()
    }
}

/// What a scenario does.
#[derive(Clone, Copy, Debug, PartialEq)]
pub(crate) enum Kind {
    Pipeline(Pipeline),
    /// Ours beside itself: with a second endpoint that never answers, and without.
    BlackHole(Pipeline),
    /// Ours beside itself, under a simulator that counts instructions: with relabel rules, and without.
    Instructions(Pipeline),
    /// Ours beside itself, under the simulator: with a live view open, and without.
    LiveView(Pipeline),
    /// Files to a push API: a backlog, or steady where lines have a rate.
    Logs(Load),
    /// Ours beside itself, under the simulator: a backlog through the durable queue, and without a disk.
    LogsQueue(Load),
    /// Ours beside itself: with files in which nothing happens, and with an empty configuration.
    LogsRest(Load),
    /// Requests of OTLP.
    Otlp(otlp::Load),
    /// Ours beside itself: with few items in a request, and with many.
    OtlpSmall(otlp::Load),
    /// Ours beside itself, under the simulator: with a live view open, and without.
    OtlpLiveView(otlp::Load),
    /// Nothing to do: the memory of an empty configuration.
    Idle,
    /// From exec to the first 200 of `/-/ready`.
    Start,
}

/// One scenario.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Scenario {
    /// What the user writes.
    pub(crate) name: &'static str,
    /// One line for the report.
    pub(crate) about: &'static str,
    /// What it does.
    pub(crate) kind: Kind,
}

impl Scenario {
    /// How long is measured if the user does not say.
    pub(crate) fn window(&self) -> Duration {
        Duration::from_secs(if matches!(self.kind, Kind::BlackHole(_)) { 600 } else { 30 })
    }

    /// Whether ours is compared with itself rather than with peers.
    pub(crate) fn alone(&self) -> bool {
        matches!(
            self.kind,
            Kind::BlackHole(_)
                | Kind::Instructions(_)
                | Kind::LiveView(_)
                | Kind::LogsQueue(_)
                | Kind::LogsRest(_)
                | Kind::OtlpSmall(_)
                | Kind::OtlpLiveView(_)
        )
    }

    /// The peers if the user does not say.
    pub(crate) fn peers(&self) -> &'static str {
        match self.kind {
            Kind::Logs(_) => "rsyslog",
            Kind::Otlp(_) => "rotel",
            _ if self.alone() => "none",
            _ => "vmagent,prometheus",
        }
    }
}

const S1: Pipeline =
    Pipeline { targets: 100, series: 1000, interval: Duration::from_secs(5), churn: 0.0, relabel: false };

const L1: Load = Load { files: 1, lines: 1_000_000, shape: Shape::Raw, parse: Parse::None, rate: 0 };

const O1: otlp::Load = otlp::Load { signal: Signal::Logs, work: Work::Gzip, items: 1000, rate: 50_000 };

/// All scenarios, by name.
pub(crate) const SCENARIOS: &[Scenario] = &[
    Scenario {
        name: "blackhole",
        about: "s1 with a second endpoint that accepts connections and never answers, its queue at its cap; and without",
        kind: Kind::BlackHole(S1),
    },
    Scenario { name: "idle", about: "empty configuration, memory after 10 s", kind: Kind::Idle },
    Scenario { name: "l1", about: "a backlog of 1,000,000 lines of 133 bytes, no stage", kind: Kind::Logs(L1) },
    Scenario {
        name: "l2",
        about: "a backlog of 1,000,000 objects: stage.json, three labels, a timestamp",
        kind: Kind::Logs(Load { shape: Shape::Json, parse: Parse::Json, ..L1 }),
    },
    Scenario {
        name: "l3",
        about: "a backlog of 1,000,000 lines of nginx: stage.regex of six groups, a label",
        kind: Kind::Logs(Load { shape: Shape::Nginx, parse: Parse::Regex, ..L1 }),
    },
    Scenario {
        name: "l4",
        about: "20,000 lines/s of 133 bytes over 50 files",
        kind: Kind::Logs(Load { files: 50, lines: 0, rate: 20_000, ..L1 }),
    },
    Scenario {
        name: "l5",
        about: "10,000 files in which nothing happens, and an empty configuration",
        kind: Kind::LogsRest(Load { files: 10_000, lines: 10, ..L1 }),
    },
    Scenario {
        name: "l6",
        about: "instructions for a backlog of 200,000 lines, with the durable queue and without a disk",
        kind: Kind::LogsQueue(Load { lines: 200_000, ..L1 }),
    },
    Scenario {
        name: "live-o2",
        about: "instructions for 2,000 log records/s by OTLP, with a live view open and without",
        kind: Kind::OtlpLiveView(otlp::Load { work: Work::Plain, rate: 2_000, ..O1 }),
    },
    Scenario {
        name: "live-s1",
        about: "instructions for 100 targets x 1000 series every 10 s, with a live view open and without",
        kind: Kind::LiveView(Pipeline { interval: Duration::from_secs(10), ..S1 }),
    },
    Scenario { name: "o1", about: "50,000 log records/s by OTLP, sent on with gzip", kind: Kind::Otlp(O1) },
    Scenario { name: "o2", about: "o1 without compression", kind: Kind::Otlp(otlp::Load { work: Work::Plain, ..O1 }) },
    Scenario {
        name: "o3",
        about: "o1 without compression over gRPC",
        kind: Kind::Otlp(otlp::Load { work: Work::Grpc, ..O1 }),
    },
    Scenario {
        name: "o4",
        about: "o2 with an attribute renamed",
        kind: Kind::Otlp(otlp::Load { work: Work::Rename, ..O1 }),
    },
    Scenario {
        name: "o5",
        about: "o2 with a filter of one condition, which drops a tenth",
        kind: Kind::Otlp(otlp::Load { work: Work::Filter, ..O1 }),
    },
    Scenario {
        name: "o6",
        about: "50,000 spans/s counted by four dimensions, beside spans that are sent on",
        kind: Kind::Otlp(otlp::Load { signal: Signal::Traces, work: Work::SpanMetrics, ..O1 }),
    },
    Scenario {
        name: "o7",
        about: "50,000 points/s by OTLP to remote write, beside log records that are sent on",
        kind: Kind::Otlp(otlp::Load { signal: Signal::Metrics, work: Work::RemoteWrite, ..O1 }),
    },
    Scenario { name: "o8", about: "o1 with ten records a request, and with a thousand", kind: Kind::OtlpSmall(O1) },
    Scenario {
        name: "o9",
        about: "o2 with ten records a request, and with a thousand",
        kind: Kind::OtlpSmall(otlp::Load { work: Work::Plain, ..O1 }),
    },
    Scenario {
        name: "relabel",
        about: "instructions for 100 targets x 1000 series every 10 s, with five relabel rules and without",
        // Half the rate of s1: the simulator is some fifty times slower than the processor.
        kind: Kind::Instructions(Pipeline { interval: Duration::from_secs(10), ..S1 }),
    },
    Scenario { name: "s1", about: "100 targets x 1000 series every 5 s", kind: Kind::Pipeline(S1) },
    Scenario {
        name: "s2",
        about: "400 targets x 1000 series every 15 s",
        kind: Kind::Pipeline(Pipeline { targets: 400, interval: Duration::from_secs(15), ..S1 }),
    },
    Scenario {
        name: "s3",
        about: "1 target x 200,000 series every 10 s",
        kind: Kind::Pipeline(Pipeline { targets: 1, series: 200_000, interval: Duration::from_secs(10), ..S1 }),
    },
    Scenario {
        name: "s4",
        about: "2000 targets x 50 series every 5 s",
        kind: Kind::Pipeline(Pipeline { targets: 2000, series: 50, ..S1 }),
    },
    Scenario {
        name: "s5",
        about: "s1 with 5 % of the series replaced at each scrape",
        kind: Kind::Pipeline(Pipeline { churn: 0.05, ..S1 }),
    },
    Scenario {
        name: "s6",
        about: "s1 with five relabel rules: drop (nothing), replace, hashmod, labelmap, labeldrop",
        kind: Kind::Pipeline(Pipeline { relabel: true, ..S1 }),
    },
    Scenario { name: "start", about: "exec to /-/ready, empty configuration", kind: Kind::Start },
];

/// The scenario of that name.
pub(crate) fn find(name: &str) -> Option<&'static Scenario> {
    SCENARIOS.iter().find(|scenario| scenario.name == name)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn scenarios_are_sorted_and_found_by_name() {
        assert!(SCENARIOS.is_sorted_by_key(|scenario| scenario.name));
        assert_eq!(find("s1").map(|scenario| scenario.kind), Some(Kind::Pipeline(S1)));
        assert!(find("s9").is_none());
    }

    #[test]
    fn a_black_hole_is_looked_at_for_ten_minutes() {
        let blackhole = find("blackhole").unwrap();
        assert_eq!((blackhole.window(), blackhole.alone()), (Duration::from_secs(600), true));
        let s1 = find("s1").unwrap();
        assert_eq!((s1.window(), s1.alone()), (Duration::from_secs(30), false));
        assert_eq!(S1.rate(), 20_000.0);
    }
}
