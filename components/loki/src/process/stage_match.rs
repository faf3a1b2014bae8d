//! `stage.match`.

use corten_config::Arguments;
use corten_config::arguments::CheckErrors;
use corten_config::schema::Stability;

use super::selector::{Selector, SelectorError};
use super::stage::{Build, Compile, Emit, Next, Reason, Stage, StageError, Work, check};
use super::stages::StageConfig;

/// Lets entries pass further stages, or drops them, if a selector matches.
///
/// Before the first of its stages, the labels are extracted again.
#[derive(Arguments, Clone, Debug, PartialEq)]
pub struct MatchStage {
    /// Label matchers, and perhaps filters for the line: `{app="web"} |= "error" !~ "debug.*"`.
    selector: String,
    /// Stages for the entries that match.
    #[block(group = "stage")]
    stages: Vec<StageConfig>,
    /// What becomes of the entries that match: `keep` or `drop`.
    #[arg(default = "keep")]
    action: String,
    /// Without effect.
    #[arg(default = "")]
    pipeline_name: String,
    /// Value of the label `reason` with which dropped entries are counted.
    #[arg(default = "match_stage")]
    drop_counter_reason: String,
}

impl MatchStage {
    fn check_build(&self, _: Stability) -> Result<(), CheckErrors> {
        check(self)
    }

    /// The stages for entries that match.
    pub(super) fn stages(&self) -> &[StageConfig] {
        &self.stages
    }
}

impl Build for MatchStage {
    fn build(&self, cx: &mut Compile<'_>) -> Result<Box<dyn Stage>, StageError> {
        if self.selector.is_empty() {
            return Err(StageError::at("selector", "selector statement required for match stage"));
        }
        let keeps = match self.action.as_str() {
            "keep" | "" => true,
            "drop" => false,
            _ => return Err(StageError::at("action", "match stage action should be 'keep' or 'drop'")),
        };
        if keeps && self.stages.is_empty() {
            let text = "match stage requires at least one additional stage to be defined in '- stages'";
            return Err(StageError::of(&["action", "stage"], text));
        }
        if !keeps && !self.stages.is_empty() {
            let text = "match stage configured to drop entries cannot contains stages";
            return Err(StageError::of(&["action", "stage"], text));
        }
        let selector = Selector::new(&self.selector)
            .map_err(|error: SelectorError| StageError::at("selector", error.to_string()))?;
        if keeps {
            return Ok(Box::new(Match { selector, reason: None }));
        }
        let reason = if self.drop_counter_reason.is_empty() { "match_stage" } else { &self.drop_counter_reason };
        Ok(Box::new(Match { selector, reason: Some(cx.reason(reason)) }))
    }
}

struct Match {
    selector: Selector,
    /// With which entries are dropped that match; nothing where they pass the stages within.
    reason: Option<Reason>,
}

