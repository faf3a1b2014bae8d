//! The `logging` block.

mod tap;

use std::sync::Arc;

use corten_component::log::{Format, Level};
use corten_component::{Component, Context, Error, Task};
use corten_config::{Arguments, StringEnum};
use corten_signal::{Logs, Receiver};
use corten_syntax::quote;

/// Configures the program's own log, which goes to standard error. Without the block its defaults apply.
///
/// Lines that are written before the block was evaluated are kept and filtered by its level; its format applies from the
/// first line on.
#[derive(Arguments, Clone, Debug, PartialEq)]
pub struct Config {
    /// The level below which lines are left out.
    #[arg(default = "info")]
    level: LevelName,
    /// How lines are written.
    #[arg(default = "logfmt")]
    format: FormatName,
    /// Where lines go.
    #[arg(default = "stderr")]
    destination: Destination,
    /// Components that get each line as well, as an entry with the label `component="alloy"`.
    ///
    /// Nothing waits for them: lines that they do not take in time are dropped and counted. So that no line brings forth
    /// others without end, what components do because of such lines is not sent to them again, and of other lines of
    /// components that only logs lead to (`loki.write`, `loki.process` and others) one a second of each kind is.
    #[arg(default = [])]
    write_to: Vec<Receiver<Logs>>,
}

/// How much a line matters. An empty text stands for the default.
#[derive(StringEnum, Clone, Copy, Debug, PartialEq, Eq)]
#[string_enum(refusal = unknown_level)]
pub enum LevelName {
    /// The default, `info`.
    #[value(name = "")]
    Default,
    /// Everything.
    Debug,
    /// What happened.
    Info,
    /// What somebody should look at.
    Warn,
    /// What failed.
    Error,
}

/// How lines are written. An empty text stands for the default.
#[derive(StringEnum, Clone, Copy, Debug, PartialEq, Eq)]
#[string_enum(refusal = unknown_format)]
pub enum FormatName {
    /// The default, `logfmt`.
    #[value(name = "")]
    Default,
    /// Pairs of keys and values, `level=info msg="…"`.
    Logfmt,
    /// One JSON object a line.
    Json,
}

/// Where lines go. An empty text stands for the default.
#[derive(StringEnum, Clone, Copy, Debug, PartialEq, Eq)]
#[string_enum(refusal = unknown_destination)]
pub enum Destination {
    /// The default, `stderr`.
    #[value(name = "")]
    Default,
    /// Standard error.
    Stderr,
}

fn unknown_level(text: &str) -> String {
    format!("unrecognized log level {}", quote(text))
}

fn unknown_format(text: &str) -> String {
    format!("unrecognized log format {}", quote(text))
}

fn unknown_destination(text: &str) -> String {
    match text {
        "windows_event_log" => "log destination \"windows_event_log\" is only available on Windows".to_owned(),
        _ => format!("unrecognized log destination {}", quote(text)),
    }
}

/// The block in place.
#[derive(Debug)]
pub struct Logging {
    write_to: Vec<Receiver<Logs>>,
    pump: Option<Task>,
}

impl Component for Logging {
    const NAME: &'static str = "logging";
    type Arguments = Config;
    type Exports = ();
    type Prepared = (Level, Format, Vec<Receiver<Logs>>);

    async fn prepare(arguments: Config, _: &Context<Self>, _: Option<&Self>) -> Result<(Self::Prepared, ()), Error> {
        let level = match arguments.level {
            LevelName::Debug => Level::Debug,
            LevelName::Default | LevelName::Info => Level::Info,
            LevelName::Warn => Level::Warn,
            LevelName::Error => Level::Error,
        };
        let format = match arguments.format {
            FormatName::Default | FormatName::Logfmt => Format::Logfmt,
            FormatName::Json => Format::Json,
        };
        let write_to = arguments.write_to.into_iter().filter(Receiver::leads_somewhere).collect();
        Ok(((level, format, write_to), ()))
    }

    fn commit(current: Option<Self>, (level, format, write_to): Self::Prepared, cx: &Context<Self>) -> Self {
        let sink = cx.logger().sink();
        let kept = current.filter(|current| current.write_to == write_to).and_then(|current| current.pump);
        let pump = match kept {
            Some(pump) => Some(pump),
            None if write_to.is_empty() => {
                sink.tee(None);
                None
            }
            None => {
                let (tap, pump) = tap::start(cx, write_to.clone());
                sink.tee(Some(Arc::new(tap)));
                Some(pump)
            }
        };
        sink.configure(level, format);
        Logging { write_to, pump }
    }

