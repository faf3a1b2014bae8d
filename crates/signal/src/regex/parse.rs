//! The parser of Go's regular expression syntax (RE2 with the Perl extensions, as `regexp.Compile` takes it).
//!
//! It writes the intermediate form of the `regex-syntax` crate, so that no pattern is printed and read again, and
//! stops where Go stops, with Go's words. It does not recurse: groups are kept on a stack.

use regex_syntax::hir::{Capture, Class, ClassUnicode, Dot, Hir, HirKind, Look, Repetition};

use super::classes;
use super::{CLASS_RANGES_MAX, HEIGHT_MAX, PATTERN_BYTES_MAX, REPEAT_MAX, RegexError};

/// What a pattern says.
pub(super) struct Parsed {
    /// What it matches.
    pub(super) hir: Hir,
    /// The names of the groups. The first stands for the whole match and has none.
    pub(super) names: Vec<Option<Box<str>>>,
}

const BAD_RANGE: &str = "invalid character class range";
const BAD_ESCAPE: &str = "invalid escape sequence";
const BAD_NAME: &str = "invalid named capture";
const BAD_PERL: &str = "invalid or unsupported Perl syntax";
const NESTED_REPEAT: &str = "invalid nested repetition operator";
const BAD_REPEAT: &str = "invalid repeat count";
const NO_BRACKET: &str = "missing closing ]";
const NO_PAREN: &str = "missing closing )";
const NO_OPERAND: &str = "missing argument to repetition operator";
const TRAILING_BACKSLASH: &str = "trailing backslash at end of expression";
const STRAY_PAREN: &str = "unexpected )";
const TOO_DEEP: &str = "expression nests too deeply";
pub(super) const TOO_LARGE: &str = "expression too large";

/// Parses a whole pattern.
pub(super) fn parse(pattern: &str) -> Result<Parsed, RegexError> {
    let parser = Parser {
        pattern,
        at: 0,
        flags: Flags::default(),
        frames: vec![Frame::default()],
        names: vec![None],
        ranges: 0,
        last_repeat: None,
    };
    if pattern.len() > PATTERN_BYTES_MAX {
        return Err(parser.whole(TOO_LARGE));
    }
    parser.run()
}

/// What `(?imsU)` sets.
#[derive(Clone, Copy, Default)]
struct Flags {
    fold: bool,
    multi_line: bool,
    dot_newline: bool,
    ungreedy: bool,
}

/// A part of the pattern.
struct Item {
    hir: Hir,
    /// How deep the tree is.
    height: usize,
    /// How often the innermost part stands there when counted repetitions are written out, along the worst path.
    copies: usize,
}

impl Item {
    fn leaf(hir: Hir) -> Self {
        Item { hir, height: 1, copies: 1 }
    }
}

/// An open group, or the whole pattern.
#[derive(Default)]
struct Frame {
    /// What held where the group opened.
    flags: Flags,
    /// The number of the group, if it captures.
    capture: Option<u32>,
    /// The branches that a `|` has ended.
    branches: Vec<Item>,
    /// The parts of the open branch.
    items: Vec<Item>,
    /// Text that follows the parts and is not one of them yet: only its last character can be repeated.
    text: String,
}

impl Frame {
    /// Makes the pending text a part.
    fn flush(&mut self) {
        if !self.text.is_empty() {
            let text = std::mem::take(&mut self.text);
            self.items.push(Item::leaf(Hir::literal(text.into_bytes())));
        }
    }

    /// Takes the last part, which is what a repetition applies to.
    fn pop(&mut self) -> Option<Item> {
        match self.text.pop() {
            Some(last) => Some(Item::leaf(literal(last))),
            None => self.items.pop(),
        }
    }

    /// Ends the open branch.
    fn end_branch(&mut self) {
        self.flush();
        let branch = combine(std::mem::take(&mut self.items), Hir::concat);
        self.branches.push(branch);
    }
}

/// Joins parts into one.
fn combine(mut items: Vec<Item>, join: fn(Vec<Hir>) -> Hir) -> Item {
    if items.len() == 1
        && let Some(item) = items.pop()
    {
        return item;
    }
    let height = 1 + items.iter().map(|item| item.height).max().unwrap_or(0);
    let copies = items.iter().map(|item| item.copies).max().unwrap_or(1);
    Item { hir: join(items.into_iter().map(|item| item.hir).collect()), height, copies }
}

fn literal(c: char) -> Hir {
    Hir::literal(c.encode_utf8(&mut [0; 4]).as_bytes())
}

