//! What a stage of `loki.process` is written against.
//!
//! A stage is one file, `stage_<name>.rs`: its arguments (`#[derive(Arguments)]`, the user's reference), which implement
//! [`Build`], and what they compile to, which implements [`Stage`]. Its variant stands in
//! [`StageConfig`](super::stages::StageConfig). Whatever can be worked out once is worked out in [`Build::build`]: names of
//! the extracted map become [`Slot`]s, texts of the configuration become [`Text`]s, and expressions are compiled.
//!
//! ```ignore
//! impl OutputStage {
//!     fn check_build(&self, _: Stability) -> Result<(), CheckErrors> {
//!         check(self)
//!     }
//! }
//!
//! impl Build for OutputStage {
//!     fn build(&self, cx: &mut Compile<'_>) -> Result<Box<dyn Stage>, StageError> {
//!         if self.source.is_empty() {
//!             return Err(StageError::at("source", "output source value is required if output is specified"));
//!         }
//!         Ok(Box::new(Output { source: cx.slot(&self.source) }))
//!     }
//! }
//!
//! impl Stage for Output {
//!     fn run(&self, work: &mut Work, _: &mut Emit) -> Next {
//!         if let Some(text) = work.text_of(work.value(self.source)) {
//!             work.set_line(text);
//!         }
//!         Next::Keep
//!     }
//! }
//! ```

use std::time::Duration;

use corten_component::Logger;
use corten_component::metrics::Registry;
use corten_config::arguments::CheckErrors;
use tokio::time::Instant;

pub(crate) use super::extracted::{Names, Slot, Text, Value};
pub(crate) use super::work::{Emit, Held, Shown, Tools, Work};

/// What becomes of an entry after a stage.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Next {
    /// It goes on to the next stage; for `stage.match`, to the first of its own stages.
    Keep,
    /// Of `stage.match` only: the entry goes on behind the stages of this one.
    Skip,
    /// It ends here, counted for the reason.
    Drop(Reason),
    /// The stage has taken it, with [`Work::hold`] or [`Held::join`], and emits it later. An entry that ends in another one
    /// is joined to it, so that its source learns what becomes of it.
    Held,
    /// Call again after this time, with the same entry: what comes after it waits as well.
    Wait(Duration),
}

/// Why entries are dropped, from [`Compile::reason`].
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Reason(pub(super) u16);

/// A compiled stage. Batches pass at the same time, unless it is [ordered](Stage::ordered): state needs a lock, which is
/// then never contended.
pub(crate) trait Stage: Send + Sync {
    /// Handles one entry. What is put into `out` goes on to the next stage before this entry.
    ///
    /// In the steady state this allocates nothing where it can be avoided. It must not panic, whatever the entry holds, and
    /// its time must be bounded by the size of the entry.
    fn run(&self, work: &mut Work, out: &mut Emit) -> Next;

    /// Whether the order of entries matters to its state, as it does to a limit: batches then pass one after the other.
    fn ordered(&self) -> bool {
        false
    }

    /// Whether it may hold entries. Implies [`ordered`](Stage::ordered), also for what it emits.
    fn holds(&self) -> bool {
        false
    }

    /// When [`flush`](Stage::flush) wants to be called. Asked after each batch and each flush.
    fn deadline(&self) -> Option<Instant> {
        None
    }

    /// Emits what is due. Never called while [`run`](Stage::run) is.
    fn flush(&self, now: Instant, out: &mut Emit) {
        let _ = (now, out);
    }

    /// Emits all that is held: the pipeline ends or is replaced.
    fn close(&self, out: &mut Emit) {
        let _ = out;
    }

    /// How many entries it holds. An entry that was joined to another counts with that one only.
    fn held(&self) -> usize {
        0
    }
}

/// The arguments of a stage.
pub(crate) trait Build {
    /// Compiles the stage.
    ///
    /// # Errors
    ///
    /// What is wrong with the arguments, in the reference's words.
    fn build(&self, cx: &mut Compile<'_>) -> Result<Box<dyn Stage>, StageError>;
}

/// Why a stage could not be compiled.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct StageError {
    fields: Vec<&'static str>,
    text: String,
}

impl StageError {
    /// An error in one argument: the text, in the reference's words.
    pub(crate) fn at(field: &'static str, text: impl Into<String>) -> Self {
        StageError { fields: vec![field], text: text.into() }
    }