    async fn drain(self, cx: &Context<Self>) {
        let sink = cx.logger().sink();
        // The pump hands on what was written until now, and ends.
        sink.tee(None);
        if let Some(pump) = self.pump {
            pump.stop().await;
        }
        sink.configure(Level::Info, Format::default());
    }
}

#[cfg(test)]
mod tests {
    use corten_component::Definition;
    use corten_config::arguments::Record as _;
    use corten_config::decode::{Decode as _, DecodeContext, decode};
    use corten_config::schema::Stability;
    use corten_signal::{ConsumeError, Kind};
    use corten_syntax::Stmt;
    use corten_testkit::{LogsSink, Unit, host, until};

    use super::*;

    fn decoded(body: &str) -> Result<Config, Vec<String>> {
        let parsed = corten_syntax::parse("t", &format!("logging {{\n{body}\n}}"));
        let Some(Stmt::Block(block)) = parsed.file.body.first() else { panic!("{}", parsed.diagnostics) };
        let cx = DecodeContext { scope: &(), minimum: Stability::GenerallyAvailable };
        let errors =
            |e: corten_config::decode::DecodeErrors| e.into_diagnostics().iter().map(|d| d.message.clone()).collect();
        decode::<Config>(block, &cx).map(|decoded| decoded.value).map_err(errors)
    }

    #[tokio::test(start_paused = true)]
    async fn the_programs_own_lines_go_on_and_those_that_nobody_takes_are_counted() {
        let sink = LogsSink::default();
        let names = [("sink", sink.value())];
        let mut unit =
            Unit::start_with(host("logging"), &Definition::of::<Logging>(), "write_to = [sink]", &names).await.unwrap();
        let logger = unit.world.host().logger.clone();
        logger.info("first", &[]);
        until("the line arrives", || sink.len() == 1).await;
        sink.answer_with(Some(ConsumeError::Refused { reason: "no".to_owned() }));
        logger.info("second", &[]);
        let dropped = || unit.world.metric("corten_logging_dropped_lines_total");
        until("the line is dropped", || dropped() == Some(1.0)).await;
        sink.answer_with(None);
        logger.info("third", &[]);
        unit.drain().await;
        assert_eq!(unit.world.balance_of(Kind::LokiLog), "received 3, out 2, dropped {refused: 1}");
        // Nobody waits for a receiver that takes nothing.
        let inlet = corten_signal::Inlet::<Logs>::new("loki.write.late");
        let names = [("sink", inlet.receiver().to_value())];
        let mut unit =
            Unit::start_with(host("logging"), &Definition::of::<Logging>(), "write_to = [sink]", &names).await.unwrap();
        let logger = unit.world.host().logger.clone();
        (0..3).for_each(|_| logger.info("lost", &[]));
        unit.drain().await;
        assert_eq!(unit.world.balance_of(Kind::LokiLog), "received 3, dropped {not taken: 3}");
    }

    #[test]
    fn the_table_of_the_block_is_in_order() {
        assert_eq!(Config::SCHEMA.defects(), [""; 0]);
    }

    #[test]
    fn what_is_not_written_or_empty_has_its_default() {
        let defaults = Config {
            level: LevelName::Info,
            format: FormatName::Logfmt,
            destination: Destination::Stderr,
            write_to: Vec::new(),
        };
        assert_eq!(decoded("write_to = []"), Ok(defaults.clone()));
        assert_eq!(decoded(""), Ok(defaults));
        let empty = decoded("level = \"\"\nformat = \"\"\ndestination = null").map(|config| config.level);
        assert_eq!(empty, Ok(LevelName::Default));
    }

    #[test]
    fn other_words_are_refused_as_the_reference_refuses_them() {
        let body = "level = \"loud\"\nformat = \"xml\"\ndestination = \"tape\"";
        assert_eq!(
            decoded(body),
            Err(vec![
                "\"loud\" unrecognized log level \"loud\"".to_owned(),
                "\"xml\" unrecognized log format \"xml\"".to_owned(),
                "\"tape\" unrecognized log destination \"tape\"".to_owned(),
            ])
        );
        let windows = decoded("destination = \"windows_event_log\"").unwrap_err();
        assert!(windows[0].ends_with("is only available on Windows"), "{windows:?}");
    }
}