struct Parser<'p> {
    pattern: &'p str,
    at: usize,
    flags: Flags,
    frames: Vec<Frame>,
    names: Vec<Option<Box<str>>>,
    /// How many ranges the character classes have so far.
    ranges: usize,
    /// Where the repetition operator begins that ends where the parser stands.
    last_repeat: Option<usize>,
}

impl<'p> Parser<'p> {
    fn rest(&self) -> &'p str {
        &self.pattern[self.at..]
    }

    fn peek(&self) -> Option<char> {
        self.rest().chars().next()
    }

    fn bump(&mut self) -> Option<char> {
        let c = self.peek()?;
        self.at += c.len_utf8();
        Some(c)
    }

    fn eat(&mut self, c: char) -> bool {
        let there = self.peek() == Some(c);
        if there {
            self.at += c.len_utf8();
        }
        there
    }

    /// An error about the pattern from a place up to where the parser stands.
    fn error(&self, what: &'static str, from: usize) -> RegexError {
        RegexError { what, expression: self.pattern[from..self.at].to_owned(), offset: from }
    }

    /// An error about the pattern from a place to its end.
    fn error_to_end(&self, what: &'static str, from: usize) -> RegexError {
        RegexError { what, expression: self.pattern[from..].to_owned(), offset: from }
    }

    /// An error that shows the whole pattern.
    fn whole(&self, what: &'static str) -> RegexError {
        RegexError { what, expression: self.pattern.to_owned(), offset: self.at.min(self.pattern.len()) }
    }

    /// The innermost open group. There is always one: the whole pattern.
    fn frame(&mut self) -> &mut Frame {
        if self.frames.is_empty() {
            self.frames.push(Frame::default());
        }
        let last = self.frames.len() - 1;
        &mut self.frames[last]
    }

    fn push(&mut self, item: Item) -> Result<(), RegexError> {
        if item.height > HEIGHT_MAX {
            return Err(self.whole(TOO_DEEP));
        }
        let frame = self.frame();
        frame.flush();
        frame.items.push(item);
        Ok(())
    }

    fn push_look(&mut self, look: Look) -> Result<(), RegexError> {
        self.push(Item::leaf(Hir::look(look)))
    }

    fn push_char(&mut self, c: char) -> Result<(), RegexError> {
        if self.flags.fold && classes::folds(c) {
            let class = classes::folded(ClassUnicode::new([classes::range(c, c)]));
            return self.push_class(class);
        }
        self.frame().text.push(c);
        Ok(())
    }

    /// A code point that an escape names. A surrogate is in no text, so it matches nothing.
    fn push_code(&mut self, code: u32) -> Result<(), RegexError> {
        match char::from_u32(code) {
            Some(c) => self.push_char(c),
            None => self.push(Item::leaf(Hir::fail())),
        }
    }

    fn push_class(&mut self, class: ClassUnicode) -> Result<(), RegexError> {
        self.ranges += class.ranges().len();
        if self.ranges > CLASS_RANGES_MAX {
            return Err(self.whole(TOO_LARGE));
        }
        self.push(Item::leaf(Hir::class(Class::Unicode(class))))
    }

    fn run(mut self) -> Result<Parsed, RegexError> {
        while let Some(c) = self.peek() {
            let start = self.at;
            let mut repeat = None;
            match c {
                '(' if self.rest().starts_with("(?") => self.perl_group()?,
                '(' => {
                    self.at += 1;
                    self.open_capture(None)?;
                }
                '|' => {
                    self.at += 1;
                    self.frame().end_branch();
                }
                ')' => {
                    self.close()?;
                    self.at += 1;
                }
                '^' => {
                    self.at += 1;
                    self.push_look(if self.flags.multi_line { Look::StartLF } else { Look::Start })?;
                }
                '$' => {
                    self.at += 1;
                    self.push_look(if self.flags.multi_line { Look::EndLF } else { Look::End })?;
                }
                '.' => {
                    self.at += 1;
                    let dot = if self.flags.dot_newline { Dot::AnyChar } else { Dot::AnyCharExceptLF };
                    self.push(Item::leaf(Hir::dot(dot)))?;
                }
                '[' => self.class()?,
                '*' | '+' | '?' => {
                    self.at += 1;
                    let (min, max) = match c {
                        '*' => (0, None),
                        '+' => (1, None),
                        _ => (0, Some(1)),
                    };
                    self.repeat(min, max, start, false)?;
                    repeat = Some(start);
                }
                '{' => match self.repeat_range()? {
                    Some((min, max)) => {
                        self.repeat(min, max, start, true)?;
                        repeat = Some(start);
                    }
                    // What is no repetition is a brace.
                    None => {
                        self.at += 1;
                        self.push_char('{')?;
                    }
                },
                '\\' => self.backslash()?,
                _ => {
                    self.at += c.len_utf8();
                    self.push_char(c)?;
                }
            }
            self.last_repeat = repeat;
        }
        let mut whole = match self.frames.pop() {
            Some(frame) if self.frames.is_empty() => frame,
            _ => return Err(self.whole(NO_PAREN)),
        };
        whole.end_branch();
        let item = combine(whole.branches, Hir::alternation);
        if item.height > HEIGHT_MAX {
            return Err(self.whole(TOO_DEEP));
        }
        Ok(Parsed { hir: item.hir, names: self.names })
    }

    fn open(&mut self, capture: Option<u32>) -> Result<(), RegexError> {
        if self.frames.len() > HEIGHT_MAX {
            return Err(self.whole(TOO_DEEP));
        }
        self.frames.push(Frame { flags: self.flags, capture, ..Frame::default() });
        Ok(())
    }

    fn open_capture(&mut self, name: Option<&str>) -> Result<(), RegexError> {
        let index = self.names.len() as u32;
        self.names.push(name.map(Box::from));
        self.open(Some(index))
    }

    /// At `)`.
    fn close(&mut self) -> Result<(), RegexError> {
        if self.frames.len() < 2 {
            return Err(self.whole(STRAY_PAREN));
        }
        let Some(mut frame) = self.frames.pop() else { return Err(self.whole(STRAY_PAREN)) };
        frame.end_branch();
        let mut item = combine(frame.branches, Hir::alternation);
        if let Some(index) = frame.capture {
            // Names are kept beside: Go lets several groups have one name.
            item.hir = Hir::capture(Capture { index, name: None, sub: Box::new(item.hir) });
            item.height += 1;
        }
        self.flags = frame.flags;
        self.push(item)
    }

    /// At `(?`: a named group, or flags, or a group without a number.
    fn perl_group(&mut self) -> Result<(), RegexError> {
        let start = self.at;
        let rest = self.rest();
        let name_at = match () {
            () if rest.len() > 4 && rest.starts_with("(?P<") => 4,
            () if rest.len() > 3 && rest.starts_with("(?<") => 3,
            () => 0,
        };
        if name_at > 0 {
            let Some(end) = rest.find('>') else { return Err(self.error_to_end(BAD_NAME, start)) };
            let name = &rest[name_at..end];
            self.at += end + 1;
            if name.is_empty() || !name.bytes().all(|byte| byte == b'_' || byte.is_ascii_alphanumeric()) {
                return Err(self.error(BAD_NAME, start));
            }
            return self.open_capture(Some(name));
        }
        self.at += 2;
        let mut flags = self.flags;
        let (mut on, mut flag_seen) = (true, false);
        while let Some(c) = self.bump() {
            match c {
                'i' => flags.fold = on,
                'm' => flags.multi_line = on,
                's' => flags.dot_newline = on,
                'U' => flags.ungreedy = on,
                '-' if on => {
                    (on, flag_seen) = (false, false);
                    continue;
                }
                ':' | ')' if on || flag_seen => {
                    if c == ':' {
                        self.open(None)?;
                    }
                    self.flags = flags;
                    return Ok(());
                }
                _ => break,
            }
            flag_seen = true;
        }
        Err(self.error(BAD_PERL, start))
    }

    /// Behind a repetition operator that begins at `start`: applies it to the last part.
    fn repeat(&mut self, min: u32, max: Option<u32>, start: usize, counted: bool) -> Result<(), RegexError> {
        let lazy = self.eat('?');
        if let Some(last) = self.last_repeat {
            return Err(self.error(NESTED_REPEAT, last));
        }
        let Some(operand) = self.frame().pop() else { return Err(self.error(NO_OPERAND, start)) };
        let mut copies = operand.copies;
        if counted {
            // What stands there at most once does not multiply what is within.
            let times = max.unwrap_or(min).max(1) as usize;
            copies = if max == Some(0) { 1 } else { copies * times };
            if copies > REPEAT_MAX as usize {
                return Err(self.error(BAD_REPEAT, start));
            }
        }
        let greedy = lazy == self.flags.ungreedy;
        let height = operand.height + 1;
        let hir = Hir::repetition(Repetition { min, max, greedy, sub: Box::new(operand.hir) });
        self.push(Item { hir, height, copies })
    }

    /// At `{`: reads `{n}`, `{n,}` or `{n,m}`, or nothing if it is none of these.
    fn repeat_range(&mut self) -> Result<Option<(u32, Option<u32>)>, RegexError> {
        let start = self.at;
        let bytes = self.pattern.as_bytes();
        let mut at = start + 1;
        let Some(min) = decimal(bytes, &mut at) else { return Ok(None) };
        let mut max = Some(min);
        if bytes.get(at) == Some(&b',') {
            at += 1;
            max = None;
            if bytes.get(at) != Some(&b'}') {
                let Some(bound) = decimal(bytes, &mut at) else { return Ok(None) };
                max = Some(bound);
            }
        }
        if bytes.get(at) != Some(&b'}') {
            return Ok(None);
        }
        self.at = at + 1;
        if min > REPEAT_MAX || max.is_some_and(|max| max > REPEAT_MAX || min > max) {
            return Err(self.error(BAD_REPEAT, start));
        }
        Ok(Some((min, max)))
    }

    /// At a backslash outside of a class.
    fn backslash(&mut self) -> Result<(), RegexError> {
        let start = self.at;
        let look = match self.pattern.as_bytes().get(start + 1) {
            Some(b'A') => Look::Start,
            Some(b'z') => Look::End,
            Some(b'b') => Look::WordAscii,
            Some(b'B') => Look::WordAsciiNegate,
            Some(b'C') => {
                self.at += 2;
                return Err(self.error(BAD_ESCAPE, start));
            }
            Some(b'Q') => {
                let quoted = &self.pattern[start + 2..];
                let end = quoted.find("\\E");
                self.at = end.map_or(self.pattern.len(), |end| start + 2 + end + 2);
                return quoted[..end.unwrap_or(quoted.len())].chars().try_for_each(|c| self.push_char(c));
            }
            _ => {
                if let Some(class) = self.class_escape()? {
                    return self.push_class(class);
                }
                let code = self.escape()?;
                return self.push_code(code);
            }
        };
        self.at += 2;
        self.push_look(look)
    }

    /// At a backslash: reads `\d`, `\pL` and their like, or nothing if it is none of these.
    fn class_escape(&mut self) -> Result<Option<ClassUnicode>, RegexError> {
        let start = self.at;
        let Some(&letter) = self.pattern.as_bytes().get(start + 1) else { return Ok(None) };
        if let Some(class) = classes::perl(letter, self.flags.fold) {
            self.at += 2;
            return Ok(Some(class));
        }
        if !matches!(letter, b'p' | b'P') {
            return Ok(None);
        }
        self.at += 2;
        let mut name = match self.bump() {
            None => "",
            Some('{') => {
                let Some(len) = self.rest().find('}') else { return Err(self.error_to_end(BAD_RANGE, start)) };
                let name = &self.rest()[..len];
                self.at += len + 1;
                name
            }
            Some(_) => &self.pattern[start + 2..self.at],
        };
        let mut negated = letter == b'P';
        if let Some(rest) = name.strip_prefix('^') {
            name = rest;
            negated = !negated;
        }
        let Some(mut class) = classes::unicode(name) else { return Err(self.error(BAD_RANGE, start)) };
        if self.flags.fold {
            class = classes::folded(class);
        }
        if negated {
            class.negate();
        }
        Ok(Some(class))
    }

    /// At a backslash: reads an escape that stands for one character.
    fn escape(&mut self) -> Result<u32, RegexError> {
        let start = self.at;
        self.at += 1;
        let Some(c) = self.bump() else {
            return Err(RegexError { what: TRAILING_BACKSLASH, expression: String::new(), offset: start });
        };
        let octal = |parser: &Self| parser.peek().and_then(|c| c.to_digit(8));
        let code = match c {
            // A digit alone would refer back to a group.
            '1'..='7' if octal(self).is_none() => None,
            '0'..='7' => {
                let mut code = u32::from(c) - u32::from('0');
                for _ in 0..2 {
                    let Some(digit) = octal(self) else { break };
                    code = code * 8 + digit;
                    self.at += 1;
                }
                Some(code)
            }
            'x' => self.hexadecimal(),
            'a' => Some(0x07),
            'f' => Some(0x0c),
            'n' => Some(0x0a),
            'r' => Some(0x0d),
            't' => Some(0x09),
            'v' => Some(0x0b),
            c if c.is_ascii() && !c.is_ascii_alphanumeric() => Some(u32::from(c)),
            _ => None,
        };
        code.ok_or_else(|| self.error(BAD_ESCAPE, start))
    }

    /// Behind `\x`.
    fn hexadecimal(&mut self) -> Option<u32> {
        let first = self.bump()?;
        if first != '{' {
            let second = self.bump()?;
            return Some(first.to_digit(16)? * 16 + second.to_digit(16)?);
        }
        let (mut code, mut digits) = (0, 0);
        loop {
            let c = self.bump()?;
            if c == '}' {
                return (digits > 0).then_some(code);
            }
            code = code * 16 + c.to_digit(16)?;
            if code > u32::from(char::MAX) {
                return None;
            }
            digits += 1;
        }
    }

    /// At `[`.
    fn class(&mut self) -> Result<(), RegexError> {
        let start = self.at;
        self.at += 1;
        let negated = self.eat('^');
        let mut class = ClassUnicode::empty();
        let mut first = true;
        while first || self.peek() != Some(']') {
            first = false;
            if let Some(named) = self.posix_class()? {
                class.union(&named);
                continue;
            }
            if self.peek() == Some('\\')
                && let Some(escaped) = self.class_escape()?
            {
                class.union(&escaped);
                continue;
            }
            let range_at = self.at;
            let low = self.class_char(start)?;
            let mut high = low;
            let rest = self.rest().as_bytes();
            if rest.len() >= 2 && rest[0] == b'-' && rest[1] != b']' {
                self.at += 1;
                high = self.class_char(start)?;
                if high < low {
                    return Err(self.error(BAD_RANGE, range_at));
                }
            }
            if let Some((low, high)) = without_surrogates(low, high) {
                class.push(classes::range(low, high));
            }
            if class.ranges().len() > CLASS_RANGES_MAX {
                return Err(self.whole(TOO_LARGE));
            }
        }
        self.at += 1;
        // The complement of what is closed under folding is closed too, so that folding once, here, is enough.
        if self.flags.fold {
            class = classes::folded(class);
        }
        if negated {
            class.negate();
        }
        self.push_class(class)
    }

    /// In a class: reads `[:alpha:]`, or nothing if there is none.
    fn posix_class(&mut self) -> Result<Option<ClassUnicode>, RegexError> {
        let Some(inner) = self.rest().strip_prefix("[:") else { return Ok(None) };
        let Some(len) = inner.find(":]") else { return Ok(None) };
        let start = self.at;
        self.at += len + 4;
        match classes::posix(&inner[..len], self.flags.fold) {
            Some(class) => Ok(Some(class)),
            None => Err(self.error(BAD_RANGE, start)),
        }
    }

    /// A character of the class that begins at `class_at`.
    fn class_char(&mut self, class_at: usize) -> Result<u32, RegexError> {
        match self.peek() {
            None => Err(self.error_to_end(NO_BRACKET, class_at)),
            Some('\\') => self.escape(),
            Some(c) => {
                self.at += c.len_utf8();
                Ok(u32::from(c))
            }
        }
    }
}

