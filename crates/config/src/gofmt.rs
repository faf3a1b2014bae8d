//! The verbs of Go's `fmt.Sprintf`, which `string.format` promises to its users: `%v %d %s %q %x %+v %[2]s %08.3f`.
//!
//! A verb that does not suit its value is no error: the result says so in place, `%!d(string=hi)`.

use std::fmt::Write as _;
use std::sync::Arc;

use corten_syntax::quote;
use unicode_general_category::{GeneralCategory as Category, get_general_category};

use crate::limits::TEXT_BYTES_MAX;
use crate::number::Number;
use crate::value::{Data, OPTIONAL_SECRET_TYPE, Value};

/// The largest width or precision that is honoured, in characters. Larger ones are bad, as in the reference.
const WIDTH_MAX: i64 = 1_000_000;

/// Digits after which no binary floating-point number has another one that is not zero.
const FLOAT_DIGITS_MAX: usize = 1_100;

/// The result would be larger than [`TEXT_BYTES_MAX`].
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct TooLarge;

/// Formats values by a format string. Secrets are printed in the clear: the caller marks the result.
pub(crate) fn format(format: &str, args: &[Value]) -> Result<String, TooLarge> {
    let args: Vec<Arg> = args.iter().map(Arg::new).collect();
    format_args(format, &args)
}

/// Formats values by a format string, as `fmt.Sprintf` does.
///
/// # Errors
///
/// If the result would be larger than [`TEXT_BYTES_MAX`].
pub fn format_args(format: &str, args: &[Arg]) -> Result<String, TooLarge> {
    let mut printer = Printer { out: String::new(), flags: Flags::default(), too_large: false };
    printer.run(format.as_bytes(), format, args);
    if printer.too_large || printer.out.len() > TEXT_BYTES_MAX { Err(TooLarge) } else { Ok(printer.out) }
}

/// Text between single quotes with Go's escapes.
fn quote_char(character: char, ascii: bool) -> String {
    let mut text = match character {
        '\'' => "\\'".to_owned(),
        '"' => "\"".to_owned(),
        _ => {
            let quoted = if ascii { quote_ascii(character.encode_utf8(&mut [0; 4])) } else { quote_one(character) };
            quoted[1..quoted.len() - 1].to_owned()
        }
    };
    text.insert(0, '\'');
    text.push('\'');
    text
}

fn quote_one(character: char) -> String {
    quote(character.encode_utf8(&mut [0; 4]))
}

/// As [`quote`], with everything beyond ASCII escaped.
fn quote_ascii(text: &str) -> String {
    let mut out = String::with_capacity(text.len() + 2);
    for character in quote(text).chars() {
        match u32::from(character) {
            0..0x80 => out.push(character),
            // Writing to a string cannot fail.
            code @ 0x80..0x1_0000 => _ = write!(out, "\\u{code:04x}"),
            code => _ = write!(out, "\\U{code:08x}"),
        }
    }
    out
}

/// Whether a character can be shown as it is: letters, marks, numbers, punctuation, symbols and the ASCII space.
fn is_printable(character: char) -> bool {
    character == ' '
        || !matches!(
            get_general_category(character),
            Category::Control
                | Category::Format
                | Category::Surrogate
                | Category::PrivateUse
                | Category::Unassigned
                | Category::SpaceSeparator
                | Category::LineSeparator
                | Category::ParagraphSeparator
        )
}

/// Whether a text can stand between backquotes: on one line, without a backquote, control characters or a byte order
/// mark.
fn can_backquote(text: &str) -> bool {
    !text.chars().any(|c| matches!(c, '`' | '\u{7f}' | '\u{feff}' | '\0'..='\u{8}' | '\n'..='\u{1f}'))
}

