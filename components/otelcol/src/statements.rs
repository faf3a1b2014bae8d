//! Statements and conditions of OTTL in configurations: how they are compiled, and what becomes of those that fail.

use std::time::{Duration, Instant};

use corten_component::Logger;
use corten_component::log::Level;
use corten_config::arguments::{CheckErrors, CheckStep};
use corten_config::{Arguments, StringEnum};
use corten_ottl::{Conditions, Context, EvalError, Item, OttlError, Part, Program, infer_statements};
use parking_lot::Mutex;

/// What happens when a statement or a condition cannot be evaluated.
#[derive(StringEnum, Clone, Copy, Debug, PartialEq, Eq)]
#[string_enum(ignore_case, refusal = unknown_error_mode)]
pub(crate) enum ErrorMode {
    /// The log says so, and the next one is evaluated. A condition that fails is not met.
    Ignore,
    /// The next one is evaluated. A condition that fails is not met.
    Silent,
    /// All of the batch is refused; a policy of sampling has no say in the trace.
    Propagate,
}

fn unknown_error_mode(text: &str) -> String {
    format!("unknown error mode {}", text.to_lowercase())
}

/// What statements are about, as it is written.
#[derive(Clone, Copy, Debug, PartialEq, Eq, StringEnum)]
#[string_enum(ignore_case, refusal = unknown_context)]
pub(crate) enum ContextName {
    /// Resources.
    Resource,
    /// Scopes.
    Scope,
    /// Spans.
    Span,
    /// Events of spans.
    #[value(name = "spanevent")]
    SpanEvent,
    /// Metrics.
    Metric,
    /// Points of metrics.
    #[value(name = "datapoint")]
    DataPoint,
    /// Log records.
    Log,
}

fn unknown_context(text: &str) -> String {
    format!("unknown context {}", text.to_lowercase())
}

impl From<ContextName> for Context {
    fn from(name: ContextName) -> Self {
        match name {
            ContextName::Resource => Context::Resource,
            ContextName::Scope => Context::Scope,
            ContextName::Span => Context::Span,
            ContextName::SpanEvent => Context::SpanEvent,
            ContextName::Metric => Context::Metric,
            ContextName::DataPoint => Context::DataPoint,
            ContextName::Log => Context::Log,
        }
    }
}

/// Conditions, and what they are about.
#[derive(Arguments, Clone, Debug, PartialEq)]
pub(crate) struct ContextConditions {
    /// What the conditions are about: `resource`, `scope`, `span`, `spanevent`, `metric`, `datapoint` or `log`. Without it,
    /// the paths of each condition say that, and begin with it: `log.body`.
    pub(crate) context: Option<ContextName>,
    /// Conditions in OTTL. One that is met is enough.
    pub(crate) conditions: Vec<String>,
}

/// Adds mistakes in statements and conditions to the errors of a configuration, each at its place. `way` leads from the
/// field to the list that a statement or condition is in.
pub(crate) fn refuse<'a>(
    errors: &mut CheckErrors,
    field: &'static str,
    mistakes: impl IntoIterator<Item = &'a OttlError>,
    way: impl Fn(Part) -> Vec<CheckStep>,
) {
    for mistake in mistakes {
        let mut within = way(mistake.part);
        within.extend([CheckStep::Element(mistake.index), CheckStep::Byte(mistake.offset)]);
        errors.push_within(&[field], &within, mistake.to_string());
    }
}

/// Refuses a context that a signal does not have.
pub(crate) fn known_context(context: Context, of: &[Context], what: &str, texts: &[String]) -> Result<(), String> {
    match of.contains(&context) {
        true => Ok(()),
        false => Err(format!("unknown context \"{context}\" for {what}: [{}]", texts.join(" "))),
    }
}

/// Tells of failures, of each statement not more often than once in a while.
#[derive(Debug)]
struct Complaints {
    /// Nothing where nothing is evaluated, only looked at.
    logger: Option<Logger>,
    mode: ErrorMode,
    /// When the last failure of each was logged, and how many were not since.
    last: Mutex<Vec<(Option<Instant>, u64)>>,
}

/// How often the log says that a statement fails.
const WARN_EVERY: Duration = Duration::from_secs(10);

impl Complaints {
    fn new(logger: Option<&Logger>, mode: ErrorMode, of: usize) -> Self {
        Complaints { logger: logger.cloned(), mode, last: Mutex::new(vec![(None, 0); of]) }
    }

