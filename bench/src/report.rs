//! Runs as tables.

use std::{collections::BTreeMap, fmt::Write as _};

use serde::Serialize;

use crate::{
    scenario::Kind,
    stats::{self, Summary},
};

/// One run of one subject.
#[derive(Clone, Debug, Serialize)]
pub(crate) struct Run {
    /// The subject's name.
    pub(crate) subject: String,
    /// The number of the pair, from 1.
    pub(crate) pair: usize,
    /// Figures by the key of their column.
    pub(crate) figures: BTreeMap<&'static str, f64>,
    /// Why the run says nothing, if so.
    pub(crate) void: Option<String>,
}

/// A column of the table.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Column {
    key: &'static str,
    title: &'static str,
    decimals: usize,
    /// Whether less is better and the ratio of two subjects says something.
    ratio: bool,
    /// Whether the figure is a count, whose ratio says something also when it is near one.
    exact: bool,
}

const fn column(key: &'static str, title: &'static str, decimals: usize, ratio: bool) -> Column {
    Column { key, title, decimals, ratio, exact: false }
}

const fn exact(key: &'static str, title: &'static str, decimals: usize) -> Column {
    Column { key, title, decimals, ratio: true, exact: true }
}

const PIPELINE: &[Column] = &[
    column("samples_per_second", "samples/s", 0, false),
    column("cpu_us_per_sample", "µs CPU/sample", 3, true),
    column("cpu_user_share", "user share", 2, false),
    column("rss_mean_mib", "RSS mean MiB", 1, true),
    column("rss_peak_mib", "RSS peak MiB", 1, true),
    column("anonymous_mean_mib", "anon MiB", 1, true),
    column("wire_bytes_per_sample", "B/sample", 1, true),
    column("samples_per_request", "samples/request", 0, false),
    column("delay_p50_ms", "delay p50 ms", 0, false),
    column("delay_p99_ms", "delay p99 ms", 0, false),
    column("written_bytes_per_sample", "disk B/sample", 1, false),
    column("threads", "threads", 0, false),
    column("harness_cores", "harness cores", 2, false),
    column("other_cores", "other cores", 2, false),
];

/// What an endpoint sees of its sibling. The delays are those of thousands of samples, and their ratio is the question.
const BLACK_HOLE: &[Column] = &[
    column("samples_per_second", "samples/s", 0, false),
    exact("delay_p50_ms", "delay p50 ms", 1),
    exact("delay_p99_ms", "delay p99 ms", 1),
    column("cpu_us_per_sample", "µs CPU/sample", 3, true),
    column("rss_peak_mib", "RSS peak MiB", 1, true),
    column("hole_dropped_per_second", "dropped for the hole/s", 0, false),
    column("data_directory_mib", "disk MiB", 1, false),
    column("other_cores", "other cores", 2, false),
];

const INSTRUCTIONS: &[Column] = &[
    column("samples_per_second", "samples/s", 0, false),
    exact("instructions_per_sample", "instructions/sample", 0),
    exact("instructions_per_second", "instructions/s", 0),
    column("shown_per_second", "items seen/s", 1, false),
    column("samples_per_request", "samples/request", 0, false),
    column("other_cores", "other cores", 2, false),
];

const LOGS: &[Column] = &[
    column("lines_per_second", "lines/s", 0, false),
    column("cpu_us_per_line", "µs CPU/line", 3, true),
    column("cpu_user_share", "user share", 2, false),
    column("rss_peak_mib", "RSS peak MiB", 1, true),
    column("wire_bytes_per_line", "B/line", 1, false),
    column("lines_per_request", "lines/request", 0, false),
    column("written_bytes_per_line", "disk B/line", 1, false),
    column("start_cpu_ms", "start ms CPU", 0, false),
    column("threads", "threads", 0, false),
    column("harness_cores", "harness cores", 2, false),
    column("other_cores", "other cores", 2, false),
];

const LOGS_QUEUE: &[Column] = &[
    column("lines_per_second", "lines/s", 0, false),
    exact("instructions_per_line", "instructions/line", 0),
    column("lines_per_request", "lines/request", 0, false),
];

const LOGS_REST: &[Column] = &[
    column("cpu_ms_per_second", "ms CPU/s", 2, false),
    column("rss_mean_mib", "RSS mean MiB", 1, false),
    column("rss_peak_mib", "RSS peak MiB", 1, false),
    column("anonymous_mean_mib", "anon MiB", 1, false),
    column("descriptors", "descriptors", 0, false),
    column("threads", "threads", 0, false),
    column("other_cores", "other cores", 2, false),
];

