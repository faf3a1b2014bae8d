//! `stage.json`.

use std::collections::BTreeMap;

use corten_config::Arguments;
use corten_config::arguments::CheckErrors;
use corten_config::schema::Stability;
use corten_signal::regex::GoRegex;

use super::json::{Malformed, Plan, Token, unescape, write_nested};
use super::stage::{
    Build, Compile, Emit, Input, Next, Reason, Slot, Stage, StageError, Text, Tools, Value, Work, check,
};

/// Reads JSON and extracts values of it.
///
/// The text has to be an object. A string, number or bool is extracted as it is, an object or array as JSON. What an
/// expression does not find is extracted without a value.
#[derive(Arguments, Clone, Debug, PartialEq)]
pub struct JsonStage {
    /// JMESPath expressions by the names of the extracted values. An empty expression stands for the name.
    #[arg(optional)]
    expressions: BTreeMap<String, String>,
    /// Pattern: all members of the object are extracted whose keys match.
    #[arg(optional)]
    regex: String,
    /// Drops lines that are no JSON object.
    #[arg(default = false)]
    drop_malformed: bool,
    /// Name of the extracted value to read instead of the line.
    source: Option<String>,
}

impl JsonStage {
    fn check_build(&self, _: Stability) -> Result<(), CheckErrors> {
        check(self)
    }
}

impl Build for JsonStage {
    fn build(&self, cx: &mut Compile<'_>) -> Result<Box<dyn Stage>, StageError> {
        if self.expressions.is_empty() && self.regex.is_empty() {
            return Err(StageError::of(&["expressions", "regex"], "JMES expressions or regex is required"));
        }
        if self.source.as_deref() == Some("") {
            return Err(StageError::at("source", "empty source"));
        }
        let mut plan = Plan::default();
        let mut picks = Vec::new();
        let mut expressions = Vec::new();
        for (name, expression) in &self.expressions {
            let expression = if expression.is_empty() { name } else { expression };
            let compiled = corten_jmespath::Expression::new(expression).map_err(|error| {
                StageError::at("expressions", format!("could not compile JMES expression: {error}"))
            })?;
            let slot = cx.slot(name);
            match compiled.as_path() {
                Some(path) => {
                    plan.add(&path.iter().map(|key| key.as_bytes()).collect::<Vec<_>>());
                    picks.push(slot);
                }
                None => expressions.push((slot, compiled)),
            }
        }
        let regex = match self.regex.as_str() {
            "" => None,
            pattern => Some(GoRegex::new(pattern).map_err(|error| StageError::at("regex", error.to_string()))?),
        };
        Ok(Box::new(Json {
            input: cx.input(self.source.as_deref()),
            plan,
            picks,
            expressions,
            regex,
            malformed: self.drop_malformed.then(|| cx.uncounted("malformed")),
        }))
    }
}

struct Json {
    input: Input,
    plan: Plan,
    /// The slots of what the plan picks.
    picks: Vec<Slot>,
    /// What is more than a path of keys.
    expressions: Vec<(Slot, corten_jmespath::Expression)>,
    regex: Option<GoRegex>,
    /// With which lines are dropped that are no JSON object; nothing where they go on.
    malformed: Option<Reason>,
}

impl Stage for Json {
    fn run(&self, work: &mut Work, _: &mut Emit) -> Next {
        let Some(text) = self.input.read(work) else { return Next::Keep };
        match work.read(text, |bytes, tools| self.extract(text, bytes, tools)) {
            Ok(()) => {
                work.keep_found();
                Next::Keep
            }
            Err(Malformed) => {
                work.forget_found();
                self.malformed.map_or(Next::Keep, Next::Drop)
            }
        }
    }
}

impl Json {
    fn extract(&self, text: Text, bytes: &[u8], tools: &mut Tools<'_>) -> Result<(), Malformed> {
        let mut stack = std::mem::take(&mut tools.scratch.stack);
        let mut picked = std::mem::take(&mut tools.scratch.tokens);
        let mut members = std::mem::take(&mut tools.scratch.members);
        members.clear();
        let keep = self.regex.is_some();
        let outcome = self.plan.pick(bytes, &mut stack, &mut picked, |key, value| {
            if keep {
                members.push((key, value));
            }
        });
        if outcome.is_ok() {
            for (slot, token) in self.picks.iter().zip(&picked) {
                let value = value(*token, text, bytes, tools);
                tools.find(*slot, value);
            }
            if !self.expressions.is_empty() {
                self.evaluate(bytes, tools);
            }
            if let Some(regex) = &self.regex {
                self.extract_members(regex, text, bytes, &members, tools);
            }
        }
        tools.scratch.stack = stack;
        tools.scratch.tokens = picked;
        tools.scratch.members = members;
        outcome
    }

    /// Evaluates what is more than a path. An expression that cannot be evaluated extracts nothing.
    fn evaluate(&self, bytes: &[u8], tools: &mut Tools<'_>) {
        use corten_jmespath::Value as Found;

        let document = match Found::from_json(bytes) {
            Some(Found::Null) => Found::object([]),
            Some(document) => document,
            None => return,
        };
        for (slot, expression) in &self.expressions {
            let Ok(found) = expression.search(&document) else { continue };
            let value = match &found {
                Found::Null => Value::Nil,
                Found::Bool(value) => Value::Bool(*value),
                Found::Number(value) => Value::Float(*value),
                Found::String(text) => Value::Text(tools.add(text.as_bytes())),
                nested => Value::Text(tools.write(|out| write_nested(nested.to_json().as_bytes(), out))),
            };
            tools.find(*slot, value);
        }
    }

    fn extract_members(
        &self,
        regex: &GoRegex,
        text: Text,
        bytes: &[u8],
        members: &[(Token, Token)],
        tools: &mut Tools<'_>,
    ) {
        let mut plain = Vec::new();
        for (key, token) in members {
            let key: &[u8] = match key {
                Token::String { start, end, escaped: false } => &bytes[*start..*end],
                Token::String { start, end, .. } => {
                    plain.clear();
                    unescape(&bytes[*start..*end], &mut plain);
                    &plain
                }
                _ => &[],
            };
            if regex.is_match_bytes(key, tools.lossy) {
                let value = value(*token, text, bytes, tools);
                tools.find_named(key, value);
            }
        }
    }
}

/// A value as it is extracted.
fn value(token: Token, text: Text, bytes: &[u8], tools: &mut Tools<'_>) -> Value {
    match token {
        Token::Null => Value::Nil,
        Token::Bool(value) => Value::Bool(value),
        Token::Number(value) => Value::Float(value),
        Token::String { start, end, escaped: false } => Value::Text(text.slice(start..end)),
        Token::String { start, end, .. } => Value::Text(tools.write(|out| unescape(&bytes[start..end], out))),
        Token::Nested { start, end } => Value::Text(tools.write(|out| write_nested(&bytes[start..end], out))),
    }
}

#[cfg(test)]
mod tests {
    use crate::process::testing::recorded;

    /// Lines that were made of others by chance, for this stage and for logfmt, pattern and regex.
    #[test]
    fn damaged_lines_are_read_as_the_reference_does() {
        assert!(recorded("fuzz") >= 40);
    }

    #[test]
    fn it_does_what_the_reference_does() {
        assert!(recorded("json") >= 100);
    }
}
