//! Diagnostics: what is wrong with a text, and where.

use std::fmt;
use std::sync::Arc;

use crate::source::{Position, SourceFile, Span};

/// How many diagnostics the parser reports for one text. A text with more is no configuration.
pub const DIAGNOSTICS_MAX: usize = 1000;

/// How bad a diagnostic is.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Severity {
    /// The text is accepted, but should be changed.
    Warning,
    /// The text is not accepted.
    Error,
}

/// One message about one place of a text.
#[derive(Clone, Debug)]
pub struct Diagnostic {
    /// How bad it is.
    pub severity: Severity,
    /// The name of the file; empty when there is none.
    pub file: Arc<str>,
    /// Where it starts; `None` when the culprit has no place of its own.
    pub start: Option<Position>,
    /// The position of the last character. `None` means that one character is meant, the one at the start.
    pub end: Option<Position>,
    /// The message, without the place.
    pub message: String,
    /// The text that the place belongs to, for the excerpt. Without one only the header is printed.
    pub source: Option<Arc<SourceFile>>,
}

impl Diagnostic {
    /// An error about a span of a source.
    pub fn error(source: &Arc<SourceFile>, span: Span, message: impl Into<String>) -> Self {
        Self::about(Severity::Error, source, span, message.into())
    }

    /// A warning about a span of a source.
    pub fn warning(source: &Arc<SourceFile>, span: Span, message: impl Into<String>) -> Self {
        Self::about(Severity::Warning, source, span, message.into())
    }

    /// An error about one place of a source, without an end.
    pub fn error_at(source: &Arc<SourceFile>, offset: u32, message: impl Into<String>) -> Self {
        Self::about(Severity::Error, source, Span::new(offset, offset), message.into())
    }

    /// An error without a place. It shows as `file: message`, and as `-: message` when the name is empty.
    pub fn error_without_place(file: &str, message: impl Into<String>) -> Self {
        Self {
            severity: Severity::Error,
            file: file.into(),
            start: None,
            end: None,
            message: message.into(),
            source: None,
        }
    }

    fn about(severity: Severity, source: &Arc<SourceFile>, span: Span, message: String) -> Self {
        Self {
            severity,
            file: Arc::clone(source.name()),
            start: Some(source.position(span.start)),
            end: (!span.is_empty()).then(|| source.position(span.end - 1)),
            message,
            source: Some(Arc::clone(source)),
        }
    }

    /// The place as it stands before the message: `file:line:column`, without the parts that are not known.
    pub fn place(&self) -> String {
        match (&self.start, self.file.is_empty()) {
            (Some(start), true) => start.to_string(),
            (Some(start), false) => format!("{}:{start}", self.file),
            (None, false) => self.file.to_string(),
            (None, true) => "-".to_owned(),
        }
    }
}

/// `file:line:column: message`.
impl fmt::Display for Diagnostic {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}: {}", self.place(), self.message)
    }
}

impl std::error::Error for Diagnostic {}

/// Diagnostics in the order in which they were found.
#[derive(Clone, Debug, Default)]
pub struct Diagnostics(Vec<Diagnostic>);

impl Diagnostics {
    /// An empty list.
    pub fn new() -> Self {
        Self::default()
    }

    /// Adds one at the end.
    pub fn push(&mut self, diagnostic: Diagnostic) {
        self.0.push(diagnostic);
    }

    /// Whether one of them is an error.
    pub fn has_errors(&self) -> bool {
        self.0.iter().any(|diagnostic| diagnostic.severity == Severity::Error)
    }

    /// All messages joined by `; `, unlike the display form, which shows the first only.
    pub fn all_messages(&self) -> String {
        if self.0.is_empty() {
            return "no errors".to_owned();
        }
        self.0.iter().map(Diagnostic::to_string).collect::<Vec<_>>().join("; ")
    }

    /// The value when no diagnostic is an error, the diagnostics otherwise.
    ///
    /// # Errors
    /// All of them, warnings included, when there is an error.
    pub fn into_result<T>(self, value: T) -> Result<T, Diagnostics> {
        if self.has_errors() { Err(self) } else { Ok(value) }
    }

    /// The text that the command line shows: for each diagnostic a header and an excerpt of its source with the place
    /// marked. A diagnostic without a source has the header only.
    pub fn render(&self, colour: bool) -> String {
        let mut out = String::new();
        for (index, diagnostic) in self.0.iter().enumerate() {
            if index > 0 {
                out.push('\n');
            }
            render::header(&mut out, diagnostic, colour);
            render::excerpt(&mut out, diagnostic);
        }
        out
    }
}

impl std::ops::Deref for Diagnostics {
    type Target = [Diagnostic];