const OTLP: &[Column] = &[
    column("items_per_second", "items/s", 0, false),
    column("cpu_us_per_item", "µs CPU/item", 3, true),
    column("cpu_user_share", "user share", 2, false),
    column("rss_mean_mib", "RSS mean MiB", 1, true),
    column("rss_peak_mib", "RSS peak MiB", 1, true),
    column("wire_bytes_per_item", "B/item", 1, true),
    column("items_per_request", "items/request", 0, false),
    column("threads", "threads", 0, false),
    column("harness_cores", "harness cores", 2, false),
    column("other_cores", "other cores", 2, false),
];

const OTLP_INSTRUCTIONS: &[Column] = &[
    column("items_per_second", "items/s", 0, false),
    exact("instructions_per_item", "instructions/item", 0),
    exact("instructions_per_second", "instructions/s", 0),
    column("shown_per_second", "items seen/s", 1, false),
    column("items_per_request", "items/request", 0, false),
    column("other_cores", "other cores", 2, false),
];

const IDLE: &[Column] = &[
    column("rss_mean_mib", "RSS MiB", 1, true),
    column("anonymous_mean_mib", "anon MiB", 1, true),
    column("proportional_mib", "PSS MiB", 1, true),
    column("cpu_ms_per_second", "ms CPU/s", 2, false),
    column("threads", "threads", 0, false),
    column("other_cores", "other cores", 2, false),
];

const START: &[Column] = &[
    column("ready_ms", "ready ms", 1, true),
    column("cpu_ms", "ms CPU", 1, true),
    column("other_cores", "other cores", 2, false),
];

/// The columns of a kind of scenario.
pub(crate) fn columns(kind: &Kind) -> &'static [Column] {
    match kind {
        Kind::Pipeline(_) => PIPELINE,
        Kind::BlackHole(_) => BLACK_HOLE,
        Kind::Instructions(_) | Kind::LiveView(_) => INSTRUCTIONS,
        Kind::Logs(_) => LOGS,
        Kind::LogsQueue(_) => LOGS_QUEUE,
        Kind::LogsRest(_) => LOGS_REST,
        Kind::Otlp(_) | Kind::OtlpSmall(_) => OTLP,
        Kind::OtlpLiveView(_) => OTLP_INSTRUCTIONS,
        Kind::Idle => IDLE,
        Kind::Start => START,
    }
}

/// A ratio of less than this, or of more than its reciprocal, is a difference; what lies between is not decided by time.
const DECIDED_RATIO: f64 = 0.8;

/// The summary of a session: medians by subject, and ratios of the first subject to each other.
#[derive(Debug, Serialize)]
pub(crate) struct Totals {
    medians: BTreeMap<String, BTreeMap<&'static str, Summary>>,
    ratios: BTreeMap<String, BTreeMap<&'static str, Summary>>,
}

impl Totals {
    /// Sums up the runs that are not void; the first subject is the one that is compared.
    pub(crate) fn of(subjects: &[String], columns: &[Column], runs: &[Run]) -> Self {
        let valid = |subject: &str, pair: usize, key: &str| -> Option<f64> {
            let run = runs.iter().find(|run| run.subject == subject && run.pair == pair)?;
            if run.void.is_none() { run.figures.get(key).copied() } else { None }
        };
        let pairs: Vec<usize> = {
            let mut pairs: Vec<usize> = runs.iter().map(|run| run.pair).collect();
            pairs.dedup();
            pairs
        };
        let mut totals = Self { medians: BTreeMap::new(), ratios: BTreeMap::new() };
        for (index, subject) in subjects.iter().enumerate() {
            let medians = totals.medians.entry(subject.clone()).or_default();
            for column in columns {
                let values = pairs.iter().filter_map(|&pair| valid(subject, pair, column.key));
                medians.extend(Summary::of(values).map(|summary| (column.key, summary)));
            }
            if index == 0 {
                continue;
            }
            let ratios = totals.ratios.entry(format!("{} / {subject}", subjects[0])).or_default();
            for column in columns.iter().filter(|column| column.ratio) {
                let both =
                    pairs.iter().map(|&pair| (valid(&subjects[0], pair, column.key), valid(subject, pair, column.key)));
                ratios.extend(stats::paired_ratio(both).map(|summary| (column.key, summary)));
            }
        }
        totals
    }

