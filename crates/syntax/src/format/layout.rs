//! Lines of cells to text, with columns as wide as they must be: an elastic tab stop layout.
//!
//! A cell ends at a tab. Cells of one column that stand in consecutive lines have one width: that of the widest and a
//! space. What follows the last tab of a line belongs to no column. Empty cells at the start of a line are indentation
//! and become tabs.

/// How many columns a tab of the indentation stands for.
const TAB_COLUMNS: usize = 8;
/// Spaces between a cell and the next.
const PADDING_COLUMNS: usize = 1;

/// Collects text and breaks, and lays them out.
#[derive(Default)]
pub(super) struct Layout {
    text: String,
    cells: Vec<Cell>,
    lines: Vec<Line>,
    /// Where the text of the current cell starts.
    cell_start: usize,
    /// Where the last text of the current line ends that must stay as it is.
    verbatim_end: usize,
}

struct Cell {
    end: usize,
    width: usize,
    /// Ended by a tab that stays even when all of the column is empty.
    hard: bool,
    /// The run that the cell is part of: none for the last cell of a line.
    block: Option<usize>,
}

struct Line {
    /// Index after the last cell of the line.
    cells_end: usize,
    verbatim_end: usize,
    /// Whether columns end here.
    ends_section: bool,
}

/// A run of cells of one column in consecutive lines.
struct Block {
    width: usize,
    discardable: bool,
}

impl Layout {
    pub(super) fn is_empty(&self) -> bool {
        self.text.is_empty() && self.cells.is_empty()
    }

    /// Adds text without tabs and newlines. White space at the end of a line is dropped.
    pub(super) fn text(&mut self, text: &str) {
        self.text.push_str(text);
    }

    /// Adds text that stays as it is, newlines included; to the columns it is one line.
    pub(super) fn verbatim(&mut self, text: &str) {
        self.text.push_str(text);
        self.verbatim_end = self.text.len();
    }

    /// Adds text that stays as it is, in which each newline starts a line of the layout.
    pub(super) fn verbatim_lines(&mut self, text: &str) {
        for (index, line) in text.split('\n').enumerate() {
            if index > 0 {
                self.newline(false);
            }
            self.verbatim(line);
        }
    }

    /// Ends a cell. The tab of a soft one goes away when all of its column is empty.
    pub(super) fn tab(&mut self, hard: bool) {
        let width = self.text[self.cell_start..].chars().count();
        self.cells.push(Cell { end: self.text.len(), width, hard, block: None });
        self.cell_start = self.text.len();
    }

    /// Ends a line, and with it all columns when it ends a section.
    pub(super) fn newline(&mut self, ends_section: bool) {
        self.tab(false);
        self.lines.push(Line { cells_end: self.cells.len(), verbatim_end: self.verbatim_end, ends_section });
    }

    /// The text, without a newline at its end.
    pub(super) fn finish(mut self) -> String {
        self.newline(true);
        let blocks = self.columns();
        let mut out = String::with_capacity(self.text.len() + self.text.len() / 4);
        let (mut first, mut start) = (0, 0);
        for line in &self.lines {
            let line_start = out.len();
            let mut keep = line_start;
            let mut indenting = true;
            for &Cell { end, width, block, .. } in &self.cells[first..line.cells_end] {
                let column_width = block.map(|block| blocks[block].width());
                if width == 0 {
                    if let Some(column_width) = column_width {
                        if indenting {
                            push_repeated(&mut out, '\t', column_width.div_ceil(TAB_COLUMNS));
                        } else {
                            push_repeated(&mut out, ' ', column_width);
                        }
                    }
                } else {
                    indenting = false;
                    if start < line.verbatim_end && line.verbatim_end <= end {
                        keep = out.len() + (line.verbatim_end - start);
                    }
                    out.push_str(&self.text[start..end]);
                    if let Some(column_width) = column_width {
                        push_repeated(&mut out, ' ', column_width.saturating_sub(width));
                    }
                }
                start = end;
            }
            first = line.cells_end;
            let trimmed = out[keep..].trim_end_matches([' ', '\t']).len();
            out.truncate(keep + trimmed);
            out.push('\n');
        }
        out.pop();
        out
    }

    /// Finds the runs, and for each cell the run that it is part of.
    fn columns(&mut self) -> Vec<Block> {
        let mut blocks: Vec<Block> = Vec::new();
        // The runs that the line before is part of, one for each of its columns.
        let mut open: Vec<usize> = Vec::new();
        let mut first = 0;
        for line in &self.lines {
            let cells = &mut self.cells[first..line.cells_end - 1];
            open.truncate(cells.len());
            for (column, cell) in cells.iter_mut().enumerate() {
                if column == open.len() {
                    open.push(blocks.len());
                    blocks.push(Block { width: 0, discardable: true });
                }
                let block = &mut blocks[open[column]];
                block.width = block.width.max(cell.width + PADDING_COLUMNS);
                block.discardable &= cell.width == 0 && !cell.hard;
                cell.block = Some(open[column]);
            }
            if line.ends_section {
                open.clear();
            }
            first = line.cells_end;
        }
        blocks
    }
}

impl Block {
    fn width(&self) -> usize {
        if self.discardable { 0 } else { self.width }
    }
}

fn push_repeated(out: &mut String, character: char, count: usize) {
    out.extend(std::iter::repeat_n(character, count));
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Lays out a text in which `|` is a hard tab, `:` a soft one, a newline a line and `;` the end of a section.
    fn layout(text: &str) -> String {
        let mut layout = Layout::default();
        let mut rest = text;
        while let Some(at) = rest.find(['|', ':', '\n', ';']) {
            layout.text(&rest[..at]);
            match rest.as_bytes()[at] {
                b'|' => layout.tab(true),
                b':' => layout.tab(false),
                byte => layout.newline(byte == b';'),
            }
            rest = &rest[at + 1..];
        }
        layout.text(rest);
        layout.finish()
    }

    #[test]
    fn columns_are_as_wide_as_their_widest_cell_and_a_space() {
        let cases = [
            ("", ""),
            ("a:b", "a b"),
            ("a:b\nccc:d", "a   b\nccc d"),
            ("é:b\nccc:d", "é   b\nccc d"),
            // A line without the column, a section and the last cell of a line end it.
            ("a:b\nx\nccc:d", "a b\nx\nccc d"),
            ("a:b;ccc:d", "a b\nccc d"),
            ("a:b\nccc:d:e\nf:g", "a   b\nccc d e\nf   g"),
            // Indentation is tabs, whatever stands beside it.
            ("|a\n|b", "\ta\n\tb"),
            ("|a:b\n|ccc:d", "\ta   b\n\tccc d"),
            ("123456789|a\n|b", "123456789 a\n\t\tb"),
            // An empty soft column is none.
            ("a::b\nc::d", "a b\nc d"),
            ("a|:b", "a b"),
            ("a||b", "a  b"),
            ("a  ;  ;b \n", "a\n\nb\n"),
        ];
        for (text, expected) in cases {
            assert_eq!(layout(text), expected, "{text:?}");
        }
    }

    #[test]
    fn verbatim_text_keeps_its_tabs_and_trailing_spaces() {
        let mut layout = Layout::default();
        layout.text("a");
        layout.tab(false);
        layout.verbatim_lines("`x\t \n\t y");
        layout.text("  ");
        layout.newline(true);
        layout.verbatim("// c  ");
        assert_eq!(layout.finish(), "a `x\t \n\t y\n// c  ");
    }
}