/// Reads a number without leading zeros. One that does not fit is the largest.
fn decimal(bytes: &[u8], at: &mut usize) -> Option<u32> {
    let digits = bytes[*at..].iter().take_while(|byte| byte.is_ascii_digit()).count();
    let text = &bytes[*at..*at + digits];
    if digits == 0 || (digits > 1 && text[0] == b'0') {
        return None;
    }
    *at += digits;
    Some(text.iter().fold(0u32, |sum, digit| sum.saturating_mul(10).saturating_add(u32::from(digit - b'0'))))
}

/// A range of code points without the surrogates at its ends. Those within it are in no text anyway.
fn without_surrogates(low: u32, high: u32) -> Option<(char, char)> {
    const SURROGATES: std::ops::RangeInclusive<u32> = 0xd800..=0xdfff;
    let low = if SURROGATES.contains(&low) { 0xe000 } else { low };
    let high = if SURROGATES.contains(&high) { 0xd7ff } else { high };
    if low > high {
        return None;
    }
    Some((char::from_u32(low)?, char::from_u32(high)?))
}

/// Whether a part matches exactly the characters of a class, and which.
pub(super) fn class_of(hir: &Hir) -> Option<&ClassUnicode> {
    match hir.kind() {
        HirKind::Class(Class::Unicode(class)) => Some(class),
        _ => None,
    }
}