/// A value as Go sees it when it is passed as an interface.
#[derive(Clone, Debug)]
pub enum Arg {
    /// No value.
    Nil,
    /// A truth value.
    Bool(bool),
    /// An `int`.
    Int(i64),
    /// An integer of another type, with the type's name: `int64`, `uint8`.
    TypedInt(&'static str, i64),
    /// A `uint64`.
    Uint(u64),
    /// A `float64`.
    Float(f64),
    /// A string.
    Text(Arc<str>),
    /// A slice, with the name of its type.
    Slice(&'static str, Vec<Arg>),
    /// A map, with the name of its type, in the order of its keys.
    Map(&'static str, Vec<(Arc<str>, Arg)>),
    /// A secret, which prints as the text it holds.
    Secret(Arc<str>),
    /// An optional secret: whether it is secret, and its text.
    OptionalSecret(bool, Arc<str>),
    /// A function or a capsule of a component: the name of its type and what is shown of it.
    Opaque(&'static str, String),
    /// A value whose type has a method `String`: the name of the type, what the method says, and the value itself, which
    /// is what verbs see that are not for texts.
    Stringer(&'static str, Arc<str>, Box<Arg>),
}

/// The type of a slice of anything.
const SLICE_TYPE: &str = "[]interface {}";
/// The type of a map of anything.
const MAP_TYPE: &str = "map[string]interface {}";

impl Arg {
    fn new(value: &Value) -> Self {
        match &value.data {
            Data::Null => Arg::Nil,
            Data::Bool(value) => Arg::Bool(*value),
            Data::Number(Number::Float(value)) => Arg::Float(*value),
            Data::Number(Number::Int(value)) => Arg::Int(*value),
            Data::Number(Number::Uint(value)) => i64::try_from(*value).map_or(Arg::Uint(*value), Arg::Int),
            Data::String(text) => Arg::Text(Arc::clone(text)),
            Data::Bytes(bytes) => Arg::Slice(SLICE_TYPE, bytes.iter().map(|byte| Arg::Int(i64::from(*byte))).collect()),
            Data::Array(items) => Arg::Slice(SLICE_TYPE, items.iter().map(Arg::new).collect()),
            Data::Object(fields) => {
                Arg::Map(MAP_TYPE, fields.iter().map(|(name, value)| (Arc::clone(name), Arg::new(value))).collect())
            }
            Data::Secret(text) => Arg::Secret(Arc::clone(text)),
            Data::OptionalSecret(secret) => Arg::OptionalSecret(secret.is_secret, Arc::clone(&secret.text)),
            Data::Function(_) => Arg::Opaque("func", value.describe()),
            Data::Capsule(capsule) => Arg::Opaque(capsule.type_name(), value.describe()),
        }
    }

    /// The name of the type, as `%T` prints it.
    pub fn type_name(&self) -> &'static str {
        match self {
            Arg::Nil => "<nil>",
            Arg::Bool(_) => "bool",
            Arg::Int(_) => "int",
            Arg::TypedInt(name, _) | Arg::Slice(name, _) | Arg::Map(name, _) | Arg::Stringer(name, ..) => name,
            Arg::Uint(_) => "uint64",
            Arg::Float(_) => "float64",
            Arg::Text(_) => "string",
            Arg::Secret(_) => crate::value::SECRET_TYPE,
            Arg::OptionalSecret(..) => OPTIONAL_SECRET_TYPE,
            Arg::Opaque(name, _) => name,
        }
    }

    /// Whether it is one of the types that Go prints without reflection.
    fn is_basic(&self) -> bool {
        matches!(self, Arg::Bool(_) | Arg::Int(_) | Arg::TypedInt(..) | Arg::Uint(_) | Arg::Float(_) | Arg::Text(_))
    }
}

#[derive(Clone, Copy, Default)]
struct Flags {
    sharp: bool,
    zero: bool,
    plus: bool,
    minus: bool,
    space: bool,
    /// `%#v`: the value as Go source.
    sharp_v: bool,
    /// `%+v`: the names of fields too.
    plus_v: bool,
    width: Option<usize>,
    precision: Option<usize>,
}

struct Printer {
    out: String,
    flags: Flags,
    too_large: bool,
}

/// A parsed number: its value and where the text goes on.
type Parsed = (Option<i64>, usize);

impl Printer {
    fn run(&mut self, bytes: &[u8], text: &str, args: &[Arg]) {
        let end = bytes.len();
        let (mut arg, mut reordered, mut at) = (0, false, 0);
        while at < end {
            if self.too_large {
                return;
            }
            let percent = memchr(bytes, at);
            self.out.push_str(&text[at..percent]);
            at = percent;
            if at >= end {
                break;
            }
            at += 1;
            self.flags = Flags::default();
            while let Some(flag) = bytes.get(at) {
                match flag {
                    b'#' => self.flags.sharp = true,
                    b'0' => self.flags.zero = true,
                    b'+' => self.flags.plus = true,
                    b'-' => self.flags.minus = true,
                    b' ' => self.flags.space = true,
                    _ => break,
                }
                at += 1;
            }
            let mut good = true;
            let mut after_index = self.index(bytes, &mut at, &mut arg, &mut reordered, &mut good, args.len());
            if bytes.get(at) == Some(&b'*') {
                at += 1;
                match take_width(args, &mut arg) {
                    Some(width) => {
                        if width < 0 {
                            self.flags.minus = true;
                            self.flags.zero = false;
                        }
                        self.flags.width = usize::try_from(width.unsigned_abs()).ok();
                    }
                    None => self.out.push_str("%!(BADWIDTH)"),
                }
                after_index = false;
            } else {
                let (width, next) = number(bytes, at, end);
                self.flags.width = width.and_then(|width| usize::try_from(width).ok());
                at = next;
                if after_index && width.is_some() {
                    good = false;
                }
            }
            if at + 1 < end && bytes[at] == b'.' {
                at += 1;
                if after_index {
                    good = false;
                }
                after_index = self.index(bytes, &mut at, &mut arg, &mut reordered, &mut good, args.len());
                if bytes.get(at) == Some(&b'*') {
                    at += 1;
                    match take_width(args, &mut arg).and_then(|precision| usize::try_from(precision).ok()) {
                        Some(precision) => self.flags.precision = Some(precision),
                        None => self.out.push_str("%!(BADPREC)"),
                    }
                    after_index = false;
                } else {
                    let (precision, next) = number(bytes, at, end);
                    self.flags.precision = precision.map_or(Some(0), |precision| usize::try_from(precision).ok());
                    at = next;
                }
            }
            if !after_index {
                self.index(bytes, &mut at, &mut arg, &mut reordered, &mut good, args.len());
            }
            // Everything that was skipped is ASCII, or a bracket with what it holds, so this is a character's start.
            let Some(verb) = text.get(at..).and_then(|rest| rest.chars().next()) else {
                self.out.push_str("%!(NOVERB)");
                break;
            };
            at += verb.len_utf8();
            if verb == '%' {
                self.out.push('%');
            } else if !good {
                self.put(format_args!("%!{verb}(BADINDEX)"));
            } else if let Some(value) = args.get(arg) {
                if matches!(verb, 'v' | 'w') {
                    self.flags.sharp_v = std::mem::take(&mut self.flags.sharp);
                    self.flags.plus_v = std::mem::take(&mut self.flags.plus);
                }
                self.arg(value, verb);
                arg += 1;
            } else {
                self.put(format_args!("%!{verb}(MISSING)"));
            }
        }
        if !reordered && arg < args.len() {
            self.flags = Flags::default();
            self.out.push_str("%!(EXTRA ");
            for (index, value) in args[arg..].iter().enumerate() {
                if index > 0 {
                    self.out.push_str(", ");
                }
                self.out.push_str(value.type_name());
                if !matches!(value, Arg::Nil) {
                    self.out.push('=');
                    self.arg(value, 'v');
                }
            }
            self.out.push(')');
        }
    }

    /// Reads an explicit index, `[2]`, if one stands here, and tells whether it did.
    fn index(
        &self,
        bytes: &[u8],
        at: &mut usize,
        arg: &mut usize,
        reordered: &mut bool,
        good: &mut bool,
        args: usize,
    ) -> bool {
        if bytes.get(*at) != Some(&b'[') {
            return false;
        }
        *reordered = true;
        let close = bytes[*at..].iter().position(|byte| *byte == b']');
        let (index, len) = match close {
            // The shortest index has three characters.
            Some(close) if bytes.len() - *at >= 3 => {
                let close = *at + close;
                let (index, next) = number(bytes, *at + 1, close);
                (index.filter(|_| next == close), close + 1 - *at)
            }
            _ => (None, 1),
        };
        *at += len;
        match index.map(|index| usize::try_from(index - 1)) {
            Some(Ok(index)) if index < args => *arg = index,
            _ => *good = false,
        }
        index.is_some()
    }

    fn put(&mut self, text: std::fmt::Arguments<'_>) {
        // Writing to a string cannot fail.
        _ = self.out.write_fmt(text);
    }

    fn arg(&mut self, arg: &Arg, verb: char) {
        match verb {
            _ if matches!(arg, Arg::Nil) => match verb {
                'T' | 'v' => self.pad("<nil>"),
                _ => self.put(format_args!("%!{verb}(<nil>)")),
            },
            'T' => self.text(arg.type_name()),
            // Addresses would differ from run to run, so nothing has one here.
            'p' => self.bad_verb(arg, verb),
            'w' if !arg.is_basic() => self.bad_verb(arg, verb),
            _ => self.value(arg, verb, 0),
        }
    }

    fn bad_verb(&mut self, arg: &Arg, verb: char) {
        self.put(format_args!("%!{verb}("));
        self.out.push_str(arg.type_name());
        self.out.push('=');
        self.value(arg, 'v', 0);
        self.out.push(')');
    }

    fn value(&mut self, arg: &Arg, verb: char, depth: usize) {
        if self.out.len() > TEXT_BYTES_MAX {
            self.too_large = true;
            return;
        }
        let sharp_v = self.flags.sharp_v;
        let separator = if sharp_v { ", " } else { " " };
        match arg {
            Arg::Nil if sharp_v && depth > 0 => self.out.push_str("interface {}(nil)"),
            Arg::Nil => self.out.push_str("<nil>"),
            Arg::Bool(value) if matches!(verb, 't' | 'v') => self.pad(if *value { "true" } else { "false" }),
            Arg::Int(value) | Arg::TypedInt(_, value) => {
                self.integer(arg, value.unsigned_abs(), *value < 0, verb);
            }
            Arg::Uint(value) => self.integer(arg, *value, false, verb),
            Arg::Float(value) => self.float_verb(arg, *value, verb),
            Arg::Text(text) | Arg::Secret(text) => self.text_verb(arg, text, verb),
            Arg::Stringer(_, text, _) if matches!(verb, 'v' | 's' | 'x' | 'X' | 'q') && !sharp_v => {
                self.text_verb(arg, text, verb);
            }
            Arg::Stringer(_, _, inner) => self.value(inner, verb, depth),
            Arg::Slice(name, items) => {
                if sharp_v {
                    self.out.push_str(name);
                }
                self.out.push(if sharp_v { '{' } else { '[' });
                for (index, item) in items.iter().enumerate() {
                    if index > 0 {
                        self.out.push_str(separator);
                    }
                    self.value(item, verb, depth + 1);
                }
                self.out.push(if sharp_v { '}' } else { ']' });
            }
            Arg::Map(name, fields) => {
                self.out.push_str(if sharp_v { name } else { "map" });
                self.out.push(if sharp_v { '{' } else { '[' });
                for (index, (name, value)) in fields.iter().enumerate() {
                    if index > 0 {
                        self.out.push_str(separator);
                    }
                    self.value(&Arg::Text(Arc::clone(name)), verb, depth + 1);
                    self.out.push(':');
                    self.value(value, verb, depth + 1);
                }
                self.out.push(if sharp_v { '}' } else { ']' });
            }
            Arg::OptionalSecret(is_secret, text) => {
                let named = sharp_v || self.flags.plus_v;
                if sharp_v {
                    self.out.push_str(arg.type_name());
                }
                self.out.push_str(if named { "{IsSecret:" } else { "{" });
                self.value(&Arg::Bool(*is_secret), verb, depth + 1);
                self.out.push_str(separator);
                self.out.push_str(if named { "Value:" } else { "" });
                self.value(&Arg::Text(Arc::clone(text)), verb, depth + 1);
                self.out.push('}');
            }
            Arg::Opaque(_, shown) if verb == 'v' => self.pad(shown),
            Arg::Bool(_) | Arg::Opaque(..) => self.bad_verb(arg, verb),
        }
    }

    fn text_verb(&mut self, arg: &Arg, text: &str, verb: char) {
        match verb {
            'v' if self.flags.sharp_v => self.quoted(text),
            'v' | 's' => self.text(text),
            'x' | 'X' => self.hex(text.as_bytes(), verb),
            'q' => self.quoted(text),
            _ => self.bad_verb(arg, verb),
        }
    }

    fn text(&mut self, text: &str) {
        self.pad(self.truncated(text));
    }

    fn quoted(&mut self, text: &str) {
        let text = self.truncated(text);
        if self.flags.sharp && can_backquote(text) {
            self.pad(&format!("`{text}`"));
        } else if self.flags.plus {
            self.pad(&quote_ascii(text));
        } else {
            self.pad(&quote(text));
        }
    }

    /// A text cut to as many characters as the precision says.
    fn truncated<'a>(&self, text: &'a str) -> &'a str {
        let end = self.flags.precision.and_then(|precision| text.char_indices().nth(precision));
        end.map_or(text, |(end, _)| &text[..end])
    }

    fn hex(&mut self, bytes: &[u8], verb: char) {
        let Flags { sharp, space, minus, width, precision, .. } = self.flags;
        let bytes = &bytes[..precision.unwrap_or(bytes.len()).min(bytes.len())];
        if bytes.is_empty() {
            self.padding(width.unwrap_or(0));
            return;
        }
        let mut shown = 2 * bytes.len();
        if space {
            shown = if sharp { 2 * shown } else { shown } + bytes.len() - 1;
        } else if sharp {
            shown += 2;
        }
        let padding = width.unwrap_or(0).saturating_sub(shown);
        if !minus {
            self.padding(padding);
        }
        for (index, byte) in bytes.iter().enumerate() {
            if space && index > 0 {
                self.out.push(' ');
            }
            if sharp && (space || index == 0) {
                self.out.extend(['0', verb]);
            }
            if verb == 'X' {
                self.put(format_args!("{byte:02X}"));
            } else {
                self.put(format_args!("{byte:02x}"));
            }
        }
        if minus {
            self.padding(padding);
        }
    }

    fn integer(&mut self, arg: &Arg, magnitude: u64, negative: bool, verb: char) {
        let code = if negative { magnitude.wrapping_neg() } else { magnitude };
        match verb {
            'v' if self.flags.sharp_v && matches!(arg, Arg::Uint(_)) => {
                let sharp = std::mem::replace(&mut self.flags.sharp, true);
                self.digits(&format!("{magnitude:x}"), magnitude, negative, 16, 'x');
                self.flags.sharp = sharp;
            }
            'v' | 'd' => self.digits(&magnitude.to_string(), magnitude, negative, 10, verb),
            'b' => self.digits(&format!("{magnitude:b}"), magnitude, negative, 2, verb),
            'o' | 'O' => self.digits(&format!("{magnitude:o}"), magnitude, negative, 8, verb),
            'x' => self.digits(&format!("{magnitude:x}"), magnitude, negative, 16, verb),
            'X' => self.digits(&format!("{magnitude:X}"), magnitude, negative, 16, verb),
            'c' => self.pad(character(code).encode_utf8(&mut [0; 4])),
            'q' => self.pad(&quote_char(character(code), self.flags.plus)),
            'U' => self.code_point(code),
            _ => self.bad_verb(arg, verb),
        }
    }

    /// An integer, given by the digits of its magnitude in a base.
    fn digits(&mut self, digits: &str, magnitude: u64, negative: bool, base: u32, verb: char) {
        let Flags { sharp, zero, plus, minus, space, width, precision, .. } = self.flags;
        if precision == Some(0) && magnitude == 0 {
            self.spaces(width.unwrap_or(0));
            return;
        }
        let mut least = precision.unwrap_or(0);
        if precision.is_none() && zero && !minus {
            // The sign takes one of the places; a prefix takes none.
            least = width.unwrap_or(0).saturating_sub(usize::from(negative || plus || space));
        }
        let zeros = least.saturating_sub(digits.len());
        let mut text = String::with_capacity(zeros + digits.len() + 3);
        text.push_str(if negative {
            "-"
        } else if plus {
            "+"
        } else if space {
            " "
        } else {
            ""
        });
        if verb == 'O' {
            text.push_str("0o");
        }
        if sharp {
            match base {
                2 => text.push_str("0b"),
                8 if zeros == 0 && !digits.starts_with('0') => text.push('0'),
                16 => text.push_str(if verb == 'X' { "0X" } else { "0x" }),
                _ => {}
            }
        }
        text.extend(std::iter::repeat_n('0', zeros));
        text.push_str(digits);
        self.pad_with_spaces(&text);
    }

    fn code_point(&mut self, code: u64) {
        let digits = self.flags.precision.map_or(4, |precision| precision.max(4));
        let hex = format!("{code:X}");
        let mut text = String::from("U+");
        text.extend(std::iter::repeat_n('0', digits.saturating_sub(hex.len())));
        text.push_str(&hex);
        let shown = u32::try_from(code).ok().and_then(char::from_u32).filter(|character| is_printable(*character));
        if let (true, Some(character)) = (self.flags.sharp, shown) {
            _ = write!(text, " '{character}'");
        }
        self.pad_with_spaces(&text);
    }

    fn float_verb(&mut self, arg: &Arg, value: f64, verb: char) {
        match verb {
            'v' => self.float(value, 'g', None),
            'b' | 'g' | 'G' | 'x' | 'X' => self.float(value, verb, None),
            'f' | 'e' | 'E' => self.float(value, verb, Some(6)),
            'F' => self.float(value, 'f', Some(6)),
            _ => self.bad_verb(arg, verb),
        }
    }

    fn float(&mut self, value: f64, verb: char, precision: Option<usize>) {
        let Flags { sharp, zero, plus, minus, space, width, .. } = self.flags;
        let precision = self.flags.precision.or(precision);
        let negative = value.is_sign_negative() && !value.is_nan();
        let sign = if negative {
            '-'
        } else if space && !plus {
            ' '
        } else {
            '+'
        };
        if !value.is_finite() {
            // Infinity always has its sign, NaN only where one is asked for.
            let text = match value.is_nan() {
                true if space || plus => format!("{sign}NaN"),
                true => "NaN".to_owned(),
                false => format!("{sign}Inf"),
            };
            self.pad_with_spaces(&text);
            return;
        }
        let mut number = float_text(value.abs(), verb, precision);
        if sharp && verb != 'b' {
            number = with_point(&number, verb, precision);
        }
        if plus || sign != '+' {
            let len = number.len() + 1;
            match width {
                Some(width) if zero && !minus && width > len => {
                    self.out.push(sign);
                    self.padding(width - len);
                    self.out.push_str(&number);
                }
                _ => self.pad(&format!("{sign}{number}")),
            }
            return;
        }
        self.pad(&number);
    }

    /// Writes a text, padded to the width: with spaces, or on the left with zeros if asked for.
    fn pad(&mut self, text: &str) {
        let padding = match self.flags.width {
            Some(width) => width.saturating_sub(text.chars().count()),
            None => 0,
        };
        if !self.flags.minus {
            self.padding(padding);
        }
        self.out.push_str(text);
        if self.flags.minus {
            self.padding(padding);
        }
    }

    fn pad_with_spaces(&mut self, text: &str) {
        let zero = std::mem::take(&mut self.flags.zero);
        self.pad(text);
        self.flags.zero = zero;
    }

    fn padding(&mut self, count: usize) {
        let fill = if self.flags.zero && !self.flags.minus { '0' } else { ' ' };
        self.fill(fill, count);
    }

    fn spaces(&mut self, count: usize) {
        self.fill(' ', count);
    }

    fn fill(&mut self, fill: char, count: usize) {
        if self.out.len().saturating_add(count) > TEXT_BYTES_MAX {
            self.too_large = true;
            return;
        }
        self.out.extend(std::iter::repeat_n(fill, count));
    }
}

/// The place of the next percent sign, or the end.
fn memchr(bytes: &[u8], at: usize) -> usize {
    bytes[at..].iter().position(|byte| *byte == b'%').map_or(bytes.len(), |offset| at + offset)
}

/// A decimal number between two places. One beyond the bounds of a width takes the rest of the text with it.
fn number(bytes: &[u8], start: usize, end: usize) -> Parsed {
    let (mut value, mut at) = (None, start);
    while at < end && bytes[at].is_ascii_digit() {
        if value.is_some_and(|value| value > WIDTH_MAX) {
            return (None, end);
        }
        value = Some(value.unwrap_or(0) * 10 + i64::from(bytes[at] - b'0'));
        at += 1;
    }
    if start >= end { (None, end) } else { (value, at) }
}

/// The next argument as a width or precision, if it is an integer within bounds.
fn take_width(args: &[Arg], arg: &mut usize) -> Option<i64> {
    let value = args.get(*arg)?;
    *arg += 1;
    match value {
        Arg::Int(value) | Arg::TypedInt(_, value) => {
            Some(*value).filter(|value| (-WIDTH_MAX..=WIDTH_MAX).contains(value))
        }
        _ => None,
    }
}

/// The character of a code point; U+FFFD for what is none.
fn character(code: u64) -> char {
    u32::try_from(code).ok().and_then(char::from_u32).unwrap_or(char::REPLACEMENT_CHARACTER)
}

/// A finite number without its sign, as Go's `strconv.FormatFloat` writes it. No precision asks for as many digits as it
/// takes to read the number back.
fn float_text(value: f64, verb: char, precision: Option<usize>) -> String {
    match verb {
        'f' => fixed(value, precision),
        'e' | 'E' => exponential(value, precision, verb),
        'g' | 'G' => general(value, precision, verb),
        'b' => {
            let (mantissa, exponent) = parts(value);
            format!("{mantissa}p{exponent:+}")
        }
        _ => hexadecimal(value, precision, verb),
    }
}

fn fixed(value: f64, precision: Option<usize>) -> String {
    let Some(precision) = precision else { return format!("{value}") };
    let mut text = format!("{value:.*}", precision.min(FLOAT_DIGITS_MAX));
    text.extend(std::iter::repeat_n('0', precision.saturating_sub(FLOAT_DIGITS_MAX)));
    text
}

fn exponential(value: f64, precision: Option<usize>, verb: char) -> String {
    let (mantissa, exponent) = scientific(value, precision);
    format!("{mantissa}{verb}{}{:02}", if exponent < 0 { '-' } else { '+' }, exponent.abs())
}

/// The mantissa with `precision` digits behind the point, and the exponent.
fn scientific(value: f64, precision: Option<usize>) -> (String, i32) {
    let text = match precision {
        Some(precision) => format!("{value:.*e}", precision.min(FLOAT_DIGITS_MAX)),
        None => format!("{value:e}"),
    };
    let (mantissa, exponent) = text.split_once('e').unwrap_or((&text, "0"));
    let mut mantissa = mantissa.to_owned();
    mantissa.extend(std::iter::repeat_n('0', precision.unwrap_or(0).saturating_sub(FLOAT_DIGITS_MAX)));
    (mantissa, exponent.parse().unwrap_or(0))
}

fn general(value: f64, precision: Option<usize>, verb: char) -> String {
    // A precision counts significant digits here, of which there is at least one.
    let significant = precision.map(|precision| precision.max(1));
    let (mantissa, exponent) = scientific(value, significant.map(|digits| digits - 1));
    let digits: String = mantissa.chars().filter(char::is_ascii_digit).collect();
    // Zeros at the end say nothing.
    let digits = match digits.trim_end_matches('0') {
        "" => "0",
        digits => digits,
    };
    let threshold = match significant {
        None => 6,
        Some(significant) => {
            let whole = digits.len() as i32 > exponent;
            if significant > digits.len() && whole { digits.len() as i32 } else { significant as i32 }
        }
    };
    if exponent < -4 || exponent >= threshold {
        let letter = if verb == 'G' { 'E' } else { 'e' };
        let fraction = if digits.len() > 1 { format!(".{}", &digits[1..]) } else { String::new() };
        let sign = if exponent < 0 { '-' } else { '+' };
        return format!("{}{fraction}{letter}{sign}{:02}", &digits[..1], exponent.abs());
    }
    if exponent < 0 {
        return format!("0.{}{digits}", "0".repeat(exponent.unsigned_abs() as usize - 1));
    }
    let whole = exponent as usize + 1;
    if digits.len() <= whole {
        return format!("{digits}{}", "0".repeat(whole - digits.len()));
    }
    format!("{}.{}", &digits[..whole], &digits[whole..])
}

/// The mantissa as an integer and the exponent of two that goes with it.
fn parts(value: f64) -> (u64, i32) {
    let bits = value.to_bits();
    let (fraction, exponent) = (bits & ((1 << 52) - 1), ((bits >> 52) & 0x7ff) as i32);
    if exponent == 0 { (fraction, -1074) } else { (fraction | 1 << 52, exponent - 1075) }
}

fn hexadecimal(value: f64, precision: Option<usize>, verb: char) -> String {
    let (mantissa, exponent) = parts(value);
    // The leading one stands at bit 60, so that the fraction is fifteen hexadecimal digits.
    let (mut mantissa, mut exponent) = match mantissa {
        0 => (0, 0),
        _ => {
            let shift = mantissa.leading_zeros() - 3;
            (mantissa << shift, exponent + 60 - shift as i32)
        }
    };
    if let Some(precision @ 0..15) = precision {
        let shift = precision as u32 * 4;
        let extra = (mantissa << shift) & ((1 << 60) - 1);
        mantissa >>= 60 - shift;
        if extra | (mantissa & 1) > 1 << 59 {
            mantissa += 1;
        }
        mantissa <<= 60 - shift;
        if mantissa & (1 << 61) != 0 {
            mantissa >>= 1;
            exponent += 1;
        }
    }
    let digits = format!("{:015x}", mantissa & ((1 << 60) - 1));
    let fraction = match precision {
        None => digits.trim_end_matches('0').to_owned(),
        Some(precision) => {
            let mut fraction = digits[..precision.min(15)].to_owned();
            fraction.extend(std::iter::repeat_n('0', precision.saturating_sub(15)));
            fraction
        }
    };
    let point = if fraction.is_empty() { "" } else { "." };
    let sign = if exponent < 0 { '-' } else { '+' };
    let text = format!("0x{}{point}{fraction}p{sign}{:02}", mantissa >> 60, exponent.abs());
    if verb == 'X' { text.to_uppercase() } else { text }
}

/// The text of a number with a decimal point even where nothing follows it and, for `%g` and `%x`, with the zeros at
/// the end that it would otherwise leave out.
fn with_point(number: &str, verb: char, precision: Option<usize>) -> String {
    let mut missing = match verb {
        'g' | 'G' | 'x' => precision.map_or(6, |precision| precision as i64),
        _ => 0,
    };
    let is_hex = matches!(verb, 'x' | 'X');
    let tail_at = number.find(|c: char| matches!(c, 'p' | 'P') || (!is_hex && matches!(c, 'e' | 'E')));
    let (body, tail) = number.split_at(tail_at.unwrap_or(number.len()));
    let mut seen = false;
    for character in body.chars().filter(|character| *character != '.') {
        seen |= character != '0';
        missing -= i64::from(seen);
    }
    let mut text = body.to_owned();
    if !body.contains('.') {
        missing -= i64::from(body == "0");
        text.push('.');
    }
    text.extend(std::iter::repeat_n('0', usize::try_from(missing).unwrap_or(0)));
    text.push_str(tail);
    text
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn a_result_above_the_limit_is_refused() {
        assert_eq!(format("%9999999d", &[Value::int(1)]).map(|text| text.len()), Ok(9_999_999));
        assert_eq!(format("%10000010d", &[Value::int(1)]).as_deref(), Ok("%!(NOVERB)%!(EXTRA int=1)"));
        assert_eq!(format(&"%[1]*[1]d".repeat(70), &[Value::int(1_000_000)]), Err(TooLarge));
        let wide = Value::array(vec![Value::int(1); 70]);
        assert_eq!(format("%999999d", &[wide]), Err(TooLarge));
    }

    fn value() -> impl Strategy<Value = Value> {
        let leaf = prop_oneof![
            Just(Value::NULL),
            any::<bool>().prop_map(Value::bool),
            any::<i64>().prop_map(Value::int),
            any::<u64>().prop_map(Value::uint),
            any::<f64>().prop_map(Value::float),
            ".{0,8}".prop_map(Value::from),
            ".{0,8}".prop_map(Value::secret),
            Just(Value::optional_secret("x", false)),
            Just(Value::bytes(vec![1u8, 255])),
        ];
        leaf.prop_recursive(2, 8, 3, |inner| {
            prop_oneof![
                prop::collection::vec(inner.clone(), 0..3).prop_map(Value::array),
                prop::collection::btree_map(".{0,3}".prop_map(Arc::from), inner, 0..3).prop_map(Value::object),
            ]
        })
    }

    proptest! {
        #[test]
        fn any_format_prints_without_a_panic(
            text in "(%[-+# 0]{0,3}(\\[[0-9]{0,2}\\]?)?([0-9]{0,2}|\\*)(\\.[0-9]{0,2}|\\.\\*)?(\\[[0-4]\\])?[a-zA-Z%!é\\[]?|.{0,3}){0,4}",
            args in prop::collection::vec(value(), 0..4),
        ) {
            prop_assert!(format(&text, &args).is_ok());
        }

        #[test]
        fn integers_and_floats_print_as_rust_prints_them(int: i64, float: f64, precision in 0usize..20) {
            let args = [Value::int(int), Value::float(float)];
            prop_assert_eq!(format("%d", &args[..1]).unwrap(), int.to_string());
            if float.is_finite() {
                let fixed = format(&format!("%.{precision}f"), &args[1..]).unwrap();
                prop_assert_eq!(fixed, format!("{float:.precision$}"));
                let back: f64 = format("%g", &args[1..]).unwrap().parse().unwrap();
                prop_assert_eq!(back.to_bits(), float.to_bits());
            }
        }
    }
}