    fn deref(&self) -> &[Diagnostic] {
        &self.0
    }
}

impl From<Diagnostic> for Diagnostics {
    fn from(diagnostic: Diagnostic) -> Self {
        Self(vec![diagnostic])
    }
}

impl From<Vec<Diagnostic>> for Diagnostics {
    fn from(diagnostics: Vec<Diagnostic>) -> Self {
        Self(diagnostics)
    }
}

impl FromIterator<Diagnostic> for Diagnostics {
    fn from_iter<I: IntoIterator<Item = Diagnostic>>(diagnostics: I) -> Self {
        Self(diagnostics.into_iter().collect())
    }
}

impl Extend<Diagnostic> for Diagnostics {
    fn extend<I: IntoIterator<Item = Diagnostic>>(&mut self, diagnostics: I) {
        self.0.extend(diagnostics);
    }
}

impl IntoIterator for Diagnostics {
    type Item = Diagnostic;
    type IntoIter = std::vec::IntoIter<Diagnostic>;

    fn into_iter(self) -> Self::IntoIter {
        self.0.into_iter()
    }
}

impl<'a> IntoIterator for &'a Diagnostics {
    type Item = &'a Diagnostic;
    type IntoIter = std::slice::Iter<'a, Diagnostic>;

    fn into_iter(self) -> Self::IntoIter {
        self.0.iter()
    }
}

/// The first message and how many more there are: `a:1:2: text (and 3 more diagnostics)`.
impl fmt::Display for Diagnostics {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match &*self.0 {
            [] => f.write_str("no errors"),
            [only] => only.fmt(f),
            [first, rest @ ..] => write!(f, "{first} (and {} more diagnostics)", rest.len()),
        }
    }
}

impl std::error::Error for Diagnostics {}

/// The excerpt with line numbers and carets.
mod render {
    use super::{Diagnostic, Severity};
    use crate::source::Position;

    /// Lines shown before and after the marked ones.
    const CONTEXT_LINES: u32 = 1;
    /// Columns that a tab takes.
    const TAB_COLUMNS: usize = 4;

    const BOLD: &str = "\x1b[1m";
    const BOLD_RED: &str = "\x1b[31;1m";
    const BOLD_YELLOW: &str = "\x1b[33;1m";
    const RESET: &str = "\x1b[0m";

    pub(super) fn header(out: &mut String, diagnostic: &Diagnostic, colour: bool) {
        let (word, style) = match diagnostic.severity {
            Severity::Error => ("Error: ", BOLD_RED),
            Severity::Warning => ("Warning: ", BOLD_YELLOW),
        };
        let styled = |out: &mut String, style: &str, text: &str| {
            if colour {
                out.extend([style, text, RESET]);
            } else {
                out.push_str(text);
            }
        };
        styled(out, style, word);
        styled(out, BOLD, &diagnostic.to_string());
        out.push('\n');
    }

    pub(super) fn excerpt(out: &mut String, diagnostic: &Diagnostic) {
        let (Some(source), Some(start)) = (&diagnostic.source, diagnostic.start) else { return };
        let end = diagnostic.end.unwrap_or(start).max(start);
        let several = end.line > start.line;
        let first = start.line.saturating_sub(CONTEXT_LINES).max(1);
        let last = end.line.saturating_add(CONTEXT_LINES).min(source.line_count());
        let width = last.to_string().len();

        out.push('\n');
        for number in first..=last {
            let line = source.line_text(number).unwrap_or_default();
            out.push_str(&format!("{number:width$} | "));
            if several {
                let inside = number > start.line && number <= end.line;
                out.push_str(if inside { "| " } else { "  " });
            }
            for character in line.chars() {
                match character {
                    '\r' => {}
                    '\t' | '\x0b' => out.extend(std::iter::repeat_n(' ', TAB_COLUMNS)),
                    character => out.push(character),
                }
            }
            out.push('\n');

            let marks = match (several, number) {
                (false, number) if number == start.line => " | ",
                (true, number) if number == start.line => " |  _",
                (true, number) if number == end.line => " | |_",
                _ => continue,
            };
            out.extend(std::iter::repeat_n(' ', width));
            out.push_str(marks);
            carets(out, line, number, (start, end));
            out.push('\n');
        }
    }