impl Stage for Match {
    fn run(&self, work: &mut Work, _: &mut Emit) -> Next {
        let matches = self.selector.matches_labels(|name| work.label(name))
            && (!self.selector.has_filters()
                || work.read(work.line(), |line, tools| self.selector.matches_line(line, tools.lossy)));
        match (matches, self.reason) {
            (true, None) | (false, Some(_)) => Next::Keep,
            (true, Some(reason)) => Next::Drop(reason),
            (false, None) => Next::Skip,
        }
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;
    use serde_json::json;

    use super::super::testing::run;

    #[test]
    fn entries_become_what_the_reference_makes_of_them() {
        assert!(super::super::testing::recorded("match") >= 83);
    }

    /// Stages that keep, drop, hold, join or multiply entries; whether they join some.
    const STAGES: [(&str, bool); 14] = [
        (r##"stage.drop { expression = "#[0-9]*3#" }"##, false),
        (
            r#"stage.limit { rate = 0.001
burst = 3
drop = true }"#,
            false,
        ),
        (
            r#"stage.limit { rate = 10
burst = 2 }"#,
            false,
        ),
        (
            r#"stage.limit { rate = 0.001
burst = 2
drop = true
by_label_name = "app" }"#,
            false,
        ),
        (r#"stage.sampling { rate = 0.7 }"#, false),
        (r#"stage.multiline { firstline = "S" }"#, true),
        (
            r#"stage.multiline { firstline = "S"
max_lines = 2
max_wait_time = "1s" }"#,
            true,
        ),
        (r#"stage.cri { }"#, true),
        (r#"stage.cri { max_partial_lines = 1 }"#, true),
        (r#"stage.split_json { }"#, false),
        (r#"stage.pack { labels = ["app"] }"#, false),
        (r#"stage.label_drop { values = ["app"] }"#, false),
        (
            r#"stage.match { selector = "{app=~\".+\"} |= \"5\"" 
action = "drop" }"#,
            false,
        ),
        (r#"stage.decolorize { }"#, false),
    ];

    fn pipeline() -> impl Strategy<Value = (String, bool)> {
        let stages = proptest::collection::vec((0..STAGES.len(), any::<bool>()), 1..6);
        stages.prop_map(|stages| {
            let mut config = String::new();
            for (at, within) in &stages {
                let (stage, _) = STAGES[*at];
                config += &if *within {
                    format!("stage.match {{\nselector = \"{{app=~\\\"a|\\\"}}\"\n{stage}\n}}\n")
                } else {
                    format!("{stage}\n")
                };
            }
            (config, stages.iter().any(|(at, _)| STAGES[*at].1))
        })
    }

    proptest! {
        #![proptest_config(ProptestConfig::with_cases(128))]

        /// Every entry comes out once, or is counted as dropped; nothing is held, and all sources hear of their
        /// entries.
        #[test]
        fn nothing_is_lost_or_doubled_without_being_counted(
            (config, joins) in pipeline(),
            kinds in proptest::collection::vec((0..6usize, "[ab]", 0..2000u64), 0..30),
        ) {
            let entries: Vec<_> = kinds
                .iter()
                .enumerate()
                .map(|(at, (kind, app, after_ms))| {
                    let line = [
                        format!("S #{at}#"),
                        format!("#{at}#"),
                        format!("t stdout P #{at}#"),
                        format!("t stdout F #{at}#"),
                        format!("[\"#{at}a#\", \"#{at}b#\"]"),
                        format!("\u{1b}[31m#{at}#\n"),
                    ];
                    json!({ "line": line[*kind], "labels": { "app": app }, "after_ms": after_ms })
                })
                .collect();
            let ran = run(&config, &entries).unwrap();
            let out = ran.lines().join(" ");
            let dropped: usize = ran
                .metrics
                .iter()
                .filter(|(name, _)| name.starts_with("loki_process_dropped_lines_total"))
                .map(|(_, value)| value.parse::<usize>().unwrap())
                .sum();
            let mut missing = 0;
            for (at, (kind, ..)) in kinds.iter().enumerate() {
                let tokens = if *kind == 4 { vec![format!("#{at}a#"), format!("#{at}b#")] } else { vec![format!("#{at}#")] };
                for token in tokens {
                    let count = out.matches(&token).count();
                    prop_assert!(count <= 1, "{} stands {} times in {}\n{}", token, count, out, config);
                    missing += 1 - count;
                }
            }
            prop_assert!(missing >= dropped, "{} {} {}\n{}", missing, dropped, out, config);
            prop_assert!(dropped > 0 || missing == 0, "{} are missing in {}\n{}", missing, out, config);
            if !joins && !kinds.iter().any(|(kind, ..)| *kind == 4) {
                prop_assert_eq!(missing, dropped, "{}\n{}", out, config);
            }
        }
    }

    /// One of each stage that reads what entries hold.
    const READERS: &str = r#"
        stage.json { expressions = { message = "", n = "" } }
        stage.cri { max_partial_line_size = 9
        max_partial_line_size_truncate = true }
        stage.docker { }
        stage.decolorize { }
        stage.eventlogmessage { source = "content" }
        stage.windowsevent { source = "content" }
        stage.luhn { min_length = 2
        delimiters = " é"
        skip_regex = "1+" }
        stage.luhn { source = "content" }
        stage.metrics {
            metric.counter { name = "c"
            action = "add"
            source = "n" }
            metric.gauge { name = "g"
            action = "sub"
            source = "content" }
            metric.histogram { name = "h"
            source = "n"
            buckets = [] }
        }
        stage.truncate {
            rule { limit = "7B"
            suffix = "é" }
            rule { limit = "3B"
            source_type = "label" }
            rule { limit = "3B"
            source_type = "structured_metadata"
            suffix = "x" }
            rule { limit = "3B"
            source_type = "extracted" }
        }
        stage.drop { source = "app,content"
        expression = "never" }
        stage.tenant { source = "content" }
        stage.structured_metadata { values = { app = "", other = "content" }
        regex = "^.$" }
        stage.structured_metadata_drop { values = ["n"] }
        stage.match { selector = "{app=~\".*\"} !~ \"never\""
        stage.label_keep { values = ["app", "stream"] } }
        stage.multiline { firstline = "^." }
        stage.pack { labels = ["app", "content", "n"] }
        stage.split_json { }
    "#;

    fn base64(bytes: &[u8]) -> String {
        const DIGITS: &[u8; 64] = b"ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789+/";
        let mut out = String::new();
        for chunk in bytes.chunks(3) {
            let bits = chunk.iter().fold(0u32, |bits, byte| bits << 8 | u32::from(*byte)) << (8 * (3 - chunk.len()));
            out.extend((0..=chunk.len()).map(|at| char::from(DIGITS[(bits >> (18 - 6 * at)) as usize & 63])));
        }
        out
    }

    fn line() -> impl Strategy<Value = Vec<u8>> {
        let part = prop_oneof![
            proptest::collection::vec(any::<u8>(), 0..6),
            Just(b"t stdout P ".to_vec()),
            Just(b"t stderr F ".to_vec()),
            Just(b"{\"log\":\"".to_vec()),
            Just(b"\\u00e9\\ud800\"}".to_vec()),
            Just(b"{\"message\":\"a:1\\r\\n\\r\\nb:\\r\\nc:2\",\"n\":-5}".to_vec()),
            Just("\u{1b}[31;1m\u{9b}0".as_bytes().to_vec()),
            Just(b"a: b\r\n\r\nc:\r\n".to_vec()),
            Just(b"4111111111111111 11 ".to_vec()),
            Just("é".as_bytes().to_vec()),
        ];
        proptest::collection::vec(part, 0..5).prop_map(|parts| parts.concat())
    }

    proptest! {
        #[test]
        fn no_entry_makes_a_stage_panic(
            entries in proptest::collection::vec((line(), "\\PC{0,5}", "[ant]|\\PC{0,3}", line()), 0..8),
        ) {
            let entries: Vec<_> = entries
                .iter()
                .map(|(line, app, name, value)| {
                    let metadata = json!([[name, { "b64": base64(value) }]]);
                    json!({ "line": { "b64": base64(line) }, "labels": { "app": app, "x": name }, "metadata": metadata })
                })
                .collect();
            prop_assert!(run(READERS, &entries).is_ok());
        }
    }
}