    /// The tables: every run, the medians with their spread, the ratios.
    pub(crate) fn markdown(&self, columns: &[Column], runs: &[Run]) -> String {
        let mut out = String::new();
        table_head(&mut out, "run", columns.iter().map(|column| column.title));
        for run in runs {
            let _ = write!(out, "| {} #{} |", run.subject, run.pair);
            for column in columns {
                match run.figures.get(column.key) {
                    Some(value) => drop(write!(out, " {value:.*} |", column.decimals)),
                    None => out.push_str(" - |"),
                }
            }
            match &run.void {
                Some(why) => drop(writeln!(out, " void: {why} |")),
                None => out.push_str(" |\n"),
            }
        }

        out.push('\n');
        table_head(&mut out, "median (low to high, spread)", columns.iter().map(|column| column.title));
        for (subject, medians) in &self.medians {
            let _ = write!(out, "| {subject} |");
            for column in columns {
                match medians.get(column.key) {
                    Some(summary) => drop(write!(out, " {} |", cell(summary, column.decimals))),
                    None => out.push_str(" - |"),
                }
            }
            let valid = runs.iter().filter(|run| &run.subject == subject && run.void.is_none()).count();
            let _ = writeln!(out, " {valid} valid |");
        }

        if !self.ratios.is_empty() {
            let ratios: Vec<&Column> = columns.iter().filter(|column| column.ratio).collect();
            out.push('\n');
            table_head(
                &mut out,
                "ratio, median of pairs (low to high, spread)",
                ratios.iter().map(|column| column.title),
            );
            for (pair, of) in &self.ratios {
                let _ = write!(out, "| {pair} |");
                for column in &ratios {
                    match of.get(column.key) {
                        Some(ratio) => drop(write!(out, " {} |", ratio_cell(ratio, column.exact))),
                        None => out.push_str(" - |"),
                    }
                }
                let count = of.values().map(|ratio| ratio.count).max().unwrap_or(0);
                let _ = writeln!(out, " of {count} |");
            }
            if ratios.iter().any(|column| !column.exact) {
                out.push_str("\n`~` marks a ratio that is nearer to 1 than 20 %, which times do not decide.\n");
            }
        }
        out
    }
}

fn ratio_cell(ratio: &Summary, exact: bool) -> String {
    if exact {
        return cell(ratio, 3);
    }
    let decided = ratio.median < DECIDED_RATIO || ratio.median > 1.0 / DECIDED_RATIO;
    format!("{}{}", if decided { "" } else { "~" }, cell(ratio, 2))
}

/// Median, range, and the range's width as a share of the median; a single value has neither.
fn cell(summary: &Summary, decimals: usize) -> String {
    let Summary { median, low, high, count } = summary;
    if *count == 1 {
        return format!("{median:.decimals$}");
    }
    format!("{median:.0$} ({low:.0$} to {high:.0$}, {1:.0} %)", decimals, summary.spread() * 100.0)
}

fn table_head<'a>(out: &mut String, first: &'a str, titles: impl Iterator<Item = &'a str>) {
    let titles: Vec<&str> = std::iter::once(first).chain(titles).chain(["note"]).collect();
    let _ = writeln!(out, "| {} |\n|{}", titles.join(" | "), "---|".repeat(titles.len()));
}

#[cfg(test)]
mod tests {
    use super::*;

    fn run(subject: &str, pair: usize, ready_ms: f64, void: bool) -> Run {
        Run {
            subject: subject.to_owned(),
            pair,
            figures: BTreeMap::from([("ready_ms", ready_ms)]),
            void: void.then(|| "lost 1 scrape".to_owned()),
        }
    }

    #[test]
    fn void_runs_are_shown_and_count_for_nothing() {
        let runs =
            [run("a", 1, 1.0, false), run("b", 1, 4.0, false), run("a", 2, 100.0, true), run("b", 2, 6.0, false)];
        let subjects = ["a".to_owned(), "b".to_owned()];
        let totals = Totals::of(&subjects, START, &runs);
        assert_eq!(totals.medians["a"]["ready_ms"].median, 1.0);
        assert_eq!(totals.medians["b"]["ready_ms"].median, 5.0);
        assert_eq!(totals.ratios["a / b"]["ready_ms"].median, 0.25);
        assert_eq!(totals.ratios["a / b"]["ready_ms"].count, 1);
        let text = totals.markdown(START, &runs);
        assert!(text.contains("| a #2 | 100.0 | - | - | void: lost 1 scrape |\n"), "{text}");
        assert!(text.contains("| b | 5.0 (4.0 to 6.0, 40 %) | - | - | 2 valid |\n"), "{text}");
        assert!(text.contains("| a / b | 0.25 | - | of 1 |\n"), "{text}");
        let rows = text.lines().filter(|line| line.starts_with('|'));
        assert!(rows.clone().all(|row| row.ends_with('|')) && rows.count() == 13);
    }

    #[test]
    fn a_ratio_of_times_near_one_is_marked_as_undecided() {
        let cell = |median, exact| ratio_cell(&Summary { median, low: median, high: median, count: 5 }, exact);
        assert!(cell(0.9, false).starts_with('~') && cell(1.2, false).starts_with('~'));
        assert!(!cell(0.79, false).starts_with('~') && !cell(1.3, false).starts_with('~'));
        assert_eq!(cell(1.0449, true), "1.045 (1.045 to 1.045, 0 %)");
    }
}