    /// The carets under one line. What stands before them keeps the width of the text above.
    fn carets(out: &mut String, line: &str, number: u32, (start, end): (Position, Position)) {
        let blank = if end.line > start.line { '_' } else { ' ' };
        for (offset, character) in line.char_indices() {
            let here = Position { line: number, column: offset as u32 + 1 };
            if here > end {
                break;
            }
            match character {
                '\t' | '\x0b' => out.extend(std::iter::repeat_n(blank, TAB_COLUMNS)),
                _ if here >= start => out.push('^'),
                _ => out.push(blank),
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn spanning(text: &str, marked: &str) -> Diagnostics {
        let source = SourceFile::new("main.alloy", text);
        let start = text.find(marked).expect("the marked text is there") as u32;
        Diagnostic::error(&source, Span::new(start, start + marked.len() as u32), "text").into()
    }

    #[test]
    fn the_string_form_names_the_place_and_counts_the_rest() {
        let source = SourceFile::new("f", "a\nb");
        let mut diagnostics = Diagnostics::new();
        assert_eq!(diagnostics.to_string(), "no errors");
        assert_eq!(diagnostics.all_messages(), "no errors");
        diagnostics.push(Diagnostic::error(&source, Span::new(2, 3), "one"));
        assert_eq!(diagnostics.to_string(), "f:2:1: one");
        diagnostics.push(Diagnostic::error_without_place("", "two"));
        diagnostics.push(Diagnostic::error_without_place("g", "three"));
        diagnostics.push(Diagnostic::warning(&SourceFile::new("", "a"), Span::new(0, 1), "four"));
        assert_eq!(diagnostics.to_string(), "f:2:1: one (and 3 more diagnostics)");
        assert_eq!(diagnostics.all_messages(), "f:2:1: one; -: two; g: three; 1:1: four");
    }

    #[test]
    fn only_errors_make_a_result_fail() {
        let source = SourceFile::new("f", "a");
        let mut diagnostics = Diagnostics::from(Diagnostic::warning(&source, Span::new(0, 1), "one"));
        assert!(diagnostics.clone().into_result(()).is_ok());
        diagnostics.push(Diagnostic::error_at(&source, 0, "two"));
        assert_eq!(diagnostics.into_result(()).map_err(|all| all.len()), Err(2));
    }

    #[test]
    fn the_end_is_the_last_character_of_the_span() {
        let source = SourceFile::new("f", "ab\ncd");
        let ends = |start, end| {
            let diagnostic = Diagnostic::error(&source, Span::new(start, end), "");
            diagnostic.end.map(|end| end.to_string())
        };
        assert_eq!(ends(0, 1).as_deref(), Some("1:1"));
        assert_eq!(ends(0, 5).as_deref(), Some("2:2"));
        assert_eq!(ends(1, 1), None);
    }

    #[test]
    fn an_excerpt_shows_the_lines_around_and_marks_the_span() {
        let text = "loki.source.file \"test\" {\n\tforward_to = \"wrong\"\n\ttargets = [10]\n}\n";
        let expected = r#"Error: main.alloy:2:15: text

1 | loki.source.file "test" {
2 |     forward_to = "wrong"
  |                  ^^^^^^^
3 |     targets = [10]
"#;
        assert_eq!(spanning(text, "\"wrong\"").render(false), expected);
    }

    #[test]
    fn an_excerpt_of_several_lines_has_a_gutter() {
        let text = "a {\r\n\tb = [\n\t\té,\n\t]\n}\n".repeat(3);
        let expected = "Error: main.alloy:2:6: text

1 |   a {
2 |       b = [
  |  _________^
3 | |         é,
4 | |     ]
  | |_____^
5 |   }
";
        assert_eq!(spanning(&text, "[\n\t\té,\n\t]").render(false), expected);
    }

    #[test]
    fn line_numbers_are_as_wide_as_the_last_and_one_place_has_one_caret() {
        let source = SourceFile::new("f", &"é a\n".repeat(12));
        let mut diagnostics = Diagnostics::from(Diagnostic::error_at(&source, 8 * 5 + 3, "one"));
        diagnostics.push(Diagnostic::error_without_place("f", "two"));
        let expected = "Error: f:9:4: one

 8 | é a
 9 | é a
   |   ^
10 | é a

Error: f: two
";
        assert_eq!(diagnostics.render(false), expected);
    }

    #[test]
    fn colour_marks_the_severity_and_the_message() {
        let source = SourceFile::new("", "a");
        let header = |diagnostic: Diagnostic| {
            let text = Diagnostics::from(Diagnostic { source: None, ..diagnostic }).render(true);
            text.replace('\x1b', "^")
        };
        let error = Diagnostic::error(&source, Span::new(0, 1), "one");
        assert_eq!(header(error), "^[31;1mError: ^[0m^[1m1:1: one^[0m\n");
        let warning = Diagnostic::warning(&source, Span::new(0, 1), "one");
        assert_eq!(header(warning), "^[33;1mWarning: ^[0m^[1m1:1: one^[0m\n");
    }
}