    /// An error that several arguments make together. All that were read are named: while one of them is unknown, the
    /// static check leaves the rule out.
    pub(crate) fn of(fields: &[&'static str], text: impl Into<String>) -> Self {
        StageError { fields: fields.to_vec(), text: text.into() }
    }
}

impl std::fmt::Display for StageError {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "invalid stage config {}", self.text)
    }
}

/// What a stage calls in its arguments' `check_build`, so that what cannot be compiled is an error at its place, also in the
/// static check.
///
/// # Errors
///
/// Why the stage cannot be compiled.
pub(crate) fn check(arguments: &impl Build) -> Result<(), CheckErrors> {
    let registry = Registry::new();
    let mut cx = Compile::new(&registry, None);
    match arguments.build(&mut cx) {
        Ok(_) => Ok(()),
        Err(error) => Err(CheckErrors::of(&error.fields, error.to_string())),
    }
}

/// What stages are compiled with. Names and texts that they want belong to the pipeline.
pub(crate) struct Compile<'a> {
    pub(super) names: Names,
    /// Each with whether the metric of dropped lines has it.
    pub(super) reasons: Vec<(Box<str>, bool)>,
    registry: &'a Registry,
    logger: Option<&'a Logger>,
}

impl<'a> Compile<'a> {
    /// Without a logger it is the static check that compiles.
    pub(super) fn new(registry: &'a Registry, logger: Option<&'a Logger>) -> Self {
        Compile { names: Names::default(), reasons: Vec::new(), registry, logger }
    }

    /// Whether this is only the static check: the stage will never run, and files are not looked at.
    pub(crate) fn is_check(&self) -> bool {
        self.logger.is_none()
    }

    /// Where the stage says what is worth a log line; nowhere in the static check.
    pub(crate) fn logger(&self) -> Option<Logger> {
        self.logger.cloned()
    }

    /// The component's metrics. They outlive the pipeline; a family of a name is always the same one.
    pub(crate) fn registry(&self) -> &'a Registry {
        self.registry
    }

    /// The slot of a name of the extracted map.
    pub(crate) fn slot(&mut self, name: &str) -> Slot {
        self.names.slot(name)
    }

    /// A text of the configuration, for labels, lines and values.
    pub(crate) fn text(&mut self, text: &str) -> Text {
        self.names.constant(text.as_bytes())
    }

    /// Says that a stage reads names of the extracted map that are not known before it runs. Without that, values of such
    /// names are not kept at all.
    pub(crate) fn need_all_values(&mut self) {
        self.names.keep_all();
    }

    /// What a stage reads that has a `source`: the string of an extracted value, or the line where there is no source.
    pub(crate) fn input(&mut self, source: Option<&str>) -> Input {
        Input(source.map(|name| self.slot(name)))
    }

    /// A value of the label `reason` of the metric of dropped lines.
    pub(crate) fn reason(&mut self, reason: &str) -> Reason {
        self.reason_of(reason, true)
    }

    /// A reason of entries that the reference does not count either: the metric of dropped lines leaves them out.
    pub(crate) fn uncounted(&mut self, reason: &str) -> Reason {
        self.reason_of(reason, false)
    }

    fn reason_of(&mut self, reason: &str, counted: bool) -> Reason {
        let at =
            self.reasons.iter().position(|(known, is)| **known == *reason && *is == counted).unwrap_or_else(|| {
                self.reasons.push((reason.into(), counted));
                self.reasons.len() - 1
            });
        Reason(u16::try_from(at).unwrap_or(u16::MAX))
    }
}

/// What a stage reads: see [`Compile::input`].
#[derive(Clone, Copy, Debug)]
pub(crate) struct Input(Option<Slot>);

impl Input {
    /// The text; nothing if the source is missing or is no string, number or bool. The stage does nothing then.
    pub(crate) fn read(self, work: &mut Work) -> Option<Text> {
        match self.0 {
            None => Some(work.line()),
            Some(slot) => work.text_of(work.value(slot)),
        }
    }
}

/// The time, in nanoseconds since the Unix epoch. Tests set it.
pub(crate) fn now_ns() -> i64 {
    #[cfg(test)]
    if let Some(now) = super::testing::clock_ns() {
        return now;
    }
    let now = std::time::SystemTime::now().duration_since(std::time::UNIX_EPOCH);
    now.map_or(0, |now| i64::try_from(now.as_nanos()).unwrap_or(i64::MAX))
}