    /// Does with a failure what is asked for.
    fn failed(&self, index: usize, kind: &'static str, source: &str, error: EvalError) -> Result<(), EvalError> {
        let what = format!("failed to {} {kind}", if kind == "statement" { "execute" } else { "eval" });
        match self.mode {
            ErrorMode::Silent => Ok(()),
            ErrorMode::Ignore => {
                self.log(index, Level::Warn, &what, kind, source, &error);
                Ok(())
            }
            ErrorMode::Propagate => {
                self.log(index, Level::Error, &what, kind, source, &error);
                Err(format!("{what}: {source}, {error}").into())
            }
        }
    }

    fn log(&self, index: usize, level: Level, what: &str, kind: &'static str, source: &str, error: &EvalError) {
        let Some(logger) = &self.logger else { return };
        let mut last = self.last.lock();
        let Some((at, unsaid)) = last.get_mut(index) else { return };
        if at.is_some_and(|at| at.elapsed() < WARN_EVERY) {
            *unsaid += 1;
            return;
        }
        let unsaid = std::mem::take(unsaid);
        *at = Some(Instant::now());
        let mut fields = vec![("error", error.to_string().into()), (kind, source.into())];
        if unsaid > 0 {
            fields.push(("failures_not_logged", unsaid.into()));
        }
        logger.log(level, what, &fields);
    }
}

/// Conditions of which one is enough.
#[derive(Debug)]
pub(crate) struct AnyOf {
    conditions: Conditions,
    complaints: Complaints,
}

impl AnyOf {
    pub(crate) fn new(conditions: Conditions, mode: ErrorMode, logger: Option<&Logger>) -> Self {
        let complaints = Complaints::new(logger, mode, conditions.conditions().len());
        AnyOf { conditions, complaints }
    }

    /// What the conditions are about.
    pub(crate) fn context(&self) -> Context {
        self.conditions.context()
    }

    /// Whether there are none.
    pub(crate) fn is_empty(&self) -> bool {
        self.conditions.conditions().is_empty()
    }

    /// Whether one of the conditions is met.
    pub(crate) fn holds(&self, item: &mut Item<'_>) -> Result<bool, EvalError> {
        for (index, condition) in self.conditions.conditions().iter().enumerate() {
            match condition.holds(item) {
                Ok(true) => return Ok(true),
                Ok(false) => {}
                Err(error) => self.complaints.failed(index, "condition", condition.source(), error)?,
            }
        }
        Ok(false)
    }
}

/// Statements, and the conditions under which they are executed.
#[derive(Debug)]
pub(crate) struct Group {
    conditions: AnyOf,
    program: Program,
    complaints: Complaints,
}

impl Group {
    pub(crate) fn new((program, conditions): (Program, Conditions), mode: ErrorMode, logger: &Logger) -> Self {
        let complaints = Complaints::new(Some(logger), mode, program.statements().len());
        Group { conditions: AnyOf::new(conditions, mode, Some(logger)), program, complaints }
    }

    /// What the statements are about.
    pub(crate) fn context(&self) -> Context {
        self.program.context()
    }

    /// Executes the statements for an item, and says whether one of them was.
    pub(crate) fn execute(&self, item: &mut Item<'_>) -> Result<bool, EvalError> {
        if !self.conditions.is_empty() && !self.conditions.holds(item)? {
            return Ok(false);
        }
        let mut executed = false;
        for (index, statement) in self.program.statements().iter().enumerate() {
            match statement.execute(item) {
                Ok(was) => executed |= was,
                Err(error) => {
                    // It may have changed something before it failed.
                    executed = true;
                    self.complaints.failed(index, "statement", statement.source(), error)?;
                }
            }
        }
        Ok(executed)
    }
}

/// Compiles statements and conditions whose paths say what they are about.
pub(crate) fn infer(of: &[Context], statements: &[String]) -> Result<(Program, Conditions), Vec<OttlError>> {
    infer_statements(of, statements, &[] as &[&str])
}

/// Where in the arguments of a component the mark `§` stands, as a diagnostic says it: the first line of the text is the
/// second one of its file.
#[cfg(test)]
pub(crate) fn place(body: &str) -> String {
    let before = &body[..body.find('§').expect("there is a mark")];
    let line = before.rsplit('\n').next().unwrap_or_default();
    format!("{}:{}", before.matches('\n').count() + 2, line.len() + 1)
}
