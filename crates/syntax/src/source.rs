//! Source texts and positions in them.

use std::fmt;
use std::sync::Arc;

/// The largest source that is parsed, in bytes. Spans are 32 bits wide, and no configuration comes near this.
pub const SOURCE_BYTES_MAX: usize = 64 * 1024 * 1024;

/// A half-open range of bytes in a source text.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash)]
pub struct Span {
    /// Offset of the first byte.
    pub start: u32,
    /// Offset after the last byte.
    pub end: u32,
}

impl Span {
    /// The span from `start` up to and without `end`.
    pub fn new(start: u32, end: u32) -> Self {
        Self { start, end: end.max(start) }
    }

    /// The length in bytes.
    pub fn len(self) -> usize {
        (self.end - self.start) as usize
    }

    /// Whether no byte lies in the span.
    pub fn is_empty(self) -> bool {
        self.start == self.end
    }

    /// The span from the start of `self` to the end of `other`.
    pub fn to(self, other: Span) -> Self {
        Self::new(self.start, other.end)
    }
}

/// A place in a source text, as it is shown to people.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Position {
    /// The line, from 1.
    pub line: u32,
    /// The byte within the line, from 1.
    pub column: u32,
}

impl fmt::Display for Position {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}:{}", self.line, self.column)
    }
}

/// A named source text with an index of its lines. Shared by everything that points into the text.
#[derive(Debug)]
pub struct SourceFile {
    name: Arc<str>,
    text: Box<str>,
    /// Offsets of the first byte of each line.
    lines: Vec<u32>,
}

impl SourceFile {
    /// Takes a copy of a text. The name is what diagnostics show; it may be empty.
    ///
    /// The text is kept whole, but offsets beyond [`SOURCE_BYTES_MAX`] are not addressable: the parser refuses such a
    /// text before it looks at it.
    pub fn new(name: &str, text: &str) -> Arc<Self> {
        let mut lines = vec![0];
        let addressable = &text.as_bytes()[..text.len().min(SOURCE_BYTES_MAX)];
        lines.extend(
            addressable.iter().enumerate().filter(|(_, byte)| **byte == b'\n').map(|(offset, _)| offset as u32 + 1),
        );
        Arc::new(Self { name: name.into(), text: text.into(), lines })
    }

    /// The name that diagnostics show.
    pub fn name(&self) -> &Arc<str> {
        &self.name
    }

    /// The whole text.
    pub fn text(&self) -> &str {
        &self.text
    }

    /// The text of a span; empty when the span does not lie in this text.
    pub fn slice(&self, span: Span) -> &str {
        self.text.get(span.start as usize..span.end as usize).unwrap_or_default()
    }

    /// How many lines the text has. A newline at the end is followed by an empty line.
    pub fn line_count(&self) -> u32 {
        self.lines.len() as u32
    }

    /// The text of a line, from 1, without its newline; `None` when there is no such line.
    pub fn line_text(&self, line: u32) -> Option<&str> {
        let index = (line as usize).checked_sub(1)?;
        let start = *self.lines.get(index)? as usize;
        let end = self.lines.get(index + 1).map_or(self.text.len(), |next| *next as usize - 1);
        self.text.get(start..end)
    }

    /// The line of an offset, from 1.
    pub fn line(&self, offset: u32) -> u32 {
        self.lines.partition_point(|start| *start <= offset) as u32
    }

    /// The position of an offset.
    pub fn position(&self, offset: u32) -> Position {
        let line = self.line(offset);
        Position { line, column: offset - self.lines[line as usize - 1] + 1 }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn positions_count_lines_and_bytes_from_one() {
        let source = SourceFile::new("x", "a\né b\n\n");
        let expected = [(0, "1:1"), (1, "1:2"), (2, "2:1"), (4, "2:3"), (6, "2:5"), (7, "3:1"), (8, "4:1")];
        for (offset, position) in expected {
            assert_eq!(source.position(offset).to_string(), position, "offset {offset}");
        }
    }

    #[test]
    fn lines_have_their_text_without_the_newline() {
        let source = SourceFile::new("x", "a\n\nb\r\n");
        let lines: Vec<_> = (0..=5).map(|line| source.line_text(line)).collect();
        assert_eq!(lines, [None, Some("a"), Some(""), Some("b\r"), Some(""), None]);
        assert_eq!(source.line_count(), 4);
    }

    #[test]
    fn a_span_outside_of_the_text_or_inside_of_a_character_has_no_text() {
        let source = SourceFile::new("x", "é");
        assert_eq!(source.slice(Span::new(0, 2)), "é");
        assert_eq!(source.slice(Span::new(0, 1)), "");
        assert_eq!(source.slice(Span::new(2, 9)), "");
    }
}
